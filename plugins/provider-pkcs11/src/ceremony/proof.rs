//! The proof that two tokens have the same keys that wrap: what one wraps, the other unwraps as the same key.

use keymill_core::key::KeySpec;
use keymill_core::seam::provider::PublicKey;
use serde::{Deserialize, Serialize};

use super::domain;
use super::seat::Seat;
use crate::error::OpenError;
use crate::kind::Kind;
use crate::module::Failure;
use crate::pair::{self, Proof as Proves};
use crate::profile::ModuleProfile;
use crate::{DOMAIN_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, probe, wrapped};

/// What is sealed.
const TEXT: &[u8] = b"one domain, one key that wraps";
/// Pairs that a private key is taken of, the quickest first.
const PAIRS: [KeySpec; 4] = [KeySpec::EcP256, KeySpec::EcP384, KeySpec::EcP256K, KeySpec::Rsa2048];

/// A text sealed under a key that is wrapped under a domain key, and a private key that is wrapped under the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) wrapped: Vec<u8>,
    pub(crate) sealed: Vec<u8>,
    /// `None` where the tokens hold no pairs of one kind: they refuse them, then.
    pub(crate) pair: Option<WrappedPair>,
}

/// A private key under the domain's key for private ones, and its public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedPair {
    /// What it is a key of.
    pub spec: KeySpec,
    /// The private half, wrapped.
    pub wrapped: Vec<u8>,
    /// The public half: SubjectPublicKeyInfo in DER.
    pub public: Vec<u8>,
}

impl Proof {
    /// Wraps new keys on a token; the pair is one that `other` holds, too.
    pub(super) fn make(
        seat: &Seat,
        profile: &ModuleProfile,
        other: Option<&ModuleProfile>,
    ) -> Result<Self, OpenError> {
        let (session, domain) = (&seat.session, domain(seat));
        let made = || {
            let born = wrapped::make(session, Kind::AEAD.birth())?;
            let made = probe::seal(session, born.key, 1, TEXT).and_then(|sealed| {
                Ok((sealed, wrapped::wrap(session, domain, born.key, Kind::AEAD, profile)?))
            });
            session.destroy_object(born.key)?;
            made
        };
        let (sealed, wrapped) = made().map_err(seat.failed("its domain key wraps no key"))?;
        let both = |spec: &KeySpec| {
            let kind = Kind::usual(*spec);
            profile.check(kind).is_ok() && other.is_none_or(|other| other.check(kind).is_ok())
        };
        let pair = match PAIRS.into_iter().find(both) {
            Some(spec) => {
                Some(WrappedPair::make(seat, spec, profile).map_err(seat.failed("it wraps no private key"))?)
            }
            None => None,
        };
        Ok(Self { wrapped, sealed, pair })
    }

    /// Unwraps and tries the keys on a token, and returns the label of the domain's key that is another there.
    pub(super) fn fails(&self, seat: &Seat, profile: &ModuleProfile) -> Option<&'static str> {
        let (session, domain) = (&seat.session, domain(seat));
        let opened = || {
            let key = wrapped::unwrap(session, domain, &self.wrapped, Kind::AEAD, profile)?;
            let opened = probe::open(session, key, 1, &self.sealed);
            session.destroy_object(key)?;
            opened
        };
        if !matches!(opened(), Ok::<_, Failure>(text) if text == TEXT) {
            return Some(DOMAIN_KEY_LABEL);
        }
        let pair = self.pair.as_ref().filter(|pair| profile.check(Kind::usual(pair.spec)).is_ok())?;
        pair.proves(seat, profile).is_err().then_some(PRIVATE_DOMAIN_KEY_LABEL)
    }
}

impl WrappedPair {
    fn make(seat: &Seat, spec: KeySpec, profile: &ModuleProfile) -> Result<Self, Failure> {
        let (session, kind) = (&seat.session, Kind::usual(spec));
        let born = wrapped::make(session, kind.birth())?;
        let made = wrapped::wrap(session, domain(seat), born.key, kind, profile).and_then(|wrapped| {
            let public = born.public.expect("a pair has a public half");
            Ok(Self { spec, wrapped, public: pair::public_half(session, public, kind)?.as_der().to_vec() })
        });
        born.objects().try_for_each(|object| session.destroy_object(object))?;
        made
    }

    fn proves(&self, seat: &Seat, profile: &ModuleProfile) -> Result<(), Failure> {
        let kind = Kind::usual(self.spec);
        if !kind.fits(self.wrapped.len()) {
            return Err(Failure::Overlong { call: "C_UnwrapKey", bytes: self.wrapped.len() });
        }
        // On a session of its own, for what a failure leaves under way.
        let session = seat.module.open_session(seat.slot, false)?;
        let private = wrapped::unwrap(&session, domain(seat), &self.wrapped, kind, profile)?;
        let public = PublicKey::from_der(self.public.clone());
        let proved = pair::prove(&session, kind, private, &public, Proves::Halves, profile);
        session.destroy_object(private)?;
        proved.unwrap_or(Err(Failure::Mismatch { call: "C_CreateObject" }))
    }
}
