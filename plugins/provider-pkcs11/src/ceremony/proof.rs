//! The proof that two tokens have the same keys that wrap: what one has wrapped, the other unwraps and uses.

use keymill_core::key::KeySpec;
use keymill_core::seam::provider::PublicKey;
use serde::{Deserialize, Serialize};

use super::seat::Seat;
use crate::error::OpenError;
use crate::kind::Kind;
use crate::module::{Failure, Session};
use crate::pair;
use crate::profile::ModuleProfile;
use crate::wrapped::{self, Born};
use crate::{DOMAIN_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, probe};

/// What is sealed for it.
const TEXT: &[u8] = b"one domain, one key that wraps";

/// Keys that were made for nothing else, under the keys of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// A secret key under the domain key.
    pub wrapped: Vec<u8>,
    /// A text sealed under it.
    pub sealed: Vec<u8>,
    /// A private key under the domain key for private keys, where the tokens have some kind of them in common.
    pub pair: Option<ProofPair>,
}

/// A private key and its public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofPair {
    /// Its specification.
    pub spec: KeySpec,
    /// The private key, wrapped.
    pub wrapped: Vec<u8>,
    /// The public half as a SubjectPublicKeyInfo in DER.
    pub public: Vec<u8>,
}

impl Proof {
    /// Makes it on a token, for one that has `other` as its profile.
    pub(super) fn make(
        seat: &Seat,
        profile: &ModuleProfile,
        other: Option<&ModuleProfile>,
    ) -> Result<Self, OpenError> {
        let (session, domain) = (&seat.session, seat.domain());
        let mut sealed = Vec::new();
        let secret = born(session, Kind::AEAD, |born| {
            sealed = probe::seal(session, born.key, 1, TEXT)?;
            wrapped::wrap(session, domain, born.key, Kind::AEAD, profile)
        });
        let wrapped = secret.map_err(seat.failed("its domain key wraps no key"))?;
        // The one of both that is quickest made.
        let specs = [KeySpec::EcP256, KeySpec::EcP384, KeySpec::EcP256K, KeySpec::Rsa2048];
        let both = |spec: &KeySpec| {
            let has = |profile: &ModuleProfile| profile.specs.contains(spec);
            has(profile) && other.is_none_or(has)
        };
        let pair = specs.into_iter().find(both).map(|spec| {
            let kind = Kind::usual(spec);
            born(session, kind, |born| {
                let missing = Failure::Missing { call: "C_GenerateKeyPair" };
                let public = pair::public_half(session, born.public.ok_or(missing)?, kind)?;
                let wrapped = wrapped::wrap(session, domain, born.key, kind, profile)?;
                Ok(ProofPair { spec, wrapped, public: public.as_der().to_vec() })
            })
        });
        let pair = pair.transpose().map_err(seat.failed("its domain key wraps no private key"))?;
        Ok(Self { wrapped, sealed, pair })
    }

    /// Tries it on another token, and returns the label of the key that is another there.
    pub(super) fn fails(&self, seat: &Seat, profile: &ModuleProfile) -> Option<&'static str> {
        let (session, domain) = (&seat.session, seat.domain());
        let opened = || {
            let key = wrapped::unwrap(session, domain, &self.wrapped, Kind::AEAD, profile)?;
            let opened = probe::open(session, key, 1, &self.sealed);
            session.destroy_object(key)?;
            opened
        };
        if !matches!(opened(), Ok::<_, Failure>(text) if text == TEXT) {
            return Some(DOMAIN_KEY_LABEL);
        }
        let pair = self.pair.as_ref().filter(|pair| profile.specs.contains(&pair.spec))?;
        let kind = Kind::usual(pair.spec);
        let used = || {
            // What a failure leaves under way goes with it.
            let session = seat.module.open_session(seat.slot, false)?;
            let key = wrapped::unwrap(&session, domain, &pair.wrapped, kind, profile)?;
            let public = PublicKey::from_der(pair.public.clone());
            let used = pair::prove(&session, kind, key, &public, pair::Proof::Halves, profile);
            session.destroy_object(key)?;
            used.unwrap_or(Err(Failure::Mismatch { call: "C_UnwrapKey" }))
        };
        used().err().map(|_| PRIVATE_DOMAIN_KEY_LABEL)
    }
}

/// Has a key be born, used, and destroyed.
fn born<T>(
    session: &Session,
    kind: Kind,
    used: impl FnOnce(Born) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let born = wrapped::make(session, kind)?;
    let done = used(born);
    born.objects().try_for_each(|object| super::seat::destroy(session, object))?;
    done
}
