//! `keymill cert sign-file`: a file is digested here, and what is signed of it is a few hundred bytes, however long it is.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use keymill_core::key::SignAlgorithm;
use keymill_core::operation::{
    Bin, CertificatePrivateKeySignRequest, GetCertificateRequest, MessageType, Reply,
};
use keymill_x509::{Certificate, cms, read_pem_chain, signing_algorithm};

use super::{Named, now};
use crate::admin::{Api, ask, of_another};
use crate::failure::{Failure, Result};
use crate::output;

/// Bytes that are digested at once.
const CHUNK: usize = 256 << 10;

#[derive(Args, Clone, Debug)]
pub(super) struct SignFileArgs {
    #[command(flatten)]
    named: Named,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write the signature, in DER [default: FILE.p7s]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(api: &Api, args: SignFileArgs) -> Result<()> {
    let certificate_id = args.named.certificate;
    let out = args.out.unwrap_or_else(|| {
        let mut name = args.file.clone().into_os_string();
        name.push(".p7s");
        name.into()
    });
    let got = ask!(api, GetCertificate, GetCertificateRequest { certificate_id, timeout_ms: None });
    let certificate = got.certificate.ok_or_else(|| {
        Failure::new(
            "the certificate is PENDING: nobody has signed it yet, and nobody could check a signature",
        )
    })?;
    let text = format!("{certificate}{}", got.certificate_chain.unwrap_or_default());
    let told = |error: keymill_core::Error| Failure::new(error.message().to_owned());
    let chain = read_pem_chain(&text, keymill_core::limit::CHAIN_CERTIFICATES).map_err(told)?;
    let algorithm = algorithm_of(&chain[0])?;
    let digest = digest_of(&args.file, algorithm)?;
    let attributes = cms::attributes(&digest, now(), algorithm).map_err(told)?;
    let request = CertificatePrivateKeySignRequest {
        certificate_id,
        algorithm,
        message: Bin::from(attributes.bytes()),
        message_type: Some(MessageType::Raw),
        timeout_ms: None,
    };
    let answered = api.call(request)?;
    let reply = match answered.reply()? {
        Reply::CertificatePrivateKeySign(reply) => reply,
        other => return Err(of_another(other.operation())),
    };
    let signed = attributes.finish(&chain, &reply.signature_value).map_err(told)?;
    std::fs::write(&out, signed).map_err(Failure::because(out.display()))?;
    if api.json {
        return output::json(&serde_json::json!({ "Signature": out.display().to_string() }));
    }
    output::line(format_args!("{} is the signature of {}", out.display(), args.file.display()))?;
    output::note(format_args!(
        "check it: openssl cms -verify -binary -inform DER -in {} -content {} -CAfile ROOT.pem -purpose any -out /dev/null",
        out.display(),
        args.file.display()
    ))
}

fn algorithm_of(certificate: &Certificate) -> Result<SignAlgorithm> {
    let spec = certificate.key_spec.and_then(signing_algorithm);
    spec.ok_or_else(|| Failure::new("the key of the certificate signs no files"))
}

/// Digests a file as the algorithm wants it, a part at a time.
fn digest_of(path: &PathBuf, algorithm: SignAlgorithm) -> Result<Vec<u8>> {
    let kind = cms::content_digest(algorithm).map_err(|error| Failure::new(error.message().to_owned()))?;
    let mut file = File::open(path).map_err(Failure::because(path.display()))?;
    let mut digest = aws_lc_rs::digest::Context::new(kind);
    let mut part = vec![0; CHUNK];
    loop {
        match file.read(&mut part).map_err(Failure::because(path.display()))? {
            0 => return Ok(digest.finish().as_ref().to_vec()),
            read => digest.update(&part[..read]),
        }
    }
}
