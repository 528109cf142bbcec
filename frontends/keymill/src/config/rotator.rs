//! The sections of the configuration that tell how secrets are rotated, and by what: each `[rotators.NAME]` is one rotator, whose `kind` says
//! which plugin it is. Callers name it, and say nothing of where it reaches.

use std::path::PathBuf;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::secret::{BackOff, Generated};
use keymill_runtime::RotationConfig;
use serde::{Deserialize, Serialize};

use super::database::DatabaseRotator;
use crate::failure::{Failure, Result};
use crate::private;

/// How secrets are rotated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RotationSection {
    /// Rotations at once.
    pub(crate) threads: usize,
    /// Rotations that wait for a thread.
    pub(crate) queue: usize,
    /// Milliseconds between two looks for secrets whose time has come.
    pub(crate) check_ms: u64,
    /// Milliseconds that a rotator may take for one step.
    pub(crate) step_timeout_ms: u64,
    /// Milliseconds until a rotation is tried again the first time.
    pub(crate) first_retry_ms: u64,
    /// Milliseconds between two tries, at most.
    pub(crate) max_retry_ms: u64,
}

impl Default for RotationSection {
    fn default() -> Self {
        let theirs = RotationConfig::default();
        let ms = |duration: Duration| duration.as_millis() as u64;
        Self {
            threads: theirs.threads,
            queue: theirs.queue,
            check_ms: ms(theirs.check),
            step_timeout_ms: ms(theirs.step_timeout),
            first_retry_ms: ms(theirs.back_off.first),
            max_retry_ms: ms(theirs.back_off.most),
        }
    }
}

impl RotationSection {
    /// Returns the engine's own options.
    pub(crate) fn read(&self) -> RotationConfig {
        RotationConfig {
            threads: self.threads,
            queue: self.queue,
            check: Duration::from_millis(self.check_ms.max(1)),
            step_timeout: Duration::from_millis(self.step_timeout_ms),
            back_off: BackOff {
                first: Duration::from_millis(self.first_retry_ms),
                most: Duration::from_millis(self.max_retry_ms),
            },
        }
    }
}

/// One rotator; `plugins.rs` opens it. A further kind is a variant here and an arm there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum RotatorSection {
    /// A generated password.
    Password(PasswordRotator),
    /// Signed requests to a receiver.
    Webhook(WebhookRotator),
    /// Logins of a PostgreSQL.
    Postgresql(DatabaseRotator),
    /// Logins of a MariaDB or MySQL.
    Mysql(DatabaseRotator),
}

/// A generated password.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PasswordRotator {
    /// Characters; 32 if absent.
    pub(crate) length: Option<u32>,
    /// Characters that are left out.
    pub(crate) exclude_characters: Option<String>,
    /// Whether characters but letters and digits are left out.
    pub(crate) exclude_punctuation: bool,
}

/// Signed requests to a receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookRotator {
    /// Where requests go.
    pub(crate) url: String,
    /// The file of the key that they are signed by.
    pub(crate) key_file: PathBuf,
    /// The secrets that it is for: names, or what names begin with and `*`.
    pub(crate) secrets: Vec<String>,
    /// Certificates of those who may have signed the receiver's.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Milliseconds that a request may take.
    #[serde(default = "webhook_timeout_ms")]
    pub(crate) timeout_ms: u64,
    /// Bytes of an answer, at most.
    #[serde(default = "webhook_answer_bytes")]
    pub(crate) max_answer_bytes: u64,
    /// Characters of a new value; 32 if absent.
    #[serde(default)]
    pub(crate) length: Option<u32>,
    /// Characters that are left out.
    #[serde(default)]
    pub(crate) exclude_characters: Option<String>,
    /// Whether characters but letters and digits are left out.
    #[serde(default)]
    pub(crate) exclude_punctuation: bool,
}

fn webhook_timeout_ms() -> u64 {
    10_000
}

fn webhook_answer_bytes() -> u64 {
    64 << 10
}

impl WebhookRotator {
    /// Returns the plugin's own options. The file of the key is read.
    pub(crate) fn options(&self) -> Result<keymill_rotate_webhook::Config> {
        let shown = self.key_file.display();
        let key = private::read(&self.key_file)?.ok_or_else(|| {
            Failure::new(format!("{shown} is not there"))
                .next("make it with `openssl rand -hex 32`, mode 0600, and give the receiver the same")
        })?;
        Ok(keymill_rotate_webhook::Config {
            ca_file: self.ca_file.clone(),
            timeout: Duration::from_millis(self.timeout_ms),
            max_answer_bytes: self.max_answer_bytes,
            values: Generated {
                length: self.length,
                exclude_characters: self.exclude_characters.clone(),
                exclude_punctuation: self.exclude_punctuation,
            },
            ..keymill_rotate_webhook::Config::new(
                self.url.clone(),
                Sensitive::copied(key.expose().trim_ascii()),
                self.secrets.clone(),
            )
        })
    }
}

/// One of each kind, with every option.
#[cfg(test)]
pub(crate) fn all_set() -> std::collections::BTreeMap<String, RotatorSection> {
    let password = PasswordRotator {
        length: Some(32),
        exclude_characters: Some(String::new()),
        exclude_punctuation: false,
    };
    let webhook = WebhookRotator {
        url: "https://localhost/".to_owned(),
        key_file: "k".into(),
        secrets: vec!["a".to_owned()],
        ca_file: Some("c".into()),
        timeout_ms: webhook_timeout_ms(),
        max_answer_bytes: webhook_answer_bytes(),
        length: Some(32),
        exclude_characters: Some(String::new()),
        exclude_punctuation: false,
    };
    let (password, webhook) = (RotatorSection::Password(password), RotatorSection::Webhook(webhook));
    let (postgresql, mysql) = super::database::all_set();
    [
        ("passwords".to_owned(), password),
        ("hook".to_owned(), webhook),
        ("orders-db".to_owned(), RotatorSection::Postgresql(postgresql)),
        ("shop-db".to_owned(), RotatorSection::Mysql(mysql)),
    ]
    .into()
}

impl PasswordRotator {
    /// Returns what passwords are like.
    pub(crate) fn passwords(&self) -> Generated {
        Generated {
            length: self.length,
            exclude_characters: self.exclude_characters.clone(),
            exclude_punctuation: self.exclude_punctuation,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::os::unix::fs::PermissionsExt;

    fn refused(text: &str) -> String {
        match toml::from_str::<Config>(text) {
            Ok(config) => config.engine().map(drop).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_rotator_is_of_a_kind_and_has_the_options_of_that_alone() {
        let config: Config = toml::from_str("[rotators.a]\nkind = \"password\"\nlength = 20\n").unwrap();
        let engine = config.engine().unwrap();
        assert!(engine.rotators.get(&"a".parse().unwrap()).is_some());
        for (text, told) in [
            ("[rotators.a]\n", "kind"),
            ("[rotators.a]\nkind = \"telepathy\"\n", "telepathy"),
            ("[rotators.a]\nkind = \"password\"\nurl = \"http://127.0.0.1/\"\n", "url"),
            ("[rotators.a]\nkind = \"password\"\nlength = 1\n", "rotators.a"),
            ("[rotators.a]\nkind = \"postgresql\"\nhost = \"localhost\"\n", "accounts"),
            ("[rotators.a]\nkind = \"mysql\"\nhost = \"db.example.com\"\naccounts = [\"a\"]\n", "TLS"),
            (
                "[rotators.a]\nkind = \"postgresql\"\nsocket = \"/s\"\naccounts = [\"a\"]\naccount_host = \"%\"\n",
                "account_host",
            ),
            ("[rotators.\"a b\"]\nkind = \"password\"\n", "rotators.a b"),
            ("[rotators.a]\nkind = \"webhook\"\nkey_file = \"k\"\nsecrets = [\"a\"]\n", "url"),
            ("[rotators.a]\nkind = \"webhook\"\nkey_file = \"k\"\nurl = \"https://h/\"\n", "secrets"),
            (
                "[rotators.a]\nkind = \"webhook\"\nurl = \"https://h/\"\nkey_file = \"/nowhere/k\"\nsecrets = [\"a\"]\n",
                "/nowhere/k",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn the_key_of_a_webhook_is_in_a_file_that_is_ours_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hook.key");
        std::fs::write(&path, format!("{}\n", "k".repeat(64))).unwrap();
        let text = format!(
            "[rotators.hook]\nkind = \"webhook\"\nsecrets = [\"a\"]\nurl = \"http://127.0.0.1:1/\"\nkey_file = \"{}\"\n",
            path.display()
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&text).contains("hook.key"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        toml::from_str::<Config>(&text).unwrap().engine().unwrap();
        assert!(refused(&text.replace("127.0.0.1:1", "example.com")).contains("loopback"));
    }
}
