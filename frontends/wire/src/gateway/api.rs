//! The operations of the gateway that are here, and what their messages say.

use bytes::Bytes;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::KeyRef;
use keymill_core::operation::Operation;
use prost::Message;

use super::messages::*;

/// An operation of the gateway that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `Encrypt`
    Encrypt,
    /// `Decrypt`
    Decrypt,
    /// `AdvanceEncrypt`
    AdvanceEncrypt,
    /// `AdvanceDecrypt`
    AdvanceDecrypt,
    /// `KmsEncrypt`, which no published SDK calls
    KmsEncrypt,
    /// `KmsDecrypt`, which no published SDK calls
    KmsDecrypt,
    /// `GenerateDataKey`
    GenerateDataKey,
    /// `AdvanceGenerateDataKey`
    AdvanceGenerateDataKey,
    /// `GenerateDataKeyPair`
    GenerateDataKeyPair,
    /// `GenerateDataKeyPairWithoutPlaintext`
    GenerateDataKeyPairWithoutPlaintext,
    /// `AdvanceGenerateDataKeyPair`
    AdvanceGenerateDataKeyPair,
    /// `AdvanceGenerateDataKeyPairWithoutPlaintext`
    AdvanceGenerateDataKeyPairWithoutPlaintext,
    /// `Sign`
    Sign,
    /// `Verify`
    Verify,
    /// `Hmac`, which no published SDK calls
    Hmac,
    /// `GetPublicKey`
    GetPublicKey,
    /// `GenerateRandom`
    GenerateRandom,
    /// `GetSecretValue`
    GetSecretValue,
}

impl Api {
    /// Every operation.
    pub const ALL: [Api; 18] = [
        Api::Encrypt,
        Api::Decrypt,
        Api::AdvanceEncrypt,
        Api::AdvanceDecrypt,
        Api::KmsEncrypt,
        Api::KmsDecrypt,
        Api::GenerateDataKey,
        Api::AdvanceGenerateDataKey,
        Api::GenerateDataKeyPair,
        Api::GenerateDataKeyPairWithoutPlaintext,
        Api::AdvanceGenerateDataKeyPair,
        Api::AdvanceGenerateDataKeyPairWithoutPlaintext,
        Api::Sign,
        Api::Verify,
        Api::Hmac,
        Api::GetPublicKey,
        Api::GenerateRandom,
        Api::GetSecretValue,
    ];

    /// Returns the name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Api::Encrypt => "Encrypt",
            Api::Decrypt => "Decrypt",
            Api::AdvanceEncrypt => "AdvanceEncrypt",
            Api::AdvanceDecrypt => "AdvanceDecrypt",
            Api::KmsEncrypt => "KmsEncrypt",
            Api::KmsDecrypt => "KmsDecrypt",
            Api::GenerateDataKey => "GenerateDataKey",
            Api::AdvanceGenerateDataKey => "AdvanceGenerateDataKey",
            Api::GenerateDataKeyPair => "GenerateDataKeyPair",
            Api::GenerateDataKeyPairWithoutPlaintext => "GenerateDataKeyPairWithoutPlaintext",
            Api::AdvanceGenerateDataKeyPair => "AdvanceGenerateDataKeyPair",
            Api::AdvanceGenerateDataKeyPairWithoutPlaintext => "AdvanceGenerateDataKeyPairWithoutPlaintext",
            Api::Sign => "Sign",
            Api::Verify => "Verify",
            Api::Hmac => "Hmac",
            Api::GetPublicKey => "GetPublicKey",
            Api::GenerateRandom => "GenerateRandom",
            Api::GetSecretValue => "GetSecretValue",
        }
    }

    /// Finds the operation of a name.
    ///
    /// # Errors
    /// `Unsupported` for one of the gateway's that is not here, `OperationNotFound` for any other.
    pub fn by_name(name: &str) -> Result<Self> {
        if name == "Hash" {
            let why = "Hash: this server makes digests for nobody but itself";
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        let found = Api::ALL.into_iter().find(|api| api.name() == name);
        found.ok_or_else(|| {
            Error::new(ErrorKind::OperationNotFound, "the gateway has no operation of this name")
        })
    }

    /// Returns the operation of the catalogue that carries it out where nothing is known of the key.
    pub fn operation(self) -> Operation {
        match self {
            Api::Encrypt | Api::AdvanceEncrypt | Api::KmsEncrypt => Operation::AdvanceEncrypt,
            Api::Decrypt | Api::AdvanceDecrypt | Api::KmsDecrypt => Operation::AdvanceDecrypt,
            Api::GenerateDataKey | Api::AdvanceGenerateDataKey => Operation::GenerateDataKey,
            Api::GenerateDataKeyPair | Api::AdvanceGenerateDataKeyPair => Operation::GenerateDataKeyPair,
            Api::GenerateDataKeyPairWithoutPlaintext | Api::AdvanceGenerateDataKeyPairWithoutPlaintext => {
                Operation::GenerateDataKeyPairWithoutPlaintext
            }
            Api::Sign => Operation::AsymmetricSign,
            Api::Verify => Operation::AsymmetricVerify,
            Api::Hmac => Operation::GenerateMac,
            Api::GetPublicKey => Operation::GetPublicKey,
            Api::GenerateRandom => Operation::GenerateRandom,
            Api::GetSecretValue => Operation::GetSecretValue,
        }
    }

    /// Returns the rights of which one is needed to be told of a key what the request leaves out; none where it leaves out nothing.
    pub fn rights(self) -> &'static [Operation] {
        match self {
            Api::Encrypt => &[Operation::Encrypt, Operation::AsymmetricEncrypt],
            Api::Decrypt => &[Operation::Decrypt, Operation::AsymmetricDecrypt],
            Api::GenerateDataKey => &[Operation::GenerateDataKey],
            Api::GenerateDataKeyPair => &[Operation::GenerateDataKeyPair],
            Api::GenerateDataKeyPairWithoutPlaintext => &[Operation::GenerateDataKeyPairWithoutPlaintext],
            Api::Sign => &[Operation::AsymmetricSign],
            Api::Verify => &[Operation::AsymmetricVerify],
            Api::Hmac => &[Operation::GenerateMac],
            Api::GetPublicKey => &[Operation::GetPublicKey],
            Api::AdvanceEncrypt
            | Api::AdvanceDecrypt
            | Api::KmsEncrypt
            | Api::KmsDecrypt
            | Api::AdvanceGenerateDataKey
            | Api::AdvanceGenerateDataKeyPair
            | Api::AdvanceGenerateDataKeyPairWithoutPlaintext
            | Api::GenerateRandom
            | Api::GetSecretValue => &[],
        }
    }

    /// Reads the message of a request.
    ///
    /// # Errors
    /// `MalformedRequest` for a body that is none.
    pub fn decode(self, body: &Bytes) -> Result<Said> {
        let said = Said { api: self, ..Said::of(self) };
        Ok(match self {
            Api::Encrypt => {
                let m: EncryptRequest = message(body)?;
                let (key, algorithm, padding) = (m.key_id, m.algorithm, m.padding_mode);
                Said { key, data: m.plaintext, algorithm, aad: m.aad, iv: m.iv, padding, ..said }
            }
            Api::AdvanceEncrypt => {
                let m: AdvanceEncryptRequest = message(body)?;
                let (key, algorithm, padding) = (m.key_id, m.algorithm, m.padding_mode);
                Said { key, data: m.plaintext, algorithm, aad: m.aad, iv: m.iv, padding, ..said }
            }
            Api::KmsEncrypt => {
                let m: KmsEncryptRequest = message(body)?;
                Said { key: m.key_id, data: m.plaintext, aad: m.aad, ..said }
            }
            Api::Decrypt => {
                let m: DecryptRequest = message(body)?;
                let (key, algorithm, padding) = (m.key_id, m.algorithm, m.padding_mode);
                Said { key, data: m.ciphertext_blob, algorithm, aad: m.aad, iv: m.iv, padding, ..said }
            }
            Api::AdvanceDecrypt => {
                let m: AdvanceDecryptRequest = message(body)?;
                let (key, algorithm, padding) = (m.key_id, m.algorithm, m.padding_mode);
                Said { key, data: m.ciphertext_blob, algorithm, aad: m.aad, iv: m.iv, padding, ..said }
            }
            Api::KmsDecrypt => {
                let m: KmsDecryptRequest = message(body)?;
                Said { data: m.ciphertext_blob, aad: m.aad, ..said }
            }
            Api::GenerateDataKey => {
                let m: GenerateDataKeyRequest = message(body)?;
                Said { key: m.key_id, algorithm: m.algorithm, number: m.number_of_bytes, aad: m.aad, ..said }
            }
            Api::AdvanceGenerateDataKey => {
                let m: AdvanceGenerateDataKeyRequest = message(body)?;
                Said { key: m.key_id, number: m.number_of_bytes, aad: m.aad, ..said }
            }
            Api::GenerateDataKeyPair => {
                let m: GenerateDataKeyPairRequest = message(body)?;
                let (algorithm, spec, format) = (m.algorithm, m.key_pair_spec, m.key_format);
                Said { key: m.key_id, algorithm, spec, format, aad: m.aad, ..said }
            }
            Api::GenerateDataKeyPairWithoutPlaintext => {
                let m: GenerateDataKeyPairWithoutPlaintextRequest = message(body)?;
                let (algorithm, spec, format) = (m.algorithm, m.key_pair_spec, m.key_format);
                Said { key: m.key_id, algorithm, spec, format, aad: m.aad, ..said }
            }
            Api::AdvanceGenerateDataKeyPair => {
                let m: AdvanceGenerateDataKeyPairRequest = message(body)?;
                Said { key: m.key_id, spec: m.key_pair_spec, format: m.key_format, aad: m.aad, ..said }
            }
            Api::AdvanceGenerateDataKeyPairWithoutPlaintext => {
                let m: AdvanceGenerateDataKeyPairWithoutPlaintextRequest = message(body)?;
                Said { key: m.key_id, spec: m.key_pair_spec, format: m.key_format, aad: m.aad, ..said }
            }
            Api::Sign => {
                let m: SignRequest = message(body)?;
                let (key, algorithm, kind) = (m.key_id, m.algorithm, m.message_type);
                Said { key, data: m.message, digest: m.digest, algorithm, kind, ..said }
            }
            Api::Verify => {
                let m: VerifyRequest = message(body)?;
                let (key, algorithm, kind) = (m.key_id, m.algorithm, m.message_type);
                Said {
                    key,
                    data: m.message,
                    digest: m.digest,
                    signature: m.signature,
                    algorithm,
                    kind,
                    ..said
                }
            }
            Api::Hmac => {
                let m: HmacRequest = message(body)?;
                Said { key: m.key_id, data: m.message, ..said }
            }
            Api::GetPublicKey => Said { key: message::<GetPublicKeyRequest>(body)?.key_id, ..said },
            Api::GenerateRandom => Said { number: message::<GenerateRandomRequest>(body)?.length, ..said },
            Api::GetSecretValue => {
                // The extended configuration that may be asked for is none of generic secrets.
                let m: GetSecretValueRequest = message(body)?;
                Said { secret: m.secret_name, stage: m.version_stage, version: m.version_id, ..said }
            }
        })
    }
}

// The decoder's own message names fields as they are called in this program.
fn message<M: Message + Default>(body: &Bytes) -> Result<M> {
    M::decode(body.clone())
        .map_err(|_| Error::new(ErrorKind::MalformedRequest, "the body is not the message of this operation"))
}

/// What a request says. An empty field and an absent one are the same.
pub struct Said {
    pub(super) api: Api,
    pub(super) key: String,
    /// The plaintext, ciphertext or message.
    pub(super) data: Bytes,
    pub(super) digest: Bytes,
    pub(super) signature: Bytes,
    pub(super) aad: Bytes,
    pub(super) iv: Bytes,
    pub(super) algorithm: String,
    pub(super) padding: String,
    pub(super) kind: String,
    /// Of a data key pair.
    pub(super) spec: String,
    pub(super) format: String,
    pub(super) number: i32,
    /// The name of a secret, and a version or a stage of it.
    pub(super) secret: String,
    pub(super) version: String,
    pub(super) stage: String,
}

impl Said {
    pub(super) fn of(api: Api) -> Self {
        let (empty, none) = (Bytes::new, String::new);
        Self {
            api,
            key: none(),
            data: empty(),
            digest: empty(),
            signature: empty(),
            aad: empty(),
            iv: empty(),
            algorithm: none(),
            padding: none(),
            kind: none(),
            spec: none(),
            format: none(),
            number: 0,
            secret: none(),
            version: none(),
            stage: none(),
        }
    }

    /// Returns the operation.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Returns the key that it names, where it names one.
    pub fn key(&self) -> Option<KeyRef> {
        (!self.key.is_empty()).then(|| KeyRef::parse(&self.key))
    }
}
