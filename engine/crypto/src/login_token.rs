//! Login tokens: what a farm of clients holds in the place of a client key. A token says whose it is and until when, and carries a MAC of
//! that; its secret is a MAC of the same under another label. Both come of one derived key, so that nothing is stored and every node of an
//! installation knows its tokens.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keymill_core::Sensitive;
use keymill_core::id::{AccessKeyId, ClientKeyId};
use keymill_core::time::Timestamp;

/// What every token begins with.
const PREFIX: &str = "KLT.";
/// The form of what follows.
const VERSION: u8 = 1;
/// Bytes of a token's own id.
const ID_BYTES: usize = 16;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + ID_BYTES + 8;
/// Characters of a token, at most: the id of a client key has up to 64.
const MAX_CHARACTERS: usize = 256;

/// Whose a token is, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// Its own id: never the same twice.
    pub id: [u8; ID_BYTES],
    /// The client key that it stands for.
    pub client_key: AccessKeyId,
    /// Until when it is taken; not then any more.
    pub not_after: Timestamp,
}

/// A token with its secret.
pub struct LoginToken {
    /// The token; it is no secret.
    pub token: String,
    /// What it signs with, as text.
    pub secret: Sensitive,
}

/// Makes and reads the tokens of an installation.
pub struct LoginTokens(hmac::Key);

impl LoginTokens {
    /// Takes the derived key of this purpose.
    pub fn new(key: &Sensitive) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// Makes a token.
    pub fn issue(&self, claims: &TokenClaims) -> LoginToken {
        let mut bytes = vec![VERSION];
        bytes.extend(claims.id);
        bytes.extend(claims.not_after.as_ms().to_be_bytes());
        bytes.extend(claims.client_key.as_str().as_bytes());
        let secret = self.secret(&bytes);
        let mac = self.mac(b"keymill login token\0", &bytes);
        bytes.extend(mac.as_ref());
        LoginToken { token: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes)), secret }
    }

    /// Reads a token that was made here; `None` for every other.
    pub fn open(&self, token: &str) -> Option<(TokenClaims, Sensitive)> {
        let text = token.strip_prefix(PREFIX).filter(|_| token.len() <= MAX_CHARACTERS)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let signed = [b"keymill login token\0", body].concat();
        hmac::verify(&self.0, &signed, mac).ok()?;
        let (head, client_key) = body.split_at_checked(HEAD_BYTES)?;
        let (version, head) = head.split_first()?;
        let (id, not_after) = head.split_first_chunk::<ID_BYTES>()?;
        if *version != VERSION {
            return None;
        }
        let claims = TokenClaims {
            id: *id,
            client_key: std::str::from_utf8(client_key).ok()?.parse().ok()?,
            not_after: Timestamp::from_ms(u64::from_be_bytes(not_after.try_into().ok()?)),
        };
        Some((claims, self.secret(body)))
    }

    /// Returns the key by which a client key binds accounts of ACME (RFC 8555 §7.3.4): 32 bytes, of its id.
    pub fn binding_key(&self, id: &ClientKeyId) -> Sensitive {
        Sensitive::copied(self.mac(b"keymill acme binding\0", id.as_str().as_bytes()).as_ref())
    }

    /// Returns the same in base64url, as clients take it.
    pub fn binding_text(&self, id: &ClientKeyId) -> String {
        URL_SAFE_NO_PAD.encode(self.binding_key(id).expose())
    }

    fn secret(&self, body: &[u8]) -> Sensitive {
        Sensitive::new(
            URL_SAFE_NO_PAD.encode(self.mac(b"keymill login secret\0", body).as_ref()).into_bytes(),
        )
    }

    fn mac(&self, label: &[u8], body: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, &[label, body].concat())
    }
}

/// Tells whether a signature is HMAC-SHA256 of a text under a token's secret, in a time that does not depend on where it differs.
pub fn is_signed_with(secret: &Sensitive, text: &[u8], signature: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()), text, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(key: u8) -> LoginTokens {
        LoginTokens::new(&Sensitive::copied(&[key; 32]))
    }

    fn claims(id: u8) -> TokenClaims {
        TokenClaims {
            id: [id; 16],
            client_key: "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".parse().unwrap(),
            not_after: Timestamp::from_ms(1_800_000_000_123),
        }
    }

    #[test]
    fn each_binding_of_each_installation_has_a_key_of_its_own_that_is_no_secret_of_a_token() {
        let id = |digit: char| format!("KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f{digit}").parse().unwrap();
        let key = |own: u8, digit| tokens(own).binding_key(&id(digit)).expose().to_vec();
        assert_eq!((key(1, '9'), key(1, '9').len()), (key(1, '9'), 32));
        assert!(key(1, '9') != key(1, '8') && key(1, '9') != key(2, '9'));
        let text = id('9').to_string();
        assert_ne!(
            tokens(1).secret(text.as_bytes()).expose(),
            URL_SAFE_NO_PAD.encode(key(1, '9')).as_bytes()
        );
    }

    #[test]
    fn a_token_comes_back_and_every_other_is_refused() {
        let own = tokens(1);
        let made = own.issue(&claims(7));
        let (read, secret) = own.open(&made.token).unwrap();
        assert_eq!((read, secret.expose()), (claims(7), made.secret.expose()));
        assert!(made.token.len() <= MAX_CHARACTERS, "{}", made.token.len());
        assert!(tokens(2).open(&made.token).is_none(), "of another installation");
        // Each character counts; the last bits of base64 that say nothing are refused where they are set.
        for at in 0..made.token.len() {
            for other in ["A", "B", "Q", "_"] {
                let mut changed = made.token.clone();
                changed.replace_range(at..=at, other);
                assert_eq!(own.open(&changed).is_some(), changed == made.token, "{at}");
            }
            assert!(own.open(&made.token[..at]).is_none());
        }
        for wrong in
            ["", "KLT.", "KLT.AAAA", &made.token[4..], &format!("{}A", made.token), &"KLT.".repeat(90)]
        {
            assert!(own.open(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn secrets_differ_by_token_and_sign_what_they_sign() {
        let own = tokens(1);
        let (one, two) = (own.issue(&claims(1)), own.issue(&claims(2)));
        assert_ne!(one.secret.expose(), two.secret.expose());
        assert!(!one.token.as_bytes().windows(8).any(|part| one.secret.expose().starts_with(part)));
        let key = hmac::Key::new(hmac::HMAC_SHA256, one.secret.expose());
        let signature = hmac::sign(&key, b"text");
        assert!(is_signed_with(&one.secret, b"text", signature.as_ref()));
        assert!(!is_signed_with(&one.secret, b"texts", signature.as_ref()));
        assert!(!is_signed_with(&two.secret, b"text", signature.as_ref()));
        assert!(!is_signed_with(&one.secret, b"text", &signature.as_ref()[..31]));
    }
}
