//! A key of the token's own whose answer is known: as long as it unwraps and opens its text, failures are the fault of others.

use crate::cache::Graveyard;
use crate::domain::Domain;
use crate::kind::Kind;
use crate::module::{Failure, Object, Session};
use crate::profile::ModuleProfile;
use crate::{probe, wrapped};

/// A key of the token's own with a known answer.
pub(crate) struct Canary {
    key: Object,
    blob: Vec<u8>,
    sealed: Vec<u8>,
    graveyard: Graveyard,
}

/// What the canary's answer is.
const SONG: &[u8] = b"the canary of keymill lives";
const NONCE: u8 = 1;

impl Canary {
    /// Makes a key, wraps it, and seals one text under it: the only one ever.
    pub(crate) fn new(
        owner: &Session,
        domain: Domain,
        profile: &ModuleProfile,
        graveyard: Graveyard,
    ) -> Result<Self, Failure> {
        let mut sealed = Vec::new();
        let seal = |born| probe::seal(owner, born, NONCE, SONG).map(|text| sealed = text);
        let blob = wrapped::generate(owner, domain, Kind::AEAD, profile, &graveyard, seal)?;
        let key = wrapped::unwrap(owner, domain, &blob, Kind::AEAD, profile)?;
        Ok(Self { key, blob, sealed, graveyard })
    }

    /// Returns what opens to the known answer under the loaded canary key.
    pub(crate) fn song(&self) -> Song {
        Song { key: self.key, sealed: self.sealed.clone() }
    }

    /// Unwraps the canary by the domain key and opens its text: a sign of life of all that stored keys need.
    pub(crate) fn unwrap_and_open(
        &self,
        owner: &Session,
        domain: Domain,
        profile: &ModuleProfile,
    ) -> Result<(), Failure> {
        let key = wrapped::unwrap(owner, domain, &self.blob, Kind::AEAD, profile)?;
        let heard = Song { key, sealed: self.sealed.clone() }.hear(owner);
        self.graveyard.push(key);
        self.graveyard.bury(owner);
        heard
    }
}

/// The canary's text, for a session to open.
pub(crate) struct Song {
    key: Object,
    sealed: Vec<u8>,
}

impl Song {
    /// Opens the text on `session`. Opening it twice does no harm, as sealing it twice would.
    pub(crate) fn hear(&self, session: &Session) -> Result<(), Failure> {
        match probe::open(session, self.key, NONCE, &self.sealed)? {
            text if text == SONG => Ok(()),
            text => Err(Failure::Overlong { call: "C_Decrypt", bytes: text.len() }),
        }
    }
}
