//! `[http.tls]` and `[msgpack.tls]`: the TLS of a listener, which is on where its section is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::certificate::AltName;
use keymill_core::id::{AuthorityName, ProfileName};
use keymill_tls::{ClientCertificates, MinVersion, Options, ServerTls};
use serde::{Deserialize, Serialize};

use super::options::ms;
use crate::failure::{Failure, Result};
use crate::private;

/// The TLS of a listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsSection {
    /// The chain, in PEM.
    #[serde(default)]
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[serde(default)]
    pub(crate) key: Option<PathBuf>,
    /// The authority of this installation that signs the certificate, in the place of both.
    #[serde(default)]
    pub(crate) authority: Option<AuthorityName>,
    /// The names that it is for.
    #[serde(default)]
    pub(crate) names: Vec<AltName>,
    /// The profile that it is signed by.
    #[serde(default = "profile")]
    pub(crate) profile: ProfileName,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub(crate) min_version: TlsVersion,
    /// Whether clients show certificates.
    #[serde(default)]
    pub(crate) client_certificates: ClientCertificateMode,
    /// The CAs of these.
    #[serde(default)]
    pub(crate) client_ca: Vec<PathBuf>,
    /// What these CAs have revoked.
    #[serde(default)]
    pub(crate) crl: Vec<PathBuf>,
    /// Milliseconds from the accept to the end of the handshake.
    #[serde(default = "handshake_timeout_ms")]
    pub(crate) handshake_timeout_ms: u64,
    /// Milliseconds between two looks at the files.
    #[serde(default = "reload_interval_ms")]
    pub(crate) reload_interval_ms: u64,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TlsVersion {
    /// 1.2
    #[serde(rename = "1.2")]
    Tls12,
    /// 1.3
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientCertificateMode {
    /// None is asked for.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// Nobody is let in without.
    Required,
}

/// Looks no oftener than this, whatever the configuration says.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

impl TlsSection {
    /// Reads the files of `section`, for a listener that speaks `alpn`.
    pub(crate) fn open(&self, section: &str, alpn: &'static [u8]) -> Result<ServerTls> {
        let ours = self.clone();
        let wrong = |why: &str| Failure::new(format!("[{section}] {why}"));
        let base = match (&ours.certificate, &ours.key, &ours.authority) {
            (Some(certificate), Some(key), None) if ours.names.is_empty() => {
                Options::new(certificate.clone(), key.clone(), read_key, alpn)
            }
            (None, None, Some(_)) if ours.names.is_empty() => {
                return Err(wrong("names: the names that the certificate is for are missing"));
            }
            (None, None, Some(authority)) => Options::supplied(format!("authority {authority}"), alpn),
            _ => return Err(wrong("either certificate and key are given, or authority and names")),
        };
        let options = Options {
            min_version: match ours.min_version {
                TlsVersion::Tls12 => MinVersion::Tls12,
                TlsVersion::Tls13 => MinVersion::Tls13,
            },
            client_certificates: match ours.client_certificates {
                ClientCertificateMode::None => ClientCertificates::None,
                ClientCertificateMode::Optional => ClientCertificates::Optional,
                ClientCertificateMode::Required => ClientCertificates::Required,
            },
            client_ca: ours.client_ca,
            crl: ours.crl,
            handshake_timeout: Duration::from_millis(ours.handshake_timeout_ms),
            reload_interval: Duration::from_millis(ours.reload_interval_ms).max(LEAST_INTERVAL),
            ..base
        };
        ServerTls::open(options).map_err(|error| {
            Failure::new(format!("[{section}] {error}"))
                .next(format!("put the files of [{section}] right; without the section there is no TLS"))
        })
    }
}

/// Reads a private key by the rules of private files.
pub(crate) fn read_key(path: &Path) -> Result<Option<Sensitive>, String> {
    private::read(path).map_err(|failure| failure.to_string())
}

fn profile() -> ProfileName {
    "server".parse().expect("it is a name")
}

fn theirs() -> Options {
    Options::new(PathBuf::new(), PathBuf::new(), read_key, b"")
}

fn handshake_timeout_ms() -> u64 {
    ms(theirs().handshake_timeout)
}

fn reload_interval_ms() -> u64 {
    ms(theirs().reload_interval)
}
