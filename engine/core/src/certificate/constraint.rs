//! Name constraints of authorities (RFC 5280 §4.2.1.10): read, and held against names before anything is signed, since not every verifier looks at
//! them. Where any are permitted, names of the kinds that none of those speak of are not.

use std::net::IpAddr;

use super::alt_name::uri_host;
use super::{AltName, AttributeKind, DistinguishedName, NameConstraints};
use crate::access::Network;
use crate::error::{Error, ErrorKind, Result};

/// The most entries of each list.
const ENTRIES: usize = 64;

impl NameConstraints {
    /// Reads them from their texts: DNS names, with all below them, and networks.
    ///
    /// # Errors
    /// `InvalidParameter`, naming the entry that is wrong.
    pub fn read(
        permitted_dns: &[String],
        excluded_dns: &[String],
        permitted_ip: &[String],
        excluded_ip: &[String],
    ) -> Result<Self> {
        Ok(Self {
            permitted_dns: read("PermittedDns", permitted_dns, domain)?,
            excluded_dns: read("ExcludedDns", excluded_dns, domain)?,
            permitted_ip: read("PermittedIp", permitted_ip, network)?,
            excluded_ip: read("ExcludedIp", excluded_ip, network)?,
        })
    }

    /// Tells whether they constrain nothing.
    pub fn is_empty(&self) -> bool {
        self.permitted_dns.is_empty()
            && self.excluded_dns.is_empty()
            && self.permitted_ip.is_empty()
            && self.excluded_ip.is_empty()
    }

    /// Checks that a name may be certified under them. Mail addresses and URIs are held to the name of their host.
    ///
    /// # Errors
    /// `InvalidParameter`, naming the name.
    pub fn check(&self, name: &AltName) -> Result<()> {
        let is_permitted = match name {
            AltName::Dns(host) => self.permits_host(host),
            AltName::Ip(address) => self.permits_address(*address),
            AltName::Email(address) => {
                address.split_once('@').is_some_and(|(_, host)| self.permits_host(host))
            }
            AltName::Uri(uri) => match host_of(uri) {
                Some(host) => match host.parse::<IpAddr>() {
                    Ok(address) => self.permits_address(address),
                    Err(_) => self.permits_host(host),
                },
                // No host is held against nothing: it passes where nothing is permitted by name.
                None => self.permitted_dns.is_empty() && self.permitted_ip.is_empty(),
            },
        };
        match is_permitted {
            true => Ok(()),
            false => {
                let why = format!("{name} is outside the name constraints of the authority");
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }

    /// The same of a subject: its common name, where it could be taken for the name of a host, and its mail addresses.
    ///
    /// # Errors
    /// As of [`check`](Self::check).
    pub fn check_subject(&self, subject: &DistinguishedName) -> Result<()> {
        for (kind, value) in subject.attributes() {
            let as_name = match kind {
                // Software that goes by it may take a dot at the end for none.
                AttributeKind::CommonName if value.contains(['.', ':']) => {
                    AltName::host(value.strip_suffix('.').unwrap_or(value)).ok()
                }
                AttributeKind::EmailAddress => Some(format!("email:{value}").parse::<AltName>()?),
                _ => None,
            };
            as_name.iter().try_for_each(|name| self.check(name))?;
        }
        Ok(())
    }

    fn permits_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        // A wildcard stands for names below its base: those all are under it, and where a part of them is excluded the whole is.
        let base = host.strip_prefix("*.");
        let within = |domain: &String| is_under(base.unwrap_or(&host), domain);
        let touches = |domain: &String| within(domain) || base.is_some_and(|base| is_under(domain, base));
        let is_named = self.permitted_dns.iter().any(within);
        (is_named || self.permitted_dns.is_empty() && self.permitted_ip.is_empty())
            && !self.excluded_dns.iter().any(touches)
    }

    fn permits_address(&self, address: IpAddr) -> bool {
        let within = |(network, bits): &(IpAddr, u8)| is_within(address, *network, *bits);
        let is_named = self.permitted_ip.iter().any(within);
        (is_named || self.permitted_dns.is_empty() && self.permitted_ip.is_empty())
            && !self.excluded_ip.iter().any(within)
    }
}

fn read<T>(list: &str, texts: &[String], each: fn(&str) -> Result<T>) -> Result<Vec<T>> {
    if texts.len() > ENTRIES {
        let why = format!("{list} of {} entries exceeds the limit of {ENTRIES}", texts.len());
        return Err(Error::new(ErrorKind::InvalidParameter, why));
    }
    let named = |(at, text): (usize, &String)| {
        each(text).map_err(|error| {
            Error::new(ErrorKind::InvalidParameter, format!("{list}, entry {at}: {}", error.message()))
        })
    };
    texts.iter().enumerate().map(named).collect()
}

fn domain(text: &str) -> Result<String> {
    match AltName::dns(text.strip_prefix('.').unwrap_or(text))? {
        AltName::Dns(name) if !name.starts_with('*') => Ok(name),
        _ => {
            let why = "a constraint names a domain, and means all below it without *";
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

fn network(text: &str) -> Result<(IpAddr, u8)> {
    let network: Network =
        text.parse().map_err(|error| Error::new(ErrorKind::InvalidParameter, format!("{error}")))?;
    let parts = network.parts();
    check_family(parts)?;
    Ok(parts)
}

/// Checks that a network is of the family that it is of: in the mapped form it would cover no name, since those are not in it.
///
/// # Errors
/// `InvalidParameter`, saying how it is written.
pub(super) fn check_family((address, bits): (IpAddr, u8)) -> Result<()> {
    match address {
        IpAddr::V6(v6) if bits >= 96 => match v6.to_ipv4_mapped() {
            Some(v4) => {
                let why = format!("networks of IPv4 are written as such: {v4}/{}", bits - 96);
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn is_under(name: &str, domain: &str) -> bool {
    name == domain || name.strip_suffix(domain).is_some_and(|head| head.ends_with('.'))
}

/// Tells whether an address is of a network.
pub(super) fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    // Of one family alone: a verifier compares four bytes with four.
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            u32::from(a) & mask == u32::from(n) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            u128::from(a) & mask == u128::from(n) & mask
        }
        _ => false,
    }
}

/// Returns the host of a URI that has one (RFC 3986 §3.2); what is an [`AltName`] names no user before it.
fn host_of(uri: &str) -> Option<&str> {
    let rest = uri.split_once("://")?.1;
    uri_host(rest.split(['/', '?', '#']).next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints(permitted: &[&str], excluded: &[&str]) -> NameConstraints {
        let is_ip = |text: &&&str| text.starts_with(|c: char| c.is_ascii_digit()) || text.contains(':');
        let of = |texts: &[&str], ip: bool| -> Vec<String> {
            texts.iter().filter(|text| is_ip(text) == ip).map(|text| (*text).to_owned()).collect()
        };
        NameConstraints::read(
            &of(permitted, false),
            &of(excluded, false),
            &of(permitted, true),
            &of(excluded, true),
        )
        .unwrap()
    }

    #[test]
    fn names_under_a_permitted_domain_pass_and_no_neighbours() {
        let own = constraints(&[".orders.example"], &["secret.orders.example"]);
        for (name, passes) in [
            ("orders.example", true),
            ("a.orders.example", true),
            ("b.a.orders.example", true),
            ("evilorders.example", false),
            ("example", false),
            ("secret.orders.example", false),
            ("a.secret.orders.example", false),
            // It would stand for the excluded one, too.
            ("*.orders.example", false),
            ("*.a.orders.example", true),
            ("*.example", false),
            ("10.0.0.1", false),
            ("email:a@orders.example", true),
            ("email:a@other.example", false),
            ("URI:spiffe://orders.example/a", true),
            ("URI:spiffe://other.example:1/a", false),
            ("URI:spiffe://other.example?orders.example", false),
            ("URI:urn:orders", false),
        ] {
            assert_eq!(own.check(&name.parse().unwrap()).is_ok(), passes, "{name}");
        }
        let error = own.check(&"x.example".parse().unwrap()).unwrap_err();
        assert_eq!(error.message(), "DNS:x.example is outside the name constraints of the authority");
    }

    #[test]
    fn addresses_pass_by_network_and_family() {
        let own = constraints(&["10.0.0.0/8", "2001:db8::/32"], &["10.9.0.0/16"]);
        for (name, passes) in [
            ("10.1.0.1", true),
            ("10.9.0.1", false),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("orders.example", false),
            ("URI:https://10.1.0.1/a", true),
            ("URI:https://[2001:db8::1]/a", true),
            ("URI:https://[2001:db9::1]/a", false),
        ] {
            assert_eq!(own.check(&name.parse().unwrap()).is_ok(), passes, "{name}");
        }
        let all = constraints(&["0.0.0.0/0"], &[]);
        assert!(
            all.check(&"1.2.3.4".parse().unwrap()).is_ok() && all.check(&"::1".parse().unwrap()).is_err()
        );
        let all = constraints(&["::/0"], &[]);
        assert!(
            all.check(&"1.2.3.4".parse().unwrap()).is_err() && all.check(&"::1".parse().unwrap()).is_ok()
        );
    }

    #[test]
    fn what_only_excludes_permits_the_rest_and_subjects_are_held_to_it() {
        let own = constraints(&[], &["bank.example"]);
        assert!(own.check(&"a.example".parse().unwrap()).is_ok());
        assert!(own.check(&"10.0.0.1".parse().unwrap()).is_ok());
        assert!(own.check(&"URI:urn:orders".parse().unwrap()).is_ok());
        assert!(own.check(&"*.example".parse().unwrap()).is_err());
        let subject = |text| own.check_subject(&DistinguishedName::parse(text).unwrap());
        assert!(subject("CN=orders,O=bank.example").is_ok());
        assert!(subject("CN=www.bank.example").is_err());
        assert!(subject("CN=www.bank.example.").is_err());
        assert!(subject("CN=a.example,CN=www.bank.example").is_err());
        assert!(subject("emailAddress=a@bank.example").is_err());
        assert!(constraints(&[], &[]).is_empty() && !own.is_empty());
    }

    #[test]
    fn odd_entries_are_named() {
        let of = |dns: &str, ip: &str| {
            NameConstraints::read(&[dns.into()], &[], &["10.0.0.0/8".into(), ip.into()], &[])
        };
        assert!(of("*.a.example", "10.0.0.0/8").unwrap_err().message().contains("PermittedDns, entry 0"));
        assert!(of("a.example", "10.0.0.1/8").unwrap_err().message().contains("PermittedIp, entry 1"));
        let mapped = of("a.example", "::ffff:10.0.0.0/104").unwrap_err();
        assert!(mapped.message().contains("PermittedIp, entry 1: networks of IPv4"), "{mapped}");
        assert!(mapped.message().ends_with("10.0.0.0/8"), "{mapped}");
        let many = vec!["a.example".to_owned(); 65];
        assert!(NameConstraints::read(&[], &many, &[], &[]).unwrap_err().message().contains("65"));
    }
}
