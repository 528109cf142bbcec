//! `keymill ca`: certificate authorities, and what they issue.

mod issue;
mod make;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keymill_core::certificate::{RevocationReason, Serial};
use keymill_core::id::{AuthorityName, CertificateRef};
use keymill_core::operation::{
    DeleteCertificateAuthorityRequest, DescribeCertificateAuthorityReply,
    DescribeCertificateAuthorityRequest, ListCertificateAuthoritiesRequest, RenewCertificateRequest,
    RevokeCertificateRequest,
};

use super::cert::{now, parse_certificate, read_text, remaining};
use super::{Api, ClientArgs, ask, ask_all};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows, or_dash};

/// Run certificate authorities: issue, renew and revoke certificates
#[derive(Args, Clone, Debug)]
pub(crate) struct CaArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum CaCommand {
    /// Make an authority: a root, one below another, or one whose certificate is signed elsewhere
    Create(make::CreateArgs),
    /// Bring the certificate of an authority that was signed elsewhere
    Activate(make::ActivateArgs),
    /// List the authorities that this access key may see
    List,
    /// Show all that is known of an authority
    Show(Named),
    /// Change an authority: switch it on or off, or set profiles and access points
    Update(make::UpdateArgs),
    /// Delete an authority that is disabled, of which nothing is valid any more
    Delete(Named),
    /// Issue a certificate: for a request, or with a key that is made here
    Issue(issue::IssueArgs),
    /// Issue certificates for many requests at once, each into a file of its own
    IssueBatch(issue::BatchArgs),
    /// Issue a certificate anew, in its place
    Renew(RenewArgs),
    /// Revoke a certificate for good
    Revoke(RevokeArgs),
    /// Say where the list of what an authority revoked is, and how it stands
    Crl(Named),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its name
    #[arg(value_name = "AUTHORITY")]
    authority: AuthorityName,
}

#[derive(Args, Clone, Debug)]
struct RenewArgs {
    /// The certificate, by its id or ARN
    #[arg(value_name = "ID", value_parser = parse_certificate)]
    certificate: CertificateRef,
    /// The file with a request for another key, where its key is elsewhere
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Days that it is valid [default: as the last time]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
}

#[derive(Args, Clone, Debug)]
struct RevokeArgs {
    /// The certificate, by its id or ARN
    #[arg(value_name = "ID", value_parser = parse_certificate, required_unless_present = "serial")]
    certificate: Option<CertificateRef>,
    /// Its serial number instead, in hexadecimal digits
    #[arg(long, value_name = "NUMBER", requires = "authority", conflicts_with = "certificate")]
    serial: Option<Serial>,
    /// The authority of that
    #[arg(long, value_name = "AUTHORITY", requires = "serial")]
    authority: Option<AuthorityName>,
    /// Why: Unspecified, KeyCompromise, CaCompromise, AffiliationChanged, Superseded, CessationOfOperation, PrivilegeWithdrawn
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    reason: Option<RevocationReason>,
}

fn parse_reason(text: &str) -> Result<RevocationReason, String> {
    let known =
        RevocationReason::ALL.into_iter().find(|reason| format!("{reason:?}").eq_ignore_ascii_case(text));
    known.ok_or_else(|| {
        format!("a reason is one of {}", RevocationReason::ALL.map(|reason| format!("{reason:?}")).join(", "))
    })
}

/// Does what the command says.
pub(crate) fn run(args: CaArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    match args.command {
        CaCommand::Create(args) => make::create(&api, args),
        CaCommand::Activate(args) => make::activate(&api, args),
        CaCommand::List => list(&api),
        CaCommand::Show(named) => show(&api, named.authority),
        CaCommand::Update(args) => make::update(&api, args),
        CaCommand::Delete(Named { authority }) => {
            let request =
                DeleteCertificateAuthorityRequest { authority_name: authority.clone(), timeout_ms: None };
            let reply = ask!(api, DeleteCertificateAuthority, request);
            api.done(&reply, format_args!("the authority {authority} and its key are gone"))
        }
        CaCommand::Issue(args) => issue::issue(&api, args),
        CaCommand::IssueBatch(args) => issue::batch(&api, args),
        CaCommand::Renew(args) => renew(&api, args),
        CaCommand::Revoke(args) => revoke(&api, args),
        CaCommand::Crl(named) => crl(&api, named.authority),
    }
}

fn list(api: &Api) -> Result<()> {
    let reply = ask_all!(api, ListCertificateAuthorities, authorities, |page_number, page_size| {
        ListCertificateAuthoritiesRequest { page_number, page_size, timeout_ms: None }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["AUTHORITY", "STATE", "KEY", "SUBJECT", "SIGNED BY", "ENDS"]);
    for row in &reply.authorities {
        rows.add(&[
            &row.authority_name,
            &row.status.name(),
            &row.key_spec.name(),
            &row.subject,
            &or_dash(row.parent.as_ref()),
            &or_dash(row.not_after.map(|at| remaining(at, now()))),
        ]);
    }
    rows.print("no authorities; `keymill ca create NAME --subject CN=…` makes one")
}

fn show(api: &Api, authority_name: AuthorityName) -> Result<()> {
    let request = DescribeCertificateAuthorityRequest { authority_name, timeout_ms: None };
    let reply = ask!(api, DescribeCertificateAuthority, request);
    if api.json {
        return output::json(&reply);
    }
    let DescribeCertificateAuthorityReply { profiles, access_points, .. } = &reply;
    let profiles: Vec<_> = profiles.iter().map(|profile| profile.name.to_string()).collect();
    let points: Vec<_> = access_points.iter().map(|own| own.access_point.to_string()).collect();
    let span = match (reply.not_before, reply.not_after) {
        (Some(from), Some(to)) => format!("{from} to {}", remaining(to, now())),
        _ => "-".to_owned(),
    };
    let below = reply.path_length.map_or_else(|| "any number".to_owned(), |length| length.to_string());
    output::card(&[
        ("authority", &reply.authority_name),
        ("state", &reply.status.name()),
        ("certificate", &reply.certificate_id),
        ("subject", &reply.subject),
        ("signed by", &or_dash(reply.parent.as_ref())),
        ("valid", &span),
        ("key", &reply.key_spec.name()),
        ("key lives in", &format!("{:?}", reply.protection_level)),
        ("authorities below", &below),
        ("profiles", &profiles.join(", ")),
        ("access points", &if points.is_empty() { "-".to_owned() } else { points.join(", ") }),
        ("issued", &format!("{} that have not ended, {} of them revoked", reply.issued, reply.revoked)),
        ("list", &or_dash(reply.crl_url.as_deref())),
        ("list good until", &or_dash(reply.crl_next_update)),
        ("answers", &or_dash(reply.ocsp_url.as_deref())),
        ("created", &reply.create_time),
        ("changed", &reply.update_time),
    ])?;
    // What others need of it goes where it is piped to.
    output::line(reply.certificate.or(reply.csr).unwrap_or_default().trim_end())
}

fn renew(api: &Api, args: RenewArgs) -> Result<()> {
    let CertificateRef::Id(certificate_id) = args.certificate else {
        return Err(Failure::new("a certificate is named by its id or its ARN"));
    };
    let csr = args.csr.as_ref().map(read_text).transpose()?;
    let request = RenewCertificateRequest { certificate_id, csr, validity_days: args.days, timeout_ms: None };
    let reply = ask!(api, RenewCertificate, request);
    if api.json {
        return output::json(&reply);
    }
    output::line(format!("{}{}", reply.certificate, reply.certificate_chain).trim_end())?;
    output::note(format_args!(
        "certificate {certificate_id} is good until {} now{}",
        remaining(reply.not_after, now()),
        shortened(reply.is_shortened)
    ))
}

/// Says that a certificate ends earlier than was asked for, where it does.
fn shortened(is_shortened: Option<bool>) -> &'static str {
    match is_shortened {
        Some(true) => ", earlier than was asked for: its authority's own certificate ends then",
        _ => "",
    }
}

fn revoke(api: &Api, args: RevokeArgs) -> Result<()> {
    let certificate_id = match args.certificate {
        Some(CertificateRef::Id(id)) => Some(id),
        Some(CertificateRef::Unknown) => {
            return Err(Failure::new("a certificate is named by its id or its ARN"));
        }
        None => None,
    };
    let request = RevokeCertificateRequest {
        certificate_id,
        authority_name: args.authority,
        serial_number: args.serial,
        reason: args.reason,
        timeout_ms: None,
    };
    let reply = ask!(api, RevokeCertificate, request);
    let (id, reason) = (reply.certificate_id, reply.reason);
    let listed = match reply.crl_number {
        Some(number) => format!("and list {number} of its authority says so"),
        None => "and the list of its authority that says so is pending: it is tried again".to_owned(),
    };
    api.done(&reply, format_args!("certificate {id} is revoked ({reason:?}), {listed}"))
}

fn crl(api: &Api, authority_name: AuthorityName) -> Result<()> {
    let request = DescribeCertificateAuthorityRequest { authority_name, timeout_ms: None };
    let reply = ask!(api, DescribeCertificateAuthority, request);
    if api.json {
        return output::json(&reply);
    }
    let path = format!("/pki/{}.crl at the server's HTTP listener", reply.authority_name);
    output::card(&[
        ("list", &reply.crl_url.unwrap_or(path)),
        ("number", &or_dash(reply.crl_number)),
        ("made", &or_dash(reply.crl_this_update)),
        ("good until", &or_dash(reply.crl_next_update.map(|at| remaining(at, now())))),
        ("revoked", &format!("{} of {} that have not ended", reply.revoked, reply.issued)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_the_standard_in_either_case() {
        assert_eq!(parse_reason("keycompromise"), Ok(RevocationReason::KeyCompromise));
        assert!(parse_reason("CertificateHold").unwrap_err().contains("KeyCompromise"));
    }
}
