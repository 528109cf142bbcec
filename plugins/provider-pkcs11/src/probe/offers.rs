//! Which keys a token holds, of those that go beyond AES-256: each made, wrapped, unwrapped and used once. But for RSA: a pair takes
//! seconds, on some devices minutes, and a token is opened often. What its mechanisms say, and whether they take our parameters with
//! a public key that is brought in, must do; and each pair proves itself when it is born.

use cryptoki_sys::*;
use keymill_core::key::{DecryptAlgorithm, KeySpec, SignAlgorithm, WrappingAlgorithm};

use super::{Passing, Probe, mac, open, seal};
use crate::import::Way;
use crate::kind::{self, Kind};
use crate::module::{Attribute, Failure, Object};
use crate::pair::{self, Does, Proof};
use crate::profile::ModuleProfile;
use crate::wrapped::{self, Born};

/// The mechanisms of private keys of RSA, and what each must be able to.
const SIGNATURES: [(SignAlgorithm, CK_MECHANISM_TYPE); 2] =
    [(SignAlgorithm::RsaPssSha256, CKM_RSA_PKCS_PSS), (SignAlgorithm::RsaPkcs1Sha256, CKM_RSA_PKCS)];
/// RSA-2048 of the RSA Factoring Challenge: a modulus as good as any, and nobody is known to have its private half. One made up would have
/// small factors, which some modules look for.
const NOBODYS: [u128; 16] = [
    0xc7970cee_dcc3b075_4490201a_7aa613cd,
    0x73911081_c790f5f1_a8726f46_3550bb5b,
    0x7ff0db8e_1ea1189e_c72f93d1_650011bd,
    0x721aeeac_c2acde32_a04107f0_648c2813,
    0xa31f5b0b_7765ff8b_44b4b6ff_c93384b6,
    0x46eb09c7_cf5e8592_d40ea33c_80039f35,
    0xb4f14a04_b51f7bfd_781be4d1_673164ba,
    0x8eb991c2_c4d730bb_be35f592_bdef524a,
    0xf7e8daef_d26c66fc_02c479af_89d64d37,
    0x3f442709_439de66c_eb955f3e_a37d5159,
    0xf6135809_f85334b5_cb1813ad_dc80cd05,
    0x609f10ac_6a95ad65_872c9095_25bdad32,
    0xbc729592_642920f2_4c61dc5b_3c3b7923,
    0xe56b16a4_d9d373d8_721f24a3_fc0f1b31,
    0x31f55615_172866bc_cc30f950_54c824e7,
    0x33a5eb68_17f7bc16_399d48c6_361cc7e5,
];
const RSA: [KeySpec; 3] = [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096];

impl Probe<'_> {
    /// Finds out which keys the token holds, and what they do.
    pub(super) fn offers(&self, mechanisms: &[CK_MECHANISM_TYPE], profile: &mut ModuleProfile) {
        for spec in [KeySpec::Aes192, KeySpec::Aes128] {
            profile.specs.extend(self.secret(spec, profile).is_ok().then_some(spec));
        }
        for (spec, mechanism) in [
            (KeySpec::HmacSha256, CKM_SHA256_HMAC),
            (KeySpec::HmacSha384, CKM_SHA384_HMAC),
            (KeySpec::HmacSha512, CKM_SHA512_HMAC),
        ] {
            if mechanisms.contains(&mechanism) && self.secret(spec, profile).is_ok() {
                profile.specs.push(spec);
                profile.signatures.extend(spec.signatures());
            }
        }
        if profile.private_domain {
            for spec in [KeySpec::EcP256, KeySpec::EcP384, KeySpec::EcP256K] {
                self.curve(spec, profile);
            }
            self.rsa(profile);
        }
        profile.imports = self.imports(profile);
        if let Some(said) = &self.overrides.specs {
            profile.specs.retain(|spec| said.contains(spec));
        }
    }

    /// Makes a secret key, and compares what it does with what comes of its unwrapping.
    fn secret(&self, spec: KeySpec, profile: &ModuleProfile) -> Result<(), Failure> {
        let kind = Kind::usual(spec);
        let born = self.born(kind)?;
        let blob = wrapped::wrap(self.owner, self.domain, born.0.key, kind, profile)?;
        let loaded = self.passing(wrapped::unwrap(self.owner, self.domain, &blob, kind, profile)?);
        let [before, after] = [born.0.key, loaded.object];
        let same = if kind.seals() {
            let sealed = seal(self.owner, before, 1, super::TEXT)?;
            open(self.owner, after, 1, &sealed)? == super::TEXT
        } else {
            let hmac = kind::signing(spec.signatures()[0])?;
            match spec {
                KeySpec::HmacSha384 => mac::<48>(self.owner, before, hmac)? == mac(self.owner, after, hmac)?,
                KeySpec::HmacSha512 => mac::<64>(self.owner, before, hmac)? == mac(self.owner, after, hmac)?,
                _ => mac::<32>(self.owner, before, hmac)? == mac(self.owner, after, hmac)?,
            }
        };
        if same { Ok(()) } else { Err(Failure::Mismatch { call: "C_UnwrapKey" }) }
    }

    /// Makes a pair on a curve, and proves that its private half comes back.
    fn curve(&self, spec: KeySpec, profile: &mut ModuleProfile) {
        let kind = Kind::usual(spec);
        let algorithm = spec.signatures()[0];
        // What is to be proved is that it signs so.
        let mut tried = ModuleProfile { signatures: vec![algorithm], ..profile.clone() };
        let ways = match self.overrides.unwrap_ec_params {
            Some(said) => vec![said],
            None => vec![profile.unwrap_ec_params, !profile.unwrap_ec_params],
        };
        for unwrap_ec_params in ways {
            tried.unwrap_ec_params = unwrap_ec_params;
            let Ok(honoured) = self.pair(kind, &tried) else { continue };
            profile.unwrap_ec_params = unwrap_ec_params;
            profile.private_template_honoured =
                Some(honoured && profile.private_template_honoured != Some(false));
            profile.specs.push(spec);
            if !profile.signatures.contains(&algorithm) {
                profile.signatures.push(algorithm);
            }
            return;
        }
    }

    /// Makes a pair, wraps and unwraps it, and proves it; returns whether it refuses to unwrap as one that can be read.
    fn pair(&self, kind: Kind, profile: &ModuleProfile) -> Result<bool, Failure> {
        let born = self.born(kind)?;
        let blob = wrapped::wrap(self.owner, self.domain, born.0.key, kind, profile)?;
        let public = born.0.public.expect("a pair has a public half");
        let public = pair::public_half(self.owner, public, kind)?;
        let private = self.passing(wrapped::unwrap(self.owner, self.domain, &blob, kind, profile)?);
        let session = self.module.open_session(self.slot, false)?;
        pair::prove(&session, kind, private.object, &public, Proof::Everything, profile)
            .expect("it was encoded here")?;
        Ok(self.refuses_the_forbidden_private_unwrap(kind, &blob, profile))
    }

    fn refuses_the_forbidden_private_unwrap(&self, kind: Kind, blob: &[u8], profile: &ModuleProfile) -> bool {
        let readable: Vec<_> = kind
            .unwrapped(profile)
            .into_iter()
            .map(|attribute| match attribute.kind {
                CKA_SENSITIVE => Attribute::flag(CKA_SENSITIVE, false),
                CKA_EXTRACTABLE => Attribute::flag(CKA_EXTRACTABLE, true),
                _ => attribute,
            })
            .collect();
        let unwrapped = self
            .domain
            .key(kind)
            .and_then(|domain| self.owner.unwrap_key(profile.wrap.mechanism(), domain, blob, &readable));
        self.cannot_be_read(unwrapped.map(|object| self.passing(object)))
    }

    /// Finds out what keys of RSA do, without one.
    fn rsa(&self, profile: &mut ModuleProfile) {
        let Some(sizes) = self.able(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR) else { return };
        let specs = RSA.into_iter().filter(|spec| {
            let bits = 8 * spec.modulus_bytes().unwrap_or_default() as CK_ULONG;
            sizes.contains(&bits)
        });
        let specs: Vec<_> = specs.collect();
        if specs.is_empty() {
            return;
        }
        let signatures: Vec<_> = SIGNATURES
            .into_iter()
            .filter(|(algorithm, mechanism)| {
                self.able(*mechanism, CKF_SIGN).is_some()
                    && self.with_public(Does::Verify, |session, public| {
                        session.verify_init(kind::signing(*algorithm)?, public)
                    })
            })
            .map(|(algorithm, _)| algorithm)
            .collect();
        let decryptions: Vec<_> = KeySpec::Rsa2048
            .decryptions()
            .iter()
            .copied()
            .filter(|algorithm: &DecryptAlgorithm| {
                self.able(CKM_RSA_PKCS_OAEP, CKF_DECRYPT).is_some()
                    && self.with_public(Does::Encrypt, |session, public| {
                        session.encrypt_init(kind::opening(*algorithm)?, public)?;
                        session.encrypt(b"probe", &mut [0; 512]).map(|_| ())
                    })
            })
            .collect();
        if !signatures.is_empty() || !decryptions.is_empty() {
            profile.specs.extend(specs);
            profile.signatures.extend(signatures);
            profile.decryptions = decryptions;
        }
    }

    /// Finds out how material may come wrapped: what wraps so under a public key must unwrap so under its private half, and each pair that is
    /// made for an import is tried.
    fn imports(&self, profile: &ModuleProfile) -> Vec<WrappingAlgorithm> {
        const KNOWN: [WrappingAlgorithm; 3] = [
            WrappingAlgorithm::RsaesOaepSha1,
            WrappingAlgorithm::RsaesOaepSha256,
            WrappingAlgorithm::RsaAesKeyWrapSha256,
        ];
        let unwraps = self.able(CKM_RSA_PKCS_OAEP, CKF_UNWRAP).is_some();
        let generates = self.able(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR).is_some();
        let Ok(born) = self.born(Kind::AEAD) else { return Vec::new() };
        let wraps = |algorithm: &WrappingAlgorithm| {
            self.with_public(Does::Wrap, |session, public| {
                Way::new(*algorithm, KeySpec::Rsa2048)?.wrap(session, public, born.0.key, profile).map(drop)
            })
        };
        KNOWN.into_iter().filter(|algorithm| unwraps && generates && wraps(algorithm)).collect()
    }

    /// Returns the sizes of keys that a mechanism takes for `use_`.
    fn able(
        &self,
        mechanism: CK_MECHANISM_TYPE,
        use_: CK_FLAGS,
    ) -> Option<std::ops::RangeInclusive<CK_ULONG>> {
        let info = self.module.mechanism_info(self.slot, mechanism).ok()?;
        (info.flags & use_ != 0).then_some(info.ulMinKeySize..=info.ulMaxKeySize)
    }

    /// Tries something with a public key that belongs to nobody, on a session of its own.
    fn with_public(
        &self,
        does: Does,
        work: impl FnOnce(&crate::module::Session, Object) -> Result<(), Failure>,
    ) -> bool {
        let modulus: Vec<u8> = NOBODYS.iter().flat_map(|part| part.to_be_bytes()).collect();
        let tried = self.module.open_session(self.slot, false).and_then(|session| {
            let public = pair::place(&session, KeySpec::Rsa2048, does, &modulus)?;
            work(&session, public)
        });
        tried.is_ok()
    }

    fn born(&self, kind: Kind) -> Result<Newborn<'_>, Failure> {
        Ok(Newborn(wrapped::make(self.owner, kind.birth())?, self.owner))
    }

    fn passing(&self, object: Object) -> Passing<'_> {
        Passing { owner: self.owner, object }
    }
}

/// What was born for a probe, and goes with it.
struct Newborn<'a>(Born, &'a crate::module::Session);

impl Drop for Newborn<'_> {
    fn drop(&mut self) {
        for object in self.0.objects() {
            let _ = self.1.destroy_object(object);
        }
    }
}
