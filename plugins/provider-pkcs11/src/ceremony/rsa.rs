//! The RSA key by which a token takes part in a ceremony: its private half never leaves the token, its public half goes to the first
//! token, and people compare its fingerprint on the way.

use cryptoki_sys::*;

use super::Party;
use crate::module::{Attribute, Failure, Mechanism, Object, Session};

/// The label of a wrapping key. As long as a token has one, a ceremony is under way, or was cut short.
pub(super) const WRAPPING_KEY_LABEL: &str = "keymill-ceremony";
/// Bits of a wrapping key.
pub(super) const BITS: CK_ULONG = 3072;
/// Bits of the key that a rehearsal makes and throws away.
pub(super) const REHEARSAL_BITS: CK_ULONG = 2048;

const EXPONENT: &[u8] = &[1, 0, 1];
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

/// The numbers of a public key.
pub(super) struct Public {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

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
        Attribute::bytes(CKA_PUBLIC_EXPONENT, EXPONENT),
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
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            Ok::<_, Failure>(bytes.split_off(zeros))
        };
        Ok(Self { modulus: number(CKA_MODULUS)?, exponent: number(CKA_PUBLIC_EXPONENT)? })
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
            Attribute::bytes(CKA_MODULUS, &self.modulus),
            Attribute::bytes(CKA_PUBLIC_EXPONENT, &self.exponent),
        ])
    }

    /// Tells whether it has as many bits as a ceremony wants, and the exponent that keys are made with.
    pub(super) fn is_ours(&self) -> bool {
        let bytes = usize::try_from(BITS / 8).expect("a few hundred");
        self.modulus.len() == bytes && self.modulus[0] >= 0x80 && self.exponent == EXPONENT
    }

    /// Writes the key as a SubjectPublicKeyInfo: `SEQUENCE { SEQUENCE { OID rsaEncryption, NULL }, BIT STRING { SEQUENCE { n, e } } }`
    /// (RFC 5280 §4.1, RFC 8017 §A.1.1).
    pub(super) fn spki(&self) -> Vec<u8> {
        const ALGORITHM: &[u8] =
            &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        let key = der(0x30, &[integer(&self.modulus), integer(&self.exponent)].concat());
        // No unused bits.
        let bits = der(0x03, &[&[0][..], &key].concat());
        der(0x30, &[ALGORITHM, &bits].concat())
    }

    /// The key as people compare it.
    pub(super) fn shown(&self, token: &str, serial: &str, made: bool) -> WrappingKey {
        WrappingKey { token: token.to_owned(), serial: serial.to_owned(), spki: self.spki(), made }
    }
}

impl Party {
    /// How the token is called in sentences.
    pub(super) fn name(&self) -> String {
        format!("token {}", self.token_label)
    }
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    // A leading zero keeps it positive.
    let zero: &[u8] = if bytes.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    der(0x02, &[zero, bytes].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..0x80 => out.push(len as u8),
        len => {
            let bytes = len.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `openssl rsa -pubout -outform DER` for a key of 512 bits: the lengths need one byte, two, and a leading zero.
    #[test]
    fn a_public_key_is_written_as_its_info_in_der() {
        let public = Public { modulus: vec![0x80; 64], exponent: EXPONENT.to_vec() };
        let spki = public.spki();
        let mut expected = vec![0x30, 0x5c, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d];
        expected.extend([0x01, 0x01, 0x01, 0x05, 0x00, 0x03, 0x4b, 0x00, 0x30, 0x48, 0x02, 0x41, 0x00]);
        expected.extend([0x80; 64]);
        expected.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        assert_eq!(spki, expected);
        let long = Public { modulus: vec![0xc1; 384], exponent: EXPONENT.to_vec() };
        assert!(long.is_ours());
        assert_eq!(long.spki()[..4], [0x30, 0x82, 0x01, 0xa2]);
        assert!(!public.is_ours(), "too short");
        assert!(!Public { modulus: vec![0x7f; 384], exponent: EXPONENT.to_vec() }.is_ours());
        assert!(!Public { modulus: vec![0xc1; 384], exponent: vec![3] }.is_ours());
    }
}
