//! Keys that stay in their token: made there, or taken over by label or id from whoever made them; found again by id, and known again by
//! what they do.

use cryptoki_sys::*;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{Adopt, KeyMaterial, ProviderError, PublicKey, StoredKey, TokenObject};

use crate::check;
use crate::connect::{self, Refusal};
use crate::der;
use crate::domain::is_label;
use crate::kind::Kind;
use crate::module::{Attribute, Failure, Object, Session, Value};
use crate::pair::{self, Proof};
use crate::token::{Link, Token};
use crate::wrapped;

/// Bytes of an id, at most.
const ID_BYTES: usize = 255;
/// Bytes of a label, at most.
const LABEL_BYTES: usize = 255;

/// What a key that is made here to stay is called, before its id.
const LABEL: &str = "keymill CMK";
/// Bytes of the id that it gets, at random.
const MADE_ID_BYTES: usize = 16;

/// Takes over a key that is on the token. Nothing is changed there.
pub(crate) fn adopt(token: &Token, wanted: &Adopt) -> Result<StoredKey, ProviderError> {
    let Adopt { spec, usage, bulk_mode, .. } = *wanted;
    let kind = Kind::new(spec, usage, bulk_mode).map_err(ProviderError::Rejected)?;
    if wanted.label.is_none() && wanted.id.is_none() {
        return Err(ProviderError::Rejected("a key is named by its label or its id".into()));
    }
    pin(token, kind, wanted, true)
}

/// Makes a key that stays on the token.
pub(crate) fn generate(
    token: &Token,
    spec: KeySpec,
    usage: KeyUsage,
    bulk_mode: Option<BulkMode>,
) -> Result<StoredKey, ProviderError> {
    let kind = Kind::new(spec, usage, bulk_mode).map_err(ProviderError::Rejected)?;
    token.profile.check(kind).map_err(ProviderError::Rejected)?;
    let _alone = token.births.lock();
    let mut id = [0; MADE_ID_BYTES];
    getrandom::fill(&mut id)
        .map_err(|_| ProviderError::Unavailable("the operating system gave no random bytes".into()))?;
    let label = format!("{LABEL} {}", hex(&id));
    let slot = token.with_link(|link| Ok(link.slot))?;
    // Not under the lock of the connection, for it can take seconds.
    let born = token
        .module
        .open_session(slot, true)
        .and_then(|session| wrapped::make(&session, kind.birth().staying(&label, &id)));
    let stored = match born {
        Ok(_) => {
            let wanted = Adopt { spec, usage, bulk_mode, label: Some(label.clone()), id: Some(id.to_vec()) };
            pin(token, kind, &wanted, false)
        }
        Err(failure) => {
            if connect::casts_doubt(&failure) {
                token.suspect();
            }
            Err(Refusal::from(failure).into())
        }
    };
    stored.map_err(|error| taken_back(token, kind, &label, &id, error))
}

/// Destroys what a generation left that failed, for a call that answers a failure may have been carried out all the same. Where that cannot
/// be, the reason says what to look for.
pub(crate) fn taken_back(
    token: &Token,
    kind: Kind,
    label: &str,
    id: &[u8],
    error: ProviderError,
) -> ProviderError {
    let destroyed =
        token.with_link(|link| destroy_named(&token.module.open_session(link.slot, true)?, kind, id));
    match (destroyed, error) {
        (Ok(()), error) => error,
        (Err(_), ProviderError::Unavailable(mut cause)) => {
            cause.reason = left(&cause.reason, label);
            ProviderError::Unavailable(cause)
        }
        (Err(_), ProviderError::Rejected(why)) => ProviderError::Rejected(left(&why, label)),
        (Err(_), error) => error,
    }
}

/// Destroys whatever has an id that was drawn here, with public halves.
pub(crate) fn destroy_named(session: &Session, kind: Kind, id: &[u8]) -> Result<(), Failure> {
    let found = by_id(session, kind, id)?;
    let halves = if kind.spec().is_key_pair() { public_halves(session, id)? } else { Vec::new() };
    found.into_iter().chain(halves).try_for_each(|object| session.destroy_object(object))
}

fn left(why: &str, label: &str) -> String {
    format!("{why}; a key {label} may be left in the token, that no CMK uses and that can be destroyed")
}

/// Finds a key and pins it.
fn pin(token: &Token, kind: Kind, wanted: &Adopt, adopted: bool) -> Result<StoredKey, ProviderError> {
    let mut refused = None;
    let taken = token.with_link(|link| {
        refused = None;
        let taken = take(token, link, kind, wanted)?;
        Ok(taken.map_err(|why| refused = Some(why)).ok())
    })?;
    match (taken, refused) {
        (Some((object, public_key)), _) => Ok(StoredKey {
            spec: wanted.spec,
            usage: wanted.usage,
            bulk_mode: wanted.bulk_mode,
            material: KeyMaterial::TokenObject(TokenObject { adopted, ..object }),
            public_key,
        }),
        (None, why) => Err(ProviderError::Rejected(why.unwrap_or_default())),
    }
}

type Taken = Result<(TokenObject, Option<PublicKey>), String>;

fn take(token: &Token, link: &Link, kind: Kind, wanted: &Adopt) -> Result<Taken, Failure> {
    let session = token.module.open_session(link.slot, false)?;
    let name = match (&wanted.label, &wanted.id) {
        (Some(label), _) => format!("label {label}"),
        (None, id) => format!("id {}", hex(id.as_deref().unwrap_or_default())),
    };
    let mut template = kind.class().to_vec();
    template.push(Attribute::flag(CKA_TOKEN, true));
    template.extend(wanted.label.as_ref().map(|label| Attribute::bytes(CKA_LABEL, label.as_bytes())));
    template.extend(wanted.id.as_ref().map(|id| Attribute::bytes(CKA_ID, id)));
    let found = private(&session, &template)?;
    let &[object] = &found[..] else {
        return Ok(Err(format!("{} keys of {} have the {name}", found.len(), kind.spec().name())));
    };
    let id = bytes(&session, object, CKA_ID, ID_BYTES)?;
    if id.is_empty() {
        return Ok(Err(format!(
            "the key of {name} has no id to be found by: give it one with the vendor's tool"
        )));
    }
    // It is shown to people, and whoever made the key may have meant their terminals.
    let label = bytes(&session, object, CKA_LABEL, LABEL_BYTES)?;
    let label = String::from_utf8_lossy(&label).replace(char::is_control, "?");
    if is_label(&label) {
        return Ok(Err(format!("key {label} is the domain's own, and serves nobody else")));
    }
    let same_id = by_id(&session, kind, &id)?.len();
    if same_id != 1 {
        return Ok(Err(format!("{same_id} keys have the id {}", hex(&id))));
    }
    if let Some(why) = unlike(&session, object, kind)? {
        return Ok(Err(format!("key {label}: {why}")));
    }
    let public = match kind.spec().is_key_pair() {
        false => None,
        true => match public_half(&session, object, kind, &id)? {
            Some(public) => Some(public),
            None => return Ok(Err(format!("key {label}: its public half is not on the token"))),
        },
    };
    let check = match &public {
        // It is known by its public half.
        Some(_) => Vec::new(),
        None => check::answer(&session, object, kind)?,
    };
    if let Some(public) = &public {
        let proved = pair::prove(&session, kind, object, public, Proof::Everything, &token.profile);
        match proved {
            None => {
                return Ok(Err(format!("key {label}: its public half is none of {}", kind.spec().name())));
            }
            Some(proved) => proved?,
        }
    }
    let serial = token.module.token_info(link.slot)?.serial;
    Ok(Ok((TokenObject { adopted: true, serial, label, id, check }, public)))
}

/// Finds the key again, by its id, and sees that it is the same: another that has its id is refused (it is `Mismatch`, as is none).
pub(crate) fn found_again(
    token: &Token,
    link: &Link,
    kind: Kind,
    stored: &TokenObject,
    public: Option<&PublicKey>,
) -> Result<Object, Failure> {
    let other = |call| Failure::Mismatch { call };
    // What a failure leaves under way goes with it.
    let session = token.module.open_session(link.slot, false)?;
    let &[object] = &by_id(&session, kind, &stored.id)?[..] else { return Err(other("C_FindObjects")) };
    if unlike(&session, object, kind)?.is_some() {
        return Err(other("C_GetAttributeValue"));
    }
    match public {
        Some(public) => pair::prove(&session, kind, object, public, Proof::Halves, &token.profile)
            .unwrap_or(Err(other("C_Sign")))?,
        None => {
            if check::answer(&session, object, kind)? != stored.check {
                return Err(other("C_Sign"));
            }
        }
    }
    Ok(object)
}

/// Tells whether no key has its id any more.
pub(crate) fn is_gone(token: &Token, link: &Link, kind: Kind, stored: &TokenObject) -> Result<bool, Failure> {
    Ok(by_id(&token.module.open_session(link.slot, false)?, kind, &stored.id)?.is_empty())
}

/// Destroys the key, once it is known to be the one, and the public half that was made with it.
pub(crate) fn destroy(
    token: &Token,
    link: &Link,
    object: Object,
    stored: &TokenObject,
    public: Option<&PublicKey>,
) -> Result<(), Failure> {
    let session = token.module.open_session(link.slot, true)?;
    if public.is_some() {
        for half in public_halves(&session, &stored.id)? {
            session.destroy_object(half)?;
        }
    }
    session.destroy_object(object)
}

/// Finds the keys of an id on the token, of a pair the private half.
pub(crate) fn by_id(session: &Session, kind: Kind, id: &[u8]) -> Result<Vec<Object>, Failure> {
    let mut template = kind.class()[..1].to_vec();
    template.extend([Attribute::flag(CKA_TOKEN, true), Attribute::bytes(CKA_ID, id)]);
    private(session, &template)
}

/// Finds private objects. Where there are none, that is true only of a session that sees them: a token that was away for a moment may be
/// back with nobody logged in, and a key that is not seen is not a key that is gone.
fn private(session: &Session, template: &[Attribute<'_>]) -> Result<Vec<Object>, Failure> {
    let found = session.find_objects(template)?;
    if found.is_empty() {
        session.check_login()?;
    }
    Ok(found)
}

/// Says in what an object is not as such a key must be.
fn unlike(session: &Session, object: Object, kind: Kind) -> Result<Option<String>, Failure> {
    for wanted in kind.on_token() {
        let Value::Bool(wanted_flag) = wanted.value else { continue };
        // What a module does not know of a key it cannot do with it.
        let flag = match session.flag(object, wanted.kind) {
            Err(failure) if failure.is(CKR_ATTRIBUTE_TYPE_INVALID) => false,
            other => other?,
        };
        if flag != wanted_flag {
            return Ok(Some(format!("its {} is {flag}", name(wanted.kind))));
        }
    }
    let mut length = [0; size_of::<CK_ULONG>()];
    if let Some(bytes) = kind.spec().material_bytes()
        && let Ok(read) = session.attribute(object, CKA_VALUE_LEN, &mut length)
        && read == length.len()
    {
        // One module says 0 of keys that were unwrapped.
        let length = CK_ULONG::from_ne_bytes(length);
        if length != 0 && length != bytes as CK_ULONG {
            return Ok(Some(format!("it has {length} bytes, and {} has {bytes}", kind.spec().name())));
        }
    }
    Ok(None)
}

fn public_halves(session: &Session, id: &[u8]) -> Result<Vec<Object>, Failure> {
    session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_PUBLIC_KEY),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::bytes(CKA_ID, id),
    ])
}

/// Reads the public half of a private key, from the object of its id, or, of RSA, from the private key itself.
fn public_half(
    session: &Session,
    private: Object,
    kind: Kind,
    id: &[u8],
) -> Result<Option<PublicKey>, Failure> {
    let found = public_halves(session, id)?;
    let from = match (&found[..], der::curve(kind.spec())) {
        (&[public], _) => public,
        (_, None) => private,
        _ => return Ok(None),
    };
    pair::public_half(session, from, kind).map(Some)
}

fn bytes(
    session: &Session,
    object: Object,
    kind: CK_ATTRIBUTE_TYPE,
    limit: usize,
) -> Result<Vec<u8>, Failure> {
    let mut read = vec![0; limit];
    let len = session.attribute(object, kind, &mut read)?;
    read.truncate(len);
    Ok(read)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(kind: CK_ATTRIBUTE_TYPE) -> &'static str {
    match kind {
        CKA_TOKEN => "CKA_TOKEN",
        CKA_SENSITIVE => "CKA_SENSITIVE",
        CKA_EXTRACTABLE => "CKA_EXTRACTABLE",
        CKA_ENCRYPT => "CKA_ENCRYPT",
        CKA_DECRYPT => "CKA_DECRYPT",
        CKA_SIGN => "CKA_SIGN",
        CKA_WRAP => "CKA_WRAP",
        CKA_UNWRAP => "CKA_UNWRAP",
        CKA_DERIVE => "CKA_DERIVE",
        _ => "attribute",
    }
}
