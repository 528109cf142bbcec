//! `keymill access-key`: who may log in, and what they may do.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use keymill_core::access::{AccessKeyStatus, Effect, Grant, ResourcePattern, Role, RoleRef};
use keymill_core::id::{AccessKeyId, AliasName, KeyRef};
use keymill_core::operation::{
    CreateAccessKeyRequest, DeleteAccessKeyRequest, ListAccessKeysRequest, UpdateAccessKeyRequest,
};

use super::{Api, ClientArgs, ask, ask_all};
use crate::credentials::CredentialsFile;
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};
use crate::private;

/// Create, list and change access keys: credentials with what they grant
#[derive(Args, Clone, Debug)]
pub(crate) struct AccessKeyArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: AccessKeyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum AccessKeyCommand {
    /// Create an access key; its secret is shown this once
    Create {
        #[command(flatten)]
        grants: GrantArgs,
        /// Who or what it is for, as free text of up to 128 characters
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Write it there as JSON (mode 0600), for --credentials, rather than show it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List access keys, without their secrets
    List,
    /// Let a disabled access key log in again
    Enable(Named),
    /// Refuse an access key from its next request on
    Disable(Named),
    /// Delete an access key
    Delete(Named),
    /// Replace what an access key grants, from its next request on
    SetGrants {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        grants: GrantArgs,
    },
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Id of the access key
    #[arg(value_name = "ID")]
    id: AccessKeyId,
}

#[derive(Args, Clone, Debug)]
struct GrantArgs {
    /// A role, on all resources or on those named: Root, KeyAdministrator, SecretAdministrator, CertificateAdministrator, PolicyAdministrator, InstanceAdministrator,
    /// Auditor, CryptoServiceKeyUser, CryptoServiceSecretUser, CryptoServiceCertificateUser, CertificateRequester, or role/NAME of your own
    /// (`keymill role`); *, key/*, key/ID, alias/NAME (the key that it names now), secret/*, secret/NAME, certificate/*, certificate/ID, authority/NAME,
    /// aap/* or access-key/*
    #[arg(long, value_name = "ROLE[:RESOURCE,...]", required = true)]
    role: Vec<GrantSpec>,
    /// What is denied, in the same form, whatever else allows it
    #[arg(long, value_name = "ROLE[:RESOURCE,...]")]
    deny: Vec<GrantSpec>,
}

/// A grant as the command line has it: its resources may be aliases, which the API does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GrantSpec {
    role: RoleRef,
    resources: Vec<ResourceSpec>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ResourceSpec {
    Pattern(ResourcePattern),
    Alias(AliasName),
}

/// What a resource is, as grants and policies name it.
pub(super) const RESOURCES: &str = "*, key/*, key/ID, alias/NAME, secret/*, secret/NAME, certificate/*, certificate/ID, authority/NAME, aap/* or access-key/*";

impl FromStr for GrantSpec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (role, resources) = match text.split_once(':') {
            Some((role, resources)) => (role, resources),
            None => (text, "*"),
        };
        // The cloud's templates may be named without their path.
        let is_named = |known: &&Role| known.name() == role || known.name().rsplit('/').next() == Some(role);
        let template = Role::ALL.iter().find(is_named).copied().map(RoleRef::BuiltIn);
        let role = template.or_else(|| role.parse().ok()).ok_or_else(|| {
            let known: Vec<_> = Role::ALL.iter().filter_map(|role| role.name().rsplit('/').next()).collect();
            format!("a role is one of {}, or role/NAME", known.join(", "))
        })?;
        let resource = |text: &str| match text.parse::<AliasName>() {
            Ok(alias) => Ok(ResourceSpec::Alias(alias)),
            Err(_) => {
                text.parse().map(ResourceSpec::Pattern).map_err(|_| format!("a resource is {RESOURCES}"))
            }
        };
        Ok(Self { role, resources: resources.split(',').map(resource).collect::<Result<_, _>>()? })
    }
}

impl GrantArgs {
    fn grants(&self, api: &Api) -> Result<Vec<Grant>> {
        let allowed = self.role.iter().map(|spec| (Effect::Allow, spec));
        let denied = self.deny.iter().map(|spec| (Effect::Deny, spec));
        allowed.chain(denied).map(|(effect, spec)| grant(api, effect, spec)).collect()
    }
}

fn grant(api: &Api, effect: Effect, spec: &GrantSpec) -> Result<Grant> {
    let pattern = |resource: &ResourceSpec| match resource {
        ResourceSpec::Pattern(pattern) => Ok(pattern.clone()),
        ResourceSpec::Alias(alias) => api.key_id(KeyRef::Alias(alias.clone())).map(ResourcePattern::Key),
    };
    let resources = spec.resources.iter().map(pattern).collect::<Result<_>>()?;
    Ok(Grant { effect, role: spec.role.clone(), resources })
}

/// Does what the command says.
pub(crate) fn run(args: AccessKeyArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    match args.command {
        AccessKeyCommand::Create { grants, description, out } => create(&api, &grants, description, out),
        AccessKeyCommand::List => list(&api),
        AccessKeyCommand::Enable(Named { id }) => {
            update(&api, id, Some(AccessKeyStatus::Active), None, "may log in")
        }
        AccessKeyCommand::Disable(Named { id }) => {
            update(&api, id, Some(AccessKeyStatus::Inactive), None, "may not log in any more")
        }
        AccessKeyCommand::Delete(Named { id }) => {
            let request = DeleteAccessKeyRequest { access_key_id: id.clone(), timeout_ms: None };
            let reply = ask!(api, DeleteAccessKey, request);
            api.done(&reply, format_args!("access key {id} is deleted"))
        }
        AccessKeyCommand::SetGrants { named: Named { id }, grants } => {
            let grants = grants.grants(&api)?;
            update(&api, id, None, Some(grants), "has its new grants")
        }
    }
}

fn create(api: &Api, grants: &GrantArgs, description: Option<String>, out: Option<PathBuf>) -> Result<()> {
    let grants = grants.grants(api)?;
    if let Some(path) = &out {
        private::check_new(path)?;
    }
    let reply = ask!(api, CreateAccessKey, CreateAccessKeyRequest { grants, description, timeout_ms: None });
    let Some(path) = out else {
        if api.json {
            return output::json(&reply);
        }
        output::card(&[("access key id", &reply.access_key_id), ("secret", &reply.access_key_secret)])?;
        return output::line("the secret is shown this once: keep it where only its user can read it");
    };
    let file = CredentialsFile::of(reply.access_key_id.to_string(), reply.access_key_secret.clone());
    private::create(&path, file.encode().expose()).map_err(|failure| {
        Failure::new(format!(
            "access key {} was created, and its secret is lost: {failure}",
            reply.access_key_id
        ))
        .next(format!("`keymill access-key delete {}`, and create another", reply.access_key_id))
    })?;
    match api.json {
        // The secret is in the file, and in no pipe.
        true => output::json(&serde_json::json!({
            "AccessKeyId": reply.access_key_id, "RequestId": reply.request_id, "File": path,
        })),
        false => output::line(format_args!("access key {} is in {}", reply.access_key_id, path.display())),
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListAccessKeys, access_keys, |page_number, page_size| ListAccessKeysRequest {
        page_number,
        page_size,
        timeout_ms
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["access key id", "status", "created", "grants", "description"]);
    for row in reply.access_keys {
        let grants: Vec<_> = row.grants.iter().map(shown).collect();
        let status = format!("{:?}", row.status);
        rows.add(&[&row.access_key_id, &status, &row.creation_date, &grants.join("; "), &row.description]);
    }
    rows.print("no access keys")
}

/// Writes a grant as the command line takes it.
fn shown(grant: &Grant) -> String {
    let deny = match grant.effect {
        Effect::Allow => "",
        Effect::Deny => "not ",
    };
    let role = match &grant.role {
        RoleRef::BuiltIn(role) => role.name().rsplit('/').next().unwrap_or_default().to_owned(),
        custom => custom.to_string(),
    };
    let resources: Vec<_> = grant.resources.iter().map(ToString::to_string).collect();
    match resources.as_slice() {
        [one] if one == "*" => format!("{deny}{role}"),
        _ => format!("{deny}{role}:{}", resources.join(",")),
    }
}

fn update(
    api: &Api,
    id: AccessKeyId,
    status: Option<AccessKeyStatus>,
    grants: Option<Vec<Grant>>,
    done: &str,
) -> Result<()> {
    let access_key_id = id.clone();
    let request =
        UpdateAccessKeyRequest { access_key_id, status, grants, description: None, timeout_ms: None };
    let reply = ask!(api, UpdateAccessKey, request);
    api.done(&reply, format_args!("access key {id} {done}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_everything_unless_resources_are_named() {
        let spec: GrantSpec = "Auditor".parse().unwrap();
        assert_eq!(
            spec,
            GrantSpec {
                role: Role::Auditor.into(),
                resources: vec![ResourceSpec::Pattern(ResourcePattern::All)]
            }
        );
        let spec: GrantSpec = "CryptoServiceKeyUser:alias/people,key/*".parse().unwrap();
        assert_eq!(spec.role, Role::CryptoServiceKeyUser.into());
        let alias = ResourceSpec::Alias("alias/people".parse().unwrap());
        assert_eq!(spec.resources, [alias, ResourceSpec::Pattern(ResourcePattern::AllKeys)]);
        assert!("RbacPermission/Template/CryptoServiceKeyUser".parse::<GrantSpec>().is_ok());
        let spec: GrantSpec = "CertificateRequester:authority/issuing".parse().unwrap();
        assert_eq!(spec.role, Role::CertificateRequester.into());
        let spec: GrantSpec = "role/ingest:key/*".parse().unwrap();
        assert_eq!(spec.role.to_string(), "role/ingest");
    }

    #[test]
    fn the_help_names_every_role_that_there_is() {
        let command = GrantArgs::augment_args(clap::Command::new("create"));
        let help = command.get_arguments().find(|arg| arg.get_id() == "role").and_then(clap::Arg::get_help);
        let help = help.unwrap().to_string();
        let words: Vec<&str> = help.split([' ', ',', ':', ';']).collect();
        for role in Role::ALL {
            let name = role.name().rsplit('/').next().unwrap();
            assert!(words.contains(&name), "{name}: {help}");
        }
        for resource in ["certificate/*", "certificate/ID", "authority/NAME"] {
            assert!(words.contains(&resource), "{resource}: {help}");
        }
    }

    #[test]
    fn a_wrong_role_or_resource_is_answered_with_the_right_ones() {
        assert!("root".parse::<GrantSpec>().unwrap_err().contains("Root, KeyAdministrator"));
        for wrong in ["Root:", "Root:key/", "Root:key/people", "Root:*,", "Root:alias/"] {
            assert!(wrong.parse::<GrantSpec>().unwrap_err().contains("a resource is"), "{wrong}");
        }
    }

    #[test]
    fn a_grant_is_shown_as_it_is_given() {
        let grant = |effect, resources| Grant { effect, role: Role::CryptoServiceKeyUser.into(), resources };
        assert_eq!(shown(&grant(Effect::Allow, vec![ResourcePattern::All])), "CryptoServiceKeyUser");
        let resources = vec![ResourcePattern::AllKeys, ResourcePattern::AllAccessKeys];
        assert_eq!(shown(&grant(Effect::Deny, resources)), "not CryptoServiceKeyUser:key/*,access-key/*");
    }
}
