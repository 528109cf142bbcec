//! Names that certificates are for beside their subjects (RFC 5280 §4.2.1.6), each checked before it is one, and written in one way.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::name::{as_text, invalid};
use crate::error::{Error, Result};

/// A name beside the subject's that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AltName {
    /// A DNS name in lower case: letters, digits and hyphens, of other scripts in its ASCII form (RFC 5891), perhaps with `*` as its first label.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mail address.
    Email(String),
    /// A URI, of services above all (SPIFFE).
    Uri(String),
}

impl AltName {
    /// Makes a DNS name.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong.
    pub fn dns(name: &str) -> Result<Self> {
        let told = |why: &str| invalid(format!("the DNS name {} {why}", shown(name)));
        if !name.is_ascii() {
            return Err(told(
                "is not ASCII; names of other scripts are written in their ASCII form (xn--...)",
            ));
        }
        if name.is_empty() || name.len() > 253 {
            return Err(told("has 1 to 253 characters"));
        }
        let host = name.strip_prefix("*.").unwrap_or(name);
        for label in host.split('.') {
            let is_well_formed = !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !is_well_formed {
                return Err(told("has a label that is none: 1 to 63 letters, digits and inner hyphens"));
            }
        }
        if host.parse::<IpAddr>().is_ok()
            || host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(told("is an address, or looks like one"));
        }
        Ok(AltName::Dns(name.to_ascii_lowercase()))
    }

    /// Makes the name of an address. One of IPv4 is written as such: in its mapped form (RFC 4291 §2.5.5.2) it would pass by what is said of
    /// networks of IPv4, and software would still reach the host that it is.
    ///
    /// # Errors
    /// `InvalidParameter` for a mapped address.
    pub fn ip(address: IpAddr) -> Result<Self> {
        let mapped = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        };
        match mapped {
            None => Ok(AltName::Ip(address)),
            Some(v4) => {
                Err(invalid(format!("the address {address} is {v4} in its form of IPv6: write it as {v4}")))
            }
        }
    }

    /// Makes the name of a host: an address where it is one, and a DNS name else; never by the text form's prefixes.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong.
    pub fn host(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(address) => AltName::ip(address),
            Err(_) => AltName::dns(text),
        }
    }

    /// Makes a URI: of a host, where it names one, that could be named by itself, with nothing about it that readers take differently.
    fn uri(text: &str) -> Result<Self> {
        let told = |why: &str| invalid(format!("{} {why}", shown(text)));
        let (scheme, rest) = text.split_once(':').ok_or_else(|| told("is no URI"))?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let is_one = is_scheme && !rest.is_empty() && text.len() <= 2_048;
        if !is_one || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(told("is no URI"));
        }
        if text.contains('\\') {
            return Err(told("is no URI: it has a \\, which some readers take for a /"));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            // Browsers find a host in those, however many slashes there are.
            let has_host = ["http", "https", "ws", "wss", "ftp"].contains(&&*scheme.to_ascii_lowercase());
            return match has_host {
                true => Err(told("is no URI of its scheme: a host stands behind ://")),
                false => Ok(AltName::Uri(text.to_owned())),
            };
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(told("names a user before its host, which is not certified"));
        }
        let host = uri_host(authority).ok_or_else(|| told("has a host or port that is none"))?;
        match AltName::host(host) {
            Ok(AltName::Dns(name)) if name.starts_with('*') => Err(told("has a host with *")),
            // Brackets are of addresses of IPv6 alone, and those have them.
            Ok(AltName::Dns(_) | AltName::Ip(IpAddr::V4(_))) if authority.starts_with('[') => {
                Err(told("has a host in brackets that is no address of IPv6"))
            }
            Ok(_) => Ok(AltName::Uri(text.to_owned())),
            Err(error) => Err(told(&format!("has a host that is none: {}", error.message()))),
        }
    }

    /// Returns what kind of name it is, as the text form writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            AltName::Dns(_) => "DNS",
            AltName::Ip(_) => "IP",
            AltName::Email(_) => "email",
            AltName::Uri(_) => "URI",
        }
    }
}

impl FromStr for AltName {
    type Err = Error;

    /// Reads `DNS:`, `IP:`, `email:` or `URI:` and a name; without one of those it is an address where it is one, and a DNS name else.
    fn from_str(text: &str) -> Result<Self> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) if ["dns", "ip", "email", "uri"].contains(&&*kind.to_ascii_lowercase()) => {
                (kind.to_ascii_lowercase(), name)
            }
            _ if text.parse::<IpAddr>().is_ok() => ("ip".into(), text),
            _ => ("dns".into(), text),
        };
        match &*kind {
            "ip" => {
                let address = name.parse().map_err(|_| invalid(format!("{} is no address", shown(name))))?;
                AltName::ip(address)
            }
            "email" => {
                let is_one = name.is_ascii()
                    && name.len() <= 255
                    && !name.bytes().any(|b| b.is_ascii_control() || b == b' ')
                    && name
                        .split_once('@')
                        .is_some_and(|(who, host)| !who.is_empty() && AltName::dns(host).is_ok());
                match is_one {
                    true => Ok(AltName::Email(name.to_owned())),
                    false => Err(invalid(format!("{} is no mail address", shown(name)))),
                }
            }
            "uri" => AltName::uri(name),
            _ => AltName::dns(name),
        }
    }
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AltName::Dns(name) => write!(f, "DNS:{name}"),
            AltName::Ip(address) => write!(f, "IP:{address}"),
            AltName::Email(address) => write!(f, "email:{address}"),
            AltName::Uri(uri) => write!(f, "URI:{uri}"),
        }
    }
}

as_text! {
    AltName: str::parse::<AltName>;
}

/// Returns the host of a URI's authority without a user (RFC 3986 §3.2), whose port is one; addresses of IPv6 lose their brackets.
pub(super) fn uri_host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            match after {
                "" => (host, None),
                after => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    (!host.is_empty() && port.is_none_or(is_port)).then_some(host)
}

/// Returns a name as an error shows it: bounded, and escaped.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternative_names_are_checked_and_written_in_one_way() {
        for (text, written) in [
            ("Example.COM", "DNS:example.com"),
            ("dns:*.example.com", "DNS:*.example.com"),
            ("10.0.0.1", "IP:10.0.0.1"),
            ("::1", "IP:::1"),
            ("IP:2001:db8::1", "IP:2001:db8::1"),
            ("email:a@example.com", "email:a@example.com"),
            ("URI:spiffe://example/orders", "URI:spiffe://example/orders"),
            ("URI:urn:orders", "URI:urn:orders"),
            ("URI:https://10.0.0.1:8443/a", "URI:https://10.0.0.1:8443/a"),
            ("URI:https://[2001:db8::1]:1/a?b#c", "URI:https://[2001:db8::1]:1/a?b#c"),
        ] {
            let name: AltName = text.parse().unwrap();
            assert_eq!(name.to_string(), written);
            assert_eq!(written.parse::<AltName>().unwrap(), name);
        }
        for odd in [
            "",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b",
            "a b",
            "a\0.example.com",
            "ex\u{430}mple.com",
            "*",
            "a.*.b",
            "**.a",
            "DNS:10.0.0.1",
            "DNS:1.2.3",
            "IP:none",
            "email:none",
            "email:a@",
            "URI:none",
            "URI:a:b c",
            // One host, written so that what is said of networks and names would pass it by.
            "::ffff:10.0.0.1",
            "IP:::ffff:a00:1",
            "URI:https://[::ffff:10.0.0.1]/a",
            "URI:spiffe://",
            "URI:spiffe:///a",
            "URI:spiffe://a.example./a",
            "URI:spiffe://user@a.example/a",
            "URI:spiffe://a.example\\@b.example/a",
            "URI:spiffe://*.example/a",
            "URI:spiffe://a%2eexample/a",
            "URI:spiffe://2130706433/a",
            "URI:spiffe://a.example:x/a",
            "URI:spiffe://a.example:1:2/a",
            "URI:spiffe://[a.example]/a",
            "URI:spiffe://[10.0.0.1]/a",
            "URI:spiffe://[::1/a",
            "URI:spiffe://[::1]a/a",
            "URI:https:/a.example/a",
            "URI:HTTPS:a.example",
        ] {
            assert!(odd.parse::<AltName>().is_err(), "{odd:?}");
        }
        assert!(AltName::dns(&format!("{}.example", "a".repeat(64))).is_err());
        let mapped = "::ffff:10.0.0.1".parse::<AltName>().unwrap_err();
        assert!(mapped.message().contains("write it as 10.0.0.1"), "{mapped}");
        assert!(AltName::host("IP:10.0.0.1").is_err() && AltName::host("10.0.0.1").is_ok());
    }
}
