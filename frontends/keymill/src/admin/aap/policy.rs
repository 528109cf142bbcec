//! `keymill aap policy`: what applications may do, with which keys, secrets, certificates and authorities, and from which networks.

use clap::{Args, Subcommand};
use keymill_core::access::{AccessControlRules, NamedResource, ResourcePattern, Role, RoleRef};
use keymill_core::id::{
    AuthorityName, CertificateId, CertificateRef, KeyRef, NetworkRuleName, PolicyName, RoleName, SecretName,
};
use keymill_core::operation::{
    CreatePolicyRequest, DeletePolicyRequest, DescribePolicyRequest, ListPoliciesRequest, UpdatePolicyRequest,
};

use super::joined;
use crate::admin::access_key::RESOURCES;
use crate::admin::cert::parse_certificate;
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
    /// Make a policy: the use of keys, secrets and certificates, and what authorities may be asked for
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
    /// A certificate whose key may be used, by its id or ARN
    #[arg(long = "certificate", value_name = "ID", value_parser = parse_certificate_id, conflicts_with = "all_certificates")]
    certificates: Vec<CertificateId>,
    /// The key of every certificate may be used
    #[arg(long)]
    all_certificates: bool,
    /// An authority that may be asked for certificates, by the profiles and for the names that it lists for the access point (`keymill ca update --access-points`)
    #[arg(long = "authority", value_name = "NAME")]
    authorities: Vec<AuthorityName>,
    /// A resource as the API names it: key/*, key/ID, alias/NAME, secret/*, secret/NAME, certificate/*, certificate/ID, authority/NAME, or *, which needs a --role
    #[arg(long = "resource", value_name = "TEXT", value_parser = parse_resource)]
    resources: Vec<NamedResource>,
    /// What may be done with those, in place of all use that applications have of them: CryptoServiceKeyUser, CryptoServiceSecretUser,
    /// CryptoServiceCertificateUser, CertificateRequester, or a role of your own (`keymill role`)
    #[arg(long = "role", value_name = "ROLE", value_parser = parse_role)]
    roles: Vec<RoleRef>,
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
    fn rights(&self) -> Result<Rights> {
        let mut resources: Vec<NamedResource> = self.keys.iter().cloned().filter_map(named).collect();
        let patterns = self
            .all_keys
            .then_some(ResourcePattern::AllKeys)
            .into_iter()
            .chain(self.secrets.iter().cloned().map(ResourcePattern::Secret))
            .chain(self.all_secrets.then_some(ResourcePattern::AllSecrets))
            .chain(self.certificates.iter().copied().map(ResourcePattern::Certificate))
            .chain(self.all_certificates.then_some(ResourcePattern::AllCertificates))
            .chain(self.authorities.iter().cloned().map(ResourcePattern::Authority));
        resources.extend(patterns.map(NamedResource::from));
        resources.extend(self.resources.iter().cloned());
        let mut roles = self.roles.clone();
        if roles.is_empty() {
            for resource in &resources {
                let role = use_of(resource).map(RoleRef::BuiltIn).ok_or_else(|| {
                    Failure::wrong_use(format!("what may be done with {resource} is not said"))
                        .next("give --role ROLE")
                })?;
                if !roles.contains(&role) {
                    roles.push(role);
                }
            }
        }
        Ok(((!roles.is_empty()).then_some(roles), (!resources.is_empty()).then_some(resources)))
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
            let (Some(permissions), Some(resources)) = says.rights()? else {
                return Err(Failure::wrong_use("a policy without a resource says nothing").next(
                    "give --key KEY, --all-keys, --secret NAME, --all-secrets, --certificate ID, --all-certificates, --authority NAME or --resource TEXT",
                ));
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
            let (permissions, resources) = says.rights()?;
            let rules = (any_network || !says.networks.is_empty()).then(|| says.rules()).transpose()?;
            if permissions.is_none() && rules.is_none() && says.description.is_none() {
                let next = "give --key, --all-keys, --secret, --all-secrets, --certificate, --all-certificates, --authority, --resource, --role, --network, --any-network or --description";
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

/// Returns the role of all use that applications have of a resource; none of what is of several kinds, or of none that they use.
fn use_of(resource: &NamedResource) -> Option<Role> {
    let NamedResource::Pattern(pattern) = resource else { return Some(Role::CryptoServiceKeyUser) };
    match pattern {
        ResourcePattern::AllKeys | ResourcePattern::Key(_) => Some(Role::CryptoServiceKeyUser),
        ResourcePattern::AllSecrets | ResourcePattern::Secret(_) => Some(Role::CryptoServiceSecretUser),
        ResourcePattern::AllCertificates | ResourcePattern::Certificate(_) => {
            Some(Role::CryptoServiceCertificateUser)
        }
        ResourcePattern::Authority(_) => Some(Role::CertificateRequester),
        ResourcePattern::All | ResourcePattern::AllAccessKeys | ResourcePattern::AllAaps => None,
    }
}

/// Reads the name of a role: one that applications may have, with or without its path, or one of the installation's own, also as grants have it.
fn parse_role(text: &str) -> std::result::Result<RoleRef, String> {
    let mut known = Role::ALL.into_iter().filter(|role| role.is_for_applications());
    if let Some(role) = known.find(|role| role.name() == text || role.name().rsplit('/').next() == Some(text))
    {
        return Ok(RoleRef::BuiltIn(role));
    }
    let name = text.strip_prefix("role/").unwrap_or(text);
    let name: RoleName = name.parse().map_err(|error: keymill_core::Error| error.message().to_owned())?;
    Ok(RoleRef::Custom(name))
}

/// Reads a resource as the API has it.
fn parse_resource(text: &str) -> std::result::Result<NamedResource, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("a resource is {RESOURCES}"))
}

/// Reads the name of one certificate.
fn parse_certificate_id(text: &str) -> std::result::Result<CertificateId, String> {
    match parse_certificate(text)? {
        CertificateRef::Id(id) => Ok(id),
        CertificateRef::Unknown => Err("a certificate is named by its id or its ARN".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Says {
        #[command(flatten)]
        says: SaysArgs,
    }

    fn rights(arguments: &[&str]) -> Result<(String, String)> {
        let arguments = [&["policy"], arguments].concat();
        let (roles, resources) = Says::try_parse_from(arguments).unwrap().says.rights()?;
        Ok((joined(&roles.unwrap_or_default()), joined(&resources.unwrap_or_default())))
    }

    #[test]
    fn roles_follow_from_resources_unless_they_are_named() {
        const ID: &str = "00000000-0000-4000-8000-00000000000f";
        let role = |name: &str| format!("RbacPermission/Template/{name}");
        let of_id = format!("certificate/{ID}");
        for (arguments, roles, resources) in [
            (&["--certificate", ID][..], role("CryptoServiceCertificateUser"), of_id.as_str()),
            (&["--all-certificates"], role("CryptoServiceCertificateUser"), "certificate/*"),
            (&["--authority", "issuing"], role("CertificateRequester"), "authority/issuing"),
            (&["--resource", "authority/issuing"], role("CertificateRequester"), "authority/issuing"),
            (&["--resource", "*", "--role", "CertificateRequester"], role("CertificateRequester"), "*"),
            (&["--all-keys", "--role", "role/ingest"], "role/ingest".into(), "key/*"),
        ] {
            let told = rights(arguments).unwrap_or_else(|_| panic!("{arguments:?}"));
            assert_eq!(told, (roles, resources.to_owned()), "{arguments:?}");
        }
        let both = rights(&["--all-keys", "--authority", "issuing"]).unwrap_or_else(|_| panic!("it is one"));
        assert!(
            both.0.contains("CryptoServiceKeyUser") && both.0.contains("CertificateRequester"),
            "{both:?}"
        );
        assert!(rights(&["--resource", "*"]).is_err());
        assert!(parse_resource("key/").unwrap_err().contains("authority/NAME"));
        assert!(parse_certificate_id("orders").is_err());
    }
}
