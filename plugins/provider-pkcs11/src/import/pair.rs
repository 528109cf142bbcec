//! The pair that material is wrapped by: it unwraps, in its token, and does nothing else.

use cryptoki_sys::*;
use keymill_core::key::KeySpec;

use crate::der::EXPONENT;
use crate::domain::unlike;
use crate::module::{Attribute, Class, Failure, Mechanism, Object, Session};

/// What a pair that unwraps material lets come of that: nothing that can be read.
const ARRIVES: [Attribute<'static>; 2] =
    [Attribute::flag(CKA_SENSITIVE, true), Attribute::flag(CKA_TOKEN, false)];

/// Both halves, as objects.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    /// Of the session: it is needed until its modulus is read.
    pub(super) public: Object,
    pub(super) private: Object,
}

impl Pair {
    /// Makes one, and sees that the token has obeyed.
    pub(super) fn generate(
        session: &Session,
        spec: KeySpec,
        label: &str,
        id: &[u8],
    ) -> Result<Self, Failure> {
        let public = [
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_PRIVATE, false),
            Attribute::flag(CKA_WRAP, true),
            Attribute::flag(CKA_ENCRYPT, false),
            Attribute::flag(CKA_VERIFY, false),
            Attribute::number(CKA_MODULUS_BITS, 8 * spec.modulus_bytes().unwrap_or_default() as CK_ULONG),
            Attribute::bytes(CKA_PUBLIC_EXPONENT, &EXPONENT),
        ];
        let private = |limited: bool| {
            let mut private = vec![
                Attribute::flag(CKA_TOKEN, true),
                Attribute::flag(CKA_PRIVATE, true),
                Attribute::flag(CKA_SENSITIVE, true),
                Attribute::flag(CKA_EXTRACTABLE, false),
                Attribute::flag(CKA_UNWRAP, true),
                Attribute::flag(CKA_DECRYPT, false),
                Attribute::flag(CKA_SIGN, false),
                Attribute::flag(CKA_MODIFIABLE, false),
                Attribute::bytes(CKA_LABEL, label.as_bytes()),
                Attribute::bytes(CKA_ID, id),
            ];
            private.extend(limited.then_some(Attribute::template(CKA_UNWRAP_TEMPLATE, &ARRIVES)));
            private
        };
        let made = |limited| {
            let private = private(limited);
            let mechanism = Mechanism::Plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
            let (public, key) = session.generate_key_pair(mechanism, &public, &private)?;
            Ok::<_, Failure>((Self { public, private: key }, unlike(session, key, &private)?))
        };
        // A module may not know the attribute that limits what unwraps.
        let (pair, unlike) = match made(true) {
            Err(failure) if matches!(failure.class(), Class::Other | Class::Unsupported) => made(false)?,
            other => other?,
        };
        match unlike {
            None => Ok(pair),
            // Whoever called destroys it by its id.
            Some(_) => Err(Failure::Mismatch { call: "C_GenerateKeyPair" }),
        }
    }
}
