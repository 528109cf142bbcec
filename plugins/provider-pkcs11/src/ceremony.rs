//! The ceremony that gives several tokens the keys of one domain: made in the first as objects that may leave, brought to each under
//! the token's own RSA key, kept there as objects that may not, proved to be the same, and destroyed where they were made. Until it
//! is finished, all that it made goes away again when it fails.

use cryptoki_sys::CKM_AES_CMAC;
use keymill_core::Sensitive;

use crate::domain::{DOMAIN_KEYS, Does, Domain};
use crate::error::{OpenError, OpenErrorKind};
use crate::initialize::{ID_BYTES, fresh_id};
use crate::module::{Hash, Mechanism, Module, Object, Session};
use crate::profile::{ModuleProfile, Overrides};
use crate::{DOMAIN_KEY_LABEL, MAC_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, probe};

mod clean;
mod copy;
mod proof;
mod rsa;
mod seat;

pub use clean::{Cleaned, Found, clean};
pub use copy::{DomainCopy, KEK_BYTES, join};
pub use proof::WrappedPair;
pub use rsa::WrappingKey;

use proof::Proof;
use seat::{Seat, Wrapping};

/// Bytes of the challenge. More than one block: what the root MAC key computes over single blocks are keys (see `root_derive`), and no
/// proof may ever be one of them.
const CHALLENGE_BYTES: usize = 64;
const CHALLENGE_PREFIX: &[u8; 32] = b"keymill ceremony: proof of a key";

/// A token that is to take part.
pub struct Party {
    /// Its module.
    pub module: Module,
    /// The token's label.
    pub token_label: String,
    /// Its serial number, where two tokens have one label.
    pub token_serial: Option<String>,
    /// The name of the domain that it is about; `None`: that without one.
    pub domain: Option<String>,
    /// The user's PIN.
    pub pin: Sensitive,
}

/// A ceremony under way. Dropped before it is finished, it takes away what it made.
pub struct Ceremony {
    seats: Vec<Seat>,
    domain: Option<MadeDomain>,
}

/// What the tokens have in common now, for the transcript; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeDomain {
    /// The id that the domain's keys carry on each token.
    pub id: [u8; ID_BYTES],
    /// Their labels.
    pub keys: Vec<String>,
    /// What each token was asked to compute the MAC of.
    pub challenge: Vec<u8>,
    /// What each has answered.
    pub answer: [u8; 16],
    /// The tokens, the first first.
    pub parties: Vec<PartyReport>,
}

/// What a transcript says of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartyReport {
    /// The token's label.
    pub token: String,
    /// Its serial number.
    pub serial: String,
    /// Who made it, and its model.
    pub model: String,
    /// The hash of the OAEP that the keys came under; `None` where they came from custodians.
    pub oaep: Option<&'static str>,
    /// Whether what unwraps there can be used, and not read.
    pub unwraps_limited: bool,
}

impl Ceremony {
    /// Logs in to each token, sees that none has keys of a domain, rehearses on passing objects what is to come, and only then makes
    /// the wrapping keys that lack.
    ///
    /// # Errors
    /// [`OpenError`] where one of them cannot take part; nothing was written then, or it was taken away.
    pub fn begin(parties: &[Party]) -> Result<Self, OpenError> {
        let mut ceremony = Self { seats: Vec::new(), domain: None };
        for party in parties {
            let mut seat = Seat::take(party)?;
            if ceremony.seats.iter().any(|other| is_same(other, &seat)) {
                let why = format!("{} is named twice", seat.name());
                return Err(OpenError::new(OpenErrorKind::Input, why));
            }
            seat.look()?;
            ceremony.seats.push(seat);
        }
        let Some((first, others)) = ceremony.seats.split_first_mut() else {
            return Err(OpenError::new(OpenErrorKind::Input, "a ceremony needs a token"));
        };
        first.rehearse(None)?;
        others.iter_mut().try_for_each(|seat| seat.rehearse(Some(first)))?;
        ceremony.seats.iter_mut().try_for_each(Seat::make_wrapping_key)?;
        Ok(ceremony)
    }

    /// Returns the wrapping keys, for people to compare; the first token's first.
    pub fn wrapping_keys(&self) -> Vec<WrappingKey> {
        self.seats.iter().filter_map(|seat| Some(shown(seat, seat.wrapping.as_ref()?))).collect()
    }

    /// Draws a key for a copy: whoever cannot guess what the first token drew, or what this machine drew, cannot guess it.
    ///
    /// # Errors
    /// [`OpenError`] where either draws nothing.
    pub fn draw_kek(&self) -> Result<Sensitive, OpenError> {
        let mut kek = Sensitive::zeroed(KEK_BYTES);
        let mut other = Sensitive::zeroed(KEK_BYTES);
        getrandom::fill(kek.expose_mut())
            .map_err(|_| OpenError::other("the operating system gave no random bytes"))?;
        let first = self.first();
        first.session.random(other.expose_mut()).map_err(first.failed("it draws no random bytes"))?;
        kek.expose_mut().iter_mut().zip(other.expose()).for_each(|(byte, other)| *byte ^= other);
        Ok(kek)
    }

    /// Makes the domain's keys, brings them to each token, and has each prove that it has the same ones. With a `kek`, a copy of them
    /// is wrapped under it, and tried.
    ///
    /// # Errors
    /// [`OpenError`] where a token fails; [`Ceremony::roll_back`] takes away what was made.
    pub fn make_domain(
        &mut self,
        kek: Option<&Sensitive>,
    ) -> Result<(MadeDomain, Option<DomainCopy>), OpenError> {
        let id = fresh_id()?;
        // All originals first: nothing is on a token before each of them exists.
        let mut originals = Vec::new();
        for _ in &DOMAIN_KEYS {
            originals.push(self.first_mut().original()?);
        }
        if let Some(kek) = kek {
            copy::check(self.first_mut(), kek)?;
        }
        for (key, original) in DOMAIN_KEYS.iter().zip(&originals) {
            for at in 0..self.seats.len() {
                let (hash, public) = self.sent_to(at)?;
                let first = self.first();
                let sent = seat::wrap(&first.session, public, *original, hash);
                let blob = sent.map_err(first.failed(&format!("key {} does not go out", key.label)))?;
                let seat = &mut self.seats[at];
                let private =
                    seat.wrapping.as_ref().expect("it was made when the ceremony began").pair.private;
                seat.take_in(key, Mechanism::RsaOaep(hash), private, &blob, &id)?;
            }
        }
        let challenge = challenge()?;
        let proved = self.prove(&challenge)?;
        let parties = self.seats.iter().zip(&proved.profiles).map(|(seat, profile)| PartyReport {
            oaep: Some(match seat.way.hash {
                Hash::Sha256 => "SHA-256",
                Hash::Sha1 => "SHA-1",
            }),
            ..seat_report(seat, profile)
        });
        let domain = MadeDomain {
            id,
            keys: DOMAIN_KEYS.iter().map(|key| self.first().label_of(key)).collect(),
            challenge,
            answer: proved.answer,
            parties: parties.collect(),
        };
        let copy = match kek {
            Some(kek) => Some(copy::make(self.first_mut(), kek, &originals, &domain, &proved.profiles[0])?),
            None => None,
        };
        self.domain = Some(domain.clone());
        Ok((domain, copy))
    }

    /// Destroys the originals and the wrapping keys; what was made stays from here on.
    ///
    /// # Errors
    /// [`OpenError`] where a wrapping key stays: the tokens are good, and it is to be taken away by hand.
    pub fn finish(mut self) -> Result<(), OpenError> {
        if self.domain.is_none() {
            return Err(OpenError::new(OpenErrorKind::Input, "the ceremony has made no keys yet"));
        }
        self.seats.iter_mut().for_each(Seat::keep);
        let mut stays = Vec::new();
        for seat in &mut self.seats {
            // What is not destroyed here goes with the session.
            seat.clear();
            stays.extend(seat.drop_wrapping_key().err().map(|error| error.to_string()));
        }
        match stays.is_empty() {
            true => Ok(()),
            false => Err(OpenError::new(OpenErrorKind::Unfinished, stays.join("; "))),
        }
    }

    /// Takes away all that was made, and says what could not be.
    pub fn roll_back(&mut self) -> Vec<String> {
        self.seats.iter_mut().flat_map(Seat::roll_back).collect()
    }

    fn first(&self) -> &Seat {
        &self.seats[0]
    }

    fn first_mut(&mut self) -> &mut Seat {
        &mut self.seats[0]
    }

    /// Takes the public key of a token into the first.
    fn sent_to(&mut self, at: usize) -> Result<(Hash, Object), OpenError> {
        let (first, others) = self.seats.split_first_mut().expect("a ceremony has a first token");
        let made = "it was made when the ceremony began";
        match at {
            // It sends to itself, too: one way for all.
            0 => Ok((first.way.hash, first.wrapping.as_ref().expect(made).pair.public)),
            _ => {
                let Seat { way, wrapping, .. } = &others[at - 1];
                Ok((way.hash, first.take_public(&wrapping.as_ref().expect(made).public)?))
            }
        }
    }

    /// Has each token prove that it has the keys of the first.
    fn prove(&mut self, challenge: &[u8]) -> Result<Proved, OpenError> {
        let mut answers = Vec::new();
        let mut profiles = Vec::new();
        for seat in &self.seats {
            answers.push(answer(seat, challenge)?);
            profiles.push(profile(seat)?);
        }
        let (first, others) = self.seats.split_first().expect("a ceremony has a first token");
        let differs = |seat: &Seat, label| {
            let why = format!("{}: its key {label} is not the one of {}", seat.name(), first.name());
            OpenError::other(why)
        };
        let (first_profile, other_profiles) = profiles.split_first().expect("one a token");
        for ((seat, profile), answer) in others.iter().zip(other_profiles).zip(&answers[1..]) {
            if *answer != answers[0] {
                return Err(differs(seat, MAC_KEY_LABEL));
            }
            for ((from, from_profile), (to, to_profile)) in
                [((first, first_profile), (seat, profile)), ((seat, profile), (first, first_profile))]
            {
                let sent = Proof::make(from, from_profile, Some(to_profile))?;
                if let Some(label) = sent.fails(to, to_profile) {
                    return Err(differs(seat, label));
                }
            }
        }
        Ok(Proved { answer: answers[0], profiles })
    }
}

impl Drop for Ceremony {
    fn drop(&mut self) {
        self.roll_back();
    }
}

struct Proved {
    answer: [u8; 16],
    profiles: Vec<ModuleProfile>,
}

/// Makes a wrapping key on a token, or finds the one that an earlier command made, so that people can read its fingerprint there
/// before the ceremony.
///
/// # Errors
/// [`OpenError`] where the token has keys of a domain, or cannot take part.
pub fn wrapping_key(party: &Party) -> Result<WrappingKey, OpenError> {
    let mut seat = Seat::take(party)?;
    seat.look()?;
    if seat.wrapping.is_none() {
        seat.rehearse(None)?;
    }
    seat.make_wrapping_key()?;
    let wrapping = seat.wrapping.as_ref().expect("it was made or found just now");
    Ok(shown(&seat, wrapping))
}

fn shown(seat: &Seat, wrapping: &Wrapping) -> WrappingKey {
    let Wrapping { spki, made, .. } = wrapping;
    WrappingKey { token: seat.label.clone(), serial: seat.serial.clone(), spki: spki.clone(), made: *made }
}

/// Refuses a token on which a ceremony is under way.
pub(crate) fn refuse_unfinished(session: &Session) -> Result<(), OpenError> {
    let (publics, privates) = rsa::find(session).map_err(OpenError::because("the token's keys"))?;
    match publics.is_empty() && privates.is_empty() {
        true => Ok(()),
        false => Err(OpenError::new(
            OpenErrorKind::Unfinished,
            "a ceremony is under way on the token, or was cut short: it has a wrapping key",
        )),
    }
}

/// Two names of one token: the same slot of one module, or, by whatever path the module came, the same device.
fn is_same(one: &Seat, other: &Seat) -> bool {
    let slot = |seat: &Seat| (seat.module.path().to_path_buf(), seat.slot);
    slot(one) == slot(other)
        || (&one.serial, &one.label, &one.model) == (&other.serial, &other.label, &other.model)
}

fn challenge() -> Result<Vec<u8>, OpenError> {
    let mut challenge = CHALLENGE_PREFIX.to_vec();
    challenge.resize(CHALLENGE_BYTES, 0);
    getrandom::fill(&mut challenge[CHALLENGE_PREFIX.len()..])
        .map_err(|_| OpenError::other("the operating system gave no random bytes"))?;
    Ok(challenge)
}

/// Has a token compute the MAC of the challenge.
fn answer(seat: &Seat, challenge: &[u8]) -> Result<[u8; 16], OpenError> {
    let label = DOMAIN_KEYS.iter().find(|key| key.does == Does::Macs).expect("a domain has one").label;
    let key = seat.made(label).expect("it came in before it is asked");
    let mut answer = [0; 16];
    let computed = seat
        .session
        .sign_init(Mechanism::Plain(CKM_AES_CMAC), key)
        .and_then(|()| seat.session.sign(challenge, &mut answer));
    match computed.map_err(seat.failed("it computes no AES-CMAC"))? {
        16 => Ok(answer),
        bytes => Err(OpenError::other(format!("{}: a MAC of {bytes} bytes", seat.name()))),
    }
}

/// Finds out what the token can do with its new domain key, as opening it will.
fn profile(seat: &Seat) -> Result<ModuleProfile, OpenError> {
    let probe = probe::Probe {
        module: &seat.module,
        slot: seat.slot,
        owner: &seat.session,
        domain: domain(seat),
        overrides: &Overrides::default(),
    };
    probe.run().map_err(|why| OpenError::new(OpenErrorKind::Lacking, format!("{}: {why}", seat.name())))
}

fn seat_report(seat: &Seat, profile: &ModuleProfile) -> PartyReport {
    PartyReport {
        token: seat.label.clone(),
        serial: seat.serial.clone(),
        model: seat.model.clone(),
        oaep: None,
        unwraps_limited: profile.unwraps_limited(),
    }
}

/// Returns the keys that wrap, which came in before anything is tried.
fn domain(seat: &Seat) -> Domain {
    Domain {
        secret: seat.made(DOMAIN_KEY_LABEL).expect("it came in before it is tried"),
        private: seat.made(PRIVATE_DOMAIN_KEY_LABEL),
    }
}
