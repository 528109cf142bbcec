//! A request and its answer, each signed: who has not the key can make neither, and no answer stands for another request's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use keymill_core::Sensitive;
use keymill_core::seam::rotator::{RotationFault, RotationFaultKind, Turn};
use serde::Serialize;

pub(crate) const TIMESTAMP: &str = "x-keymill-timestamp";
pub(crate) const NONCE: &str = "x-keymill-nonce";
pub(crate) const SIGNATURE: &str = "x-keymill-signature";

/// What JSON makes of a byte, at most: `\u0000`.
const JSON_BYTES: usize = 6;
/// What it makes of everything else, at most.
const BESIDE_VALUES: usize = 16 << 10;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Said<'t> {
    step: &'static str,
    secret: &'t str,
    version: &'t str,
    settings: &'t BTreeMap<String, String>,
    current: &'t str,
    previous: Option<&'t str>,
    pending: &'t str,
}

/// The body of a request; it is wiped.
pub(crate) struct Body(Sensitive);

impl Body {
    pub(crate) fn of(step: &'static str, turn: &Turn<'_>) -> Result<Self, RotationFault> {
        let said = Said {
            step,
            secret: turn.secret.as_str(),
            version: turn.version.as_str(),
            settings: &turn.settings.custom,
            current: text(turn.current)?,
            previous: turn.previous.map(text).transpose()?,
            pending: text(turn.pending)?,
        };
        let values = said.current.len() + said.previous.map_or(0, str::len) + said.pending.len();
        // At once: a buffer that grows leaves copies behind.
        let mut body = Vec::with_capacity(JSON_BYTES * values + BESIDE_VALUES);
        let written = serde_json::to_writer(&mut body, &said);
        let body = Self(Sensitive::new(body));
        written.map(|()| body).map_err(|_| misconfigured("the request has no JSON form"))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.expose()
    }
}

fn text(value: &Sensitive) -> Result<&str, RotationFault> {
    std::str::from_utf8(value.expose()).map_err(|_| misconfigured("a value is no text"))
}

fn misconfigured(why: &str) -> RotationFault {
    RotationFault::new(RotationFaultKind::Misconfigured, why)
}

/// What a request is signed with.
pub(crate) struct Signed {
    pub(crate) timestamp: String,
    pub(crate) nonce: String,
    pub(crate) signature: String,
}

impl Signed {
    pub(crate) fn now(key: &Sensitive, path: &str, body: &Body) -> Result<Self, RotationFault> {
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| misconfigured("the system gives no random bytes"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self::at(key, path, body, now.as_secs(), nonce))
    }

    fn at(key: &Sensitive, path: &str, body: &Body, seconds: u64, nonce: [u8; 16]) -> Self {
        let (timestamp, nonce) = (seconds.to_string(), hex(&nonce));
        let signature = mac(key, &["POST", path, &timestamp, &nonce], body.bytes());
        Self { timestamp, nonce, signature }
    }

    /// Tells whether an answer is one to this request, by who has the key.
    pub(crate) fn is_answered(&self, key: &Sensitive, status: u16, body: &[u8], signature: &[u8]) -> bool {
        let expected = mac(key, &["ANSWER", &self.nonce, &status.to_string()], body);
        verify_slices_are_equal(expected.as_bytes(), signature).is_ok()
    }
}

/// Returns the HMAC-SHA256 over lines and what follows them, in hexadecimal.
fn mac(key: &Sensitive, lines: &[&str], body: &[u8]) -> String {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    for line in lines {
        mac.update(line.as_bytes());
        mac.update(b"\n");
    }
    mac.update(body);
    hex(mac.sign().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _always = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Sensitive {
        Sensitive::copied(b"0123456789abcdef0123456789abcdef")
    }

    /// Computed by Python's `hmac`, as the receiver in `examples/` does.
    #[test]
    fn a_request_and_its_answer_are_signed_as_the_readme_says() {
        let body = Body(Sensitive::copied(b"{\"Step\":\"set\"}"));
        let signed = Signed::at(&key(), "/keymill?a=b", &body, 1_795_521_617, [0xab; 16]);
        assert_eq!((&*signed.timestamp, &*signed.nonce), ("1795521617", "ab".repeat(16).as_str()));
        assert_eq!(signed.signature, "ffc948c78131fbc81c2ba6d1787c7512a18a60cf736b1442cd6f5741ec2264f8");
        let answer = "edbe5cac9d14ca7764a1cf7bba4bebe0545f938963bcbab81283a0597a63e7dd";
        assert!(signed.is_answered(&key(), 200, b"", answer.as_bytes()));
        assert!(!signed.is_answered(&key(), 422, b"", answer.as_bytes()));
        assert!(!signed.is_answered(&key(), 200, b"x", answer.as_bytes()));
        assert!(!signed.is_answered(&Sensitive::copied(&[7; 32]), 200, b"", answer.as_bytes()));
        let other = Signed::at(&key(), "/keymill?a=b", &body, 1_795_521_617, [0xac; 16]);
        assert!(!other.is_answered(&key(), 200, b"", answer.as_bytes()), "an answer to another request");
        for odd in [&b""[..], answer.to_uppercase().as_bytes(), &answer.as_bytes()[1..]] {
            assert!(!signed.is_answered(&key(), 200, b"", odd));
        }
    }
}
