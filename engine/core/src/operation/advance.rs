//! The cloud's advanced forms of symmetric encryption: associated data as bytes, and an answer that tells how it was done. The blob is that
//! of `Encrypt`, and whole: `Aad` is the encryption context of the one pair `Aad`, its base64, so that `Decrypt` opens it under that, too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Bin;
use crate::blob::Algorithm;
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CmkId, KeyRef, KeyVersionId, RequestId};
use crate::key::KeySpec;

/// The key of the pair that stands for associated data.
const AAD: &str = "Aad";

/// How it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdvanceAlgorithm {
    /// AES-GCM, for AES keys.
    #[serde(rename = "AES_GCM")]
    AesGcm,
    /// SM4-GCM, for SM4 keys.
    #[serde(rename = "SM4_GCM")]
    Sm4Gcm,
    /// AES-CBC, which is not offered: it authenticates nothing.
    #[serde(rename = "AES_CBC")]
    AesCbc,
    /// AES-ECB, which is not offered: it shows which blocks are equal.
    #[serde(rename = "AES_ECB")]
    AesEcb,
}

impl AdvanceAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            AdvanceAlgorithm::AesGcm => "AES_GCM",
            AdvanceAlgorithm::Sm4Gcm => "SM4_GCM",
            AdvanceAlgorithm::AesCbc => "AES_CBC",
            AdvanceAlgorithm::AesEcb => "AES_ECB",
        }
    }

    /// Returns that of a blob.
    pub fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sm4Gcm => AdvanceAlgorithm::Sm4Gcm,
            Algorithm::Xaes256Gcm | Algorithm::Aes256Gcm | Algorithm::Aes192Gcm | Algorithm::Aes128Gcm => {
                AdvanceAlgorithm::AesGcm
            }
        }
    }

    /// Checks that keys of `spec` encrypt so.
    ///
    /// # Errors
    /// `Unsupported` for what no key does here, `InvalidParameter` for what another kind of key does.
    pub fn check(self, spec: KeySpec) -> Result<()> {
        let fits = match self {
            AdvanceAlgorithm::AesCbc | AdvanceAlgorithm::AesEcb => {
                let why =
                    "Algorithm: AES_CBC and AES_ECB do not authenticate what they encrypt; AES_GCM does";
                return Err(Error::new(ErrorKind::Unsupported, why));
            }
            AdvanceAlgorithm::AesGcm => matches!(spec, KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128),
            AdvanceAlgorithm::Sm4Gcm => spec == KeySpec::Sm4,
        };
        match fits {
            true => Ok(()),
            false => {
                let why = format!("Algorithm: a key of KeySpec {} does not encrypt so", spec.name());
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }
}

/// Returns the context that stands for associated data.
///
/// # Errors
/// `LimitExceeded` past what a context holds, about 6,100 bytes.
pub fn context_of_aad(aad: Option<&[u8]>) -> Result<Option<EncryptionContext>> {
    let aad = aad.filter(|aad| !aad.is_empty());
    aad.map(|aad| EncryptionContext::from_pairs([(AAD, &*STANDARD.encode(aad))])).transpose()
}

/// Checks what a caller may not choose: a nonce that comes twice under one key shows the difference of two plaintexts, and forges a third.
///
/// # Errors
/// `Unsupported` for an `Iv`, `InvalidParameter` for padding, which GCM has none of.
fn check_choices(iv: Option<&[u8]>, padding: Option<&str>) -> Result<()> {
    if iv.is_some_and(|iv| !iv.is_empty()) {
        let why = "Iv: it is drawn here, and stands in the ciphertext and in the answer";
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    match padding {
        None | Some("" | "NO_PADDING") => Ok(()),
        Some(_) => {
            let why = "PaddingMode: AES_GCM and SM4_GCM pad nothing";
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

/// Encrypts under the primary version of a symmetric CMK.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AdvanceEncryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Up to 6,144 bytes.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// `AES_GCM` of an AES key, `SM4_GCM` of an SM4 key; that of the key if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AdvanceAlgorithm>,
    /// Associated data: bytes that must be given again to decrypt.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<Bin<'a>>,
    /// Refused: it is drawn here.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub iv: Option<Bin<'a>>,
    /// `NO_PADDING`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_mode: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl AdvanceEncryptRequest<'_> {
    /// Checks what the caller may not choose.
    ///
    /// # Errors
    /// `Unsupported` for an `Iv`, `InvalidParameter` for padding.
    pub fn check(&self) -> Result<()> {
        check_choices(self.iv.as_deref(), self.padding_mode.as_deref())
    }
}

/// The reply of `AdvanceEncrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AdvanceEncryptReply<'a> {
    /// The ciphertext, whole: its key version, its nonce and its tag are in it.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// How it was done.
    pub algorithm: AdvanceAlgorithm,
    /// The nonce, of 12 bytes, or 24 of XAES-256-GCM.
    #[serde(borrow)]
    pub iv: Bin<'a>,
    /// `NO_PADDING`.
    pub padding_mode: std::borrow::Cow<'a, str>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Decrypts what `AdvanceEncrypt` encrypted, and `Encrypt` without a context (of the cloud's instance gateway).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AdvanceDecryptRequest<'a> {
    /// The ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that it must be under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// How it was encrypted; the ciphertext says so itself, and another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AdvanceAlgorithm>,
    /// The associated data that it was made with.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<Bin<'a>>,
    /// The nonce; the ciphertext has it itself, and another one is refused.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub iv: Option<Bin<'a>>,
    /// `NO_PADDING`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_mode: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl AdvanceDecryptRequest<'_> {
    /// Checks what the caller says of the ciphertext against what that says itself.
    ///
    /// # Errors
    /// `InvalidCiphertext` where they differ, `InvalidParameter` for padding.
    pub fn check(&self) -> Result<()> {
        check_choices(None, self.padding_mode.as_deref())?;
        let Some(blob) = crate::blob::Blob::parse(&self.ciphertext_blob) else { return Ok(()) };
        let is_other_iv = self.iv.as_deref().is_some_and(|iv| !iv.is_empty() && iv != blob.nonce);
        let own = AdvanceAlgorithm::of(blob.header.algorithm);
        match is_other_iv || self.algorithm.is_some_and(|algorithm| algorithm != own) {
            true => Err(Error::invalid_ciphertext()),
            false => Ok(()),
        }
    }
}

/// The reply of `AdvanceDecrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AdvanceDecryptReply<'a> {
    /// The plaintext.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// How it was encrypted.
    pub algorithm: AdvanceAlgorithm,
    /// `NO_PADDING`.
    pub padding_mode: std::borrow::Cow<'a, str>,
    /// The id of the request.
    pub request_id: RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn associated_data_is_a_context_and_none_is_none() {
        assert_eq!(context_of_aad(None).unwrap(), None);
        assert_eq!(context_of_aad(Some(b"")).unwrap(), None);
        let context = context_of_aad(Some(b"\x00\xff")).unwrap().unwrap();
        assert_eq!(context.pairs().collect::<Vec<_>>(), [("Aad", "AP8=")]);
        assert!(context_of_aad(Some(&[7; 6_100])).is_ok());
        let error = context_of_aad(Some(&[7; 6_200])).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::LimitExceeded(_)));
    }

    #[test]
    fn what_a_key_does_not_do_is_refused() {
        for (algorithm, spec, refused) in [
            (AdvanceAlgorithm::AesGcm, KeySpec::Aes192, None),
            (AdvanceAlgorithm::Sm4Gcm, KeySpec::Sm4, None),
            (AdvanceAlgorithm::AesGcm, KeySpec::Sm4, Some(ErrorKind::InvalidParameter)),
            (AdvanceAlgorithm::Sm4Gcm, KeySpec::Aes256, Some(ErrorKind::InvalidParameter)),
            (AdvanceAlgorithm::AesCbc, KeySpec::Aes256, Some(ErrorKind::Unsupported)),
            (AdvanceAlgorithm::AesEcb, KeySpec::Aes256, Some(ErrorKind::Unsupported)),
        ] {
            assert_eq!(algorithm.check(spec).err().map(|error| error.kind()), refused);
        }
        assert_eq!(check_choices(Some(&[0; 12]), None).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(
            check_choices(None, Some("PKCS7_PADDING")).unwrap_err().kind(),
            ErrorKind::InvalidParameter
        );
        check_choices(Some(b""), Some("NO_PADDING")).unwrap();
    }
}
