//! The copy of a domain's keys that custodians open together: wrapped (RFC 5649) under a key that is nowhere but in their shares; and
//! how a token that was bought later joins the domain by it.

use cryptoki_sys::*;
use keymill_core::Sensitive;
use serde::{Deserialize, Serialize};

use super::proof::{Proof, WrappedPair};
use super::seat::{self, Failures, Seat, Way, arriving, surely};
use super::{MadeDomain, Party, PartyReport, answer, profile, seat_report};
use crate::domain::{DOMAIN_KEYS, WRAPPED_BYTES};
use crate::error::{OpenError, OpenErrorKind};
use crate::module::{Attribute, Failure, Hash, Object};
use crate::profile::{ModuleProfile, WrapMechanism};

/// Bytes of the key that a copy is wrapped under.
pub const KEK_BYTES: usize = 32;

/// A domain's keys under a key of their custodians; worth nothing without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainCopy {
    /// The id that the domain's keys carry on each token.
    pub id: Vec<u8>,
    /// Label and wrapped bytes of each key.
    pub keys: Vec<(String, Vec<u8>)>,
    /// What the root MAC key is asked to compute the MAC of.
    pub challenge: Vec<u8>,
    /// What it must answer.
    pub answer: Vec<u8>,
    /// A key under the domain key.
    pub wrapped: Vec<u8>,
    /// A text sealed under that key.
    pub sealed: Vec<u8>,
    /// A private key under the domain key for those, where the first token holds any.
    pub pair: Option<WrappedPair>,
}

/// Brings the key into a token, as an object of the session that wraps and unwraps.
fn import(seat: &mut Seat, kek: &Sensitive) -> Result<Object, OpenError> {
    let imported = seat.session.create_object(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, false),
        Attribute::flag(CKA_WRAP, true),
        Attribute::flag(CKA_UNWRAP, true),
        Attribute::flag(CKA_ENCRYPT, false),
        Attribute::flag(CKA_DECRYPT, false),
        Attribute::bytes(CKA_VALUE, kek.expose()),
    ]);
    let imported =
        imported.map_err(seat.failed("it takes no AES key from outside, which custodians need"))?;
    seat.passes(imported);
    Ok(imported)
}

/// The mechanisms of RFC 5649 that the token has.
fn mechanisms(seat: &Seat) -> Result<Vec<WrapMechanism>, OpenError> {
    let offered = seat.module.mechanisms(seat.slot).map_err(seat.failed("its mechanisms"))?;
    let both = [WrapMechanism::Kwp, WrapMechanism::Pad];
    Ok(both.into_iter().filter(|wrap| offered.contains(&wrap.code())).collect())
}

fn wrap(seat: &Seat, wrap: WrapMechanism, kek: Object, key: Object) -> Result<Vec<u8>, Failure> {
    let mut blob = vec![0; 2 * WRAPPED_BYTES];
    match seat.session.wrap_key(wrap.mechanism(), kek, key, &mut blob)? {
        WRAPPED_BYTES => {
            blob.truncate(WRAPPED_BYTES);
            Ok(blob)
        }
        // Another construction of that name.
        bytes => Err(Failure::Overlong { call: "C_WrapKey", bytes }),
    }
}

/// Finds how the token takes a key that is wrapped under `kek`, without writing it.
fn way(seat: &Seat, kek: Object, blob: &[u8]) -> Result<(WrapMechanism, Way), OpenError> {
    let failures = Failures::default();
    let mechanisms = mechanisms(seat)?;
    for (limited, value_len) in [(true, false), (true, true), (false, false), (false, true)] {
        let way = Way { hash: Hash::Sha1, value_len, limited };
        for wrap in &mechanisms {
            let tried = DOMAIN_KEYS.iter().try_for_each(|key| {
                let template = arriving(key, key.label, &[0; 16], way, false);
                let object = surely(|| seat.session.unwrap_key(wrap.mechanism(), kek, blob, &template))?;
                seat::destroy(&seat.session, object)
            });
            if (limited || !failures.doubtful()) && failures.none(tried) {
                return Ok((*wrap, way));
            }
        }
    }
    Err(failures.told(format!("{}: nothing unwraps under the custodians' key", seat.name())))
}

/// Sees that the first token can make a copy, on passing objects.
pub(super) fn check(seat: &mut Seat, kek: &Sensitive) -> Result<(), OpenError> {
    let kek = import(seat, kek)?;
    let passing = seat.original()?;
    let mut failure = None;
    for mechanism in mechanisms(seat)? {
        match wrap(seat, mechanism, kek, passing) {
            Ok(blob) => return way(seat, kek, &blob).map(|_| ()),
            Err(failed) => failure = Some(failed),
        }
    }
    let why = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
    Err(OpenError::new(
        OpenErrorKind::Lacking,
        format!("{}: it wraps no key by RFC 5649 for the custodians{why}", seat.name()),
    ))
}

/// Makes the copy in the first token, and unwraps it once there.
pub(super) fn make(
    seat: &mut Seat,
    kek: &Sensitive,
    originals: &[Object],
    domain: &MadeDomain,
    profile: &ModuleProfile,
) -> Result<DomainCopy, OpenError> {
    let kek = import(seat, kek)?;
    let mut keys = Vec::new();
    for (key, original) in DOMAIN_KEYS.iter().zip(originals) {
        let blob = wrap(seat, profile.wrap, kek, *original)
            .map_err(seat.failed(&format!("key {} is not wrapped for the custodians", key.label)))?;
        way(seat, kek, &blob)?;
        keys.push((key.label.to_owned(), blob));
    }
    let Proof { wrapped, sealed, pair } = Proof::make(seat, profile, None)?;
    Ok(DomainCopy {
        id: domain.id.to_vec(),
        keys,
        challenge: domain.challenge.clone(),
        answer: domain.answer.to_vec(),
        wrapped,
        sealed,
        pair,
    })
}

/// Gives a token the keys of a domain from the copy of its custodians, and has it prove that it has them.
///
/// # Errors
/// [`OpenError`] where the token has keys already, or the copy does not unwrap under `kek`; nothing of it stays then.
pub fn join(party: &Party, kek: &Sensitive, copy: &DomainCopy) -> Result<PartyReport, OpenError> {
    let damaged = |why: &str| OpenError::new(OpenErrorKind::Input, format!("the copy {why}"));
    if copy.id.len() != 16 || copy.keys.iter().any(|(_, blob)| blob.len() != WRAPPED_BYTES) {
        return Err(damaged("is damaged: its lengths are not those of keys"));
    }
    for key in &DOMAIN_KEYS {
        if !copy.keys.iter().any(|(label, _)| label == key.label) {
            return Err(damaged(&format!("holds no key {}: an earlier version made it", key.label)));
        }
    }
    let mut seat = Seat::take(party)?;
    seat.look()?;
    let joined = (|| {
        let kek = import(&mut seat, kek)?;
        let blob = |label: &str| {
            let found = copy.keys.iter().find(|(other, _)| other == label);
            found.map(|(_, blob)| blob.as_slice()).expect("each was looked for above")
        };
        let (wrap, way) = way(&seat, kek, blob(DOMAIN_KEYS[0].label))?;
        seat.way = way;
        for key in &DOMAIN_KEYS {
            seat.take_in(key, wrap.mechanism(), kek, blob(key.label), &copy.id)?;
        }
        let profile = profile(&seat)?;
        let proof =
            Proof { wrapped: copy.wrapped.clone(), sealed: copy.sealed.clone(), pair: copy.pair.clone() };
        if answer(&seat, &copy.challenge)?[..] != copy.answer[..] || proof.fails(&seat, &profile).is_some() {
            return Err(damaged("is damaged: its keys do not give the answers that stand beside them"));
        }
        Ok(seat_report(&seat, &profile))
    })();
    match joined {
        Ok(report) => {
            seat.keep();
            seat.clear();
            // A ceremony that this token was once meant for is of no use to it any more.
            seat.drop_wrapping_key()?;
            Ok(report)
        }
        Err(error) => match seat.roll_back()[..] {
            [] => Err(error),
            ref stays => Err(OpenError::new(
                OpenErrorKind::Unfinished,
                format!("{error}; and left behind are {}", stays.join(", ")),
            )),
        },
    }
}
