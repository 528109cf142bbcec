//! What the engine computes when key material is imported: AES key wrap with padding, and the fingerprint that material is known again by.

use aws_lc_rs::hmac;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use keymill_core::Sensitive;
use keymill_core::id::{CmkId, SecretName, SecretVersionId};
use keymill_core::key::Fingerprint;

use crate::digest;

/// What stands before the id in what a fingerprint is made of.
const LABEL: &[u8] = b"keymill import 1";

/// Opens what AES key wrap with padding made under a key of 256 bits (RFC 5649; SP 800-38F KWP); `None` where the key has another length,
/// or the wrapped bytes are none.
pub fn unwrap(key: &Sensitive, wrapped: &[u8]) -> Option<Sensitive> {
    let key = AesKek::new(&AES_256, key.expose()).ok()?;
    let mut out = Sensitive::zeroed(wrapped.len());
    let opened = key.unwrap_with_padding(wrapped, out.expose_mut()).ok()?;
    Some(Sensitive::copied(opened))
}

/// Tells whether material is of zero bytes alone, in a time that depends on its length alone.
pub fn is_blank(material: &Sensitive) -> bool {
    digest::equal(material.expose(), &vec![0; material.expose().len()])
}

/// What stands before what a mark of a secret's value is made of.
const SECRET_LABEL: &[u8] = b"keymill secret 1";

/// Makes fingerprints of imported material and marks of the values of secrets, under a key that is derived for nothing else.
pub struct Fingerprints(Sensitive);

impl Fingerprints {
    /// Takes the key ([`crate::derived::DerivedKeys::fingerprint`]).
    pub fn new(key: Sensitive) -> Self {
        Self(key)
    }

    /// Returns HMAC-SHA256(key, label ‖ id ‖ material) with the 16 bytes of the CMK's id: the same material has another fingerprint in each
    /// CMK, so that nobody sees by them that two are alike.
    pub fn of(&self, cmk: &CmkId, material: &Sensitive) -> Fingerprint {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()));
        mac.update(LABEL);
        mac.update(cmk.as_bytes());
        mac.update(material.expose());
        let tag = mac.sign();
        Fingerprint::from_bytes(tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes"))
    }

    /// Returns HMAC-SHA256(key, label ‖ length of the name ‖ name ‖ length of the version ‖ version ‖ value), lengths of four bytes: the same
    /// value has another mark in each version of each secret.
    pub fn of_secret(&self, name: &SecretName, version: &SecretVersionId, value: &Sensitive) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()));
        mac.update(SECRET_LABEL);
        for part in [name.as_str(), version.as_str()] {
            mac.update(&(part.len() as u32).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(value.expose());
        mac.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(key: &[u8; 32], text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; text.len().next_multiple_of(8) + 8];
        let kek = AesKek::new(&AES_256, key).unwrap();
        let length = kek.wrap_with_padding(text, &mut out).unwrap().len();
        assert_eq!(length, out.len());
        out
    }

    #[test]
    fn what_was_wrapped_opens_and_one_changed_bit_does_not() {
        let key = [7; 32];
        for length in [1, 8, 16, 31, 32, 1_217] {
            let text: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let wrapped = wrapped(&key, &text);
            assert_eq!(unwrap(&Sensitive::copied(&key), &wrapped).unwrap().expose(), text);
            for bit in 0..8 * wrapped.len().min(32) {
                let mut bad = wrapped.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(unwrap(&Sensitive::copied(&key), &bad).is_none(), "{length} bytes, bit {bit}");
            }
            assert!(unwrap(&Sensitive::copied(&key), &wrapped[..wrapped.len() - 1]).is_none());
        }
    }

    #[test]
    fn no_other_key_and_no_other_length_opens_anything() {
        let wrapped = wrapped(&[7; 32], b"material");
        for key in [&[8; 32][..], &[7; 16], &[7; 31], &[]] {
            assert!(unwrap(&Sensitive::copied(key), &wrapped).is_none());
        }
        for length in 0..wrapped.len() {
            assert!(unwrap(&Sensitive::copied(&[7; 32]), &wrapped[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn material_is_blank_without_a_single_bit() {
        for length in [0, 1, 16, 32, 1_217] {
            let mut material = vec![0; length];
            assert!(is_blank(&Sensitive::copied(&material)), "{length} bytes");
            for bit in 0..8 * length {
                material[bit / 8] = 1 << (bit % 8);
                assert!(!is_blank(&Sensitive::copied(&material)), "{length} bytes, bit {bit}");
                material[bit / 8] = 0;
            }
        }
    }

    #[test]
    fn a_fingerprint_is_of_one_material_in_one_cmk_under_one_key() {
        let fingerprints = Fingerprints::new(Sensitive::copied(&[1; 32]));
        let (a, b) = (CmkId::from_bytes([2; 16]), CmkId::from_bytes([3; 16]));
        let material = Sensitive::copied(&[4; 32]);
        let of = fingerprints.of(&a, &material);
        let expected = digest::hmac_sha256(&[1; 32], &[LABEL, a.as_bytes(), material.expose()].concat());
        assert!(of.is(&Fingerprint::from_bytes(expected)));
        assert!(of.is(&fingerprints.of(&a, &material)));
        assert!(!of.is(&fingerprints.of(&b, &material)));
        assert!(!of.is(&fingerprints.of(&a, &Sensitive::copied(&[4; 31]))));
        assert!(!of.is(&Fingerprints::new(Sensitive::copied(&[9; 32])).of(&a, &material)));
    }

    #[test]
    fn a_value_is_known_again_in_its_own_version_alone() {
        let marks = Fingerprints::new(Sensitive::copied(&[7; 32]));
        let of = |name: &str, version: &str, value: &[u8]| {
            marks.of_secret(&name.parse().unwrap(), &version.parse().unwrap(), &Sensitive::copied(value))
        };
        let one = of("a", "bc", b"value");
        assert_eq!(one, of("a", "bc", b"value"));
        for other in [of("ab", "c", b"value"), of("a", "bc", b"valuf"), of("a", "b", b"cvalue")] {
            assert_ne!(one, other);
        }
        assert_ne!(
            one,
            Fingerprints::new(Sensitive::copied(&[8; 32])).of_secret(
                &"a".parse().unwrap(),
                &"bc".parse().unwrap(),
                &Sensitive::copied(b"value")
            )
        );
    }
}
