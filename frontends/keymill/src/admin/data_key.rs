//! `keymill data-key`: data keys that the server keeps, encrypted, for programs that all need the same one.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use keymill_core::id::{DataKeyName, DataKeyVersionId, KeyRef};
use keymill_core::limit;
use keymill_core::operation::{
    CreateManagedDataKeyRequest, CreateManagedDataKeyVersionRequest, DeleteManagedDataKeyRequest,
    GetManagedDataKeyRequest, ListManagedDataKeyVersionsRequest, ListManagedDataKeysRequest, Reply,
};

use super::{Api, ClientArgs, ask, ask_all, of_another, parse_key};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};
use crate::private;

/// Keep data keys on the server, encrypted under a key of it, for programs that all need the same one
#[derive(Args, Clone, Debug)]
pub(crate) struct DataKeyArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: DataKeyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum DataKeyCommand {
    /// Make a data key
    Create {
        /// Its name
        #[arg(value_name = "NAME")]
        name: DataKeyName,
        /// The key that it is encrypted under: id, ARN or alias
        #[arg(long, value_name = "KEY", value_parser = parse_key)]
        key: KeyRef,
        /// How long it is
        #[arg(long, value_name = "BYTES", default_value_t = 32,
            value_parser = clap::value_parser!(u32).range(1..=limit::DATA_KEY_BYTES as i64))]
        bytes: u32,
    },
    /// Make another version of a data key; the ones before stay
    NewVersion {
        /// Its name
        #[arg(value_name = "NAME")]
        name: DataKeyName,
    },
    /// List the data keys under the keys that this access key may see
    List,
    /// List the versions of a data key
    Versions {
        /// Its name
        #[arg(value_name = "NAME")]
        name: DataKeyName,
    },
    /// Fetch a data key in clear: its first version, unless told otherwise
    Get(GetArgs),
    /// Delete a data key with all its versions: what was encrypted under them is lost, unless somebody kept them
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: DataKeyName,
    },
}

#[derive(Args, Clone, Debug)]
struct GetArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: DataKeyName,
    /// The version id, as `data-key versions` lists it
    #[arg(long, value_name = "ID", value_parser = parse_version, conflicts_with = "latest")]
    version: Option<DataKeyVersionId>,
    /// The latest version
    #[arg(long)]
    latest: bool,
    /// Write its bytes to this file, for its owner alone (0600); it must not exist yet
    #[arg(long = "out", value_name = "FILE", required_unless_present = "stdout", conflicts_with = "stdout")]
    output: Option<PathBuf>,
    /// Write its bytes to standard output
    #[arg(long)]
    stdout: bool,
}

fn parse_version(text: &str) -> Result<DataKeyVersionId, String> {
    DataKeyVersionId::parse(text)
        .ok_or_else(|| "it is the id of a version, as `keymill data-key versions` lists it".to_owned())
}

/// Does what the command says.
pub(crate) fn run(args: DataKeyArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        DataKeyCommand::Create { name, key, bytes } => {
            let request = CreateManagedDataKeyRequest {
                data_key_name: name.clone(),
                key_id: key,
                key_spec: None,
                number_of_bytes: Some(bytes),
                timeout_ms,
            };
            let reply = ask!(api, CreateManagedDataKey, request);
            let key = reply.key_id;
            api.done(&reply, format_args!("data key {name} of {bytes} bytes is kept under key {key}"))
        }
        DataKeyCommand::NewVersion { name } => {
            let request = CreateManagedDataKeyVersionRequest { data_key_name: name.clone(), timeout_ms };
            let reply = ask!(api, CreateManagedDataKeyVersion, request);
            let version = reply.data_key_version_id;
            api.done(&reply, format_args!("data key {name} has the new version {version}"))
        }
        DataKeyCommand::List => list(&api),
        DataKeyCommand::Versions { name } => versions(&api, name),
        DataKeyCommand::Get(args) => get(&api, args),
        DataKeyCommand::Delete { name } => {
            let request = DeleteManagedDataKeyRequest { data_key_name: name.clone(), timeout_ms };
            let reply = ask!(api, DeleteManagedDataKey, request);
            api.done(&reply, format_args!("data key {name} is deleted"))
        }
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply =
        ask_all!(api, ListManagedDataKeys, managed_data_keys.managed_data_key, |page_number, page_size| {
            ListManagedDataKeysRequest { page_number, page_size, timeout_ms }
        });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["name", "key id", "bytes", "versions", "created"]).numbers(&[2, 3]);
    for row in reply.managed_data_keys.managed_data_key {
        rows.add(&[&row.data_key_name, &row.key_id, &row.number_of_bytes, &row.versions, &row.creation_date]);
    }
    rows.print("no data keys; `keymill data-key create NAME --key KEY` makes one")
}

fn versions(api: &Api, name: DataKeyName) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(
        api,
        ListManagedDataKeyVersions,
        managed_data_key_versions.managed_data_key_version,
        |page_number, page_size| {
            let data_key_name = name.clone();
            ListManagedDataKeyVersionsRequest { data_key_name, page_number, page_size, timeout_ms }
        }
    );
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["version id", "created"]);
    for row in reply.managed_data_key_versions.managed_data_key_version {
        rows.add(&[&row.data_key_version_id, &row.creation_date]);
    }
    rows.print("no versions")
}

fn get(api: &Api, args: GetArgs) -> Result<()> {
    if api.json {
        let why = "a data key is written to a file or to standard output, not into JSON";
        return Err(Failure::wrong_use(why).next("leave --json out"));
    }
    let request = GetManagedDataKeyRequest {
        data_key_name: args.name,
        data_key_version_id: args.version,
        use_latest: Some(args.latest),
        timeout_ms: None,
    };
    let answered = api.call(request)?;
    let Reply::GetManagedDataKey(reply) = answered.reply()? else {
        return Err(of_another(answered.reply()?.operation()));
    };
    match args.output {
        Some(path) => {
            private::create(&path, &reply.plaintext)?;
            let (version, path) = (reply.data_key_version_name, path.display());
            output::line(format_args!("{version} is in {path}"))
        }
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(&reply.plaintext).and_then(|()| out.flush()).map_err(Failure::of_output)
        }
    }
}
