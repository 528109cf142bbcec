//! Which kinds of keys are made here, where, and in which mode: what the request leaves open the installation decides.

use std::sync::Arc;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::key::{BulkMode, Fallback, KeySpec, KeyUsage, ProtectionLevel};

use super::Gate;
use super::parameters::{check_modes, is_symmetric};
use crate::pool::token::Token;

impl Gate {
    /// Returns the place of the token that a key is taken over from.
    pub(super) fn token_of_adoption(&self, name: Option<&str>) -> Result<usize> {
        // A token holds keys of the installation and of others beside: by a label, each could be had.
        if self.own_instance().is_some() {
            let why = "an instance takes no keys over that a token holds";
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        match (name, self.0.shared.pool.tokens.len()) {
            (_, 0) => {
                let why = "no crypto pool of this installation has a hardware security module";
                Err(Error::new(ErrorKind::Unsupported, why))
            }
            (Some(name), _) => self.find_token(name),
            (None, 1) => Ok(0),
            (None, tokens) => {
                let why = format!("the pool has {tokens} tokens: TokenName says which one");
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }

    pub(super) fn find_token(&self, name: &str) -> Result<usize> {
        let is_it = |token: &Arc<Token>| token.config.name == name && token.is_about();
        let found = self.0.shared.pool.tokens.iter().position(is_it);
        found
            .ok_or_else(|| Error::new(ErrorKind::InvalidParameter, "no token of the pool has this TokenName"))
    }

    /// Returns the bulk mode of a symmetric key to be made in a token; `None` for any other.
    pub(super) fn bulk_mode(
        &self,
        spec: KeySpec,
        protection: ProtectionLevel,
        mode: Option<BulkMode>,
    ) -> Result<Option<BulkMode>> {
        let invalid = |why| Err(Error::new(ErrorKind::InvalidParameter, why));
        match (protection, is_symmetric(spec), mode) {
            (ProtectionLevel::Hsm, true, Some(mode)) => Ok(Some(mode)),
            // Subkeys derive from a key of 256 bits alone.
            (ProtectionLevel::Hsm, true, None) if spec != KeySpec::Aes256 => Ok(Some(BulkMode::InHsm)),
            (ProtectionLevel::Hsm, true, None) => Ok(Some(self.0.shared.config.bulk_mode)),
            (_, _, None) => Ok(None),
            (ProtectionLevel::Software, _, Some(_)) => invalid("BulkMode is for keys of ProtectionLevel HSM"),
            (ProtectionLevel::Hsm, false, Some(_)) => invalid("BulkMode is for symmetric keys"),
        }
    }

    /// Checks that keys of this kind are made here.
    pub(super) fn check_offered(
        &self,
        spec: KeySpec,
        usage: KeyUsage,
        protection: ProtectionLevel,
        bulk_mode: Option<BulkMode>,
    ) -> Result<()> {
        check_modes(spec, usage, bulk_mode)?;
        let shared = &self.0.shared;
        match protection {
            ProtectionLevel::Hsm => shared.pool.check(spec, usage, bulk_mode),
            ProtectionLevel::Software if shared.provider.profile().offers(spec, usage) => Ok(()),
            ProtectionLevel::Software => {
                let why = format!("this installation makes no keys of KeySpec {}", spec.name());
                Err(Error::new(ErrorKind::Unsupported, why))
            }
        }
    }

    /// Returns when a key to be made may fall back to software: only where it is asked for, and at most when the pool does.
    pub(super) fn fallback(
        &self,
        protection: ProtectionLevel,
        bulk_mode: Option<BulkMode>,
        asked: Option<Fallback>,
    ) -> Result<Fallback> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        let allowed = self.0.shared.config.pool.fallback;
        match (bulk_mode, asked) {
            (_, None) => Ok(Fallback::Never),
            (None, Some(_)) if protection == ProtectionLevel::Software => {
                invalid("Fallback is for keys of ProtectionLevel HSM".into())
            }
            // Its copy would have to enter the token as a private key, which no module that was seen takes without showing it to the host.
            (None, Some(Fallback::Never)) => Ok(Fallback::Never),
            (None, Some(_)) => invalid("Fallback is for symmetric keys".into()),
            (Some(_), Some(fallback)) if fallback > allowed => invalid(format!(
                "Fallback of {} is more than the pool allows, which is {}",
                fallback.name(),
                allowed.name()
            )),
            (Some(_), Some(fallback)) => Ok(fallback),
        }
    }
}
