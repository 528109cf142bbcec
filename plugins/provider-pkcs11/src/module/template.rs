//! Attributes and mechanisms as plain values; `raw` alone turns them into what C wants.

use cryptoki_sys::*;
use keymill_core::key::BulkMode;

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

/// Returns the template of a domain key. `limited` says through `CKA_UNWRAP_TEMPLATE` what may come of its unwraps.
pub(crate) fn domain_key<'a>(label: &'a str, id: &'a [u8], limited: bool) -> Vec<Attribute<'a>> {
    let mut template = token_key(label, id);
    template.extend([
        Attribute::flag(CKA_WRAP, true),
        Attribute::flag(CKA_UNWRAP, true),
        Attribute::flag(CKA_ENCRYPT, false),
        Attribute::flag(CKA_DECRYPT, false),
        Attribute::flag(CKA_SIGN, false),
        Attribute::flag(CKA_VERIFY, false),
    ]);
    if limited {
        template.push(Attribute::template(CKA_UNWRAP_TEMPLATE, &UNWRAPPED));
    }
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

/// What both keys of a domain have: on the token, never to leave it, never to be changed.
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

/// Returns the template of a CMK at birth: extractable, since it is to be wrapped at once, and destroyed then.
pub(crate) fn newborn(mode: BulkMode) -> Vec<Attribute<'static>> {
    let mut template = vec![
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::number(CKA_VALUE_LEN, 32),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, true),
    ];
    template.extend(usage(mode));
    template.extend([CKA_WRAP, CKA_UNWRAP, CKA_DERIVE].map(|kind| Attribute::flag(kind, false)));
    template
}

/// Returns the template that a stored CMK unwraps with. Some modules want the length said, others refuse it.
pub(crate) fn unwrapped(mode: BulkMode, value_len: bool) -> Vec<Attribute<'static>> {
    let mut template = vec![
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::flag(CKA_PRIVATE, true),
    ];
    template.extend(UNWRAPPED);
    template.extend(usage(mode));
    if value_len {
        template.push(Attribute::number(CKA_VALUE_LEN, 32));
    }
    template
}

/// One key, one use: what encrypts never derives, for its keystream could show derived keys.
fn usage(mode: BulkMode) -> [Attribute<'static>; 4] {
    let (aead, mac) = match mode {
        BulkMode::InHsm => (true, false),
        BulkMode::HsmDerived => (false, true),
    };
    [
        Attribute::flag(CKA_ENCRYPT, aead),
        Attribute::flag(CKA_DECRYPT, aead),
        Attribute::flag(CKA_SIGN, mac),
        Attribute::flag(CKA_VERIFY, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(template: &[Attribute<'_>], kind: CK_ATTRIBUTE_TYPE) -> Option<bool> {
        let mut found = template.iter().filter(|attribute| attribute.kind == kind);
        let value = found.next().map(|attribute| match attribute.value {
            Value::Bool(value) => value,
            _ => panic!("not a truth value"),
        });
        assert!(found.next().is_none(), "attribute 0x{kind:x} stands twice");
        value
    }

    #[test]
    fn a_key_has_one_use() {
        for template in [newborn(BulkMode::InHsm), unwrapped(BulkMode::InHsm, false)] {
            assert_eq!(
                (flag(&template, CKA_ENCRYPT), flag(&template, CKA_DECRYPT)),
                (Some(true), Some(true))
            );
            assert_eq!(flag(&template, CKA_SIGN), Some(false));
        }
        for template in [newborn(BulkMode::HsmDerived), unwrapped(BulkMode::HsmDerived, true)] {
            assert_eq!(
                (flag(&template, CKA_ENCRYPT), flag(&template, CKA_DECRYPT)),
                (Some(false), Some(false))
            );
            assert_eq!(flag(&template, CKA_SIGN), Some(true));
        }
        for mode in [BulkMode::InHsm, BulkMode::HsmDerived] {
            for template in [newborn(mode), unwrapped(mode, true)] {
                for forbidden in [CKA_WRAP, CKA_UNWRAP, CKA_DERIVE, CKA_TOKEN] {
                    assert_eq!(flag(&template, forbidden), Some(false));
                }
                assert_eq!(flag(&template, CKA_SENSITIVE), Some(true));
            }
            assert_eq!(flag(&unwrapped(mode, false), CKA_EXTRACTABLE), Some(false));
        }
    }

    #[test]
    fn the_keys_of_a_domain_stay_in_the_token_and_do_one_thing() {
        let domain = domain_key("domain", b"1", true);
        let mac = mac_key("mac", b"2");
        for template in [&domain, &mac] {
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
        let limit = domain.iter().find(|attribute| attribute.kind == CKA_UNWRAP_TEMPLATE).unwrap();
        let Value::Template(limit) = limit.value else { panic!("a template") };
        assert_eq!(flag(limit, CKA_SENSITIVE), Some(true));
        for forbidden in [CKA_EXTRACTABLE, CKA_TOKEN, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE] {
            assert_eq!(flag(limit, forbidden), Some(false));
        }
    }

    #[test]
    fn debug_shows_no_bytes() {
        let shown = format!("{:?}", Attribute::bytes(CKA_VALUE, b"material"));
        assert!(shown.contains("8 bytes") && !shown.contains("material"), "{shown}");
    }
}
