//! `keymill instance`: tenants of an installation, each with keys, access and audit of its own; as the installation's administrator has them.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use keymill_core::id::DomainName;
use keymill_core::operation::*;

use super::{Api, ClientArgs, ask, ask_all};
use crate::credentials::CredentialsFile;
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};
use crate::private;

/// Manage instances: tenants with keys, credentials, audit and networks of their own (Dedicated KMS)
#[derive(Args, Clone, Debug)]
pub(crate) struct InstanceArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: InstanceCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum InstanceCommand {
    /// List instances
    List,
    /// Show an instance
    Show(Named),
    /// Make an instance; the secret of its first access key is shown this once
    Create {
        /// What it is for, as free text
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// Write its first access key there as JSON (mode 0600), for --credentials, rather than show it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// A domain apart from the installation's, which the tokens that are named hold (`keymill hsm init --domain`): the installation has none of its keys, nor
        /// has an instance of another domain; those of one domain share what its tokens hold. It never changes
        #[arg(long, value_name = "NAME", requires = "tokens")]
        domain: Option<DomainName>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Bind an instance to networks of the server's configuration: the first time it is connected to the first of them, and from then on reached from
    /// these and from no others but that
    Bind {
        #[command(flatten)]
        named: Named,
        /// A network, by the name of its section in [networks]; none: only the first one is left
        #[arg(long = "vpc", value_name = "VPC")]
        vpcs: Vec<String>,
    },
    /// Change what an instance may take, as it runs; 0 lifts a rate
    Pool {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        terms: Terms,
        /// No token any more: keys in tokens cannot be used then, but by a software copy
        #[arg(long, conflicts_with = "tokens")]
        no_tokens: bool,
    },
    /// Protect an instance against its release
    Protect {
        #[command(flatten)]
        named: Named,
        /// Why, as free text
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let an instance be released again
    Unprotect(Named),
    /// Release an instance: everything in it goes, but for its audit
    Release {
        #[command(flatten)]
        named: Named,
        /// Also where it holds keys: what is under them is lost
        #[arg(long)]
        force: bool,
    },
    /// Show what an instance uses, and may
    Quota(Named),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its id
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Args, Clone, Debug)]
struct Terms {
    /// Threads that use its software keys where that takes long [default: 1]
    #[arg(long, value_name = "N")]
    software_workers: Option<u32>,
    /// A token of the server's pool that its keys may live in; those that are named are all that it has (isolation = "process"), with sessions of its own
    #[arg(long = "token", value_name = "NAME:SESSIONS", value_parser = parse_token)]
    tokens: Vec<InstanceToken>,
    /// What it weighs beside others where they share processors, or tokens but those of in_flight = "all", of 1 to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Requests a second
    #[arg(long, value_name = "N")]
    requests_per_s: Option<u64>,
    /// Items of data requests a second
    #[arg(long, value_name = "N")]
    items_per_s: Option<u64>,
    /// Bytes of these items a second
    #[arg(long, value_name = "N")]
    bytes_per_s: Option<u64>,
    /// Customer master keys
    #[arg(long, value_name = "N")]
    max_keys: Option<u64>,
    /// Secrets
    #[arg(long, value_name = "N")]
    max_secrets: Option<u64>,
    /// Certificates
    #[arg(long, value_name = "N")]
    max_certificates: Option<u64>,
    /// Networks that it can be bound to
    #[arg(long, value_name = "N")]
    max_vpcs: Option<u32>,
}

impl Terms {
    fn tokens(&self) -> Option<Vec<InstanceToken>> {
        (!self.tokens.is_empty()).then(|| self.tokens.clone())
    }
}

fn parse_token(text: &str) -> Result<InstanceToken, String> {
    let parts = text.rsplit_once(':').and_then(|(name, sessions)| Some((name, sessions.parse().ok()?)));
    let (name, sessions) = parts.ok_or("a token is NAME:SESSIONS, as of hsm-1:4")?;
    Ok(InstanceToken { token_name: name.to_owned(), sessions })
}

/// Does what the command says.
pub(crate) fn run(args: InstanceArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        InstanceCommand::List => list(&api),
        InstanceCommand::Show(Named { id }) => show(&api, id),
        InstanceCommand::Create { name, out, domain, terms } => create(&api, (name, domain), out, &terms),
        InstanceCommand::Bind { named: Named { id }, vpcs } => bind(&api, id, vpcs),
        InstanceCommand::Pool { named: Named { id }, terms, no_tokens } => {
            let request = UpdateKmsInstancePoolRequest {
                kms_instance_id: id.clone(),
                software_workers: terms.software_workers,
                tokens: if no_tokens { Some(Vec::new()) } else { terms.tokens() },
                weight: terms.weight,
                requests_per_second: terms.requests_per_s,
                items_per_second: terms.items_per_s,
                bytes_per_second: terms.bytes_per_s,
                max_keys: terms.max_keys,
                max_secrets: terms.max_secrets,
                max_certificates: terms.max_certificates,
                max_vpcs: terms.max_vpcs,
                timeout_ms,
            };
            let reply = ask!(api, UpdateKmsInstancePool, request);
            api.done(&reply, format_args!("instance {id} has its new terms"))
        }
        InstanceCommand::Protect { named: Named { id }, reason } => protect(&api, id, Some(reason)),
        InstanceCommand::Unprotect(Named { id }) => protect(&api, id, None),
        InstanceCommand::Release { named: Named { id }, force } => {
            let request = ReleaseKmsInstanceRequest {
                kms_instance_id: id.clone(),
                force_delete_without_backup: force.then(|| "true".to_owned()),
                timeout_ms: Some(60_000),
            };
            let reply = ask!(api, ReleaseKmsInstance, request);
            api.done(&reply, format_args!("instance {id} is released"))
        }
        InstanceCommand::Quota(Named { id }) => quota(&api, id),
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListKmsInstances, kms_instances.kms_instance, |page_number, page_size| {
        ListKmsInstancesRequest { page_number, page_size, filters: None, timeout_ms }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["instance", "status", "network", "created", "name"]);
    for row in reply.kms_instances.kms_instance {
        let request = GetKmsInstanceRequest { kms_instance_id: row.kms_instance_id.to_string(), timeout_ms };
        let shown = ask!(api, GetKmsInstance, request).kms_instance;
        let network = output::or_dash(Some(shown.vpc_id).filter(|vpc| !vpc.is_empty()));
        rows.add(&[&shown.instance_id, &shown.status, &network, &shown.create_time, &shown.instance_name]);
    }
    rows.print("no instances; `keymill instance create` makes one")
}

fn show(api: &Api, kms_instance_id: String) -> Result<()> {
    let reply = ask!(api, GetKmsInstance, GetKmsInstanceRequest { kms_instance_id, timeout_ms: None });
    if api.json {
        return output::json(&reply);
    }
    let shown = reply.kms_instance;
    let tokens: Vec<_> = shown.tokens.iter().map(shown_token).collect();
    let further: Vec<_> = shown.bind_vpcs.bind_vpc.iter().map(|bound| bound.vpc_id.as_str()).collect();
    let rate = |rate: u64| if rate == 0 { "unlimited".to_owned() } else { output::grouped(rate) };
    let protected = match shown.deletion_protection {
        true => format!("yes {}", shown.deletion_protection_description.unwrap_or_default()),
        false => "no".to_owned(),
    };
    output::card(&[
        ("instance", &shown.instance_id),
        ("name", &shown.instance_name),
        ("status", &shown.status),
        ("created", &shown.create_time),
        ("first network", &output::or_dash(Some(shown.vpc_id).filter(|vpc| !vpc.is_empty()))),
        ("further networks", &output::or_dash(Some(further.join(", ")).filter(|all| !all.is_empty()))),
        ("networks at most", &shown.vpc_num),
        ("keys at most", &output::grouped(shown.key_num)),
        ("secrets at most", &shown.secret_num),
        ("certificates at most", &output::grouped(shown.certificate_num)),
        ("requests a second", &rate(shown.spec)),
        ("items a second", &rate(shown.items_per_second)),
        ("bytes a second", &rate(shown.bytes_per_second)),
        ("domain", &output::or_dash(shown.domain)),
        ("software workers", &shown.software_workers),
        ("weight", &shown.weight),
        ("tokens", &output::or_dash(Some(tokens.join(", ")).filter(|all| !all.is_empty()))),
        ("protected", &protected.trim_end()),
    ])
}

fn shown_token(token: &InstanceTokenShown) -> String {
    let InstanceTokenShown { token_name, sessions, open_sessions, state } = token;
    match sessions {
        0 => format!("{token_name} leaves, {open_sessions} sessions open"),
        _ => format!("{token_name}:{sessions} {state}, {open_sessions} open"),
    }
}

fn create(
    api: &Api,
    (instance_name, domain): (Option<String>, Option<DomainName>),
    out: Option<PathBuf>,
    terms: &Terms,
) -> Result<()> {
    if let Some(path) = &out {
        private::check_new(path)?;
    }
    let rate = |rate: Option<u64>| rate.and_then(NonZeroU64::new);
    let request = CreateKmsInstanceRequest {
        instance_name,
        domain,
        software_workers: terms.software_workers,
        tokens: terms.tokens(),
        weight: terms.weight,
        requests_per_second: rate(terms.requests_per_s),
        items_per_second: rate(terms.items_per_s),
        bytes_per_second: rate(terms.bytes_per_s),
        max_keys: terms.max_keys,
        max_secrets: terms.max_secrets,
        max_certificates: terms.max_certificates,
        max_vpcs: terms.max_vpcs,
        timeout_ms: Some(60_000),
    };
    let reply = ask!(api, CreateKmsInstance, request);
    let Some(path) = out else {
        if api.json {
            return output::json(&reply);
        }
        output::card(&[
            ("instance", &reply.kms_instance_id),
            ("access key id", &reply.access_key_id),
            ("secret", &reply.access_key_secret),
        ])?;
        return output::line(
            "the secret is shown this once: whoever has it administers the instance, once it is bound to a network",
        );
    };
    let file = CredentialsFile::of(reply.access_key_id.to_string(), reply.access_key_secret.clone());
    private::create(&path, file.encode().expose()).map_err(|failure| {
        Failure::new(format!(
            "instance {} was made, and its first access key is lost: {failure}",
            reply.kms_instance_id
        ))
        .next(format!("`keymill instance release {}`, and make another", reply.kms_instance_id))
    })?;
    match api.json {
        // The secret is in the file, and in no pipe.
        true => output::json(&serde_json::json!({
            "KmsInstanceId": reply.kms_instance_id, "AccessKeyId": reply.access_key_id,
            "RequestId": reply.request_id, "File": path,
        })),
        false => output::line(format_args!(
            "instance {} is made; its first access key is in {}",
            reply.kms_instance_id,
            path.display()
        )),
    }
}

fn bind(api: &Api, id: String, mut vpcs: Vec<String>) -> Result<()> {
    let timeout_ms = None;
    let request = GetKmsInstanceRequest { kms_instance_id: id.clone(), timeout_ms };
    let first = ask!(api, GetKmsInstance, request).kms_instance.vpc_id;
    if first.is_empty() {
        if vpcs.is_empty() {
            return Err(
                Failure::wrong_use("the instance is connected to no network yet").next("name one with --vpc")
            );
        }
        let request = ConnectKmsInstanceRequest {
            kms_instance_id: id.clone(),
            km_provider: None,
            vpc_id: vpcs.remove(0),
            v_switch_ids: None,
            zone_ids: None,
            timeout_ms,
        };
        let reply = ask!(api, ConnectKmsInstance, request);
        if vpcs.is_empty() {
            return api.done(&reply, format_args!("instance {id} is connected"));
        }
    }
    let row = |vpc_id| BindVpc { vpc_id, v_switch_id: None, region_id: None, vpc_owner_id: None };
    let bind_vpcs = vpcs.into_iter().filter(|vpc| *vpc != first).map(row).collect();
    let request = UpdateKmsInstanceBindVpcRequest { kms_instance_id: id.clone(), bind_vpcs, timeout_ms };
    let reply = ask!(api, UpdateKmsInstanceBindVpc, request);
    api.done(&reply, format_args!("instance {id} is bound to these networks"))
}

fn protect(api: &Api, id: String, reason: Option<String>) -> Result<()> {
    let (is_protected, what) = match reason {
        Some(_) => (true, "is protected against its release"),
        None => (false, "can be released"),
    };
    let request = SetDeletionProtectionRequest {
        protected_resource_arn: None,
        key_id: None,
        kms_instance_id: Some(id.clone()),
        enable_deletion_protection: is_protected,
        deletion_protection_description: reason,
        timeout_ms: None,
    };
    let reply = ask!(api, SetDeletionProtection, request);
    api.done(&reply, format_args!("instance {id} {what}"))
}

fn quota(api: &Api, id: String) -> Result<()> {
    let request =
        GetKmsInstanceQuotaInfosRequest { kms_instance_id: Some(id), resource_type: None, timeout_ms: None };
    let reply = ask!(api, GetKmsInstanceQuotaInfos, request);
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["what", "used", "at most"]).numbers(&[1, 2]);
    for row in reply.kms_instance_quota_infos {
        let most = match (&*row.resource_type, row.resource_quota) {
            ("qps", 0) => "unlimited".to_owned(),
            (_, most) => output::grouped(most),
        };
        rows.add(&[&row.resource_type, &output::grouped(row.used_quantity), &most]);
    }
    rows.print("nothing")
}
