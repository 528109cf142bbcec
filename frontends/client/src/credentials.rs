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

/// Bytes of the file of a client key, at most: RSA-4096 with its certificate takes 7 KiB in base64.
const FILE_BYTES: usize = 16 * 1024;
/// The object identifier of scrypt in DER (RFC 7914 §7).
const SCRYPT: &[u8] = &[6, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 4, 0x0b];

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
    /// Of a login token: its text, and its secret.
    Token(String, Sensitive),
    /// None: the certificate that is shown in the TLS handshake says who calls.
    Certificate,
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

    /// Takes a login token with its secret, as `CreateLoginToken` made it; over MessagePack TCP.
    pub fn of_token(token: String, secret: String) -> Self {
        let id = "login-token".parse().expect("the form of an id");
        Self { id, key: Key::Token(token, Sensitive::new(secret.into_bytes())) }
    }

    /// Takes the certificate that the options of the connection have the client show in its TLS handshake.
    pub fn of_certificate() -> Self {
        Self { id: "tls-certificate".parse().expect("the form of an id"), key: Key::Certificate }
    }

    /// Reads the file of a client key, `{"KeyId":"KAAP.…","PrivateKeyData":"<base64 of PKCS #12>"}`, by its password.
    ///
    /// # Errors
    /// [`NotAClientKey`] where it is none, or the password is another.
    pub fn of_client_key_file(file: &[u8], password: &str) -> Result<Self, NotAClientKey> {
        // The library bounds how long a password becomes a key, but not how often that is asked for, nor a memory of less than a gigabyte.
        if file.len() > FILE_BYTES {
            return Err(NotAClientKey("the file is longer than that of a client key"));
        }
        let file: ClientKeyFile<'_> =
            serde_json::from_slice(file).map_err(|_| NotAClientKey("the file is no client key"))?;
        if file.private_key_data.windows(SCRYPT.len()).any(|part| part == SCRYPT) {
            return Err(NotAClientKey("the file is locked by scrypt; client keys are by PBKDF2"));
        }
        let store = KeyStore::from_pkcs12(&file.private_key_data, password, Pkcs12ImportPolicy::Relaxed);
        let store = store.map_err(|_| NotAClientKey("the file does not open with this password"))?;
        let (_, chain) = store.private_key_chain().ok_or(NotAClientKey("the file holds no private key"))?;
        Self::of_client_key(&file.key_id, &Sensitive::copied(chain.key().as_der()))
    }

    /// Returns the id of the access key or client key.
    pub fn access_key_id(&self) -> &AccessKeyId {
        &self.id
    }

    /// Tells whether the certificate of the channel says who calls.
    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self.key, Key::Certificate)
    }

    /// Returns the id that a hello is signed for.
    pub(crate) fn signed_id(&self) -> &str {
        match &self.key {
            Key::Token(token, _) => token,
            _ => self.id.as_str(),
        }
    }

    /// Returns HMAC-SHA256 under the secret of an access key; nothing else has one that signs requests.
    pub(crate) fn mac(&self, message: &[u8]) -> Option<[u8; 32]> {
        match &self.key {
            Key::Secret(secret) => Some(mac(secret, message)),
            _ => None,
        }
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
            Key::Token(token, secret) => {
                Some(Auth::Token { token: token.as_str().into(), signature: mac(secret, message) })
            }
            Key::Certificate => Some(Auth::Certificate),
            Key::Ec(pair) => {
                let signature = pair.sign(&random, message).ok()?.as_ref().to_vec();
                Some(Auth::ClientKey { id, signature: Bin::from(signature) })
            }
        }
    }
}

fn mac(secret: &Sensitive, message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    hmac::sign(&key, message).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
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
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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
        let scrypt = STANDARD.encode([&[0x30, 11][..], SCRYPT].concat());
        let file = format!(r#"{{"KeyId":"{id}","PrivateKeyData":"{scrypt}"}}"#);
        let told = |file: &str| {
            Credentials::of_client_key_file(file.as_bytes(), "password-1").unwrap_err().to_string()
        };
        assert!(told(&file).contains("by scrypt"));
        assert!(told(&" ".repeat(FILE_BYTES + 1)).contains("longer"));
        let key = Sensitive::copied(b"marked");
        let error = Credentials::of_client_key(&id.parse().unwrap(), &key).unwrap_err();
        assert!(error.to_string().contains("none of RSA"), "{error}");
    }
}
