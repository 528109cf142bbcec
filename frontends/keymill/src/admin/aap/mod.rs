//! `keymill aap`: applications, and what they may do. An access point has client keys, by which an application shows which one it is of, and
//! policies, which say what it may do, with which keys, and from which networks.

mod client_key;
mod network;
mod policy;

use clap::{Args, Subcommand};
use keymill_core::id::{AapName, PolicyName};
use keymill_core::operation::{
    AuthenticationMethod, CreateApplicationAccessPointRequest, DeleteApplicationAccessPointRequest,
    DescribeApplicationAccessPointRequest, ListApplicationAccessPointsRequest,
    UpdateApplicationAccessPointRequest,
};

use super::{Api, ClientArgs, ask, ask_all};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

/// Let applications in by client keys, and say what they may do
///
/// In this order: `aap network create` says from where, `aap policy create` what may be done with which keys, `aap create` makes the access
/// point of an application, and `aap key create` the key that it signs with. A change is in force with the next request of every
/// connection.
#[derive(Args, Clone, Debug)]
pub(crate) struct AapArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: AapCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum AapCommand {
    /// Make the access point of an application
    Create {
        #[command(flatten)]
        named: Named,
        /// A policy that says what it may do; up to three
        #[arg(long = "policy", value_name = "POLICY", required = true)]
        policies: Vec<PolicyName>,
        /// What it is, as free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List access points
    List,
    /// Show an access point
    Show(Named),
    /// Give an access point other policies, or another description
    Update {
        #[command(flatten)]
        named: Named,
        /// A policy that says what it may do from now on; up to three
        #[arg(long = "policy", value_name = "POLICY")]
        policies: Vec<PolicyName>,
        /// What it is, as free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete an access point with its client keys
    Delete(Named),
    Key(client_key::ClientKeyArgs),
    Policy(policy::PolicyArgs),
    Network(network::NetworkArgs),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its name: up to 128 letters, digits, _, . and -
    #[arg(value_name = "NAME")]
    name: AapName,
}

/// Does what the command says.
pub(crate) fn run(args: AapArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        AapCommand::Create { named: Named { name }, policies, description } => {
            let request = CreateApplicationAccessPointRequest {
                name: name.clone(),
                authentication_method: Some(AuthenticationMethod::ClientKey),
                policies,
                description,
                timeout_ms,
            };
            let reply = ask!(api, CreateApplicationAccessPoint, request);
            let next = format!("`keymill aap key create {name} --out FILE` makes the key that it signs with");
            api.done(&reply, format_args!("access point {name} is made; {next}"))
        }
        AapCommand::List => list(&api),
        AapCommand::Show(Named { name }) => {
            let request = DescribeApplicationAccessPointRequest { name, timeout_ms };
            let reply = ask!(api, DescribeApplicationAccessPoint, request);
            if api.json {
                return output::json(&reply);
            }
            let policies = joined(&reply.policies.0);
            output::card(&[
                ("access point", &reply.name),
                ("policies", &policies),
                ("description", &output::harmless(&reply.description)),
                ("arn", &reply.arn),
            ])
        }
        AapCommand::Update { named: Named { name }, policies, description } => {
            if policies.is_empty() && description.is_none() {
                return Err(Failure::wrong_use("nothing to change").next("give --policy or --description"));
            }
            let policies = (!policies.is_empty()).then_some(policies);
            let request =
                UpdateApplicationAccessPointRequest { name: name.clone(), policies, description, timeout_ms };
            let reply = ask!(api, UpdateApplicationAccessPoint, request);
            api.done(&reply, format_args!("access point {name} is changed"))
        }
        AapCommand::Delete(Named { name }) => {
            let request = DeleteApplicationAccessPointRequest { name: name.clone(), timeout_ms };
            let reply = ask!(api, DeleteApplicationAccessPoint, request);
            api.done(&reply, format_args!("access point {name} is deleted with its client keys"))
        }
        AapCommand::Key(args) => client_key::run(&api, args),
        AapCommand::Policy(args) => policy::run(&api, args),
        AapCommand::Network(args) => network::run(&api, args),
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(
        api,
        ListApplicationAccessPoints,
        application_access_points.application_access_point,
        |page_number, page_size| {
            ListApplicationAccessPointsRequest { page_number, page_size, timeout_ms }
        }
    );
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["access point"]);
    for row in reply.application_access_points.application_access_point {
        rows.add(&[&row.name]);
    }
    rows.print("no access points; `keymill aap create NAME --policy POLICY` makes one")
}

/// Returns names with commas between them.
fn joined<T: std::fmt::Display>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
