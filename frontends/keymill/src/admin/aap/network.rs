//! `keymill aap network`: from which addresses applications may come.

use clap::{Args, Subcommand};
use keymill_core::access::Network;
use keymill_core::id::NetworkRuleName;
use keymill_core::operation::{
    CreateNetworkRuleRequest, DeleteNetworkRuleRequest, DescribeNetworkRuleRequest, ListNetworkRulesRequest,
    NetworkRuleType, UpdateNetworkRuleRequest,
};

use super::joined;
use crate::admin::{Api, ask, ask_all};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

/// Name the networks that applications may come from
#[derive(Args, Clone, Debug)]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum NetworkCommand {
    /// Make a network rule
    Create {
        #[command(flatten)]
        named: Named,
        /// Addresses and ranges of IPv4 and IPv6: 10.0.0.0/8, 192.168.0.7, 2001:db8::/32
        #[arg(value_name = "ADDRESS", required = true)]
        sources: Vec<Network>,
        /// What it is, as free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List network rules
    List,
    /// Show a network rule
    Show(Named),
    /// Give a network rule other addresses, or another description
    Update {
        #[command(flatten)]
        named: Named,
        /// Its addresses and ranges from now on
        #[arg(value_name = "ADDRESS")]
        sources: Vec<Network>,
        /// What it is, as free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a network rule that no policy names
    Delete(Named),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its name: up to 128 letters, digits, _, . and -
    #[arg(value_name = "NAME")]
    name: NetworkRuleName,
}

pub(super) fn run(api: &Api, args: NetworkArgs) -> Result<()> {
    let timeout_ms = None;
    match args.command {
        NetworkCommand::Create { named: Named { name }, sources, description } => {
            let request = CreateNetworkRuleRequest {
                name: name.clone(),
                r#type: NetworkRuleType::Private,
                source_private_ip: Some(sources.iter().map(Network::to_string).collect()),
                description,
                timeout_ms,
            };
            let reply = ask!(api, CreateNetworkRule, request);
            api.done(&reply, format_args!("network rule {name} is made: {}", joined(&sources)))
        }
        NetworkCommand::List => list(api),
        NetworkCommand::Show(Named { name }) => {
            let reply = ask!(api, DescribeNetworkRule, DescribeNetworkRuleRequest { name, timeout_ms });
            if api.json {
                return output::json(&reply);
            }
            output::card(&[
                ("network rule", &reply.name),
                ("addresses", &joined(&reply.source_private_ip.0)),
                ("description", &output::harmless(&reply.description)),
            ])
        }
        NetworkCommand::Update { named: Named { name }, sources, description } => {
            if sources.is_empty() && description.is_none() {
                return Err(Failure::wrong_use("nothing to change").next("give addresses or --description"));
            }
            let sources = (!sources.is_empty()).then(|| sources.iter().map(Network::to_string).collect());
            let request = UpdateNetworkRuleRequest {
                name: name.clone(),
                source_private_ip: sources,
                description,
                timeout_ms,
            };
            let reply = ask!(api, UpdateNetworkRule, request);
            api.done(&reply, format_args!("network rule {name} is changed"))
        }
        NetworkCommand::Delete(Named { name }) => {
            let request = DeleteNetworkRuleRequest { name: name.clone(), timeout_ms };
            let reply = ask!(api, DeleteNetworkRule, request);
            api.done(&reply, format_args!("network rule {name} is deleted"))
        }
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListNetworkRules, network_rules.network_rule, |page_number, page_size| {
        ListNetworkRulesRequest { page_number, page_size, timeout_ms }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["network rule"]);
    for row in reply.network_rules.network_rule {
        rows.add(&[&row.name]);
    }
    rows.print("no network rules; `keymill aap network create NAME ADDRESS` makes one")
}
