//! A caller: a connection with a method an operation, so that a test reads as what it does. A refusal is a value, anything else
//! that goes wrong ends the test.

use std::time::Duration;

use keymill_client::{ClientError, Connection, Credentials, Options, ServerError};
use keymill_core::access::{AccessKeyStatus, Grant};
use keymill_core::context::EncryptionContext;
use keymill_core::id::{AccessKeyId, CmkId, KeyRef, KeyVersionId};
use keymill_core::key::{BulkMode, Fallback, KeySpec, KeyStorageMechanism, ProtectionLevel};
use keymill_core::operation::*;
use keymill_harness::Live;

use crate::twin::Twin;

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a caller is answered.
pub type Answered<T> = Result<T, ServerError>;

/// The results of a batch: `None` where an item failed.
pub type Items = Vec<Option<Vec<u8>>>;

/// A connection with a method an operation.
pub struct Caller {
    /// The connection, for what has no method here.
    pub connection: Connection,
    /// Who asks the same of the instance beside, where there is one.
    twin: Option<Twin>,
}

/// What names a key.
pub trait Named {
    /// Returns the name as a request has it.
    fn key_ref(&self) -> KeyRef;
}

impl Named for CmkId {
    fn key_ref(&self) -> KeyRef {
        KeyRef::Id(*self)
    }
}

impl Named for KeyRef {
    fn key_ref(&self) -> KeyRef {
        self.clone()
    }
}

impl Named for &str {
    fn key_ref(&self) -> KeyRef {
        KeyRef::parse(self)
    }
}

/// What `BatchDecrypt` answers.
#[derive(Debug)]
pub struct Opened {
    /// The plaintexts.
    pub items: Items,
    /// The items that failed.
    pub errors: Vec<ItemError>,
    /// The keys that did it.
    pub keys: Vec<CmkId>,
}

/// Makes a context; of no pairs, none.
pub fn context(pairs: &[(&str, &str)]) -> Option<EncryptionContext> {
    let made = || EncryptionContext::from_pairs(pairs.iter().copied()).expect("the test's context is valid");
    (!pairs.is_empty()).then(made)
}

/// Builds a request of a key alone, and takes nothing of its reply.
macro_rules! of_key {
    ($($(#[$doc:meta])* $method:ident: $request:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $method(&mut self, key: impl Named) -> Answered<()> {
                self.ask($request { key_id: key.key_ref(), timeout_ms: None }, |_| ())
            }
        )*
    };
}

impl Caller {
    /// Logs in.
    pub fn new(live: &Live, credentials: &Credentials) -> Self {
        Self { twin: Twin::of(live), ..Self::of(live.connect(credentials)) }
    }

    /// Asks over a connection that is open.
    pub fn of(connection: Connection) -> Self {
        connection.set_read_timeout(PATIENCE).expect("a time-out can be set");
        Self { connection, twin: None }
    }

    /// Logs in, if the server lets it.
    pub fn try_new(live: &Live, credentials: &Credentials) -> Answered<Self> {
        match Connection::open(live.address, credentials, &Options::default()) {
            Ok(connection) => Ok(Self { twin: Twin::of(live), ..Self::of(connection) }),
            Err(ClientError::Refused(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask<'a, T>(
        &mut self,
        request: impl Into<Request<'a>>,
        take: impl FnOnce(Reply<'_>) -> T,
    ) -> Answered<T> {
        let mut request = request.into();
        if let Some(twin) = &self.twin {
            twin.place(&mut request);
        }
        let id = self.connection.send(&request).expect("the request can be sent");
        if let Some(twin) = &mut self.twin {
            self.connection.flush().expect("the request can be sent");
            twin.ask(&mut request);
        }
        let answer = self.connection.receive().expect("there is an answer");
        if let Some(twin) = &mut self.twin {
            twin.answer();
        }
        assert_eq!(answer.id(), id, "one at a time");
        match answer.result() {
            Ok(reply) => Ok(take(reply)),
            Err(ClientError::Refused(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    /// Asks for an operation whose parameters are written as they are in the API, and returns its reply as it is written there.
    ///
    /// # Panics
    /// Where there is no such operation, or it has no such parameters.
    pub fn ask_json(
        &mut self,
        operation: &str,
        parameters: serde_json::Value,
    ) -> Answered<serde_json::Value> {
        let operation = Operation::by_name(operation).expect("an operation");
        let request = Request::deserialize(operation, &parameters).expect("its parameters");
        self.ask(request, |reply| serde_json::to_value(reply).expect("a reply has a JSON form"))
    }

    of_key! {
        /// Enables a key.
        enable: EnableKeyRequest;
        /// Disables a key.
        disable: DisableKeyRequest;
        /// Cancels the deletion of a key.
        cancel_deletion: CancelKeyDeletionRequest;
        /// Makes a new version of a key.
        rotate: RotateKeyRequest;
    }

    /// Creates a key.
    pub fn create_key(&mut self) -> CmkId {
        self.create_described("").expect("a key can be created")
    }

    /// Creates a key with a description.
    pub fn create_described(&mut self, description: &str) -> Answered<CmkId> {
        let request = CreateKeyRequest { description: Some(description.to_owned()), ..Default::default() };
        self.ask(request, take!(CreateKey, reply => reply.key_metadata.key_id))
    }

    /// Creates a key in an HSM.
    pub fn create_in_hsm(&mut self, mode: BulkMode) -> Answered<CmkId> {
        self.create_of(None, Some(mode))
    }

    /// Creates a key of a specification, in an HSM where a bulk mode is said.
    pub fn create_of(&mut self, key_spec: Option<KeySpec>, bulk_mode: Option<BulkMode>) -> Answered<CmkId> {
        self.create(key_spec, bulk_mode, None)
    }

    fn create(
        &mut self,
        key_spec: Option<KeySpec>,
        bulk_mode: Option<BulkMode>,
        fallback: Option<Fallback>,
    ) -> Answered<CmkId> {
        let request = CreateKeyRequest {
            key_spec,
            protection_level: bulk_mode.map(|_| ProtectionLevel::Hsm),
            bulk_mode,
            fallback,
            ..Default::default()
        };
        self.ask(request, take!(CreateKey, reply => reply.key_metadata.key_id))
    }

    /// Creates a key that stays in the token that makes it.
    pub fn create_internal(&mut self, mode: BulkMode, fallback: Option<Fallback>) -> Answered<KeyMetadata> {
        let request = CreateKeyRequest {
            protection_level: Some(ProtectionLevel::Hsm),
            bulk_mode: Some(mode),
            fallback,
            key_storage_mechanism: Some(KeyStorageMechanism::HsmInternal),
            ..Default::default()
        };
        self.ask(request, take!(CreateKey, reply => reply.key_metadata))
    }

    /// Takes over a key that a token holds, by its label or, in hexadecimal, its id.
    pub fn adopt(
        &mut self,
        token: Option<&str>,
        label: Option<&str>,
        id: Option<&str>,
    ) -> Answered<KeyMetadata> {
        let request = AdoptKeyRequest {
            token_name: token.map(Into::into),
            object_label: label.map(Into::into),
            object_id: id.map(Into::into),
            key_spec: None,
            key_usage: None,
            bulk_mode: None,
            description: None,
            timeout_ms: None,
        };
        self.ask(request, take!(AdoptKey, reply => reply.key_metadata))
    }

    /// Creates a key in an HSM that may fall back to software.
    pub fn create_with(&mut self, mode: BulkMode, fallback: Option<Fallback>) -> Answered<CmkId> {
        self.create(None, Some(mode), fallback)
    }

    /// Lists the tokens.
    pub fn tokens(&mut self) -> Answered<Vec<TokenRow>> {
        self.ask(ListTokensRequest::default(), take!(ListTokens, reply => reply.tokens))
    }

    /// Takes a token out of service.
    pub fn drain_token(&mut self, name: &str) -> Answered<()> {
        self.ask(
            DrainTokenRequest { token_name: name.into(), timeout_ms: None },
            take!(DrainToken, _reply => ()),
        )
    }

    /// Takes a token into service.
    pub fn enable_token(&mut self, name: &str) -> Answered<()> {
        self.ask(
            EnableTokenRequest { token_name: name.into(), timeout_ms: None },
            take!(EnableToken, _reply => ()),
        )
    }

    /// Describes a key.
    pub fn describe(&mut self, key: impl Named) -> Answered<KeyMetadata> {
        let request = DescribeKeyRequest { key_id: key.key_ref(), timeout_ms: None };
        self.ask(request, take!(DescribeKey, reply => reply.key_metadata))
    }

    /// Lists the first hundred keys.
    pub fn keys(&mut self) -> Answered<Vec<CmkId>> {
        let request = ListKeysRequest { page_size: Some(100), ..Default::default() };
        self.ask(request, take!(ListKeys, reply => reply.keys.key.iter().map(|row| row.key_id).collect()))
    }

    /// Lists the numbers and ids of a key's versions.
    pub fn versions(&mut self, key: impl Named) -> Answered<Vec<(u32, KeyVersionId)>> {
        self.version_rows(key, |row| (row.version_number, row.key_version_id))
    }

    /// Tells of each version of a key how much was encrypted and decrypted under it.
    pub fn uses(&mut self, key: impl Named) -> Answered<Vec<(u64, u64)>> {
        self.version_rows(key, |row| (row.encrypt_count, row.decrypt_count))
    }

    fn version_rows<T>(&mut self, key: impl Named, of: impl Fn(&KeyVersionRow) -> T) -> Answered<Vec<T>> {
        let key_id = key.key_ref();
        let request =
            ListKeyVersionsRequest { key_id, page_number: None, page_size: Some(100), timeout_ms: None };
        self.ask(
            request,
            take!(ListKeyVersions, reply => reply.key_versions.key_version.iter().map(of).collect()),
        )
    }

    /// Changes the description of a key.
    pub fn update_description(&mut self, key: impl Named, description: &str) -> Answered<()> {
        let description = description.to_owned();
        self.ask(UpdateKeyDescriptionRequest { key_id: key.key_ref(), description, timeout_ms: None }, |_| ())
    }

    /// Schedules the deletion of a key in seven days.
    pub fn schedule_deletion(&mut self, key: impl Named) -> Answered<()> {
        let request =
            ScheduleKeyDeletionRequest { key_id: key.key_ref(), pending_window_in_days: 7, timeout_ms: None };
        self.ask(request, |_| ())
    }

    /// Creates an alias.
    pub fn create_alias(&mut self, name: &str, key: impl Named) -> Answered<()> {
        let alias_name = name.parse().expect("the test's alias is valid");
        self.ask(CreateAliasRequest { alias_name, key_id: key.key_ref(), timeout_ms: None }, |_| ())
    }

    /// Moves an alias.
    pub fn move_alias(&mut self, name: &str, key: impl Named) -> Answered<()> {
        let alias_name = name.parse().expect("the test's alias is valid");
        self.ask(UpdateAliasRequest { alias_name, key_id: key.key_ref(), timeout_ms: None }, |_| ())
    }

    /// Deletes an alias.
    pub fn delete_alias(&mut self, name: &str) -> Answered<()> {
        let alias_name = name.parse().expect("the test's alias is valid");
        self.ask(DeleteAliasRequest { alias_name, timeout_ms: None }, |_| ())
    }

    /// Lists the first hundred aliases.
    pub fn aliases(&mut self) -> Answered<Vec<(String, CmkId)>> {
        let request = ListAliasesRequest { page_number: None, page_size: Some(100), timeout_ms: None };
        self.ask(
            request,
            take!(ListAliases, reply => {
                reply.aliases.alias.iter().map(|row| (row.alias_name.to_string(), row.key_id)).collect()
            }),
        )
    }

    /// Encrypts one plaintext.
    pub fn encrypt(
        &mut self,
        key: impl Named,
        plaintext: &[u8],
        pairs: &[(&str, &str)],
    ) -> Answered<Vec<u8>> {
        let request = EncryptRequest {
            key_id: key.key_ref(),
            plaintext: Bin::from(plaintext),
            encryption_context: context(pairs),
            timeout_ms: None,
        };
        self.ask(request, take!(Encrypt, reply => reply.ciphertext_blob.into_vec()))
    }

    /// Decrypts one blob.
    pub fn decrypt(&mut self, blob: &[u8], pairs: &[(&str, &str)]) -> Answered<Vec<u8>> {
        self.decrypt_named(blob, None, pairs)
    }

    /// Decrypts one blob that must be under `key`.
    pub fn decrypt_under(&mut self, key: impl Named, blob: &[u8]) -> Answered<Vec<u8>> {
        self.decrypt_named(blob, Some(key.key_ref()), &[])
    }

    fn decrypt_named(
        &mut self,
        blob: &[u8],
        key_id: Option<KeyRef>,
        pairs: &[(&str, &str)],
    ) -> Answered<Vec<u8>> {
        let request = DecryptRequest {
            ciphertext_blob: Bin::from(blob),
            key_id,
            encryption_context: context(pairs),
            timeout_ms: None,
        };
        self.ask(request, take!(Decrypt, reply => reply.plaintext.into_vec()))
    }

    /// Re-encrypts one blob.
    pub fn re_encrypt(&mut self, blob: &[u8], to: impl Named) -> Answered<Vec<u8>> {
        let request = ReEncryptRequest {
            ciphertext_blob: Bin::from(blob),
            source_encryption_context: None,
            destination_key_id: to.key_ref(),
            destination_encryption_context: None,
            timeout_ms: None,
        };
        self.ask(request, take!(ReEncrypt, reply => reply.ciphertext_blob.into_vec()))
    }

    /// Makes a data key; returns it in clear and encrypted.
    pub fn data_key(&mut self, key: impl Named, pairs: &[(&str, &str)]) -> Answered<(Vec<u8>, Vec<u8>)> {
        let request = GenerateDataKeyRequest {
            key_id: key.key_ref(),
            key_spec: None,
            number_of_bytes: None,
            encryption_context: context(pairs),
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(GenerateDataKey, reply => (reply.plaintext.into_vec(), reply.ciphertext_blob.into_vec())),
        )
    }

    /// Makes a data key, and returns it encrypted alone.
    pub fn data_key_sealed(&mut self, key: impl Named) -> Answered<Vec<u8>> {
        let request = GenerateDataKeyWithoutPlaintextRequest {
            key_id: key.key_ref(),
            key_spec: None,
            number_of_bytes: None,
            encryption_context: None,
            timeout_ms: None,
        };
        self.ask(request, take!(GenerateDataKeyWithoutPlaintext, reply => reply.ciphertext_blob.into_vec()))
    }

    /// Makes data keys; returns each in clear and encrypted.
    pub fn data_keys(&mut self, key: impl Named, count: u32) -> Answered<Vec<(Vec<u8>, Vec<u8>)>> {
        let request = BatchGenerateDataKeyRequest {
            key_id: key.key_ref(),
            count,
            key_spec: None,
            number_of_bytes: None,
            without_plaintext: None,
            encryption_context: None,
            encryption_contexts: None,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(BatchGenerateDataKey, reply => {
                let pair = |item: Option<(Bin<'_>, Option<Bin<'_>>)>| {
                    let (sealed, clear) = item.expect("no data key fails");
                    (clear.expect("the plaintext was asked for").into_vec(), sealed.into_vec())
                };
                reply.items.into_iter().map(pair).collect()
            }),
        )
    }

    /// Encrypts a batch of which no item fails.
    pub fn batch_encrypt(&mut self, key: impl Named, items: &[Vec<u8>]) -> Answered<Vec<Vec<u8>>> {
        let request = batch_encrypt(key, items);
        self.ask(
            request,
            take!(BatchEncrypt, reply => {
                assert_eq!(reply.errors, []);
                reply.items.into_iter().map(|item| item.expect("no item failed").into_vec()).collect()
            }),
        )
    }

    /// Decrypts a batch.
    pub fn batch_decrypt(&mut self, items: &[Vec<u8>]) -> Answered<Opened> {
        let request = BatchDecryptRequest {
            items: items.iter().map(|item| Bin::from(&item[..])).collect(),
            key_id: None,
            encryption_context: None,
            encryption_contexts: None,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(BatchDecrypt, reply => Opened {
                items: reply.items.into_iter().map(|item| item.map(Bin::into_vec)).collect(),
                errors: reply.errors,
                keys: reply.key_ids,
            }),
        )
    }

    /// Re-encrypts a batch; returns blobs and errors.
    pub fn batch_re_encrypt(
        &mut self,
        items: &[Vec<u8>],
        to: impl Named,
    ) -> Answered<(Items, Vec<ItemError>)> {
        let request = BatchReEncryptRequest {
            items: items.iter().map(|item| Bin::from(&item[..])).collect(),
            destination_key_id: to.key_ref(),
            source_encryption_context: None,
            source_encryption_contexts: None,
            destination_encryption_context: None,
            destination_encryption_contexts: None,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(BatchReEncrypt, reply => {
                (reply.items.into_iter().map(|item| item.map(Bin::into_vec)).collect(), reply.errors)
            }),
        )
    }

    /// Makes an access key; returns its id and secret.
    pub fn create_access_key(&mut self, grants: Vec<Grant>) -> Answered<(AccessKeyId, String)> {
        let request = CreateAccessKeyRequest { grants, description: None, timeout_ms: None };
        self.ask(
            request,
            take!(CreateAccessKey, reply => (reply.access_key_id.clone(), reply.access_key_secret.clone())),
        )
    }

    /// Makes an access key and returns what logs in with it.
    pub fn credentials(&mut self, grants: Vec<Grant>) -> Credentials {
        let (id, secret) = self.create_access_key(grants).expect("an access key can be made");
        Credentials::new(id, secret)
    }

    /// Switches an access key on or off.
    pub fn set_status(&mut self, id: &AccessKeyId, status: AccessKeyStatus) -> Answered<()> {
        self.update_access_key(id, Some(status), None)
    }

    /// Changes what an access key grants.
    pub fn set_grants(&mut self, id: &AccessKeyId, grants: Vec<Grant>) -> Answered<()> {
        self.update_access_key(id, None, Some(grants))
    }

    fn update_access_key(
        &mut self,
        id: &AccessKeyId,
        status: Option<AccessKeyStatus>,
        grants: Option<Vec<Grant>>,
    ) -> Answered<()> {
        let access_key_id = id.clone();
        self.ask(
            UpdateAccessKeyRequest { access_key_id, status, grants, description: None, timeout_ms: None },
            |_| (),
        )
    }

    /// Deletes an access key.
    pub fn delete_access_key(&mut self, id: &AccessKeyId) -> Answered<()> {
        self.ask(DeleteAccessKeyRequest { access_key_id: id.clone(), timeout_ms: None }, |_| ())
    }
}

/// Makes the request of a batch.
pub fn batch_encrypt<'a>(key: impl Named, items: &'a [Vec<u8>]) -> BatchEncryptRequest<'a> {
    BatchEncryptRequest {
        key_id: key.key_ref(),
        items: items.iter().map(|item| Bin::from(&item[..])).collect(),
        encryption_context: None,
        encryption_contexts: None,
        timeout_ms: None,
    }
}
