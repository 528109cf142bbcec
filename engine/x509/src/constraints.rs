//! Name constraints (RFC 5280 §4.2.1.10): which names an authority may certify, written, and whether a certificate keeps to that.

use std::net::IpAddr;

use der::{Class, Tag};
use keymill_core::Result;
use keymill_core::certificate::{AltName, NameConstraints};
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;

use crate::alt_name::{general, octets};
use crate::name;
use crate::parts::{Part, Parts, context};
use crate::{invalid, shown};

/// The most subtrees of a certificate.
const MAX_SUBTREES: usize = 256;

/// Which names may be certified below an authority.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

#[derive(Clone, Debug)]
enum Subtree {
    Dns(String),
    Email(String),
    Uri(String),
    /// Address and mask.
    Ip(Vec<u8>, Vec<u8>),
    /// Relative names as they are compared.
    Directory(Vec<Vec<String>>),
}

impl Constraints {
    /// Reads the value of the extension.
    pub(crate) fn read(what: &'static str, value: &[u8]) -> Result<Self> {
        let mut parts = Parts::only(what, value, Tag::Sequence, usize::MAX)?;
        let permitted = parts.optional("permitted names", context(0, true))?;
        let excluded = parts.optional("excluded names", context(1, true))?;
        parts.end()?;
        if permitted.is_none() && excluded.is_none() {
            return Err(invalid(format!("{what}: name constraints that name nothing")));
        }
        let read = |part: Option<Part<'_>>| part.map_or(Ok(Vec::new()), |part| subtrees(what, part));
        Ok(Self { permitted: read(permitted)?, excluded: read(excluded)? })
    }

    /// Makes sure that the names of a certificate are within: its subject in DER, its alternative names, and how many of those are of
    /// kinds that are not looked at.
    ///
    /// # Errors
    /// What name is outside.
    pub(crate) fn check(&self, subject_der: &[u8], names: &[AltName]) -> Result<(), String> {
        let subject = name::comparable(subject_der).map_err(|error| error.to_string())?;
        if !subject.is_empty() {
            self.admits(|tree| tree.of_directory(&subject)).map_err(|why| format!("its subject is {why}"))?;
        }
        for name in names {
            // A wildcard is for names, too, that are excluded by themselves.
            if let AltName::Dns(text) = name
                && let Some(domain) = text.strip_prefix("*.")
                && self
                    .excluded
                    .iter()
                    .any(|tree| matches!(tree, Subtree::Dns(own) if is_within(domain, own)))
            {
                return Err(format!("{} is for names that are excluded", shown(&name.to_string())));
            }
            self.admits(|tree| tree.holds(name))
                .map_err(|why| format!("{} is {why}", shown(&name.to_string())))?;
        }
        Ok(())
    }

    /// Asks all subtrees; `holds` answers `None` for one of another kind.
    fn admits(&self, holds: impl Fn(&Subtree) -> Option<bool>) -> Result<(), &'static str> {
        if self.excluded.iter().any(|tree| holds(tree) == Some(true)) {
            return Err("excluded");
        }
        let mut answers = self.permitted.iter().filter_map(holds).peekable();
        match answers.peek().is_none() || answers.any(|holds| holds) {
            true => Ok(()),
            false => Err("not permitted"),
        }
    }
}

impl Subtree {
    fn holds(&self, name: &AltName) -> Option<bool> {
        match (self, name) {
            // One that begins with a dot is of all below a domain; RFC 5280 does not say, and that is what others take it for.
            (Subtree::Dns(tree), AltName::Dns(name)) => {
                Some(is_within(tree, name) && tree.strip_prefix('.').is_none_or(|domain| domain != name))
            }
            (Subtree::Email(tree), AltName::Email(name)) => Some(is_mail_within(tree, name)),
            (Subtree::Uri(tree), AltName::Uri(name)) => {
                // RFC 5280 §4.2.1.10: of a host, or of all below one that begins with a dot; a URI of no host is outside.
                Some(host(name).is_some_and(|host| match tree.strip_prefix('.') {
                    Some(domain) => host != domain && is_within(domain, &host),
                    None => host == *tree,
                }))
            }
            (Subtree::Ip(address, mask), AltName::Ip(name)) => {
                let bytes = match name {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                // One of the other family is neither of this subtree, nor unbounded by it.
                let same = |((a, b), mask): ((&u8, &u8), &u8)| a & mask == b & mask;
                Some(bytes.len() == address.len() && bytes.iter().zip(address).zip(mask).all(same))
            }
            _ => None,
        }
    }

    fn of_directory(&self, subject: &[Vec<String>]) -> Option<bool> {
        match self {
            Subtree::Directory(tree) => Some(subject.starts_with(tree)),
            _ => None,
        }
    }
}

/// Tells whether a host is a domain, or below it; a wildcard stands for what is directly below.
fn is_within(domain: &str, host: &str) -> bool {
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    if domain.is_empty() {
        return true;
    }
    host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn is_mail_within(tree: &str, address: &str) -> bool {
    let Some((who, host)) = address.rsplit_once('@') else { return false };
    let host = host.to_ascii_lowercase();
    match (tree.rsplit_once('@'), tree.strip_prefix('.')) {
        (Some((own, domain)), _) => own == who && domain.eq_ignore_ascii_case(&host),
        (None, Some(domain)) => host != domain && is_within(domain, &host),
        (None, None) => host == tree,
    }
}

/// Returns the host of a URI (RFC 3986 §3.2), in lower case.
fn host(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = host.split(':').next()?;
    AltName::dns(host).ok()?;
    Some(host.to_ascii_lowercase())
}

fn subtrees(what: &'static str, part: Part<'_>) -> Result<Vec<Subtree>> {
    let mut list = Parts::new(what, part.value)?;
    let mut trees = Vec::new();
    if list.is_finished() {
        return Err(list.wrong("name constraints that name nothing"));
    }
    while !list.is_finished() {
        if trees.len() == MAX_SUBTREES {
            return Err(list.wrong(format!("more than {MAX_SUBTREES} name constraints of a kind")));
        }
        let part = list.take("a name constraint", Tag::Sequence)?;
        let mut parts = list.open(part)?;
        let base = parts.next("the name of a constraint")?;
        // RFC 5280: the distances are 0 and absent.
        parts.end().map_err(|_| list.wrong("a name constraint with a distance"))?;
        trees.push(subtree(what, base)?);
    }
    Ok(trees)
}

fn subtree(what: &'static str, base: Part<'_>) -> Result<Subtree> {
    let wrong = |why: &str| invalid(format!("{what}: a name constraint {why}"));
    let text = || match std::str::from_utf8(base.value) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(wrong("that is not ASCII")),
    };
    if base.tag.class() != Class::ContextSpecific {
        return Err(wrong("of no kind that there is"));
    }
    match base.tag.number().value() {
        1 => text()
            .map(|text| Subtree::Email(if text.contains('@') { text } else { text.to_ascii_lowercase() })),
        2 => text().map(|text| Subtree::Dns(text.to_ascii_lowercase())),
        4 => Ok(Subtree::Directory(name::comparable(base.value)?)),
        6 => text().map(|text| Subtree::Uri(text.to_ascii_lowercase())),
        7 if matches!(base.value.len(), 8 | 32) => {
            let (address, mask) = base.value.split_at(base.value.len() / 2);
            Ok(Subtree::Ip(address.to_vec(), mask.to_vec()))
        }
        7 => Err(wrong("of an address that is neither of 8 nor of 32 bytes")),
        // An authority that is bounded in a way that nobody checks is bounded by nothing.
        _ => Err(wrong("of a kind that is not checked here")),
    }
}

/// Returns name constraints; `None` where they say nothing, which the extension cannot (RFC 5280 §4.2.1.10).
pub(crate) fn build(constraints: &NameConstraints) -> Result<Option<x509_cert::ext::pkix::NameConstraints>> {
    let trees = |dns: &[String], ip: &[(IpAddr, u8)]| -> Result<Option<Vec<GeneralSubtree>>> {
        let dns = dns.iter().map(|name| general(&AltName::dns(name)?));
        let ip = ip.iter().map(|(address, prefix)| network(*address, *prefix));
        let tree = |base| GeneralSubtree { base, minimum: 0, maximum: None };
        let trees: Vec<_> = dns.chain(ip).map(|base| base.map(tree)).collect::<Result<_>>()?;
        Ok((!trees.is_empty()).then_some(trees))
    };
    let permitted_subtrees = trees(&constraints.permitted_dns, &constraints.permitted_ip)?;
    let excluded_subtrees = trees(&constraints.excluded_dns, &constraints.excluded_ip)?;
    let is_any = permitted_subtrees.is_some() || excluded_subtrees.is_some();
    Ok(is_any.then_some(x509_cert::ext::pkix::NameConstraints { permitted_subtrees, excluded_subtrees }))
}

/// Returns a network: its address and the mask (RFC 4632), with no bit past the prefix.
fn network(address: IpAddr, prefix: u8) -> Result<GeneralName> {
    let (mut bytes, bits) = match address {
        IpAddr::V4(v4) => (v4.octets().to_vec(), 32),
        IpAddr::V6(v6) => (v6.octets().to_vec(), 128),
    };
    if prefix > bits {
        return Err(invalid(format!("a network of {prefix} bits; {address} has {bits}")));
    }
    let mask: Vec<u8> = (0..bits / 8)
        .map(|byte| 0xff_u8.checked_shl(8 - u32::from(prefix.saturating_sub(byte * 8).min(8))).unwrap_or(0))
        .collect();
    bytes.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte &= mask);
    bytes.extend(mask);
    Ok(GeneralName::IpAddress(octets(bytes)?))
}
