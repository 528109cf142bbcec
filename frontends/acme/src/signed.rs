//! What tests sign requests with: an account of each kind of key.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

use crate::base64url::encode;
use crate::jwk::Jwk;

pub(crate) enum Account {
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Account {
    pub(crate) fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), "P-256")
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn each() -> [Self; 4] {
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        [Self::p256(), Self::Ec(p384, "P-384"), Self::ed25519(), Self::Rsa(rsa)]
    }

    pub(crate) fn jwk(&self) -> Jwk {
        let value = match self {
            Self::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}),
            Self::Rsa(pair) => {
                // RSAPublicKey in DER: nine bytes of heads and a sign stand before 2048 bits of modulus.
                let n = &pair.public_key().as_ref()[9..265];
                json!({"kty": "RSA", "n": encode(n), "e": "AQAB"})
            }
        };
        Jwk::read(value).unwrap()
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Ec(pair, _) => pair.public_key().as_der().unwrap(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap(),
            Self::Rsa(pair) => pair.public_key().as_der().unwrap(),
        };
        der.as_ref().to_vec()
    }

    /// Signs a request by its key, told whole unless the header names an account.
    pub(crate) fn signs(&self, mut header: Value, payload: &[u8]) -> String {
        header["alg"] = self.jwk().algorithm().into();
        if header.get("kid").is_none() {
            header["jwk"] = serde_json::from_str(&self.jwk().canonical()).unwrap();
        }
        let message = format!("{}.{}", encode(header.to_string()), encode(payload));
        let message = message.as_bytes();
        let signature = match self {
            Self::Ec(pair, _) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        };
        flattened(&header, payload, &signature).to_string()
    }
}

/// Signs a binding of a key.
pub(crate) fn binds(key: &[u8], header: &Value, payload: &[u8]) -> Value {
    let message = format!("{}.{}", encode(header.to_string()), encode(payload));
    let algorithm = match header["alg"].as_str() {
        Some("HS384") => hmac::HMAC_SHA384,
        Some("HS512") => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let tag = hmac::sign(&hmac::Key::new(algorithm, key), message.as_bytes());
    flattened(header, payload, tag.as_ref())
}

pub(crate) fn flattened(header: &Value, payload: &[u8], signature: &[u8]) -> Value {
    json!({
        "protected": encode(header.to_string()),
        "payload": encode(payload),
        "signature": encode(signature),
    })
}
