//! Client keys: signatures of applications, under keys whose public halves alone are known here.

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use keymill_core::access::{AccessSnapshot, ClientKey, ClientKeyAlgorithm, Principal};
use keymill_core::id::AccessKeyId;
use keymill_core::seam::auth::{AuthError, Authenticator, Credential};

/// Checks the signatures of client keys: RSASSA-PKCS1-v1_5 and ECDSA, with SHA-256.
///
/// For a key that is not known another one is asked, and its answer thrown away: the time does not tell whether there is one of that id.
/// Whether a key is taken at this time is not decided here, where there is no clock.
pub struct ClientKeyAuthenticator;

impl Authenticator for ClientKeyAuthenticator {
    fn scheme(&self) -> &'static str {
        "client-key"
    }

    fn authenticate(
        &self,
        offered: &Credential<'_>,
        signed: &[u8],
        known: &AccessSnapshot,
    ) -> Result<Principal, AuthError> {
        let Credential::ClientKey { id, signature } = *offered else { return Err(AuthError::Unknown) };
        let signs = |key: &&Arc<ClientKey>| key.algorithm.signs();
        let found = id.parse::<AccessKeyId>().ok().and_then(|id| known.client_key(&id)).filter(signs);
        let key = found.or_else(|| known.client_keys().find(signs)).ok_or(AuthError::Unknown)?;
        let algorithm: &'static dyn VerificationAlgorithm = match key.algorithm {
            ClientKeyAlgorithm::Rsa2048 | ClientKeyAlgorithm::Rsa3072 | ClientKeyAlgorithm::Rsa4096 => {
                &RSA_PKCS1_2048_8192_SHA256
            }
            ClientKeyAlgorithm::EcP256 => &ECDSA_P256_SHA256_ASN1,
            ClientKeyAlgorithm::Certificate | ClientKeyAlgorithm::Acme => return Err(AuthError::Unknown),
        };
        let public = UnparsedPublicKey::new(algorithm, &key.public_key);
        let matches = black_box(public.verify(signed, signature).is_ok());
        let key = found.ok_or(AuthError::Unknown)?;
        match matches {
            true => Ok(Principal::of_client_key(AccessKeyId::from(&key.id), key.aap.clone())),
            false => Err(AuthError::Mismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    };
    use keymill_core::Timestamp;
    use keymill_core::access::{Aap, ClientKeyOrigin, Edit};
    use keymill_core::id::ClientKeyId;

    use super::*;

    const SIGNED: &[u8] = b"POST\n0a1b2c3d";

    fn key(number: u8, algorithm: ClientKeyAlgorithm, public_key: Vec<u8>) -> ClientKey {
        ClientKey {
            id: ClientKeyId::from_random([number; 16]),
            aap: "shop".parse().unwrap(),
            algorithm,
            origin: ClientKeyOrigin::User,
            public_key,
            shown: String::new(),
            certificate: None,
            not_before: Timestamp::from_ms(0),
            not_after: Timestamp::from_ms(u64::MAX),
            created_at: Timestamp::from_ms(0),
        }
    }

    fn spki<K: AsDer<PublicKeyX509Der<'static>>>(public: &K) -> Vec<u8> {
        public.as_der().unwrap().as_ref().to_vec()
    }

    /// D1, D2: the holder of the private half is known, and nobody else; each bit of text and signature counts.
    #[test]
    fn who_signs_with_a_client_key_is_known_by_it() {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let mut by_rsa = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, SIGNED, &mut by_rsa).unwrap();
        let by_ec = ec.sign(&random, SIGNED).unwrap().as_ref().to_vec();
        let keys = [
            key(1, ClientKeyAlgorithm::Rsa2048, spki(rsa.public_key())),
            key(2, ClientKeyAlgorithm::EcP256, spki(ec.public_key())),
        ];
        let mut known = AccessSnapshot::default();
        let aap: Aap = Aap {
            name: "shop".parse().unwrap(),
            description: String::new(),
            policies: Vec::new(),
            created_at: Timestamp::from_ms(0),
        };
        known.apply(Edit::PutAap(aap));
        keys.iter().for_each(|key| known.apply(Edit::PutClientKey(key.clone())));
        let ask = |id: &str, signed: &[u8], signature: &[u8]| {
            ClientKeyAuthenticator.authenticate(&Credential::ClientKey { id, signature }, signed, &known)
        };
        for (key, signature, other) in [(&keys[0], &by_rsa, &by_ec), (&keys[1], &by_ec, &by_rsa)] {
            let id = key.id.as_str();
            let principal = ask(id, SIGNED, signature).unwrap();
            assert_eq!(principal.to_string(), format!("aap/shop/{id}"));
            for at in 0..SIGNED.len() {
                let mut changed = SIGNED.to_vec();
                changed[at] ^= 1;
                assert_eq!(ask(id, &changed, signature), Err(AuthError::Mismatch));
            }
            for at in 0..signature.len() {
                let mut changed = signature.clone();
                changed[at] ^= 0x80;
                assert_eq!(ask(id, SIGNED, &changed), Err(AuthError::Mismatch));
                assert_eq!(ask(id, SIGNED, &signature[..at]), Err(AuthError::Mismatch));
            }
            assert_eq!(ask(id, SIGNED, other), Err(AuthError::Mismatch));
        }
        let absent = ClientKeyId::from_random([3; 16]);
        for id in [absent.as_str(), "", "KAAP.", "access-key-a"] {
            assert_eq!(ask(id, SIGNED, &by_rsa), Err(AuthError::Unknown), "{id}");
        }
    }
}
