//! The way to a token: found by its label, logged in to with one try, its keys found and looked at.

use cryptoki_sys::{
    CK_SLOT_ID, CKA_CLASS, CKA_EXTRACTABLE, CKA_LABEL, CKA_SENSITIVE, CKA_TOKEN, CKO_SECRET_KEY,
    CKR_USER_ALREADY_LOGGED_IN,
};
use keymill_core::seam::provider::ProviderError;

use crate::config::Config;
use crate::kind::Kind;
use crate::module::{Attribute, Class, Failure, Module, Object, Session, TokenInfo, User};
use crate::{DOMAIN_KEY_LABEL, MAC_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL};

/// A connection that still lacks what the profile says how to make.
pub(crate) struct Bare {
    pub(crate) slot: CK_SLOT_ID,
    pub(crate) anchor: Session,
    pub(crate) owner: Session,
    pub(crate) domain: Domain,
    pub(crate) mac_key: Option<Object>,
}

/// The keys of a domain that wrap.
#[derive(Clone, Copy)]
pub(crate) struct Domain {
    /// Secret keys.
    pub(crate) secret: Object,
    /// Private keys, where the token was initialised for them.
    pub(crate) private: Option<Object>,
}

impl Domain {
    /// Returns the key that wraps keys of this kind.
    pub(crate) fn key(self, kind: Kind) -> Result<Object, Failure> {
        match kind.spec().is_key_pair() {
            true => self.private.ok_or(Failure::Missing { call: PRIVATE_DOMAIN_KEY_LABEL }),
            false => Ok(self.secret),
        }
    }
}

/// Finds the token, opens its two sessions, logs in, finds its keys.
pub(crate) fn connect(module: &Module, config: &Config) -> Result<Bare, Refusal> {
    module.initialize()?;
    let (slot, info) = find_token(module, config)?;
    let pin = |why: &str| Refusal { why: format!("token {}: {why}", config.token_label), class: Class::Pin };
    if !info.pin_set {
        return Err(pin("its PIN has not been set"));
    }
    if info.pin_locked {
        return Err(pin("its PIN is locked"));
    }
    if info.pin_final_try {
        return Err(pin("one more wrong PIN locks it, so none is tried"));
    }
    let anchor = module.open_session(slot, false)?;
    let owner = module.open_session(slot, false)?;
    match owner.login(User::User, &config.pin) {
        Ok(()) => {}
        Err(failure) if failure.is(CKR_USER_ALREADY_LOGGED_IN) => {}
        Err(failure) if failure.class() == Class::Pin => {
            return Err(pin(&format!("{failure}; it is not tried again until the provider is opened anew")));
        }
        Err(failure) => return Err(failure.into()),
    }
    let domain_key = find_key(&owner, DOMAIN_KEY_LABEL)?.ok_or_else(|| Refusal {
        why: format!(
            "token {} has no key {DOMAIN_KEY_LABEL}: it was not initialised for keymill",
            config.token_label
        ),
        class: Class::Other,
    })?;
    let domain = Domain { secret: domain_key, private: find_key(&owner, PRIVATE_DOMAIN_KEY_LABEL)? };
    let mac_key = find_key(&owner, MAC_KEY_LABEL)?;
    Ok(Bare { slot, anchor, owner, domain, mac_key })
}

/// Finds the one token of the label, and serial number where one is said.
fn find_token(module: &Module, config: &Config) -> Result<(CK_SLOT_ID, TokenInfo), Refusal> {
    let mut found = Vec::new();
    let mut failed = None;
    for slot in module.slots()? {
        match module.token_info(slot) {
            Ok(info) => {
                let serial = config.token_serial.as_ref().is_none_or(|serial| *serial == info.serial);
                if info.initialized && info.label == config.token_label && serial {
                    found.push((slot, info));
                }
            }
            // Another token's trouble is not ours, unless ours is not found.
            Err(failure) => failed = Some(failure),
        }
    }
    match (found.len(), failed) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(failure)) => Err(failure.into()),
        (0, None) => {
            Err(Refusal { why: format!("there is no token {}", config.token_label), class: Class::TokenGone })
        }
        (count, _) => Err(Refusal {
            why: format!("{count} tokens have the label {}: say the serial number", config.token_label),
            class: Class::Other,
        }),
    }
}

/// Finds the one key of a label, and refuses it where it could leave the token.
fn find_key(session: &Session, label: &str) -> Result<Option<Object>, Refusal> {
    let refused = |why: String| Refusal { why, class: Class::Other };
    let found = session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::bytes(CKA_LABEL, label.as_bytes()),
    ])?;
    match found[..] {
        [] => Ok(None),
        [key] => {
            if session.flag(key, CKA_EXTRACTABLE)? || !session.flag(key, CKA_SENSITIVE)? {
                return Err(refused(format!("key {label} could be taken out of the token")));
            }
            Ok(Some(key))
        }
        _ => Err(refused(format!("{} keys have the label {label}", found.len()))),
    }
}

/// Tells whether a failure may be one of the connection, not of the call.
pub(crate) fn casts_doubt(failure: &Failure) -> bool {
    matches!(
        failure.class(),
        Class::SessionGone
            | Class::TokenGone
            | Class::ModuleGone
            | Class::Login
            | Class::Object
            | Class::Active
            | Class::Ambiguous
    )
}

/// Tells whether a failure can be the fault of the data of the call.
pub(crate) fn may_be_data(failure: &Failure) -> bool {
    matches!(failure.class(), Class::Data | Class::Ambiguous | Class::Other)
}

/// Why the token does not serve.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) why: String,
    pub(crate) class: Class,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { why: failure.to_string(), class: failure.class() }
    }
}

impl From<Refusal> for ProviderError {
    fn from(refusal: Refusal) -> Self {
        match refusal.class {
            Class::Unsupported => ProviderError::Rejected(refusal.why),
            _ => ProviderError::Unavailable(refusal.why),
        }
    }
}
