//! Private keys that come from outside, as PKCS #8 (RFC 5208, RFC 5958): what is wrong with one is said, and what is taken is encoded anew,
//! with a public half that is derived from it, whatever stood beside it.

use ::sm2::pkcs8::der::asn1::UintRef;
use ::sm2::pkcs8::der::{Decode, Reader, SliceReader};
use ::sm2::pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use keymill_core::Sensitive;
use keymill_core::key::{KeySpec, KeyUsage};
use keymill_core::seam::provider::PublicKey;

use crate::key::{self, SoftwareKey};
use crate::public::SoftwareHalf;

/// Bytes of an encoding, at most: the longest is of ML-DSA-65, with the seed and the 4,032 bytes that come of it.
const MAX_BYTES: usize = 8192;

/// Bits of a public exponent of RSA, at most; what the library computes with.
const MAX_EXPONENT_BITS: usize = 33;

/// Takes a private key, and returns its material and its public half.
///
/// # Errors
/// A sentence that says what is wrong, and nothing of the key.
pub(crate) fn pair(
    spec: KeySpec,
    usage: KeyUsage,
    pkcs8: &Sensitive,
) -> Result<(Sensitive, PublicKey), String> {
    let count = pkcs8.len();
    if count > MAX_BYTES {
        return Err(format!("{count} bytes are more than the {MAX_BYTES} of any private key"));
    }
    let info = PrivateKeyInfoRef::from_der(pkcs8.expose())
        .map_err(|_| format!("{count} bytes are not the PKCS #8 of one private key, in DER"))?;
    let (algorithm, curve) = names(spec).ok_or_else(|| format!("{} is no key pair", spec.name()))?;
    if info.algorithm.oid != algorithm {
        return Err(format!("it is a key of another algorithm than {}", spec.name()));
    }
    if curve.is_some() && info.algorithm.parameters_oid().ok() != curve {
        return Err(format!("it is a key of another curve than {}", spec.name()));
    }
    if let Some(modulus) = spec.modulus_bytes() {
        rsa(spec, modulus, info.private_key.as_bytes())?;
    }
    let inconsistent = || {
        let seed = if spec == KeySpec::MlDsa65 { ", or lack the seed" } else { "" };
        format!("the parts of a key of {} are out of range, or do not belong together{seed}", spec.name())
    };
    let (material, public) = key::reencode(spec, pkcs8.expose()).ok_or_else(inconsistent)?;
    match works(spec, usage, &material, &public) {
        Some(true) => Ok((material, public)),
        _ => Err(format!("a key of {} does not undo what its public half does", spec.name())),
    }
}

/// Returns what an algorithm is called, and of those on curves the curve.
fn names(spec: KeySpec) -> Option<(ObjectIdentifier, Option<ObjectIdentifier>)> {
    let of = |name| ObjectIdentifier::new(name).ok();
    // RFC 5480, 2.1.1.
    const EC: &str = "1.2.840.10045.2.1";
    let (algorithm, curve) = match spec {
        KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => ("1.2.840.113549.1.1.1", None),
        KeySpec::EcP256 => (EC, Some("1.2.840.10045.3.1.7")),
        KeySpec::EcP384 => (EC, Some("1.3.132.0.34")),
        KeySpec::EcP256K => (EC, Some("1.3.132.0.10")),
        KeySpec::EcSm2 => (EC, Some("1.2.156.10197.1.301")),
        KeySpec::Ed25519 => ("1.3.101.112", None),
        KeySpec::MlDsa65 => ("2.16.840.1.101.3.4.3.18", None),
        KeySpec::Aes256
        | KeySpec::Aes192
        | KeySpec::Aes128
        | KeySpec::Sm4
        | KeySpec::HmacSha256
        | KeySpec::HmacSha384
        | KeySpec::HmacSha512 => return None,
    };
    Some((of(algorithm)?, curve.and_then(of)))
}

/// Checks the numbers of an `RSAPrivateKey` (RFC 8017, A.1.2) that the library is more lenient with: it takes moduli of 2,048 bits and more,
/// any odd exponent, and keys without their primes. That n, e, d and the rest belong together is its to see; whether the primes are
/// prime is not asked.
fn rsa(spec: KeySpec, modulus: usize, der: &[u8]) -> Result<(), String> {
    let [n, e, d, p, q, ..] = numbers(der).ok_or("it holds no private key of RSA with two primes")?;
    let (size, wanted) = (bits(n), 8 * modulus);
    if size != wanted {
        return Err(format!("a modulus of {size} bits is none of {}", spec.name()));
    }
    // FIPS 186-5, A.1.1: e is odd and more than 2^16, the primes are half as long as n, and d is longer than they are.
    if bits(e) < 17 || bits(e) > MAX_EXPONENT_BITS || e.last().is_none_or(|last| last % 2 == 0) {
        return Err(format!("its public exponent is not an odd number of 17 to {MAX_EXPONENT_BITS} bits"));
    }
    if bits(p) != wanted / 2 || bits(q) != wanted / 2 || p == q {
        return Err(format!("its primes are not two of {} bits", wanted / 2));
    }
    if bits(d) <= wanted / 2 || bits(d) > wanted {
        return Err(format!("its private exponent does not have {} to {wanted} bits", wanted / 2 + 1));
    }
    Ok(())
}

/// Reads n, e, d, p, q, d mod p - 1, d mod q - 1 and the inverse of q.
fn numbers(der: &[u8]) -> Option<[&[u8]; 8]> {
    let mut reader = SliceReader::new(der).ok()?;
    let numbers = reader
        .sequence(|fields| {
            let version = u8::decode(fields)?;
            let mut numbers = [&[][..]; 8];
            for number in &mut numbers {
                *number = UintRef::decode(fields)?.as_bytes();
            }
            Ok::<_, ::sm2::pkcs8::der::Error>((version == 0).then_some(numbers))
        })
        .ok()?;
    reader.finish().ok()?;
    numbers
}

/// Returns the bits of a number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    match number.split_first() {
        Some((first, rest)) => 8 * rest.len() + (8 - first.leading_zeros() as usize),
        None => 0,
    }
}

/// Uses both halves once, in every way of the usage.
fn works(spec: KeySpec, usage: KeyUsage, material: &Sensitive, public: &PublicKey) -> Option<bool> {
    const TEXT: &[u8] = b"keymill import";
    let (key, half) =
        (SoftwareKey::decode(spec, usage, material, Some(public))?, SoftwareHalf::decode(spec, public)?);
    let half: &dyn keymill_core::seam::provider::PublicHalf = &half;
    let opened = |algorithm: &_| {
        let sealed = half.encrypt(*algorithm, TEXT).ok()?;
        Some(key.decrypt(*algorithm, &sealed).ok()?.expose() == TEXT)
    };
    let verified = |algorithm: &_| {
        let signed = half.signed(*algorithm, TEXT).ok()?;
        half.verify(*algorithm, &signed, &key.sign(*algorithm, &signed).ok()?).ok()
    };
    let opens = || spec.decryptions().iter().all(|algorithm| opened(algorithm) == Some(true));
    let signs = || spec.signatures().iter().all(|algorithm| verified(algorithm) == Some(true));
    Some((!usage.encrypts() || opens()) && (!usage.signs() || signs()))
}

#[cfg(test)]
mod tests;
