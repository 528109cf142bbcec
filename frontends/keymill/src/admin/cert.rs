//! `keymill cert`: certificates and their keys.

mod make;
mod sign_file;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use keymill_core::certificate::CertificateStatus;
use keymill_core::id::{CertificateId, CertificateRef};
use keymill_core::operation::{
    CertificateRow, DeleteCertificateRequest, DescribeCertificateReply, DescribeCertificateRequest,
    GetCertificateRequest, KeyFilter, ListCertificatesRequest, UpdateCertificateStatusRequest,
};
use keymill_core::time::Timestamp;

use super::{Api, ClientArgs, ask, ask_all};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows, or_dash};

/// Make, list and use certificates and their keys
#[derive(Args, Clone, Debug)]
pub(crate) struct CertArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum CertCommand {
    /// Make a key pair and print the request that an authority signs, in PEM
    Create(make::CreateArgs),
    /// Put what an authority signed to the key that it is for
    Upload(make::UploadArgs),
    /// Take over a certificate with its private key: from PEM files, or from a PKCS #12 file
    Import(make::ImportArgs),
    /// Write a certificate with its private key to a PKCS #12 file, where the key may leave
    Export(make::ExportArgs),
    /// List the certificates that this access key may see
    List(ListArgs),
    /// Show all that is known of a certificate
    Show(Named),
    /// Print a certificate in PEM, and those that signed it
    Get {
        #[command(flatten)]
        named: Named,
        /// The certificate alone
        #[arg(long, conflicts_with = "request")]
        alone: bool,
        /// The request that it was, or is to be, signed from
        #[arg(long)]
        request: bool,
    },
    /// Let it be used again
    Activate(Named),
    /// Keep it from being used until it is active again
    Deactivate(Named),
    /// Have it check what it signed before, and nothing else, for good
    Revoke(Named),
    /// End a certificate and its private key, at once and for good
    Delete(Named),
    /// Sign a file: a detached signature that `openssl cms -verify` checks (CMS, RFC 5652)
    SignFile(sign_file::SignFileArgs),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Its id or ARN
    #[arg(value_name = "ID", value_parser = parse_certificate)]
    certificate: CertificateRef,
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// Those alone that end within this time from now, which ends first above: 30d, 12h; revoked ones where --status asks for them
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    expiring: Option<Duration>,
    /// Those alone with this name among theirs: a DNS name, IP:ADDRESS, email:ADDRESS or URI:URI
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Those alone in this state: PENDING, ACTIVE, INACTIVE, REVOKED
    #[arg(long, value_name = "STATE", value_parser = parse_status)]
    status: Option<CertificateStatus>,
}

/// Reads the name of a certificate from a command line.
pub(super) fn parse_certificate(text: &str) -> Result<CertificateRef, String> {
    match CertificateRef::parse(text) {
        CertificateRef::Unknown => Err("a certificate is named by its id or its ARN".to_owned()),
        named => Ok(named),
    }
}

/// Reads the name of a state, in either case.
fn parse_status(text: &str) -> Result<CertificateStatus, String> {
    use CertificateStatus::*;
    let known = [Pending, Active, Inactive, Revoked];
    known
        .into_iter()
        .find(|status| status.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("a state is one of {}", known.map(CertificateStatus::name).join(", ")))
}

/// Leaves those that somebody is to see to before they end, the first of them above.
fn in_order_of_ends(rows: &mut Vec<CertificateRow>, asked: Option<CertificateStatus>) {
    rows.retain(|row| row.status != CertificateStatus::Revoked || asked == Some(CertificateStatus::Revoked));
    rows.sort_by_key(|row| row.not_after);
}

/// Reads a span of time: a number and `d`, `h` or `m`.
fn parse_span(text: &str) -> Result<Duration, String> {
    let told = || "a span of time is like 30d, 12h or 90m".to_owned();
    let at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(told)?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        _ => return Err(told()),
    };
    let number: u64 = number.parse().map_err(|_| told())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(told)
}

/// Does what the command says.
pub(crate) fn run(args: CertArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    match args.command {
        CertCommand::Create(args) => make::create(&api, args),
        CertCommand::Upload(args) => make::upload(&api, args),
        CertCommand::Import(args) => make::import(&api, args),
        CertCommand::Export(args) => make::export(&api, args),
        CertCommand::List(args) => list(&api, args),
        CertCommand::Show(named) => show(&api, named.certificate),
        CertCommand::Get { named, alone, request } => get(&api, named.certificate, alone, request),
        CertCommand::Activate(named) => {
            let sentence = "may be used again";
            change(&api, named.certificate, CertificateStatus::Active, sentence)
        }
        CertCommand::Deactivate(named) => {
            let sentence = "may not be used until it is active again";
            change(&api, named.certificate, CertificateStatus::Inactive, sentence)
        }
        CertCommand::Revoke(named) => {
            let sentence = "is revoked: it checks what it signed before, and nothing else";
            change(&api, named.certificate, CertificateStatus::Revoked, sentence)
        }
        CertCommand::Delete(named) => {
            let request = DeleteCertificateRequest { certificate_id: named.certificate, timeout_ms: None };
            let reply = ask!(api, DeleteCertificate, request);
            api.done(&reply, format_args!("certificate {} and its key are gone", text_of(named.certificate)))
        }
        CertCommand::SignFile(args) => sign_file::run(&api, args),
    }
}

fn change(
    api: &Api,
    certificate_id: CertificateRef,
    status: CertificateStatus,
    sentence: &str,
) -> Result<()> {
    let request = UpdateCertificateStatusRequest { certificate_id, status, timeout_ms: None };
    let reply = ask!(api, UpdateCertificateStatus, request);
    api.done(&reply, format_args!("certificate {} {sentence}", text_of(certificate_id)))
}

fn list(api: &Api, args: ListArgs) -> Result<()> {
    let filters = [("Name", args.name), ("Status", args.status.map(|status| status.name().to_owned()))];
    let filters: Vec<KeyFilter> = filters
        .into_iter()
        .filter_map(|(key, value)| Some(KeyFilter { key: key.to_owned(), values: vec![value?] }))
        .collect();
    let expires_before = args.expiring.map(|span| now().plus(span));
    let mut reply = ask_all!(api, ListCertificates, certificates.certificate, |page_number, page_size| {
        ListCertificatesRequest {
            filters: Some(filters.clone()),
            expires_before,
            page_number,
            page_size,
            timeout_ms: None,
        }
    });
    if expires_before.is_some() {
        in_order_of_ends(&mut reply.certificates.certificate, args.status);
        reply.total_count = reply.certificates.certificate.len() as u64;
    }
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["ID", "STATE", "KEY", "SUBJECT", "ISSUER", "ENDS"]);
    for row in &reply.certificates.certificate {
        rows.add(&[
            &row.certificate_id,
            &row.status.name(),
            &or_dash(row.key_spec.map(|spec| spec.name())),
            &row.subject,
            &or_dash(row.issuer.as_deref()),
            &or_dash(row.not_after.map(|at| remaining(at, now()))),
        ]);
    }
    match args.expiring {
        Some(_) => rows.print("no certificate ends within that time"),
        None => rows.print("no certificates; `keymill cert create --subject CN=…,O=…,OU=…,C=…` makes one"),
    }
}

fn show(api: &Api, certificate_id: CertificateRef) -> Result<()> {
    let request = DescribeCertificateRequest { certificate_id, timeout_ms: None };
    let reply = ask!(api, DescribeCertificate, request);
    if api.json {
        return output::json(&reply);
    }
    let DescribeCertificateReply { subject_alternative_names: names, tags, .. } = &reply;
    let tags: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let none_yet = |text: &Option<String>| text.clone().unwrap_or_else(|| "nobody yet".to_owned());
    let span = match (reply.not_before, reply.not_after) {
        (Some(from), Some(to)) => format!("{from} to {}", remaining(to, now())),
        _ => "-".to_owned(),
    };
    output::card(&[
        ("certificate", &reply.certificate_id),
        ("ARN", &reply.arn),
        ("state", &reply.status.name()),
        ("origin", &reply.origin.name()),
        ("subject", &reply.subject),
        ("names", &if names.is_empty() { "-".to_owned() } else { names.join(", ") }),
        ("issuer", &none_yet(&reply.issuer)),
        ("serial", &or_dash(reply.serial.as_deref())),
        ("valid", &span),
        ("signed with", &or_dash(reply.signature_algorithm.as_deref())),
        ("key", &or_dash(reply.key_spec.map(|spec| spec.name()))),
        ("key lives in", &or_dash(reply.protection_level.map(|level| format!("{level:?}")))),
        ("key may leave", &if reply.exportable_private_key { "yes" } else { "no" }),
        ("tags", &if tags.is_empty() { "-".to_owned() } else { tags.join(", ") }),
        ("created", &reply.created_at),
        ("changed", &reply.updated_at),
    ])
}

fn get(api: &Api, certificate_id: CertificateRef, alone: bool, wants_request: bool) -> Result<()> {
    let request = GetCertificateRequest { certificate_id, timeout_ms: None };
    let reply = ask!(api, GetCertificate, request);
    if api.json {
        return output::json(&reply);
    }
    if wants_request {
        let csr = reply.csr.ok_or_else(|| Failure::new("its key was not made here: there is no request"))?;
        return output::line(csr.trim_end());
    }
    let certificate = reply.certificate.ok_or_else(|| {
        let id = text_of(certificate_id);
        Failure::new("the certificate is PENDING: nobody has signed it yet").next(format!(
            "`keymill cert get {id} --request` prints what an authority signs; `keymill cert upload {id} FILE` puts that here"
        ))
    })?;
    let chain = reply.certificate_chain.filter(|_| !alone).unwrap_or_default();
    output::line(format!("{certificate}{chain}").trim_end())
}

/// Returns the time now, whole seconds.
pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(since.as_secs() * 1_000)
}

/// Writes a moment with what is left until then.
pub(super) fn remaining(at: Timestamp, now: Timestamp) -> String {
    let (left, over) = (at.since(now).as_secs(), now.since(at).as_secs());
    match (left / 86_400, left) {
        (0, 0) => format!("{at} (over, {} days ago)", over / 86_400),
        (0, left) => format!("{at} (in {} hours)", left / 3_600),
        (days, _) => format!("{at} (in {days} days)"),
    }
}

fn text_of(certificate: CertificateRef) -> String {
    match certificate {
        CertificateRef::Id(id) => id.to_string(),
        CertificateRef::Unknown => String::new(),
    }
}

/// Reads a file of text, up to what the server takes.
pub(super) fn read_text(path: &PathBuf) -> Result<String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Failure::because(path.display()))?;
    let mut text = String::new();
    let most = keymill_core::limit::PEM_CHARACTERS as u64;
    file.take(most + 1).read_to_string(&mut text).map_err(Failure::because(path.display()))?;
    match text.len() as u64 > most {
        true => Err(Failure::new(format!("{} is longer than {most} bytes", path.display()))),
        false => Ok(text),
    }
}

fn id_of(api: &Api, certificate_id: CertificateRef) -> Result<CertificateId> {
    let request = DescribeCertificateRequest { certificate_id, timeout_ms: None };
    Ok(ask!(api, DescribeCertificate, request).certificate_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_time_is_a_number_and_a_unit() {
        assert_eq!(parse_span("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_span("12h"), Ok(Duration::from_secs(12 * 3_600)));
        for odd in ["", "d", "30", "-1d", "30ä", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_span(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_state_is_one_of_four() {
        assert_eq!(parse_status("revoked"), Ok(CertificateStatus::Revoked));
        assert!(parse_status("EXPIRED").unwrap_err().contains("PENDING, ACTIVE, INACTIVE, REVOKED"));
    }

    #[test]
    fn what_is_left_is_told_in_the_unit_that_matters() {
        let at = Timestamp::from_ms(10 * 86_400_000);
        let told = |now: u64| remaining(at, Timestamp::from_ms(now));
        assert!(told(0).ends_with("(in 10 days)"));
        assert!(told(10 * 86_400_000 - 7_200_000).ends_with("(in 2 hours)"));
        assert!(told(12 * 86_400_000).ends_with("(over, 2 days ago)"));
    }
}
