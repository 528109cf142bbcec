//! What an engine is made of, and what comes of its start beside it.

use std::fmt;
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::id::AccessKeyId;
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::auth::Authenticator;
use keymill_core::seam::provider::CryptoProvider;
use keymill_core::seam::store::Store;
use keymill_crypto::derived::cmac_pair;
use keymill_crypto::root::RootKeys;

use crate::clock::Clock;
use crate::config::EngineConfig;
use crate::pool::TokenPart;

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
pub struct EngineError(pub String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

impl EngineError {
    pub(super) fn because(what: &'static str) -> impl Fn(&dyn fmt::Display) -> Self {
        move |why| Self(format!("{what}: {why}"))
    }
}
