//! The life of software keys: the material is clear bytes, which the engine seals in the record that they stand in, and a
//! loaded key lives as long as its handles.

use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, KeyCustody, KeyHandle, KeyMaterial, ProviderError, StoredKey, Unwrapped, WrappedImport,
};

use crate::key::{self, SoftwareKey};
use crate::{import, self_test};

pub(crate) struct SoftwareCustody {
    generation: u64,
}

impl SoftwareCustody {
    pub(crate) fn new(generation: u64) -> Self {
        Self { generation }
    }
}

/// Refuses what no software key is like.
fn check(spec: KeySpec, usage: KeyUsage, bulk_mode: Option<BulkMode>) -> Result<(), ProviderError> {
    if let Some(mode) = bulk_mode {
        return Err(ProviderError::Rejected(format!("bulk mode {mode:?} is for keys of an HSM")));
    }
    if !spec.allows(usage) {
        let why = format!("a key of {} has no usage {}", spec.name(), usage.name());
        return Err(ProviderError::Rejected(why));
    }
    Ok(())
}

impl KeyCustody for SoftwareCustody {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        check(spec, usage, bulk_mode)?;
        let (material, public_key) = key::generate(spec)?;
        Ok(StoredKey { spec, usage, bulk_mode, material: KeyMaterial::Clear(material), public_key })
    }

    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        material: &Sensitive,
    ) -> Result<StoredKey, ProviderError> {
        check(spec, usage, bulk_mode)?;
        if spec.is_key_pair() {
            let (material, public_key) =
                import::pair(spec, usage, material).map_err(ProviderError::Rejected)?;
            let (material, public_key) = (KeyMaterial::Clear(material), Some(public_key));
            return Ok(StoredKey { spec, usage, bulk_mode, material, public_key });
        }
        if spec.material_bytes() != Some(material.len()) {
            let why = format!("{} bytes are no key of {}", material.len(), spec.name());
            return Err(ProviderError::Rejected(why));
        }
        let material = KeyMaterial::Clear(Sensitive::copied(material.expose()));
        Ok(StoredKey { spec, usage, bulk_mode, material, public_key: None })
    }

    fn generate_wrapping_key(
        &mut self,
        _spec: KeySpec,
        _algorithm: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError> {
        Err(ProviderError::Rejected("key material comes into software in clear".into()))
    }

    fn import_wrapped(&mut self, _import: &WrappedImport) -> Result<Unwrapped, ProviderError> {
        Err(ProviderError::Rejected("key material comes into software in clear".into()))
    }

    fn destroy_wrapping_key(&mut self, _wrapping: &StoredKey) -> Result<(), ProviderError> {
        Err(ProviderError::Rejected("software has no pairs that unwrap in a token".into()))
    }

    fn generate_to_stay(
        &mut self,
        _spec: KeySpec,
        _usage: KeyUsage,
        _bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        Err(ProviderError::Rejected("keys of software stay nowhere but in the store".into()))
    }

    fn adopt(&mut self, _wanted: &Adopt) -> Result<StoredKey, ProviderError> {
        Err(ProviderError::Rejected("a key is taken over from a token".into()))
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        let KeyMaterial::Clear(material) = &key.material else {
            return Err(ProviderError::Rejected(
                "wrapped material opens in a token of its domain alone".into(),
            ));
        };
        let decoded = SoftwareKey::decode(key.spec, key.usage, material, key.public_key.as_ref());
        let object = decoded.ok_or_else(|| {
            ProviderError::Corrupt(format!(
                "{} bytes of material are no key of {} for {} whose public half is the stored one",
                material.len(),
                key.spec.name(),
                key.usage.name()
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
        self_test::run()
    }
}
