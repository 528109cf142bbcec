//! How material is wrapped and unwrapped: by RSA-OAEP, or under a key of AES that goes by it. `CKM_RSA_AES_KEY_WRAP` would be the same in one
//! call; no module that was seen has it.

use cryptoki_sys::*;
use keymill_core::key::{KeySpec, WrappingAlgorithm};

use super::UNLIKE;
use crate::kind::Kind;
use crate::module::{Attribute, Failure, Hash, Mechanism, Object, Session};
use crate::profile::ModuleProfile;

/// Bytes of the key that material goes under where that goes by RSA: AES-256.
const KEK_BYTES: usize = 32;
const KEK_LENGTH: Attribute<'static> = Attribute::number(CKA_VALUE_LEN, KEK_BYTES as CK_ULONG);

/// How material is unwrapped.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    hash: Hash,
    hybrid: bool,
    modulus_bytes: usize,
}

impl Way {
    /// Returns how an algorithm wraps by a key of `spec`.
    ///
    /// # Errors
    /// `Missing` where no token is asked for it.
    pub(crate) fn new(algorithm: WrappingAlgorithm, spec: KeySpec) -> Result<Self, Failure> {
        let hash = match algorithm {
            WrappingAlgorithm::RsaesOaepSha1 => Hash::Sha1,
            WrappingAlgorithm::RsaesOaepSha256 | WrappingAlgorithm::RsaAesKeyWrapSha256 => Hash::Sha256,
            WrappingAlgorithm::RsaesPkcs1V15 | WrappingAlgorithm::Sm2Pke => {
                return Err(Failure::Missing { call: algorithm.name() });
            }
        };
        let modulus_bytes = spec.modulus_bytes().ok_or(Failure::Missing { call: spec.name() })?;
        Ok(Self { hash, hybrid: algorithm.is_hybrid(), modulus_bytes })
    }

    /// Unwraps material into an object of the session, which may leave the token: like one that is born it is to be wrapped and destroyed.
    pub(super) fn unwrap(
        &self,
        session: &Session,
        private: Object,
        wrapped: &[u8],
        kind: Kind,
        profile: &ModuleProfile,
    ) -> Result<Object, Failure> {
        // Modules were seen to do worse than to refuse what has a length that cannot be.
        let (first, rest) = wrapped.split_at_checked(self.modulus_bytes).ok_or(UNLIKE)?;
        let oaep = Mechanism::RsaOaep(self.hash);
        let template = kind.arriving(profile.unwrap_value_len);
        if !self.hybrid {
            return match rest {
                [] => session.unwrap_key(oaep, private, first, &template),
                _ => Err(UNLIKE),
            };
        }
        if rest.len() < 16 || !rest.len().is_multiple_of(8) {
            return Err(UNLIKE);
        }
        let mut template_of_kek = kek(false);
        template_of_kek.extend(profile.unwrap_value_len.then_some(KEK_LENGTH));
        let kek = session.unwrap_key(oaep, private, first, &template_of_kek)?;
        let unwrapped = match told_bytes(session, kek) {
            Some(KEK_BYTES) => session.unwrap_key(profile.wrap.mechanism(), kek, rest, &template),
            _ => Err(UNLIKE),
        };
        // What is not destroyed goes with the session, which is next.
        let _ = session.destroy_object(kek);
        unwrapped
    }

    /// Wraps a key of the token's own, as whoever brings one does with his.
    pub(crate) fn wrap(
        &self,
        session: &Session,
        public: Object,
        key: Object,
        profile: &ModuleProfile,
    ) -> Result<Vec<u8>, Failure> {
        let oaep = Mechanism::RsaOaep(self.hash);
        let wrap = |mechanism, by, key| {
            let mut blob = vec![0; self.modulus_bytes];
            let bytes = session.wrap_key(mechanism, by, key, &mut blob)?;
            blob.truncate(bytes);
            Ok::<_, Failure>(blob)
        };
        if !self.hybrid {
            return wrap(oaep, public, key);
        }
        let mut template = kek(true);
        template.push(KEK_LENGTH);
        let kek = session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template)?;
        let wrapped = wrap(oaep, public, kek)
            .and_then(|first| Ok([first, wrap(profile.wrap.mechanism(), kek, key)?].concat()));
        let _ = session.destroy_object(kek);
        wrapped
    }
}

/// Returns the template of the key that goes by RSA where material is too long for that: one that is sent wraps and leaves, one that arrives
/// unwraps and stays.
fn kek(is_sent: bool) -> Vec<Attribute<'static>> {
    let mut template = vec![
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, is_sent),
        Attribute::flag(CKA_WRAP, is_sent),
        Attribute::flag(CKA_UNWRAP, !is_sent),
    ];
    let others = [CKA_TOKEN, CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY, CKA_DERIVE];
    template.extend(others.map(|kind| Attribute::flag(kind, false)));
    template
}

/// Returns how many bytes the token says that a secret key has, where it says so.
pub(super) fn told_bytes(session: &Session, key: Object) -> Option<usize> {
    let mut length = [0; size_of::<CK_ULONG>()];
    let read = session.attribute(key, CKA_VALUE_LEN, &mut length).ok()?;
    let bytes = CK_ULONG::from_ne_bytes(length) as usize;
    (read == length.len() && bytes != 0).then_some(bytes)
}
