//! Certificates that come to be, are brought in, and are taken out.

use std::path::{Path, PathBuf};

use clap::Args;
use keymill_core::Sensitive;
use keymill_core::key::{KeySpec, ProtectionLevel};
use keymill_core::operation::{
    Bin, CreateCertificateRequest, ExportCertificateRequest, ImportCertificateRequest, Password, Reply,
    TagPair, UploadCertificateRequest,
};

use super::{Named, id_of, read_text};
use crate::admin::keeping::parse_tag;
use crate::admin::key::{parse_protection, parse_spec};
use crate::admin::{Api, ask, of_another};
use crate::failure::{Failure, Result};
use crate::output;
use crate::private;

/// The environment variable with the password of a PKCS #12 file.
const PASSWORD: &str = "KEYMILL_PKCS12_PASSWORD";

#[derive(Args, Clone, Debug)]
pub(super) struct CreateArgs {
    /// Whose it is to be: CN=…,O=…,OU=…,C=…
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// A further name: a DNS name, IP:ADDRESS, email:ADDRESS or URI:URI; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The kind of key: RSA_2048, RSA_3072, RSA_4096, EC_P256, EC_P384, Ed25519, EC_SM2
    #[arg(long, value_name = "SPEC", value_parser = parse_spec, default_value = "EC_P256")]
    spec: KeySpec,
    /// Where its key lives: software or hsm [default: as the server's configuration says]
    #[arg(long, value_name = "LEVEL", value_parser = parse_protection)]
    protection: Option<ProtectionLevel>,
    /// Its private key never leaves; that of an HSM never does
    #[arg(long)]
    not_exportable: bool,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<TagPair>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct UploadArgs {
    #[command(flatten)]
    named: Named,
    /// The file with the certificate in PEM
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file with those that signed it, in PEM: each followed by its own issuer
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ImportArgs {
    /// The PKCS #12 file; its password comes from --password-file or from KEYMILL_PKCS12_PASSWORD
    #[arg(long, value_name = "FILE", required_unless_present = "certificate")]
    pkcs12: Option<PathBuf>,
    /// The file that holds the password, mode 0600
    #[arg(long, value_name = "FILE", requires = "pkcs12")]
    password_file: Option<PathBuf>,
    /// The file with the certificate in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "pkcs12", requires = "key")]
    certificate: Option<PathBuf>,
    /// The file with those that signed it, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    chain: Option<PathBuf>,
    /// The file with the private key, mode 0600: PKCS #8 in DER or PEM, without a password
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Let its private key leave again, by `cert export`
    #[arg(long)]
    exportable: bool,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<TagPair>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    named: Named,
    /// Where to write it (mode 0600); the file must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The file that holds the password (8 to 64 characters), mode 0600; else it comes from KEYMILL_PKCS12_PASSWORD
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(super) fn create(api: &Api, args: CreateArgs) -> Result<()> {
    let request = CreateCertificateRequest {
        key_spec: args.spec,
        subject: args.subject,
        subject_alternative_names: Some(args.names).filter(|names| !names.is_empty()),
        exportable_private_key: args.not_exportable.then_some(false),
        protection_level: args.protection,
        tags: Some(args.tags).filter(|tags| !tags.is_empty()),
        timeout_ms: None,
    };
    let reply = ask!(api, CreateCertificate, request);
    if api.json {
        return output::json(&reply);
    }
    // The request goes where it is piped to; what is to be done with it, to who reads.
    output::line(reply.csr.trim_end())?;
    let id = reply.certificate_id;
    output::note(format_args!(
        "certificate {id} waits for its signature: have an authority sign the request above, and give what comes back to `keymill cert upload {id} FILE`"
    ))
}

pub(super) fn upload(api: &Api, args: UploadArgs) -> Result<()> {
    let text = read_text(&args.file)?;
    // A file of several is a certificate and its chain, as authorities hand them out.
    let (certificate, rest) = first_block(&text);
    let chain = match (&args.chain, rest.trim().is_empty()) {
        (Some(path), true) => Some(read_text(path)?),
        (None, true) => None,
        (None, false) => Some(rest.to_owned()),
        (Some(path), false) => {
            let why = format!("{} holds several certificates, and so does --chain", args.file.display());
            return Err(Failure::wrong_use(why).next(format!("leave out --chain {}", path.display())));
        }
    };
    let request = UploadCertificateRequest {
        certificate_id: args.named.certificate,
        certificate: certificate.to_owned(),
        certificate_chain: chain,
        timeout_ms: None,
    };
    let reply = ask!(api, UploadCertificate, request);
    let id = id_of(api, args.named.certificate)?;
    api.done(&reply, format_args!("certificate {id} is active"))
}

pub(super) fn import(api: &Api, args: ImportArgs) -> Result<()> {
    let (container, key);
    let tags = Some(args.tags).filter(|tags| !tags.is_empty());
    let mut request = ImportCertificateRequest {
        certificate: None,
        certificate_chain: None,
        private_key: None,
        pkcs12: None,
        password: None,
        exportable_private_key: Some(args.exportable),
        tags,
        timeout_ms: None,
    };
    match (&args.pkcs12, &args.certificate, &args.key) {
        (Some(path), ..) => {
            container = read_bytes(path)?;
            request.pkcs12 = Some(Bin::from(container.expose()));
            request.password = Some(password(args.password_file.as_deref())?);
        }
        (None, Some(certificate), Some(path)) => {
            let held = private::read(path)?
                .ok_or_else(|| Failure::new(format!("{} does not exist", path.display())))?;
            key = private_key(&held)
                .ok_or_else(|| Failure::new(format!("{} holds no private key in PKCS #8", path.display())))?;
            let text = read_text(certificate)?;
            let (first, rest) = first_block(&text);
            let rest = Some(rest.to_owned()).filter(|rest| !rest.trim().is_empty());
            let chain = args.chain.as_ref().map(read_text).transpose()?;
            request.certificate = Some(first.to_owned());
            request.certificate_chain = chain.or(rest);
            request.private_key = Some(Bin::from(key.expose()));
        }
        _ => return Err(Failure::wrong_use("give --pkcs12 FILE, or --certificate FILE and --key FILE")),
    }
    let reply = ask!(api, ImportCertificate, request);
    api.done(&reply, format_args!("certificate {} is active", reply.certificate_id))
}

pub(super) fn export(api: &Api, args: ExportArgs) -> Result<()> {
    private::check_new(&args.out)?;
    let request = ExportCertificateRequest {
        certificate_id: args.named.certificate,
        password: password(args.password_file.as_deref())?,
        timeout_ms: None,
    };
    let answered = api.call(request)?;
    let reply = match answered.reply()? {
        Reply::ExportCertificate(reply) => reply,
        other => return Err(of_another(other.operation())),
    };
    private::create(&args.out, &reply.pkcs12)?;
    let id = reply.certificate_id;
    output::note(format_args!("{} holds certificate {id} and its private key", args.out.display()))
}

/// Cuts a text of PEM behind its first block.
fn first_block(text: &str) -> (&str, &str) {
    const END: &str = "-----END CERTIFICATE-----";
    match text.find(END) {
        Some(at) => text.split_at(at + END.len()),
        None => (text, ""),
    }
}

/// Returns the PKCS #8 of a file: as it is, or out of its PEM.
fn private_key(held: &Sensitive) -> Option<Sensitive> {
    use base64::Engine as _;
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    let Some(text) = std::str::from_utf8(held.expose()).ok().filter(|text| text.contains(BEGIN)) else {
        return (held.expose().first() == Some(&0x30)).then(|| Sensitive::copied(held.expose()));
    };
    let body = text.split_once(BEGIN)?.1.split_once("-----END PRIVATE KEY-----")?.0;
    let mut digits = Sensitive::zeroed(body.len());
    let mut count = 0;
    for byte in body.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        digits.expose_mut()[count] = byte;
        count += 1;
    }
    let mut der = Sensitive::zeroed(count);
    let engine = base64::engine::general_purpose::STANDARD;
    let written = engine.decode_slice(&digits.expose()[..count], der.expose_mut()).ok()?;
    Some(Sensitive::copied(&der.expose()[..written]))
}

fn read_bytes(path: &PathBuf) -> Result<Sensitive> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Failure::because(path.display()))?;
    let most = keymill_core::limit::PEM_CHARACTERS;
    // At once: a buffer that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(most + 1);
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(Failure::because(path.display()))?;
    match bytes.len() > most {
        true => Err(Failure::new(format!("{} is longer than {most} bytes", path.display()))),
        false => Ok(Sensitive::new(bytes)),
    }
}

fn password(file: Option<&Path>) -> Result<Password> {
    private::password(file, PASSWORD, "no password for the PKCS #12 file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_several_certificates_is_cut_behind_the_first() {
        let one = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----";
        assert_eq!(first_block(one), (one, ""));
        let two = format!("{one}\n{one}\n");
        assert_eq!(first_block(&two), (one, &*format!("\n{one}\n")));
    }

    #[test]
    fn a_private_key_is_read_from_der_and_from_pem() {
        let key = |text: &[u8]| private_key(&Sensitive::copied(text)).map(|key| key.expose().to_vec());
        assert_eq!(key(&[0x30, 1, 2]), Some(vec![0x30, 1, 2]));
        let pem = b"-----BEGIN PRIVATE KEY-----\nMAEC\r\n-----END PRIVATE KEY-----\n";
        assert_eq!(key(pem), Some(vec![0x30, 1, 2]));
        for odd in [&b""[..], b"text", b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----"] {
            assert_eq!(key(odd), None);
        }
    }
}
