//! The life of software keys: the material is clear bytes, which the engine seals in the record that they stand in, and a
//! loaded key lives as long as its handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{KeyCustody, KeyHandle, KeyMaterial, ProviderError, StoredKey};

use crate::key::{self, KEY_BYTES, SoftwareKey};

pub(crate) struct SoftwareCustody {
    generation: u64,
    taken: Arc<AtomicBool>,
}

impl SoftwareCustody {
    pub(crate) fn new(generation: u64, taken: Arc<AtomicBool>) -> Self {
        Self { generation, taken }
    }
}

impl Drop for SoftwareCustody {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl KeyCustody for SoftwareCustody {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        if let Some(mode) = bulk_mode {
            return Err(ProviderError::Rejected(format!("bulk mode {mode:?} is for keys of an HSM")));
        }
        offered(spec)?;
        let mut material = Sensitive::zeroed(KEY_BYTES);
        key::random(material.expose_mut())?;
        Ok(StoredKey { spec, usage, bulk_mode, material: KeyMaterial::Clear(material), public_key: None })
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        let KeyMaterial::Clear(material) = &key.material else {
            return Err(ProviderError::Rejected(
                "wrapped material opens in a token of its domain alone".into(),
            ));
        };
        offered(key.spec)?;
        let object = SoftwareKey::new(material).ok_or_else(|| {
            ProviderError::Corrupt(format!(
                "{} bytes of material where {} has {KEY_BYTES}",
                material.len(),
                key.spec.name()
            ))
        })?;
        Ok(KeyHandle { generation: self.generation, object: Arc::new(object) })
    }

    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError> {
        drop(key);
        Ok(())
    }

    fn destroy(&mut self, _key: &StoredKey) -> Result<(), ProviderError> {
        // Nothing is kept here: the record is the key.
        Ok(())
    }

    fn canary(&mut self) -> Result<(), ProviderError> {
        key::self_test()
    }
}

fn offered(spec: KeySpec) -> Result<(), ProviderError> {
    match spec {
        KeySpec::Aes256 => Ok(()),
        _ => Err(ProviderError::Rejected(format!("no keys of KeySpec {} are held in software", spec.name()))),
    }
}
