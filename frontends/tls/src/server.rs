//! The TLS of a listener: what can be set, and how files in PEM become a configuration of rustls. The making is pure: it reads no file
//! and no clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keymill_core::Sensitive;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::error::TlsError;
use crate::provider::provider;
use crate::{files, pem};

/// Sessions that a listener remembers, at most; they are in memory alone.
const SESSIONS: usize = 1024;

/// Reads a file that must be private; the program has the rules for it. `None` where there is none.
pub type ReadKey = fn(&Path) -> Result<Option<Sensitive>, String>;

/// Options of the TLS of a listener.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the listener's own certificate comes from.
    pub identity: Identity,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
    /// The CAs of client certificates, in PEM.
    pub client_ca: Vec<PathBuf>,
    /// What these have revoked, in PEM. Where there is any, each CA of a chain needs its own.
    pub crl: Vec<PathBuf>,
    /// The protocol that is spoken inside, as ALPN names it; a client that asks for others alone is refused.
    pub alpn: &'static [u8],
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Between two looks at the files.
    pub reload_interval: Duration,
}

/// Where the certificate of a listener comes from.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Files, which are read again when they change.
    Files {
        /// The chain, in PEM, the listener's own certificate first.
        certificate: PathBuf,
        /// Its private key, in PEM, not encrypted.
        key: PathBuf,
        /// How that file is read.
        read_key: ReadKey,
    },
    /// Whoever runs the listener gives it ([`ServerTls::supply`](crate::ServerTls::supply)), before it serves and whenever it is renewed.
    Supplied {
        /// Who that is, for errors.
        by: String,
    },
}

impl Identity {
    /// Returns what errors call certificate and key.
    pub(crate) fn names(&self) -> (String, String) {
        match self {
            Identity::Files { certificate, key, .. } => {
                (certificate.display().to_string(), key.display().to_string())
            }
            Identity::Supplied { by } => (format!("the certificate of {by}"), "its key".to_owned()),
        }
    }
}

impl Options {
    /// Returns the defaults for a certificate that is supplied.
    pub fn supplied(by: String, alpn: &'static [u8]) -> Self {
        let nothing = Self::new(PathBuf::new(), PathBuf::new(), |_| Ok(None), alpn);
        Self { identity: Identity::Supplied { by }, ..nothing }
    }

    /// Returns the defaults for a certificate and its key.
    pub fn new(certificate: PathBuf, key: PathBuf, read_key: ReadKey, alpn: &'static [u8]) -> Self {
        Self {
            identity: Identity::Files { certificate, key, read_key },
            min_version: MinVersion::default(),
            client_certificates: ClientCertificates::default(),
            client_ca: Vec::new(),
            crl: Vec::new(),
            alpn,
            handshake_timeout: Duration::from_secs(5),
            reload_interval: Duration::from_secs(5),
        }
    }
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// 1.2, with AEAD suites and ephemeral keys alone.
    Tls12,
    /// 1.3
    #[default]
    Tls13,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// Nobody is let in without.
    Required,
}

/// What the files hold.
pub struct Material {
    /// The chain.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Sensitive,
    /// The CAs of client certificates, a text a file.
    pub client_ca: Vec<Vec<u8>>,
    /// Their revocation lists, a text a file.
    pub crl: Vec<Vec<u8>>,
}

impl Material {
    /// Reads all files that the options name.
    ///
    /// # Errors
    /// [`TlsError`] with the file that cannot be read.
    pub fn read(options: &Options) -> Result<Self, TlsError> {
        let all =
            |paths: &[PathBuf]| paths.iter().map(|path| files::read(path)).collect::<Result<Vec<_>, _>>();
        let (certificate, key) = match &options.identity {
            Identity::Files { certificate, key, read_key } => {
                let held = read_key(key).map_err(TlsError::new)?;
                let absent = || TlsError::new(format!("{} does not exist", key.display()));
                (files::read(certificate)?, held.ok_or_else(absent)?)
            }
            // It is put beside what the files hold.
            Identity::Supplied { .. } => (Vec::new(), Sensitive::copied(&[])),
        };
        Ok(Self { certificate, key, client_ca: all(&options.client_ca)?, crl: all(&options.crl)? })
    }
}

/// What a listener serves with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration of rustls.
    pub config: Arc<ServerConfig>,
    /// From when the certificate is valid, in seconds since 1970.
    pub not_before: u64,
    /// Until when.
    pub not_after: u64,
}

/// Makes what a listener serves with.
///
/// # Errors
/// [`TlsError`] with the file that is wrong, or the options that contradict each other.
pub fn build(material: &Material, options: &Options) -> Result<Loaded, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match options.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::because("TLS"))?;
    let builder = match options.client_certificates {
        ClientCertificates::None if options.client_ca.is_empty() && options.crl.is_empty() => {
            builder.with_no_client_auth()
        }
        ClientCertificates::None => {
            return Err(TlsError::new(
                "client_ca and crl are for client_certificates = \"optional\" or \"required\"",
            ));
        }
        ClientCertificates::Optional => builder.with_client_cert_verifier(verifier(material, options, true)?),
        ClientCertificates::Required => {
            builder.with_client_cert_verifier(verifier(material, options, false)?)
        }
    };
    let (name, key_name) = options.identity.names();
    let at = || TlsError::because(&name);
    let chain = pem::chain(&material.certificate).map_err(at())?;
    let (not_before, not_after) = pem::validity(&chain[0]).map_err(at())?;
    // rustls wipes what it takes over, once the key is made of it.
    let key = pem::key(material.key.expose()).map_err(TlsError::because(&key_name))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|why| TlsError::new(format!("{name} with {key_name}: {why}")))?;
    config.alpn_protocols = vec![options.alpn.to_vec()];
    // RFC 8446 §8: early data can be replayed, and some of our requests change something.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // RFC 7627: without it, an exporter of 1.2 does not tie a login to its channel.
    config.require_ems = true;
    config.send_tls13_tickets = 1;
    config.session_storage = match options.client_certificates {
        ClientCertificates::None => ServerSessionMemoryCache::new(SESSIONS),
        // A session that is taken up again is not verified again: a revocation would wait for its end.
        ClientCertificates::Optional | ClientCertificates::Required => Arc::new(NoServerSessionStorage {}),
    };
    Ok(Loaded { config: Arc::new(config), not_before, not_after })
}

fn verifier(
    material: &Material,
    options: &Options,
    is_optional: bool,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for (path, text) in options.client_ca.iter().zip(&material.client_ca) {
        pem::trust(text, &mut roots).map_err(TlsError::because(path.display()))?;
    }
    if roots.is_empty() {
        return Err(TlsError::new("client_certificates needs client_ca: the CAs that sign them"));
    }
    let mut lists = Vec::new();
    for (path, text) in options.crl.iter().zip(&material.crl) {
        lists.extend(pem::revocations(text).map_err(TlsError::because(path.display()))?);
    }
    // A CA without a list fails closed, which is the default. One whose next update has passed still counts: what it revokes stays so.
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).with_crls(lists);
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(TlsError::because("client certificates"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &Path) -> Result<Option<Sensitive>, String> {
        Ok(None)
    }

    fn some(_: &Path) -> Result<Option<Sensitive>, String> {
        Ok(Some(Sensitive::copied(b"key")))
    }

    fn options() -> Options {
        Options::new("s.crt".into(), "s.key".into(), nothing, b"test")
    }

    fn material() -> Material {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Material {
            certificate: pair.cert.pem().into_bytes(),
            key: Sensitive::new(pair.signing_key.serialize_pem().into_bytes()),
            client_ca: Vec::new(),
            crl: Vec::new(),
        }
    }

    #[test]
    fn what_is_made_allows_no_early_data_and_resumes_nothing_behind_a_client_certificate() {
        let mut material = material();
        let plain = build(&material, &options()).unwrap();
        assert_eq!((plain.config.max_early_data_size, plain.config.require_ems), (0, true));
        assert_eq!(plain.config.alpn_protocols, [b"test"]);
        assert!(!plain.config.ticketer.enabled(), "tickets name a session in memory, and hold none");
        assert!(plain.config.session_storage.can_cache());
        material.client_ca = vec![material.certificate.clone()];
        for mode in [ClientCertificates::Optional, ClientCertificates::Required] {
            let asking = Options { client_certificates: mode, client_ca: vec!["ca.crt".into()], ..options() };
            assert!(!build(&material, &asking).unwrap().config.session_storage.can_cache());
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file() {
        let told = |change: &dyn Fn(&mut Material, &mut Options)| {
            let (mut material, mut options) = (material(), options());
            change(&mut material, &mut options);
            build(&material, &options).unwrap_err().to_string()
        };
        assert!(told(&|material, _| material.certificate.clear()).starts_with("s.crt: no certificate"));
        assert!(told(&|material, _| material.key.wipe()).starts_with("s.key: no private key"));
        let others = self::material();
        assert!(
            told(&|material, _| material.certificate.clone_from(&others.certificate))
                .contains("s.crt with s.key")
        );
        let required = |options: &mut Options| {
            options.client_certificates = ClientCertificates::Required;
            options.client_ca = vec!["ca.crt".into()];
        };
        assert!(told(&|_, options| required(options)).contains("needs client_ca"));
        let wrong_ca = told(&|material, options| {
            required(options);
            material.client_ca = vec![b"x".to_vec()];
        });
        assert!(wrong_ca.starts_with("ca.crt: no certificate"), "{wrong_ca}");
        let wrong_list = told(&|material, options| {
            required(options);
            options.crl = vec!["ca.crl".into()];
            (material.client_ca, material.crl) = (vec![material.certificate.clone()], vec![b"x".to_vec()]);
        });
        assert!(wrong_list.starts_with("ca.crl: no revocation list"), "{wrong_list}");
        assert!(
            told(&|_, options| options.crl = vec!["ca.crl".into()]).contains("are for client_certificates")
        );
        let absent = Material::read(&Options::new("/absent/s.crt".into(), "s.key".into(), some, b"test"))
            .err()
            .unwrap();
        assert!(absent.to_string().starts_with("/absent/s.crt: "), "{absent}");
    }
}
