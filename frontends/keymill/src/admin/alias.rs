//! `keymill alias`: names of keys.

use clap::{Args, Subcommand};
use keymill_core::id::{AliasName, KeyRef};
use keymill_core::operation::{
    CreateAliasRequest, DeleteAliasRequest, ListAliasesByKeyIdRequest, ListAliasesRequest, UpdateAliasRequest,
};

use super::{Api, ClientArgs, ask, ask_all, parse_key};
use crate::failure::Result;
use crate::output::{self, Rows};

/// Name keys
#[derive(Args, Clone, Debug)]
pub(crate) struct AliasArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: AliasCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum AliasCommand {
    /// Name a key
    Create(Pair),
    /// Have an alias name another key; what was encrypted before stays under its own
    Update(Pair),
    /// Delete an alias; the key stays
    Delete {
        /// The alias
        #[arg(value_name = "alias/NAME")]
        alias: AliasName,
    },
    /// List aliases and the keys that they name
    List {
        /// Only those of this key: id, ARN or alias
        #[arg(long, value_name = "KEY", value_parser = parse_key)]
        key: Option<KeyRef>,
    },
}

#[derive(Args, Clone, Debug)]
struct Pair {
    /// The alias
    #[arg(value_name = "alias/NAME")]
    alias: AliasName,
    /// Key id, ARN or another alias
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: KeyRef,
}

/// Does what the command says.
pub(crate) fn run(args: AliasArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        AliasCommand::Create(Pair { alias, key }) => {
            let id = api.key_id(key)?;
            let request =
                CreateAliasRequest { alias_name: alias.clone(), key_id: KeyRef::Id(id), timeout_ms };
            let reply = ask!(api, CreateAlias, request);
            api.done(&reply, format_args!("{alias} names key {id}"))
        }
        AliasCommand::Update(Pair { alias, key }) => {
            let id = api.key_id(key)?;
            let request =
                UpdateAliasRequest { alias_name: alias.clone(), key_id: KeyRef::Id(id), timeout_ms };
            let reply = ask!(api, UpdateAlias, request);
            api.done(&reply, format_args!("{alias} names key {id} now"))
        }
        AliasCommand::Delete { alias } => {
            let request = DeleteAliasRequest { alias_name: alias.clone(), timeout_ms };
            let reply = ask!(api, DeleteAlias, request);
            api.done(&reply, format_args!("{alias} is deleted"))
        }
        AliasCommand::List { key } => list(&api, key),
    }
}

fn list(api: &Api, key: Option<KeyRef>) -> Result<()> {
    let timeout_ms = None;
    let aliases = match key {
        Some(key) => {
            let id = api.key_id(key)?;
            let reply = ask_all!(api, ListAliasesByKeyId, aliases.alias, |page_number, page_size| {
                ListAliasesByKeyIdRequest { key_id: KeyRef::Id(id), page_number, page_size, timeout_ms }
            });
            if api.json {
                return output::json(&reply);
            }
            reply.aliases
        }
        None => {
            let reply = ask_all!(api, ListAliases, aliases.alias, |page_number, page_size| {
                ListAliasesRequest { page_number, page_size, timeout_ms }
            });
            if api.json {
                return output::json(&reply);
            }
            reply.aliases
        }
    };
    let mut rows = Rows::new(&["alias", "key id"]);
    for row in aliases.alias {
        rows.add(&[&row.alias_name, &row.key_id]);
    }
    rows.print("no aliases; `keymill alias create alias/NAME KEY` makes one")
}
