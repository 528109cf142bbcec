//! A token at a ceremony: found, logged in to once, and what was made on it, so that it can be taken away again.

use std::cell::Cell;

use cryptoki_sys::*;

use super::Party;
use super::rsa::{self, Pair, Public, REHEARSAL_BITS};
use crate::connect::{check_pin_state, find_token};
use crate::domain::{self, DOMAIN_KEYS, DomainKey};
use crate::error::{OpenError, OpenErrorKind};
use crate::initialize::fresh_id;
use crate::module::{Attribute, Class, Failure, Hash, Mechanism, Module, Object, Session, User, Value};

/// A token that takes part.
pub(super) struct Seat {
    pub(super) module: Module,
    pub(super) slot: CK_SLOT_ID,
    pub(super) label: String,
    /// The name of the domain that it is about.
    pub(super) domain: Option<String>,
    pub(super) serial: String,
    pub(super) model: String,
    /// Its own key, which the domain's keys come to it under.
    pub(super) wrapping: Option<Wrapping>,
    pub(super) way: Way,
    /// What was made on the token and is to go if the ceremony fails, by name.
    made: Vec<(&'static str, Object)>,
    /// Objects of the session that go with it, and are destroyed before.
    passing: Vec<Object>,
    /// Last, so that it is closed last.
    pub(super) session: Session,
}

/// The wrapping key of a token.
pub(super) struct Wrapping {
    pub(super) pair: Pair,
    pub(super) public: Public,
    /// The public half, as its fingerprint is taken.
    pub(super) spki: Vec<u8>,
    pub(super) made: bool,
}

/// How the token takes a key that is to be the domain's, found by a rehearsal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) hash: Hash,
    /// Whether the unwrap must say the length of the key.
    pub(super) value_len: bool,
    /// Whether the key takes a `CKA_UNWRAP_TEMPLATE`.
    pub(super) limited: bool,
}

/// Each way, the best first: the limit counts for more than the hash.
fn ways() -> impl Iterator<Item = Way> {
    let each = [true, false]
        .into_iter()
        .flat_map(|limited| [Hash::Sha256, Hash::Sha1].into_iter().map(move |hash| (limited, hash)));
    each.flat_map(|(limited, hash)| [false, true].map(|value_len| Way { hash, value_len, limited }))
}

/// Returns the template of a key of the domain that is unwrapped; `on_token` false is the rehearsal.
pub(super) fn arriving<'a>(
    key: &DomainKey,
    label: &'a str,
    id: &'a [u8],
    way: Way,
    on_token: bool,
) -> Vec<Attribute<'a>> {
    let mut template = (key.template)(label, id, way.limited);
    template.retain(|attribute| way.value_len || attribute.kind != CKA_VALUE_LEN);
    for attribute in template.iter_mut().filter(|attribute| attribute.kind == CKA_TOKEN) {
        attribute.value = Value::Bool(on_token);
    }
    // SoftHSM obeys at once, and refuses whatever would come after this one.
    template.sort_by_key(|attribute| attribute.kind == CKA_MODIFIABLE);
    template
}

/// The template of a key of the domain before it is anywhere: it can be wrapped, and nothing else.
const ORIGINAL: [Attribute<'static>; 14] = [
    Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
    Attribute::number(CKA_KEY_TYPE, CKK_AES),
    Attribute::number(CKA_VALUE_LEN, 32),
    Attribute::flag(CKA_TOKEN, false),
    Attribute::flag(CKA_PRIVATE, true),
    Attribute::flag(CKA_SENSITIVE, true),
    Attribute::flag(CKA_EXTRACTABLE, true),
    Attribute::flag(CKA_ENCRYPT, false),
    Attribute::flag(CKA_DECRYPT, false),
    Attribute::flag(CKA_SIGN, false),
    Attribute::flag(CKA_VERIFY, false),
    Attribute::flag(CKA_WRAP, false),
    Attribute::flag(CKA_UNWRAP, false),
    Attribute::flag(CKA_DERIVE, false),
];

impl Seat {
    /// Finds a token, and logs in with one try of the PIN.
    pub(super) fn take(party: &Party) -> Result<Self, OpenError> {
        let module = party.module.clone();
        let name = party.name();
        let started = module.initialize();
        started.map_err(|failure| {
            OpenError::new(OpenErrorKind::Module, format!("the module of {name}: {failure}"))
        })?;
        let (slot, info) = find_token(&module, &party.token_label, party.token_serial.as_deref())?;
        check_pin_state(&info)?;
        let session = module.open_session(slot, true).map_err(OpenError::because(&name))?;
        match session.login(User::User, &party.pin) {
            Err(failure) if !failure.is(CKR_USER_ALREADY_LOGGED_IN) => {
                return Err(OpenError::because(&name)(failure));
            }
            _ => {}
        }
        Ok(Self {
            module,
            slot,
            label: info.label,
            domain: party.domain.clone(),
            serial: info.serial,
            model: format!("{} {}", info.manufacturer, info.model),
            wrapping: None,
            way: Way { hash: Hash::Sha1, value_len: false, limited: false },
            made: Vec::new(),
            passing: Vec::new(),
            session,
        })
    }

    /// Returns the label that a key of the domain has on the token.
    pub(super) fn label_of(&self, key: &DomainKey) -> String {
        domain::label_in(key.label, self.domain.as_deref())
    }

    /// How the token is called in sentences.
    pub(super) fn name(&self) -> String {
        format!("token {} (serial number {})", self.label, self.serial)
    }

    /// Makes a function that says at which token something failed.
    pub(super) fn failed(&self, what: &str) -> impl FnOnce(Failure) -> OpenError + use<> {
        OpenError::because(format!("{}: {what}", self.name()))
    }

    /// Refuses a token that has keys of a domain, and takes note of a wrapping key that it has.
    pub(super) fn look(&mut self) -> Result<(), OpenError> {
        let refused = |kind, why: String| Err(OpenError::new(kind, format!("{}: {why}", self.name())));
        let labels = self.domain_labels()?;
        let (publics, privates) = rsa::find(&self.session).map_err(self.failed("its keys"))?;
        if !labels.is_empty() {
            let labels = labels.join(", ");
            if publics.is_empty() && privates.is_empty() {
                return refused(
                    OpenErrorKind::Occupied,
                    format!("it has keys of a domain already: {labels}"),
                );
            }
            return refused(
                OpenErrorKind::Unfinished,
                format!("an earlier ceremony ended in the middle, and left {labels} and its wrapping key"),
            );
        }
        match (&publics[..], &privates[..]) {
            ([], []) => Ok(()),
            (&[public], &[private]) => {
                let pair = Pair { public, private };
                let public = Public::read(&self.session, public).map_err(self.failed("its wrapping key"))?;
                match public.spki() {
                    Some(spki) if self.stays(private).map_err(self.failed("its wrapping key"))? => {
                        self.wrapping = Some(Wrapping { pair, public, spki, made: false });
                        Ok(())
                    }
                    _ => refused(
                        OpenErrorKind::Unfinished,
                        "its wrapping key was not made in it as keymill makes them, or could be taken out of it".into(),
                    ),
                }
            }
            _ => refused(
                OpenErrorKind::Unfinished,
                format!("it has {} halves of wrapping keys, not two", publics.len() + privates.len()),
            ),
        }
    }

    /// Tells whether a private key was born in the token and has never been able to leave it: whoever brought it there has it still.
    fn stays(&self, private: Object) -> Result<bool, Failure> {
        for (kind, wanted) in [
            (CKA_EXTRACTABLE, false),
            (CKA_SENSITIVE, true),
            (CKA_LOCAL, true),
            (CKA_NEVER_EXTRACTABLE, true),
            (CKA_ALWAYS_SENSITIVE, true),
        ] {
            match self.session.flag(private, kind) {
                // The last three are the token's to tell, and some tell nothing.
                Err(failure)
                    if failure.is(CKR_ATTRIBUTE_TYPE_INVALID)
                        && kind != CKA_EXTRACTABLE
                        && kind != CKA_SENSITIVE => {}
                flag if flag? == wanted => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Returns the labels of the domain's keys that are on the token, once for each key.
    pub(super) fn domain_labels(&self) -> Result<Vec<String>, OpenError> {
        let mut labels = Vec::new();
        for key in &DOMAIN_KEYS {
            let found = domain::find(&self.session, &self.label_of(key)).map_err(self.failed("its keys"))?;
            labels.extend(found.iter().map(|_| self.label_of(key)));
        }
        Ok(labels)
    }

    /// Goes once through what the ceremony will do with this token, on objects that go with the session: nothing is written.
    pub(super) fn rehearse(&mut self, first: Option<&mut Seat>) -> Result<(), OpenError> {
        let id = fresh_id()?;
        let pair = rsa::generate(&self.session, REHEARSAL_BITS, false, &id)
            .map_err(self.failed("it makes no RSA key pair that wraps"))?;
        self.passing.extend([pair.public, pair.private]);
        let public = Public::read(&self.session, pair.public)
            .map_err(self.failed("the numbers of a public key do not come out"))?;
        let rehearsed = match first {
            Some(first) => self.rehearse_with(first, pair, &public),
            None => {
                let (taken, original) = self.send_off(&public)?;
                let failures = Failures::default();
                let way = ways().take_while(|way| way.limited || !failures.doubtful()).find(|way| {
                    failures.none(surely(|| {
                        let blob = wrap(&self.session, taken, original, way.hash)?;
                        self.arrive(pair, &blob, *way, &id)
                    }))
                });
                way.ok_or_else(|| failures.told(none_by_oaep(&self.name())))
            }
        };
        self.clear();
        self.way = rehearsed?;
        Ok(())
    }

    fn rehearse_with(&mut self, first: &mut Seat, pair: Pair, public: &Public) -> Result<Way, OpenError> {
        let id = fresh_id()?;
        let sent = first.send_off(public);
        let found = sent.and_then(|(taken, original)| {
            let failures = Failures::default();
            let way = ways().take_while(|way| way.limited || !failures.doubtful()).find(|way| {
                failures.none(surely(|| {
                    let blob = wrap(&first.session, taken, original, way.hash)?;
                    self.arrive(pair, &blob, *way, &id)
                }))
            });
            way.ok_or_else(|| failures.told(none_by_oaep(&format!("{} to {}", first.name(), self.name()))))
        });
        first.clear();
        found
    }

    /// Makes what the first token sends a key off with: the other's public key, and a key that may leave.
    fn send_off(&mut self, public: &Public) -> Result<(Object, Object), OpenError> {
        let taken = public
            .take_into(&self.session)
            .map_err(self.failed("it takes no public key of another token"))?;
        self.passing.push(taken);
        let original = self.original()?;
        Ok((taken, original))
    }

    /// Makes a key that may leave, as an object of the session.
    pub(super) fn original(&mut self) -> Result<Object, OpenError> {
        let original = self.session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &ORIGINAL).map_err(
            self.failed("it makes no key that may be wrapped out of it (extractable session object)"),
        )?;
        self.passing.push(original);
        Ok(original)
    }

    /// Takes a key of each kind in, in a rehearsal.
    fn arrive(&mut self, pair: Pair, blob: &[u8], way: Way, id: &[u8]) -> Result<(), Failure> {
        for key in &DOMAIN_KEYS {
            let template = arriving(key, key.label, id, way, false);
            let object =
                self.session.unwrap_key(Mechanism::RsaOaep(way.hash), pair.private, blob, &template)?;
            self.passing.push(object);
        }
        Ok(())
    }

    /// Makes the wrapping key, unless there is one.
    pub(super) fn make_wrapping_key(&mut self) -> Result<(), OpenError> {
        if self.wrapping.is_some() {
            return Ok(());
        }
        let id = fresh_id()?;
        let pair = rsa::generate(&self.session, rsa::BITS, true, &id)
            .map_err(self.failed("it makes no RSA-3072 key"))?;
        let read = surely(|| Public::read(&self.session, pair.public));
        let mismatch = Failure::Mismatch { call: "C_GenerateKeyPair" };
        let read = read.and_then(|public| match self.stays(pair.private)? {
            true => Ok((public.spki().ok_or(mismatch)?, public)),
            false => Err(mismatch),
        });
        let (spki, public) = read.map_err(self.failed("its wrapping key")).inspect_err(|_| {
            let _ = destroy_pair(&self.session, pair);
        })?;
        self.wrapping = Some(Wrapping { pair, public, spki, made: true });
        Ok(())
    }

    /// Takes the public half of a wrapping key in, as an object of the session.
    pub(super) fn take_public(&mut self, public: &Public) -> Result<Object, OpenError> {
        let taken = public
            .take_into(&self.session)
            .map_err(self.failed("it takes no public key of another token"))?;
        self.passing.push(taken);
        Ok(taken)
    }

    /// Takes a key of the domain in, and checks that the token obeyed.
    pub(super) fn take_in(
        &mut self,
        key: &DomainKey,
        mechanism: Mechanism<'_>,
        unwrapping: Object,
        blob: &[u8],
        id: &[u8],
    ) -> Result<(), OpenError> {
        let label = self.label_of(key);
        let template = arriving(key, &label, id, self.way, true);
        let object = self
            .session
            .unwrap_key(mechanism, unwrapping, blob, &template)
            .map_err(self.failed(&format!("key {} does not come in", key.label)))?;
        self.made.push((key.label, object));
        match domain::unlike(&self.session, object, &template).map_err(self.failed(key.label))? {
            None => Ok(()),
            Some(kind) => Err(OpenError::new(
                OpenErrorKind::Lacking,
                format!(
                    "{}: attribute 0x{kind:x} of key {} is not as it was asked for",
                    self.name(),
                    key.label
                ),
            )),
        }
    }

    /// Returns the key that was made under this label.
    pub(super) fn made(&self, label: &str) -> Option<Object> {
        self.made.iter().find(|(made, _)| *made == label).map(|(_, object)| *object)
    }

    /// Leaves an object of the session to be destroyed.
    pub(super) fn passes(&mut self, object: Object) {
        self.passing.push(object);
    }

    /// Destroys the objects of the session, and returns those that stay.
    pub(super) fn clear(&mut self) -> usize {
        let session = &self.session;
        self.passing.retain(|object| destroy(session, *object).is_err());
        self.passing.len()
    }

    /// Destroys the wrapping key.
    pub(super) fn drop_wrapping_key(&mut self) -> Result<(), OpenError> {
        let Some(wrapping) = &self.wrapping else { return Ok(()) };
        destroy_pair(&self.session, wrapping.pair).map_err(self.failed("its wrapping key stays"))?;
        self.wrapping = None;
        Ok(())
    }

    /// Says that what was made stays.
    pub(super) fn keep(&mut self) {
        self.made.clear();
    }

    /// Destroys what was made, the key that completes the token first, and says what stays.
    pub(super) fn roll_back(&mut self) -> Vec<String> {
        let mut stays = Vec::new();
        while let Some((label, object)) = self.made.pop() {
            if let Err(failure) = destroy(&self.session, object) {
                stays.push(format!("{}: {label} ({failure})", self.name()));
            }
        }
        if self.wrapping.as_ref().is_some_and(|wrapping| wrapping.made)
            && let Err(error) = self.drop_wrapping_key()
        {
            stays.push(error.to_string());
        }
        // They go with the session.
        self.clear();
        stays
    }
}

/// Wraps a key under a public key.
pub(super) fn wrap(session: &Session, public: Object, key: Object, hash: Hash) -> Result<Vec<u8>, Failure> {
    let mut blob = vec![0; 512];
    let len = session.wrap_key(Mechanism::RsaOaep(hash), public, key, &mut blob)?;
    blob.truncate(len);
    Ok(blob)
}

fn destroy_pair(session: &Session, pair: Pair) -> Result<(), Failure> {
    let private = destroy(session, pair.private);
    private.and(destroy(session, pair.public))
}

/// Destroys an object, and tries again where that fails: it must not stay because of a moment. One that is gone counts as destroyed.
pub(super) fn destroy(session: &Session, object: Object) -> Result<(), Failure> {
    let mut left = 3;
    loop {
        match session.destroy_object(object) {
            Err(failure) if failure.class() == Class::Object => return Ok(()),
            Err(_) if left > 1 => left -= 1,
            other => return other,
        }
    }
}

fn none_by_oaep(who: &str) -> String {
    format!("{who}: no key comes over by RSA-OAEP (SHA-256 or SHA-1)")
}

/// Tries again what fails in a way that could be of the moment: a device that stumbles must not lead to a weaker way.
pub(super) fn surely<T>(mut tried: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut left = 3;
    loop {
        match tried() {
            Err(failure) if failure.class() == Class::Ambiguous && left > 1 => left -= 1,
            other => return other,
        }
    }
}

/// What a token answered to the ways that were tried.
#[derive(Default)]
pub(super) struct Failures(Cell<Option<Failure>>, Cell<bool>);

impl Failures {
    /// Keeps a failure, and tells whether there was none. What a token says of the data is worth more than that it wraps nothing.
    pub(super) fn none(&self, tried: Result<(), Failure>) -> bool {
        let Err(failure) = tried else { return true };
        self.1.set(self.1.get() || failure.class() == Class::Ambiguous);
        self.0.set(Some(match self.0.get() {
            Some(kept @ Failure::Returned { call: "C_UnwrapKey", .. }) => kept,
            _ => failure,
        }));
        false
    }

    /// Tells whether one of them may mean a device in trouble, so that nothing weaker is to be tried because of it.
    pub(super) fn doubtful(&self) -> bool {
        self.1.get()
    }

    /// Says why no way was found.
    pub(super) fn told(&self, what: String) -> OpenError {
        let why = self.0.get().map(|failure| format!(": {failure}")).unwrap_or_default();
        OpenError::new(OpenErrorKind::Lacking, format!("{what}{why}"))
    }
}
