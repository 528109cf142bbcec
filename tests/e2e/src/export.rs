//! Data keys that are exported, and who they are exported for.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use keymill_core::key::{DecryptAlgorithm, KeySpec};
use keymill_core::operation::*;

use crate::caller::{Answered, Caller, Named, context};

/// A public key as requests give it.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// SubjectPublicKeyInfo in DER, or what is to pass for one.
    pub public: Vec<u8>,
    /// The kind of key.
    pub spec: KeySpec,
    /// How it is encrypted for.
    pub algorithm: DecryptAlgorithm,
}

/// Somebody with an RSA key pair of 2,048 bits.
pub struct Owner(OaepPrivateDecryptingKey, Vec<u8>);

impl Owner {
    /// Returns the one that all tests of a process share.
    pub fn shared() -> &'static Self {
        static OWNER: OnceLock<Owner> = OnceLock::new();
        OWNER.get_or_init(|| {
            let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key pair is made");
            let public: PublicKeyX509Der<'_> = key.public_key().as_der().expect("it has a public half");
            let public = public.as_ref().to_vec();
            Self(OaepPrivateDecryptingKey::new(key).expect("it decrypts"), public)
        })
    }

    /// Returns the public half, to be encrypted for with SHA-256.
    pub fn recipient(&self) -> Recipient {
        let (spec, algorithm) = (KeySpec::Rsa2048, DecryptAlgorithm::RsaesOaepSha256);
        Recipient { public: self.1.clone(), spec, algorithm }
    }

    /// Opens what was exported.
    pub fn open(&self, algorithm: DecryptAlgorithm, exported: &[u8]) -> Vec<u8> {
        let oaep = match algorithm {
            DecryptAlgorithm::RsaesOaepSha1 => &OAEP_SHA1_MGF1SHA1,
            _ => &OAEP_SHA256_MGF1SHA256,
        };
        let mut out = vec![0; self.0.min_output_size()];
        self.0.decrypt(oaep, exported, &mut out, None).expect("it was encrypted for this key").to_vec()
    }
}

impl Caller {
    /// Exports a data key that was given out encrypted.
    pub fn export(&mut self, blob: &[u8], pairs: &[(&str, &str)], to: &Recipient) -> Answered<Vec<u8>> {
        let request = ExportDataKeyRequest {
            ciphertext_blob: blob.into(),
            public_key_blob: (&to.public[..]).into(),
            wrapping_key_spec: to.spec,
            wrapping_algorithm: to.algorithm,
            encryption_context: context(pairs),
            timeout_ms: None,
        };
        self.ask(request, take!(ExportDataKey, reply => reply.exported_data_key.into_vec()))
    }

    /// Makes a data key of so many bytes, and returns it encrypted and exported.
    pub fn generate_and_export(
        &mut self,
        key: impl Named,
        bytes: u32,
        to: &Recipient,
    ) -> Answered<(Vec<u8>, Vec<u8>)> {
        let request = GenerateAndExportDataKeyRequest {
            key_id: key.key_ref(),
            key_spec: None,
            number_of_bytes: Some(bytes),
            public_key_blob: (&to.public[..]).into(),
            wrapping_key_spec: to.spec,
            wrapping_algorithm: to.algorithm,
            encryption_context: None,
            timeout_ms: None,
        };
        let reply = take!(GenerateAndExportDataKey, reply => {
            (reply.ciphertext_blob.into_vec(), reply.exported_data_key.into_vec())
        });
        self.ask(request, reply)
    }
}
