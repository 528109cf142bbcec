//! Which instance a request reaches: by where it came in, the name that it asked the TLS server for, and where it comes from. A request that is
//! in no network of an instance reaches the installation, as it would if there was no such instance.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{Instance, InstanceBook};
use crate::access::Network;
use crate::id::{InstanceId, VpcId};

/// How a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The address that it was accepted at.
    pub local: Option<SocketAddr>,
    /// The name that the client asked the TLS server for.
    pub server_name: Option<&'a str>,
    /// Where it comes from.
    pub source: Option<IpAddr>,
}

/// A network that instances can be bound to, as the configuration has it. What it lists of a kind has to be met; of a kind that it does not
/// list, everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpc {
    /// Its name.
    pub id: VpcId,
    /// Where its requests come from.
    pub sources: Vec<Network>,
    /// Where they are accepted.
    pub listen: Vec<Listening>,
    /// The names that they ask the TLS server for, in lower case.
    pub server_names: Vec<String>,
}

/// A local address, of any port or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address.
    pub address: IpAddr,
    /// The port; any if absent.
    pub port: Option<u16>,
}

impl FromStr for Listening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = text.parse::<SocketAddr>().map(|at| Self { address: at.ip(), port: Some(at.port()) });
        let any = || text.parse().map(|address| Self { address, port: None });
        one.or_else(|_| any()).map_err(|_| format!("{text:?} is no address, with or without a port"))
    }
}

impl Listening {
    fn is(self, local: SocketAddr) -> bool {
        local.ip().to_canonical() == self.address.to_canonical()
            && self.port.is_none_or(|port| port == local.port())
    }
}

impl Vpc {
    /// Tells whether a request is in the network. One that lists nothing has none in it.
    pub fn has(&self, arrival: &Arrival<'_>) -> bool {
        let Self { sources, listen, server_names, .. } = self;
        if sources.is_empty() && listen.is_empty() && server_names.is_empty() {
            return false;
        }
        let is_from = |source: IpAddr| sources.iter().any(|network| network.covers(source));
        let is_at = |local: SocketAddr| listen.iter().any(|listening| listening.is(local));
        let is_named = |asked: &str| server_names.iter().any(|name| name.eq_ignore_ascii_case(asked));
        (sources.is_empty() || arrival.source.is_some_and(is_from))
            && (listen.is_empty() || arrival.local.is_some_and(is_at))
            && (server_names.is_empty() || arrival.server_name.is_some_and(is_named))
    }
}

/// The networks that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<Vpc>);

impl Networks {
    /// Takes them.
    pub fn of(vpcs: Vec<Vpc>) -> Self {
        Self(vpcs)
    }

    /// Tells whether there is a network of that name.
    pub fn has(&self, vpc: &VpcId) -> bool {
        self.0.iter().any(|known| known.id == *vpc)
    }

    /// Returns the instance that a request reaches. Where several are bound to networks that it is in, it says which by the first label of the
    /// name that it asks the TLS server for (`<id>.kms.example.com`); one that does not reaches none of them.
    pub fn reached(&self, book: &InstanceBook, arrival: &Arrival<'_>) -> Option<InstanceId> {
        let within: Vec<&VpcId> = self.0.iter().filter(|vpc| vpc.has(arrival)).map(|vpc| &vpc.id).collect();
        if within.is_empty() {
            return None;
        }
        let is_bound = |instance: &&Instance| instance.vpcs().any(|vpc| within.contains(&vpc));
        let bound: Vec<&Instance> = book.instances().map(AsRef::as_ref).filter(is_bound).collect();
        let label = arrival.server_name.and_then(|name| name.split('.').next()).unwrap_or_default();
        if let Some(named) = bound.iter().find(|instance| instance.id.as_str().eq_ignore_ascii_case(label)) {
            return Some(named.id.clone());
        }
        match bound[..] {
            [only] => Some(only.id.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::instance;
    use super::*;

    fn vpc(id: &str, sources: &[&str], listen: &[&str], server_names: &[&str]) -> Vpc {
        Vpc {
            id: id.parse().unwrap(),
            sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            server_names: server_names.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_network_has_what_meets_all_that_it_lists() {
        let networks = [
            vpc("sources", &["10.1.0.0/16", "192.0.2.7"], &[], &[]),
            vpc("listen", &[], &["10.0.0.5", "10.0.0.6:8470"], &[]),
            vpc("names", &[], &[], &["kms.shop.example"]),
            vpc("all", &["10.1.0.0/16"], &["10.0.0.5"], &["kms.shop.example"]),
            vpc("none", &[], &[], &[]),
        ];
        // Where it was accepted, the name, where it comes from; and in which networks it is.
        for (local, server_name, source, within) in [
            ("10.0.0.9:8470", None, "10.1.2.3", "sources"),
            ("10.0.0.9:8470", None, "::ffff:10.1.2.3", "sources"),
            ("10.0.0.9:8470", None, "192.0.2.7", "sources"),
            ("10.0.0.9:8470", None, "192.0.2.8", ""),
            ("10.0.0.5:1", None, "10.2.0.1", "listen"),
            ("[::ffff:10.0.0.5]:1", None, "10.2.0.1", "listen"),
            ("10.0.0.6:8470", None, "10.2.0.1", "listen"),
            ("10.0.0.6:8471", None, "10.2.0.1", ""),
            ("10.0.0.9:8470", Some("KMS.shop.example"), "10.2.0.1", "names"),
            ("10.0.0.9:8470", Some("kms.shop.example.org"), "10.2.0.1", ""),
            ("10.0.0.5:8470", Some("kms.shop.example"), "10.1.0.1", "sources listen names all"),
            ("10.0.0.5:8470", None, "10.1.0.1", "sources listen"),
        ] {
            let (local, source) = (local.parse().ok(), source.parse().ok());
            let arrival = Arrival { local, server_name, source };
            let found: Vec<_> =
                networks.iter().filter(|network| network.has(&arrival)).map(|n| n.id.as_str()).collect();
            assert_eq!(found.join(" "), within, "{arrival:?}");
        }
        // What is not known meets nothing that is listed.
        let nowhere = Arrival { local: None, server_name: None, source: None };
        assert!(networks.iter().all(|network| !network.has(&nowhere)));
    }

    #[test]
    fn a_request_reaches_the_instance_whose_network_it_is_in_and_else_none() {
        let networks = Networks::of(vec![
            vpc("a", &["10.1.0.0/16"], &[], &[]),
            vpc("b", &["10.2.0.0/16"], &[], &[]),
            vpc("both", &["10.3.0.0/16"], &[], &[]),
        ]);
        let book = InstanceBook::of([
            instance("kst-1", &["a", "both"]),
            instance("kst-2", &["both", "b"]),
            instance("kst-3", &[]),
        ]);
        for (source, server_name, reached) in [
            ("10.1.0.1", None, Some("kst-1")),
            ("10.2.0.1", None, Some("kst-2")),
            ("10.9.0.1", None, None),
            // Two are bound to it: the name says which.
            ("10.3.0.1", None, None),
            ("10.3.0.1", Some("kms.example.com"), None),
            ("10.3.0.1", Some("kst-1.kms.example.com"), Some("kst-1")),
            ("10.3.0.1", Some("KST-2.kms.example.com"), Some("kst-2")),
            ("10.3.0.1", Some("kst-3.kms.example.com"), None),
            ("10.3.0.1", Some("kst-1"), Some("kst-1")),
            // A name is no way into a network.
            ("10.9.0.1", Some("kst-1.kms.example.com"), None),
            ("10.2.0.1", Some("kst-1.kms.example.com"), Some("kst-2")),
        ] {
            let arrival = Arrival { local: None, server_name, source: source.parse().ok() };
            let found = networks.reached(&book, &arrival);
            assert_eq!(found.as_ref().map(InstanceId::as_str), reached, "{arrival:?}");
        }
        assert!(networks.has(&"both".parse().unwrap()) && !networks.has(&"c".parse().unwrap()));
    }

    #[test]
    fn a_listening_address_is_one_with_or_without_a_port() {
        for good in ["10.0.0.5", "10.0.0.5:1", "::1", "[::1]:8470"] {
            assert!(good.parse::<Listening>().is_ok(), "{good}");
        }
        for bad in ["", "kms.example", "10.0.0.5:", "10.0.0.0/8", "[::1]"] {
            assert!(bad.parse::<Listening>().is_err(), "{bad}");
        }
    }
}
