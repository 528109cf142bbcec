//! The life of HSM keys: born in the token, wrapped there under the domain's keys, destroyed; and unwrapped on demand into the owner
//! session.

use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, KeyCustody, KeyHandle, KeyMaterial, ProviderError, StoredKey, TokenObject, Unwrapped,
    WrappedImport,
};

use crate::births;
use crate::cache::{Identity, Loaded};
use crate::connect;
use crate::import;
use crate::kind::Kind;
use crate::module::{Class, Failure};
use crate::pair::{self, Proof};
use crate::stay;
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

    /// Refuses a key that stays in another token.
    fn bound_here(&self, key: &StoredKey) -> Result<(), ProviderError> {
        let KeyMaterial::TokenObject(object) = &key.material else { return Ok(()) };
        let token = &self.token;
        let serial = token.with_link(|link| Ok(token.module.token_info(link.slot)?.serial))?;
        match serial == object.serial {
            true => Ok(()),
            false => Err(ProviderError::Rejected(format!(
                "key {} stays in the token of serial number {}, and this is {serial}",
                object.label, object.serial
            ))),
        }
    }

    /// Returns where a wrapping key is, of this token.
    fn wrapping<'a>(&self, wrapping: &'a StoredKey) -> Result<&'a TokenObject, ProviderError> {
        let none = || ProviderError::Rejected("the wrapping key of an import is in no token".into());
        let object = wrapping.token_object().ok_or_else(none)?;
        self.bound_here(wrapping)?;
        Ok(object)
    }

    /// Destroys a key that was made to stay in the token: the very one, or none. Another that has its id by now is somebody else's, as is one
    /// that was adopted.
    fn destroy_on_token(&mut self, key: &StoredKey, object: &TokenObject) -> Result<(), ProviderError> {
        let identity = identity(key)?;
        if object.adopted {
            self.token.with_link(|link| {
                link.cache.forget(&identity.wrapped);
                Ok(())
            })?;
            return Ok(());
        }
        self.bound_here(key)?;
        let gone = self.token.with_link(|link| {
            link.cache.forget(&identity.wrapped);
            stay::is_gone(&self.token, link, identity.kind, object)
        })?;
        if gone {
            return Ok(());
        }
        // With all the doubts that loading has.
        drop(self.load(key)?);
        self.token.with_link(|link| {
            let found = stay::found_again(&self.token, link, identity.kind, object, key.public_key.as_ref())?;
            link.cache.forget(&identity.wrapped);
            stay::destroy(&self.token, link, found, object, key.public_key.as_ref())
        })?;
        Ok(())
    }

    /// Unwraps a key, and makes room for it in the token where there is none; one that stays in the token is found.
    fn unwrap(&self, link: &mut Link, identity: &Identity, key: &StoredKey) -> Result<Arc<Loaded>, Failure> {
        let public = key.public_key.as_ref();
        self.token.bury(link);
        if let Some(loaded) = link.cache.find(identity) {
            return Ok(loaded);
        }
        if let KeyMaterial::TokenObject(stored) = &key.material {
            let object = stay::found_again(&self.token, link, identity.kind, stored, public)?;
            let loaded = link.cache.keep(identity, object);
            self.token.bury(link);
            return Ok(loaded);
        }
        let profile = &self.token.profile;
        let unwrap = |link: &Link| {
            wrapped::unwrap(&link.owner, link.domain, &identity.wrapped, identity.kind, profile)
        };
        let object = match unwrap(link) {
            Err(failure) if failure.class() == Class::Busy && link.cache.make_room() => {
                self.token.bury(link);
                unwrap(link)?
            }
            other => other?,
        };
        if let Some(public) = public {
            let proved = self.token.module.open_session(link.slot, false).and_then(|session| {
                let unlike = Err(Failure::Mismatch { call: "C_CreateObject" });
                let proved = pair::prove(&session, identity.kind, object, public, Proof::Halves, profile);
                proved.unwrap_or(unlike)
            });
            if let Err(failure) = proved {
                link.graveyard.push(object);
                self.token.bury(link);
                return Err(failure);
            }
        }
        let loaded = link.cache.keep(identity, object);
        // Whatever left for it.
        self.token.bury(link);
        Ok(loaded)
    }
}

/// Checks what can be seen of stored material without the token, and says what it is to it.
fn identity(key: &StoredKey) -> Result<Identity, ProviderError> {
    let kind = Kind::new(key.spec, key.usage, key.bulk_mode).map_err(ProviderError::Corrupt)?;
    let (wrapped, on_token) = match &key.material {
        KeyMaterial::Wrapped(wrapped) => (wrapped.clone(), false),
        KeyMaterial::TokenObject(object) => ([&object.id[..], &object.check].concat(), true),
        KeyMaterial::Clear(_) => {
            return Err(ProviderError::Rejected("material in clear belongs to a software provider".into()));
        }
    };
    // Before the module sees it: one answers to such as to a broken device.
    if !on_token && !kind.fits(wrapped.len()) {
        let (least, most) = kind.wrapped_bytes().into_inner();
        return Err(ProviderError::Corrupt(format!(
            "{} bytes of wrapped material where {} has {least} to {most}",
            wrapped.len(),
            key.spec.name()
        )));
    }
    if key.public_key.is_some() != key.spec.is_key_pair() {
        return Err(ProviderError::Corrupt(format!(
            "a key of {} and its public half are not stored together",
            key.spec.name()
        )));
    }
    let public = key.public_key.as_ref().map(|public| public.as_der().to_vec());
    Ok(Identity { kind, wrapped, on_token, public })
}

impl KeyCustody for Pkcs11Custody {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        let kind = Kind::new(spec, usage, bulk_mode).map_err(ProviderError::Rejected)?;
        self.token.profile.check(kind).map_err(ProviderError::Rejected)?;
        let (wrapped, public_key) = births::generate(&self.token, kind)?;
        Ok(StoredKey { spec, usage, bulk_mode, material: KeyMaterial::Wrapped(wrapped), public_key })
    }

    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        material: &Sensitive,
    ) -> Result<StoredKey, ProviderError> {
        let kind = Kind::new(spec, usage, bulk_mode).map_err(ProviderError::Rejected)?;
        self.token.profile.check(kind).map_err(ProviderError::Rejected)?;
        if spec.material_bytes() != Some(material.len()) {
            let why = format!("{} bytes are no secret key of {}", material.len(), spec.name());
            return Err(ProviderError::Rejected(why));
        }
        let (wrapped, public_key) =
            births::import(&self.token, kind, material).map_err(|refusal| match refusal.class {
                Class::Other | Class::Data | Class::Unsupported => {
                    ProviderError::Rejected(format!("the token takes no key from outside: {}", refusal.why))
                }
                _ => refusal.into(),
            })?;
        Ok(StoredKey { spec, usage, bulk_mode, material: KeyMaterial::Wrapped(wrapped), public_key })
    }

    fn generate_wrapping_key(
        &mut self,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError> {
        import::generate(&self.token, spec, algorithm)
    }

    fn import_wrapped(&mut self, wanted: &WrappedImport) -> Result<Unwrapped, ProviderError> {
        let kind = Kind::new(wanted.spec, wanted.usage, wanted.bulk_mode).map_err(ProviderError::Rejected)?;
        self.token.profile.check(kind).map_err(ProviderError::Rejected)?;
        let object = self.wrapping(&wanted.wrapping)?;
        import::take(&self.token, kind, wanted, object)
    }

    fn destroy_wrapping_key(&mut self, wrapping: &StoredKey) -> Result<(), ProviderError> {
        let object = self.wrapping(wrapping)?;
        import::destroy(&self.token, wrapping, object)
    }

    fn generate_to_stay(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        stay::generate(&self.token, spec, usage, bulk_mode)
    }

    fn adopt(&mut self, wanted: &Adopt) -> Result<StoredKey, ProviderError> {
        stay::adopt(&self.token, wanted)
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        let identity = identity(key)?;
        if !identity.on_token {
            self.token.profile.check(identity.kind).map_err(ProviderError::Rejected)?;
        }
        self.bound_here(key)?;
        let mut damaged = None;
        let loaded = self.token.with_link(|link| {
            let mut failure = match self.unwrap(link, &identity, key) {
                Ok(loaded) => return Ok((link.cache.generation, loaded)),
                Err(failure) => failure,
            };
            // The same code can mean a damaged blob or a dead device: the canary, which unwraps too, tells which. And as damage is
            // for good, it must fail each time.
            for _ in 0..RETRIES {
                if !connect::may_be_data(&failure) {
                    return Err(failure);
                }
                // Where it is silent, what it says casts the doubt that mends the connection.
                link.canary.unwrap_and_open(&link.owner, link.domain, &self.token.profile)?;
                failure = match self.unwrap(link, &identity, key) {
                    Ok(loaded) => return Ok((link.cache.generation, loaded)),
                    Err(failure) => failure,
                };
            }
            damaged = connect::may_be_data(&failure).then_some(failure);
            Err(failure)
        });
        match (loaded, damaged) {
            (Ok((generation, loaded)), _) => Ok(KeyHandle { generation, object: loaded }),
            (Err(_), Some(failure)) => Err(ProviderError::Corrupt(match &key.material {
                KeyMaterial::TokenObject(object) => {
                    format!("the token has no key {} that is the one of before: {failure}", object.label)
                }
                _ => format!("the material does not unwrap: {failure}"),
            })),
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
        if let KeyMaterial::TokenObject(object) = &key.material {
            return self.destroy_on_token(key, object);
        }
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
            link.canary.unwrap_and_open(&link.owner, link.domain, &self.token.profile)
        })?;
        Ok(())
    }
}
