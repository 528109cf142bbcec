//! The life of HSM keys: born in the token, wrapped there under the domain key, destroyed; and unwrapped on demand into the owner
//! session.

use std::sync::Arc;

use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{KeyCustody, KeyHandle, KeyMaterial, ProviderError, StoredKey};

use crate::births;
use crate::cache::Loaded;
use crate::connect;
use crate::module::{Class, Failure};
use crate::profile::WRAPPED_BYTES;
use crate::token::{Link, Token};
use crate::wrapped;

/// How often material is tried again that does not unwrap, while the canary does.
const RETRIES: usize = 2;

pub(crate) struct Pkcs11Custody {
    token: Arc<Token>,
}

impl Pkcs11Custody {
    pub(crate) fn new(token: Arc<Token>) -> Self {
        Self { token }
    }

    /// Checks that the token can serve a key of `bulk_mode`.
    fn mode(&self, bulk_mode: Option<BulkMode>) -> Result<BulkMode, ProviderError> {
        match bulk_mode {
            None => Err(ProviderError::Rejected("a key of an HSM has a bulk mode".into())),
            Some(BulkMode::HsmDerived) if !self.token.profile.derives => Err(ProviderError::Rejected(
                "the token has no AES-CMAC, which bulk mode HsmDerived needs".into(),
            )),
            Some(mode) => Ok(mode),
        }
    }

    /// Unwraps a key, and makes room for it in the token where there is none.
    fn unwrap(&self, link: &mut Link, mode: BulkMode, wrapped: &[u8]) -> Result<Arc<Loaded>, Failure> {
        self.token.bury(link);
        if let Some(loaded) = link.cache.find(mode, wrapped) {
            return Ok(loaded);
        }
        let unwrap =
            |link: &Link| wrapped::unwrap(&link.owner, link.domain_key, wrapped, mode, &self.token.profile);
        let object = match unwrap(link) {
            Err(failure) if failure.class() == Class::Busy && link.cache.make_room() => {
                self.token.bury(link);
                unwrap(link)?
            }
            other => other?,
        };
        let loaded = link.cache.keep(mode, wrapped, object);
        // Whatever left for it.
        self.token.bury(link);
        Ok(loaded)
    }
}

impl KeyCustody for Pkcs11Custody {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        if !spec.usages().contains(&usage) {
            let why = format!("a key of {} has no usage {}", spec.name(), usage.name());
            return Err(ProviderError::Rejected(why));
        }
        offered(spec)?;
        let mode = self.mode(bulk_mode)?;
        let wrapped = births::generate(&self.token, mode)?;
        Ok(StoredKey { spec, usage, bulk_mode, material: KeyMaterial::Wrapped(wrapped), public_key: None })
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        offered(key.spec)?;
        let mode = self.mode(key.bulk_mode)?;
        let KeyMaterial::Wrapped(wrapped) = &key.material else {
            return Err(ProviderError::Rejected("material in clear belongs to a software provider".into()));
        };
        // Before the module sees it: one answers to such as to a broken device.
        if wrapped.len() != WRAPPED_BYTES {
            return Err(ProviderError::Corrupt(format!(
                "{} bytes of wrapped material where {} has {WRAPPED_BYTES}",
                wrapped.len(),
                key.spec.name()
            )));
        }
        let mut damaged = None;
        let loaded = self.token.with_link(|link| {
            let mut failure = match self.unwrap(link, mode, wrapped) {
                Ok(loaded) => return Ok((link.cache.generation, loaded)),
                Err(failure) => failure,
            };
            // The same code can mean a damaged blob or a dead device: the canary, which unwraps too, tells which. And as damage is
            // for good, it must fail each time.
            for _ in 0..RETRIES {
                let canary =
                    || link.canary.unwrap_and_open(&link.owner, link.domain_key, &self.token.profile);
                if !connect::may_be_data(&failure) || canary().is_err() {
                    return Err(failure);
                }
                failure = match self.unwrap(link, mode, wrapped) {
                    Ok(loaded) => return Ok((link.cache.generation, loaded)),
                    Err(failure) => failure,
                };
            }
            damaged = connect::may_be_data(&failure).then_some(failure);
            Err(failure)
        });
        match (loaded, damaged) {
            (Ok((generation, loaded)), _) => Ok(KeyHandle { generation, object: loaded }),
            (Err(_), Some(failure)) => {
                Err(ProviderError::Corrupt(format!("the material does not unwrap: {failure}")))
            }
            (Err(refusal), None) => Err(refusal.into()),
        }
    }

    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError> {
        let KeyHandle { generation, object } = key;
        let Ok(loaded) = object.downcast::<Loaded>() else { return Ok(()) };
        let mut loaded = Some(loaded);
        self.token.with_link(|link| {
            if let Some(loaded) = loaded.take().filter(|_| generation == link.cache.generation) {
                link.cache.put_out(&loaded);
            }
            self.token.bury(link);
            Ok(())
        })?;
        Ok(())
    }

    fn destroy(&mut self, key: &StoredKey) -> Result<(), ProviderError> {
        // Nothing stays on the token: the record is the key, and what is loaded of it leaves.
        if let KeyMaterial::Wrapped(wrapped) = &key.material {
            self.token.with_link(|link| {
                link.cache.forget(wrapped);
                self.token.bury(link);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn canary(&mut self) -> Result<(), ProviderError> {
        self.token.with_link(|link| {
            self.token.bury(link);
            link.canary.unwrap_and_open(&link.owner, link.domain_key, &self.token.profile)
        })?;
        Ok(())
    }
}

fn offered(spec: KeySpec) -> Result<(), ProviderError> {
    match spec {
        KeySpec::Aes256 => Ok(()),
        _ => {
            Err(ProviderError::Rejected(format!("no keys of KeySpec {} are held in this token", spec.name())))
        }
    }
}
