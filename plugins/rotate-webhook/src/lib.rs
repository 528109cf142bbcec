#![doc = include_str!("../README.md")]

mod request;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::error::Result;
use keymill_core::id::SecretName;
use keymill_core::seam::rotator::{
    FirstValue, RotationFault, RotationFaultKind, RotationSettings, Rotator, Turn,
};
use keymill_core::secret::Generated;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use request::{Body, NONCE, SIGNATURE, Signed, TIMESTAMP};

/// Names of secrets in the list, at most.
const MAX_PATTERNS: usize = 256;
/// Bytes of the key, at least.
const KEY_BYTES: usize = 32;
/// Where most systems keep the certificates that they trust.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Options of the rotator.
pub struct Config {
    /// Where requests go: `https://…`, or `http://` and a loopback address.
    pub url: String,
    /// What requests and answers are signed by.
    pub key: Sensitive,
    /// The secrets that are rotated by it: names, or what names begin with and `*`. Whoever may make a secret of such a name has it set by the
    /// receiver.
    pub secrets: Vec<String>,
    /// Certificates of those who may have signed the receiver's; those that the system trusts if absent.
    pub ca_file: Option<PathBuf>,
    /// How long a request may take, at most.
    pub timeout: Duration,
    /// Bytes of an answer, at most.
    pub max_answer_bytes: u64,
    /// What new values are like of which the secret says nothing else.
    pub values: Generated,
}

impl Config {
    /// Returns the options in their defaults.
    pub fn new(url: impl Into<String>, key: Sensitive, secrets: Vec<String>) -> Self {
        Self {
            url: url.into(),
            key,
            secrets,
            ca_file: None,
            timeout: Duration::from_secs(10),
            max_answer_bytes: 64 << 10,
            values: Generated::default(),
        }
    }
}

/// Why the rotator does not open.
#[derive(Debug)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Makes the rotator; nothing is reached for.
///
/// # Errors
/// [`OpenError`] for a URL that is none or not allowed, a key that is too short, certificates that cannot be read, values that none can be.
pub fn open(config: Config) -> Result<Webhook, OpenError> {
    let Config { url, key, secrets, ca_file, timeout, max_answer_bytes, values } = config;
    check_names(&secrets)?;
    let uri: Uri = url.parse().map_err(|_| OpenError(format!("url {url} is none")))?;
    let is_tls = check(&uri).map_err(|why| OpenError(format!("url {url}: {why}")))?;
    if key.len() < KEY_BYTES {
        return Err(OpenError(format!("the key in key_file has {} bytes, and needs {KEY_BYTES}", key.len())));
    }
    let any = Sensitive::copied(b"any");
    values.check(&Default::default(), &any).map_err(|error| OpenError(error.message().to_owned()))?;
    let tls = match is_tls {
        true => tls(&ca_file.unwrap_or_else(|| SYSTEM_CA.into()))?,
        false => TlsConfig::builder().build(),
    };
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .https_only(is_tls)
        .http_status_as_error(false)
        // Where it goes is said by the configuration, and by nobody who answers, nor by the environment.
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(16 << 10)
        .build()
        .new_agent();
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.to_string());
    Ok(Webhook { agent, url, path, key, secrets, timeout, max_answer_bytes, values })
}

/// Checks the list of secrets.
fn check_names(secrets: &[String]) -> Result<(), OpenError> {
    if !(1..=MAX_PATTERNS).contains(&secrets.len()) {
        return Err(OpenError(format!("secrets names 1 to {MAX_PATTERNS} secrets that are rotated by it")));
    }
    // A beginning is one of a name.
    let is_name =
        |pattern: &&String| pattern.strip_suffix('*').unwrap_or(pattern).parse::<SecretName>().is_ok();
    match secrets.iter().find(|pattern| !is_name(pattern)) {
        None => Ok(()),
        Some(wrong) => Err(OpenError(format!(
            "secrets: {wrong:?} is neither the name of a secret nor what names begin with and *"
        ))),
    }
}

/// Checks where requests would go; tells whether over TLS.
fn check(uri: &Uri) -> Result<bool, &'static str> {
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("a user is no part of it: requests are signed");
    }
    let is_loopback = || {
        let host = authority.host().trim_matches(['[', ']']);
        host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match uri.scheme_str() {
        Some("https") => Ok(true),
        // A name may lead anywhere.
        Some("http") if is_loopback() => Ok(false),
        Some("http") => Err(
            "http is for loopback addresses, 127.0.0.1 or [::1], alone: values leave the machine over https",
        ),
        _ => Err("it begins with https://"),
    }
}

fn tls(ca_file: &std::path::Path) -> Result<TlsConfig, OpenError> {
    let failed = |why: &dyn fmt::Display| OpenError(format!("{}: {why}", ca_file.display()));
    let read = CertificateDer::pem_file_iter(ca_file).map_err(|error| failed(&error))?;
    let roots: Result<Vec<_>, _> = read.collect();
    let roots = roots.map_err(|error| failed(&error))?;
    if roots.is_empty() {
        return Err(failed(&"there is no certificate in it"));
    }
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build())
}

/// Asks a receiver.
pub struct Webhook {
    agent: ureq::Agent,
    url: String,
    path: String,
    key: Sensitive,
    secrets: Vec<String>,
    timeout: Duration,
    max_answer_bytes: u64,
    values: Generated,
}

impl Webhook {
    fn ask(&self, step: &'static str, turn: &Turn<'_>) -> Result<(), RotationFault> {
        let body = Body::of(step, turn)?;
        let signed = Signed::now(&self.key, &self.path, &body)?;
        let left = turn.deadline.saturating_duration_since(Instant::now()).min(self.timeout);
        let request = self
            .agent
            .post(&self.url)
            .config()
            // None would be for ever.
            .timeout_global(Some(left.max(Duration::from_millis(1))))
            .build()
            .header("content-type", "application/json")
            .header(TIMESTAMP, &signed.timestamp)
            .header(NONCE, &signed.nonce)
            .header(SIGNATURE, &signed.signature);
        let mut answer = request.send(body.bytes()).map_err(|error| self.fault(&error))?;
        let status = answer.status().as_u16();
        let signature = answer.headers().get(SIGNATURE).map(|value| value.as_bytes().to_vec());
        let limited = answer.body_mut().with_config().limit(self.max_answer_bytes);
        let body = limited.read_to_vec().map_err(|error| self.fault(&error))?;
        let signature = signature.unwrap_or_default();
        if !signed.is_answered(&self.key, status, &body, &signature) {
            let why = format!("the receiver answered {status}, and not signed by the key");
            return Err(RotationFault::new(RotationFaultKind::Unreachable, why));
        }
        let kind = match status {
            200 => return Ok(()),
            422 => RotationFaultKind::NotValid,
            400..=499 => RotationFaultKind::Refused,
            _ => RotationFaultKind::Unreachable,
        };
        Err(RotationFault::new(kind, format!("the receiver answered {status}")))
    }

    /// Tells what went wrong, in words of ours: what the other side said is not among them.
    fn fault(&self, error: &ureq::Error) -> RotationFault {
        let why = match error {
            ureq::Error::Timeout(_) => "the receiver did not answer in time".to_owned(),
            ureq::Error::BodyExceedsLimit(_) => {
                format!("the answer of the receiver has more than {} bytes", self.max_answer_bytes)
            }
            ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                "the receiver is not trusted: TLS".to_owned()
            }
            ureq::Error::Io(error) => format!("the receiver is not reached: {}", error.kind()),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => "the receiver is not trusted: TLS".to_owned(),
            ureq::Error::HostNotFound => "the name of the receiver does not resolve".to_owned(),
            _ => "the receiver does not speak HTTP".to_owned(),
        };
        RotationFault::new(RotationFaultKind::Unreachable, why)
    }
}

impl Rotator for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn admin(&self) -> Option<&SecretName> {
        None
    }

    fn serves(&self, secret: &SecretName) -> bool {
        self.secrets.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => secret.as_str().starts_with(prefix),
            None => secret.as_str() == pattern,
        })
    }

    fn admit(&self, settings: &RotationSettings, value: &Sensitive) -> Result<FirstValue> {
        self.values.check(&settings.custom, value)?;
        Ok(FirstValue { current: Sensitive::copied(value.expose()), previous: None })
    }

    fn draft(
        &self,
        settings: &RotationSettings,
        current: &Sensitive,
        _: Option<&Sensitive>,
        below: &mut dyn FnMut(u32) -> Result<u32>,
    ) -> Result<Sensitive> {
        self.values.next(&settings.custom, current, below)
    }

    fn set(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        self.ask("set", turn)
    }

    fn test(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        self.ask("test", turn)
    }

    fn finish(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        self.ask("finish", turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str, key: &[u8]) -> Result<Webhook, OpenError> {
        let ca_file = Some("/nowhere/ca.pem".into());
        let secrets = vec!["apps/*".to_owned(), "one".to_owned()];
        open(Config { ca_file, ..Config::new(url, Sensitive::copied(key), secrets) })
    }

    #[test]
    fn values_leave_the_machine_over_tls_alone_and_go_where_the_configuration_says() {
        for url in ["http://127.0.0.1:1/a?b=c", "http://[::1]:1/", "http://127.9.9.9"] {
            opened(url, &[7; 32]).unwrap();
        }
        for (url, told) in [
            ("http://localhost:1/", "loopback"),
            ("http://10.0.0.1/", "loopback"),
            ("http://example.com/", "loopback"),
            ("http://127.0.0.1.example.com/", "loopback"),
            ("ftp://127.0.0.1/", "https"),
            ("/path", "host"),
            ("https://user:password@example.com/", "user"),
            ("https://example.com/", "/nowhere/ca.pem"),
            ("a b", "none"),
        ] {
            let error = opened(url, &[7; 32]).map(drop).unwrap_err().to_string();
            assert!(error.contains(told), "{url}: {error}");
        }
        assert!(opened("http://127.0.0.1/", &[7; 31]).map(drop).unwrap_err().to_string().contains("31"));
    }

    #[test]
    fn it_serves_the_secrets_that_the_configuration_leaves_to_it() {
        let hook = opened("http://127.0.0.1/", &[7; 32]).unwrap();
        for (name, is_served) in
            [("apps/a", true), ("one", true), ("one2", false), ("app", false), ("x/apps/a", false)]
        {
            assert_eq!(hook.serves(&name.parse().unwrap()), is_served, "{name}");
        }
        for wrong in [&[][..], &["*"], &["a b"], &[""]] {
            let secrets = wrong.iter().map(ToString::to_string).collect();
            let error = open(Config::new("http://127.0.0.1/", Sensitive::copied(&[7; 32]), secrets));
            assert!(error.map(drop).unwrap_err().to_string().contains("secrets"), "{wrong:?}");
        }
    }
}
