//! Which server a command talks to, and as whom: flags come first, then the environment, then the file of the CLI. The first
//! of the three that names an address names both, so that an old file never mixes into a new command.

use std::path::{Path, PathBuf};

use clap::Args;
use keymill_client::{ALPN, Addresses, ClientOptions, ClientTls, Config, Credentials, Options, Tls};
use keymill_core::Sensitive;
use keymill_core::time::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::config::read_key;
use crate::failure::{Failure, Result};
use crate::private;

/// Where a server on this machine listens unless told otherwise.
const DEFAULT_TCP: &str = "127.0.0.1:8471";
/// The variable that the password of a client key is taken from.
pub(crate) const PASSWORD: &str = "KEYMILL_CLIENT_KEY_PASSWORD";
/// What a MessagePack TCP address under TLS begins with.
const TLS: &str = "tls://";
/// What an HTTP address under TLS begins with.
const HTTPS: &str = "https://";

/// The flags of every command that talks to a server.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// MessagePack TCP address of the server, tls://HOST:PORT where it speaks TLS; of several nodes of a cluster, one after another with
    /// commas, or the flag for each [env: KEYMILL_TCP] [default: 127.0.0.1:8471]
    #[arg(long, global = true, value_name = "HOST:PORT,...", value_delimiter = ',')]
    tcp: Vec<String>,
    /// HTTP address of the server, http://HOST:PORT or https://HOST:PORT, or several likewise [env: KEYMILL_URL]
    #[arg(long, global = true, value_name = "URL,...", value_delimiter = ',')]
    url: Vec<String>,
    /// The name that the certificate of each server has to hold, over MessagePack TCP; the host of its address, if absent [env: KEYMILL_SERVER_NAME]
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
    /// The CAs that vouch for a server under TLS, in PEM; no others are trusted [env: KEYMILL_CA]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A certificate to show to the server, in PEM, with its chain [env: KEYMILL_CLIENT_CERTIFICATE]
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Its private key, in PEM, mode 0600 [env: KEYMILL_CLIENT_KEY]
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// File with the access key as JSON, mode 0600, or of a client key (its password in KEYMILL_CLIENT_KEY_PASSWORD), or of a login
    /// token; else KEYMILL_ACCESS_KEY_ID and KEYMILL_ACCESS_KEY_SECRET, else the file that `keymill login` wrote
    #[arg(long, global = true, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Log in by the client certificate, and by no access key; it takes an address with TLS [env: KEYMILL_BY_CERTIFICATE=1]
    #[arg(long, global = true, conflicts_with = "credentials")]
    by_certificate: bool,
}

/// What is secret of how a caller logs in, and may stand in the environment.
pub(crate) const SECRET_VARIABLES: [&str; 3] =
    ["KEYMILL_ACCESS_KEY_ID", "KEYMILL_ACCESS_KEY_SECRET", "KEYMILL_CLIENT_KEY_PASSWORD"];

/// A server, and the access key to call it with.
pub(crate) struct Target {
    /// MessagePack TCP addresses, where they are known.
    pub(crate) tcp: Option<Tcp>,
    /// HTTP addresses, where they are known.
    pub(crate) url: Option<Addresses>,
    /// TLS, where one of them needs it.
    pub(crate) tls: Option<ClientTls>,
    /// Who calls.
    pub(crate) credentials: Credentials,
}

/// The MessagePack TCP address of a server, or those of the nodes of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    /// Host and port of each.
    pub(crate) addresses: Addresses,
    /// TLS, where they speak it.
    pub(crate) tls: Option<Tls>,
}

/// An access key as a file holds it, with the addresses that it is for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CredentialsFile {
    /// The id.
    pub(crate) access_key_id: String,
    /// The secret.
    pub(crate) access_key_secret: String,
    /// HTTP address, or several with commas between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// MessagePack TCP address, or several likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<String>,
    /// The name that the certificate of each server has to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    /// The CAs that vouch for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate to show to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// The private key of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_key: Option<PathBuf>,
    /// What else says who calls, in the place of the access key.
    #[serde(skip)]
    pub(crate) login: Login,
}

/// What says who calls.
#[derive(Default)]
pub(crate) enum Login {
    /// The access key.
    #[default]
    AccessKey,
    /// A client key: the text of its file, which opens by a password.
    ClientKey(Sensitive),
    /// A login token with its secret.
    Token(TokenFile),
    /// The client certificate.
    Certificate,
}

/// A login token as a file holds it: the reply of `CreateLoginToken`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct TokenFile {
    /// The token.
    pub(crate) token: String,
    /// Its secret.
    pub(crate) secret: String,
    /// Until when it is taken.
    pub(crate) not_after: Timestamp,
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Tells a client key's file from others.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ClientKeyForm {
    #[serde(rename = "KeyId")]
    _key_id: IgnoredAny,
    #[serde(rename = "PrivateKeyData")]
    _private_key_data: IgnoredAny,
}

impl Drop for CredentialsFile {
    fn drop(&mut self) {
        self.access_key_secret.zeroize();
    }
}

impl CredentialsFile {
    /// Takes an access key, for a server that is named elsewhere.
    pub(crate) fn of(access_key_id: String, access_key_secret: String) -> Self {
        let mut file = Self::by(Login::AccessKey);
        (file.access_key_id, file.access_key_secret) = (access_key_id, access_key_secret);
        file
    }

    fn by(login: Login) -> Self {
        Self {
            access_key_id: String::new(),
            access_key_secret: String::new(),
            login,
            url: None,
            tcp: None,
            server_name: None,
            ca: None,
            client_certificate: None,
            client_key: None,
        }
    }

    /// Reads the file at `path`; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = private::read(path)? else { return Ok(None) };
        // The parser's own error could quote the secret.
        let json = text.expose();
        let parsed = serde_json::from_slice(json)
            .or_else(|_| serde_json::from_slice(json).map(|token| Self::by(Login::Token(token))))
            .or_else(|_| {
                let form = serde_json::from_slice::<ClientKeyForm>(json);
                form.map(|_| Self::by(Login::ClientKey(Sensitive::copied(json))))
            });
        let parsed = parsed.map_err(|_| {
            Failure::new(format!("{} is not an access key as JSON", path.display()))
                .next(r#"write {"AccessKeyId": "…", "AccessKeySecret": "…"} there, optionally with "Tcp" and "Url"; or name the file of a client key or of a login token"#)
        })?;
        Ok(Some(parsed))
    }

    /// Returns the text of the file.
    pub(crate) fn encode(&self) -> Sensitive {
        // Reserved at once: a growing buffer would leave copies of the secret behind.
        let mut text = Vec::with_capacity(1024);
        serde_json::to_writer_pretty(&mut text, self).expect("texts have a JSON form");
        text.push(b'\n');
        Sensitive::new(text)
    }
}

/// What the process was given from outside, passed in so that tests can give something else.
pub(crate) struct Surroundings<'a> {
    /// Reads a variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The file of the CLI; `None` where there is no home.
    pub(crate) file: Option<PathBuf>,
}

/// Returns the file of the CLI: `$XDG_CONFIG_HOME/keymill/credentials.json`.
pub(crate) fn default_file() -> Option<PathBuf> {
    base_directory("XDG_CONFIG_HOME", ".config").map(|base| base.join("keymill/credentials.json"))
}

/// Returns a base directory by the XDG rules: the variable where it is an absolute path, else `fallback` in the home.
pub(crate) fn base_directory(variable: &str, fallback: &str) -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path(variable).or_else(|| path("HOME").map(|home| home.join(fallback)))
}

/// Finds the server and the access key, as one file would hold them.
pub(crate) fn resolve(args: &ServerArgs) -> Result<CredentialsFile> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    resolve_in(args, &Surroundings { variable: &variable, file: default_file() })
}

fn resolve_in(args: &ServerArgs, around: &Surroundings<'_>) -> Result<CredentialsFile> {
    let variable = around.variable;
    // Whoever names an access key in the same command means that.
    let by_certificate = args.by_certificate
        || args.credentials.is_none() && variable("KEYMILL_BY_CERTIFICATE").is_some_and(|value| value == "1");
    let (id, secret) = match by_certificate {
        true => (None, None),
        false => (variable("KEYMILL_ACCESS_KEY_ID"), variable("KEYMILL_ACCESS_KEY_SECRET")),
    };
    let of_environment = args.credentials.is_none() && (id.is_some() || secret.is_some());
    let mut found = match (&args.credentials, &around.file) {
        (Some(named), _) => Some(CredentialsFile::read(named)?.ok_or_else(|| {
            Failure::new(format!("{} does not exist", named.display())).next("name the file of an access key")
        })?),
        // A file that is not needed is not read: it might be refused.
        (None, Some(file)) if !of_environment => CredentialsFile::read(file)?,
        (None, _) => None,
    };
    if of_environment {
        let (Some(access_key_id), Some(access_key_secret)) = (id, secret) else {
            return Err(Failure::wrong_use(
                "KEYMILL_ACCESS_KEY_ID and KEYMILL_ACCESS_KEY_SECRET go together, and one of them is not set",
            ));
        };
        found = Some(CredentialsFile::of(access_key_id, access_key_secret));
    }
    if by_certificate {
        let mut file = found.unwrap_or_else(|| CredentialsFile::by(Login::AccessKey));
        file.login = Login::Certificate;
        found = Some(file);
    }
    let mut found = found.ok_or_else(no_access_key)?;
    let named =
        |tcp: Option<String>, url: Option<String>| (tcp.is_some() || url.is_some()).then_some((tcp, url));
    let joined = |addresses: &[String]| (!addresses.is_empty()).then(|| addresses.join(","));
    (found.tcp, found.url) = named(joined(&args.tcp), joined(&args.url))
        .or_else(|| named(variable("KEYMILL_TCP"), variable("KEYMILL_URL")))
        .or_else(|| named(found.tcp.take(), found.url.take()))
        .unwrap_or_else(|| (Some(DEFAULT_TCP.to_owned()), None));
    let path = |name: &str| variable(name).map(PathBuf::from);
    found.ca = args.ca.clone().or_else(|| path("KEYMILL_CA")).or_else(|| found.ca.take());
    found.server_name = args
        .server_name
        .clone()
        .or_else(|| variable("KEYMILL_SERVER_NAME"))
        .or_else(|| found.server_name.take());
    // A certificate and its key come from one place.
    let pair = |certificate: Option<PathBuf>, key: Option<PathBuf>| {
        (certificate.is_some() || key.is_some()).then_some((certificate, key))
    };
    (found.client_certificate, found.client_key) =
        pair(args.client_certificate.clone(), args.client_key.clone())
            .or_else(|| pair(path("KEYMILL_CLIENT_CERTIFICATE"), path("KEYMILL_CLIENT_KEY")))
            .or_else(|| pair(found.client_certificate.take(), found.client_key.take()))
            .unwrap_or_default();
    let has_tls = [&found.tcp, &found.url].into_iter().flatten().any(|addresses| is_tls(addresses));
    let is_for_tls = args.ca.is_some() || args.client_certificate.is_some() || args.server_name.is_some();
    if !has_tls && is_for_tls {
        return Err(Failure::wrong_use(
            "a CA, a certificate or a name of the server's is given, and the address is one without TLS",
        )
        .next("write tls://HOST:PORT behind --tcp, or https://HOST:PORT behind --url"));
    }
    Ok(found)
}

impl Target {
    /// Finds the server and the access key.
    pub(crate) fn find(args: &ServerArgs) -> Result<Self> {
        Self::of_file(&resolve(args)?)
    }

    /// Takes server and access key from what a file holds.
    pub(crate) fn of_file(file: &CredentialsFile) -> Result<Self> {
        let credentials = match &file.login {
            Login::Certificate if file.client_certificate.is_none() => {
                return Err(Failure::wrong_use("a login by certificate needs one")
                    .next("give --client-certificate FILE and --client-key FILE, and an address with TLS"));
            }
            Login::Certificate
                if ![&file.tcp, &file.url].into_iter().flatten().all(|address| is_tls(address)) =>
            {
                return Err(Failure::wrong_use("a login by certificate needs an address with TLS")
                    .next("write tls://HOST:PORT behind --tcp, or https://HOST:PORT behind --url"));
            }
            Login::Certificate => Credentials::of_certificate(),
            Login::Token(token) => Credentials::of_token(token.token.clone(), token.secret.clone()),
            Login::ClientKey(text) => open_client_key(text)?,
            Login::AccessKey => {
                let id = file.access_key_id.parse().map_err(Failure::because("access key"))?;
                Credentials::new(id, file.access_key_secret.clone())
            }
        };
        let has_tls = [&file.tcp, &file.url].into_iter().flatten().any(|addresses| is_tls(addresses));
        let tls = has_tls.then(|| open_tls(file)).transpose()?;
        let tcp = match &file.tcp {
            None => None,
            Some(text) => {
                let addresses = bare(&alike(text, TLS)?)?;
                let tls = tls.clone().filter(|_| is_tls(text));
                Some(Tcp { addresses, tls: tls.map(|tls| Tls { tls, host: file.server_name.clone() }) })
            }
        };
        let url = file.url.as_ref().map(|text| alike(text, HTTPS)).transpose()?;
        Ok(Self { tcp, url, tls, credentials })
    }

    /// Makes the target of a server in this process.
    pub(crate) fn of(address: &str, credentials: Credentials) -> Self {
        Self { tcp: Some(Tcp::plain(address)), url: None, tls: None, credentials }
    }

    /// Returns the MessagePack TCP address, for commands that speak nothing else.
    pub(crate) fn tcp_only(&self) -> Result<&Tcp> {
        self.tcp.as_ref().ok_or_else(|| {
            Failure::wrong_use("this command speaks MessagePack TCP, and only an HTTP address was given")
                .next("add --tcp HOST:PORT, or set KEYMILL_TCP")
        })
    }
}

impl Tcp {
    /// Names a listener without TLS.
    pub(crate) fn plain(address: &str) -> Self {
        Self { addresses: Addresses::one(address), tls: None }
    }

    /// Makes the configuration of a client there.
    pub(crate) fn config(&self, credentials: Credentials, connections: usize) -> Config {
        let options = Options { tls: self.tls.clone(), ..Options::default() };
        Config { connections, options, ..Config::of_cluster(self.addresses.clone(), credentials) }
    }
}

/// Tells whether addresses that are [`alike`] are with TLS.
fn is_tls(addresses: &str) -> bool {
    addresses.starts_with(TLS) || addresses.starts_with(HTTPS)
}

/// Reads a list of addresses: all begin with `tls`, or none does.
fn alike(text: &str, tls: &str) -> Result<Addresses> {
    let addresses: Addresses =
        text.parse().map_err(|why| Failure::wrong_use(format!("the addresses {text}: {why}")))?;
    let with_tls = addresses.iter().filter(|address| address.starts_with(tls)).count();
    match with_tls == 0 || with_tls == addresses.len() {
        true => Ok(addresses),
        // What goes in clear to one node would be no secret of the others.
        false => {
            Err(Failure::wrong_use(format!("of the addresses {text} some are with TLS and some without"))
                .next(format!("write {tls} before each of them")))
        }
    }
}

/// Returns host and port of each address.
fn bare(addresses: &Addresses) -> Result<Addresses> {
    let bare = addresses.iter().map(|address| address.strip_prefix(TLS).unwrap_or(address));
    Addresses::new(bare).map_err(|why| Failure::wrong_use(format!("the addresses {addresses}: {why}")))
}

fn open_tls(file: &CredentialsFile) -> Result<ClientTls> {
    let ca = file.ca.clone().ok_or_else(|| {
        Failure::wrong_use("the address is one with TLS, and no CA is named that vouches for the server")
            .next("name the file of its certificates with --ca FILE, or set KEYMILL_CA")
    })?;
    let identity = match (&file.client_certificate, &file.client_key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => {
            return Err(Failure::wrong_use(
                "a client certificate and its key go together, and one of them is not set",
            ));
        }
    };
    ClientTls::open(&ClientOptions { ca, identity, read_key }, ALPN).map_err(Failure::because("TLS"))
}

fn open_client_key(file: &Sensitive) -> Result<Credentials> {
    let password = std::env::var(PASSWORD).map(|text| Sensitive::new(text.into_bytes())).map_err(|_| {
        Failure::new("no password to open the client key with").next(format!("set {PASSWORD}"))
    })?;
    let text = std::str::from_utf8(password.expose()).map_err(Failure::because(PASSWORD))?;
    Credentials::of_client_key_file(file.expose(), text).map_err(Failure::because("client key"))
}

fn no_access_key() -> Failure {
    Failure::new("no access key").next(
        "set KEYMILL_ACCESS_KEY_ID and KEYMILL_ACCESS_KEY_SECRET, give --credentials FILE, or run `keymill login`; \
         `keymill serve` shows the first access key at its first start",
    )
}

#[cfg(test)]
mod tests;
