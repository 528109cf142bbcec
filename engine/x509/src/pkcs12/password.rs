//! What a password of PKCS #12 opens: the MAC (RFC 7292 §4 and appendix B), and PBES2 with AES in CBC (RFC 8018 §6.2). Older encryption
//! (triple DES, RC2) and scrypt are refused; so is a file that asks for more work than it may.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, pbkdf2};
use der::Tag;
use der::asn1::ObjectIdentifier;
use keymill_core::{Error, Result, Sensitive};

use super::WHAT;
use crate::invalid;
use crate::parts::{Part, Parts, natural};

/// The most iterations of a key that is derived: what OWASP asks of PBKDF2 with SHA-256.
const MAX_ITERATIONS: u32 = 600_000;
/// The most of all keys of a file: two seconds of work.
const MAX_TOTAL_ITERATIONS: u32 = 2_000_000;
/// The most bytes of a password, and of a salt.
const MAX_PASSWORD_BYTES: usize = 1_024;
const MAX_SALT_BYTES: usize = 256;

/// RFC 8018 appendix A.
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const PRFS: [(ObjectIdentifier, pbkdf2::Algorithm); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.7"), pbkdf2::PBKDF2_HMAC_SHA1),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.9"), pbkdf2::PBKDF2_HMAC_SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.10"), pbkdf2::PBKDF2_HMAC_SHA384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.11"), pbkdf2::PBKDF2_HMAC_SHA512),
];
/// FIPS 197 in CBC (RFC 3565 §4.1), with the bytes of the key.
const CIPHERS: [(ObjectIdentifier, &Algorithm, usize); 3] = [
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2"), &AES_128, 16),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22"), &AES_192, 24),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42"), &AES_256, 32),
];

/// A hash of the MAC, with the bytes of its blocks.
struct MacHash {
    oid: ObjectIdentifier,
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    block: usize,
}

const MAC_HASHES: [MacHash; 4] = [
    MacHash {
        oid: ObjectIdentifier::new_unwrap("1.3.14.3.2.26"),
        digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
        hmac: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        block: 64,
    },
    MacHash {
        oid: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        digest: &digest::SHA256,
        hmac: hmac::HMAC_SHA256,
        block: 64,
    },
    MacHash {
        oid: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
        digest: &digest::SHA384,
        hmac: hmac::HMAC_SHA384,
        block: 128,
    },
    MacHash {
        oid: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        digest: &digest::SHA512,
        hmac: hmac::HMAC_SHA512,
        block: 128,
    },
];

/// A password, and how much work it may still do.
pub(super) struct Password<'a> {
    text: &'a str,
    left: u32,
}

/// How something is encrypted.
struct Encryption<'a> {
    prf: pbkdf2::Algorithm,
    salt: &'a [u8],
    iterations: u32,
    cipher: &'static Algorithm,
    key_bytes: usize,
    iv: [u8; 16],
}

impl<'a> Password<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self> {
        match text.len() <= MAX_PASSWORD_BYTES {
            true => Ok(Self { text, left: MAX_TOTAL_ITERATIONS }),
            false => Err(invalid(format!("{WHAT}: a password of more than {MAX_PASSWORD_BYTES} bytes"))),
        }
    }

    /// Checks the MAC of a content, once the work of all that `plan` names is found to be little enough.
    pub(super) fn verify<'b>(
        &mut self,
        mac: Part<'b>,
        content: &[u8],
        plan: impl FnOnce() -> Result<Vec<Part<'b>>>,
    ) -> Result<()> {
        let mut parts = Parts::new(WHAT, mac.value)?;
        let info = parts.take("the digest", Tag::Sequence)?;
        let salt = salt(&mut parts)?;
        let iterations = match parts.is_finished() {
            true => 1,
            false => iterations(&mut parts)?,
        };
        let mut info = parts.open(info)?;
        parts.end()?;
        let algorithm = info.take("the algorithm of the MAC", Tag::Sequence)?;
        let expected = info.take("the digest", Tag::OctetString)?.value;
        let mut algorithm = info.open(algorithm)?;
        info.end()?;
        let oid = algorithm.oid("the algorithm of the MAC")?;
        algorithm.optional("parameters of the MAC", Tag::Null)?;
        algorithm.end()?;
        let hash = MAC_HASHES.into_iter().find(|hash| hash.oid == oid);
        let hash = hash.ok_or_else(|| {
            invalid(format!("{WHAT}: the algorithm {oid} of its MAC is not taken; HMAC with SHA-2 is"))
        })?;
        let mut planned = iterations;
        for algorithm in plan()? {
            planned = planned.saturating_add(encryption(algorithm)?.iterations);
        }
        if planned > MAX_TOTAL_ITERATIONS {
            return Err(too_much());
        }
        self.spend(iterations)?;
        let key = mac_key(&hash, self.text, salt, iterations);
        hmac::verify(&hmac::Key::new(hash.hmac, key.expose()), content, expected).map_err(|_| wrong())
    }

    /// Decrypts what a password encrypts.
    pub(super) fn decrypt(&mut self, algorithm: Part<'_>, sealed: &[u8]) -> Result<Sensitive> {
        let encryption = encryption(algorithm)?;
        self.spend(encryption.iterations)?;
        let iterations = NonZeroU32::new(encryption.iterations).ok_or_else(wrong)?;
        let mut key = Sensitive::zeroed(encryption.key_bytes);
        let text = self.text.as_bytes();
        pbkdf2::derive(encryption.prf, iterations, encryption.salt, text, key.expose_mut());
        let key = UnboundCipherKey::new(encryption.cipher, key.expose()).map_err(|_| wrong())?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| wrong())?;
        let mut buffer = Sensitive::copied(sealed);
        let context = DecryptionContext::Iv128(FixedLength::from(encryption.iv));
        let opened = key.decrypt(buffer.expose_mut(), context).map_err(|_| wrong())?;
        Ok(Sensitive::copied(opened))
    }

    fn spend(&mut self, iterations: u32) -> Result<()> {
        self.left = self.left.checked_sub(iterations).ok_or_else(too_much)?;
        Ok(())
    }
}

fn wrong() -> Error {
    invalid(format!("{WHAT}: the password is wrong, or the file was altered"))
}

fn too_much() -> Error {
    invalid(format!("{WHAT}: its keys take more than {MAX_TOTAL_ITERATIONS} iterations"))
}

/// Derives the key of the MAC (RFC 7292 appendix B.2): one block of output, since the key is as long as the digest.
fn mac_key(hash: &MacHash, password: &str, salt: &[u8], iterations: u32) -> Sensitive {
    // Appendix B.1: in 16 bits a character, with a zero at the end.
    let characters = 2 * (password.encode_utf16().count() + 1);
    let filled = |length: usize| length.div_ceil(hash.block) * hash.block;
    let (salted, worded) = (filled(salt.len()), filled(characters));
    let mut input = Sensitive::zeroed(hash.block + salted + worded);
    let (kind, rest) = input.expose_mut().split_at_mut(hash.block);
    let (salt_part, word_part) = rest.split_at_mut(salted);
    // Appendix B.3: 3 stands for a key of MACs.
    kind.fill(3);
    salt_part.iter_mut().zip(salt.iter().cycle()).for_each(|(to, from)| *to = *from);
    let units = || password.encode_utf16().chain([0]);
    let mut words = Sensitive::zeroed(characters);
    for (to, unit) in words.expose_mut().chunks_mut(2).zip(units()) {
        to.copy_from_slice(&unit.to_be_bytes());
    }
    word_part.iter_mut().zip(words.expose().iter().cycle()).for_each(|(to, from)| *to = *from);
    let mut key = Sensitive::copied(digest::digest(hash.digest, input.expose()).as_ref());
    for _ in 1..iterations {
        let next = digest::digest(hash.digest, key.expose());
        key.expose_mut().copy_from_slice(next.as_ref());
    }
    key
}

/// Reads how something is encrypted (RFC 8018 appendix A.4).
fn encryption(algorithm: Part<'_>) -> Result<Encryption<'_>> {
    let mut parts = Parts::new(WHAT, algorithm.value)?;
    let oid = parts.oid("the encryption")?;
    if oid != PBES2 {
        let why = format!("encryption {oid} is not taken: write the file anew with AES (PBES2)");
        return Err(parts.wrong(why));
    }
    let parameters = parts.take("parameters of the encryption", Tag::Sequence)?;
    let mut parameters = parts.open(parameters)?;
    parts.end()?;
    let derivation = parameters.take("how the key is derived", Tag::Sequence)?;
    let cipher = parameters.take("the cipher", Tag::Sequence)?;
    let mut derivation = parameters.open(derivation)?;
    let mut cipher = parameters.open(cipher)?;
    parameters.end()?;

    let oid = derivation.oid("how the key is derived")?;
    if oid != PBKDF2 {
        return Err(derivation.wrong(format!("keys derived by {oid} are not taken; by PBKDF2 they are")));
    }
    let inner = derivation.take("parameters of PBKDF2", Tag::Sequence)?;
    let mut inner = derivation.open(inner)?;
    derivation.end()?;
    let salt = salt(&mut inner)?;
    let iterations = iterations(&mut inner)?;
    let length = inner.optional("the length of the key", Tag::Integer)?;
    let prf = match inner.optional("the function of PBKDF2", Tag::Sequence)? {
        None => PRFS[0].1,
        Some(part) => {
            let mut function = inner.open(part)?;
            let oid = function.oid("the function of PBKDF2")?;
            function.optional("parameters of the function", Tag::Null)?;
            function.end()?;
            let known = PRFS.into_iter().find(|(own, _)| *own == oid);
            known.ok_or_else(|| inner.wrong(format!("function {oid} of PBKDF2 is not taken")))?.1
        }
    };
    inner.end()?;

    let oid = cipher.oid("the cipher")?;
    let (_, algorithm, key_bytes) = CIPHERS
        .into_iter()
        .find(|(own, ..)| *own == oid)
        .ok_or_else(|| cipher.wrong(format!("cipher {oid} is not taken; AES in CBC is")))?;
    let iv = cipher.take("the initialization vector", Tag::OctetString)?.value;
    let iv = iv.try_into().map_err(|_| cipher.wrong("an initialization vector that is not of 16 bytes"))?;
    cipher.end()?;
    if let Some(length) = length
        && natural(WHAT, "the length of the key", length.value)? != [key_bytes as u8]
    {
        return Err(invalid(format!("{WHAT}: a key of another length than its cipher has")));
    }
    Ok(Encryption { prf, salt, iterations, cipher: algorithm, key_bytes, iv })
}

fn salt<'a>(parts: &mut Parts<'a>) -> Result<&'a [u8]> {
    let salt = parts.take("the salt", Tag::OctetString)?.value;
    match (1..=MAX_SALT_BYTES).contains(&salt.len()) {
        true => Ok(salt),
        false => Err(parts.wrong(format!("a salt has 1 to {MAX_SALT_BYTES} bytes"))),
    }
}

fn iterations(parts: &mut Parts<'_>) -> Result<u32> {
    let bytes = parts.natural("the count of iterations")?;
    let count = match bytes.len() {
        0..=4 => bytes.iter().fold(0u32, |count, byte| count << 8 | u32::from(*byte)),
        _ => u32::MAX,
    };
    match (1..=MAX_ITERATIONS).contains(&count) {
        true => Ok(count),
        false => Err(parts.wrong(format!("a key of 1 to {MAX_ITERATIONS} iterations is taken"))),
    }
}
