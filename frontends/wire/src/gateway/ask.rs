//! From a gateway request to one of the catalogue. What a request leaves out is filled in by what is known of its key; of a key that the caller
//! may not use nothing is known, and the request is then refused as one for a key that does not exist.

use bytes::Bytes;
use keymill_core::blob::Blob;
use keymill_core::context::EncryptionContext;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{KeyRef, KeyVersionId};
use keymill_core::key::{DecryptAlgorithm, KeySketch, KeySpec, SignAlgorithm};
use keymill_core::operation::{self, AdvanceAlgorithm, Bin, KeyFormat, Request, context_of_aad};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as Unknown, StrDeserializer};

use super::{Api, Said};

/// Bytes of the nonce that the gateway speaks of: that of GCM.
pub(super) const IV_BYTES: usize = 12;

/// A request of the catalogue, and what the answer repeats of the one that it stands for.
#[derive(Debug)]
pub struct Asked<'s> {
    /// The request.
    pub request: Request<'s>,
    /// Which operation of the gateway it is.
    pub(super) api: Api,
    /// How it is done, where the reply does not tell.
    pub(super) algorithm: &'static str,
    /// What was signed.
    pub(super) kind: &'static str,
}

/// How something is encrypted.
enum Way {
    Symmetric(Option<AdvanceAlgorithm>),
    Pair(DecryptAlgorithm),
}

impl Said {
    /// Makes a request of the catalogue; `known` is what is known of its key.
    ///
    /// # Errors
    /// `MissingParameter`, `InvalidParameter` or `Unsupported`, naming the field and never its value.
    pub fn ask(&self, known: Option<&KeySketch>) -> Result<Asked<'_>> {
        match self.api {
            Api::Encrypt => self.encrypt(self.way(known)?, known),
            Api::AdvanceEncrypt => self.encrypt(self.way(None)?, None),
            Api::KmsEncrypt => self.encrypt(Way::Symmetric(None), None),
            Api::Decrypt => self.decrypt(self.way(known)?, known),
            Api::AdvanceDecrypt => self.decrypt(self.way(None)?, None),
            Api::KmsDecrypt => self.decrypt(Way::Symmetric(None), None),
            Api::GenerateDataKey | Api::AdvanceGenerateDataKey => self.data_key(known),
            Api::GenerateDataKeyPair | Api::AdvanceGenerateDataKeyPair => {
                self.check_sealing(known)?;
                let (key_pair_spec, key_format) = self.pair()?;
                Ok(self.asked(operation::GenerateDataKeyPairRequest {
                    key_id: self.needed_key()?,
                    key_pair_spec,
                    key_format,
                    encryption_context: context_of_aad(Some(&self.aad))?,
                    timeout_ms: None,
                }))
            }
            Api::GenerateDataKeyPairWithoutPlaintext | Api::AdvanceGenerateDataKeyPairWithoutPlaintext => {
                self.check_sealing(known)?;
                let (key_pair_spec, key_format) = self.pair()?;
                Ok(self.asked(operation::GenerateDataKeyPairWithoutPlaintextRequest {
                    key_id: self.needed_key()?,
                    key_pair_spec,
                    key_format,
                    encryption_context: context_of_aad(Some(&self.aad))?,
                    timeout_ms: None,
                }))
            }
            Api::Sign => self.sign(known),
            Api::Verify => self.verify(known),
            Api::Hmac => {
                let algorithm = self.signs(known, SignAlgorithm::HmacSha256)?;
                let (key_id, message) = (self.needed_key()?, self.data());
                let request = operation::GenerateMacRequest { key_id, algorithm, message, timeout_ms: None };
                Ok(self.asked(request))
            }
            Api::GetPublicKey => {
                let (key_id, key_version_id) = (self.needed_key()?, version(known));
                Ok(self.asked(operation::GetPublicKeyRequest { key_id, key_version_id, timeout_ms: None }))
            }
            Api::GenerateRandom => {
                let length = self.number("Length")?.unwrap_or(0);
                Ok(self.asked(operation::GenerateRandomRequest { length, timeout_ms: None }))
            }
            Api::GetSecretValue => {
                if self.secret.is_empty() {
                    let why = "SecretName: the parameter is missing";
                    return Err(Error::new(ErrorKind::MissingParameter, why));
                }
                Ok(self.asked(operation::GetSecretValueRequest {
                    secret_name: parsed("SecretName", &self.secret)?,
                    version_id: optional("VersionId", &self.version)?,
                    version_stage: optional("VersionStage", &self.stage)?,
                    fetch_extended_config: None,
                    timeout_ms: None,
                }))
            }
        }
    }

    /// Returns the encryption context that it is to be done under, where what it says is one.
    pub fn context(&self) -> Option<EncryptionContext> {
        context_of_aad(Some(&self.aad)).ok().flatten()
    }

    fn encrypt(&self, way: Way, known: Option<&KeySketch>) -> Result<Asked<'_>> {
        let (key_id, plaintext, timeout_ms) = (self.needed_key()?, self.data(), None);
        match way {
            Way::Symmetric(algorithm) => {
                let (aad, iv, padding_mode) = (some(&self.aad), some(&self.iv), self.padding());
                Ok(self.asked(operation::AdvanceEncryptRequest {
                    key_id,
                    plaintext,
                    algorithm,
                    aad,
                    iv,
                    padding_mode,
                    timeout_ms,
                }))
            }
            Way::Pair(algorithm) => {
                self.check_bare()?;
                let key_version_id = version(known);
                let request = operation::AsymmetricEncryptRequest {
                    key_id,
                    key_version_id,
                    algorithm,
                    plaintext,
                    timeout_ms,
                };
                Ok(Asked { algorithm: algorithm.name(), ..self.asked(request) })
            }
        }
    }

    fn decrypt(&self, way: Way, known: Option<&KeySketch>) -> Result<Asked<'_>> {
        let (ciphertext_blob, timeout_ms) = (self.data(), None);
        match way {
            Way::Symmetric(algorithm) => {
                let (key_id, aad, padding_mode) = (self.key(), some(&self.aad), self.padding());
                Ok(self.asked(operation::AdvanceDecryptRequest {
                    ciphertext_blob,
                    key_id,
                    algorithm,
                    aad,
                    iv: self.whole_iv(),
                    padding_mode,
                    timeout_ms,
                }))
            }
            Way::Pair(algorithm) => {
                self.check_bare()?;
                let (key_id, key_version_id) = (self.needed_key()?, version(known));
                let request = operation::AsymmetricDecryptRequest {
                    key_id,
                    key_version_id,
                    algorithm,
                    ciphertext_blob,
                    timeout_ms,
                };
                Ok(Asked { algorithm: algorithm.name(), ..self.asked(request) })
            }
        }
    }

    fn data_key(&self, known: Option<&KeySketch>) -> Result<Asked<'_>> {
        self.check_sealing(known)?;
        Ok(self.asked(operation::GenerateDataKeyRequest {
            key_id: self.needed_key()?,
            key_spec: None,
            number_of_bytes: self.number("NumberOfBytes")?,
            encryption_context: context_of_aad(Some(&self.aad))?,
            timeout_ms: None,
        }))
    }

    /// Checks that a data key can be sealed as the request says.
    fn check_sealing(&self, known: Option<&KeySketch>) -> Result<()> {
        const WHY: &str = "Algorithm: data keys are sealed by AES_GCM or SM4_GCM";
        match (self.way(None)?, known) {
            (Way::Pair(_), _) => Err(invalid(WHY)),
            (Way::Symmetric(Some(AdvanceAlgorithm::AesCbc | AdvanceAlgorithm::AesEcb)), _) => {
                Err(Error::new(ErrorKind::Unsupported, WHY))
            }
            (Way::Symmetric(Some(algorithm)), Some(known)) => algorithm.check(known.spec),
            (Way::Symmetric(_), _) => Ok(()),
        }
    }

    /// Returns the kind of a data key pair, and how it is written.
    fn pair(&self) -> Result<(KeySpec, Option<KeyFormat>)> {
        if self.spec.is_empty() {
            return Err(Error::new(ErrorKind::MissingParameter, "KeyPairSpec: the parameter is missing"));
        }
        let spec =
            named(&self.spec).ok_or_else(|| invalid("KeyPairSpec: there are no key pairs of this kind"))?;
        let format = match self.format.is_empty() {
            true => None,
            false => Some(named(&self.format).ok_or_else(|| invalid("KeyFormat: expected PEM or DER"))?),
        };
        Ok((spec, format))
    }

    fn sign(&self, known: Option<&KeySketch>) -> Result<Asked<'_>> {
        let algorithm = self.signs(known, SignAlgorithm::RsaPssSha256)?;
        let (digest, message, kind) = self.signed()?;
        let request = operation::AsymmetricSignRequest {
            key_id: self.needed_key()?,
            key_version_id: version(known),
            algorithm,
            digest,
            message,
            timeout_ms: None,
        };
        Ok(Asked { algorithm: algorithm.name(), kind, ..self.asked(request) })
    }

    fn verify(&self, known: Option<&KeySketch>) -> Result<Asked<'_>> {
        let algorithm = self.signs(known, SignAlgorithm::RsaPssSha256)?;
        let (digest, message, kind) = self.signed()?;
        let request = operation::AsymmetricVerifyRequest {
            key_id: self.needed_key()?,
            key_version_id: version(known),
            algorithm,
            digest,
            message,
            value: Bin::from(&self.signature[..]),
            timeout_ms: None,
        };
        Ok(Asked { algorithm: algorithm.name(), kind, ..self.asked(request) })
    }

    fn asked<'s>(&self, request: impl Into<Request<'s>>) -> Asked<'s> {
        Asked { request: request.into(), api: self.api, algorithm: "", kind: "" }
    }

    /// Returns how it is encrypted: as the request says, and else as the key is made for.
    fn way(&self, known: Option<&KeySketch>) -> Result<Way> {
        match &*self.algorithm {
            "" => {
                let own = known.and_then(|known| known.spec.decryptions().first());
                Ok(own.map_or(Way::Symmetric(None), |algorithm| Way::Pair(*algorithm)))
            }
            "ECIES_DH_SHA_1_XOR_HMAC" => {
                let why = "Algorithm: keys on curves other than SM2 do not encrypt here";
                Err(Error::new(ErrorKind::Unsupported, why))
            }
            other => match (named(other), named(other)) {
                (Some(algorithm), _) => Ok(Way::Symmetric(Some(algorithm))),
                (None, Some(algorithm)) => Ok(Way::Pair(algorithm)),
                (None, None) => Err(invalid("Algorithm: nothing is encrypted so")),
            },
        }
    }

    /// Returns how it is signed: as the request says, and else as the key is made for.
    fn signs(&self, known: Option<&KeySketch>, else_by: SignAlgorithm) -> Result<SignAlgorithm> {
        match &*self.algorithm {
            "" => Ok(known.and_then(|known| known.spec.signatures().first().copied()).unwrap_or(else_by)),
            other => named(other).ok_or_else(|| invalid("Algorithm: nothing is signed so")),
        }
    }

    /// Returns the digest or the message that is signed, and which of them it is.
    #[allow(clippy::type_complexity, reason = "private, and taken apart where it is returned to")]
    fn signed(&self) -> Result<(Option<Bin<'_>>, Option<Bin<'_>>, &'static str)> {
        match (&*self.kind, self.digest.is_empty(), self.data.is_empty()) {
            (_, false, false) => Err(invalid("Digest and Message exclude each other")),
            ("" | "DIGEST", false, true) => Ok((some(&self.digest), None, "DIGEST")),
            ("RAW", false, true) => Err(invalid("MessageType: Digest is no message")),
            ("DIGEST", true, false) => Ok((some(&self.data), None, "DIGEST")),
            ("" | "RAW", true, false) => Ok((None, some(&self.data), "RAW")),
            ("" | "RAW" | "DIGEST", true, true) => {
                Err(Error::new(ErrorKind::MissingParameter, "Message: the parameter is missing"))
            }
            _ => Err(invalid("MessageType: expected RAW or DIGEST")),
        }
    }

    fn needed_key(&self) -> Result<KeyRef> {
        self.key().ok_or_else(|| Error::new(ErrorKind::MissingParameter, "KeyId: the parameter is missing"))
    }

    fn data(&self) -> Bin<'_> {
        Bin::from(&self.data[..])
    }

    fn padding(&self) -> Option<String> {
        (!self.padding.is_empty()).then(|| self.padding.clone())
    }

    fn number(&self, name: &str) -> Result<Option<u32>> {
        match u32::try_from(self.number) {
            Ok(0) => Ok(None),
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(format!("{name} is not negative"))),
        }
    }

    /// Returns the nonce that the ciphertext is to have. The gateway speaks of the 12 bytes of GCM, which are the last ones of a longer nonce.
    fn whole_iv(&self) -> Option<Bin<'_>> {
        let own = Blob::parse(&self.data).map(|blob| blob.nonce);
        match own {
            Some(nonce) if self.iv.len() == IV_BYTES && nonce.ends_with(&self.iv) => Some(Bin::from(nonce)),
            _ => some(&self.iv),
        }
    }

    /// Checks that nothing is given that bare ciphertexts have no place for.
    fn check_bare(&self) -> Result<()> {
        for (name, is_empty) in [
            ("Aad", self.aad.is_empty()),
            ("Iv", self.iv.is_empty()),
            ("PaddingMode", self.padding.is_empty()),
        ] {
            if !is_empty {
                return Err(invalid(format!("{name}: a key pair takes none")));
            }
        }
        Ok(())
    }
}

/// Reads a name that was given.
fn parsed<T: std::str::FromStr<Err = Error>>(field: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: Error| invalid(format!("{field}: {}", error.message())))
}

/// Reads a name, where one was given.
fn optional<T: std::str::FromStr<Err = Error>>(field: &str, text: &str) -> Result<Option<T>> {
    (!text.is_empty()).then(|| parsed(field, text)).transpose()
}

fn version(known: Option<&KeySketch>) -> KeyVersionId {
    // No key has this one; the key is not found before its version is.
    known.map_or(KeyVersionId::from_bytes([0; 16]), |known| known.first_version)
}

fn some(bytes: &Bytes) -> Option<Bin<'_>> {
    (!bytes.is_empty()).then(|| Bin::from(&bytes[..]))
}

/// Reads a value by the name that the API has for it.
fn named<'t, T: Deserialize<'t>>(text: &'t str) -> Option<T> {
    let text: StrDeserializer<'t, Unknown> = text.into_deserializer();
    T::deserialize(text).ok()
}

fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidParameter, why)
}

#[cfg(test)]
mod tests;
