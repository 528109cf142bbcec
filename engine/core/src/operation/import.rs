//! Key material from outside: what it is wrapped by, its import, and its deletion.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Bin;
use crate::id::{CmkId, KeyRef, RequestId};
use crate::key::{KeySpec, WrappingAlgorithm};
use crate::time::Timestamp;

/// What goes with wrapped material, and says which key unwraps it; opaque. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImportToken(pub String);

impl fmt::Debug for ImportToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} characters", self.0.chars().count())
    }
}

/// Makes a key pair by which material is wrapped on its way here, and the token that goes with it. What was made before for the same key
/// is worth nothing any more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetParametersForImportRequest {
    /// The key, by id or ARN; its origin is `EXTERNAL`.
    pub key_id: KeyRef,
    /// How the material will be wrapped.
    pub wrapping_algorithm: WrappingAlgorithm,
    /// What it will be wrapped by: `RSA_2048`, `RSA_3072` or `RSA_4096`.
    pub wrapping_key_spec: KeySpec,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetParametersForImport`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetParametersForImportReply<'a> {
    /// The key.
    pub key_id: CmkId,
    /// What goes with the wrapped material.
    pub import_token: ImportToken,
    /// What wraps it: SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
    #[serde(borrow)]
    pub public_key: Bin<'a>,
    /// Until when both are taken.
    pub token_expire_time: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Imports the material of a key whose origin is `EXTERNAL`: the bytes of a secret key, or PKCS #8 of a private one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ImportKeyMaterialRequest<'a> {
    /// The key, by id or ARN.
    pub key_id: KeyRef,
    /// The material, wrapped as `GetParametersForImport` was told.
    #[serde(borrow)]
    pub encrypted_key_material: Bin<'a>,
    /// The token of the key that wrapped it.
    pub import_token: ImportToken,
    /// When the material expires, in seconds since 1970; never if absent or zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_material_expire_unix: Option<u64>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ImportKeyMaterial`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImportKeyMaterialReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes the material of a key whose origin is `EXTERNAL`; the key waits for the same material to be imported again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteKeyMaterialRequest {
    /// The key, by id or ARN.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteKeyMaterial`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteKeyMaterialReply {
    /// The id of the request.
    pub request_id: RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_token_nor_material() {
        let request = ImportKeyMaterialRequest {
            key_id: KeyRef::Unknown,
            encrypted_key_material: Bin::from(&b"wrapped"[..]),
            import_token: ImportToken("secret".into()),
            key_material_expire_unix: None,
            timeout_ms: None,
        };
        let shown = format!("{request:?}");
        assert!(!shown.contains("secret") && shown.contains("7 bytes"), "{shown}");
        assert_eq!(serde_json::to_value(&request).unwrap()["ImportToken"], "secret");
    }
}
