//! The RSA key by which a token takes part in a ceremony: its private half never leaves the token, its public half goes to the first
//! token, and people compare its fingerprint on the way.

use cryptoki_sys::*;
use keymill_core::key::KeySpec;

use super::Party;
use crate::der::{self, EXPONENT};
use crate::module::{Attribute, Failure, Mechanism, Object, Session};

/// The label of a wrapping key. As long as a token has one, a ceremony is under way, or was cut short.
pub(super) const WRAPPING_KEY_LABEL: &str = "keymill-ceremony";
/// Bits of a wrapping key.
pub(super) const BITS: CK_ULONG = 3072;
/// Bits of the key that a rehearsal makes and throws away.
pub(super) const REHEARSAL_BITS: CK_ULONG = 2048;

/// Bytes of a modulus, with room for a sign.
const MODULUS_BYTES: usize = 520;

/// A wrapping key, as people compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappingKey {
    /// The label of its token.
    pub token: String,
    /// The serial number of its token.
    pub serial: String,
    /// The public key as a SubjectPublicKeyInfo (RFC 5280) in DER, which the fingerprint is of.
    pub spki: Vec<u8>,
    /// Whether it was made just now; else an earlier command made it.
    pub made: bool,
}

/// Both halves.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) public: Object,
    pub(super) private: Object,
}

/// A public key: its modulus. The exponent is that of all pairs made here.
pub(super) struct Public(Vec<u8>);

/// Makes a pair that wraps and unwraps, and nothing else.
pub(super) fn generate(
    session: &Session,
    bits: CK_ULONG,
    on_token: bool,
    id: &[u8],
) -> Result<Pair, Failure> {
    let label = Attribute::bytes(CKA_LABEL, WRAPPING_KEY_LABEL.as_bytes());
    let public = [
        Attribute::flag(CKA_TOKEN, on_token),
        Attribute::flag(CKA_PRIVATE, false),
        Attribute::flag(CKA_WRAP, true),
        Attribute::flag(CKA_ENCRYPT, false),
        Attribute::flag(CKA_VERIFY, false),
        Attribute::number(CKA_MODULUS_BITS, bits),
        Attribute::bytes(CKA_PUBLIC_EXPONENT, &EXPONENT),
        label,
        Attribute::bytes(CKA_ID, id),
    ];
    let private = [
        Attribute::flag(CKA_TOKEN, on_token),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, false),
        Attribute::flag(CKA_UNWRAP, true),
        Attribute::flag(CKA_DECRYPT, false),
        Attribute::flag(CKA_SIGN, false),
        label,
        Attribute::bytes(CKA_ID, id),
    ];
    let mechanism = Mechanism::Plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let (public, private) = session.generate_key_pair(mechanism, &public, &private)?;
    Ok(Pair { public, private })
}

/// Finds what a token has of wrapping keys: public halves and private ones.
pub(super) fn find(session: &Session) -> Result<(Vec<Object>, Vec<Object>), Failure> {
    let of = |class| {
        session.find_objects(&[
            Attribute::number(CKA_CLASS, class),
            Attribute::flag(CKA_TOKEN, true),
            Attribute::bytes(CKA_LABEL, WRAPPING_KEY_LABEL.as_bytes()),
        ])
    };
    Ok((of(CKO_PUBLIC_KEY)?, of(CKO_PRIVATE_KEY)?))
}

impl Public {
    /// Reads a public key out of its token.
    pub(super) fn read(session: &Session, key: Object) -> Result<Self, Failure> {
        let number = |kind| {
            let mut bytes = vec![0; MODULUS_BYTES];
            let len = session.attribute(key, kind, &mut bytes)?;
            bytes.truncate(len);
            // Some fill it up in front.
            let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
            Ok::<_, Failure>(bytes.split_off(zeroes))
        };
        match number(CKA_PUBLIC_EXPONENT)?[..] == EXPONENT {
            true => Ok(Self(number(CKA_MODULUS)?)),
            false => Err(Failure::Mismatch { call: "C_GetAttributeValue" }),
        }
    }

    /// Takes the key into another token, as an object of the session.
    pub(super) fn take_into(&self, session: &Session) -> Result<Object, Failure> {
        session.create_object(&[
            Attribute::number(CKA_CLASS, CKO_PUBLIC_KEY),
            Attribute::number(CKA_KEY_TYPE, CKK_RSA),
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_PRIVATE, false),
            Attribute::flag(CKA_WRAP, true),
            Attribute::flag(CKA_ENCRYPT, false),
            Attribute::flag(CKA_VERIFY, false),
            Attribute::bytes(CKA_MODULUS, &self.0),
            Attribute::bytes(CKA_PUBLIC_EXPONENT, &EXPONENT),
        ])
    }

    /// Returns the key as a SubjectPublicKeyInfo; `None` where it has not as many bits as a ceremony wants.
    pub(super) fn spki(&self) -> Option<Vec<u8>> {
        der::public_key(KeySpec::Rsa3072, &self.0)
    }
}

impl Party {
    /// How the token is called in sentences.
    pub(super) fn name(&self) -> String {
        format!("token {}", self.token_label)
    }
}
