//! The keys that every token of a domain has. They are made in this order, and the key that a token is known by comes last: one that
//! lacks it was never in use, so that whatever else an interrupted run left there can go or be completed.

use cryptoki_sys::{
    CK_ATTRIBUTE_TYPE, CKA_CLASS, CKA_LABEL, CKA_TOKEN, CKO_SECRET_KEY, CKR_ATTRIBUTE_TYPE_INVALID,
};

use crate::kind::Kind;
use crate::module::template::{domain_key, mac_key, private_domain_key};
use crate::module::{Attribute, Failure, Object, Session, Value};
use crate::{DOMAIN_KEY_LABEL, MAC_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL};

/// Returns the label that a key of a domain has on a token: of the domain without a name its own, of any other that with the domain's name, so that a
/// token can hold several.
pub fn label_in(label: &str, domain: Option<&str>) -> String {
    match domain {
        Some(domain) => format!("{label}:{domain}"),
        None => label.to_owned(),
    }
}

/// Tells whether a label is that of a key of a domain, of whichever.
pub(crate) fn is_label(label: &str) -> bool {
    DOMAIN_KEYS
        .iter()
        .any(|key| label.strip_prefix(key.label).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

/// Bytes of any of them, wrapped by RFC 5649: one block of eight more.
pub(crate) const WRAPPED_BYTES: usize = 40;

/// One of them.
pub(crate) struct DomainKey {
    pub(crate) label: &'static str,
    /// Makes the template, by label, id, and whether it is to limit what unwraps.
    pub(crate) template: for<'a> fn(&'a str, &'a [u8], bool) -> Vec<Attribute<'a>>,
    pub(crate) does: Does,
}

/// What a key of a domain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// It computes MACs.
    Macs,
    /// It wraps and unwraps other keys.
    Wraps,
}

/// All of them, the one that completes a token at the end.
pub(crate) const DOMAIN_KEYS: [DomainKey; 3] = [
    DomainKey { label: MAC_KEY_LABEL, template: |label, id, _| mac_key(label, id), does: Does::Macs },
    DomainKey { label: PRIVATE_DOMAIN_KEY_LABEL, template: private_domain_key, does: Does::Wraps },
    DomainKey { label: DOMAIN_KEY_LABEL, template: domain_key, does: Does::Wraps },
];

/// Those that wrap, as objects of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Domain {
    /// Secret keys.
    pub(crate) secret: Object,
    /// Private keys; a token that was initialised before there were key pairs has none.
    pub(crate) private: Option<Object>,
}

impl Domain {
    /// Returns the key that wraps keys of this kind.
    pub(crate) fn key(self, kind: Kind) -> Result<Object, Failure> {
        match kind.spec().is_key_pair() {
            true => self.private.ok_or(Failure::Missing { call: PRIVATE_DOMAIN_KEY_LABEL }),
            false => Ok(self.secret),
        }
    }
}

/// Reads a new key back, and returns the attribute in which the token gave another than it was asked for. What a token does not know
/// of a key it cannot do with it.
pub(crate) fn unlike(
    session: &Session,
    key: Object,
    template: &[Attribute<'_>],
) -> Result<Option<CK_ATTRIBUTE_TYPE>, Failure> {
    for attribute in template {
        let Value::Bool(wanted) = attribute.value else { continue };
        let flag = match session.flag(key, attribute.kind) {
            Err(failure) if failure.is(CKR_ATTRIBUTE_TYPE_INVALID) => false,
            other => other?,
        };
        if flag != wanted {
            return Ok(Some(attribute.kind));
        }
    }
    Ok(None)
}

/// Finds the objects of a label on the token.
pub(crate) fn find(session: &Session, label: &str) -> Result<Vec<Object>, Failure> {
    session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::bytes(CKA_LABEL, label.as_bytes()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_domains_are_told_from_others() {
        assert_eq!(label_in(DOMAIN_KEY_LABEL, None), DOMAIN_KEY_LABEL);
        let labels = [None, Some("a"), Some("private")]
            .map(|domain| DOMAIN_KEYS.each_ref().map(|key| label_in(key.label, domain)));
        let labels: Vec<_> = labels.into_iter().flatten().collect();
        for (at, label) in labels.iter().enumerate() {
            assert!(is_label(label) && !labels[..at].contains(label), "{label}");
        }
        assert!(!is_label("keymill-domains") && !is_label("keymill") && !is_label("keymill-1"));
    }

    #[test]
    fn the_key_that_a_token_is_known_by_is_made_last() {
        assert_eq!(DOMAIN_KEYS.last().unwrap().label, DOMAIN_KEY_LABEL);
        assert!(DOMAIN_KEYS.iter().any(|key| key.does == Does::Macs));
    }
}
