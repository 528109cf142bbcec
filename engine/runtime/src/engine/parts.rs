//! What an engine is made of, and what comes of its start beside it.

use std::fmt;
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::id::{AccessKeyId, InstanceId};
use keymill_core::seam::audit::{AuditError, AuditLog};
use keymill_core::seam::auth::Authenticator;
use keymill_core::seam::provider::CryptoProvider;
use keymill_core::seam::store::{Store, StoreError};
use keymill_crypto::derived::{DerivedKeys, cmac_pair};
use keymill_crypto::record::RecordSealer;
use keymill_crypto::root::RootKeys;

use crate::clock::Clock;
use crate::config::EngineConfig;
use crate::pool::TokenPart;
use crate::records::{self, InstallationRecord, Kind};

/// What an engine is made of.
pub struct Parts {
    /// Its options.
    pub config: EngineConfig,
    /// Its clock.
    pub clock: Clock,
    /// Where records are kept.
    pub store: Arc<dyn Store>,
    /// What computes.
    pub provider: Arc<dyn CryptoProvider>,
    /// Who checks credentials.
    pub authenticators: Vec<Box<dyn Authenticator>>,
    /// Where audit chains are kept.
    pub audit: Arc<dyn AuditLog>,
    /// The tokens, if there are any.
    pub tokens: Vec<TokenPart>,
    /// The root of trust.
    pub root: Root,
    /// The name of this node in the audit.
    pub node: String,
}

/// The root of trust: what the engine's own keys are derived by.
pub enum Root {
    /// Keys in this process.
    Keys(RootKeys),
    /// The root MAC key in a token: returns CMAC(key, messages\[0\]) ‖ CMAC(key, messages\[1\]); why not, else.
    Token(DeriveInToken),
}

/// Computes two CMACs by the root MAC key of a token.
pub type DeriveInToken = Box<dyn FnMut([[u8; 16]; 2]) -> std::result::Result<Sensitive, String> + Send>;

impl Root {
    /// Tells whether the records of an instance open by the keys that come of this root for it; where nothing was ever kept, they do by any.
    ///
    /// # Errors
    /// [`EngineError`] where the root or the store cannot be asked.
    pub fn opens(&mut self, store: &dyn Store, instance: &InstanceId) -> Result<bool, EngineError> {
        let failed = |error: &dyn fmt::Display| EngineError::passing(format!("root: {error}"));
        let derived = DerivedKeys::derive(1, instance, &mut |messages| self.derive(messages));
        let sealer = RecordSealer::new(&derived.map_err(|e| failed(&e))?.storage).map_err(|e| failed(&e))?;
        let kept = store.get(&records::installation_path())?;
        Ok(kept.is_none_or(|entry| {
            let (path, kind) = (&entry.path, Kind::Installation);
            records::open::<InstallationRecord>(&sealer, path, kind, &entry.value).is_ok()
        }))
    }

    pub(super) fn derive(&mut self, messages: [[u8; 16]; 2]) -> std::result::Result<Sensitive, String> {
        match self {
            Root::Keys(keys) => Ok(cmac_pair(&keys.mac, messages)),
            Root::Token(derive) => derive(messages),
        }
    }
}

impl From<RootKeys> for Root {
    fn from(keys: RootKeys) -> Self {
        Self::Keys(keys)
    }
}

/// The access key that a first start makes; its secret is shown once.
pub struct Bootstrap {
    /// The id.
    pub id: AccessKeyId,
    /// The secret.
    pub secret: Sensitive,
}

/// Why an engine does not start.
#[derive(Debug)]
pub struct EngineError {
    why: String,
    may_pass: bool,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for EngineError {}

impl EngineError {
    /// Says why, of what stays so until somebody acts.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_pass: false }
    }

    /// Says why, of what may come right by itself.
    pub fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_pass: true }
    }

    /// Tells whether it may start later though nobody acts: the store or the token of its root is away.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    pub(super) fn because(what: &'static str) -> impl Fn(&dyn fmt::Display) -> Self {
        move |why| Self::new(format!("{what}: {why}"))
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        let why = format!("store: {error}");
        match error {
            StoreError::OtherHistory(_) | StoreError::Corrupt(_) => Self::new(why),
            StoreError::Unavailable(_)
            | StoreError::Full(_)
            | StoreError::Conflict(_)
            | StoreError::Compacted => Self::passing(why),
        }
    }
}

impl From<AuditError> for EngineError {
    fn from(error: AuditError) -> Self {
        let why = format!("audit log: {error}");
        match error {
            // By an engine of the same instance that has not quite ended, as where its release was taken back.
            AuditError::Taken(_) | AuditError::Full(_) | AuditError::Blocked(_) => Self::passing(why),
            AuditError::Failed(_) => Self::new(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_away_or_taken_may_come_back_and_a_store_that_is_damaged_stays_so() {
        assert!(EngineError::from(StoreError::Unavailable("no answer".into())).may_pass());
        let damaged = EngineError::from(StoreError::Corrupt("another root's".into()));
        assert!(EngineError::from(AuditError::Taken("its last engine".into())).may_pass());
        assert!(!damaged.may_pass() && damaged.to_string().starts_with("store: the store is damaged"));
    }
}
