//! `keymill role`: sets of operations of an installation's own, that access keys are granted and policies give.

use clap::{Args, Subcommand};
use keymill_core::id::RoleName;
use keymill_core::operation::{
    CreateRoleRequest, DeleteRoleRequest, DescribeRoleRequest, ListRolesRequest, UpdateRoleRequest,
};

use super::{Api, ClientArgs, ask, ask_all};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

/// Make roles of your own: sets of operations that access keys are granted, and that policies give to applications
#[derive(Args, Clone, Debug)]
pub(crate) struct RoleArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum RoleCommand {
    /// Make a role; `keymill access-key create --role role/NAME` grants it
    Create {
        #[command(flatten)]
        named: Named,
        /// What it covers: kms:Encrypt, or kms:Describe* for all that begin so; an operation takes its batch form along
        #[arg(long = "action", value_name = "ACTION", required = true)]
        actions: Vec<String>,
        /// What it is for, as free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List roles
    List,
    /// Show a role
    Show(Named),
    /// Have a role cover other actions, or give it another description; in force with the next request
    Update {
        #[command(flatten)]
        named: Named,
        /// What it covers from now on
        #[arg(long = "action", value_name = "ACTION")]
        actions: Vec<String>,
        /// What it is for, as free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a role that no access key is granted and no policy names
    Delete(Named),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its name: up to 128 letters, digits, _, . and -
    #[arg(value_name = "NAME")]
    name: RoleName,
}

/// Does what the command says.
pub(crate) fn run(args: RoleArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        RoleCommand::Create { named: Named { name }, actions, description } => {
            let request = CreateRoleRequest { name: name.clone(), actions, description, timeout_ms };
            let reply = ask!(api, CreateRole, request);
            api.done(&reply, format_args!("role {name} is made; grants and policies name it role/{name}"))
        }
        RoleCommand::List => list(&api),
        RoleCommand::Show(Named { name }) => {
            let reply = ask!(api, DescribeRole, DescribeRoleRequest { name, timeout_ms });
            if api.json {
                return output::json(&reply);
            }
            output::card(&[
                ("role", &reply.name),
                ("actions", &output::harmless(&reply.actions.join(", "))),
                ("description", &output::harmless(&reply.description)),
            ])
        }
        RoleCommand::Update { named: Named { name }, actions, description } => {
            if actions.is_empty() && description.is_none() {
                return Err(Failure::wrong_use("nothing to change").next("give --action or --description"));
            }
            let actions = (!actions.is_empty()).then_some(actions);
            let request = UpdateRoleRequest { name: name.clone(), actions, description, timeout_ms };
            let reply = ask!(api, UpdateRole, request);
            api.done(&reply, format_args!("role {name} is changed"))
        }
        RoleCommand::Delete(Named { name }) => {
            let reply = ask!(api, DeleteRole, DeleteRoleRequest { name: name.clone(), timeout_ms });
            api.done(&reply, format_args!("role {name} is deleted"))
        }
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListRoles, roles, |page_number, page_size| {
        ListRolesRequest { page_number, page_size, timeout_ms }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["role", "description"]);
    for row in reply.roles {
        rows.add(&[&row.name, &output::harmless(&row.description)]);
    }
    rows.print("no roles of your own; `keymill role create NAME --action ACTION` makes one")
}
