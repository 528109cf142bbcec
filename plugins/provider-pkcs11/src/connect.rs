//! The way to a token: found by its label, logged in to with one try, its keys found and looked at.

use std::path::Path;

use cryptoki_sys::{
    CK_SLOT_ID, CKA_CLASS, CKA_EXTRACTABLE, CKA_LABEL, CKA_SENSITIVE, CKA_TOKEN, CKO_SECRET_KEY,
    CKR_USER_ALREADY_LOGGED_IN,
};
use keymill_core::Sensitive;
use keymill_core::seam::provider::{Cause, FailureCode, ProviderError};

use crate::config::Config;
use crate::domain::{Domain, label_in};
use crate::error::{OpenError, OpenErrorKind};
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

/// Finds the token, opens its two sessions, logs in, finds its keys.
pub(crate) fn connect(module: &Module, config: &Config, pin: &Sensitive) -> Result<Bare, Refusal> {
    start(module)?;
    let (slot, info) = find_token(module, &config.token_label, config.token_serial.as_deref())?;
    let label = &config.token_label;
    check_pin_state(&info)?;
    let anchor = module.open_session(slot, false)?;
    let owner = module.open_session(slot, false)?;
    match owner.login(User::User, pin) {
        Ok(()) => {}
        Err(failure) if failure.is(CKR_USER_ALREADY_LOGGED_IN) => {}
        Err(failure) if failure.class() == Class::Pin => {
            return Err(Refusal::pin(
                label,
                &format!("{failure}; it is not tried again until the provider is opened anew"),
            ));
        }
        Err(failure) => return Err(failure.into()),
    }
    let of_domain = |label: &str| label_in(label, config.domain.as_deref());
    let domain_key = find_key(&owner, &of_domain(DOMAIN_KEY_LABEL))?.ok_or_else(|| Refusal {
        why: match &config.domain {
            Some(domain) => {
                format!(
                    "token {label} does not hold the domain {domain}: it has no key {}",
                    of_domain(DOMAIN_KEY_LABEL)
                )
            }
            None => {
                format!("token {label} has no key {DOMAIN_KEY_LABEL}: it was not initialised for keymill")
            }
        },
        class: Class::Other,
        code: None,
        kind: Some(OpenErrorKind::NotInitialized),
    })?;
    let domain =
        Domain { secret: domain_key, private: find_key(&owner, &of_domain(PRIVATE_DOMAIN_KEY_LABEL))? };
    let mac_key = find_key(&owner, &of_domain(MAC_KEY_LABEL))?;
    Ok(Bare { slot, anchor, owner, domain, mac_key })
}

/// Loads a module, or says that there is none.
pub(crate) fn load(path: &Path) -> Result<Module, OpenError> {
    Module::load(path).map_err(|error| OpenError::new(OpenErrorKind::Module, error.to_string()))
}

fn start(module: &Module) -> Result<(), Refusal> {
    module
        .initialize()
        .map_err(|failure| Refusal { kind: Some(OpenErrorKind::Module), ..Refusal::from(failure) })
}

/// Refuses a token whose PIN should not be tried now: a wrong one could lock it.
pub(crate) fn check_pin_state(info: &TokenInfo) -> Result<(), Refusal> {
    let refused = |why: &str| Err(Refusal::pin(&info.label, why));
    match info {
        TokenInfo { pin_set: false, .. } => refused("its PIN has not been set"),
        TokenInfo { pin_locked: true, .. } => refused("its PIN is locked"),
        TokenInfo { pin_final_try: true, .. } => refused("one more wrong PIN locks it, so none is tried"),
        _ => Ok(()),
    }
}

/// Finds the one token of the label, and serial number where one is said.
pub(crate) fn find_token(
    module: &Module,
    label: &str,
    serial: Option<&str>,
) -> Result<(CK_SLOT_ID, TokenInfo), Refusal> {
    let mut found = Vec::new();
    let mut failed = None;
    for slot in module.slots()? {
        match module.token_info(slot) {
            Ok(info) => {
                let serial = serial.is_none_or(|serial| *serial == info.serial);
                if info.initialized && info.label == label && serial {
                    found.push((slot, info));
                }
            }
            // Another token's trouble is not ours, unless ours is not found.
            Err(failure) => failed = Some(failure),
        }
    }
    let kind = Some(OpenErrorKind::NoSuchToken);
    match (found.len(), failed) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(failure)) => Err(failure.into()),
        (0, None) => {
            let serial = serial.map(|serial| format!(" with serial number {serial}")).unwrap_or_default();
            Err(Refusal {
                why: format!("there is no token {label}{serial}"),
                class: Class::TokenGone,
                code: None,
                kind,
            })
        }
        (count, _) => Err(Refusal {
            why: format!("{count} tokens have the label {label}: say the serial number"),
            class: Class::Other,
            code: None,
            kind,
        }),
    }
}

/// Finds the one key of a label, and refuses it where it could leave the token.
fn find_key(session: &Session, label: &str) -> Result<Option<Object>, Refusal> {
    let refused = |why: String| Refusal { why, class: Class::Other, code: None, kind: None };
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
    /// What the module returned, where that is why.
    pub(crate) code: Option<FailureCode>,
    /// What an operator is told, where the class does not say it.
    pub(crate) kind: Option<OpenErrorKind>,
}

impl Refusal {
    fn pin(label: &str, why: &str) -> Self {
        Self { why: format!("token {label}: {why}"), class: Class::Pin, code: None, kind: None }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { why: failure.to_string(), class: failure.class(), code: failure.code(), kind: None }
    }
}

impl From<Refusal> for ProviderError {
    fn from(refusal: Refusal) -> Self {
        match refusal.class {
            Class::Unsupported => ProviderError::Rejected(refusal.why),
            _ => ProviderError::Unavailable(Cause { reason: refusal.why, code: refusal.code }),
        }
    }
}
