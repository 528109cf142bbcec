//! Makes a token ready for keymill: the token itself where the slot is empty, the PINs, and the keys of a domain of its own, generated
//! inside, never to leave. A run that was cut short is completed by the next: what is there stays, what lacks is made.

use std::path::PathBuf;

use cryptoki_sys::{CK_SLOT_ID, CKA_ID, CKM_AES_KEY_GEN, CKR_USER_ALREADY_LOGGED_IN};
use keymill_core::Sensitive;

use crate::connect::{check_pin_state, find_token, load};
use crate::domain::{DOMAIN_KEYS, Does, find, label_in, unlike};
use crate::module::{Class, Failure, Mechanism, Module, Object, Session, User};
use crate::{Config, DOMAIN_KEY_LABEL, OpenError, OpenErrorKind, ceremony, open_on};

/// Bytes of a token's label.
const LABEL_BYTES: usize = 32;
/// Bytes of the id that the keys of one domain share.
pub(crate) const ID_BYTES: usize = 16;

/// What a token is made with.
pub struct Initialize {
    /// The module's file.
    pub module: PathBuf,
    /// The label that the token has or is to have.
    pub token_label: String,
    /// Its serial number, where two tokens have one label.
    pub token_serial: Option<String>,
    /// The name of the domain whose keys it gets; `None`: of that without one.
    pub domain: Option<String>,
    /// The PIN of the security officer, where the token or its user's PIN is yet to be made; a token that exists is never made anew.
    pub so_pin: Option<Sensitive>,
    /// The user's PIN.
    pub pin: Sensitive,
    /// Whether the token gets keys; one that is to join a domain gets them there.
    pub keys: bool,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// Whether the token itself was made; else it was there.
    pub token_made: bool,
    /// The token's serial number.
    pub serial: String,
    /// Its keys, where it was to get them.
    pub keys: Option<MadeKeys>,
}

/// The keys of a token that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeKeys {
    /// Those that an interrupted run had left there, and that were kept.
    pub kept: Vec<&'static str>,
    /// Whether what unwraps can be used, and not read.
    pub unwraps_limited: bool,
}

/// Makes a token ready, and opens it once to see that it is.
///
/// # Errors
/// [`OpenError`] where it has its keys already, or lacks what keymill needs.
pub fn initialize(options: Initialize) -> Result<Initialized, OpenError> {
    let module = load(&options.module)?;
    let Initialize { module: path, token_label, token_serial, domain, so_pin, pin, keys } = options;
    if token_label.is_empty() || token_label.len() > LABEL_BYTES {
        let why = format!("a token's label has 1 to {LABEL_BYTES} bytes");
        return Err(OpenError::new(OpenErrorKind::Input, why));
    }
    module.initialize().map_err(OpenError::because("the module"))?;
    let no_so_pin = |what: String| OpenError::new(OpenErrorKind::Pin, what);
    let (token_made, slot) = match find_token(&module, &token_label, token_serial.as_deref()) {
        Ok((slot, info)) => {
            if !info.pin_set {
                // An earlier run ended before it came to that.
                let so_pin = so_pin.ok_or_else(|| {
                    no_so_pin(format!(
                        "token {token_label} has no PIN yet, and there is no security officer's PIN to set it"
                    ))
                })?;
                set_pin(&module, slot, &so_pin, &pin)?;
            } else {
                check_pin_state(&info)?;
            }
            (false, slot)
        }
        // Two of one label, or a serial number that fits none, make no new token.
        Err(refusal) if refusal.class == Class::TokenGone && token_serial.is_none() => {
            let so_pin = so_pin.ok_or_else(|| {
                no_so_pin(format!(
                    "there is no token {token_label}, and no security officer's PIN to make one"
                ))
            })?;
            (true, make_token(&module, &token_label, &so_pin, &pin)?)
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let serial = module.token_info(slot).map_err(OpenError::because("the new token"))?.serial;
    if !keys {
        return Ok(Initialized { token_made, serial, keys: None });
    }
    let kept = make_keys(&module, slot, domain.as_deref(), &pin)?;
    let mut config = Config::new(path, token_label, pin);
    config.token_serial = Some(serial.clone());
    config.domain = domain;
    let unwraps_limited = open_on(module, config)?.module_profile().unwraps_limited();
    Ok(Initialized { token_made, serial, keys: Some(MadeKeys { kept, unwraps_limited }) })
}

/// Makes a token in the first slot that has an empty one, and sets its PINs.
fn make_token(
    module: &Module,
    label: &str,
    so_pin: &Sensitive,
    pin: &Sensitive,
) -> Result<CK_SLOT_ID, OpenError> {
    let slots = module.slots().map_err(OpenError::because("the slots"))?;
    let empty = |slot: &CK_SLOT_ID| module.token_info(*slot).is_ok_and(|info| !info.initialized);
    let none = || OpenError::new(OpenErrorKind::NoSuchToken, "no slot has an empty token");
    let slot = slots.into_iter().find(empty).ok_or_else(none)?;
    module.init_token(slot, so_pin, label).map_err(OpenError::because("the token is not made"))?;
    // It may have moved.
    let (slot, _) = find_token(module, label, None)?;
    set_pin(module, slot, so_pin, pin)?;
    Ok(slot)
}

fn set_pin(module: &Module, slot: CK_SLOT_ID, so_pin: &Sensitive, pin: &Sensitive) -> Result<(), OpenError> {
    let session = module.open_session(slot, true).map_err(OpenError::because("the new token"))?;
    session.login(User::SecurityOfficer, so_pin).map_err(OpenError::because("the security officer"))?;
    let set = session.init_pin(pin).map_err(OpenError::because("the user's PIN"));
    session.logout().map_err(OpenError::because("the security officer"))?;
    set
}

/// Makes the keys that lack, and returns the labels of those that were there.
fn make_keys(
    module: &Module,
    slot: CK_SLOT_ID,
    domain: Option<&str>,
    pin: &Sensitive,
) -> Result<Vec<&'static str>, OpenError> {
    let session = module.open_session(slot, true).map_err(OpenError::because("the token"))?;
    match session.login(User::User, pin) {
        Err(failure) if !failure.is(CKR_USER_ALREADY_LOGGED_IN) => {
            return Err(OpenError::because("the user")(failure));
        }
        _ => {}
    }
    ceremony::refuse_unfinished(&session)?;
    let mut found: Vec<(&'static str, Object)> = Vec::new();
    for key in &DOMAIN_KEYS {
        let objects =
            find(&session, &label_in(key.label, domain)).map_err(OpenError::because("the token's keys"))?;
        found.extend(objects.first().map(|object| (key.label, *object)));
    }
    // It is made last: where it is, the token may be in use, and one of several, which would have to have whatever is made here, too.
    if found.iter().any(|(label, _)| *label == DOMAIN_KEY_LABEL) {
        let why =
            format!("the token has a key {} already, and may be in use", label_in(DOMAIN_KEY_LABEL, domain));
        return Err(OpenError::new(OpenErrorKind::Occupied, why));
    }
    let id = match found.first() {
        Some((_, object)) => read_id(&session, *object)?,
        None => fresh_id()?,
    };
    let kept: Vec<_> = found.iter().map(|(label, _)| *label).collect();
    for key in DOMAIN_KEYS.iter().filter(|key| !kept.contains(&key.label)) {
        let label = label_in(key.label, domain);
        let generate = |limited| {
            let template = (key.template)(&label, &id, limited);
            let made = session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template)?;
            Ok::<_, Failure>((made, template))
        };
        // A module may not know the attribute that limits unwraps: opening the token warns.
        let made = match generate(true) {
            Err(failure)
                if key.does == Does::Wraps
                    && matches!(failure.class(), Class::Other | Class::Unsupported) =>
            {
                generate(false)
            }
            other => other,
        };
        let (made, template) =
            made.map_err(OpenError::because(format_args!("key {} is not made", key.label)))?;
        if let Some(kind) = unlike(&session, made, &template).map_err(OpenError::because(key.label))? {
            session
                .destroy_object(made)
                .map_err(OpenError::because(format_args!("key {} stays", key.label)))?;
            let why = format!("attribute 0x{kind:x} of key {} is not as it was asked for", key.label);
            return Err(OpenError::new(OpenErrorKind::Lacking, why));
        }
    }
    Ok(kept)
}

pub(crate) fn fresh_id() -> Result<[u8; ID_BYTES], OpenError> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id).map_err(|_| OpenError::other("the operating system gave no random bytes"))?;
    Ok(id)
}

fn read_id(session: &Session, object: Object) -> Result<[u8; ID_BYTES], OpenError> {
    let mut id = [0; ID_BYTES];
    session.attribute(object, CKA_ID, &mut id).map_err(OpenError::because("the id of the token's keys"))?;
    Ok(id)
}
