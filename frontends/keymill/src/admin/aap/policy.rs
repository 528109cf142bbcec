//! `keymill aap policy`: what applications may do, with which keys, and from which networks.

use clap::{Args, Subcommand};
use keymill_core::access::{AccessControlRules, NamedResource, ResourcePattern, Role, RoleRef};
use keymill_core::id::{KeyRef, NetworkRuleName, PolicyName, RoleName, SecretName};
use keymill_core::operation::{
    CreatePolicyRequest, DeletePolicyRequest, DescribePolicyRequest, ListPoliciesRequest, UpdatePolicyRequest,
};

use super::joined;
use crate::admin::{Api, ask, ask_all, parse_key};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

/// Say what applications may do, with which keys, and from where
#[derive(Args, Clone, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum PolicyCommand {
    /// Make a policy: the use of keys, of secrets, or of both
    Create {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        says: SaysArgs,
    },
    /// List policies
    List,
    /// Show a policy
    Show(Named),
    /// Change what a policy says of resources, networks, or its description: what is given replaces what was there
    Update {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        says: SaysArgs,
        /// From every network from now on
        #[arg(long, conflicts_with = "networks")]
        any_network: bool,
    },
    /// Delete a policy that no access point names
    Delete(Named),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its name: up to 128 letters, digits, _, . and -
    #[arg(value_name = "NAME")]
    name: PolicyName,
}

#[derive(Args, Clone, Debug)]
struct SaysArgs {
    /// A key that may be used: id, ARN, or alias (the key that it names now); several by several of these
    #[arg(long = "key", value_name = "KEY", value_parser = parse_key, conflicts_with = "all_keys")]
    keys: Vec<KeyRef>,
    /// Every key may be used
    #[arg(long)]
    all_keys: bool,
    /// A secret that may be read
    #[arg(long = "secret", value_name = "NAME", conflicts_with = "all_secrets")]
    secrets: Vec<SecretName>,
    /// Every secret may be read
    #[arg(long)]
    all_secrets: bool,
    /// A role of your own (`keymill role`), in place of all use of keys and secrets
    #[arg(long = "role", value_name = "ROLE", value_parser = parse_role)]
    roles: Vec<RoleName>,
    /// A network rule: addresses of any of them will do; every address does where there is none
    #[arg(long = "network", value_name = "RULE")]
    networks: Vec<NetworkRuleName>,
    /// What it is for, as free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Roles and resources, where any were named.
type Rights = (Option<Vec<RoleRef>>, Option<Vec<NamedResource>>);

impl SaysArgs {
    /// Returns the roles and resources that were named; where no role was, they follow from the resources.
    fn rights(&self) -> Rights {
        let mut resources: Vec<_> = self.keys.iter().cloned().filter_map(named).collect();
        resources.extend(self.all_keys.then_some(ResourcePattern::AllKeys.into()));
        let mut roles = Vec::new();
        roles.extend((!resources.is_empty()).then_some(RoleRef::BuiltIn(Role::CryptoServiceKeyUser)));
        let of_keys = resources.len();
        resources.extend(self.secrets.iter().cloned().map(|name| ResourcePattern::Secret(name).into()));
        resources.extend(self.all_secrets.then_some(ResourcePattern::AllSecrets.into()));
        roles.extend((resources.len() > of_keys).then_some(RoleRef::BuiltIn(Role::CryptoServiceSecretUser)));
        if !self.roles.is_empty() {
            roles = self.roles.iter().cloned().map(RoleRef::Custom).collect();
        }
        ((!roles.is_empty()).then_some(roles), (!resources.is_empty()).then_some(resources))
    }

    fn rules(&self) -> Result<AccessControlRules> {
        let text = serde_json::json!({ "NetworkRules": self.networks }).to_string();
        AccessControlRules::parse(&text).map_err(Failure::because("network rules"))
    }
}

pub(super) fn run(api: &Api, args: PolicyArgs) -> Result<()> {
    let timeout_ms = None;
    match args.command {
        PolicyCommand::Create { named: Named { name }, says } => {
            let (Some(permissions), Some(resources)) = says.rights() else {
                return Err(Failure::wrong_use("a policy without a resource says nothing")
                    .next("give --key KEY, --all-keys, --secret NAME or --all-secrets"));
            };
            let request = CreatePolicyRequest {
                name: name.clone(),
                kms_instance: None,
                permissions,
                resources,
                access_control_rules: Some(says.rules()?),
                description: says.description,
                timeout_ms,
            };
            let reply = ask!(api, CreatePolicy, request);
            let from = match says.networks.is_empty() {
                true => "from every network".to_owned(),
                false => format!("from {}", joined(&says.networks)),
            };
            api.done(&reply, format_args!("policy {name} is made, {from}"))
        }
        PolicyCommand::List => list(api),
        PolicyCommand::Show(Named { name }) => show(api, name),
        PolicyCommand::Update { named: Named { name }, says, any_network } => {
            let (permissions, resources) = says.rights();
            let rules = (any_network || !says.networks.is_empty()).then(|| says.rules()).transpose()?;
            if permissions.is_none() && rules.is_none() && says.description.is_none() {
                let next = "give --key, --all-keys, --secret, --all-secrets, --role, --network, --any-network or --description";
                return Err(Failure::wrong_use("nothing to change").next(next));
            }
            let request = UpdatePolicyRequest {
                name: name.clone(),
                permissions,
                resources,
                access_control_rules: rules,
                description: says.description,
                timeout_ms,
            };
            let reply = ask!(api, UpdatePolicy, request);
            api.done(&reply, format_args!("policy {name} is changed"))
        }
        PolicyCommand::Delete(Named { name }) => {
            let reply = ask!(api, DeletePolicy, DeletePolicyRequest { name: name.clone(), timeout_ms });
            api.done(&reply, format_args!("policy {name} is deleted"))
        }
    }
}

/// Returns a key as a policy is told it; none of what names none, which is refused as it is read.
fn named(key: KeyRef) -> Option<NamedResource> {
    match key {
        KeyRef::Id(id) => Some(ResourcePattern::Key(id).into()),
        KeyRef::Alias(name) => Some(NamedResource::Alias(name)),
        KeyRef::Unknown => None,
    }
}

/// Reads the name of a role, also as grants have it.
fn parse_role(text: &str) -> std::result::Result<RoleName, String> {
    let name = text.strip_prefix("role/").unwrap_or(text);
    name.parse().map_err(|error: keymill_core::Error| error.message().to_owned())
}

fn show(api: &Api, name: PolicyName) -> Result<()> {
    let reply = ask!(api, DescribePolicy, DescribePolicyRequest { name, timeout_ms: None });
    if api.json {
        return output::json(&reply);
    }
    let rules = &reply.access_control_rules.rules;
    let networks = if rules.is_empty() { "every network".to_owned() } else { joined(rules) };
    output::card(&[
        ("policy", &reply.name),
        ("permissions", &joined(&reply.permissions)),
        ("resources", &joined(&reply.resources)),
        ("from", &networks),
        ("description", &output::harmless(&reply.description)),
    ])
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListPolicies, policies.policy, |page_number, page_size| {
        ListPoliciesRequest { page_number, page_size, timeout_ms }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["policy"]);
    for row in reply.policies.policy {
        rows.add(&[&row.name]);
    }
    rows.print("no policies; `keymill aap policy create NAME --key KEY` makes one")
}
