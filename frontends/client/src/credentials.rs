//! The access key that a client signs with. The secret is wiped when it goes, and shows in no `Debug`.

use std::fmt;

use aws_lc_rs::hmac;
use keymill_core::Sensitive;
use keymill_core::id::AccessKeyId;

/// An access key with its secret.
pub struct Credentials {
    access_key_id: AccessKeyId,
    secret: Sensitive,
}

impl Credentials {
    /// Takes an access key; the secret signs as its UTF-8 bytes.
    pub fn new(access_key_id: AccessKeyId, secret: String) -> Self {
        Self { access_key_id, secret: Sensitive::new(secret.into_bytes()) }
    }

    /// Returns the id of the access key.
    pub fn access_key_id(&self) -> &AccessKeyId {
        &self.access_key_id
    }

    /// Returns HMAC-SHA256 under the secret.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose());
        hmac::sign(&key, message).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
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
        let signature = credentials.sign(b"what do ya want for nothing?");
        assert_eq!(signature[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(signature[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
