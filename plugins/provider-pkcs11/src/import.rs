//! Key material that comes wrapped by an RSA pair of the token's own: the pair is made here for one key, and the material is unwrapped
//! by it, measured, known again or remembered, and wrapped under the domain's key like one that is born. The host sees none of it.
//!
//! The pair is an object of the token, and not a stored key: what unwraps from the store may never unwrap another key, and a pair that is
//! destroyed opens nothing any more that somebody recorded on its way.

use cryptoki_sys::CKM_GENERIC_SECRET_KEY_GEN;
use keymill_core::key::{KeyCheck, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{
    KeyMaterial, ProviderError, StoredKey, TokenObject, Unwrapped, WrappedImport,
};

mod pair;
mod way;

use crate::births::{self, Stored, Ward, Writes};
use crate::connect::Refusal;
use crate::kind::Kind;
use crate::module::{Class, Failure, Mechanism, Object};
use crate::stay::hex;
use crate::token::Token;
use crate::{check, stay, wrapped};
use pair::Pair;
pub(crate) use way::Way;
use way::told_bytes;

/// What a pair is called, before its id.
const LABEL: &str = "keymill import";
/// Bytes of the id that it gets, at random.
const ID_BYTES: usize = 16;
/// How often material must fail to unwrap, while the canary does, to be to blame: damage is for good.
const TRIES: usize = 3;

/// What shows that material is not what it should be.
const UNLIKE: Failure = Failure::Mismatch { call: "C_UnwrapKey" };

/// Makes a pair, and has it unwrap a key once, as it is to.
pub(crate) fn generate(
    token: &Token,
    spec: KeySpec,
    algorithm: WrappingAlgorithm,
) -> Result<StoredKey, ProviderError> {
    let kind = Kind::new(spec, KeyUsage::EncryptDecrypt, None).map_err(ProviderError::Rejected)?;
    if !token.profile.imports.contains(&algorithm) {
        let why = format!("the token takes no key material that is wrapped by {}", algorithm.name());
        return Err(ProviderError::Rejected(why));
    }
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id)
        .map_err(|_| ProviderError::Unavailable("the operating system gave no random bytes".into()))?;
    let label = format!("{LABEL} {}", hex(&id));
    let serial = token.with_link(|link| Ok(token.module.token_info(link.slot)?.serial))?;
    let made = births::tended(token, Writes::Yes, |ward| {
        // What a connection left that was lost over it.
        stay::destroy_named(&ward.session, kind, &id)?;
        let pair = Pair::generate(&ward.session, spec, &label, &id)?;
        let _using = ward.held(token)?;
        rehearse(token, ward, pair, Way::new(algorithm, spec)?)?;
        let public = crate::pair::public_half(&ward.session, pair.public, kind)?;
        births::destroy(token, &ward.session, pair.public);
        Ok(public)
    });
    match made {
        Ok(public) => Ok(StoredKey {
            spec,
            usage: kind.usage(),
            bulk_mode: None,
            material: KeyMaterial::TokenObject(TokenObject {
                adopted: false,
                serial,
                label,
                id: id.to_vec(),
                // It is known by its public half, which alone made what it opens.
                check: Vec::new(),
            }),
            public_key: Some(public),
        }),
        Err(refusal) => {
            let error = match refusal.class {
                Class::Data | Class::Other | Class::Unsupported => ProviderError::Rejected(format!(
                    "the token takes no key material that is wrapped by {}: {}",
                    algorithm.name(),
                    refusal.why
                )),
                _ => refusal.into(),
            };
            Err(stay::taken_back(token, kind, &label, &id, error))
        }
    }
}

/// Destroys a pair; one that is gone is as good.
pub(crate) fn destroy(
    token: &Token,
    wrapping: &StoredKey,
    object: &TokenObject,
) -> Result<(), ProviderError> {
    let kind = Kind::new(wrapping.spec, wrapping.usage, None).map_err(ProviderError::Corrupt)?;
    token.with_link(|link| {
        let session = token.module.open_session(link.slot, true)?;
        stay::destroy_named(&session, kind, &object.id)
    })?;
    Ok(())
}

/// Takes wrapped material in, as a key of one kind.
pub(crate) fn take(
    token: &Token,
    kind: Kind,
    import: &WrappedImport,
    object: &TokenObject,
) -> Result<Unwrapped, ProviderError> {
    let pair_kind = Kind::new(import.wrapping.spec, import.wrapping.usage, None);
    let pair_kind = pair_kind.map_err(ProviderError::Corrupt)?;
    let way = Way::new(import.algorithm, import.wrapping.spec).map_err(Refusal::from)?;
    let mut refused = String::new();
    let take = || {
        births::tended(token, Writes::No, |ward| {
            let _using = ward.held(token)?;
            let &[private] = &stay::by_id(&ward.session, pair_kind, &object.id)?[..] else { return Ok(None) };
            let arrived = way.unwrap(&ward.session, private, &import.wrapped, kind, &token.profile)?;
            let stored = settle(token, ward, kind, arrived, import.check.as_ref());
            births::destroy(token, &ward.session, arrived);
            stored.map(Some)
        })
    };
    for _ in 0..TRIES {
        match take() {
            Ok(Some(((wrapped, public_key), check))) => {
                let WrappedImport { spec, usage, bulk_mode, .. } = *import;
                let material = KeyMaterial::Wrapped(wrapped);
                return Ok(Unwrapped {
                    key: StoredKey { spec, usage, bulk_mode, material, public_key },
                    check,
                });
            }
            Ok(None) => {
                let why = format!("the token has no key {} any more", object.label);
                return Err(ProviderError::Corrupt(why));
            }
            Err(refusal) if may_be_data(refusal.class) => refused = refusal.why,
            Err(refusal) => return Err(refusal.into()),
        }
        // The same code can mean damaged material or a dead device: where the canary is silent, it is the device.
        token.with_link(|link| link.canary.unwrap_and_open(&link.owner, link.domain, &token.profile))?;
    }
    Err(ProviderError::Rejected(format!("the key material does not unwrap: {refused}")))
}

/// Tells whether material can be to blame.
fn may_be_data(class: Class) -> bool {
    matches!(class, Class::Data | Class::Other | Class::Unsupported | Class::Ambiguous)
}

/// Measures what has arrived, knows it again, and wraps it.
fn settle(
    token: &Token,
    ward: &Ward,
    kind: Kind,
    arrived: Object,
    known: Option<&KeyCheck>,
) -> Result<(Stored, KeyCheck), Failure> {
    let session = &ward.session;
    if !kind.spec().is_key_pair() {
        measure(token, ward, arrived, kind)?;
        let check = match known {
            None => check::make(session, arrived, kind)?,
            Some(known) => check::open(session, arrived, kind, known).map(|()| known.clone())?,
        };
        return Ok((births::store(token, ward, kind, arrived, None)?, check));
    }
    let public = crate::pair::told_half(session, arrived, kind)?;
    // It is known by its public half, and proved to have it before it is stored.
    let check = KeyCheck::from_bytes(public.as_der().to_vec());
    if known.is_some_and(|known| *known != check) {
        return Err(UNLIKE);
    }
    Ok((births::store(token, ward, kind, arrived, Some(public))?, check))
}

/// Sees that a secret key has as many bytes as its specification. Where the token does not say it, what it wraps to shows it to the block, and
/// the mechanism that uses it next refuses what is shorter by less: a token that did not would be found out when its pair is made.
fn measure(token: &Token, ward: &Ward, arrived: Object, kind: Kind) -> Result<(), Failure> {
    let Some(wanted) = kind.spec().material_bytes() else { return Ok(()) };
    if told_bytes(&ward.session, arrived).is_some_and(|told| told != wanted) {
        return Err(UNLIKE);
    }
    let mut blob = vec![0; wanted + 8];
    let mechanism = token.profile.wrap.mechanism();
    match ward.session.wrap_key(mechanism, ward.domain.secret, arrived, &mut blob)? {
        bytes if bytes == blob.len() => Ok(()),
        _ => Err(UNLIKE),
    }
}

/// Goes once through what an import will do, with a key of the token's own, and with one that is a byte short: a token that takes that, too,
/// is not to be believed.
fn rehearse(token: &Token, ward: &Ward, pair: Pair, way: Way) -> Result<(), Failure> {
    let session = &ward.session;
    let sent = wrapped::make(session, Kind::AEAD.birth())?.key;
    let arrives = through(token, ward, pair, way, (sent, Kind::AEAD)).and_then(|arrived| {
        let is_the_same = measure(token, ward, arrived, Kind::AEAD)
            .and_then(|()| check::make(session, sent, Kind::AEAD))
            .and_then(|check| check::open(session, arrived, Kind::AEAD, &check));
        births::destroy(token, session, arrived);
        is_the_same
    });
    births::destroy(token, session, sent);
    arrives?;
    if !token.profile.specs.contains(&KeySpec::HmacSha256) {
        return Ok(());
    }
    // For keys of AES there is no such length.
    let kind = Kind::usual(KeySpec::HmacSha256);
    let short = session.generate_key(Mechanism::Plain(CKM_GENERIC_SECRET_KEY_GEN), &kind.short())?;
    let taken = through(token, ward, pair, way, (short, kind)).and_then(|arrived| {
        let taken = measure(token, ward, arrived, kind).and_then(|()| check::make(session, arrived, kind));
        births::destroy(token, session, arrived);
        taken
    });
    births::destroy(token, session, short);
    match taken {
        Ok(_) => Err(Failure::Mismatch { call: "C_UnwrapKey" }),
        Err(failure) if matches!(failure.class(), Class::Data | Class::Other | Class::Unsupported) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Wraps a key and unwraps it again.
fn through(
    token: &Token,
    ward: &Ward,
    pair: Pair,
    way: Way,
    (sent, kind): (Object, Kind),
) -> Result<Object, Failure> {
    let (session, profile) = (&ward.session, &token.profile);
    let wrapped = way.wrap(session, pair.public, sent, profile)?;
    way.unwrap(session, pair.private, &wrapped, kind, profile)
}
