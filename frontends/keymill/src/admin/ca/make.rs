//! Authorities that come to be, and what is set of them.

use std::path::PathBuf;

use clap::Args;
use keymill_core::certificate::{AuthorityState, DistinguishedName};
use keymill_core::id::AuthorityName;
use keymill_core::key::{Fallback, KeySpec, ProtectionLevel};
use keymill_core::operation::{
    ActivateCertificateAuthorityRequest, CreateCertificateAuthorityRequest, PermittedNames,
    UpdateCertificateAuthorityRequest,
};
use serde::de::DeserializeOwned;

use super::super::cert::read_text;
use super::super::key::{parse_fallback, parse_protection, parse_spec};
use super::super::{Api, ask};
use super::Named;
use crate::failure::{Failure, Result};
use crate::output;

#[derive(Args, Clone, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    named: Named,
    /// Whose its certificate is: CN=…,O=…,C=…
    #[arg(long, value_name = "NAME", value_parser = DistinguishedName::parse)]
    subject: DistinguishedName,
    /// The kind of key: RSA_2048, RSA_3072, RSA_4096, EC_P256, EC_P384, Ed25519, EC_SM2
    #[arg(long, value_name = "SPEC", value_parser = parse_spec, default_value = "EC_P256")]
    spec: KeySpec,
    /// Where its key lives: software or hsm [default: as the server's configuration says]
    #[arg(long, value_name = "LEVEL", value_parser = parse_protection)]
    protection: Option<ProtectionLevel>,
    /// For a key in the HSM: when a software copy may stand in: never, unavailable, saturated
    #[arg(long, value_name = "WHEN", value_parser = parse_fallback)]
    fallback: Option<Fallback>,
    /// The authority that signs its certificate [default: itself]
    #[arg(long, value_name = "AUTHORITY")]
    parent: Option<AuthorityName>,
    /// Have it signed elsewhere: prints the request for that, and `ca activate` brings what comes back
    #[arg(long, conflicts_with = "parent")]
    signed_elsewhere: bool,
    /// Days that its certificate is valid [default: 3650]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    /// How many authorities may stand below it [default: of a root any number, else one less than its parent's]
    #[arg(long, value_name = "NUMBER")]
    path_length: Option<u8>,
    /// A DNS name that it may certify, with all below it, and no other; may be repeated
    #[arg(long = "permit", value_name = "DOMAIN")]
    permitted_dns: Vec<String>,
    /// A DNS name that it may not certify, nor any below it; may be repeated
    #[arg(long = "exclude", value_name = "DOMAIN")]
    excluded_dns: Vec<String>,
    /// A network that it may certify, and no other; may be repeated
    #[arg(long = "permit-ip", value_name = "NETWORK")]
    permitted_ip: Vec<String>,
    /// A network that it may not certify; may be repeated
    #[arg(long = "exclude-ip", value_name = "NETWORK")]
    excluded_ip: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

/// What can be set of an authority.
#[derive(Args, Clone, Debug)]
struct Settings {
    /// Hours that its list of what was revoked is good for
    #[arg(long, value_name = "HOURS")]
    crl_hours: Option<u32>,
    /// The file with profiles of its own, which alone it then offers in place of server, client, server-client, code-signing and ca: a JSON array like
    /// [{"Name":"shop","Usage":"Server","ValidityDays":90,"MaxValidityDays":200,"AllowedNames":["*.shop.example"]}]; beside those, KeySpecs, and
    /// PathLength of usage Ca. Usages: Server, Client, ServerClient, CodeSigning, Ca. README.md of frontends/keymill has all of it
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// The file with what access points may ask it for; others may ask for nothing: a JSON array like
    /// [{"AccessPoint":"shop","Profiles":["server"],"AllowedNames":["*.shop.example","10.0.0.0/8","CN:shop-*"]}]
    #[arg(long, value_name = "FILE")]
    access_points: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ActivateArgs {
    #[command(flatten)]
    named: Named,
    /// The file with its certificate in PEM
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file with those that signed it, in PEM: each followed by its own issuer
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    named: Named,
    /// Let it issue
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Have it issue nothing; what it revoked is still told
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn create(api: &Api, args: CreateArgs) -> Result<()> {
    let constraints = PermittedNames {
        permitted_dns: args.permitted_dns,
        excluded_dns: args.excluded_dns,
        permitted_ip: args.permitted_ip,
        excluded_ip: args.excluded_ip,
    };
    let Settings { crl_hours, profiles, access_points } = args.settings;
    let request = CreateCertificateAuthorityRequest {
        authority_name: args.named.authority,
        subject: args.subject,
        key_spec: Some(args.spec),
        protection_level: args.protection,
        fallback: args.fallback,
        parent: args.parent,
        is_signed_elsewhere: args.signed_elsewhere.then_some(true),
        validity_days: args.days,
        path_length: args.path_length,
        name_constraints: Some(constraints).filter(|constraints| *constraints != PermittedNames::default()),
        crl_hours,
        profiles: profiles.map(read_json).transpose()?,
        access_points: access_points.map(read_json).transpose()?,
        timeout_ms: None,
    };
    let reply = ask!(api, CreateCertificateAuthority, request);
    if api.json {
        return output::json(&reply);
    }
    let name = reply.authority_name;
    match (reply.certificate, reply.csr) {
        (Some(certificate), _) => {
            output::line(certificate.trim_end())?;
            output::note(format_args!(
                "authority {name} issues: `keymill ca issue {name} --profile server --csr FILE`"
            ))
        }
        (None, csr) => {
            output::line(csr.unwrap_or_default().trim_end())?;
            output::note(format_args!(
                "authority {name} waits for its certificate: have the request above signed, and give what comes back to `keymill ca activate {name} FILE`"
            ))
        }
    }
}

pub(super) fn activate(api: &Api, args: ActivateArgs) -> Result<()> {
    let request = ActivateCertificateAuthorityRequest {
        authority_name: args.named.authority.clone(),
        certificate: read_text(&args.file)?,
        certificate_chain: args.chain.as_ref().map(read_text).transpose()?,
        timeout_ms: None,
    };
    let reply = ask!(api, ActivateCertificateAuthority, request);
    api.done(&reply, format_args!("authority {} issues", args.named.authority))
}

pub(super) fn update(api: &Api, args: UpdateArgs) -> Result<()> {
    let Settings { crl_hours, profiles, access_points } = args.settings;
    let status = match (args.enable, args.disable) {
        (true, _) => Some(AuthorityState::Enabled),
        (_, true) => Some(AuthorityState::Disabled),
        _ => None,
    };
    if status.is_none() && crl_hours.is_none() && profiles.is_none() && access_points.is_none() {
        return Err(Failure::wrong_use("nothing is changed: --help says what can be"));
    }
    let request = UpdateCertificateAuthorityRequest {
        authority_name: args.named.authority.clone(),
        status,
        crl_hours,
        profiles: profiles.map(read_json).transpose()?,
        access_points: access_points.map(read_json).transpose()?,
        timeout_ms: None,
    };
    let reply = ask!(api, UpdateCertificateAuthority, request);
    api.done(&reply, format_args!("authority {} is changed", args.named.authority))
}

/// Reads a list as the API has it.
fn read_json<T: DeserializeOwned>(path: PathBuf) -> Result<Vec<T>> {
    serde_json::from_str(&read_text(&path)?).map_err(Failure::because(path.display()))
}
