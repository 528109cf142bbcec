//! To which addresses a request may go. Whoever orders a certificate for a name chooses its address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keymill_core::access::Network;

/// Where requests may go.
pub(crate) struct Reach(Option<Vec<Network>>);

impl Reach {
    /// Makes it of networks, which are then all of it.
    pub(crate) fn new(networks: Option<Vec<Network>>) -> Self {
        Self(networks)
    }

    /// Tells whether an address is within it.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match &self.0 {
            Some(networks) => networks.iter().any(|network| network.covers(address)),
            None => !is_special(address),
        }
    }
}

/// Tells whether an address is this machine's own, of this link, of no one host, or of a cloud's metadata.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_special_v4(v4),
        IpAddr::V6(v6) => is_special_v6(v6),
    }
}

fn is_special_v4(v4: Ipv4Addr) -> bool {
    let [first, ..] = v4.octets();
    // Alibaba Cloud's metadata is in the space of carrier-grade NAT; others' is link-local.
    let is_metadata = v4 == Ipv4Addr::new(100, 100, 100, 200);
    first == 0 || v4.is_loopback() || v4.is_link_local() || first >= 224 || is_metadata
}

fn is_special_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    let is_of_host = v6.is_unspecified() || v6.is_loopback();
    // fe80::/10, and fec0::/10 of old.
    let is_of_link = matches!(segments[0], 0xfe80..=0xfeff);
    // AWS, which has it in the space of private networks.
    let is_metadata = v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    is_of_host || is_of_link || v6.is_multicast() || is_metadata || embedded(v6).is_some_and(is_special_v4)
}

/// Returns the IPv4 address that one of IPv6 leads to: compatible (RFC 4291 §2.5.5.1), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = v6.octets();
    let last = Ipv4Addr::new(a, b, c, d);
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_reached_and_this_machine_and_its_link_are_not() {
        let reach = Reach::new(None);
        for open in
            ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"]
        {
            assert!(reach.has(open.parse().unwrap()), "{open}");
        }
        for special in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(!reach.has(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn networks_that_are_named_are_all_of_it() {
        let reach = Reach::new(Some(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]));
        for (address, is_within) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("fd12::1", true),
            ("10.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(reach.has(address.parse().unwrap()), is_within, "{address}");
        }
        assert!(!Reach::new(Some(vec![])).has("10.0.0.1".parse().unwrap()));
    }
}
