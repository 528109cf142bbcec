//! What a secret key is known again by: what it makes of a text that is kept for this. A check value is never read: it is the encryption of
//! zeroes, and a part of what GCM keeps secret.

use cryptoki_sys::CKM_AES_CMAC;
use keymill_core::key::KeyCheck;

use crate::kind::{self, Kind};
use crate::module::{Failure, Mechanism, Object, Session};

/// What a key must do to be known again. More than one block: what a key computes over single blocks may be keys (see `derive`).
const TEXT: &[u8; 64] = b"keymill knows this key again by what it makes of this very text.";
/// The same for keys whose answer is a block, so that nobody finds two that give both.
const SECOND: &[u8; 64] = b"keymill knows this key again by two texts: this one comes second";
/// The nonce of the check: no epoch and no counter comes to it, and always with the same text.
const NONCE: [u8; 12] = [0xff; 12];
/// Bytes of a tag of GCM.
const TAG_BYTES: usize = 16;

/// Has a secret key do what it is known by.
pub(crate) fn answer(session: &Session, object: Object, kind: Kind) -> Result<Vec<u8>, Failure> {
    match kind.seals() {
        true => sealed(session, object),
        false => mac(session, object, kind, TEXT),
    }
}

/// Makes the check of material that came from outside: whoever made that may have looked for two that answer alike, so that the answer has
/// 32 bytes at least.
pub(crate) fn make(session: &Session, object: Object, kind: Kind) -> Result<KeyCheck, Failure> {
    let mut answer = answer(session, object, kind)?;
    if kind.derives() {
        answer.extend(mac(session, object, kind, SECOND)?);
    }
    Ok(KeyCheck::from_bytes(answer))
}

/// Sees that material is what a check was made of: it opens what was sealed, or computes the same.
///
/// # Errors
/// `Mismatch` where it is another, or what the module says of a tag that does not fit.
pub(crate) fn open(session: &Session, object: Object, kind: Kind, check: &KeyCheck) -> Result<(), Failure> {
    let is_the_same = match kind.seals() {
        true => opened(session, object, check.as_bytes())? == TEXT,
        false => make(session, object, kind)? == *check,
    };
    if is_the_same { Ok(()) } else { Err(Failure::Mismatch { call: "C_UnwrapKey" }) }
}

fn sealed(session: &Session, object: Object) -> Result<Vec<u8>, Failure> {
    let mut sealed = vec![0; TEXT.len() + TAG_BYTES];
    session.encrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &[] }, object)?;
    let len = session.encrypt(TEXT, &mut sealed)?;
    sealed.truncate(len);
    Ok(sealed)
}

fn opened(session: &Session, object: Object, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut text = vec![0; sealed.len()];
    session.decrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &[] }, object)?;
    let len = session.decrypt(sealed, &mut text)?;
    text.truncate(len);
    Ok(text)
}

fn mac(session: &Session, object: Object, kind: Kind, text: &[u8]) -> Result<Vec<u8>, Failure> {
    let mechanism = match kind.derives() {
        true => Mechanism::Plain(CKM_AES_CMAC),
        false => kind::signing(kind.spec().signatures()[0])?,
    };
    let mut mac = vec![0; 64];
    session.sign_init(mechanism, object)?;
    let len = session.sign(text, &mut mac)?;
    mac.truncate(len);
    Ok(mac)
}
