//! The sections of the configuration that say how ACME is offered, and where proofs are looked for. Without `[acme]` it is not offered.

use std::net::SocketAddr;
use std::time::Duration;

use keymill_core::access::Network;
use keymill_runtime::AcmeConfig;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::plugins;

/// How ACME is offered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcmeSection {
    /// Where clients reach this server.
    pub(crate) url: String,
    /// The authority that issues.
    pub(crate) authority: String,
    /// By which of its profiles.
    #[serde(default = "server")]
    pub(crate) profile: String,
    /// Where proofs are looked for.
    #[serde(default)]
    pub(crate) validation: ValidationSection,
}

fn server() -> String {
    "server".into()
}

/// Where proofs are looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ValidationSection {
    /// Whom names are asked of, over TCP.
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Where HTTP may go, alone.
    pub(crate) reach: Option<Vec<String>>,
    /// The port of HTTP.
    pub(crate) http_port: u16,
    /// Looks at once.
    pub(crate) threads: usize,
    /// Looks that wait for a thread.
    pub(crate) queue: usize,
    /// Milliseconds that a look may take.
    pub(crate) timeout_ms: u64,
    /// How often a proof is looked for.
    pub(crate) looks: u32,
    /// Milliseconds between two looks.
    pub(crate) rest_ms: u64,
}

/// Resolvers that are asked in turn, at most.
const RESOLVERS: usize = 4;

impl Default for ValidationSection {
    fn default() -> Self {
        let theirs = AcmeConfig::new(String::new(), any("issuing"), any("server"), Vec::new());
        let network = keymill_validate_network::Config::default();
        Self {
            resolvers: network.resolvers,
            reach: None,
            http_port: network.http_port,
            threads: theirs.threads,
            queue: theirs.queue,
            timeout_ms: theirs.look_timeout.as_millis() as u64,
            looks: theirs.looks,
            rest_ms: theirs.rest.as_millis() as u64,
        }
    }
}

/// Makes a name of a text that is one.
fn any<T: std::str::FromStr>(name: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    name.parse().expect("it is a name")
}

impl AcmeSection {
    /// Returns the engine's own options.
    pub(crate) fn read(&self) -> Result<AcmeConfig> {
        keymill_acme::Urls::new(&self.url).map_err(Failure::because("acme.url"))?;
        let ours = &self.validation;
        let validators = plugins::validators(ours)?;
        let authority = self.authority.parse().map_err(Failure::because("acme.authority"))?;
        let profile = self.profile.parse().map_err(Failure::because("acme.profile"))?;
        Ok(AcmeConfig {
            threads: ours.threads,
            queue: ours.queue,
            look_timeout: Duration::from_millis(ours.timeout_ms.max(1)),
            looks: ours.looks.max(1),
            rest: Duration::from_millis(ours.rest_ms.max(1)),
            ..AcmeConfig::new(self.url.clone(), authority, profile, validators)
        })
    }
}

impl ValidationSection {
    /// Returns the options of who looks over the network.
    pub(crate) fn options(&self) -> Result<keymill_validate_network::Config> {
        if self.resolvers.len() > RESOLVERS {
            return Err(Failure::new(format!("acme.validation.resolvers has up to {RESOLVERS} entries")));
        }
        let read = |text: &String| text.parse::<Network>().map_err(Failure::because("acme.validation.reach"));
        let reach = self.reach.as_ref().map(|all| all.iter().map(read).collect()).transpose()?;
        let (resolvers, http_port) = (self.resolvers.clone(), self.http_port);
        Ok(keymill_validate_network::Config { resolvers, reach, http_port })
    }
}

#[cfg(test)]
pub(super) fn all_set() -> AcmeSection {
    let validation = ValidationSection { reach: Some(vec!["10.0.0.0/8".into()]), ..Default::default() };
    let [url, authority, profile] = ["https://ca.example", "issuing", "server"].map(String::from);
    AcmeSection { url, authority, profile, validation }
}

#[cfg(test)]
mod tests {
    use keymill_core::acme::ChallengeKind;

    use super::*;

    fn read(text: &str) -> Result<AcmeConfig> {
        toml::from_str::<AcmeSection>(text).unwrap().read()
    }

    #[test]
    fn the_dns_is_a_proof_where_a_resolver_is_named() {
        let base = "url = \"https://ca.example:8470\"\nauthority = \"issuing\"\n";
        let kinds = |text: &str| {
            let config = read(text).unwrap();
            config.validators.iter().map(|validator| validator.kind()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(base), [ChallengeKind::Http01]);
        let with = format!("{base}[validation]\nresolvers = [\"10.0.0.53:53\"]\n");
        assert_eq!(kinds(&with), ChallengeKind::ALL);
        assert_eq!(read(base).unwrap().profile.to_string(), "server");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let base = "url = \"https://ca.example\"\nauthority = \"issuing\"\n";
        for (text, told) in [
            (base.replace("https://ca.example", "https://ca.example/"), "acme.url"),
            (base.replace("https://ca.example", "ca.example"), "acme.url"),
            (base.replace("issuing", "a b"), "acme.authority"),
            (format!("{base}profile = \"\"\n"), "acme.profile"),
            (format!("{base}[validation]\nreach = [\"10.0.0.1/8\"]\n"), "acme.validation.reach"),
            (format!("{base}[validation]\nresolvers = {:?}\n", ["10.0.0.1:53"; 5]), "resolvers"),
        ] {
            let error = read(&text).map(drop).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
