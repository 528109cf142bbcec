//! Keys born in the token: one at a time, for modules were seen to starve their data path beside two, and on a session of their own,
//! for a pair of RSA takes seconds, and the session that loads keys must not wait for it.

use keymill_core::key::BulkMode;

use crate::connect::{Refusal, casts_doubt};
use crate::module::{Class, Failure, Object, Session};
use crate::token::Token;
use crate::wrapped;

/// How often a born key is to be destroyed: it can be taken out of the token until then.
const TRIES: usize = 3;

/// What a birth needs of the connection.
struct Ward {
    /// The connection that the rest is of.
    generation: u64,
    domain_key: Object,
    /// What is born dies with it, should it not be destroyed before.
    session: Session,
}

/// Generates a key and returns it as it is to be stored.
pub(crate) fn generate(token: &Token, mode: BulkMode) -> Result<Vec<u8>, Refusal> {
    let _alone = token.births.lock();
    let ward = open(token)?;
    let failure = match bear(token, &ward, mode) {
        Ok(wrapped) => return Ok(wrapped),
        Err(failure) => failure,
    };
    if !casts_doubt(&failure) {
        return Err(failure.into());
    }
    token.suspect();
    // It is tried once more where the connection turns out to be gone; else it was the call.
    let anew = open(token)?;
    if anew.generation == ward.generation {
        return Err(failure.into());
    }
    bear(token, &anew, mode).map_err(Refusal::from)
}

fn open(token: &Token) -> Result<Ward, Refusal> {
    token.with_link(|link| {
        token.bury(link);
        Ok(Ward {
            generation: link.cache.generation,
            domain_key: link.domain_key,
            session: token.module.open_session(link.slot, false)?,
        })
    })
}

fn bear(token: &Token, ward: &Ward, mode: BulkMode) -> Result<Vec<u8>, Failure> {
    // It can take long, and holds up nobody but the next birth.
    let born = wrapped::make(&ward.session, mode)?;
    // From here on no connection is made anew, and what the handles name is what they named.
    let _using = token.using.read();
    if token.generation() != ward.generation {
        return Err(Failure::OldHandle { call: "C_WrapKey" });
    }
    let wrapped = wrapped::wrap(&ward.session, ward.domain_key, born, &token.profile);
    destroy(token, &ward.session, born);
    wrapped
}

/// Destroys what was born; where that fails again and again it is left to the end of its session, which is next.
fn destroy(token: &Token, session: &Session, born: Object) {
    for _ in 0..TRIES {
        match session.destroy_object(born) {
            Err(failure) if failure.class() != Class::Object => {
                if casts_doubt(&failure) {
                    token.suspect();
                }
            }
            _ => return,
        }
    }
}
