//! `keymill secret`: credentials that the server keeps, in versions. A value comes from a file or standard input and goes to standard output,
//! never into arguments, which everybody on the machine can read.

pub(crate) mod child;
mod edit;
mod export;
mod fetch;
mod import;
mod memory;
mod place;
mod render;
mod reseal;
mod run;
mod template;

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use keymill_core::id::{KeyRef, SecretName, SecretRef, SecretVersionId, VersionStage};
use keymill_core::key::AutomaticRotation;
use keymill_core::operation::*;
use keymill_core::secret::SecretInterval;
use keymill_core::{Sensitive, limit};
use zeroize::Zeroizing;

use super::{Api, ClientArgs, ask, ask_all, of_another, parse_key};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows, or_dash};

/// Keep credentials on the server, in versions that are encrypted under a key of it
#[derive(Args, Clone, Debug)]
pub(crate) struct SecretArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum SecretCommand {
    /// Make a secret with its first version
    Create(CreateArgs),
    /// Put a value as a new version, which is the current one then
    Put(PutArgs),
    /// Print a value to standard output, as it is: the current one, unless told otherwise
    Get(GetArgs),
    /// List the secrets that this access key may see
    List {
        /// Only those whose names begin so
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
    },
    /// Show what is known of a secret, but its values
    #[command(visible_alias = "describe")]
    Show(Named),
    /// List the versions of a secret, also those to which no stage points
    Versions(Named),
    /// Have a stage point to another version, or to none
    Stage(StageArgs),
    /// Change the description of a secret
    Update {
        #[command(flatten)]
        named: Named,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        description: String,
    },
    /// Delete a secret behind a window in which it can be brought back, or at once
    Delete(DeleteArgs),
    /// Bring back a secret that waits for its deletion
    Restore(Named),
    /// Seal the values of secrets under another key, or under the newest version of their own
    ///
    /// Each secret is sealed anew as a whole, and what is sealed so already is left: a run that was cut off goes on with the same command. Needs
    /// the right ResealSecret, and Encrypt under the key that is named.
    Reseal(reseal::ResealArgs),
    /// Rotate a secret now: its rotator makes a new value valid, shows that it is, and the new version becomes the current one
    Rotate(RotateArgs),
    /// Have a secret rotated by itself, or no longer
    SetRotation(SetRotationArgs),
    /// Edit the current value in $VISUAL or $EDITOR, on a file in memory that only you can read
    ///
    /// What comes of it is put as a new version and made the current one, unless another is current by then. An unchanged value puts nothing.
    /// Needs the rights GetSecretValue, PutSecretValue and UpdateSecretVersionStage.
    Edit(edit::EditArgs),
    /// Run a program with secrets in its environment, or in files that are gone when it ends
    ///
    /// The program does not get the credentials of keymill from our environment. Its exit code is ours.
    Run(run::RunArgs),
    /// Make a configuration file of a template, with secrets in their places
    Template(render::TemplateArgs),
    /// Bring in secrets of a dotenv file, a JSON file or manifests of Kubernetes Secrets
    Import(import::ImportArgs),
    /// Take values out of the server, as JSON; needs the rights GetSecretValue and ExportSecrets
    Export(export::ExportArgs),
    /// Make a password at random, and print it to standard output; the server keeps it nowhere
    Password(PasswordArgs),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its name or ARN
    #[arg(value_name = "NAME")]
    name: SecretRef,
}

#[derive(Args, Clone, Debug)]
struct Value {
    /// The name of the version
    #[arg(long, value_name = "ID")]
    version: SecretVersionId,
    /// The file that holds the value, byte for byte; - for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The value is bytes and no text: it is kept in base64, and `secret get` gives the bytes back
    #[arg(long)]
    binary: bool,
}

#[derive(Args, Clone, Debug)]
struct CreateArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: SecretName,
    #[command(flatten)]
    value: Value,
    /// The key that its values are encrypted under: id, ARN or alias; a key that is kept for this if absent
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<KeyRef>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What it is of: Generic, or Rds, whose value is {"Accounts":[{"AccountName":…,"AccountPassword":…}]}
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    secret_type: Option<SecretType>,
    /// How it is rotated: {"Rotator":"NAME"}, or of Rds {"SecretSubType":"SingleUser","DBInstanceId":"NAME"}, NAME being a rotator of the server
    #[arg(long, value_name = "JSON")]
    extended_config: Option<String>,
    /// Have it rotated by itself so often: 6h to 8760h, or in d, m, s
    #[arg(long, value_name = "INTERVAL", requires = "extended_config")]
    rotate_every: Option<SecretInterval>,
}

#[derive(Args, Clone, Debug)]
struct RotateArgs {
    #[command(flatten)]
    named: Named,
    /// The name of the new version; asked for again with the same, a rotation that failed or takes long goes on
    #[arg(long, value_name = "ID")]
    version: SecretVersionId,
    /// Milliseconds to wait until the new version is the current one; the rotation goes on after them
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

#[derive(Args, Clone, Debug)]
struct SetRotationArgs {
    #[command(flatten)]
    named: Named,
    /// So often: 6h to 8760h, or in d, m, s
    #[arg(long, value_name = "INTERVAL", required_unless_present = "off", conflicts_with = "off")]
    every: Option<SecretInterval>,
    /// No longer
    #[arg(long)]
    off: bool,
}

#[derive(Args, Clone, Debug)]
struct PutArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    value: Value,
    /// Have this stage point to it, and leave the current one; may be given several times
    #[arg(long = "stage", value_name = "STAGE")]
    stages: Vec<VersionStage>,
}

#[derive(Args, Clone, Debug)]
struct GetArgs {
    #[command(flatten)]
    named: Named,
    /// This version
    #[arg(long, value_name = "ID")]
    version: Option<SecretVersionId>,
    /// The version that this stage points to
    #[arg(long, value_name = "STAGE")]
    stage: Option<VersionStage>,
}

#[derive(Args, Clone, Debug)]
struct StageArgs {
    #[command(flatten)]
    named: Named,
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: VersionStage,
    /// The version that it is to point to
    #[arg(long, value_name = "ID", required_unless_present = "from")]
    to: Option<SecretVersionId>,
    /// The version that it points to now
    #[arg(long, value_name = "ID")]
    from: Option<SecretVersionId>,
}

#[derive(Args, Clone, Debug)]
struct DeleteArgs {
    #[command(flatten)]
    named: Named,
    /// Days in which it can be brought back, 7 to 30; 30 if absent
    #[arg(long, value_name = "DAYS", conflicts_with = "now")]
    days: Option<u32>,
    /// At once: nothing brings it back
    #[arg(long)]
    now: bool,
}

#[derive(Args, Clone, Debug)]
struct PasswordArgs {
    /// How many characters it has
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(8..=128))]
    length: u32,
    /// Letters and digits alone
    #[arg(long)]
    no_punctuation: bool,
    /// Characters that it does not have
    #[arg(long, value_name = "CHARACTERS")]
    without: Option<String>,
}

/// Does what the command says.
pub(crate) fn run(args: SecretArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        SecretCommand::Create(args) => create(&api, args),
        SecretCommand::Put(args) => put(&api, args),
        SecretCommand::Get(args) => get(&api, args),
        SecretCommand::List { prefix } => list(&api, prefix),
        SecretCommand::Show(Named { name }) => show(&api, name),
        SecretCommand::Versions(Named { name }) => versions(&api, name),
        SecretCommand::Stage(StageArgs { named, stage, to, from }) => {
            let request = UpdateSecretVersionStageRequest {
                secret_name: named.name,
                version_stage: stage.clone(),
                move_to_version: to.clone(),
                remove_from_version: from,
                timeout_ms,
            };
            let reply = ask!(api, UpdateSecretVersionStage, request);
            let name = &reply.secret_name;
            match to {
                Some(to) => api.done(&reply, format_args!("{stage} of secret {name} points to version {to}")),
                None => api.done(&reply, format_args!("{stage} of secret {name} points to no version")),
            }
        }
        SecretCommand::Update { named, description } => {
            let request = UpdateSecretRequest {
                secret_name: named.name,
                description: Some(description),
                extended_config: None,
                timeout_ms,
            };
            let reply = ask!(api, UpdateSecret, request);
            api.done(&reply, format_args!("secret {} has its new description", reply.secret_name))
        }
        SecretCommand::Delete(DeleteArgs { named, days, now }) => {
            let request = DeleteSecretRequest {
                secret_name: named.name,
                recovery_window_in_days: days,
                force_delete_without_recovery: now.then_some(true),
                timeout_ms,
            };
            let reply = ask!(api, DeleteSecret, request);
            let (name, at) = (&reply.secret_name, reply.planned_delete_time);
            match now {
                true => api.done(&reply, format_args!("secret {name} is deleted")),
                false => api.done(
                    &reply,
                    format_args!(
                        "secret {name} is deleted at {at}; `keymill secret restore {name}` brings it back"
                    ),
                ),
            }
        }
        SecretCommand::Restore(Named { name }) => {
            let reply = ask!(api, RestoreSecret, RestoreSecretRequest { secret_name: name, timeout_ms });
            api.done(&reply, format_args!("secret {} is back", reply.secret_name))
        }
        SecretCommand::Rotate(RotateArgs { named, version, timeout_ms }) => {
            let request = RotateSecretRequest { secret_name: named.name, version_id: version, timeout_ms };
            let reply = ask!(api, RotateSecret, request);
            let (name, version) = (&reply.secret_name, &reply.version_id);
            api.done(&reply, format_args!("secret {name} is rotated, to version {version}"))
        }
        SecretCommand::SetRotation(SetRotationArgs { named, every, off }) => {
            let request = UpdateSecretRotationPolicyRequest {
                secret_name: named.name,
                enable_automatic_rotation: !off,
                rotation_interval: every,
                timeout_ms,
            };
            let reply = ask!(api, UpdateSecretRotationPolicy, request);
            let name = &reply.secret_name;
            match every {
                Some(every) => {
                    api.done(&reply, format_args!("secret {name} is rotated by itself every {every}"))
                }
                None => api.done(&reply, format_args!("secret {name} is not rotated by itself any more")),
            }
        }
        SecretCommand::Reseal(args) => reseal::run(&api, args),
        SecretCommand::Edit(args) => edit::run(&api, args),
        SecretCommand::Run(args) => run::run(&api, args),
        SecretCommand::Template(args) => render::run(&api, &args),
        SecretCommand::Import(args) => import::run(&api, &args),
        SecretCommand::Export(args) => export::run(&api, args),
        SecretCommand::Password(args) => password(&api, args),
    }
}

fn parse_type(text: &str) -> std::result::Result<SecretType, String> {
    let known = [SecretType::Generic, SecretType::Rds].into_iter().find(|known| known.name() == text);
    known.ok_or_else(|| "a secret is Generic or Rds".to_owned())
}

/// Reads a value, as text: of bytes their base64.
fn read(value: &Value) -> Result<(Zeroizing<String>, SecretDataType)> {
    let shown = value.from.display();
    let mut from: Box<dyn Read> = match value.from == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&value.from).map_err(Failure::because(&shown))?),
    };
    // Reserved at once: a growing buffer would leave copies behind.
    let mut bytes = Sensitive::zeroed(limit::SECRET_BYTES + 1);
    let mut length = 0;
    while length < bytes.len() {
        match from.read(&mut bytes.expose_mut()[length..]).map_err(Failure::because(&shown))? {
            0 => break,
            read => length += read,
        }
    }
    if length > limit::SECRET_BYTES {
        let why = format!("{shown} is longer than a value may be, which is {} bytes", limit::SECRET_BYTES);
        return Err(Failure::new(why));
    }
    let bytes = &bytes.expose()[..length];
    match value.binary {
        true => Ok((Zeroizing::new(STANDARD.encode(bytes)), SecretDataType::Binary)),
        false => match std::str::from_utf8(bytes) {
            Ok(text) => Ok((Zeroizing::new(text.to_owned()), SecretDataType::Text)),
            Err(_) => Err(Failure::new(format!("{shown} holds bytes that are no text")).next("try --binary")),
        },
    }
}

fn create(api: &Api, args: CreateArgs) -> Result<()> {
    let (value, data_type) = read(&args.value)?;
    let request = CreateSecretRequest {
        secret_name: args.name,
        version_id: args.value.version,
        secret_data: SecretText::from(&**value),
        secret_data_type: Some(data_type),
        secret_type: args.secret_type,
        extended_config: args.extended_config,
        enable_automatic_rotation: args.rotate_every.is_some().then_some(true),
        rotation_interval: args.rotate_every,
        encryption_key_id: args.key,
        description: args.description,
        tags: None,
        policy: None,
        dkms_instance_id: None,
        timeout_ms: None,
    };
    let reply = ask!(api, CreateSecret, request);
    let (name, version) = (&reply.secret_name, &reply.version_id);
    api.done(&reply, format_args!("secret {name} is made, with version {version}"))
}

fn put(api: &Api, args: PutArgs) -> Result<()> {
    let (value, data_type) = read(&args.value)?;
    let request = PutSecretValueRequest {
        secret_name: args.named.name,
        version_id: args.value.version,
        secret_data: SecretText::from(&**value),
        secret_data_type: Some(data_type),
        version_stages: (!args.stages.is_empty()).then_some(args.stages),
        timeout_ms: None,
    };
    let reply = ask!(api, PutSecretValue, request);
    let stages = joined(&reply.version_stages);
    let (name, version) = (&reply.secret_name, &reply.version_id);
    api.done(&reply, format_args!("secret {name} has version {version}, to which {stages} points"))
}

fn get(api: &Api, args: GetArgs) -> Result<()> {
    let request = GetSecretValueRequest {
        secret_name: args.named.name,
        version_id: args.version,
        version_stage: args.stage,
        fetch_extended_config: None,
        timeout_ms: None,
    };
    let answered = api.call(request)?;
    let Reply::GetSecretValue(reply) = answered.reply()? else {
        return Err(of_another(answered.reply()?.operation()));
    };
    if api.json {
        return output::json(&reply);
    }
    let text = reply.secret_data.expose();
    let decoded = match reply.secret_data_type {
        SecretDataType::Text => None,
        // Whoever put it may have put something else than base64, which is kept as it came.
        SecretDataType::Binary => STANDARD.decode(text).ok().map(Zeroizing::new),
    };
    let bytes = decoded.as_ref().map_or(text.as_bytes(), |bytes| bytes.as_slice());
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::of_output)
}

fn list(api: &Api, prefix: Option<String>) -> Result<()> {
    let filters: Option<Vec<KeyFilter>> =
        prefix.map(|prefix| vec![KeyFilter { key: "SecretName".into(), values: vec![prefix] }]);
    let reply = ask_all!(api, ListSecrets, secret_list.secret, |page_number, page_size| {
        ListSecretsRequest {
            filters: filters.clone(),
            fetch_tags: None,
            page_number,
            page_size,
            timeout_ms: None,
        }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["name", "type", "created", "changed", "deleted at"]);
    for row in reply.secret_list.secret {
        let ends = or_dash(row.planned_delete_time);
        rows.add(&[&row.secret_name, &row.secret_type.name(), &row.create_time, &row.update_time, &ends]);
    }
    rows.print("no secrets; `keymill secret create NAME --version v1 --from FILE` makes one")
}

fn show(api: &Api, name: SecretRef) -> Result<()> {
    let request = DescribeSecretRequest { secret_name: name, fetch_tags: Some(true), timeout_ms: None };
    let reply = ask!(api, DescribeSecret, request);
    if api.json {
        return output::json(&reply);
    }
    let tags = reply.tags.unwrap_or_default().tag.into_iter();
    let tags: Vec<String> = tags.map(|tag| format!("{}={}", tag.tag_key, tag.tag_value)).collect();
    let rotated = match (reply.automatic_rotation, reply.rotation_interval, reply.next_rotation_date) {
        (AutomaticRotation::Invalid, ..) => "by a rotator that the server does not have any more".to_owned(),
        (_, Some(every), Some(next)) => format!("every {every}, next at {next}"),
        _ if reply.extended_config.is_some() => "when it is asked for".to_owned(),
        _ => "never".to_owned(),
    };
    output::card(&[
        ("name", &reply.secret_name),
        ("arn", &reply.arn),
        ("type", &reply.secret_type.name()),
        ("description", &reply.description),
        ("key", &reply.encryption_key_id),
        ("created", &reply.create_time),
        ("changed", &reply.update_time),
        ("deleted at", &or_dash(reply.planned_delete_time)),
        ("rotated", &rotated),
        ("last rotated", &or_dash(reply.last_rotation_date)),
        ("extended config", &or_dash(reply.extended_config)),
        ("tags", &tags.join(", ")),
    ])
}

fn versions(api: &Api, name: SecretRef) -> Result<()> {
    let reply = ask_all!(api, ListSecretVersionIds, version_ids.version_id, |page_number, page_size| {
        let secret_name = name.clone();
        let include_deprecated = Some(true);
        ListSecretVersionIdsRequest {
            secret_name,
            include_deprecated,
            page_number,
            page_size,
            timeout_ms: None,
        }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["version", "created", "stages"]);
    for row in reply.version_ids.version_id {
        rows.add(&[&row.version_id, &row.create_time, &joined(&row.version_stages)]);
    }
    rows.print("no versions")
}

fn joined(stages: &VersionStageList) -> String {
    match stages.version_stage.is_empty() {
        true => "no stage".to_owned(),
        false => stages.version_stage.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn password(api: &Api, args: PasswordArgs) -> Result<()> {
    let request = GetRandomPasswordRequest {
        password_length: Some(args.length),
        exclude_characters: args.without,
        exclude_punctuation: args.no_punctuation.then_some(true),
        ..GetRandomPasswordRequest::default()
    };
    let answered = api.call(request)?;
    let Reply::GetRandomPassword(reply) = answered.reply()? else {
        return Err(of_another(answered.reply()?.operation()));
    };
    match api.json {
        true => output::json(&reply),
        false => output::line(reply.random_password.expose()),
    }
}
