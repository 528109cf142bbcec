//! Finds out what a module can do, by trying on a session when a token is opened: modules say less of it than trying does.

use cryptoki_sys::*;
use keymill_core::key::KeySpec;
use keymill_core::limit;

use crate::domain::Domain;
use crate::kind::Kind;
use crate::module::{Attribute, Failure, Mechanism, Module, Object, Rv, Session};
use crate::profile::{CancelMethod, GcmMethod, ModuleProfile, Overrides, WrapMechanism};
use crate::wrapped;

/// What a probe works with.
pub(crate) struct Probe<'a> {
    pub(crate) module: &'a Module,
    pub(crate) slot: CK_SLOT_ID,
    pub(crate) owner: &'a Session,
    pub(crate) domain: Domain,
    pub(crate) overrides: &'a Overrides,
}

mod offers;

const TEXT: &[u8] = b"a text that a probe seals and opens";
const AAD: &[u8] = b"keymill probe";

/// An object that lives as long as the probe.
struct Passing<'a> {
    owner: &'a Session,
    object: Object,
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let _ = self.owner.destroy_object(self.object);
    }
}

impl<'a> Probe<'a> {
    /// Finds out what the module can do.
    ///
    /// # Errors
    /// A sentence that says what it lacks.
    pub(crate) fn run(&self) -> Result<ModuleProfile, String> {
        let failed = |what: &'static str| move |failure: Failure| format!("{what}: {failure}");
        let info = self.module.token_info(self.slot).map_err(failed("the token says nothing of itself"))?;
        let mechanisms = self.module.mechanisms(self.slot).map_err(failed("the token lists no mechanism"))?;

        let born = self.generate().map_err(failed("the token generates no AES-256 key"))?;
        let (wrap, blob) = self.wrap(&mechanisms, born.object)?;
        let unwrap_value_len =
            self.unwrap_value_len(wrap, &blob).map_err(failed("what it wrapped does not unwrap"))?;
        let unwrap = |kind: Kind| self.unwrap(wrap, &blob, &kind.unwrapped_saying(unwrap_value_len, false));
        let loaded = unwrap(Kind::AEAD).map_err(failed("what it wrapped does not unwrap"))?;

        let sealed = seal(self.owner, born.object, 1, TEXT)
            .map_err(failed("the token has no AES-GCM with a nonce of ours"))?;
        match open(self.owner, loaded.object, 1, &sealed) {
            Ok(text) if text == TEXT => {}
            Ok(_) => return Err("a key unwraps as another key".into()),
            Err(failure) => return Err(format!("what it sealed does not open: {failure}")),
        }
        let derives = mechanisms.contains(&CKM_AES_CMAC)
            && unwrap(Kind::DERIVING)
                .and_then(|key| mac::<16>(self.owner, key.object, Mechanism::Plain(CKM_AES_CMAC)))
                .is_ok();
        let mut profile = ModuleProfile {
            model: format!("{} {}", info.manufacturer, info.model),
            unwrap_template_honoured: self.refuses_the_forbidden_unwrap(wrap, &blob),
            gcm: self.overrides.gcm.unwrap_or_else(|| self.gcm(loaded.object)),
            derives,
            cancel: self.overrides.cancel.unwrap_or_else(|| self.cancel(loaded.object)),
            max_item_bytes: self.max_item_bytes(loaded.object)?,
            max_sessions: info.max_sessions,
            bad_tag: self.bad_tag(loaded.object, sealed),
            damaged_blob: self.damaged_blob(wrap, &blob, unwrap_value_len),
            wrap,
            unwrap_value_len,
            unwrap_ec_params: false,
            private_domain: self.domain.private.is_some(),
            private_template_honoured: None,
            specs: vec![KeySpec::Aes256],
            signatures: Vec::new(),
            decryptions: Vec::new(),
            imports: Vec::new(),
        };
        self.offers(&mechanisms, &mut profile);
        Ok(profile)
    }

    fn generate(&self) -> Result<Passing<'a>, Failure> {
        Ok(Passing { owner: self.owner, object: wrapped::make(self.owner, Kind::AEAD.birth())?.key })
    }

    /// Wraps `key` by the first mechanism of RFC 5649 that the token has.
    fn wrap(
        &self,
        mechanisms: &[CK_MECHANISM_TYPE],
        key: Object,
    ) -> Result<(WrapMechanism, Vec<u8>), String> {
        let candidates = match &self.overrides.wrap {
            Some(wrap) => vec![*wrap],
            None => vec![WrapMechanism::Kwp, WrapMechanism::Pad],
        };
        let mut said = String::from("it has neither CKM_AES_KEY_WRAP_KWP nor CKM_AES_KEY_WRAP_PAD");
        for wrap in candidates.into_iter().filter(|wrap| mechanisms.contains(&wrap.code())) {
            let mut blob = vec![0; 80];
            match self.owner.wrap_key(wrap.mechanism(), self.domain.secret, key, &mut blob) {
                // Another length is another construction, such as one with PKCS#5 padding.
                Ok(len) if Kind::AEAD.fits(len) => {
                    blob.truncate(len);
                    return Ok((wrap, blob));
                }
                Ok(len) => said = format!("{wrap:?} gives {len} bytes, not the 40 of RFC 5649"),
                Err(failure) => said = failure.to_string(),
            }
        }
        Err(format!("the domain key does not wrap: {said}"))
    }

    fn unwrap(
        &self,
        wrap: WrapMechanism,
        blob: &[u8],
        template: &[Attribute<'_>],
    ) -> Result<Passing<'a>, Failure> {
        let object = self.owner.unwrap_key(wrap.mechanism(), self.domain.secret, blob, template)?;
        Ok(Passing { owner: self.owner, object })
    }

    fn unwrap_value_len(&self, wrap: WrapMechanism, blob: &[u8]) -> Result<bool, Failure> {
        if let Some(said) = self.overrides.unwrap_value_len {
            return Ok(said);
        }
        match self.unwrap(wrap, blob, &Kind::AEAD.unwrapped_saying(false, false)) {
            Ok(_) => Ok(false),
            Err(_) => self.unwrap(wrap, blob, &Kind::AEAD.unwrapped_saying(true, false)).map(|_| true),
        }
    }

    /// Tries to unwrap a stored key as one whose value can be read, which `CKA_UNWRAP_TEMPLATE` of the domain key forbids.
    fn refuses_the_forbidden_unwrap(&self, wrap: WrapMechanism, blob: &[u8]) -> bool {
        let readable = [
            Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
            Attribute::number(CKA_KEY_TYPE, CKK_AES),
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_SENSITIVE, false),
            Attribute::flag(CKA_EXTRACTABLE, true),
        ];
        self.cannot_be_read(self.unwrap(wrap, blob, &readable))
    }

    fn cannot_be_read(&self, unwrapped: Result<Passing<'_>, Failure>) -> bool {
        match unwrapped {
            Err(_) => true,
            // It may have obeyed its own template over ours.
            Ok(key) => {
                matches!(self.owner.flag(key.object, CKA_SENSITIVE), Ok(true))
                    && matches!(self.owner.flag(key.object, CKA_EXTRACTABLE), Ok(false))
            }
        }
    }

    /// Tries the message interface: what it seals must open by the classic one.
    fn gcm(&self, key: Object) -> GcmMethod {
        let sealed = self.module.open_session(self.slot, false).and_then(|session| {
            session.message_encrypt_init(key)?;
            let (mut text, mut tag) = (vec![0; TEXT.len()], [0; 16]);
            let len = session.encrypt_message(&[2; 12], AAD, TEXT, &mut text, &mut tag)?;
            session.message_encrypt_final()?;
            text.truncate(len);
            text.extend(tag);
            Ok(text)
        });
        match sealed.and_then(|sealed| open(self.owner, key, 2, &sealed)) {
            Ok(text) if text == TEXT => GcmMethod::Message,
            _ => GcmMethod::Classic,
        }
    }

    fn cancel(&self, key: Object) -> CancelMethod {
        let tried = self.module.open_session(self.slot, false).and_then(|session| {
            let begin = || session.encrypt_init(Mechanism::Gcm { nonce: &[3; 12], aad: AAD }, key);
            begin()?;
            session.cancel()?;
            begin()
        });
        if tried.is_ok() { CancelMethod::SessionCancel } else { CancelMethod::ReplaceSession }
    }

    fn max_item_bytes(&self, key: Object) -> Result<usize, String> {
        if let Some(said) = self.overrides.max_item_bytes {
            return Ok(said.min(limit::BATCH_ITEM_BYTES));
        }
        // One service takes 16 KiB a call; on a session of its own, for what it leaves behind.
        let sizes = [limit::BATCH_ITEM_BYTES, 16 * 1024 - 16, 4 * 1024];
        for (nonce, bytes) in (4..).zip(sizes) {
            let text = vec![0; bytes];
            let tried = self.module.open_session(self.slot, false).and_then(|session| {
                let sealed = seal(&session, key, nonce, &text)?;
                open(&session, key, nonce, &sealed)
            });
            if tried.is_ok_and(|opened| opened == text) {
                return Ok(bytes);
            }
        }
        Err("the token seals no item of 4 KiB".into())
    }

    fn bad_tag(&self, key: Object, mut sealed: Vec<u8>) -> Option<Rv> {
        *sealed.last_mut()? ^= 1;
        let session = self.module.open_session(self.slot, false).ok()?;
        open(&session, key, 1, &sealed).err()?.rv()
    }

    fn damaged_blob(&self, wrap: WrapMechanism, blob: &[u8], value_len: bool) -> Option<Rv> {
        let mut damaged = blob.to_vec();
        *damaged.last_mut()? ^= 1;
        self.unwrap(wrap, &damaged, &Kind::AEAD.unwrapped_saying(value_len, false)).err()?.rv()
    }
}

/// Seals a text; each nonce is used once under a key.
pub(crate) fn seal(session: &Session, key: Object, nonce: u8, text: &[u8]) -> Result<Vec<u8>, Failure> {
    session.encrypt_init(Mechanism::Gcm { nonce: &[nonce; 12], aad: AAD }, key)?;
    let mut sealed = vec![0; text.len() + 16];
    match session.encrypt(text, &mut sealed)? {
        len if len == sealed.len() => Ok(sealed),
        bytes => Err(Failure::Overlong { call: "C_Encrypt", bytes }),
    }
}

/// Opens what [`seal`] sealed.
pub(crate) fn open(session: &Session, key: Object, nonce: u8, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    session.decrypt_init(Mechanism::Gcm { nonce: &[nonce; 12], aad: AAD }, key)?;
    let mut text = vec![0; sealed.len()];
    let len = session.decrypt(sealed, &mut text)?;
    text.truncate(len);
    Ok(text)
}

fn mac<const N: usize>(session: &Session, key: Object, mechanism: Mechanism<'_>) -> Result<[u8; N], Failure> {
    session.sign_init(mechanism, key)?;
    let mut mac = [0; N];
    match session.sign(TEXT, &mut mac)? {
        bytes if bytes == N => Ok(mac),
        bytes => Err(Failure::Overlong { call: "C_Sign", bytes }),
    }
}
