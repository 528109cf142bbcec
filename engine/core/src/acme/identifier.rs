//! For what names certificates may be ordered (RFC 8555 §7.1.3, RFC 8738), and which challenges show that somebody holds one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AltName, Outcome, Problem, ProblemKind};

/// How it is shown that a name is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// By a file on the name's port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// By a TXT record below the name (RFC 8555 §8.4).
    #[serde(rename = "dns-01")]
    Dns01,
}

impl ChallengeKind {
    /// Every kind.
    pub const ALL: [ChallengeKind; 2] = [ChallengeKind::Http01, ChallengeKind::Dns01];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::Dns01 => "dns-01",
        }
    }
}

/// Reads an identifier of an order: its type, and its value.
///
/// # Errors
/// `UnsupportedIdentifier` for another type, `Malformed` for what is no such name, `RejectedIdentifier` for one that nobody can hold.
pub fn identifier(kind: &str, value: &str) -> Outcome<AltName> {
    match kind {
        "dns" => dns(value),
        "ip" => ip(value),
        _ => {
            let why = "an identifier is of type dns or ip";
            Err(Problem::new(ProblemKind::UnsupportedIdentifier, why))
        }
    }
}

fn dns(value: &str) -> Outcome<AltName> {
    let name = AltName::dns(value).map_err(|error| Problem::new(ProblemKind::Malformed, error.message()))?;
    // All of a top-level domain is nobody's.
    if value.strip_prefix("*.").is_some_and(|host| !host.contains('.')) {
        let why = "a wildcard stands below a name of two labels at least";
        return Err(Problem::new(ProblemKind::RejectedIdentifier, why).of(&name));
    }
    Ok(name)
}

fn ip(value: &str) -> Outcome<AltName> {
    let malformed = |why: &str| Problem::new(ProblemKind::Malformed, why);
    let address: IpAddr = value.parse().map_err(|_| malformed("an identifier of type ip is no address"))?;
    // RFC 8738 §3: the form of RFC 5952, so that one address has one spelling.
    if address.to_string() != value {
        return Err(malformed("an address is written in its shortest form, in lower case (RFC 5952)"));
    }
    let name = AltName::Ip(address);
    let is_of_one = match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none(),
    };
    match is_of_one {
        true => Ok(name),
        false => {
            let why = "an address that is no host's own is not certified";
            Err(Problem::new(ProblemKind::RejectedIdentifier, why).of(&name))
        }
    }
}

/// Returns which of the challenges that the server can validate show that a name is held: a wildcard's is shown in the DNS alone, since one
/// host does not speak for all below a name (RFC 8555 §7.1.3), an address's by the host at it (RFC 8738 §4).
pub fn offered(name: &AltName, can: &[ChallengeKind]) -> Vec<ChallengeKind> {
    let fits = |kind: &ChallengeKind| match name {
        AltName::Dns(name) => *kind == ChallengeKind::Dns01 || !name.starts_with("*."),
        AltName::Ip(_) => *kind == ChallengeKind::Http01,
        AltName::Email(_) | AltName::Uri(_) => false,
    };
    ChallengeKind::ALL.into_iter().filter(|kind| can.contains(kind) && fits(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_have_one_spelling() {
        assert_eq!(identifier("dns", "WWW.Example.com").unwrap(), AltName::Dns("www.example.com".into()));
        assert_eq!(identifier("dns", "*.a.example").unwrap(), AltName::Dns("*.a.example".into()));
        assert_eq!(identifier("ip", "10.0.0.1").unwrap().to_string(), "IP:10.0.0.1");
        assert_eq!(identifier("ip", "2001:db8::1").unwrap().to_string(), "IP:2001:db8::1");
    }

    #[test]
    fn what_nobody_can_hold_is_refused_with_what_is_wrong() {
        for (kind, value, is) in [
            ("email", "a@b.example", ProblemKind::UnsupportedIdentifier),
            ("DNS", "a.example", ProblemKind::UnsupportedIdentifier),
            ("", "a.example", ProblemKind::UnsupportedIdentifier),
            ("dns", "", ProblemKind::Malformed),
            ("dns", "a..example", ProblemKind::Malformed),
            ("dns", "a.example.", ProblemKind::Malformed),
            ("dns", "b\u{fc}cher.example", ProblemKind::Malformed),
            ("dns", "a.*.example", ProblemKind::Malformed),
            ("dns", "10.0.0.1", ProblemKind::Malformed),
            ("dns", "a.example:80", ProblemKind::Malformed),
            ("dns", "*.example", ProblemKind::RejectedIdentifier),
            ("ip", "a.example", ProblemKind::Malformed),
            ("ip", "10.0.0.01", ProblemKind::Malformed),
            ("ip", "2001:DB8::1", ProblemKind::Malformed),
            ("ip", "2001:db8:0::1", ProblemKind::Malformed),
            ("ip", "fe80::1%eth0", ProblemKind::Malformed),
            ("ip", "10.0.0.0/8", ProblemKind::Malformed),
            ("ip", "0.0.0.0", ProblemKind::RejectedIdentifier),
            ("ip", "224.0.0.1", ProblemKind::RejectedIdentifier),
            ("ip", "255.255.255.255", ProblemKind::RejectedIdentifier),
            ("ip", "::", ProblemKind::RejectedIdentifier),
            ("ip", "ff02::1", ProblemKind::RejectedIdentifier),
            ("ip", "::ffff:10.0.0.1", ProblemKind::RejectedIdentifier),
        ] {
            assert_eq!(identifier(kind, value).unwrap_err().kind, is, "{kind} {value:?}");
        }
    }

    #[test]
    fn a_wildcard_is_shown_in_the_dns_alone_and_an_address_by_its_host_alone() {
        let all = ChallengeKind::ALL;
        let name = |text: &str| text.parse::<AltName>().unwrap();
        assert_eq!(offered(&name("a.example"), &all), all);
        assert_eq!(offered(&name("*.a.example"), &all), [ChallengeKind::Dns01]);
        assert_eq!(offered(&name("*.a.example"), &[ChallengeKind::Http01]), []);
        assert_eq!(offered(&name("10.0.0.1"), &all), [ChallengeKind::Http01]);
        assert_eq!(offered(&name("email:a@b.example"), &all), []);
    }
}
