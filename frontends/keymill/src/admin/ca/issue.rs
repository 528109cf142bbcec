//! What authorities issue.

use std::path::PathBuf;

use clap::Args;
use keymill_core::certificate::{AltName, DistinguishedName};
use keymill_core::id::ProfileName;
use keymill_core::key::{KeySpec, ProtectionLevel};
use keymill_core::limit;
use keymill_core::operation::{
    BatchIssueCertificateRequest, CertificateAsked, IssueCertificateRequest, TagPair,
};

use super::super::cert::{now, read_text, remaining};
use super::super::keeping::parse_tag;
use super::super::key::{parse_protection, parse_spec};
use super::super::{Api, ask};
use super::{Named, shortened};
use crate::failure::{Failure, Result};
use crate::output;

#[derive(Args, Clone, Debug)]
pub(super) struct IssueArgs {
    #[command(flatten)]
    named: Named,
    /// By which profile: server, client, server-client, code-signing or ca; of an authority that has profiles of its own, one of those
    #[arg(long, value_name = "PROFILE")]
    profile: ProfileName,
    /// The file with the request in PEM; a key is made in keymill without
    #[arg(long, value_name = "FILE", conflicts_with_all = ["spec", "protection", "exportable"])]
    csr: Option<PathBuf>,
    /// Whose it is to be: CN=… [default: as the request says, or named after its first name]
    #[arg(long, value_name = "NAME", value_parser = DistinguishedName::parse)]
    subject: Option<DistinguishedName>,
    /// A name that it is to be for: a DNS name, IP:ADDRESS, email:ADDRESS or URI:URI; may be repeated [default: as the request says]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<AltName>,
    /// Days that it is valid [default: as the profile says]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    /// The kind of key that is made [default: EC_P256]
    #[arg(long, value_name = "SPEC", value_parser = parse_spec)]
    spec: Option<KeySpec>,
    /// Where that key lives: software or hsm [default: as the server's configuration says]
    #[arg(long, value_name = "LEVEL", value_parser = parse_protection)]
    protection: Option<ProtectionLevel>,
    /// Let that key leave, by `cert export`
    #[arg(long)]
    exportable: bool,
    /// Whether it is renewed by itself: true or false [default: where its key is made here]
    #[arg(long, value_name = "BOOL")]
    auto_renew: Option<bool>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<TagPair>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct BatchArgs {
    #[command(flatten)]
    named: Named,
    /// By which profile
    #[arg(long, value_name = "PROFILE")]
    profile: ProfileName,
    /// Days that they are valid [default: as the profile says]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    /// The files with the requests in PEM; the certificate for a.csr is written to a.crt, with those above it
    #[arg(value_name = "FILE", required = true)]
    requests: Vec<PathBuf>,
}

pub(super) fn issue(api: &Api, args: IssueArgs) -> Result<()> {
    let request = IssueCertificateRequest {
        authority_name: args.named.authority,
        profile: args.profile,
        csr: args.csr.as_ref().map(read_text).transpose()?,
        subject: args.subject,
        alt_names: Some(args.names).filter(|names| !names.is_empty()),
        validity_days: args.days,
        key_spec: args.spec,
        protection_level: args.protection,
        exportable_private_key: args.exportable.then_some(true),
        auto_renew: args.auto_renew,
        tags: Some(args.tags).filter(|tags| !tags.is_empty()),
        timeout_ms: None,
    };
    let reply = ask!(api, IssueCertificate, request);
    if api.json {
        return output::json(&reply);
    }
    output::line(format!("{}{}", reply.certificate, reply.certificate_chain).trim_end())?;
    let (id, ends) = (reply.certificate_id, remaining(reply.not_after, now()));
    let earlier = shortened(reply.is_shortened);
    output::note(format_args!("certificate {id} is good until {ends}{earlier}: `keymill cert show {id}`"))
}

pub(super) fn batch(api: &Api, args: BatchArgs) -> Result<()> {
    let mut failed = 0;
    let mut replies = Vec::new();
    for files in args.requests.chunks(limit::CERTIFICATES_A_BATCH) {
        let asked =
            |file: &PathBuf| Ok(CertificateAsked { csr: read_text(file)?, subject: None, alt_names: None });
        let request = BatchIssueCertificateRequest {
            authority_name: args.named.authority.clone(),
            profile: args.profile.clone(),
            requests: files.iter().map(asked).collect::<Result<_>>()?,
            validity_days: args.days,
            timeout_ms: None,
        };
        let reply = ask!(api, BatchIssueCertificate, request);
        for (file, outcome) in files.iter().zip(&reply.certificates) {
            match &outcome.certificate {
                Some(certificate) => {
                    let out = file.with_extension("crt");
                    std::fs::write(&out, format!("{certificate}{}", reply.certificate_chain))
                        .map_err(Failure::because(out.display()))?;
                    if let (Some(true), Some(end)) = (outcome.is_shortened, outcome.not_after) {
                        let (ends, earlier) = (remaining(end, now()), shortened(outcome.is_shortened));
                        output::note(format_args!("{}: good until {ends}{earlier}", out.display()))?;
                    }
                }
                None => {
                    failed += 1;
                    let why = outcome.message.as_deref().unwrap_or("it was not issued");
                    output::note(format_args!("{}: {}", file.display(), output::harmless(why)))?;
                }
            }
        }
        replies.push(reply);
    }
    if api.json {
        output::json(&replies)?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{failed} of {} requests were refused", args.requests.len()))),
    }
}
