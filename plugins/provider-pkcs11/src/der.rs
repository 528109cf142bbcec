//! The little DER that stands between a token and the rest of the world: public keys as SubjectPublicKeyInfo (RFC 5280, 4.1), and
//! ECDSA signatures as `ECDSA-Sig-Value` (RFC 3279, 2.2.3). A token gives moduli, points, and two numbers in a row.

use keymill_core::key::KeySpec;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// `rsaEncryption` and its NULL parameter (RFC 3279, 2.3.1).
const RSA: [u8; 13] = [OBJECT_ID, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
/// `id-ecPublicKey` (RFC 5480, 2.1.1).
const EC: [u8; 9] = [OBJECT_ID, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// The public exponent of every pair that is made here, 65,537.
pub(crate) const EXPONENT: [u8; 3] = [1, 0, 1];

/// Returns the name of a curve, encoded, as `CKA_EC_PARAMS` has it; `None` for other than EC.
pub(crate) fn curve(spec: KeySpec) -> Option<&'static [u8]> {
    match spec {
        KeySpec::EcP256 => Some(&[OBJECT_ID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
        KeySpec::EcP384 => Some(&[OBJECT_ID, 5, 0x2b, 0x81, 4, 0, 0x22]),
        KeySpec::EcP256K => Some(&[OBJECT_ID, 5, 0x2b, 0x81, 4, 0, 0x0a]),
        _ => None,
    }
}

/// Returns the bytes of a coordinate; `None` for other than EC.
pub(crate) fn coordinate_bytes(spec: KeySpec) -> Option<usize> {
    match spec {
        KeySpec::EcP256 | KeySpec::EcP256K => Some(32),
        KeySpec::EcP384 => Some(48),
        _ => None,
    }
}

/// Encodes what is public of a pair: the modulus of RSA, without leading zeroes, or the point of EC, uncompressed. `None` where it
/// is not as long as its specification says.
pub(crate) fn public_key(spec: KeySpec, public: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, key) = match (spec.modulus_bytes(), coordinate_bytes(spec)) {
        (Some(bytes), _) if public.len() == bytes && public[0] >= 0x80 => {
            (value(SEQUENCE, &[&RSA]), value(SEQUENCE, &[&integer(public), &integer(&EXPONENT)]))
        }
        (_, Some(bytes)) if public.len() == 1 + 2 * bytes && public[0] == 4 => {
            (value(SEQUENCE, &[&EC, curve(spec)?]), public.to_vec())
        }
        _ => return None,
    };
    // No bit of the last byte is unused.
    Some(value(SEQUENCE, &[&algorithm, &value(BIT_STRING, &[&[0], &key])]))
}

/// Takes out what [`public_key`] has put in; `None` for whatever it does not encode to the same bytes.
pub(crate) fn public_of(spec: KeySpec, der: &[u8]) -> Option<Vec<u8>> {
    let (bytes, behind) = match (spec.modulus_bytes(), coordinate_bytes(spec)) {
        (Some(bytes), _) => (bytes, integer(&EXPONENT).len()),
        (_, Some(bytes)) => (1 + 2 * bytes, 0),
        _ => return None,
    };
    let end = der.len().checked_sub(behind)?;
    let public = der.get(end.checked_sub(bytes)?..end)?.to_vec();
    (public_key(spec, &public)? == der).then_some(public)
}

/// Takes a point as a token gives it: in an OCTET STRING, as PKCS#11 has it, or bare, as some do.
pub(crate) fn point(spec: KeySpec, attribute: &[u8]) -> Option<&[u8]> {
    let bytes = 1 + 2 * coordinate_bytes(spec)?;
    match attribute {
        [OCTET_STRING, length, point @ ..] if usize::from(*length) == bytes && point.len() == bytes => {
            Some(point)
        }
        point if point.len() == bytes => Some(point),
        _ => None,
    }
}

/// Returns a point as `CKA_EC_POINT` has it.
pub(crate) fn point_attribute(point: &[u8]) -> Vec<u8> {
    value(OCTET_STRING, &[point])
}

/// Encodes a signature that is two numbers in a row.
pub(crate) fn ecdsa_signature(raw: &[u8]) -> Vec<u8> {
    let (r, s) = raw.split_at(raw.len() / 2);
    value(SEQUENCE, &[&integer(r), &integer(s)])
}

/// Encodes a number that is not negative.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
    let number = &bytes[zeroes..];
    match number.first() {
        Some(first) if *first < 0x80 => value(INTEGER, &[number]),
        // Its first bit would be a sign.
        _ => value(INTEGER, &[&[0], number]),
    }
}

fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        EcdsaKeyPair, KeyPair, RsaKeyPair,
    };

    #[test]
    fn public_keys_are_encoded_as_another_implementation_does() {
        for (spec, algorithm) in [
            (KeySpec::EcP256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            (KeySpec::EcP384, &ECDSA_P384_SHA384_ASN1_SIGNING),
            (KeySpec::EcP256K, &ECDSA_P256K1_SHA256_ASN1_SIGNING),
        ] {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let bare = pair.public_key().as_ref();
            assert_eq!(public_key(spec, bare).unwrap(), der.as_ref());
            assert_eq!(public_of(spec, der.as_ref()).unwrap(), bare);
            assert_eq!(point(spec, bare).unwrap(), bare);
            assert_eq!(point(spec, &point_attribute(bare)).unwrap(), bare);
        }
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        // In a sequence and an integer, of which each length takes three bytes, behind a zero for the sign.
        let modulus = &pair.public_key().as_ref()[9..][..256];
        assert_eq!(public_key(KeySpec::Rsa2048, modulus).unwrap(), der.as_ref());
        assert_eq!(public_of(KeySpec::Rsa2048, der.as_ref()).unwrap(), modulus);
    }

    #[test]
    fn what_is_not_encoded_just_so_is_refused() {
        let point = [&[4][..], &[7; 64]].concat();
        let good = public_key(KeySpec::EcP256, &point).unwrap();
        for at in 0..good.len() - point.len() {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(public_of(KeySpec::EcP256, &other).is_none(), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(public_of(KeySpec::EcP256, &good[..length]).is_none(), "{length} bytes");
        }
        assert!(public_of(KeySpec::EcP256K, &good).is_none() && public_of(KeySpec::Aes256, &good).is_none());
        // A modulus that is short by a bit is none.
        assert!(public_key(KeySpec::Rsa2048, &[0x7f; 256]).is_none());
        assert!(public_key(KeySpec::Rsa2048, &[0xff; 255]).is_none());
    }

    #[test]
    fn numbers_of_a_signature_lose_their_zeroes_and_keep_their_sign() {
        let raw = |r: u8, s: u8| [[0, 0, r], [0, 0, s]].concat();
        assert_eq!(ecdsa_signature(&raw(1, 0x80)), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(ecdsa_signature(&raw(0, 0x7f)), [0x30, 6, 2, 1, 0, 2, 1, 0x7f]);
        assert_eq!(ecdsa_signature(&[0xff; 96])[..5], [0x30, 102, 2, 49, 0]);
    }
}
