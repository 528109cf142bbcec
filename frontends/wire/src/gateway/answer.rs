//! From a reply of the catalogue to a gateway response.

use bytes::Bytes;
use keymill_core::blob::Blob;
use keymill_core::error::{Error, Result};
use keymill_core::operation::{AdvanceAlgorithm, Reply};
use prost::Message;

use super::ask::IV_BYTES;
use super::messages::*;
use super::{Api, Asked};

/// What a reply has to be answered as; taken from [`Asked`] before its request goes its way.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    api: Api,
    algorithm: &'static str,
    kind: &'static str,
}

impl Asked<'_> {
    /// Returns the form of its answer.
    pub fn form(&self) -> Form {
        Form { api: self.api, algorithm: self.algorithm, kind: self.kind }
    }
}

impl Form {
    /// Encodes the response that a reply makes.
    ///
    /// # Errors
    /// `Internal` for a reply of another operation.
    pub fn encode(self, reply: &Reply<'_>) -> Result<Vec<u8>> {
        let (algorithm, message_type) = (self.algorithm.to_owned(), self.kind.to_owned());
        Ok(match (self.api, reply) {
            (Api::Encrypt, Reply::AdvanceEncrypt(r)) => EncryptResponse {
                key_id: r.key_id.to_string(),
                ciphertext_blob: bytes(&r.ciphertext_blob),
                iv: iv(&r.iv),
                request_id: r.request_id.to_string(),
                algorithm: r.algorithm.name().to_owned(),
                padding_mode: r.padding_mode.clone().into_owned(),
            }
            .encode_to_vec(),
            (Api::Encrypt, Reply::AsymmetricEncrypt(r)) => EncryptResponse {
                key_id: r.key_id.to_string(),
                ciphertext_blob: bytes(&r.ciphertext_blob),
                request_id: r.request_id.to_string(),
                algorithm,
                ..EncryptResponse::default()
            }
            .encode_to_vec(),
            (Api::AdvanceEncrypt, Reply::AdvanceEncrypt(r)) => AdvanceEncryptResponse {
                key_id: r.key_id.to_string(),
                ciphertext_blob: bytes(&r.ciphertext_blob),
                iv: iv(&r.iv),
                request_id: r.request_id.to_string(),
                algorithm: r.algorithm.name().to_owned(),
                padding_mode: r.padding_mode.clone().into_owned(),
                key_version_id: r.key_version_id.to_string(),
            }
            .encode_to_vec(),
            (Api::KmsEncrypt, Reply::AdvanceEncrypt(r)) => KmsEncryptResponse {
                key_id: r.key_id.to_string(),
                ciphertext_blob: bytes(&r.ciphertext_blob),
                request_id: r.request_id.to_string(),
            }
            .encode_to_vec(),
            (Api::Decrypt, Reply::AdvanceDecrypt(r)) => DecryptResponse {
                key_id: r.key_id.to_string(),
                plaintext: bytes(&r.plaintext),
                request_id: r.request_id.to_string(),
                algorithm: r.algorithm.name().to_owned(),
                padding_mode: r.padding_mode.clone().into_owned(),
            }
            .encode_to_vec(),
            (Api::Decrypt, Reply::AsymmetricDecrypt(r)) => DecryptResponse {
                key_id: r.key_id.to_string(),
                plaintext: bytes(&r.plaintext),
                request_id: r.request_id.to_string(),
                algorithm,
                ..DecryptResponse::default()
            }
            .encode_to_vec(),
            (Api::AdvanceDecrypt, Reply::AdvanceDecrypt(r)) => AdvanceDecryptResponse {
                key_id: r.key_id.to_string(),
                plaintext: bytes(&r.plaintext),
                request_id: r.request_id.to_string(),
                algorithm: r.algorithm.name().to_owned(),
                padding_mode: r.padding_mode.clone().into_owned(),
                key_version_id: r.key_version_id.to_string(),
            }
            .encode_to_vec(),
            (Api::KmsDecrypt, Reply::AdvanceDecrypt(r)) => KmsDecryptResponse {
                key_id: r.key_id.to_string(),
                plaintext: bytes(&r.plaintext),
                request_id: r.request_id.to_string(),
            }
            .encode_to_vec(),
            (Api::GenerateDataKey, Reply::GenerateDataKey(r)) => {
                let (iv, algorithm) = sealed(&r.ciphertext_blob)?;
                GenerateDataKeyResponse {
                    key_id: r.key_id.to_string(),
                    iv,
                    plaintext: bytes(&r.plaintext),
                    ciphertext_blob: bytes(&r.ciphertext_blob),
                    request_id: r.request_id.to_string(),
                    algorithm,
                }
                .encode_to_vec()
            }
            (Api::AdvanceGenerateDataKey, Reply::GenerateDataKey(r)) => {
                let (iv, algorithm) = sealed(&r.ciphertext_blob)?;
                AdvanceGenerateDataKeyResponse {
                    key_id: r.key_id.to_string(),
                    iv,
                    plaintext: bytes(&r.plaintext),
                    ciphertext_blob: bytes(&r.ciphertext_blob),
                    request_id: r.request_id.to_string(),
                    algorithm,
                    key_version_id: r.key_version_id.to_string(),
                }
                .encode_to_vec()
            }
            (Api::GenerateDataKeyPair, Reply::GenerateDataKeyPair(r)) => {
                let (iv, algorithm) = sealed(&r.private_key_ciphertext_blob)?;
                GenerateDataKeyPairResponse {
                    key_id: r.key_id.to_string(),
                    iv,
                    key_pair_spec: r.key_pair_spec.name().to_owned(),
                    private_key_plaintext: bytes(&r.private_key_plaintext),
                    private_key_ciphertext_blob: bytes(&r.private_key_ciphertext_blob),
                    public_key: bytes(&r.public_key),
                    request_id: r.request_id.to_string(),
                    algorithm,
                }
                .encode_to_vec()
            }
            (Api::AdvanceGenerateDataKeyPair, Reply::GenerateDataKeyPair(r)) => {
                let (iv, algorithm) = sealed(&r.private_key_ciphertext_blob)?;
                AdvanceGenerateDataKeyPairResponse {
                    key_id: r.key_id.to_string(),
                    iv,
                    key_pair_spec: r.key_pair_spec.name().to_owned(),
                    private_key_plaintext: bytes(&r.private_key_plaintext),
                    private_key_ciphertext_blob: bytes(&r.private_key_ciphertext_blob),
                    public_key: bytes(&r.public_key),
                    request_id: r.request_id.to_string(),
                    algorithm,
                    key_version_id: r.key_version_id.to_string(),
                }
                .encode_to_vec()
            }
            (Api::GenerateDataKeyPairWithoutPlaintext, Reply::GenerateDataKeyPairWithoutPlaintext(r)) => {
                let (iv, algorithm) = sealed(&r.private_key_ciphertext_blob)?;
                GenerateDataKeyPairWithoutPlaintextResponse {
                    key_id: r.key_id.to_string(),
                    iv,
                    key_pair_spec: r.key_pair_spec.name().to_owned(),
                    private_key_ciphertext_blob: bytes(&r.private_key_ciphertext_blob),
                    public_key: bytes(&r.public_key),
                    request_id: r.request_id.to_string(),
                    algorithm,
                }
                .encode_to_vec()
            }
            (
                Api::AdvanceGenerateDataKeyPairWithoutPlaintext,
                Reply::GenerateDataKeyPairWithoutPlaintext(r),
            ) => {
                let (iv, algorithm) = sealed(&r.private_key_ciphertext_blob)?;
                AdvanceGenerateDataKeyPairWithoutPlaintextResponse {
                    key_id: r.key_id.to_string(),
                    iv,
                    key_pair_spec: r.key_pair_spec.name().to_owned(),
                    private_key_ciphertext_blob: bytes(&r.private_key_ciphertext_blob),
                    public_key: bytes(&r.public_key),
                    request_id: r.request_id.to_string(),
                    algorithm,
                    key_version_id: r.key_version_id.to_string(),
                }
                .encode_to_vec()
            }
            (Api::Sign, Reply::AsymmetricSign(r)) => SignResponse {
                key_id: r.key_id.to_string(),
                signature: bytes(&r.value),
                request_id: r.request_id.to_string(),
                algorithm,
                message_type,
            }
            .encode_to_vec(),
            (Api::Verify, Reply::AsymmetricVerify(r)) => VerifyResponse {
                key_id: r.key_id.to_string(),
                value: r.value,
                request_id: r.request_id.to_string(),
                algorithm,
                message_type,
            }
            .encode_to_vec(),
            (Api::Hmac, Reply::GenerateMac(r)) => HmacResponse {
                key_id: r.key_id.to_string(),
                signature: bytes(&r.mac),
                request_id: r.request_id.to_string(),
            }
            .encode_to_vec(),
            (Api::GetPublicKey, Reply::GetPublicKey(r)) => GetPublicKeyResponse {
                key_id: r.key_id.to_string(),
                public_key: r.public_key.clone(),
                request_id: r.request_id.to_string(),
            }
            .encode_to_vec(),
            (Api::GenerateRandom, Reply::GenerateRandom(r)) => {
                GenerateRandomResponse { random: bytes(&r.random), request_id: r.request_id.to_string() }
                    .encode_to_vec()
            }
            (Api::GetSecretValue, Reply::GetSecretValue(r)) => {
                let stages = &r.version_stages.version_stage;
                GetSecretValueResponse {
                    secret_name: r.secret_name.to_string(),
                    secret_type: r.secret_type.name().to_owned(),
                    secret_data: r.secret_data.expose().to_owned(),
                    secret_data_type: r.secret_data_type.name().to_owned(),
                    version_stages: stages.iter().map(ToString::to_string).collect(),
                    version_id: r.version_id.to_string(),
                    create_time: r.create_time.to_string(),
                    request_id: r.request_id.to_string(),
                    ..GetSecretValueResponse::default()
                }
                .encode_to_vec()
            }
            (api, reply) => {
                let why = format!("{} was answered by {}", api.name(), reply.operation().name());
                return Err(Error::internal(why));
            }
        })
    }
}

fn bytes(from: &[u8]) -> Bytes {
    Bytes::copy_from_slice(from)
}

/// Returns what the gateway calls the nonce: the last 12 bytes, which are those of GCM. What stands before them in a longer one chose the key.
fn iv(nonce: &[u8]) -> Bytes {
    bytes(&nonce[nonce.len().saturating_sub(IV_BYTES)..])
}

/// Returns the nonce of a ciphertext, and how it was made.
fn sealed(blob: &[u8]) -> Result<(Bytes, String)> {
    let blob =
        Blob::parse(blob).ok_or_else(|| Error::internal("what was sealed is no ciphertext of ours"))?;
    Ok((iv(blob.nonce), AdvanceAlgorithm::of(blob.header.algorithm).name().to_owned()))
}
