//! What a caller does with key pairs and keys of MACs.

use keymill_core::id::{CmkId, KeyVersionId};
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm};
use keymill_core::operation::*;

use crate::caller::{Answered, Caller, Items, Named};

/// A key and the version that requests name.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The key.
    pub key: CmkId,
    /// The version.
    pub version: KeyVersionId,
}

fn bins<'a>(items: &'a [Vec<u8>]) -> Vec<Bin<'a>> {
    items.iter().map(|item| Bin::from(&item[..])).collect()
}

fn owned(items: Vec<Option<Bin<'_>>>) -> Items {
    items.into_iter().map(|item| item.map(Bin::into_vec)).collect()
}

impl Caller {
    /// Creates a key of a specification, for its usual use where none is said.
    pub fn create_pair(
        &mut self,
        spec: KeySpec,
        usage: Option<KeyUsage>,
        protection: Option<ProtectionLevel>,
    ) -> Answered<Pair> {
        let request = CreateKeyRequest {
            key_spec: Some(spec),
            key_usage: usage,
            protection_level: protection,
            // A large RSA pair takes as long as its primes are looked for.
            timeout_ms: Some(50_000),
            ..Default::default()
        };
        let shown = self.ask(request, take!(CreateKey, reply => reply.key_metadata))?;
        Ok(Pair { key: shown.key_id, version: shown.primary_key_version })
    }

    /// Makes a new version of a key pair.
    pub fn create_version(&mut self, key: impl Named) -> Answered<KeyVersionId> {
        let request = CreateKeyVersionRequest { key_id: key.key_ref(), timeout_ms: None };
        self.ask(request, take!(CreateKeyVersion, reply => reply.key_version.key_version_id))
    }

    /// Tells the public half, in PEM.
    pub fn public_key(&mut self, pair: Pair) -> Answered<String> {
        let (key_id, key_version_id) = (pair.key.key_ref(), pair.version);
        let request = GetPublicKeyRequest { key_id, key_version_id, timeout_ms: None };
        self.ask(request, take!(GetPublicKey, reply => reply.public_key))
    }

    /// Signs a digest.
    pub fn sign_digest(&mut self, pair: Pair, algorithm: SignAlgorithm, digest: &[u8]) -> Answered<Vec<u8>> {
        self.sign(pair, algorithm, Some(digest), None)
    }

    /// Signs a message.
    pub fn sign_message(
        &mut self,
        pair: Pair,
        algorithm: SignAlgorithm,
        message: &[u8],
    ) -> Answered<Vec<u8>> {
        self.sign(pair, algorithm, None, Some(message))
    }

    /// Signs a digest or a message.
    pub fn sign(
        &mut self,
        pair: Pair,
        algorithm: SignAlgorithm,
        digest: Option<&[u8]>,
        message: Option<&[u8]>,
    ) -> Answered<Vec<u8>> {
        let request = AsymmetricSignRequest {
            key_id: pair.key.key_ref(),
            key_version_id: pair.version,
            algorithm,
            digest: digest.map(Bin::from),
            message: message.map(Bin::from),
            timeout_ms: None,
        };
        self.ask(request, take!(AsymmetricSign, reply => reply.value.into_vec()))
    }

    /// Checks a signature of a digest or a message.
    pub fn verify(
        &mut self,
        pair: Pair,
        algorithm: SignAlgorithm,
        (digest, message): (Option<&[u8]>, Option<&[u8]>),
        signature: &[u8],
    ) -> Answered<bool> {
        let request = AsymmetricVerifyRequest {
            key_id: pair.key.key_ref(),
            key_version_id: pair.version,
            algorithm,
            digest: digest.map(Bin::from),
            message: message.map(Bin::from),
            value: signature.into(),
            timeout_ms: None,
        };
        self.ask(request, take!(AsymmetricVerify, reply => reply.value))
    }

    /// Signs many.
    pub fn batch_sign(
        &mut self,
        pair: Pair,
        algorithm: SignAlgorithm,
        message_type: MessageType,
        messages: &[Vec<u8>],
    ) -> Answered<(Items, Vec<ItemError>)> {
        let request = BatchSignRequest {
            key_id: Some(pair.key.key_ref()),
            key_version_id: Some(pair.version),
            certificate_id: None,
            algorithm,
            message_type,
            messages: bins(messages),
            timeout_ms: None,
        };
        self.ask(request, take!(BatchSign, reply => (owned(reply.items), reply.errors)))
    }

    /// Checks many signatures.
    pub fn batch_verify(
        &mut self,
        pair: Pair,
        algorithm: SignAlgorithm,
        message_type: MessageType,
        messages: &[Vec<u8>],
        signatures: &[Vec<u8>],
    ) -> Answered<(Vec<Option<bool>>, Vec<ItemError>)> {
        let request = BatchVerifyRequest {
            key_id: Some(pair.key.key_ref()),
            key_version_id: Some(pair.version),
            certificate_id: None,
            algorithm,
            message_type,
            messages: bins(messages),
            signatures: bins(signatures),
            timeout_ms: None,
        };
        self.ask(request, take!(BatchVerify, reply => (reply.valid, reply.errors)))
    }

    /// Encrypts for the private half.
    pub fn encrypt_for(&mut self, pair: Pair, algorithm: DecryptAlgorithm, text: &[u8]) -> Answered<Vec<u8>> {
        let request = AsymmetricEncryptRequest {
            key_id: pair.key.key_ref(),
            key_version_id: pair.version,
            algorithm,
            plaintext: text.into(),
            timeout_ms: None,
        };
        self.ask(request, take!(AsymmetricEncrypt, reply => reply.ciphertext_blob.into_vec()))
    }

    /// Decrypts with the private half.
    pub fn decrypt_by(&mut self, pair: Pair, algorithm: DecryptAlgorithm, blob: &[u8]) -> Answered<Vec<u8>> {
        let request = AsymmetricDecryptRequest {
            key_id: pair.key.key_ref(),
            key_version_id: pair.version,
            algorithm,
            ciphertext_blob: blob.into(),
            timeout_ms: None,
        };
        self.ask(request, take!(AsymmetricDecrypt, reply => reply.plaintext.into_vec()))
    }

    /// Encrypts many for the private half.
    pub fn batch_encrypt_for(
        &mut self,
        pair: Pair,
        algorithm: DecryptAlgorithm,
        items: &[Vec<u8>],
    ) -> Answered<(Items, Vec<ItemError>)> {
        let request = BatchAsymmetricEncryptRequest {
            key_id: pair.key.key_ref(),
            key_version_id: pair.version,
            algorithm,
            items: bins(items),
            timeout_ms: None,
        };
        self.ask(request, take!(BatchAsymmetricEncrypt, reply => (owned(reply.items), reply.errors)))
    }

    /// Decrypts many with the private half.
    pub fn batch_decrypt_by(
        &mut self,
        pair: Pair,
        algorithm: DecryptAlgorithm,
        items: &[Vec<u8>],
    ) -> Answered<(Items, Vec<ItemError>)> {
        let request = BatchAsymmetricDecryptRequest {
            key_id: pair.key.key_ref(),
            key_version_id: pair.version,
            algorithm,
            items: bins(items),
            timeout_ms: None,
        };
        self.ask(request, take!(BatchAsymmetricDecrypt, reply => (owned(reply.items), reply.errors)))
    }

    /// Computes a MAC.
    pub fn mac(&mut self, key: impl Named, algorithm: SignAlgorithm, message: &[u8]) -> Answered<Vec<u8>> {
        let request = GenerateMacRequest {
            key_id: key.key_ref(),
            algorithm,
            message: message.into(),
            timeout_ms: None,
        };
        self.ask(request, take!(GenerateMac, reply => reply.mac.into_vec()))
    }

    /// Checks a MAC.
    pub fn verify_mac(
        &mut self,
        key: impl Named,
        algorithm: SignAlgorithm,
        message: &[u8],
        mac: &[u8],
    ) -> Answered<bool> {
        let request = VerifyMacRequest {
            key_id: key.key_ref(),
            algorithm,
            message: message.into(),
            mac: mac.into(),
            timeout_ms: None,
        };
        self.ask(request, take!(VerifyMac, reply => reply.value))
    }

    /// Computes many MACs.
    pub fn batch_mac(
        &mut self,
        key: impl Named,
        algorithm: SignAlgorithm,
        messages: &[Vec<u8>],
    ) -> Answered<(Items, Vec<ItemError>)> {
        let (key_id, messages) = (key.key_ref(), bins(messages));
        let request = BatchGenerateMacRequest { key_id, algorithm, messages, timeout_ms: None };
        self.ask(request, take!(BatchGenerateMac, reply => (owned(reply.items), reply.errors)))
    }

    /// Checks many MACs.
    pub fn batch_verify_mac(
        &mut self,
        key: impl Named,
        algorithm: SignAlgorithm,
        messages: &[Vec<u8>],
        macs: &[Vec<u8>],
    ) -> Answered<(Vec<Option<bool>>, Vec<ItemError>)> {
        let (key_id, messages, macs) = (key.key_ref(), bins(messages), bins(macs));
        let request = BatchVerifyMacRequest { key_id, algorithm, messages, macs, timeout_ms: None };
        self.ask(request, take!(BatchVerifyMac, reply => (reply.valid, reply.errors)))
    }
}
