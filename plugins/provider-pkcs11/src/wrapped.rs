//! Keys under the domain key: made and wrapped, and unwrapped for one use.

use cryptoki_sys::CKM_AES_KEY_GEN;
use keymill_core::key::BulkMode;

use crate::cache::Graveyard;
use crate::module::template::{newborn, unwrapped};
use crate::module::{Failure, Mechanism, Object, Session};
use crate::profile::{ModuleProfile, WRAPPED_BYTES};

/// Makes a key, wraps it under the domain key, and destroys it: it is extractable until then.
pub(crate) fn generate(
    owner: &Session,
    domain_key: Object,
    mode: BulkMode,
    profile: &ModuleProfile,
    graveyard: &Graveyard,
    before: impl FnOnce(Object) -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let born = make(owner, mode)?;
    let wrapped = before(born).and_then(|()| wrap(owner, domain_key, born, profile));
    graveyard.push(born);
    graveyard.bury(owner);
    wrapped
}

/// Makes a key that is extractable: it is to be wrapped and destroyed at once.
pub(crate) fn make(session: &Session, mode: BulkMode) -> Result<Object, Failure> {
    session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &newborn(mode))
}

/// Wraps a key under the domain key.
pub(crate) fn wrap(
    owner: &Session,
    domain_key: Object,
    key: Object,
    profile: &ModuleProfile,
) -> Result<Vec<u8>, Failure> {
    let mut blob = vec![0; 2 * WRAPPED_BYTES];
    match owner.wrap_key(profile.wrap.mechanism(), domain_key, key, &mut blob)? {
        WRAPPED_BYTES => {
            blob.truncate(WRAPPED_BYTES);
            Ok(blob)
        }
        bytes => Err(Failure::Overlong { call: "C_WrapKey", bytes }),
    }
}

/// Unwraps a key into an object of the owner session, for one use.
pub(crate) fn unwrap(
    owner: &Session,
    domain_key: Object,
    blob: &[u8],
    mode: BulkMode,
    profile: &ModuleProfile,
) -> Result<Object, Failure> {
    let template = unwrapped(mode, profile.unwrap_value_len);
    owner.unwrap_key(profile.wrap.mechanism(), domain_key, blob, &template)
}
