//! What a caller does with key material of its own: it asks what to wrap it by, wraps it, and brings it.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use keymill_core::Timestamp;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, Origin, ProtectionLevel, WrappingAlgorithm};
use keymill_core::operation::*;

use crate::Pair;
use crate::caller::{Answered, Caller, Named};

/// What material is wrapped by.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// What goes with it.
    pub token: ImportToken,
    /// SubjectPublicKeyInfo in DER.
    pub public: Vec<u8>,
    /// How it is wrapped.
    pub algorithm: WrappingAlgorithm,
    /// Until when it is taken.
    pub expires: Timestamp,
}

impl Parameters {
    /// Wraps material.
    pub fn wrap(&self, material: &[u8]) -> Vec<u8> {
        match self.algorithm {
            WrappingAlgorithm::RsaesOaepSha1 => self.encrypt(&OAEP_SHA1_MGF1SHA1, material),
            WrappingAlgorithm::RsaAesKeyWrapSha256 => {
                let key = [0x5c; 32];
                [self.encrypt(&OAEP_SHA256_MGF1SHA256, &key), key_wrap(&key, material)].concat()
            }
            _ => self.encrypt(&OAEP_SHA256_MGF1SHA256, material),
        }
    }

    /// Encrypts a text for the wrapping key.
    pub fn encrypt(&self, oaep: &'static OaepAlgorithm, text: &[u8]) -> Vec<u8> {
        let key = PublicEncryptingKey::from_der(&self.public).expect("it is a public key");
        let key = OaepPublicEncryptingKey::new(key).expect("it encrypts");
        let mut out = vec![0; key.ciphertext_size()];
        key.encrypt(oaep, text, &mut out, None).expect("it is short enough").to_vec()
    }
}

/// Wraps material by AES key wrap with padding (RFC 5649).
pub fn key_wrap(key: &[u8; 32], material: &[u8]) -> Vec<u8> {
    let mut out = vec![0; material.len().next_multiple_of(8) + 8];
    let kek = AesKek::new(&AES_256, key).expect("it has 32 bytes");
    kek.wrap_with_padding(material, &mut out).expect("it can be wrapped").to_vec()
}

/// Asks for a key whose material is imported.
pub fn external(spec: KeySpec, level: ProtectionLevel, bulk_mode: Option<BulkMode>) -> CreateKeyRequest {
    CreateKeyRequest {
        key_spec: Some(spec),
        origin: Some(Origin::External),
        protection_level: Some(level),
        bulk_mode,
        ..Default::default()
    }
}

impl Caller {
    /// Creates a key of software whose material is imported.
    pub fn create_external(&mut self, spec: KeySpec, usage: Option<KeyUsage>) -> Answered<Pair> {
        let request =
            CreateKeyRequest { key_usage: usage, ..external(spec, ProtectionLevel::Software, None) };
        self.create_external_of(request)
    }

    /// Creates a key of the tokens whose material is imported.
    pub fn create_external_in_hsm(&mut self, spec: KeySpec, mode: Option<BulkMode>) -> Answered<Pair> {
        self.create_external_of(external(spec, ProtectionLevel::Hsm, mode))
    }

    /// Creates a key as a request has it.
    pub fn create_external_of(&mut self, request: CreateKeyRequest) -> Answered<Pair> {
        let shown = self.ask(request, take!(CreateKey, reply => reply.key_metadata))?;
        Ok(Pair { key: shown.key_id, version: shown.primary_key_version })
    }

    /// Asks what to wrap material by.
    pub fn import_parameters(
        &mut self,
        key: impl Named,
        wrapping_key_spec: KeySpec,
        algorithm: WrappingAlgorithm,
    ) -> Answered<Parameters> {
        let request = GetParametersForImportRequest {
            key_id: key.key_ref(),
            wrapping_algorithm: algorithm,
            wrapping_key_spec,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(GetParametersForImport, reply => Parameters {
                token: reply.import_token,
                public: reply.public_key.into_vec(),
                algorithm,
                expires: reply.token_expire_time,
            }),
        )
    }

    /// The same for RSA_2048 and RSAES_OAEP_SHA_256.
    pub fn usual_parameters(&mut self, key: impl Named) -> Answered<Parameters> {
        self.import_parameters(key, KeySpec::Rsa2048, WrappingAlgorithm::RsaesOaepSha256)
    }

    /// Imports material that is wrapped already.
    pub fn import_wrapped(
        &mut self,
        key: impl Named,
        token: &ImportToken,
        wrapped: &[u8],
        expire_unix: Option<u64>,
    ) -> Answered<()> {
        let request = ImportKeyMaterialRequest {
            key_id: key.key_ref(),
            encrypted_key_material: Bin::from(wrapped),
            import_token: token.clone(),
            key_material_expire_unix: expire_unix,
            timeout_ms: None,
        };
        self.ask(request, |_| ())
    }

    /// Imports material by what was asked for.
    pub fn import_by(&mut self, key: impl Named, by: &Parameters, material: &[u8]) -> Answered<()> {
        self.import_wrapped(key, &by.token, &by.wrap(material), None)
    }

    /// Imports material, from asking on.
    pub fn import(&mut self, key: impl Named, material: &[u8], expire_unix: Option<u64>) -> Answered<()> {
        let key = key.key_ref();
        let by = self.usual_parameters(key.clone())?;
        self.import_wrapped(key, &by.token, &by.wrap(material), expire_unix)
    }

    /// Deletes imported material.
    pub fn delete_material(&mut self, key: impl Named) -> Answered<()> {
        self.ask(DeleteKeyMaterialRequest { key_id: key.key_ref(), timeout_ms: None }, |_| ())
    }
}
