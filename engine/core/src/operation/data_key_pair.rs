//! Data key pairs: made here, the public half given out, the private half as a data key is: in clear and encrypted, or encrypted alone.
//! `Decrypt` opens it.

use serde::{Deserialize, Serialize};

use super::Bin;
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CmkId, KeyRef, KeyVersionId, RequestId};
use crate::key::KeySpec;

/// How the halves of a data key pair are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyFormat {
    /// Text (RFC 7468): the private half as `PRIVATE KEY`, the public one as `PUBLIC KEY`.
    #[default]
    #[serde(rename = "PEM")]
    Pem,
    /// Bytes: PKCS #8 (RFC 5958), and SubjectPublicKeyInfo (RFC 5280, 4.1).
    #[serde(rename = "DER")]
    Der,
}

/// Checks that data key pairs of that kind are made.
///
/// # Errors
/// `InvalidParameter` for any other.
pub fn check_pair_spec(spec: KeySpec) -> Result<()> {
    use KeySpec::*;
    match spec {
        Rsa2048 | Rsa3072 | Rsa4096 | EcP256 | EcP256K | EcSm2 => Ok(()),
        other => {
            let why = format!("KeyPairSpec: no data key pairs of {} are made", other.name());
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

/// Makes a data key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateDataKeyPairRequest {
    /// Key id, ARN or alias of the symmetric CMK that the private half is encrypted under.
    pub key_id: KeyRef,
    /// `RSA_2048`, `RSA_3072`, `RSA_4096`, `EC_P256`, `EC_P256K` or `EC_SM2`.
    pub key_pair_spec: KeySpec,
    /// How the halves are written; `PEM` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_format: Option<KeyFormat>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GenerateDataKeyPair`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyPairReply<'a> {
    /// The private half in clear.
    #[serde(borrow)]
    pub private_key_plaintext: Bin<'a>,
    /// The private half, encrypted.
    #[serde(borrow)]
    pub private_key_ciphertext_blob: Bin<'a>,
    /// The public half.
    #[serde(borrow)]
    pub public_key: Bin<'a>,
    /// As asked for.
    pub key_pair_spec: KeySpec,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a data key pair and gives its private half out encrypted alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateDataKeyPairWithoutPlaintextRequest {
    /// Key id, ARN or alias of the symmetric CMK that the private half is encrypted under.
    pub key_id: KeyRef,
    /// `RSA_2048`, `RSA_3072`, `RSA_4096`, `EC_P256`, `EC_P256K` or `EC_SM2`.
    pub key_pair_spec: KeySpec,
    /// How the halves are written; `PEM` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_format: Option<KeyFormat>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GenerateDataKeyPairWithoutPlaintext`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyPairWithoutPlaintextReply<'a> {
    /// The private half, encrypted.
    #[serde(borrow)]
    pub private_key_ciphertext_blob: Bin<'a>,
    /// The public half.
    #[serde(borrow)]
    pub public_key: Bin<'a>,
    /// As asked for.
    pub key_pair_spec: KeySpec,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_made_of_the_kinds_that_are_documented() {
        let made: Vec<_> = KeySpec::ALL.into_iter().filter(|spec| check_pair_spec(*spec).is_ok()).collect();
        assert!(made.iter().all(|spec| spec.is_key_pair()) && made.len() == 6, "{made:?}");
        let error = check_pair_spec(KeySpec::Aes256).unwrap_err();
        assert!(error.message().contains("Aliyun_AES_256"), "{error}");
    }
}
