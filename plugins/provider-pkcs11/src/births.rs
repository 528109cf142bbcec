//! Keys born in the token: one at a time, for modules were seen to starve their data path beside two, and on a session of their own,
//! for a pair of RSA takes seconds, and the session that loads keys must not wait for it.

use keymill_core::Sensitive;
use keymill_core::seam::provider::PublicKey;

use crate::connect::{Refusal, casts_doubt};
use crate::domain::Domain;
use crate::kind::Kind;
use crate::module::{Class, Failure, Object, Session};
use crate::pair::{self, Proof};
use crate::token::Token;
use crate::wrapped::{self, Born};

/// How often a born key is to be destroyed: it can be taken out of the token until then.
const TRIES: usize = 3;

/// What a birth needs of the connection.
struct Ward {
    /// The connection that the rest is of.
    generation: u64,
    domain: Domain,
    /// What is born dies with it, should it not be destroyed before.
    session: Session,
}

/// A key as it is to be stored: wrapped, and the public half of a pair.
pub(crate) type Stored = (Vec<u8>, Option<PublicKey>);

/// Generates a key.
pub(crate) fn generate(token: &Token, kind: Kind) -> Result<Stored, Refusal> {
    born(token, kind, None)
}

/// Takes in a secret key that was made elsewhere: an object of the session, wrapped and destroyed at once like one that is born. The
/// host has made it, so nothing is lost in that it passes through the module in clear.
pub(crate) fn import(token: &Token, kind: Kind, material: &Sensitive) -> Result<Stored, Refusal> {
    born(token, kind, Some(material))
}

fn born(token: &Token, kind: Kind, material: Option<&Sensitive>) -> Result<Stored, Refusal> {
    let _alone = token.births.lock();
    let ward = open(token)?;
    let failure = match bear(token, &ward, kind, material) {
        Ok(stored) => return Ok(stored),
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
    bear(token, &anew, kind, material).map_err(Refusal::from)
}

fn open(token: &Token) -> Result<Ward, Refusal> {
    token.with_link(|link| {
        token.bury(link);
        Ok(Ward {
            generation: link.cache.generation,
            domain: link.domain,
            session: token.module.open_session(link.slot, false)?,
        })
    })
}

fn bear(token: &Token, ward: &Ward, kind: Kind, material: Option<&Sensitive>) -> Result<Stored, Failure> {
    // It can take long, and holds up nobody but the next birth.
    let born = match material {
        None => wrapped::make(&ward.session, kind.birth())?,
        Some(material) => wrapped::take_in(&ward.session, kind, material)?,
    };
    // From here on no connection is made anew, and what the handles name is what they named.
    let _using = token.using.read();
    if token.generation() != ward.generation {
        return Err(Failure::OldHandle { call: "C_WrapKey" });
    }
    let stored = store(token, ward, kind, born);
    born.objects().for_each(|object| destroy(token, &ward.session, object));
    stored
}

/// Wraps what was born. A private key is proved to come back from it: one that does not would be lost at its first use.
fn store(token: &Token, ward: &Ward, kind: Kind, born: Born) -> Result<Stored, Failure> {
    let (session, profile) = (&ward.session, &token.profile);
    let wrapped = wrapped::wrap(session, ward.domain, born.key, kind, profile)?;
    let Some(public) = born.public else { return Ok((wrapped, None)) };
    let public = pair::public_half(session, public, kind)?;
    let private = wrapped::unwrap(session, ward.domain, &wrapped, kind, profile)?;
    let proved = pair::prove(session, kind, private, &public, Proof::Everything, profile);
    destroy(token, session, private);
    proved.expect("it was encoded here")?;
    Ok((wrapped, Some(public)))
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
