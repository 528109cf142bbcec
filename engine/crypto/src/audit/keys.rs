//! The keys of audit chains: one pair for the instance, derived from its root, and from it one ratchet a chain.

use std::sync::Arc;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use keymill_core::{Error, Result, Sensitive};
use zeroize::Zeroizing;

use super::{MAC_BYTES, Mac};

/// The audit key and the signing key of an instance.
#[derive(Clone)]
pub struct ChainKeys {
    audit: hmac::Key,
    signing: Arc<Ed25519KeyPair>,
}

impl ChainKeys {
    /// Takes the 32-byte audit key and the 32-byte Ed25519 seed, both derived from the root.
    ///
    /// # Errors
    /// `Internal` where either has another length.
    pub fn new(audit_key: &Sensitive, signing_seed: &Sensitive) -> Result<Self> {
        if audit_key.len() != 32 {
            return Err(Error::internal(format!("an audit key of {} bytes instead of 32", audit_key.len())));
        }
        let signing = Ed25519KeyPair::from_seed_unchecked(signing_seed.expose())
            .map_err(|_| Error::internal(format!("a seed of {} bytes instead of 32", signing_seed.len())))?;
        Ok(Self { audit: hmac::Key::new(HMAC_SHA256, audit_key.expose()), signing: Arc::new(signing) })
    }

    /// Returns the public key that verifies checkpoints.
    pub fn verifying_key(&self) -> [u8; 32] {
        self.signing.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    pub(super) fn signing(&self) -> Arc<Ed25519KeyPair> {
        Arc::clone(&self.signing)
    }

    pub(super) fn chain_key(&self, chain: &str) -> ChainKey {
        let mut label = b"keymill-audit-chain-1".to_vec();
        label.extend_from_slice(chain.as_bytes());
        ChainKey(derive(&self.audit, &label))
    }
}

/// The key of a chain between two checkpoints; aws-lc wipes its state when it is dropped.
#[derive(Clone)]
pub(super) struct ChainKey(hmac::Key);

impl ChainKey {
    /// Returns the MAC of a line that follows the line of MAC `previous`.
    pub(super) fn mac(&self, previous: &Mac, body: &[u8]) -> Mac {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(previous);
        context.update(body);
        *context.sign().as_ref().first_chunk::<MAC_BYTES>().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Steps to the next key; from it this one cannot be computed.
    pub(super) fn ratchet(&mut self) {
        self.0 = derive(&self.0, b"ratchet");
    }
}

fn derive(key: &hmac::Key, label: &[u8]) -> hmac::Key {
    let mut derived = Zeroizing::new([0; 32]);
    hmac::sign_to_buffer(key, label, derived.as_mut()).expect("HMAC-SHA256 fits 32 bytes");
    hmac::Key::new(HMAC_SHA256, derived.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ChainKeys {
        ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap()
    }

    #[test]
    fn chains_and_steps_have_keys_of_their_own() {
        let mac = |key: &ChainKey| key.mac(&[0; 16], b"line");
        let mut one = keys().chain_key("one");
        let first = mac(&one);
        assert_eq!(first, mac(&keys().chain_key("one")));
        assert_ne!(first, mac(&keys().chain_key("two")));
        one.ratchet();
        assert_ne!(first, mac(&one));
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        for (audit, seed) in [(31, 32), (33, 32), (32, 0), (32, 31), (32, 64)] {
            assert!(ChainKeys::new(&Sensitive::zeroed(audit), &Sensitive::zeroed(seed)).is_err());
        }
    }
}
