//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the side that logs in, and what a server keeps of a password. Passwords are printable ASCII, of
//! which SASLprep makes nothing else.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, pbkdf2, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keymill_core::Sensitive;
use zeroize::Zeroizing;

use crate::message::Challenge;

/// As many as the server takes by itself.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4_096).expect("not zero");
const NONCE_BYTES: usize = 18;
const SALT_BYTES: usize = 16;

type Hash = Zeroizing<[u8; 32]>;

/// Says what a password is known by, in the form of `pg_authid`: who reads it does not learn the password, nor can they log in with it.
pub(crate) fn verifier(password: &Sensitive) -> Option<String> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).ok()?;
    Some(verifier_of(password.expose(), &salt, ITERATIONS))
}

fn verifier_of(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> String {
    let salted = salted(password, salt, iterations);
    let stored = digest(&SHA256, &*mac(&*salted, b"Client Key"));
    let server = mac(&*salted, b"Server Key");
    let [salt, stored, server] = [salt, stored.as_ref(), &*server].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
}

fn salted(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Hash {
    let mut salted = Hash::default();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut *salted);
    salted
}

fn mac(key: &[u8], text: &[u8]) -> Hash {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut hash = Hash::default();
    hash.copy_from_slice(tag.as_ref());
    hash
}

/// A login under way: what it has said first.
pub(crate) struct Login {
    nonce: String,
    first: String,
}

/// A login that has shown the password: what the server must show in turn.
pub(crate) struct Shown {
    signature: Hash,
}

impl Login {
    /// Begins, with a nonce of its own. The server takes the name of the account from elsewhere.
    pub(crate) fn begin() -> Option<Self> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).ok()?;
        Some(Self::with("", STANDARD.encode(nonce)))
    }

    fn with(name: &str, nonce: String) -> Self {
        Self { first: format!("n={name},r={nonce}"), nonce }
    }

    /// Returns the first message: without channel binding.
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.first)
    }

    /// Shows the password, to a server that has gone on with our nonce.
    pub(crate) fn show(self, password: &Sensitive, server_first: &[u8]) -> Option<(String, Shown)> {
        let Challenge { nonce, salt, iterations } = Challenge::read(server_first)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return None;
        }
        let server_first = std::str::from_utf8(server_first).ok()?;
        let salted = salted(password.expose(), &salt, iterations);
        let client = mac(&*salted, b"Client Key");
        let stored = digest(&SHA256, &*client);
        let mut last = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{last}", self.first);
        let signature = mac(stored.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client.iter().zip(signature.iter()).map(|(key, mask)| key ^ mask).collect();
        write!(last, ",p={}", STANDARD.encode(proof)).ok()?;
        let signature = mac(&*mac(&*salted, b"Server Key"), signed.as_bytes());
        Some((last, Shown { signature }))
    }
}

impl Shown {
    /// Tells whether the server knows the password, too.
    pub(crate) fn is_answered_by(&self, server_final: &[u8]) -> bool {
        let signature = server_final.strip_prefix(b"v=").and_then(|text| STANDARD.decode(text).ok());
        signature.is_some_and(|signature| verify_slices_are_equal(&signature, &*self.signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn login() -> Login {
        Login::with("user", "rOprNGfwEbeRWgbNEkqO".into())
    }

    /// RFC 7677 §3.
    #[test]
    fn the_login_of_rfc_7677_is_ours() {
        assert_eq!(login().first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (last, shown) = login().show(&Sensitive::copied(b"pencil"), SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(shown.is_answered_by(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        for other in
            [&b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..], b"v=", b"", b"e=other-error", b"v=?"]
        {
            assert!(!shown.is_answered_by(other));
        }
    }

    /// As Python makes it (hashlib, hmac) from the same password and salt; a real server takes it in tests/postgresql.rs.
    #[test]
    fn a_verifier_is_the_one_that_the_server_would_keep() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            verifier_of(b"pencil", &salt, ITERATIONS),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        let [a, b] = [(); 2].map(|()| verifier(&Sensitive::copied(b"pencil")).unwrap());
        assert_ne!(a, b, "each with a salt of its own");
    }

    #[test]
    fn a_server_that_does_not_go_on_with_our_nonce_is_shown_nothing() {
        for odd in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=another%hvY,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1000001",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,x=1",
            "m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ] {
            assert!(login().show(&Sensitive::copied(b"pencil"), odd.as_bytes()).is_none(), "{odd}");
        }
        assert!(login().show(&Sensitive::copied(b"pencil"), b"\xff").is_none());
    }
}
