//! Checks on the module itself: whether the domain key gives readable keys away, whether sessions come and go without a trace, and
//! which mechanisms there are.

use keymill_core::Sensitive;
use keymill_core::seam::provider::{KeyMaterial, StoredKey};
use serde::Serialize;

use super::check::{Looked, Seen};
use crate::plugins::pkcs11::ModuleProfile;
use crate::plugins::pkcs11::module::number::*;
use crate::plugins::pkcs11::module::{Attribute, Module, Session};

/// Sessions opened and closed one after the other.
const SESSIONS: usize = 100;

/// Tries to unwrap a stored key as one whose value can be read, and to read it.
pub(super) fn forbidden_unwrap(
    session: &Session,
    domain_key: &str,
    stored: &StoredKey,
    profile: &ModuleProfile,
) -> Looked {
    let KeyMaterial::Wrapped(wrapped) = &stored.material else {
        return Err(Seen::wrong("the token gave a key in clear"));
    };
    let found = session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::bytes(CKA_LABEL, domain_key.as_bytes()),
    ])?;
    let [domain_key] = found[..] else {
        return Err(Seen::wrong(format!("{} domain keys are found", found.len())));
    };
    let mut readable = vec![
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_SENSITIVE, false),
        Attribute::flag(CKA_EXTRACTABLE, true),
    ];
    if profile.unwrap_value_len {
        readable.push(Attribute::number(CKA_VALUE_LEN, 32));
    }
    let key = match session.unwrap_key(profile.wrap.mechanism(), domain_key, wrapped, &readable) {
        Err(failure) => {
            return Ok(
                Seen::ok(format!("a stored key does not unwrap as a readable one: {failure}")).optional()
            );
        }
        Ok(key) => key,
    };
    let mut value = Sensitive::zeroed(64);
    let read = session.attribute(key, CKA_VALUE, value.expose_mut());
    let _ = session.destroy_object(key);
    Ok(match read {
        Err(_) => Seen::ok("a stored key unwraps as one that cannot be read, whatever is asked for").optional(),
        Ok(_) => Seen::wrong(
            "a stored key unwraps as a readable one, and its value was read: whoever has the PIN and a copy of the store can do so",
        )
        .optional()
        .next("guard the PIN and the store apart; a domain key of `keymill hsm init`, on a module that honours CKA_UNWRAP_TEMPLATE, refuses this"),
    })
}

/// Opens and closes sessions, and looks whether one stays.
pub(super) fn sessions(module: &Module, slot: CK_SLOT_ID) -> Looked {
    let open = || module.token_info(slot).map(|info| info.open_sessions);
    let before = open()?;
    for number in 1..=SESSIONS {
        let opened = module.open_session(slot, false).and_then(|session| session.random(&mut [0; 16]));
        opened.map_err(|failure| Seen::wrong(format!("session {number} of {SESSIONS} fails: {failure}")))?;
    }
    match (before, open()?) {
        (Some(before), Some(after)) if after > before => Err(Seen::wrong(format!(
            "{before} sessions were open before, and {after} are after: closed ones stay"
        ))),
        (Some(_), Some(_)) => Ok(Seen::ok(format!("{SESSIONS} opened, used and closed; none stays"))),
        _ => Ok(Seen::ok(format!("{SESSIONS} opened, used and closed; the token does not count them"))),
    }
}

/// A mechanism that a later feature uses, and whether the token has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Offer {
    pub(super) feature: &'static str,
    pub(super) mechanism: &'static str,
    pub(super) offered: bool,
    /// The smallest and the largest key, in whatever unit the module counts.
    pub(super) key_sizes: Option<(CK_ULONG, CK_ULONG)>,
}

impl Offer {
    pub(super) fn shown(&self) -> String {
        match (self.offered, self.key_sizes) {
            (false, _) => "no".to_owned(),
            (true, Some((smallest, largest))) if largest > 0 => {
                format!("yes, keys of {smallest} to {largest}")
            }
            (true, _) => "yes".to_owned(),
        }
    }
}

/// What nothing of today needs.
const LATER: [(&str, &str, CK_MECHANISM_TYPE); 4] = [
    ("Ed25519 keys", "CKM_EC_EDWARDS_KEY_PAIR_GEN", CKM_EC_EDWARDS_KEY_PAIR_GEN),
    ("Ed25519 signatures", "CKM_EDDSA", CKM_EDDSA),
    ("key agreement", "CKM_ECDH1_DERIVE", CKM_ECDH1_DERIVE),
    ("import by RSA", "CKM_RSA_AES_KEY_WRAP", CKM_RSA_AES_KEY_WRAP),
];

/// Lists which of the mechanisms of later features the token has.
pub(super) fn offers(module: &Module, slot: CK_SLOT_ID) -> Vec<Offer> {
    let list = module.mechanisms(slot).unwrap_or_default();
    let offer = |(feature, mechanism, number)| {
        let offered = list.contains(&number);
        let info = offered.then(|| module.mechanism_info(slot, number).ok()).flatten();
        Offer {
            feature,
            mechanism,
            offered,
            key_sizes: info.map(|info| (info.ulMinKeySize, info.ulMaxKeySize)),
        }
    };
    LATER.into_iter().map(offer).collect()
}
