//! A service of data keys for tests: it remembers what it made, counts what it is asked, and can be held up or be away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keymill_core::id::CmkId;
use keymill_core::{EncryptionContext, Sensitive};
use parking_lot::Mutex;

use crate::keys::{DataKey, DataKeys, KeysError};

pub(crate) const KEY: CmkId = CmkId::from_bytes([7; 16]);

type Made = (CmkId, EncryptionContext, [u8; 32]);

#[derive(Default)]
pub(crate) struct FakeKeys {
    made: Mutex<HashMap<Vec<u8>, Made>>,
    pub(crate) generated: AtomicUsize,
    pub(crate) decrypted: AtomicUsize,
    pub(crate) is_away: AtomicBool,
    hold: Option<flume::Receiver<()>>,
}

impl FakeKeys {
    /// Makes a service each of whose requests waits for a message.
    pub(crate) fn held_up() -> (flume::Sender<()>, Self) {
        let (go, hold) = flume::unbounded();
        (go, Self { hold: Some(hold), ..Self::default() })
    }

    /// Returns how many data keys were made, and how many decrypted.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.generated.load(Ordering::SeqCst), self.decrypted.load(Ordering::SeqCst))
    }

    async fn asked(&self, count: &AtomicUsize) -> Result<usize, KeysError> {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if let Some(hold) = &self.hold {
            hold.recv_async().await.expect("the test lets go");
        }
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(KeysError::of("away")),
            false => Ok(number),
        }
    }
}

impl DataKeys for FakeKeys {
    async fn generate(&self, key_id: CmkId, context: &EncryptionContext) -> Result<DataKey, KeysError> {
        let number = self.asked(&self.generated).await?;
        let (edk, bytes) = (format!("edk {number}").into_bytes(), [number as u8; 32]);
        self.made.lock().insert(edk.clone(), (key_id, context.clone(), bytes));
        Ok(DataKey { data_key: Sensitive::copied(&bytes), edk })
    }

    async fn decrypt(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
        edk: &[u8],
    ) -> Result<Sensitive, KeysError> {
        self.asked(&self.decrypted).await?;
        match self.made.lock().get(edk) {
            Some((key, with, bytes)) if (*key, with) == (key_id, context) => Ok(Sensitive::copied(bytes)),
            _ => Err(KeysError::Unopenable),
        }
    }
}
