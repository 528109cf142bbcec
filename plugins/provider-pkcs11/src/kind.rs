//! What a key is to a token, by its specification and the one usage that it has: the object that it is born as, the object that
//! it unwraps as, how long it is between the two, and what it may be asked for.

use std::ops::RangeInclusive;

use cryptoki_sys::*;
use keymill_core::key::{BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};

use crate::der::{self, EXPONENT};
use crate::module::template::{UNWRAPPED, UNWRAPPED_PRIVATE};
use crate::module::{Attribute, Failure, Hash, Mechanism};
use crate::profile::ModuleProfile;

/// A specification and its one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    spec: KeySpec,
    usage: KeyUsage,
    mode: Option<BulkMode>,
}

/// How a key is born: extractable, since it is to be wrapped at once, and destroyed then; unless it is to stay.
pub(crate) enum Birth<'a> {
    Secret(Mechanism<'static>, Vec<Attribute<'a>>),
    Pair(Mechanism<'static>, Vec<Attribute<'a>>, Vec<Attribute<'a>>),
}

impl<'a> Birth<'a> {
    /// Has what is born stay on the token, under a name, and never leave it.
    pub(crate) fn staying(self, label: &'a str, id: &'a [u8]) -> Self {
        let stays = |template: Vec<Attribute<'a>>| {
            let other = |a: &Attribute<'_>| !matches!(a.kind, CKA_TOKEN | CKA_EXTRACTABLE);
            let leaves = template.iter().any(|attribute| attribute.kind == CKA_EXTRACTABLE);
            let mut stays: Vec<_> = template.into_iter().filter(other).collect();
            stays.push(Attribute::flag(CKA_TOKEN, true));
            stays.extend(leaves.then_some(Attribute::flag(CKA_EXTRACTABLE, false)));
            stays.extend([Attribute::bytes(CKA_LABEL, label.as_bytes()), Attribute::bytes(CKA_ID, id)]);
            stays
        };
        match self {
            Birth::Secret(mechanism, template) => Birth::Secret(mechanism, stays(template)),
            Birth::Pair(mechanism, public, private) => Birth::Pair(mechanism, stays(public), stays(private)),
        }
    }
}

/// SHA-256 in a `DigestInfo` (RFC 8017, 9.2): what stands before the digest that PKCS #1 v1.5 signs. The padding is the token's.
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

impl Kind {
    /// A key of AES-256 that encrypts in the token.
    pub(crate) const AEAD: Kind =
        Kind { spec: KeySpec::Aes256, usage: KeyUsage::EncryptDecrypt, mode: Some(BulkMode::InHsm) };
    /// A key of AES-256 that subkeys derive from.
    pub(crate) const DERIVING: Kind = Kind { mode: Some(BulkMode::HsmDerived), ..Kind::AEAD };

    /// Puts a key together.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub(crate) fn new(spec: KeySpec, usage: KeyUsage, mode: Option<BulkMode>) -> Result<Self, String> {
        if !spec.allows(usage) {
            return Err(format!("a key of {} has no usage {}", spec.name(), usage.name()));
        }
        if class_of(spec).is_none() {
            return Err(format!("no token is asked for keys of {}", spec.name()));
        }
        match (spec, mode) {
            (KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128, None) => {
                Err(format!("a key of {} in an HSM has a bulk mode", spec.name()))
            }
            (KeySpec::Aes256, Some(_))
            | (KeySpec::Aes192 | KeySpec::Aes128, Some(BulkMode::InHsm))
            | (_, None) => Ok(Self { spec, usage, mode }),
            (_, Some(mode)) => Err(format!("a key of {} has no bulk mode {mode:?}", spec.name())),
        }
    }

    /// Makes the kind of a key that has no bulk mode, for its usual use.
    pub(crate) fn usual(spec: KeySpec) -> Self {
        let aes = matches!(spec, KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128);
        let mode = aes.then_some(BulkMode::InHsm);
        Self { spec, usage: spec.usages()[0], mode }
    }

    pub(crate) fn spec(self) -> KeySpec {
        self.spec
    }

    pub(crate) fn usage(self) -> KeyUsage {
        self.usage
    }

    /// Tells whether it encrypts by AES-GCM.
    pub(crate) fn seals(self) -> bool {
        self.mode == Some(BulkMode::InHsm)
    }

    /// Tells whether subkeys derive from it.
    pub(crate) fn derives(self) -> bool {
        self.mode == Some(BulkMode::HsmDerived)
    }

    /// Tells whether it signs, or computes MACs, by `algorithm`.
    pub(crate) fn signs(self, algorithm: SignAlgorithm) -> bool {
        self.usage.signs() && self.spec.signatures().contains(&algorithm)
    }

    /// Tells whether it opens what was encrypted by `algorithm`.
    pub(crate) fn opens(self, algorithm: DecryptAlgorithm) -> bool {
        self.usage.encrypts() && self.spec.decryptions().contains(&algorithm)
    }

    /// Returns the bytes that it may have when wrapped (RFC 5649): a secret key its length and eight more, a private key what PKCS #8
    /// leaves room for. Eight divides all of them.
    pub(crate) fn wrapped_bytes(self) -> RangeInclusive<usize> {
        match (self.spec.material_bytes(), self.spec.modulus_bytes(), der::coordinate_bytes(self.spec)) {
            (Some(secret), ..) => secret + 8..=secret + 8,
            // Modulus, exponent, and five numbers of half their length.
            (_, Some(modulus), _) => modulus * 9 / 2..=modulus * 9 / 2 + 160,
            // The number, and the point in some.
            (.., Some(coordinate)) => coordinate + 24..=3 * coordinate + 96,
            (None, None, None) => 0..=0,
        }
    }

    /// Tells whether so many bytes can be such a key.
    pub(crate) fn fits(self, wrapped: usize) -> bool {
        wrapped.is_multiple_of(8) && self.wrapped_bytes().contains(&wrapped)
    }

    /// Returns how it is born.
    pub(crate) fn birth(self) -> Birth<'static> {
        let mut template = self.passing();
        if let Some(bytes) = self.spec.material_bytes() {
            template.push(Attribute::flag(CKA_WRAP, false));
            template.push(Attribute::number(CKA_VALUE_LEN, bytes as CK_ULONG));
            template.extend(self.class());
            let mechanism = match self.spec {
                KeySpec::HmacSha256 | KeySpec::HmacSha384 | KeySpec::HmacSha512 => CKM_GENERIC_SECRET_KEY_GEN,
                _ => CKM_AES_KEY_GEN,
            };
            return Birth::Secret(Mechanism::Plain(mechanism), template);
        }
        template.extend(self.class());
        let mut public = vec![
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_WRAP, false),
            Attribute::flag(CKA_ENCRYPT, self.usage.encrypts()),
            Attribute::flag(CKA_VERIFY, self.usage.signs()),
        ];
        let mechanism = match (self.spec.modulus_bytes(), der::curve(self.spec)) {
            (Some(bytes), _) => {
                public.push(Attribute::number(CKA_MODULUS_BITS, 8 * bytes as CK_ULONG));
                public.push(Attribute::bytes(CKA_PUBLIC_EXPONENT, &EXPONENT));
                CKM_RSA_PKCS_KEY_PAIR_GEN
            }
            (None, curve) => {
                public.extend(curve.map(|curve| Attribute::bytes(CKA_EC_PARAMS, curve)));
                CKM_EC_KEY_PAIR_GEN
            }
        };
        Birth::Pair(Mechanism::Plain(mechanism), public, template)
    }

    /// Returns the template of a secret key that comes from outside, which is wrapped and destroyed like one that is born.
    pub(crate) fn arrival(self, material: &[u8]) -> Vec<Attribute<'_>> {
        let mut template = self.passing();
        template.push(Attribute::flag(CKA_WRAP, false));
        template.extend(self.class());
        // Its length follows: to say it beside the value is an error (PKCS#11 3.0, 2.8.2).
        template.push(Attribute::bytes(CKA_VALUE, material));
        template
    }

    /// Returns the template of a key that comes wrapped from outside, and is wrapped anew and destroyed like one that is born; with the length
    /// of a secret key where the module wants it said.
    pub(crate) fn arriving(self, length: bool) -> Vec<Attribute<'static>> {
        let mut template = self.class().to_vec();
        template.extend(self.passing());
        if let Some(bytes) = self.spec.material_bytes() {
            template.push(Attribute::flag(CKA_WRAP, false));
            template.extend(length.then_some(Attribute::number(CKA_VALUE_LEN, bytes as CK_ULONG)));
        }
        template
    }

    /// Returns the template of a secret key that is born a byte shorter than its specification has it.
    pub(crate) fn short(self) -> Vec<Attribute<'static>> {
        let mut template = self.class().to_vec();
        template.extend(self.passing());
        let bytes = self.spec.material_bytes().unwrap_or_default().saturating_sub(1);
        template
            .extend([Attribute::flag(CKA_WRAP, false), Attribute::number(CKA_VALUE_LEN, bytes as CK_ULONG)]);
        template
    }

    fn passing<'a>(self) -> Vec<Attribute<'a>> {
        let mut template = vec![
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_PRIVATE, true),
            Attribute::flag(CKA_SENSITIVE, true),
            Attribute::flag(CKA_EXTRACTABLE, true),
        ];
        template.extend(self.uses());
        template.extend([CKA_UNWRAP, CKA_DERIVE].map(|kind| Attribute::flag(kind, false)));
        template
    }

    /// Returns the template that it unwraps with, from what is stored. Modules differ in what must be said and what must not.
    pub(crate) fn unwrapped(self, profile: &ModuleProfile) -> Vec<Attribute<'static>> {
        self.unwrapped_saying(profile.unwrap_value_len, profile.unwrap_ec_params)
    }

    /// The same, where it is yet to be found out: with the length of a secret key, and with the curve of a private one.
    pub(crate) fn unwrapped_saying(self, length: bool, curve: bool) -> Vec<Attribute<'static>> {
        let mut template = self.class().to_vec();
        template.push(Attribute::flag(CKA_PRIVATE, true));
        template.extend(self.uses());
        match self.spec.material_bytes() {
            Some(bytes) => {
                template.extend(UNWRAPPED);
                if length {
                    template.push(Attribute::number(CKA_VALUE_LEN, bytes as CK_ULONG));
                }
            }
            None => {
                // The class stands in it, too.
                template.extend(UNWRAPPED_PRIVATE.iter().filter(|attribute| attribute.kind != CKA_CLASS));
                if let Some(name) = der::curve(self.spec).filter(|_| curve) {
                    template.push(Attribute::bytes(CKA_EC_PARAMS, name));
                }
            }
        }
        template
    }

    /// Returns what an object must be that is such a key and stays on the token: one use, never to leave, and bringing no key out.
    /// Whether it verifies, too, gives nothing away.
    pub(crate) fn on_token(self) -> Vec<Attribute<'static>> {
        let mut wanted: Vec<_> =
            self.uses().into_iter().filter(|attribute| attribute.kind != CKA_VERIFY).collect();
        wanted.extend([CKA_TOKEN, CKA_SENSITIVE].map(|kind| Attribute::flag(kind, true)));
        wanted.extend([CKA_EXTRACTABLE, CKA_UNWRAP, CKA_DERIVE].map(|kind| Attribute::flag(kind, false)));
        wanted.extend((!self.spec.is_key_pair()).then_some(Attribute::flag(CKA_WRAP, false)));
        wanted
    }

    pub(crate) fn class(self) -> [Attribute<'static>; 2] {
        let (class, kind) = class_of(self.spec).expect("a kind is made of nothing else");
        [Attribute::number(CKA_CLASS, class), Attribute::number(CKA_KEY_TYPE, kind)]
    }

    /// One key, one use: what encrypts never derives, for its keystream could show derived keys; what signs decrypts nothing, but for the
    /// keys of certificates, which others encrypt to as they are.
    fn uses(self) -> Vec<Attribute<'static>> {
        let pair = self.spec.is_key_pair();
        let (encrypts, decrypts) = match pair {
            true => (None, self.usage.encrypts()),
            false => (Some(self.seals()), self.seals()),
        };
        let signs = self.usage.signs() || self.derives();
        let mut uses = vec![Attribute::flag(CKA_DECRYPT, decrypts), Attribute::flag(CKA_SIGN, signs)];
        uses.extend(encrypts.map(|encrypts| Attribute::flag(CKA_ENCRYPT, encrypts)));
        // A private key verifies nothing.
        uses.extend((!pair).then_some(Attribute::flag(CKA_VERIFY, false)));
        uses
    }
}

/// Returns class and type of the object that a key is; `None` for what is kept in no token.
fn class_of(spec: KeySpec) -> Option<(CK_OBJECT_CLASS, CK_KEY_TYPE)> {
    match spec {
        KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128 => Some((CKO_SECRET_KEY, CKK_AES)),
        KeySpec::HmacSha256 | KeySpec::HmacSha384 | KeySpec::HmacSha512 => {
            Some((CKO_SECRET_KEY, CKK_GENERIC_SECRET))
        }
        KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => Some((CKO_PRIVATE_KEY, CKK_RSA)),
        KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcP256K => Some((CKO_PRIVATE_KEY, CKK_EC)),
        // Modules differ in how they encode Edwards keys, ML-DSA came with PKCS#11 3.2, and SM2 and SM4 have but vendors' numbers.
        KeySpec::Ed25519 | KeySpec::MlDsa65 | KeySpec::EcSm2 | KeySpec::Sm4 => None,
    }
}

/// Returns the mechanism that signs by `algorithm`.
///
/// # Errors
/// `Missing` where no token is asked for it.
pub(crate) fn signing(algorithm: SignAlgorithm) -> Result<Mechanism<'static>, Failure> {
    Ok(Mechanism::Plain(match algorithm {
        SignAlgorithm::RsaPssSha256 => return Ok(Mechanism::RsaPss),
        SignAlgorithm::RsaPkcs1Sha256 => CKM_RSA_PKCS,
        SignAlgorithm::EcdsaSha256 | SignAlgorithm::EcdsaSha384 => CKM_ECDSA,
        SignAlgorithm::HmacSha256 => CKM_SHA256_HMAC,
        SignAlgorithm::HmacSha384 => CKM_SHA384_HMAC,
        SignAlgorithm::HmacSha512 => CKM_SHA512_HMAC,
        SignAlgorithm::Ed25519 | SignAlgorithm::MlDsa65 | SignAlgorithm::Sm2Dsa => {
            return Err(Failure::Missing { call: algorithm.name() });
        }
    }))
}

/// Returns what the mechanism takes of a digest or message.
pub(crate) fn signed(algorithm: SignAlgorithm, input: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    match algorithm {
        SignAlgorithm::RsaPkcs1Sha256 => [&SHA256_INFO, input].concat().into(),
        _ => input.into(),
    }
}

/// Returns the mechanism that opens what was encrypted by `algorithm`.
///
/// # Errors
/// `Missing` where no token is asked for it.
pub(crate) fn opening(algorithm: DecryptAlgorithm) -> Result<Mechanism<'static>, Failure> {
    match algorithm {
        DecryptAlgorithm::RsaesOaepSha256 => Ok(Mechanism::RsaOaep(Hash::Sha256)),
        DecryptAlgorithm::RsaesOaepSha1 => Ok(Mechanism::RsaOaep(Hash::Sha1)),
        DecryptAlgorithm::Sm2Pke => Err(Failure::Missing { call: algorithm.name() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Value;
    use crate::module::template::flag;

    fn kinds() -> Vec<Kind> {
        let mut kinds = Vec::new();
        for spec in KeySpec::ALL {
            for usage in spec.usages().iter().chain([&KeyUsage::SignDecrypt]) {
                for mode in [None, Some(BulkMode::InHsm), Some(BulkMode::HsmDerived)] {
                    kinds.extend(Kind::new(spec, *usage, mode));
                }
            }
        }
        kinds
    }

    #[test]
    fn a_key_has_one_use_and_that_of_a_certificate_two() {
        assert_eq!(kinds().len(), 2 + 1 + 1 + 3 * 3 + 3 + 3);
        for kind in kinds() {
            let (Birth::Secret(_, born) | Birth::Pair(_, _, born)) = kind.birth();
            // A private key does not come from outside.
            let arrived = match kind.spec.is_key_pair() {
                true => born.clone(),
                false => kind.arrival(&[7; 32]),
            };
            for template in [&born, &arrived, &kind.arriving(true), &kind.unwrapped_saying(true, true)] {
                let set = [CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY].map(|use_| flag(template, use_));
                let expected = match (kind.spec.is_key_pair(), kind.usage, kind.mode) {
                    (false, _, Some(BulkMode::InHsm)) => [Some(true), Some(true), Some(false), Some(false)],
                    (false, ..) => [Some(false), Some(false), Some(true), Some(false)],
                    (true, KeyUsage::SignVerify, _) => [None, Some(false), Some(true), None],
                    (true, KeyUsage::SignDecrypt, _) => [None, Some(true), Some(true), None],
                    (true, ..) => [None, Some(true), Some(false), None],
                };
                assert_eq!(set, expected, "{kind:?}");
                for forbidden in [CKA_UNWRAP, CKA_DERIVE, CKA_TOKEN] {
                    assert_eq!(flag(template, forbidden), Some(false), "{kind:?}");
                }
                assert_ne!(flag(template, CKA_WRAP), Some(true), "{kind:?}");
                assert_eq!(flag(template, CKA_SENSITIVE), Some(true), "{kind:?}");
            }
            assert_eq!(flag(&kind.unwrapped_saying(false, false), CKA_EXTRACTABLE), Some(false));
            let (Birth::Secret(_, stays) | Birth::Pair(_, _, stays)) = kind.birth().staying("label", b"id");
            // As one must be that is taken over.
            for wanted in kind.on_token() {
                let Value::Bool(expected) = wanted.value else { panic!("{kind:?}") };
                assert_eq!(flag(&stays, wanted.kind), Some(expected), "{kind:?}");
            }
            if let Birth::Pair(_, public, _) = kind.birth() {
                assert_eq!(
                    (flag(&public, CKA_VERIFY), flag(&public, CKA_ENCRYPT)),
                    (Some(kind.usage.signs()), Some(kind.usage.encrypts()))
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_together_is_no_key() {
        for (spec, usage, mode) in [
            (KeySpec::Aes256, KeyUsage::SignVerify, Some(BulkMode::InHsm)),
            (KeySpec::Aes256, KeyUsage::EncryptDecrypt, None),
            (KeySpec::Aes128, KeyUsage::EncryptDecrypt, Some(BulkMode::HsmDerived)),
            (KeySpec::Rsa2048, KeyUsage::SignVerify, Some(BulkMode::InHsm)),
            (KeySpec::EcP256, KeyUsage::EncryptDecrypt, None),
            (KeySpec::HmacSha256, KeyUsage::SignVerify, None),
            (KeySpec::Aes192, KeyUsage::EncryptDecrypt, Some(BulkMode::HsmDerived)),
            (KeySpec::Sm4, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)),
            (KeySpec::Ed25519, KeyUsage::SignVerify, None),
            (KeySpec::MlDsa65, KeyUsage::SignVerify, None),
            (KeySpec::EcSm2, KeyUsage::SignVerify, None),
            (KeySpec::EcSm2, KeyUsage::EncryptDecrypt, None),
        ] {
            assert!(Kind::new(spec, usage, mode).unwrap_err().contains(spec.name()));
        }
    }

    #[test]
    fn lengths_of_wrapped_keys_are_those_that_modules_give() {
        // As SoftHSM and Kryoptic have them; one of 12 is none.
        for (spec, given) in [
            (KeySpec::Aes256, vec![40]),
            (KeySpec::Aes192, vec![32]),
            (KeySpec::Aes128, vec![24]),
            (KeySpec::HmacSha256, vec![40]),
            (KeySpec::HmacSha384, vec![56]),
            (KeySpec::HmacSha512, vec![72]),
            (KeySpec::EcP256, vec![80]),
            (KeySpec::EcP384, vec![88]),
            (KeySpec::EcP256K, vec![72]),
            (KeySpec::Rsa2048, vec![1232]),
            (KeySpec::Rsa3072, vec![1800, 1808]),
            (KeySpec::Rsa4096, vec![2384]),
        ] {
            let kind = Kind::usual(spec);
            for bytes in given {
                assert!(
                    kind.fits(bytes) && !kind.fits(bytes + 1) && !kind.fits(bytes / 2),
                    "{}",
                    spec.name()
                );
            }
        }
        // And none is taken for another of its family.
        let rsa = [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096]
            .map(|spec| Kind::usual(spec).wrapped_bytes());
        assert!(rsa[0].end() < rsa[1].start() && rsa[1].end() < rsa[2].start());
    }
}
