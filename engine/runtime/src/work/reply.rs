//! The reply of a finished job as the catalogue has it, for frontends that encode values rather than frames: the items are
//! borrowed from the plain sheet that they were written to.

use std::ops::Deref;

use keymill_core::blob::{Algorithm, Blob};
use keymill_core::error::Error;
use keymill_core::id::{CertificateId, CmkId, KeyVersionId, SecretName};
use keymill_core::key::{KeySpec, SignAlgorithm, data_key_version_name};
use keymill_core::operation::*;

use super::{Finished, NamedDataKey, NamedSecret, NamedSecrets, OpenedSecret, Product};

/// What GCM pads.
const NO_PADDING: &str = "NO_PADDING";

/// A reply that is lent by what holds its bytes.
#[allow(clippy::large_enum_variant, reason = "it lives on the stack of who encodes it")]
pub enum Lent<'a> {
    /// Read from what is published, and kept whole.
    Whole(&'a Reply<'static>),
    /// Put together over the sheet.
    Over(Reply<'a>),
}

impl<'a> Deref for Lent<'a> {
    type Target = Reply<'a>;
    fn deref(&self) -> &Reply<'a> {
        match self {
            Lent::Whole(reply) => reply,
            Lent::Over(reply) => reply,
        }
    }
}

impl Finished {
    /// Returns the reply, its byte fields lent from the sheet, which must be a plain one.
    ///
    /// # Errors
    /// The error of the request.
    pub fn reply(&self) -> Result<Lent<'_>, &Error> {
        let reply = match self.result.as_ref()? {
            Product::Reply(reply) => return Ok(Lent::Whole(reply)),
            Product::Made { key, version, errors, .. } => self.made(*key, *version, errors),
            Product::Opened { data_key: Some(data_key), .. } => self.data_key(data_key),
            Product::Opened { secret: Some(secret), .. } => self.secret(secret),
            Product::Opened { secrets: Some(secrets), .. } => self.secrets(secrets),
            Product::Opened { keys, algorithm: Some(algorithm), .. }
                if self.operation() == Operation::AdvanceDecrypt =>
            {
                self.opened_advance(keys[0], *algorithm)
            }
            Product::Opened { keys, index, errors, .. } => self.opened(keys, index, errors),
        };
        Ok(Lent::Over(reply))
    }

    fn made(&self, key_id: CmkId, key_version_id: KeyVersionId, errors: &[ItemError]) -> Reply<'_> {
        let request_id = self.call.request_id;
        match self.operation() {
            Operation::Encrypt => Reply::Encrypt(EncryptReply {
                ciphertext_blob: self.place(0),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::ReEncrypt => Reply::ReEncrypt(ReEncryptReply {
                ciphertext_blob: self.place(0),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::AdvanceEncrypt => {
                let made = self.sheet.item(0).and_then(Blob::parse).expect("what was sealed is a blob");
                Reply::AdvanceEncrypt(AdvanceEncryptReply {
                    ciphertext_blob: self.place(0),
                    key_id,
                    key_version_id,
                    algorithm: AdvanceAlgorithm::of(made.header.algorithm),
                    iv: made.nonce.into(),
                    padding_mode: NO_PADDING.into(),
                    request_id,
                })
            }
            Operation::GenerateDataKey => Reply::GenerateDataKey(GenerateDataKeyReply {
                ciphertext_blob: self.place(0),
                plaintext: self.place(1),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::GenerateDataKeyWithoutPlaintext => {
                Reply::GenerateDataKeyWithoutPlaintext(GenerateDataKeyWithoutPlaintextReply {
                    ciphertext_blob: self.place(0),
                    key_id,
                    key_version_id,
                    request_id,
                })
            }
            Operation::GenerateDataKeyPair => Reply::GenerateDataKeyPair(GenerateDataKeyPairReply {
                private_key_ciphertext_blob: self.place(0),
                private_key_plaintext: self.place(1),
                public_key: self.place(2),
                key_pair_spec: self.pair(),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::GenerateDataKeyPairWithoutPlaintext => {
                Reply::GenerateDataKeyPairWithoutPlaintext(GenerateDataKeyPairWithoutPlaintextReply {
                    private_key_ciphertext_blob: self.place(0),
                    public_key: self.place(1),
                    key_pair_spec: self.pair(),
                    key_id,
                    key_version_id,
                    request_id,
                })
            }
            Operation::GenerateAndExportDataKey => {
                Reply::GenerateAndExportDataKey(GenerateAndExportDataKeyReply {
                    ciphertext_blob: self.place(0),
                    exported_data_key: self.place(1),
                    key_id,
                    key_version_id,
                    request_id,
                })
            }
            Operation::BatchEncrypt => Reply::BatchEncrypt(BatchEncryptReply {
                items: self.items(),
                errors: errors.to_vec(),
                key_id,
                key_version_id,
            }),
            Operation::BatchReEncrypt => Reply::BatchReEncrypt(BatchReEncryptReply {
                items: self.items(),
                errors: errors.to_vec(),
                key_id,
                key_version_id,
            }),
            Operation::BatchGenerateDataKey => Reply::BatchGenerateDataKey(BatchGenerateDataKeyReply {
                items: self.pairs(),
                errors: errors.to_vec(),
                key_id,
                key_version_id,
            }),
            other => self.computed(other, key_id, key_version_id, errors),
        }
    }

    /// Returns the reply of what was computed with a key pair, or a key of MACs.
    fn computed(
        &self,
        operation: Operation,
        key_id: CmkId,
        key_version_id: KeyVersionId,
        errors: &[ItemError],
    ) -> Reply<'_> {
        let request_id = self.call.request_id;
        let errors = errors.to_vec();
        match operation {
            Operation::AsymmetricSign => Reply::AsymmetricSign(AsymmetricSignReply {
                value: self.place(0),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::AsymmetricVerify => Reply::AsymmetricVerify(AsymmetricVerifyReply {
                value: self.is_true(0),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::AsymmetricEncrypt => Reply::AsymmetricEncrypt(AsymmetricEncryptReply {
                ciphertext_blob: self.place(0),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::AsymmetricDecrypt => Reply::AsymmetricDecrypt(AsymmetricDecryptReply {
                plaintext: self.place(0),
                key_id,
                key_version_id,
                request_id,
            }),
            Operation::CertificatePrivateKeySign => {
                Reply::CertificatePrivateKeySign(CertificatePrivateKeySignReply {
                    certificate_id: self.certificate(),
                    signature_value: self.place(0),
                    request_id,
                })
            }
            Operation::CertificatePublicKeyVerify => {
                Reply::CertificatePublicKeyVerify(CertificatePublicKeyVerifyReply {
                    certificate_id: self.certificate(),
                    signature_valid: self.is_true(0),
                    request_id,
                })
            }
            Operation::CertificatePublicKeyEncrypt => {
                Reply::CertificatePublicKeyEncrypt(CertificatePublicKeyEncryptReply {
                    certificate_id: self.certificate(),
                    ciphertext_blob: self.place(0),
                    request_id,
                })
            }
            Operation::CertificatePrivateKeyDecrypt => {
                Reply::CertificatePrivateKeyDecrypt(CertificatePrivateKeyDecryptReply {
                    certificate_id: self.certificate(),
                    plaintext: self.place(0),
                    request_id,
                })
            }
            Operation::GenerateMac => {
                let (mac, algorithm) = (self.place(0), self.mac());
                Reply::GenerateMac(GenerateMacReply { mac, algorithm, key_id, request_id })
            }
            Operation::VerifyMac => {
                let (value, algorithm) = (self.is_true(0), self.mac());
                Reply::VerifyMac(VerifyMacReply { value, algorithm, key_id, request_id })
            }
            Operation::BatchSign => {
                Reply::BatchSign(BatchSignReply { items: self.items(), errors, key_id, key_version_id })
            }
            Operation::BatchVerify => {
                Reply::BatchVerify(BatchVerifyReply { valid: self.truths(), errors, key_id, key_version_id })
            }
            Operation::BatchAsymmetricEncrypt => {
                let items = self.items();
                Reply::BatchAsymmetricEncrypt(BatchAsymmetricEncryptReply {
                    items,
                    errors,
                    key_id,
                    key_version_id,
                })
            }
            Operation::BatchAsymmetricDecrypt => {
                let items = self.items();
                Reply::BatchAsymmetricDecrypt(BatchAsymmetricDecryptReply {
                    items,
                    errors,
                    key_id,
                    key_version_id,
                })
            }
            Operation::BatchGenerateMac => {
                Reply::BatchGenerateMac(BatchGenerateMacReply { items: self.items(), errors, key_id })
            }
            Operation::BatchVerifyMac => {
                Reply::BatchVerifyMac(BatchVerifyMacReply { valid: self.truths(), errors, key_id })
            }
            other => unreachable!("{} makes nothing", other.name()),
        }
    }

    fn opened(
        &self,
        keys: &[(CmkId, KeyVersionId)],
        index: &[Option<u32>],
        errors: &[ItemError],
    ) -> Reply<'_> {
        match self.operation() {
            Operation::Decrypt => {
                let (key_id, key_version_id) = keys[0];
                let request_id = self.call.request_id;
                Reply::Decrypt(DecryptReply { plaintext: self.place(0), key_id, key_version_id, request_id })
            }
            Operation::ExportDataKey => {
                let (key_id, key_version_id) = keys[0];
                let request_id = self.call.request_id;
                let exported_data_key = self.place(0);
                Reply::ExportDataKey(ExportDataKeyReply {
                    exported_data_key,
                    key_id,
                    key_version_id,
                    request_id,
                })
            }
            Operation::BatchDecrypt => Reply::BatchDecrypt(BatchDecryptReply {
                items: self.items(),
                errors: errors.to_vec(),
                key_ids: keys.iter().map(|(id, _)| *id).collect(),
                key_index: index.to_vec(),
            }),
            other => unreachable!("{} opens nothing", other.name()),
        }
    }

    fn opened_advance(
        &self,
        (key_id, key_version_id): (CmkId, KeyVersionId),
        algorithm: Algorithm,
    ) -> Reply<'_> {
        Reply::AdvanceDecrypt(AdvanceDecryptReply {
            plaintext: self.place(0),
            key_id,
            key_version_id,
            algorithm: AdvanceAlgorithm::of(algorithm),
            padding_mode: NO_PADDING.into(),
            request_id: self.call.request_id,
        })
    }

    fn data_key(&self, NamedDataKey { name, version }: &NamedDataKey) -> Reply<'_> {
        Reply::GetManagedDataKey(GetManagedDataKeyReply {
            data_key_name: name.clone(),
            data_key_version_id: *version,
            data_key_version_name: data_key_version_name(name, version),
            plaintext: self.place(0),
            request_id: self.call.request_id,
        })
    }

    fn secret(&self, named: &NamedSecret) -> Reply<'_> {
        let opened = named.opened.as_ref().expect("what was opened is of a version");
        Reply::GetSecretValue(self.value_of_secret(0, &named.touch.name, opened))
    }

    fn secrets(&self, named: &NamedSecrets) -> Reply<'_> {
        let request_id = self.call.request_id;
        let (mut secret_values, mut errors) = (Vec::with_capacity(named.asked.len()), Vec::new());
        for (i, asked) in named.asked.iter().enumerate() {
            match asked.outcome() {
                Ok(opened) => secret_values.push(self.value_of_secret(i, &asked.name, opened)),
                Err(fault) => errors.push(fault),
            }
        }
        match self.operation() {
            Operation::ExportSecrets => {
                Reply::ExportSecrets(ExportSecretsReply { secret_values, errors, request_id })
            }
            _ => Reply::BatchGetSecretValue(BatchGetSecretValueReply { secret_values, errors, request_id }),
        }
    }

    fn value_of_secret(&self, i: usize, name: &SecretName, opened: &OpenedSecret) -> GetSecretValueReply<'_> {
        let OpenedSecret { version, secret_type, rotation, fetch_extended } = opened;
        let rotation = rotation.as_ref();
        let value = self.sheet.item(i).expect("what opened without an error has its item");
        let value = std::str::from_utf8(value).expect("what is sealed as the value of a secret is text");
        GetSecretValueReply {
            secret_name: name.clone(),
            secret_type: *secret_type,
            secret_data: SecretText::from(value),
            secret_data_type: version.data_type,
            version_id: version.id.clone(),
            version_stages: VersionStageList { version_stage: version.stages.clone() },
            create_time: version.created_at,
            automatic_rotation: rotation.map(|told| told.automatic),
            rotation_interval: rotation.and_then(|told| told.interval),
            next_rotation_date: rotation.and_then(|told| told.next_at),
            last_rotation_date: rotation.and_then(|told| told.last_at),
            extended_config: rotation.filter(|_| *fetch_extended).map(|told| told.extended.clone()),
            request_id: self.call.request_id,
        }
    }

    fn operation(&self) -> Operation {
        self.operation.expect("what was sealed or opened was an operation of ours")
    }

    fn place(&self, i: usize) -> Bin<'_> {
        self.sheet.item(i).expect("a single operation without an error has its item").into()
    }

    fn items(&self) -> Vec<Option<Bin<'_>>> {
        self.sheet.items().map(|item| item.map(Bin::from)).collect()
    }

    /// Returns how MACs were computed.
    fn mac(&self) -> SignAlgorithm {
        match &self.result {
            Ok(Product::Made { mac: Some(algorithm), .. }) => *algorithm,
            _ => unreachable!("a MAC has its algorithm"),
        }
    }

    /// Returns the certificate whose key it was.
    fn certificate(&self) -> CertificateId {
        match &self.result {
            Ok(Product::Made { certificate: Some(id), .. }) => *id,
            _ => unreachable!("the key of a certificate names it"),
        }
    }

    /// Returns of which kind the data key pair is.
    fn pair(&self) -> KeySpec {
        match &self.result {
            Ok(Product::Made { pair: Some(spec), .. }) => *spec,
            _ => unreachable!("a data key pair has its kind"),
        }
    }

    fn truths(&self) -> Vec<Option<bool>> {
        self.sheet.items().map(|item| item.map(|truth| truth == [1])).collect()
    }

    fn is_true(&self, i: usize) -> bool {
        self.sheet.item(i) == Some(&[1])
    }

    /// Joins the two places of each data key: ciphertext, and plaintext or nothing.
    fn pairs(&self) -> Vec<Option<(Bin<'_>, Option<Bin<'_>>)>> {
        let mut places = self.sheet.items();
        let mut pairs = Vec::with_capacity(places.len() / 2);
        while let Some(ciphertext) = places.next() {
            let plaintext = places.next().flatten();
            pairs.push(ciphertext.map(|ciphertext| (ciphertext.into(), plaintext.map(Bin::from))));
        }
        pairs
    }
}
