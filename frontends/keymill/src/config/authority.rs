//! The section of the configuration on certificate authorities: where they are known, and what they do by themselves.

use std::time::Duration;

use keymill_runtime::config::AuthorityConfig;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Certificate authorities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuthoritySection {
    /// The address below which their lists and answers are found.
    pub(crate) public_url: Option<String>,
    /// Milliseconds between two looks for what is due.
    pub(crate) check_ms: u64,
}

impl Default for AuthoritySection {
    fn default() -> Self {
        let theirs = AuthorityConfig::default();
        Self { public_url: None, check_ms: theirs.check.as_millis() as u64 }
    }
}

impl AuthoritySection {
    /// Returns the engine's own options.
    pub(crate) fn read(&self) -> Result<AuthorityConfig> {
        if let Some(url) = &self.public_url {
            let host = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            let is_one = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
                && url.len() <= 200
                && url.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>".contains(&b));
            if !is_one {
                return Err(Failure::new(
                    "authorities.public_url is an address like http://pki.example.com, of up to 200 characters",
                ));
            }
        }
        let check = Duration::from_millis(self.check_ms.max(1));
        Ok(AuthorityConfig { public_url: self.public_url.clone(), check })
    }

    /// Tells what keeps others from finding lists and answers where certificates say that they are.
    pub(crate) fn warning(&self, http_has_tls: bool) -> Option<String> {
        let url = self.public_url.as_deref().filter(|url| http_has_tls && url.starts_with("http://"))?;
        Some(format!(
            "authorities.public_url is {url}, and the HTTP listener speaks TLS: something else must pass /pki/ of that address on to it, or nobody finds the lists"
        ))
    }

    #[cfg(test)]
    pub(super) fn all_set() -> Self {
        Self { public_url: Some("http://pki.example.com".into()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_nobody_would_find_are_told_of() {
        let of = |url: Option<&str>, tls| {
            AuthoritySection { public_url: url.map(Into::into), ..Default::default() }.warning(tls)
        };
        assert!(of(Some("http://a.example"), true).unwrap().contains("/pki/"));
        for (url, tls) in [(None, true), (Some("http://a.example"), false), (Some("https://a.example"), true)]
        {
            assert_eq!(of(url, tls), None);
        }
    }

    #[test]
    fn a_public_address_is_one_of_http() {
        let read = |url: &str| AuthoritySection { public_url: Some(url.into()), ..Default::default() }.read();
        for good in ["http://pki.example.com", "https://10.0.0.1:8470/keymill/"] {
            assert_eq!(read(good).unwrap().public_url.as_deref(), Some(good));
        }
        for odd in [
            "",
            "pki.example.com",
            "ftp://a",
            "http://",
            "http:///a",
            "http://a b",
            "http://a?b",
            "http://a#b",
        ] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }
}
