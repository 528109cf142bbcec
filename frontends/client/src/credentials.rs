//! What a client signs with: the secret of an access key, or the private half of a client key. Either is wiped when it goes, and shows in no
//! `Debug`.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use keymill_core::Sensitive;
use keymill_core::id::{AccessKeyId, ClientKeyId};
use keymill_core::operation::Bin;
use keymill_wire::hello::Auth;
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use serde::Deserialize;

/// What a client signs with, and under which id.
pub struct Credentials {
    id: AccessKeyId,
    key: Key,
}

enum Key {
    /// Of an access key.
    Secret(Sensitive),
    /// Of a client key.
    Rsa(Box<RsaKeyPair>),
    /// The same on P-256.
    Ec(Box<EcdsaKeyPair>),
}

impl Credentials {
    /// Takes an access key; the secret signs as its UTF-8 bytes.
    pub fn new(access_key_id: AccessKeyId, secret: String) -> Self {
        Self { id: access_key_id, key: Key::Secret(Sensitive::new(secret.into_bytes())) }
    }

    /// Takes a client key whose private half never left this side: PKCS #8 in DER, of RSA or on P-256.
    ///
    /// # Errors
    /// [`NotAClientKey`] where it is none.
    pub fn of_client_key(id: &ClientKeyId, pkcs8: &Sensitive) -> Result<Self, NotAClientKey> {
        let der = pkcs8.expose();
        let key = match RsaKeyPair::from_pkcs8(der) {
            Ok(pair) => Key::Rsa(Box::new(pair)),
            Err(_) => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der);
                let wrong = |_| NotAClientKey("the private key is none of RSA, nor on P-256");
                Key::Ec(Box::new(pair.map_err(wrong)?))
            }
        };
        Ok(Self { id: AccessKeyId::from(id), key })
    }

    /// Reads the file of a client key, `{"KeyId":"KAAP.…","PrivateKeyData":"<base64 of PKCS #12>"}`, by its password.
    ///
    /// # Errors
    /// [`NotAClientKey`] where it is none, or the password is another.
    pub fn of_client_key_file(file: &[u8], password: &str) -> Result<Self, NotAClientKey> {
        let file: ClientKeyFile<'_> =
            serde_json::from_slice(file).map_err(|_| NotAClientKey("the file is no client key"))?;
        let store = KeyStore::from_pkcs12(&file.private_key_data, password, Pkcs12ImportPolicy::Relaxed);
        let store = store.map_err(|_| NotAClientKey("the file does not open with this password"))?;
        let (_, chain) = store.private_key_chain().ok_or(NotAClientKey("the file holds no private key"))?;
        Self::of_client_key(&file.key_id, &Sensitive::copied(chain.key().as_der()))
    }

    /// Returns the id of the access key or client key.
    pub fn access_key_id(&self) -> &AccessKeyId {
        &self.id
    }

    /// Returns HMAC-SHA256 under the secret of an access key; a client key has none.
    pub(crate) fn mac(&self, message: &[u8]) -> Option<[u8; 32]> {
        let Key::Secret(secret) = &self.key else { return None };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        Some(hmac::sign(&key, message).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    /// Signs what a hello signs; `None` where the system has no randomness.
    pub(crate) fn auth(&self, message: &[u8]) -> Option<Auth<'_>> {
        let id = self.id.as_str().into();
        let random = SystemRandom::new();
        match &self.key {
            Key::Secret(_) => self.mac(message).map(|signature| Auth::AccessKey { id, signature }),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(Auth::ClientKey { id, signature: Bin::from(signature) })
            }
            Key::Ec(pair) => {
                let signature = pair.sign(&random, message).ok()?.as_ref().to_vec();
                Some(Auth::ClientKey { id, signature: Bin::from(signature) })
            }
        }
    }
}

/// The file that users of a client key keep; the SDKs of the cloud read the same.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ClientKeyFile<'a> {
    key_id: ClientKeyId,
    #[serde(borrow)]
    private_key_data: Bin<'a>,
}

/// Why something is no client key; nothing of it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAClientKey(&'static str);

impl fmt::Display for NotAClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotAClientKey {}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_id_and_not_the_secret() {
        let credentials = Credentials::new("AK.12345678".parse().unwrap(), "marked-secret".into());
        let shown = format!("{credentials:?}");
        assert!(shown.contains("AK.12345678") && !shown.contains("marked"), "{shown}");
    }

    #[test]
    fn signatures_are_hmac_sha256() {
        // RFC 4231 §4.3, test case 2.
        let credentials = Credentials::new("AK.12345678".parse().unwrap(), "Jefe".into());
        let signature = credentials.mac(b"what do ya want for nothing?").unwrap();
        assert_eq!(signature[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(signature[28..], [0x64, 0xec, 0x38, 0x43]);
    }

    #[test]
    fn what_is_no_client_key_is_told_without_what_is_in_it() {
        let id = "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";
        for (file, told) in [
            (String::new(), "no client key"),
            ("marked".into(), "no client key"),
            (r#"{"KeyId":"marked","PrivateKeyData":"AAAA"}"#.into(), "no client key"),
            (format!(r#"{{"KeyId":"{id}","PrivateKeyData":"AAAA"}}"#), "does not open"),
        ] {
            let error = Credentials::of_client_key_file(file.as_bytes(), "password-1").unwrap_err();
            assert!(error.to_string().contains(told) && !error.to_string().contains("marked"), "{error}");
        }
        let key = Sensitive::copied(b"marked");
        let error = Credentials::of_client_key(&id.parse().unwrap(), &key).unwrap_err();
        assert!(error.to_string().contains("none of RSA"), "{error}");
    }
}
