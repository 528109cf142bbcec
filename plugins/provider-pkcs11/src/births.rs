//! Keys born in the token: one at a time, for modules were seen to starve their data path beside two, and on a session of their own,
//! for a pair of RSA takes seconds, and the session that loads keys must not wait for it.

use keymill_core::Sensitive;
use keymill_core::seam::provider::PublicKey;
use parking_lot::RwLockReadGuard;

use crate::connect::{Refusal, casts_doubt};
use crate::domain::Domain;
use crate::kind::Kind;
use crate::module::{Class, Failure, Object, Session};
use crate::pair::{self, Proof};
use crate::token::Token;
use crate::wrapped;

/// How often a born key is to be destroyed: it can be taken out of the token until then.
const TRIES: usize = 3;

/// What a birth needs of the connection.
pub(crate) struct Ward {
    /// The connection that the rest is of.
    generation: u64,
    pub(crate) domain: Domain,
    /// What is born dies with it, should it not be destroyed before.
    pub(crate) session: Session,
}

/// Whether something is made that stays on the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    Yes,
    No,
}

/// A key as it is to be stored: wrapped, and the public half of a pair.
pub(crate) type Stored = (Vec<u8>, Option<PublicKey>);

/// Generates a key.
pub(crate) fn generate(token: &Token, kind: Kind) -> Result<Stored, Refusal> {
    tended(token, Writes::No, |ward| bear(token, ward, kind, None))
}

/// Takes in a secret key that was made elsewhere: an object of the session, wrapped and destroyed at once like one that is born. The
/// host has made it, so nothing is lost in that it passes through the module in clear.
pub(crate) fn import(token: &Token, kind: Kind, material: &Sensitive) -> Result<Stored, Refusal> {
    tended(token, Writes::No, |ward| bear(token, ward, kind, Some(material)))
}

/// Runs `work` on a session of its own, beside no other such work, and once more where the connection turns out to be gone.
pub(crate) fn tended<T>(
    token: &Token,
    writes: Writes,
    work: impl Fn(&Ward) -> Result<T, Failure>,
) -> Result<T, Refusal> {
    let _alone = token.births.lock();
    let ward = open(token, writes)?;
    let failure = match work(&ward) {
        Ok(done) => return Ok(done),
        Err(failure) => failure,
    };
    if !casts_doubt(&failure) {
        return Err(failure.into());
    }
    token.suspect();
    // It is tried once more where the connection turns out to be gone; else it was the call.
    let anew = open(token, writes)?;
    if anew.generation == ward.generation {
        return Err(failure.into());
    }
    work(&anew).map_err(Refusal::from)
}

fn open(token: &Token, writes: Writes) -> Result<Ward, Refusal> {
    token.with_link(|link| {
        token.bury(link);
        Ok(Ward {
            generation: link.cache.generation,
            domain: link.domain,
            session: token.module.open_session(link.slot, writes == Writes::Yes)?,
        })
    })
}

impl Ward {
    /// Keeps the connection from being made anew: what the handles name is what they named, until this is dropped.
    pub(crate) fn held<'a>(&self, token: &'a Token) -> Result<RwLockReadGuard<'a, ()>, Failure> {
        let using = token.using.read();
        match token.generation() == self.generation {
            true => Ok(using),
            false => Err(Failure::OldHandle { call: "C_WrapKey" }),
        }
    }
}

fn bear(token: &Token, ward: &Ward, kind: Kind, material: Option<&Sensitive>) -> Result<Stored, Failure> {
    // It can take long, and holds up nobody but the next birth.
    let born = match material {
        None => wrapped::make(&ward.session, kind.birth())?,
        Some(material) => wrapped::take_in(&ward.session, kind, material)?,
    };
    let _using = ward.held(token)?;
    let public = born.public.map(|public| pair::public_half(&ward.session, public, kind)).transpose();
    let stored = public.and_then(|public| store(token, ward, kind, born.key, public));
    born.objects().for_each(|object| destroy(token, &ward.session, object));
    stored
}

/// Wraps what was born. A private key is proved to come back from it: one that does not would be lost at its first use.
pub(crate) fn store(
    token: &Token,
    ward: &Ward,
    kind: Kind,
    key: Object,
    public: Option<PublicKey>,
) -> Result<Stored, Failure> {
    let (session, profile) = (&ward.session, &token.profile);
    let wrapped = wrapped::wrap(session, ward.domain, key, kind, profile)?;
    let Some(public) = public else { return Ok((wrapped, None)) };
    let private = wrapped::unwrap(session, ward.domain, &wrapped, kind, profile)?;
    let proved = pair::prove(session, kind, private, &public, Proof::Everything, profile);
    destroy(token, session, private);
    proved.expect("it was encoded here")?;
    Ok((wrapped, Some(public)))
}

/// Destroys what was born; where that fails again and again it is left to the end of its session, which is next.
pub(crate) fn destroy(token: &Token, session: &Session, born: Object) {
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
