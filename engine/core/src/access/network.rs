//! Network rules: from which addresses an application access point may be used. Addresses and ranges of both families, with IPv4 read as
//! what it is however it is written (D9).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{NetworkRuleName, Text};
use crate::limit;

/// A network rule as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRule {
    /// Its name.
    pub name: NetworkRuleName,
    /// Free text.
    pub description: String,
    /// The addresses and ranges, as they were written.
    pub sources: Vec<Network>,
}

impl NetworkRule {
    /// Makes a rule of the texts of addresses and ranges.
    ///
    /// # Errors
    /// `InvalidParameter` naming the entry that is none, `LimitExceeded` past 800 entries.
    pub fn new(name: NetworkRuleName, description: String, sources: &[String]) -> Result<Self> {
        if sources.len() > limit::NETWORKS {
            return Err(Error::new(
                ErrorKind::LimitExceeded(Limit::NetworkRules),
                format!(
                    "SourcePrivateIp of {} entries exceeds the limit of {}",
                    sources.len(),
                    limit::NETWORKS
                ),
            ));
        }
        let read = |(at, text): (usize, &String)| {
            let why = |why: String| format!("SourcePrivateIp, entry {at}: {why}");
            text.parse::<Network>().map_err(|error| Error::new(ErrorKind::InvalidParameter, why(error.0)))
        };
        let sources = sources.iter().enumerate().map(read).collect::<Result<_>>()?;
        Ok(Self { name, description, sources })
    }
}

/// An address, or all that share its first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits that count; `None` where the address was written alone.
    prefix: Option<u8>,
}

/// Why a text is no network; it shows the text, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotANetwork(String);

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotANetwork {}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> std::result::Result<Self, NotANetwork> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(50).map(|c| if c.is_control() { '?' } else { c }).collect();
            NotANetwork(format!("{shown:?} {why}"))
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        // The standard library takes no zone, no leading zero and no part left out.
        let address: IpAddr = address.parse().map_err(|_| wrong("is no address and no range"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let Some(prefix) = prefix else { return Ok(Self { address, prefix: None }) };
        let is_plain =
            prefix == "0" || !prefix.starts_with('0') && prefix.bytes().all(|c| c.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|prefix| is_plain && *prefix <= bits);
        let prefix = prefix.ok_or_else(|| wrong("has no length of a prefix behind its slash"))?;
        let network = Self { address, prefix: Some(prefix) };
        let (first, _) = network.range();
        match first == place(address) {
            true => Ok(network),
            // What was meant is not clear: the host, or its network.
            false => Err(wrong("has bits behind its prefix")),
        }
    }
}

impl Network {
    /// Tells whether an address is within.
    pub fn covers(self, address: IpAddr) -> bool {
        let (first, last) = self.range();
        (first..=last).contains(&place(address))
    }

    /// Returns its address, and how many of its first bits count.
    pub fn parts(self) -> (IpAddr, u8) {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        (self.address, self.prefix.unwrap_or(whole))
    }

    /// Returns the first and the last address, in the space of IPv6.
    fn range(self) -> (u128, u128) {
        let first = place(self.address);
        let own = if self.address.is_ipv4() { 32 } else { 128 };
        let free = own - u32::from(self.prefix.unwrap_or(own as u8));
        let host_bits = 1u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
        (first & !host_bits, first | host_bits)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Text::deserialize(deserializer)?.0.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns where an address stands in the space of IPv6; one of IPv4 stands where its mapped form does (RFC 4291 §2.5.5.2).
fn place(address: IpAddr) -> u128 {
    let mapped = |address: Ipv4Addr| -> Ipv6Addr { address.to_ipv6_mapped() };
    u128::from(match address {
        IpAddr::V4(address) => mapped(address),
        IpAddr::V6(address) => address,
    })
}

/// Addresses, made for looking one up: ranges in order, none touching the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ranges(Box<[(u128, u128)]>);

impl Ranges {
    /// Makes it of addresses and ranges.
    pub(super) fn of(networks: &[Network]) -> Self {
        let mut ranges: Vec<_> = networks.iter().map(|network| network.range()).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joins = next.0 <= kept.1.saturating_add(1);
            if joins {
                kept.1 = kept.1.max(next.1);
            }
            joins
        });
        Self(ranges.into())
    }

    /// Tells whether an address is among them.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let place = place(address);
        let behind = self.0.partition_point(|(first, _)| *first <= place);
        behind > 0 && self.0[behind - 1].1 >= place
    }
}

/// The addresses of one rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Sources {
    name: NetworkRuleName,
    ranges: Ranges,
}

impl Sources {
    /// Makes it of a rule.
    pub fn of(rule: &NetworkRule) -> Arc<Self> {
        Arc::new(Self { name: rule.name.clone(), ranges: Ranges::of(&rule.sources) })
    }

    /// Returns the name of the rule.
    pub fn name(&self) -> &NetworkRuleName {
        &self.name
    }

    /// Tells whether an address is among them.
    pub fn has(&self, address: IpAddr) -> bool {
        self.ranges.has(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(sources: &[&str]) -> Result<Arc<Sources>> {
        let sources: Vec<String> = sources.iter().map(|text| (*text).to_owned()).collect();
        NetworkRule::new("office".parse().unwrap(), String::new(), &sources).map(|rule| Sources::of(&rule))
    }

    fn has(sources: &[&str], address: &str) -> bool {
        rule(sources).unwrap().has(address.parse().unwrap())
    }

    #[test]
    fn d9_ipv4_is_the_same_address_however_it_is_written() {
        for sources in [["10.0.0.0/8"], ["::ffff:10.0.0.0/104"]] {
            assert!(has(&sources, "10.1.2.3") && has(&sources, "::ffff:10.1.2.3"));
            assert!(!has(&sources, "11.0.0.0") && !has(&sources, "::10.1.2.3") && !has(&sources, "::1"));
        }
        assert!(has(&["0.0.0.0/0"], "255.255.255.255") && !has(&["0.0.0.0/0"], "::1"));
        assert!(has(&["::/0"], "10.0.0.1") && has(&["::/0"], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert!(has(&["192.168.0.7"], "192.168.0.7") && !has(&["192.168.0.7"], "192.168.0.8"));
        assert!(!has(&[], "10.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for (text, told) in [
            ("", "no address"),
            ("10.0.0", "no address"),
            ("10.0.0.01", "no address"),
            ("10.0.0.256", "no address"),
            ("fe80::1%eth0", "no address"),
            ("10.0.0.0/33", "no length"),
            ("10.0.0.0/08", "no length"),
            ("10.0.0.0/+8", "no length"),
            ("10.0.0.0/", "no length"),
            ("2001:db8::/129", "no length"),
            ("10.0.0.1/8", "bits behind"),
            ("2001:db8::1/64", "bits behind"),
            (" 10.0.0.1", "no address"),
            ("10.0.0.1-10.0.0.9", "no address"),
            ("example.com", "no address"),
        ] {
            let error = rule(&["::1", text]).unwrap_err();
            assert!(error.message().contains("entry 1") && error.message().contains(told), "{text}: {error}");
        }
        let many = vec!["10.0.0.1".to_owned(); limit::NETWORKS + 1];
        let error = NetworkRule::new("a".parse().unwrap(), String::new(), &many).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::NetworkRules));
    }

    #[test]
    fn a_network_is_shown_as_it_was_written() {
        for text in ["10.0.0.0/8", "192.168.0.7", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    fn any_network() -> impl Strategy<Value = Network> {
        let few = prop_oneof![0u32..64, Just(u32::MAX), any::<u32>()];
        (few, 0u8..=32, any::<bool>()).prop_map(|(bits, prefix, is_mapped)| {
            let kept = if prefix == 0 { 0 } else { bits & u32::MAX << (32 - prefix) };
            let address = Ipv4Addr::from(kept);
            match is_mapped {
                true => format!("{}/{}", address.to_ipv6_mapped(), prefix + 96),
                false => format!("{address}/{prefix}"),
            }
            .parse()
            .unwrap()
        })
    }

    proptest! {
        /// The look-up in merged ranges is that of each network by itself.
        #[test]
        fn an_address_is_among_the_sources_where_one_of_them_has_it(
            networks in prop::collection::vec(any_network(), 0..12), address in prop_oneof![0u32..64, any::<u32>()]
        ) {
            let address = IpAddr::V4(Ipv4Addr::from(address));
            let by_itself = networks.iter().any(|network| {
                let (first, last) = network.range();
                (first..=last).contains(&place(address))
            });
            let name = "office".parse().unwrap();
            let sources = Sources::of(&NetworkRule { name, description: String::new(), sources: networks });
            prop_assert_eq!(sources.has(address), by_itself);
        }
    }
}
