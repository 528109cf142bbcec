//! Patterns of names: what a profile, or an authority for one access point, lets a certificate be for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::constraint::{check_family, is_within};
use super::{AltName, AttributeKind, DistinguishedName};
use crate::access::Network;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Text;

/// Names of one kind. As text: `orders.example` (that one), `*.orders.example` (one label below), `**.orders.example` (one or more below),
/// `**` (any DNS name); `10.0.0.0/8` (addresses); `email:ops@orders.example`, `email:*@orders.example` (its host is a pattern like those
/// above); `URI:spiffe://orders.example/*` (all below that path); `CN:orders`, `CN:orders-*` (common names: that one, or those that begin so and
/// go on without a dot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// DNS names.
    Dns(DnsPattern),
    /// Addresses.
    Ip(Network),
    /// Mail addresses: before the `@`, anything where there is none; and the host.
    Email(Option<String>, DnsPattern),
    /// URIs: one, or all that begin so.
    Uri(String, bool),
    /// Common names: one, or all that begin so.
    CommonName(String, bool),
}

/// DNS names: one, those one label below it, or all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPattern {
    depth: Depth,
    /// In lower case; empty for any name.
    base: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Itself,
    OneBelow,
    AnyBelow,
}

/// The most bytes of a pattern.
const PATTERN_BYTES: usize = 512;

impl DnsPattern {
    fn parse(text: &str) -> Result<Self> {
        let (depth, base) = match text.strip_prefix("**") {
            Some("") => return Ok(Self { depth: Depth::AnyBelow, base: String::new() }),
            Some(rest) => (Depth::AnyBelow, rest.strip_prefix('.').unwrap_or("*")),
            None => match text.strip_prefix("*.") {
                Some(base) => (Depth::OneBelow, base),
                None => (Depth::Itself, text),
            },
        };
        match AltName::dns(base) {
            Ok(AltName::Dns(base)) if !base.starts_with('*') => Ok(Self { depth, base }),
            _ => Err(invalid(text, "is no pattern of DNS names: a name, perhaps behind *. or **.")),
        }
    }

    /// Tells whether a name is one of them. A name that begins with `*` stands for all those one label below, and is one only where they all are.
    fn covers(&self, name: &str) -> bool {
        let below = || {
            let head = name.strip_suffix(&*self.base)?;
            head.strip_suffix('.').filter(|head| !head.is_empty())
        };
        match self.depth {
            Depth::Itself => name == self.base,
            Depth::OneBelow => below().is_some_and(|head| !head.contains('.')),
            Depth::AnyBelow => self.base.is_empty() || below().is_some(),
        }
    }
}

impl fmt::Display for DnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.depth {
            Depth::Itself => f.write_str(&self.base),
            Depth::OneBelow => write!(f, "*.{}", self.base),
            Depth::AnyBelow if self.base.is_empty() => f.write_str("**"),
            Depth::AnyBelow => write!(f, "**.{}", self.base),
        }
    }
}

impl NamePattern {
    /// Tells whether a name is one of them.
    pub fn covers(&self, name: &AltName) -> bool {
        match (self, name) {
            (NamePattern::Dns(pattern), AltName::Dns(name)) => pattern.covers(name),
            (NamePattern::Ip(network), AltName::Ip(address)) => {
                let (first, bits) = network.parts();
                is_within(*address, first, bits)
            }
            (NamePattern::Email(who, hosts), AltName::Email(address)) => {
                address.split_once('@').is_some_and(|(own, host)| {
                    who.as_ref().is_none_or(|who| who == own) && hosts.covers(&host.to_ascii_lowercase())
                })
            }
            (NamePattern::Uri(own, false), AltName::Uri(uri)) => own == uri,
            (NamePattern::Uri(prefix, true), AltName::Uri(uri)) => {
                uri.strip_prefix(&**prefix).is_some_and(|rest| !rest.is_empty() && !climbs(rest))
            }
            _ => false,
        }
    }

    /// Tells whether a common name is one of them. What stands in the place of a `*` has no dot, so that it is the name of no host.
    pub fn covers_common_name(&self, name: &str) -> bool {
        match self {
            NamePattern::CommonName(own, false) => own == name,
            NamePattern::CommonName(prefix, true) => {
                let rest = name.strip_prefix(&**prefix);
                rest.is_some_and(|rest| !rest.contains('.')) && name.parse::<std::net::IpAddr>().is_err()
            }
            _ => false,
        }
    }

    /// Tells whether patterns cover a common name beside the alternative names that they cover: as one of those, as the name of a host, or as
    /// what patterns of common names say.
    pub(super) fn cover_common_name(all: &[Self], name: &str, names: &[AltName]) -> bool {
        names.iter().any(|own| is_same(own, name))
            || all.iter().any(|pattern| pattern.covers_common_name(name))
            || AltName::host(name).is_ok_and(|host| all.iter().any(|pattern| pattern.covers(&host)))
    }

    /// Returns what of a subject patterns do not cover that tells whose it is: a common name or a mail address.
    pub(super) fn uncovered<'a>(
        all: &[Self],
        subject: &'a DistinguishedName,
        names: &[AltName],
    ) -> Option<(AttributeKind, &'a str)> {
        let is_covered = |kind: AttributeKind, value: &str| match kind {
            AttributeKind::CommonName => Self::cover_common_name(all, value, names),
            AttributeKind::EmailAddress => format!("email:{value}")
                .parse()
                .is_ok_and(|address: AltName| all.iter().any(|pattern| pattern.covers(&address))),
            _ => true,
        };
        let mut values = subject.attributes().iter().map(|(kind, value)| (*kind, &**value));
        values.find(|(kind, value)| !is_covered(*kind, value))
    }
}

/// Tells whether a common name is an alternative name, as one is named after it that has no subject.
fn is_same(own: &AltName, common: &str) -> bool {
    match own {
        AltName::Dns(name) => common.eq_ignore_ascii_case(name),
        AltName::Ip(address) => common.parse() == Ok(*address),
        AltName::Email(name) | AltName::Uri(name) => common == name,
    }
}

/// Tells whether a path leads out of where it begins, or is another than it looks like, for some reader of it: by segments of dots, by empty ones,
/// which some leave out, by parameters (`;`), which some cut off, and by what is one of those once it is decoded.
fn climbs(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    let is_hidden = ["%2f", "%5c", "%3b", "%25", "\\", ";"].iter().any(|odd| path.contains(odd));
    // A slash may stand at the end.
    let inner = path.strip_suffix('/').unwrap_or(&path);
    is_hidden || inner.split('/').any(|part| matches!(part, "" | "." | ".."))
}

impl FromStr for NamePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > PATTERN_BYTES {
            return Err(invalid(text, &format!("is longer than {PATTERN_BYTES} bytes")));
        }
        let kind = text.split_once(':').map(|(kind, rest)| (kind.to_ascii_lowercase(), rest));
        match kind.as_ref().map(|(kind, rest)| (&**kind, *rest)) {
            Some(("dns", rest)) => DnsPattern::parse(rest).map(NamePattern::Dns),
            Some(("ip", rest)) => network(rest),
            Some(("email", rest)) => {
                let (who, host) =
                    rest.split_once('@').ok_or_else(|| invalid(text, "is no pattern of mail addresses"))?;
                if who != "*" {
                    // As an address would be read that is one of them.
                    format!("email:{who}@host.example").parse::<AltName>()?;
                }
                Ok(NamePattern::Email((who != "*").then(|| who.to_owned()), DnsPattern::parse(host)?))
            }
            Some(("uri", rest)) => {
                let (prefix, is_prefix) = cut(rest);
                format!("URI:{prefix}").parse::<AltName>()?;
                // Short of its path a prefix would take in other hosts.
                let path = prefix.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
                let has_path = path.is_some_and(|(host, _)| !host.is_empty()) && prefix.ends_with('/');
                match !prefix.contains('*') && (!is_prefix || has_path) {
                    true => Ok(NamePattern::Uri(prefix.to_owned(), is_prefix)),
                    false => Err(invalid(text, "is no pattern of URIs: one, or scheme://host/path/*")),
                }
            }
            Some(("cn", rest)) => {
                let (prefix, is_prefix) = cut(rest);
                let is_one = (1..=64).contains(&prefix.chars().count()) && !prefix.contains('*');
                match is_one {
                    true => Ok(NamePattern::CommonName(prefix.to_owned(), is_prefix)),
                    false => Err(invalid(
                        text,
                        "is no pattern of common names: 1 to 64 characters, perhaps before *",
                    )),
                }
            }
            _ if text.split('/').next().is_some_and(|host| host.parse::<std::net::IpAddr>().is_ok()) => {
                network(text)
            }
            _ => DnsPattern::parse(text).map(NamePattern::Dns),
        }
    }
}

/// Returns a text without its `*` at the end, and whether it had one.
fn cut(text: &str) -> (&str, bool) {
    match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    }
}

fn network(text: &str) -> Result<NamePattern> {
    let odd = |error| Error::new(ErrorKind::InvalidParameter, format!("{error}"));
    let network: Network = text.parse().map_err(odd)?;
    check_family(network.parts())?;
    Ok(NamePattern::Ip(network))
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = |is_prefix: bool| if is_prefix { "*" } else { "" };
        match self {
            NamePattern::Dns(pattern) => write!(f, "DNS:{pattern}"),
            NamePattern::Ip(network) => write!(f, "IP:{network}"),
            NamePattern::Email(who, host) => write!(f, "email:{}@{host}", who.as_deref().unwrap_or("*")),
            NamePattern::Uri(uri, is_prefix) => write!(f, "URI:{uri}{}", star(*is_prefix)),
            NamePattern::CommonName(name, is_prefix) => write!(f, "CN:{name}{}", star(*is_prefix)),
        }
    }
}

impl Serialize for NamePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map_err(|error: Error| de::Error::custom(error.message()))
    }
}

fn invalid(text: &str, why: &str) -> Error {
    let short: String = text.chars().take(64).collect();
    Error::new(ErrorKind::InvalidParameter, format!("{short:?} {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(pattern: &str, name: &str) -> bool {
        pattern.parse::<NamePattern>().unwrap().covers(&name.parse().unwrap())
    }

    #[test]
    fn dns_patterns_take_a_name_or_those_below_it_and_no_neighbour() {
        for (pattern, name, is_one) in [
            ("orders.example", "orders.example", true),
            ("Orders.Example", "ORDERS.example", true),
            ("orders.example", "a.orders.example", false),
            ("orders.example", "*.orders.example", false),
            ("*.orders.example", "a.orders.example", true),
            ("*.orders.example", "*.orders.example", true),
            ("*.orders.example", "orders.example", false),
            ("*.orders.example", "b.a.orders.example", false),
            ("*.orders.example", "*.a.orders.example", false),
            ("*.orders.example", "evilorders.example", false),
            ("**.orders.example", "b.a.orders.example", true),
            ("**.orders.example", "*.a.orders.example", true),
            ("**.orders.example", "orders.example", false),
            ("**.orders.example", "evilorders.example", false),
            ("**", "any.thing.example", true),
            ("**", "localhost", true),
            ("**", "10.0.0.1", false),
            ("**", "email:a@b.example", false),
        ] {
            assert_eq!(covers(pattern, name), is_one, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_of_other_kinds_take_their_kind_alone() {
        for (pattern, name, is_one) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("IP:10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("2001:db8::/32", "2001:db8::1", true),
            ("2001:db8::/32", "10.0.0.1", false),
            ("email:*@orders.example", "email:a@Orders.example", true),
            ("email:*@orders.example", "email:a@x.orders.example", false),
            ("email:ops@*.example", "email:ops@orders.example", true),
            ("email:ops@*.example", "email:dev@orders.example", false),
            ("URI:spiffe://orders.example/*", "URI:spiffe://orders.example/a/b", true),
            ("URI:spiffe://orders.example/*", "URI:spiffe://orders.example/", false),
            ("URI:spiffe://orders.example/*", "URI:spiffe://orders.example.evil/a", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/../b", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/%2E%2e/b", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/..%2fb", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a//b", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/b//", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a//", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/..;/b", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/b;c", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/%252e%252e/b", false),
            ("URI:spiffe://orders.example/a/*", "URI:spiffe://orders.example/a/b/", true),
            ("::/0", "10.0.0.1", false),
            ("0.0.0.0/0", "::1", false),
            ("URI:spiffe://orders.example/a", "URI:spiffe://orders.example/a", true),
            ("CN:orders", "orders", false),
        ] {
            assert_eq!(covers(pattern, name), is_one, "{pattern} {name}");
        }
        let common = |pattern: &str, name| pattern.parse::<NamePattern>().unwrap().covers_common_name(name);
        assert!(
            common("CN:orders", "orders")
                && !common("CN:orders", "orders2")
                && common("CN:orders-*", "orders-2")
        );
        assert!(!common("**", "orders"));
        // A prefix is no way to the names of hosts.
        assert!(!common("CN:orders-*", "orders-2.bank.example") && !common("CN:20*", "2001:db8::1"));
        assert!(common("CN:orders.example", "orders.example"));
    }

    #[test]
    fn odd_patterns_are_refused() {
        for odd in [
            "",
            "*",
            "*.",
            "**.",
            "**a",
            "a.*.b",
            "*.*.a",
            "***.a",
            "*a.b",
            "a b",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "IP:*",
            "email:orders.example",
            "email:@a.example",
            "email:a b@c.example",
            "URI:*",
            "URI:spiffe://*",
            "URI:spiffe://orders*",
            "URI:spiffe://orders.example/a*",
            "URI:spiffe:///*",
            "URI:s://a/*/*",
            "CN:",
            "CN:*",
            "CN:a*b",
            "ex\u{430}mple.com",
            "a\0b",
        ] {
            assert!(odd.parse::<NamePattern>().is_err(), "{odd:?}");
        }
        assert!("a".repeat(600).parse::<NamePattern>().unwrap_err().message().contains("512"));
    }

    #[test]
    fn what_a_subject_says_is_covered_like_the_names_beside_it() {
        let all: Vec<NamePattern> = ["*.shop.example", "10.0.0.0/8", "email:*@shop.example", "CN:shop-*"]
            .map(|p| p.parse().unwrap())
            .into();
        let beside: [AltName; 2] =
            ["email:a@shop.example", "a.shop.example"].map(|name| name.parse().unwrap());
        for (subject, uncovered) in [
            ("CN=a.shop.example", None),
            ("CN=A.shop.example", None),
            ("CN=b.shop.example", None),
            ("CN=10.0.0.1", None),
            ("CN=shop-7,O=Anybody", None),
            ("CN=a@shop.example", None),
            ("CN=shop-7,emailAddress=b@shop.example", None),
            ("CN=b@shop.example", Some("b@shop.example")),
            ("CN=admin", Some("admin")),
            ("CN=a.bank.example", Some("a.bank.example")),
            ("CN=shop-7.bank.example", Some("shop-7.bank.example")),
            ("CN=IP:10.0.0.1", Some("IP:10.0.0.1")),
            ("CN=shop-7,CN=admin", Some("admin")),
            ("CN=admin,CN=shop-7", Some("admin")),
            ("CN=shop-7,emailAddress=b@bank.example", Some("b@bank.example")),
        ] {
            let name = DistinguishedName::parse(subject).unwrap();
            let told = NamePattern::uncovered(&all, &name, &beside).map(|(_, value)| value);
            assert_eq!(told, uncovered, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_reads_back_as_it_was_written(
            text in r"(\*\*?\.)?[a-z0-9]{1,8}(\.[a-z]{1,8}){0,3}|email:(\*|[a-z]{1,4})@[a-z]{1,8}|URI:[a-z]{1,4}://[a-z]{1,8}/([a-z]{1,4}/\*)?|CN:[a-z]{1,9}\*?"
        ) {
            if let Ok(pattern) = text.parse::<NamePattern>() {
                prop_assert_eq!(pattern.to_string().parse::<NamePattern>().unwrap(), pattern);
            }
        }

        /// By labels, the other way to say it.
        #[test]
        fn one_star_is_one_label_and_two_are_some(
            head in prop::collection::vec("[a-z0-9]{1,4}|\\*", 0..4), base in r"[a-z]{1,3}\.[a-z]{1,3}", other in r"[a-z]{1,3}\.[a-z]{1,3}"
        ) {
            let name = |base: &str| head.iter().map(String::as_str).chain([base]).collect::<Vec<_>>().join(".");
            let Ok(own) = AltName::dns(&name(&base)) else { return Ok(()) };
            let pattern = |text: String| text.parse::<NamePattern>().unwrap();
            prop_assert_eq!(pattern(base.clone()).covers(&own), head.is_empty());
            prop_assert_eq!(pattern(format!("*.{base}")).covers(&own), head.len() == 1);
            prop_assert_eq!(pattern(format!("**.{base}")).covers(&own), !head.is_empty());
            if let (true, Ok(foreign)) = (other != base, AltName::dns(&name(&other))) {
                let ends = name(&other).ends_with(&format!(".{base}"));
                prop_assert_eq!(pattern(format!("**.{base}")).covers(&foreign), ends);
                prop_assert!(!pattern(base.clone()).covers(&foreign));
            }
        }
    }
}
