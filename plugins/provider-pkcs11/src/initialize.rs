//! Makes a token ready for keymill: the token itself where the slot is empty, the PINs, the domain's two keys that wrap and the root MAC
//! key, all generated inside, never to leave.

use std::fmt;
use std::path::PathBuf;

use cryptoki_sys::{CK_SLOT_ID, CKM_AES_KEY_GEN, CKR_USER_ALREADY_LOGGED_IN};
use keymill_core::Sensitive;

use crate::module::template::{domain_key, mac_key, private_domain_key};
use crate::module::{Failure, Mechanism, Module, TokenInfo, User};
use crate::{Config, DOMAIN_KEY_LABEL, MAC_KEY_LABEL, OpenError, PRIVATE_DOMAIN_KEY_LABEL, open_on};

/// Bytes of a token's label.
const LABEL_BYTES: usize = 32;

/// What a token is made with.
pub struct Initialize {
    /// The module's file.
    pub module: PathBuf,
    /// The label that the token has or is to have.
    pub token_label: String,
    /// The PIN of the security officer, where the token is yet to be made; one that exists is never made anew.
    pub so_pin: Option<Sensitive>,
    /// The user's PIN.
    pub pin: Sensitive,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// Whether the token itself was made; else it was there.
    pub token_made: bool,
    /// The token's serial number.
    pub serial: String,
    /// Whether the domain's keys say, through `CKA_UNWRAP_TEMPLATE`, what may come of its unwraps.
    pub unwraps_limited: bool,
}

/// Makes a token ready, and opens it once to see that it is.
///
/// # Errors
/// [`OpenError`] where it has its keys already, or lacks what keymill needs.
pub fn initialize(options: Initialize) -> Result<Initialized, OpenError> {
    let module = Module::load(&options.module).map_err(|error| OpenError::new(error.to_string()))?;
    let Initialize { module: path, token_label, so_pin, pin } = options;
    if token_label.is_empty() || token_label.len() > LABEL_BYTES {
        return Err(OpenError::new(format!("a token's label has 1 to {LABEL_BYTES} bytes")));
    }
    module.initialize().map_err(failed("the module"))?;
    let (token_made, slot) = match token(&module, &token_label)? {
        Some((slot, _)) => (false, slot),
        None => {
            let so_pin = so_pin.ok_or_else(|| {
                OpenError::new(format!(
                    "there is no token {token_label}, and no security officer's PIN to make one"
                ))
            })?;
            (true, make_token(&module, &token_label, &so_pin, &pin)?)
        }
    };
    let unwraps_limited = make_keys(&module, slot, &pin)?;
    let provider = open_on(module.clone(), Config::new(path, token_label, pin))?;
    let info = module.token_info(slot).map_err(failed("the new token"))?;
    drop(provider);
    Ok(Initialized { token_made, serial: info.serial, unwraps_limited })
}

fn failed(what: impl fmt::Display) -> impl Fn(Failure) -> OpenError {
    move |failure| OpenError::new(format!("{what}: {failure}"))
}

/// Finds the token of the label.
fn token(module: &Module, label: &str) -> Result<Option<(CK_SLOT_ID, TokenInfo)>, OpenError> {
    let slots = module.slots().map_err(failed("the slots"))?;
    let tokens = slots.into_iter().filter_map(|slot| Some((slot, module.token_info(slot).ok()?)));
    let mut found = tokens.filter(|(_, info)| info.initialized && info.label == label);
    let first = found.next();
    if found.next().is_some() {
        return Err(OpenError::new(format!("two tokens have the label {label}")));
    }
    Ok(first)
}

/// Makes a token in the first slot that has an empty one, and sets its PINs.
fn make_token(
    module: &Module,
    label: &str,
    so_pin: &Sensitive,
    pin: &Sensitive,
) -> Result<CK_SLOT_ID, OpenError> {
    let slots = module.slots().map_err(failed("the slots"))?;
    let empty = |slot: &CK_SLOT_ID| module.token_info(*slot).is_ok_and(|info| !info.initialized);
    let slot = slots.into_iter().find(empty).ok_or_else(|| OpenError::new("no slot has an empty token"))?;
    module.init_token(slot, so_pin, label).map_err(failed("the token is not made"))?;
    // It may have moved.
    let (slot, _) = token(module, label)?.ok_or_else(|| OpenError::new("the new token is not found"))?;
    let session = module.open_session(slot, true).map_err(failed("the new token"))?;
    session.login(User::SecurityOfficer, so_pin).map_err(failed("the security officer"))?;
    let set = session.init_pin(pin).map_err(failed("the user's PIN"));
    session.logout().map_err(failed("the security officer"))?;
    set?;
    Ok(slot)
}

/// Makes the three keys, and tells whether those that unwrap limit what comes of it.
fn make_keys(module: &Module, slot: CK_SLOT_ID, pin: &Sensitive) -> Result<bool, OpenError> {
    use crate::module::Attribute;
    use cryptoki_sys::{CKA_CLASS, CKA_LABEL, CKA_TOKEN, CKO_SECRET_KEY};

    let session = module.open_session(slot, true).map_err(failed("the token"))?;
    match session.login(User::User, pin) {
        Err(failure) if !failure.is(CKR_USER_ALREADY_LOGGED_IN) => return Err(failed("the user")(failure)),
        _ => {}
    }
    for label in [DOMAIN_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, MAC_KEY_LABEL] {
        let found = session.find_objects(&[
            Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
            Attribute::flag(CKA_TOKEN, true),
            Attribute::bytes(CKA_LABEL, label.as_bytes()),
        ]);
        if !found.map_err(failed("the token's keys"))?.is_empty() {
            return Err(OpenError::new(format!("the token has a key {label} already")));
        }
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| OpenError::new("the operating system gave no random bytes"))?;
    let generate =
        |template: &[Attribute<'_>]| session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), template);
    let mut limited = true;
    for (label, template) in [
        (DOMAIN_KEY_LABEL, domain_key as for<'a> fn(&'a str, &'a [u8], bool) -> Vec<Attribute<'a>>),
        (PRIVATE_DOMAIN_KEY_LABEL, private_domain_key),
    ] {
        if generate(&template(label, &id, true)).is_err() {
            // A module that does not know the attribute: opening it warns.
            limited = false;
            generate(&template(label, &id, false)).map_err(failed(format!("the key {label} is not made")))?;
        }
    }
    generate(&mac_key(MAC_KEY_LABEL, &id)).map_err(failed("the root MAC key is not made"))?;
    Ok(limited)
}
