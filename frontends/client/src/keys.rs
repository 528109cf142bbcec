//! Where data keys come from: the seam between envelopes and a service. A client of ours is one; a program with the engine inside gives
//! its own.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{
    Bin, DataKeySpec, DecryptRequest, DescribeKeyRequest, GenerateDataKeyRequest, Reply,
};
use keymill_core::{EncryptionContext, Sensitive};

use crate::client::Client;
use crate::envelope::EnvelopeError;
use crate::error::{ClientError, Result};

/// A data key as it was made: in clear, and as it is kept.
pub struct DataKey {
    /// The data key in clear, 32 bytes.
    pub data_key: Sensitive,
    /// The same, encrypted under the key and context that were named; up to 4 KiB.
    pub edk: Vec<u8>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({} bytes encrypted)", self.edk.len())
    }
}

/// Why there is no data key; many that waited for one are told the same.
#[derive(Clone, Debug)]
pub enum KeysError {
    /// The EDK does not decrypt under this key and context: altered, another's, or its key is absent or hidden. Which, nobody is told.
    Unopenable,
    /// Anything else: the service is away, or does not allow it.
    Failed(Arc<dyn Error + Send + Sync>),
}

impl KeysError {
    /// Makes the error of what went wrong.
    pub fn of(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }
}

impl From<KeysError> for EnvelopeError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Unopenable => EnvelopeError::Unopenable,
            KeysError::Failed(error) => EnvelopeError::Keys(error),
        }
    }
}

/// Makes and decrypts data keys.
pub trait DataKeys: Send + Sync {
    /// Makes a data key of 32 bytes under `key_id` and `context`.
    ///
    /// # Errors
    /// `Failed`.
    fn generate(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
    ) -> impl Future<Output = Result<DataKey, KeysError>> + Send;

    /// Decrypts a data key, which must have been made under `key_id` and `context`.
    ///
    /// # Errors
    /// `Unopenable` where it was not, and for every other reason that lies in what was given; `Failed` where nobody could try.
    fn decrypt(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
        edk: &[u8],
    ) -> impl Future<Output = Result<Sensitive, KeysError>> + Send;
}

impl<K: DataKeys> DataKeys for Arc<K> {
    fn generate(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
    ) -> impl Future<Output = Result<DataKey, KeysError>> + Send {
        (**self).generate(key_id, context)
    }

    fn decrypt(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
        edk: &[u8],
    ) -> impl Future<Output = Result<Sensitive, KeysError>> + Send {
        (**self).decrypt(key_id, context, edk)
    }
}

impl DataKeys for Client {
    async fn generate(&self, key_id: CmkId, context: &EncryptionContext) -> Result<DataKey, KeysError> {
        let request = GenerateDataKeyRequest {
            key_id: KeyRef::Id(key_id),
            key_spec: Some(DataKeySpec::Aes256),
            number_of_bytes: None,
            encryption_context: given(context),
            timeout_ms: None,
        };
        let made = apart(self.clone(), move |client| match client.call(request)?.reply()? {
            Reply::GenerateDataKey(reply) => Ok(DataKey {
                data_key: Sensitive::copied(&reply.plaintext),
                edk: reply.ciphertext_blob.to_vec(),
            }),
            other => Err(of_another(&other)),
        });
        made.await.map_err(KeysError::of)
    }

    async fn decrypt(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
        edk: &[u8],
    ) -> Result<Sensitive, KeysError> {
        let request = DecryptRequest {
            ciphertext_blob: Bin::from(edk.to_vec()),
            key_id: Some(KeyRef::Id(key_id)),
            encryption_context: given(context),
            timeout_ms: None,
        };
        let opened = apart(self.clone(), move |client| match client.call(request)?.reply()? {
            Reply::Decrypt(reply) => Ok(Sensitive::copied(&reply.plaintext)),
            other => Err(of_another(&other)),
        });
        opened.await.map_err(|error| match blames_the_envelope(&error) {
            true => KeysError::Unopenable,
            false => KeysError::of(error),
        })
    }
}

impl Client {
    /// Returns the id of a key, which is asked for where an alias names it.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn key_id(&self, key: KeyRef) -> Result<CmkId> {
        match key {
            KeyRef::Id(id) => Ok(id),
            key_id => match self.call(DescribeKeyRequest { key_id, timeout_ms: None })?.reply()? {
                Reply::DescribeKey(reply) => Ok(reply.key_metadata.key_id),
                other => Err(of_another(&other)),
            },
        }
    }
}

/// Calls on a thread of its own: the client blocks, and whoever polls may not.
pub(crate) async fn apart<T: Send + 'static>(
    client: Client,
    call: impl FnOnce(&Client) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, wait) = flume::bounded(1);
    let ask = move || {
        // Whoever asked may be gone.
        let _ = answer.send(call(&client));
    };
    std::thread::Builder::new().name("keymill-call".to_owned()).spawn(ask)?;
    wait.recv_async().await.unwrap_or_else(|_| Err(ClientError::protocol("the call ended without an answer")))
}

/// Tells a data key that does not decrypt from a service that could not try. A key that is absent or hidden is no other case than a
/// blob that was altered: whoever alters an envelope learns nothing of keys.
fn blames_the_envelope(error: &ClientError) -> bool {
    error.refusal().is_some_and(|refusal| {
        matches!(
            refusal.code.as_str(),
            "InvalidParameter" | "Forbidden.KeyNotFound" | "Forbidden.KeyVersionNotFound"
        )
    })
}

fn given(context: &EncryptionContext) -> Option<EncryptionContext> {
    (!context.is_empty()).then(|| context.clone())
}

pub(crate) fn of_another(reply: &Reply<'_>) -> ClientError {
    ClientError::protocol(format!("the reply of {}", reply.operation().name()))
}
