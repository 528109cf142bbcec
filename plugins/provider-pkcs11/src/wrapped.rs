//! Keys under the domain's keys: made and wrapped, and unwrapped for one use.

use keymill_core::Sensitive;

use crate::cache::Graveyard;
use crate::domain::Domain;
use crate::kind::{Birth, Kind};
use crate::module::{Failure, Object, Session};
use crate::profile::ModuleProfile;

/// What was born: a secret key, or a private one and its public half.
#[derive(Clone, Copy)]
pub(crate) struct Born {
    pub(crate) key: Object,
    pub(crate) public: Option<Object>,
}

impl Born {
    /// Returns the objects that it is.
    pub(crate) fn objects(self) -> impl Iterator<Item = Object> {
        [Some(self.key), self.public].into_iter().flatten()
    }
}

/// Makes a secret key, wraps it under its domain key, and destroys it: it is extractable until then.
pub(crate) fn generate(
    owner: &Session,
    domain: Domain,
    kind: Kind,
    profile: &ModuleProfile,
    graveyard: &Graveyard,
    before: impl FnOnce(Object) -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let born = make(owner, kind.birth())?;
    let wrapped = before(born.key).and_then(|()| wrap(owner, domain, born.key, kind, profile));
    born.objects().for_each(|object| graveyard.push(object));
    graveyard.bury(owner);
    wrapped
}

/// Makes a key. One that does not stay is extractable: it is to be wrapped and destroyed at once.
pub(crate) fn make(session: &Session, birth: Birth<'_>) -> Result<Born, Failure> {
    match birth {
        Birth::Secret(mechanism, template) => {
            Ok(Born { key: session.generate_key(mechanism, &template)?, public: None })
        }
        Birth::Pair(mechanism, public, private) => {
            let (public, key) = session.generate_key_pair(mechanism, &public, &private)?;
            Ok(Born { key, public: Some(public) })
        }
    }
}

/// Makes an object of material that was made elsewhere; as it is with those that are made here, it is extractable.
pub(crate) fn take_in(session: &Session, kind: Kind, material: &Sensitive) -> Result<Born, Failure> {
    let template = kind.arrival(material.expose());
    Ok(Born { key: session.create_object(&template)?, public: None })
}

/// Wraps a key under its domain key.
pub(crate) fn wrap(
    session: &Session,
    domain: Domain,
    key: Object,
    kind: Kind,
    profile: &ModuleProfile,
) -> Result<Vec<u8>, Failure> {
    let mut blob = vec![0; *kind.wrapped_bytes().end()];
    let bytes = session.wrap_key(profile.wrap.mechanism(), domain.key(kind)?, key, &mut blob)?;
    if !kind.fits(bytes) {
        return Err(Failure::Overlong { call: "C_WrapKey", bytes });
    }
    blob.truncate(bytes);
    Ok(blob)
}

/// Unwraps a key into an object of the session, for one use.
pub(crate) fn unwrap(
    session: &Session,
    domain: Domain,
    blob: &[u8],
    kind: Kind,
    profile: &ModuleProfile,
) -> Result<Object, Failure> {
    session.unwrap_key(profile.wrap.mechanism(), domain.key(kind)?, blob, &kind.unwrapped(profile))
}
