//! What a ceremony that was cut short has left on a token, and its removal. What could be in use is told from what cannot.

use super::seat::{self, Seat};
use super::{Party, rsa};
use crate::domain::{self, DOMAIN_KEYS};
use crate::error::{OpenError, OpenErrorKind};
use crate::{DOMAIN_KEY_LABEL, module::Object};

/// What is on a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The token's label.
    pub token: String,
    /// Its serial number.
    pub serial: String,
    /// Halves of wrapping keys: the mark of a ceremony that was not finished.
    pub wrapping_halves: usize,
    /// The labels of the domain's keys that it has.
    pub keys: Vec<String>,
    /// Whether they are all there: such a token serves, and may be in use.
    pub complete: bool,
}

/// What was destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// Halves of wrapping keys.
    pub wrapping_halves: usize,
    /// The labels of keys of the domain.
    pub keys: Vec<String>,
}

/// Looks at what was left on a token, and, where `destroy` says so of it, destroys it: keys that are all there only with
/// `complete_ones`, and only beside the mark of an unfinished ceremony.
///
/// # Errors
/// [`OpenError`] where something stays.
pub fn clean(
    party: &Party,
    complete_ones: bool,
    destroy: impl FnOnce(&Found) -> bool,
) -> Result<(Found, Option<Cleaned>), OpenError> {
    let seat = Seat::take(party)?;
    let (publics, privates) = rsa::find(&seat.session).map_err(seat.failed("its keys"))?;
    let mut keys: Vec<(String, Object)> = Vec::new();
    for key in &DOMAIN_KEYS {
        let label = seat.label_of(key);
        let objects = domain::find(&seat.session, &label).map_err(seat.failed("its keys"))?;
        keys.extend(objects.into_iter().map(|object| (label.clone(), object)));
    }
    let found = Found {
        token: seat.label.clone(),
        serial: seat.serial.clone(),
        wrapping_halves: publics.len() + privates.len(),
        keys: keys.iter().map(|(label, _)| label.clone()).collect(),
        // It is made last, and no token opens without it.
        complete: keys
            .iter()
            .any(|(label, _)| *label == domain::label_in(DOMAIN_KEY_LABEL, party.domain.as_deref())),
    };
    if complete_ones && found.complete && found.wrapping_halves == 0 {
        return Err(OpenError::new(
            OpenErrorKind::Occupied,
            format!("{}: no ceremony was cut short there, and its keys may be in use", seat.name()),
        ));
    }
    if !destroy(&found) {
        return Ok((found, None));
    }
    let mut cleaned = Cleaned { wrapping_halves: 0, keys: Vec::new() };
    // The key that completes the token first, and the mark last: cut short once more, it is found again as what it is.
    if complete_ones || !found.complete {
        for (label, object) in keys.into_iter().rev() {
            let gone = seat::destroy(&seat.session, object);
            gone.map_err(seat.failed(&format!("key {label} is not destroyed")))?;
            cleaned.keys.push(label);
        }
    }
    for object in privates.into_iter().chain(publics) {
        let gone = seat::destroy(&seat.session, object);
        gone.map_err(seat.failed("its wrapping key is not destroyed"))?;
        cleaned.wrapping_halves += 1;
    }
    Ok((found, Some(cleaned)))
}
