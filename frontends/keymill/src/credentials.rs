//! Which server a command talks to, and as whom: flags come first, then the environment, then the file of the CLI. The first
//! of the three that names an address names both, so that an old file never mixes into a new command.

use std::path::{Path, PathBuf};

use clap::Args;
use keymill_client::Credentials;
use keymill_core::Sensitive;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::failure::{Failure, Result};
use crate::private;

/// Where a server on this machine listens unless told otherwise.
const DEFAULT_TCP: &str = "127.0.0.1:8471";

/// The flags of every command that talks to a server.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// MessagePack TCP address of the server [env: KEYMILL_TCP] [default: 127.0.0.1:8471]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// HTTP address of the server, http://HOST:PORT [env: KEYMILL_URL]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// File with the access key as JSON, mode 0600; else KEYMILL_ACCESS_KEY_ID and KEYMILL_ACCESS_KEY_SECRET, else the
    /// file that `keymill login` wrote
    #[arg(long, global = true, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

/// A server, and the access key to call it with.
pub(crate) struct Target {
    /// MessagePack TCP address, where one is known.
    pub(crate) tcp: Option<String>,
    /// HTTP address, where one is known.
    pub(crate) url: Option<String>,
    /// Who calls.
    pub(crate) credentials: Credentials,
}

/// An access key as a file holds it, with the addresses that it is for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CredentialsFile {
    /// The id.
    pub(crate) access_key_id: String,
    /// The secret.
    pub(crate) access_key_secret: String,
    /// HTTP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// MessagePack TCP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<String>,
}

impl Drop for CredentialsFile {
    fn drop(&mut self) {
        self.access_key_secret.zeroize();
    }
}

impl CredentialsFile {
    /// Reads the file at `path`; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = private::read(path)? else { return Ok(None) };
        // The parser's own error could quote the secret.
        let parsed = serde_json::from_slice(text.expose()).map_err(|_| {
            Failure::new(format!("{} is not an access key as JSON", path.display()))
                .next(r#"write {"AccessKeyId": "…", "AccessKeySecret": "…"} there, optionally with "Tcp" and "Url""#)
        })?;
        Ok(Some(parsed))
    }

    /// Returns the text of the file.
    pub(crate) fn encode(&self) -> Sensitive {
        // Reserved at once: a growing buffer would leave copies of the secret behind.
        let mut text = Vec::with_capacity(1024);
        serde_json::to_writer_pretty(&mut text, self).expect("four texts have a JSON form");
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
    let (id, secret) = (variable("KEYMILL_ACCESS_KEY_ID"), variable("KEYMILL_ACCESS_KEY_SECRET"));
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
        found = Some(CredentialsFile { access_key_id, access_key_secret, url: None, tcp: None });
    }
    let mut found = found.ok_or_else(no_access_key)?;
    let named =
        |tcp: Option<String>, url: Option<String>| (tcp.is_some() || url.is_some()).then_some((tcp, url));
    (found.tcp, found.url) = named(args.tcp.clone(), args.url.clone())
        .or_else(|| named(variable("KEYMILL_TCP"), variable("KEYMILL_URL")))
        .or_else(|| named(found.tcp.take(), found.url.take()))
        .unwrap_or_else(|| (Some(DEFAULT_TCP.to_owned()), None));
    Ok(found)
}

impl Target {
    /// Finds the server and the access key.
    pub(crate) fn find(args: &ServerArgs) -> Result<Self> {
        Self::of_file(&resolve(args)?)
    }

    /// Takes server and access key from what a file holds.
    pub(crate) fn of_file(file: &CredentialsFile) -> Result<Self> {
        let id = file.access_key_id.parse().map_err(Failure::because("access key"))?;
        let credentials = Credentials::new(id, file.access_key_secret.clone());
        Ok(Self { tcp: file.tcp.clone(), url: file.url.clone(), credentials })
    }

    /// Makes the target of a server in this process.
    pub(crate) fn of(address: &str, credentials: Credentials) -> Self {
        Self { tcp: Some(address.to_owned()), url: None, credentials }
    }

    /// Returns the MessagePack TCP address, for commands that speak nothing else.
    pub(crate) fn tcp_only(&self) -> Result<&str> {
        self.tcp.as_deref().ok_or_else(|| {
            Failure::wrong_use("this command speaks MessagePack TCP, and only an HTTP address was given")
                .next("add --tcp HOST:PORT, or set KEYMILL_TCP")
        })
    }
}

fn no_access_key() -> Failure {
    Failure::new("no access key").next(
        "set KEYMILL_ACCESS_KEY_ID and KEYMILL_ACCESS_KEY_SECRET, give --credentials FILE, or run `keymill login`; \
         `keymill serve` shows the first access key at its first start",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const FILE: &str = r#"{"AccessKeyId":"KMfile00001","AccessKeySecret":"file-secret","Tcp":"file:1","Url":"http://file:2"}"#;

    fn find(args: ServerArgs, variables: &[(&str, &str)], file: Option<&Path>) -> Result<Target> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Target::of_file(&resolve_in(
            &args,
            &Surroundings { variable: &variable, file: file.map(Path::to_owned) },
        )?)
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials.json");
        private::create(&path, FILE.as_bytes()).unwrap();
        (directory, path)
    }

    const KEY: [(&str, &str); 2] =
        [("KEYMILL_ACCESS_KEY_ID", "KMenv000001"), ("KEYMILL_ACCESS_KEY_SECRET", "env-secret")];

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let (_directory, path) = file();
        let target = find(ServerArgs::default(), &[], Some(&path)).unwrap();
        assert_eq!((target.tcp.as_deref(), target.url.as_deref()), (Some("file:1"), Some("http://file:2")));
        assert_eq!(target.credentials.access_key_id().as_str(), "KMfile00001");

        let target = find(ServerArgs::default(), &[("KEYMILL_URL", "http://env:3")], Some(&path)).unwrap();
        assert_eq!(
            (target.tcp.as_deref(), target.url.as_deref()),
            (None, Some("http://env:3")),
            "addresses are not mixed"
        );

        let args = ServerArgs { tcp: Some("flag:4".into()), ..ServerArgs::default() };
        let variables = [KEY[0], KEY[1], ("KEYMILL_TCP", "env:5")];
        let target = find(args, &variables, Some(&path)).unwrap();
        assert_eq!((target.tcp.as_deref(), target.url.as_deref()), (Some("flag:4"), None));
        assert_eq!(target.credentials.access_key_id().as_str(), "KMenv000001");
    }

    #[test]
    fn a_server_on_this_machine_is_the_default() {
        let target = find(ServerArgs::default(), &KEY, None).unwrap();
        assert_eq!(target.tcp_only().unwrap(), DEFAULT_TCP);
    }

    #[test]
    fn half_an_access_key_and_none_at_all_are_told_apart() {
        let half = find(ServerArgs::default(), &KEY[..1], None).err().unwrap().to_string();
        assert!(half.contains("go together"), "{half}");
        let none = find(ServerArgs::default(), &[], None).err().unwrap().to_string();
        assert!(none.contains("no access key") && none.contains("keymill login"), "{none}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_unless_it_is_not_needed() {
        let (_directory, path) = file();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = find(ServerArgs::default(), &[], Some(&path)).err().unwrap().to_string();
        assert!(refused.contains("open to others"), "{refused}");
        assert!(find(ServerArgs::default(), &KEY, Some(&path)).is_ok());
    }

    #[test]
    fn a_malformed_file_is_told_without_what_is_in_it() {
        let (_directory, path) = file();
        private::replace(&path, br#"{"AccessKeyId":"KMfile00001","AccessKeySecret":"marked","Tpc":"x"}"#)
            .unwrap();
        let refused = find(ServerArgs::default(), &[], Some(&path)).err().unwrap().to_string();
        assert!(refused.contains("not an access key") && !refused.contains("marked"), "{refused}");
    }

    #[test]
    fn the_file_reads_back_as_it_was_written() {
        let (_directory, path) = file();
        let read = CredentialsFile::read(&path).unwrap().unwrap();
        private::replace(&path, read.encode().expose()).unwrap();
        let again = CredentialsFile::read(&path).unwrap().unwrap();
        assert_eq!(again.access_key_secret, "file-secret");
        assert_eq!(again.tcp.as_deref(), Some("file:1"));
    }

    #[test]
    fn a_command_that_needs_tcp_says_so() {
        let args = ServerArgs { url: Some("http://flag:1".into()), ..ServerArgs::default() };
        let told = find(args, &KEY, None).unwrap().tcp_only().unwrap_err().to_string();
        assert!(told.contains("KEYMILL_TCP"), "{told}");
    }
}
