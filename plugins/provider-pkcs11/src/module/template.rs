//! Attributes and mechanisms as plain values; `raw` alone turns them into what C wants.

use cryptoki_sys::*;

/// One attribute of an object.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Which one.
    pub kind: CK_ATTRIBUTE_TYPE,
    /// What it is to be.
    pub value: Value<'a>,
}

/// The value of an attribute.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(CK_ULONG),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A template within the template, as of `CKA_UNWRAP_TEMPLATE`.
    Template(&'a [Attribute<'a>]),
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            // Bytes can be key material.
            Value::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Value::Template(attributes) => write!(f, "{attributes:?}"),
        }
    }
}

impl<'a> Attribute<'a> {
    /// Makes an attribute of a truth value.
    pub const fn flag(kind: CK_ATTRIBUTE_TYPE, value: bool) -> Self {
        Self { kind, value: Value::Bool(value) }
    }

    /// Makes an attribute of a number.
    pub const fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        Self { kind, value: Value::Number(value) }
    }

    /// Makes an attribute of bytes.
    pub const fn bytes(kind: CK_ATTRIBUTE_TYPE, value: &'a [u8]) -> Self {
        Self { kind, value: Value::Bytes(value) }
    }

    /// Makes an attribute that is itself a template.
    pub const fn template(kind: CK_ATTRIBUTE_TYPE, value: &'a [Attribute<'a>]) -> Self {
        Self { kind, value: Value::Template(value) }
    }
}

/// A mechanism and its parameter.
#[derive(Clone, Copy, Debug)]
pub enum Mechanism<'a> {
    /// A mechanism without a parameter.
    Plain(CK_MECHANISM_TYPE),
    /// `CKM_AES_GCM` with the caller's nonce and a tag of 128 bits: one module takes a tag of none.
    Gcm {
        /// The nonce.
        nonce: &'a [u8; 12],
        /// The associated data.
        aad: &'a [u8],
    },
    /// `CKM_RSA_PKCS_PSS` of a SHA-256 digest: MGF1 with SHA-256, a salt of 32 bytes.
    RsaPss,
    /// `CKM_RSA_PKCS_OAEP` with no label.
    RsaOaep(Hash),
    /// `CKM_AES_GCM` for the message interface, which names nonce and tag at each message.
    GcmMessages,
}

/// The hash of OAEP, and of its MGF1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// What every object has that unwraps from a stored blob: it stays where it is, dies with its session, and brings no other key out.
pub(crate) const UNWRAPPED: [Attribute<'static>; 6] = [
    Attribute::flag(CKA_SENSITIVE, true),
    Attribute::flag(CKA_EXTRACTABLE, false),
    Attribute::flag(CKA_TOKEN, false),
    Attribute::flag(CKA_WRAP, false),
    Attribute::flag(CKA_UNWRAP, false),
    Attribute::flag(CKA_DERIVE, false),
];

/// What every private key has that unwraps. It has no `CKA_WRAP`, and what is no private key has another domain key.
pub(crate) const UNWRAPPED_PRIVATE: [Attribute<'static>; 6] = [
    Attribute::number(CKA_CLASS, CKO_PRIVATE_KEY),
    Attribute::flag(CKA_SENSITIVE, true),
    Attribute::flag(CKA_EXTRACTABLE, false),
    Attribute::flag(CKA_TOKEN, false),
    Attribute::flag(CKA_UNWRAP, false),
    Attribute::flag(CKA_DERIVE, false),
];

/// Returns the template of a domain key. `limited` says through `CKA_UNWRAP_TEMPLATE` what may come of its unwraps.
pub(crate) fn domain_key<'a>(label: &'a str, id: &'a [u8], limited: bool) -> Vec<Attribute<'a>> {
    wrapping_key(label, id, limited.then_some(&UNWRAPPED))
}

/// Returns the template of a domain key for private keys.
pub(crate) fn private_domain_key<'a>(label: &'a str, id: &'a [u8], limited: bool) -> Vec<Attribute<'a>> {
    wrapping_key(label, id, limited.then_some(&UNWRAPPED_PRIVATE))
}

fn wrapping_key<'a>(
    label: &'a str,
    id: &'a [u8],
    limit: Option<&'static [Attribute<'static>; 6]>,
) -> Vec<Attribute<'a>> {
    let mut template = token_key(label, id);
    template.extend([
        Attribute::flag(CKA_WRAP, true),
        Attribute::flag(CKA_UNWRAP, true),
        Attribute::flag(CKA_ENCRYPT, false),
        Attribute::flag(CKA_DECRYPT, false),
        Attribute::flag(CKA_SIGN, false),
        Attribute::flag(CKA_VERIFY, false),
    ]);
    template.extend(limit.map(|limit| Attribute::template(CKA_UNWRAP_TEMPLATE, limit)));
    template
}

/// Returns the template of a root MAC key.
pub(crate) fn mac_key<'a>(label: &'a str, id: &'a [u8]) -> Vec<Attribute<'a>> {
    let mut template = token_key(label, id);
    template.extend([
        Attribute::flag(CKA_SIGN, true),
        Attribute::flag(CKA_VERIFY, false),
        Attribute::flag(CKA_WRAP, false),
        Attribute::flag(CKA_UNWRAP, false),
        Attribute::flag(CKA_ENCRYPT, false),
        Attribute::flag(CKA_DECRYPT, false),
    ]);
    template
}

/// What all keys of a domain have: on the token, never to leave it, never to be changed.
fn token_key<'a>(label: &'a str, id: &'a [u8]) -> Vec<Attribute<'a>> {
    vec![
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::number(CKA_VALUE_LEN, 32),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, false),
        Attribute::flag(CKA_DERIVE, false),
        Attribute::flag(CKA_MODIFIABLE, false),
        Attribute::bytes(CKA_LABEL, label.as_bytes()),
        Attribute::bytes(CKA_ID, id),
    ]
}

/// Returns a truth value of a template; none where it is not there.
#[cfg(test)]
pub(crate) fn flag(template: &[Attribute<'_>], kind: CK_ATTRIBUTE_TYPE) -> Option<bool> {
    let mut found = template.iter().filter(|attribute| attribute.kind == kind);
    let value = found.next().map(|attribute| match attribute.value {
        Value::Bool(value) => value,
        _ => panic!("not a truth value"),
    });
    assert!(found.next().is_none(), "attribute 0x{kind:x} stands twice");
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_domain_stay_in_the_token_and_do_one_thing() {
        let domain = domain_key("domain", b"1", true);
        let private = private_domain_key("private", b"3", true);
        let mac = mac_key("mac", b"2");
        for template in [&domain, &private, &mac] {
            assert_eq!(flag(template, CKA_TOKEN), Some(true));
            assert_eq!(flag(template, CKA_SENSITIVE), Some(true));
            for forbidden in
                [CKA_EXTRACTABLE, CKA_MODIFIABLE, CKA_ENCRYPT, CKA_DECRYPT, CKA_DERIVE, CKA_VERIFY]
            {
                assert_eq!(flag(template, forbidden), Some(false));
            }
        }
        assert_eq!((flag(&domain, CKA_WRAP), flag(&domain, CKA_SIGN)), (Some(true), Some(false)));
        assert_eq!((flag(&mac, CKA_WRAP), flag(&mac, CKA_SIGN)), (Some(false), Some(true)));
        for (template, class, wraps) in
            [(&domain, None, Some(false)), (&private, Some(CKO_PRIVATE_KEY), None)]
        {
            let limit = template.iter().find(|attribute| attribute.kind == CKA_UNWRAP_TEMPLATE).unwrap();
            let Value::Template(limit) = limit.value else { panic!("a template") };
            assert_eq!((flag(limit, CKA_SENSITIVE), flag(limit, CKA_WRAP)), (Some(true), wraps));
            for forbidden in [CKA_EXTRACTABLE, CKA_TOKEN, CKA_UNWRAP, CKA_DERIVE] {
                assert_eq!(flag(limit, forbidden), Some(false));
            }
            let said = limit.iter().find_map(|attribute| match attribute.value {
                Value::Number(number) if attribute.kind == CKA_CLASS => Some(number),
                _ => None,
            });
            assert_eq!(said, class);
        }
    }

    #[test]
    fn debug_shows_no_bytes() {
        let shown = format!("{:?}", Attribute::bytes(CKA_VALUE, b"material"));
        assert!(shown.contains("8 bytes") && !shown.contains("material"), "{shown}");
    }
}
