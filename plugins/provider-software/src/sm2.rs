//! SM2 (GB/T 32918): signatures of SM3(ZA ‖ M), and texts encrypted under the public half. The arithmetic of the curve is RustCrypto's, for
//! aws-lc-rs has none of it; DER is read and written by theirs, too.

use ::sm2::dsa::signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use ::sm2::dsa::{Signature, SigningKey, VerifyingKey};
use ::sm2::elliptic_curve::rand_core::{TryCryptoRng, TryRng};
use ::sm2::elliptic_curve::sec1::ToSec1Point;
use ::sm2::pkcs8::der::Decode;
use ::sm2::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ::sm2::pke::{Cipher, EncryptingKey};
use ::sm2::{ProjectivePoint, SecretKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use keymill_core::Sensitive;
use keymill_core::key::KeySpec;
use keymill_core::limit::SM2_PLAINTEXT_BYTES;
use keymill_core::seam::provider::{JobError, ProviderError, PublicKey};
use sm3::{Digest, Sm3};
use zeroize::{Zeroize, Zeroizing};

use crate::{random, spki};

/// The identity that everybody signs with who has agreed on no other (GB/T 35276, 10).
const IDENTITY: &str = "1234567812345678";

/// What ZA hashes before the public key (GB/T 32918.2, 5.5): the bits of the identity in two bytes, the identity, and of the curve a, b and
/// the generator (GB/T 32918.5, 2).
const PREFIX: [&[u8]; 6] = [
    &[0x00, 0x80],
    IDENTITY.as_bytes(),
    &0xffff_fffe_ffff_ffff_ffff_ffff_ffff_ffff_u128.to_be_bytes(),
    &0xffff_ffff_0000_0000_ffff_ffff_ffff_fffc_u128.to_be_bytes(),
    &[
        0x28, 0xe9, 0xfa, 0x9e, 0x9d, 0x9f, 0x5e, 0x34, 0x4d, 0x5a, 0x9e, 0x4b, 0xcf, 0x65, 0x09, 0xa7, 0xf3,
        0x97, 0x89, 0xf5, 0x15, 0xab, 0x8f, 0x92, 0xdd, 0xbc, 0xbd, 0x41, 0x4d, 0x94, 0x0e, 0x93,
    ],
    &[
        0x32, 0xc4, 0xae, 0x2c, 0x1f, 0x19, 0x81, 0x19, 0x5f, 0x99, 0x04, 0x46, 0x6a, 0x39, 0xc9, 0x94, 0x8f,
        0xe3, 0x0b, 0xbf, 0xf2, 0x66, 0x0b, 0xe1, 0x71, 0x5a, 0x45, 0x89, 0x33, 0x4c, 0x74, 0xc7, 0xbc, 0x37,
        0x36, 0xa2, 0xf4, 0xf6, 0x77, 0x9c, 0x59, 0xbd, 0xce, 0xe3, 0x6b, 0x69, 0x21, 0x53, 0xd0, 0xa9, 0x87,
        0x7c, 0xc6, 0x2a, 0x47, 0x40, 0x02, 0xdf, 0x32, 0xe5, 0x21, 0x39, 0xf0, 0xa0,
    ],
];

/// A private half; wiped when it is dropped.
pub(crate) struct PrivateHalf(SecretKey);

impl PrivateHalf {
    /// Draws a key.
    pub(crate) fn generate() -> Result<Self, ProviderError> {
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            random::fill(&mut bytes[..])?;
            // All but one of 2^32 draws lie in the range.
            if let Some(key) = Self::from_scalar(&bytes[..]) {
                return Ok(key);
            }
        }
    }

    /// Takes 32 bytes; `None` outside 1 to n - 2 (GB/T 32918.1, 6.1): with n - 1 there is no signature.
    pub(crate) fn from_scalar(bytes: &[u8]) -> Option<Self> {
        Self::checked(SecretKey::from_slice(bytes).ok()?)
    }

    fn checked(key: SecretKey) -> Option<Self> {
        let one = ::sm2::Scalar::from(1u64);
        (*key.to_nonzero_scalar() + one != ::sm2::Scalar::from(0u64)).then_some(Self(key))
    }

    /// Decodes PKCS #8; a public key that stands in it must be this one's.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        Self::checked(SecretKey::from_pkcs8_der(der).ok()?)
    }

    /// Encodes it as PKCS #8, with its public key.
    pub(crate) fn to_pkcs8(&self) -> Option<Sensitive> {
        Some(Sensitive::copied(self.0.to_pkcs8_der().ok()?.as_bytes()))
    }

    /// Returns the public half.
    pub(crate) fn public(&self) -> Option<PublicKey> {
        spki::encode(KeySpec::EcSm2, self.0.public_key().to_sec1_point(false).as_bytes())
    }

    /// Signs a digest. The nonce is RFC 6979's with 32 random bytes in it: neither a bad generator nor a fault gives the key away.
    pub(crate) fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, JobError> {
        // What is prepared here would not be wiped, were it kept with the key.
        let key = SigningKey::new(IDENTITY, &self.0).map_err(|_| JobError::Rejected)?;
        let signature: Signature =
            key.sign_prehash_with_rng(&mut Drawn, digest).map_err(|_| JobError::Rejected)?;
        Ok(signature.to_der().as_bytes().to_vec())
    }

    /// Opens a ciphertext (GB/T 32918.4, 7.1). RustCrypto's own would compare digests byte by byte, and leave what did not open in memory.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Result<Sensitive, JobError> {
        let invalid = JobError::InvalidCiphertext;
        // The point is on the curve, whose cofactor is 1, and the encoding is the one that there is.
        let cipher = Cipher::<'_, ::sm2::Sm2, Sm3>::from_der(ciphertext).map_err(|_| invalid)?;
        if cipher.c2().is_empty() || cipher.c2().len() > SM2_PLAINTEXT_BYTES {
            return Err(invalid);
        }
        let mut shared = Zeroizing::new([0; 64]);
        let point = (ProjectivePoint::from(*cipher.c1()) * *self.0.to_nonzero_scalar()).to_affine();
        shared.copy_from_slice(&point.to_sec1_point(false).as_bytes()[1..]);

        let mut text = Sensitive::copied(cipher.c2());
        let mut any = 0;
        for (counter, block) in (1u32..).zip(text.expose_mut().chunks_mut(32)) {
            let mut key = Sm3::new().chain_update(&shared[..]).chain_update(counter.to_be_bytes()).finalize();
            for (byte, key) in block.iter_mut().zip(&key) {
                *byte ^= key;
                any |= key;
            }
            key.zeroize();
        }
        let (x, y) = shared.split_at(32);
        let digest = Sm3::new().chain_update(x).chain_update(text.expose()).chain_update(y).finalize();
        let fits = verify_slices_are_equal(&digest, cipher.c3()).is_ok();
        // A key stream of nothing but zeroes is refused by the standard.
        if fits && any != 0 { Ok(text) } else { Err(invalid) }
    }
}

/// A public half.
pub(crate) struct PublicSm2 {
    key: VerifyingKey,
    /// ZA.
    identity: [u8; 32],
}

impl PublicSm2 {
    /// Takes an uncompressed point; `None` for one that is not on the curve.
    pub(crate) fn new(point: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_sec1_bytes(IDENTITY, point).ok()?;
        let mut hash = Sm3::new();
        PREFIX.iter().for_each(|part| hash.update(part));
        hash.update(point.strip_prefix(&[4])?);
        Some(Self { key, identity: hash.finalize().into() })
    }

    /// Returns SM3(ZA ‖ M).
    pub(crate) fn digest(&self, message: &[u8]) -> Vec<u8> {
        Sm3::new().chain_update(self.identity).chain_update(message).finalize().to_vec()
    }

    /// Tells whether a signature, in DER, is one of a digest.
    pub(crate) fn verifies(&self, digest: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature)
            .is_ok_and(|signature| self.key.verify_prehash(digest, &signature).is_ok())
    }

    /// Encrypts a text.
    ///
    /// # Errors
    /// `Rejected` for one of no bytes, which the standard has no ciphertext of, or more than [`SM2_PLAINTEXT_BYTES`].
    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, JobError> {
        if plaintext.is_empty() || plaintext.len() > SM2_PLAINTEXT_BYTES {
            return Err(JobError::Rejected);
        }
        let key = EncryptingKey::from_affine(*self.key.as_affine()).map_err(|_| JobError::Rejected)?;
        key.encrypt_der(&mut Drawn, plaintext).map_err(|_| JobError::Rejected)
    }
}

/// This provider's randomness, as RustCrypto takes it.
struct Drawn;

impl TryRng for Drawn {
    type Error = ProviderError;

    fn try_next_u32(&mut self) -> Result<u32, ProviderError> {
        let mut bytes = [0; 4];
        random::fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, ProviderError> {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        random::fill(out)
    }
}

impl TryCryptoRng for Drawn {}
