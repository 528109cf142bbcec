//! The addresses of a server, or of the nodes of one cluster: any of them answers the same.

use std::fmt;
use std::str::FromStr;

/// From one to 64 addresses, none of them twice; as a text, with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<String>);

impl Addresses {
    /// How many there may be.
    pub const MOST: usize = 64;

    /// Names a single server.
    pub fn one(address: impl Into<String>) -> Self {
        Self(vec![address.into()])
    }

    /// Names the nodes of a cluster.
    ///
    /// # Errors
    /// [`NotAddresses`] where there are none or too many, one is empty, or one is named twice.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, NotAddresses> {
        let addresses: Vec<String> = addresses.into_iter().take(Self::MOST + 1).map(Into::into).collect();
        if addresses.iter().any(String::is_empty) {
            return Err(NotAddresses("an address is empty"));
        }
        match addresses.len() {
            0 => return Err(NotAddresses("there is no address")),
            1..=Self::MOST => {}
            _ => return Err(NotAddresses("there are more than 64 addresses")),
        }
        let is_named_before = |(at, address)| addresses[..at].contains(address);
        if addresses.iter().enumerate().any(is_named_before) {
            return Err(NotAddresses("an address is named twice"));
        }
        Ok(Self(addresses))
    }

    /// Returns how many there are, which is one at least.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns them in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(crate) fn at(&self, node: usize) -> &str {
        &self.0[node]
    }
}

impl FromStr for Addresses {
    type Err = NotAddresses;
    fn from_str(text: &str) -> Result<Self, NotAddresses> {
        Self::new(text.split(',').map(str::trim))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Returns the host of `host:port`.
pub(crate) fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Why something is no list of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAddresses(&'static str);

impl fmt::Display for NotAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotAddresses {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_written_with_commas() {
        let addresses: Addresses = "a:1, b:2,[::1]:3".parse().unwrap();
        assert_eq!(addresses.iter().collect::<Vec<_>>(), ["a:1", "b:2", "[::1]:3"]);
        assert_eq!(addresses.to_string(), "a:1,b:2,[::1]:3");
        assert_eq!(addresses.iter().map(host).collect::<Vec<_>>(), ["a", "b", "[::1]"]);
    }

    #[test]
    fn none_an_empty_one_too_many_and_one_twice_are_no_list() {
        for text in ["", ",", "a:1,", "a:1,,b:2", "a:1,b:2,a:1"] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
        let many = |count: usize| Addresses::new((0..count).map(|at| format!("h:{at}")));
        assert!(many(0).is_err() && many(64).is_ok() && many(65).is_err());
    }
}
