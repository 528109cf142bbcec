//! The section of the configuration on networks that instances are bound to: what the cloud calls VPCs.

use std::collections::BTreeMap;

use keymill_core::instance::{Networks, Vpc};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Networks, at most.
const MAX: usize = 256;
/// Entries of a list, at most.
const MAX_ENTRIES: usize = 800;

/// One network. What it lists of a kind has to be met by a request; of a kind that it does not list, everything is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkSection {
    /// Addresses and ranges that requests come from.
    pub(crate) sources: Vec<String>,
    /// Addresses of ours, with or without a port, that they are accepted at.
    pub(crate) listen: Vec<String>,
    /// Names that they ask the TLS server for.
    pub(crate) server_names: Vec<String>,
}

/// Reads the networks.
///
/// # Errors
/// Where one lists nothing, or what is none.
pub(crate) fn read(sections: &BTreeMap<String, NetworkSection>) -> Result<Networks> {
    if sections.len() > MAX {
        return Err(Failure::new(format!("{} networks exceed the limit of {MAX}", sections.len())));
    }
    let vpcs = sections.iter().map(|(name, section)| section.read(name));
    Ok(Networks::of(vpcs.collect::<Result<_>>()?))
}

impl NetworkSection {
    fn read(&self, name: &str) -> Result<Vpc> {
        let place = format!("networks.{name}");
        let Self { sources, listen, server_names } = self;
        let lists = [sources, listen, server_names];
        if lists.iter().all(|list| list.is_empty()) {
            return Err(Failure::new(format!("{place} lists neither sources nor listen nor server_names")));
        }
        if lists.iter().any(|list| list.len() > MAX_ENTRIES) {
            return Err(Failure::new(format!("{place}: a list has up to {MAX_ENTRIES} entries")));
        }
        let is_name = |name: &&String| {
            (1..=253).contains(&name.len())
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
        };
        if let Some(odd) = server_names.iter().find(|name| !is_name(name)) {
            return Err(Failure::new(format!("{place}.server_names: {odd:?} is no name of a host")));
        }
        let sources =
            sources.iter().map(|text| text.parse().map_err(Failure::because(format!("{place}.sources"))));
        let listen =
            listen.iter().map(|text| text.parse().map_err(Failure::because(format!("{place}.listen"))));
        Ok(Vpc {
            id: name.parse().map_err(Failure::because(&place))?,
            sources: sources.collect::<Result<_>>()?,
            listen: listen.collect::<Result<_>>()?,
            server_names: server_names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        })
    }

    #[cfg(test)]
    pub(super) fn all_set() -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Self { sources: one("10.1.0.0/16"), listen: one("10.0.0.5"), server_names: one("kms.example.com") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn networks(text: &str) -> Result<Networks> {
        read(&toml::from_str::<Config>(text).unwrap().networks)
    }

    #[test]
    fn a_network_lists_something_that_a_request_can_meet() {
        let good = "[networks.shop]\nsources = [\"10.1.0.0/16\"]\nlisten = [\"10.0.0.5\", \"[::1]:8470\"]\n";
        assert!(networks(good).unwrap().has(&"shop".parse().unwrap()));
        for (bad, why) in [
            ("[networks.shop]\n", "neither"),
            ("[networks.shop]\nsources = [\"10.1.0.1/16\"]\n", "networks.shop.sources"),
            ("[networks.shop]\nlisten = [\"shop.example\"]\n", "networks.shop.listen"),
            ("[networks.shop]\nserver_names = [\"*.shop.example\"]\n", "server_names"),
            ("[networks.\"a b\"]\nsources = [\"10.1.0.0/16\"]\n", "VpcId"),
        ] {
            let told = networks(bad).unwrap_err().to_string();
            assert!(told.contains(why), "{bad}: {told}");
        }
    }
}
