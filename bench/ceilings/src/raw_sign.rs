//! Ceiling *raw* of signatures: aws-lc-rs with one key pair, decoded once, that all threads share; digests in, signatures out.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};

/// A key pair to sign with.
pub enum RawSigner {
    /// ECDSA on P-256 with SHA-256.
    P256(EcdsaKeyPair),
    /// RSA of 2,048 bits with SHA-256: RSASSA-PSS, or PKCS #1 version 1.5.
    Rsa2048(RsaKeyPair, &'static dyn RsaEncoding),
}

impl RawSigner {
    /// Makes a key pair on P-256.
    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("the library makes a pair"))
    }

    /// Makes an RSA key pair of 2,048 bits.
    pub fn rsa2048(is_pss: bool) -> Self {
        let padding: &'static dyn RsaEncoding = if is_pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
        Self::Rsa2048(RsaKeyPair::generate(KeySize::Rsa2048).expect("the library makes a pair"), padding)
    }

    /// Signs `digest`, which has 32 bytes, and returns the signature's length.
    ///
    /// # Panics
    /// If it has another length: a ceiling measures good data only.
    pub fn sign(&self, digest: &[u8]) -> usize {
        let digest = Digest::import_less_safe(digest, &SHA256).expect("32 bytes are a digest of SHA-256");
        match self {
            Self::P256(pair) => pair.sign_digest(&digest).expect("a digest is signed").as_ref().len(),
            Self::Rsa2048(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(*padding, &digest, &mut signature).expect("a digest is signed");
                signature.len()
            }
        }
    }

    /// Signs on as many threads as asked for about `time`, and returns signatures a second.
    pub fn rate(&self, threads: usize, time: Duration) -> f64 {
        let ready = Barrier::new(threads);
        let one = || {
            let mut digest = [7; 32];
            self.sign(&digest);
            ready.wait();
            let (start, mut signed) = (Instant::now(), 0u64);
            while start.elapsed() < time {
                for _ in 0..8 {
                    digest[..8].copy_from_slice(&signed.to_be_bytes());
                    assert!(self.sign(&digest) > 0, "a signature is not empty");
                    signed += 1;
                }
            }
            signed as f64 / start.elapsed().as_secs_f64()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a measuring thread runs to its end")).sum()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_sign() {
        assert!((68..=72).contains(&RawSigner::p256().sign(&[7; 32])));
        assert_eq!(RawSigner::rsa2048(true).sign(&[7; 32]), 256);
        assert!(RawSigner::p256().rate(2, Duration::from_millis(5)) > 0.0);
    }
}
