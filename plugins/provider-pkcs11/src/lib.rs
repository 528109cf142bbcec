#![doc = include_str!("../README.md")]

mod births;
mod cache;
mod canary;
mod ceremony;
mod check;
mod config;
mod connect;
mod custody;
mod der;
mod domain;
mod error;
mod import;
mod initialize;
mod kind;
pub mod module;
mod pair;
mod pin;
mod probe;
mod profile;
mod session;
mod stay;
mod token;
mod verdict;
mod wrapped;

use std::sync::Arc;

use cryptoki_sys::CKM_AES_CMAC;
use keymill_core::Sensitive;
use keymill_core::blob::Algorithm;
use keymill_core::key::{KeySpec, ProtectionLevel};
use keymill_core::limit;
use keymill_core::seam::provider::{
    CryptoProvider, CryptoSession, KeyCustody, ProviderError, ProviderProfile,
};

pub use ceremony::{
    Ceremony, Cleaned, DomainCopy, Found, KEK_BYTES, MadeDomain, Party, PartyReport, WrappedPair,
    WrappingKey, clean, join, wrapping_key,
};
pub use config::{Config, PinSource};
pub use domain::label_in;
pub use error::{OpenError, OpenErrorKind};
pub use initialize::{Initialize, Initialized, MadeKeys, initialize};
pub use pin::{ChangedPin, change_pin};
pub use profile::{CancelMethod, GcmMethod, ModuleProfile, Overrides, WrapMechanism};

use crate::custody::Pkcs11Custody;
use crate::module::{Failure, Mechanism, Module};
use crate::session::Pkcs11Session;
use crate::token::Token;

/// The label of the key that wraps the secret keys of a domain.
pub const DOMAIN_KEY_LABEL: &str = "keymill-domain";
/// The label of the key that wraps the private keys of a domain: no one template fits what unwraps as either.
pub const PRIVATE_DOMAIN_KEY_LABEL: &str = "keymill-domain-private";
/// The label of the key that the storage, MAC, fingerprint and audit keys are derived by.
pub const MAC_KEY_LABEL: &str = "keymill-root-mac";

/// Opens a token: loads the module, logs in once, and finds out what the module can do.
///
/// # Errors
/// [`OpenError`] where there is no such module or token, the PIN is refused, or something is lacking.
pub fn open(config: Config) -> Result<Pkcs11Provider, OpenError> {
    let module = connect::load(&config.module)?;
    open_on(module, config)
}

/// Opens a token of a module that is loaded already, or of a view of one.
///
/// # Errors
/// As [`open`].
pub fn open_on(module: Module, config: Config) -> Result<Pkcs11Provider, OpenError> {
    let max_batch = config.max_batch.clamp(1, limit::BATCH_ITEMS);
    let token = Arc::new(Token::open(module, config)?);
    // Without it no key is said to stay here, nor a pair that material is wrapped by, which is all that it is for.
    let token_serial = token.with_link(|link| Ok(token.module.token_info(link.slot)?.serial)).ok();
    let token_serial = token_serial.filter(|serial| !serial.is_empty());
    let imports = token_serial.as_ref().map_or_else(Vec::new, |_| token.profile.imports.clone());
    Ok(Pkcs11Provider {
        profile: ProviderProfile {
            name: "hsm",
            protection: ProtectionLevel::Hsm,
            token_serial,
            specs: token.profile.specs.clone(),
            algorithms: algorithms(&token.profile.specs),
            signatures: token.profile.signatures.clone(),
            decryptions: token.profile.decryptions.clone(),
            imports,
            derives: token.profile.derives,
            // A call can take as long as the network to the device likes.
            inline: false,
            max_batch,
            max_item_bytes: token.profile.max_item_bytes,
            max_sessions: token.max_sessions(),
        },
        token,
    })
}

fn algorithms(specs: &[KeySpec]) -> Vec<Algorithm> {
    const GCM: [(KeySpec, Algorithm); 3] = [
        (KeySpec::Aes256, Algorithm::Aes256Gcm),
        (KeySpec::Aes192, Algorithm::Aes192Gcm),
        (KeySpec::Aes128, Algorithm::Aes128Gcm),
    ];
    GCM.into_iter().filter_map(|(spec, algorithm)| specs.contains(&spec).then_some(algorithm)).collect()
}

/// A token of a PKCS#11 module as a provider.
pub struct Pkcs11Provider {
    profile: ProviderProfile,
    token: Arc<Token>,
}

impl Pkcs11Provider {
    /// Returns what was found out about the module.
    pub fn module_profile(&self) -> &ModuleProfile {
        &self.token.profile
    }

    /// Tells whether the PIN was refused when the token was connected again: it is not tried until the provider is opened anew.
    pub fn pin_refused(&self) -> bool {
        self.token.pin_refused()
    }

    /// Returns the module.
    pub fn module(&self) -> &Module {
        &self.token.module
    }

    /// Computes CMAC(root MAC key, messages\[0\]) ‖ CMAC(…, messages\[1\]), which the keys of the store and the audit derive from.
    ///
    /// # Errors
    /// `Rejected` where the token has no root MAC key.
    pub fn root_derive(&self, messages: [[u8; 16]; 2]) -> Result<Sensitive, ProviderError> {
        let derived = self.token.with_link(|link| {
            let missing = Failure::Missing { call: MAC_KEY_LABEL };
            let key = link.mac_key.ok_or(missing)?;
            let mut out = Sensitive::zeroed(32);
            for (half, message) in out.expose_mut().chunks_exact_mut(16).zip(&messages) {
                link.owner.sign_init(Mechanism::Plain(CKM_AES_CMAC), key)?;
                let bytes = link.owner.sign(message, half)?;
                if bytes != half.len() {
                    return Err(Failure::Overlong { call: "C_Sign", bytes });
                }
            }
            Ok(out)
        })?;
        Ok(derived)
    }

    /// Finalises the module and initialises it again, which some need after their device's own session died: the last rung of the
    /// ladder, for it drops every token of the module. What was loaded is stale, and the token is connected again at its next use.
    ///
    /// # Errors
    /// `Unavailable` where a call under way does not come back.
    pub fn restart_module(&self) -> Result<(), ProviderError> {
        let restarted = self.token.module.finalize().and_then(|()| self.token.module.initialize());
        restarted.map_err(|failure| ProviderError::Unavailable(failure.cause(failure.to_string())))
    }
}

impl CryptoProvider for Pkcs11Provider {
    fn profile(&self) -> &ProviderProfile {
        &self.profile
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        Ok(Box::new(Pkcs11Session::open(&self.token)?))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        Ok(Box::new(Pkcs11Custody::new(Arc::clone(&self.token))))
    }
}
