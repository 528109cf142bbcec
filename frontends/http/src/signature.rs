//! Who signed a request: ACS3-HMAC-SHA256 over what arrived. The order keeps a stranger blind: form, id and signature, then
//! time; the body's hash and the nonce follow once the body is read. Whoever fails here is counted as a stranger.

use std::borrow::Cow;
use std::net::IpAddr;

use actix_web::HttpRequest;
use aws_lc_rs::{constant_time, digest};
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::seam::auth::Credential;
use keymill_core::time::Timestamp;
use keymill_runtime::Gate;
use keymill_wire::acs3::{self, Authorization, Signable};

/// The scheme of `auth-credentials` that checks access keys.
const SCHEME: &str = "access-key";
/// Seconds that the date of a request may be off, either side.
pub(crate) const WINDOW_S: u64 = 15 * 60;
/// Characters of a nonce, at most; those of the SDKs have 32.
const MAX_NONCE: usize = 128;

/// The headers of a request that can be signed.
pub(crate) struct Headers<'r>(Vec<(&'r str, &'r str)>);

impl<'r> Headers<'r> {
    /// Lists them; a value that is not ASCII cannot be signed, and so does not exist.
    pub(crate) fn of(request: &'r HttpRequest) -> Self {
        let shown = |(name, value): (
            &'r actix_web::http::header::HeaderName,
            &'r actix_web::http::header::HeaderValue,
        )| { Some((name.as_str(), value.to_str().ok()?)) };
        Self(request.headers().iter().filter_map(shown).collect())
    }

    /// Returns a header as it is signed.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'r, str>> {
        // The parser hands names over in lower case.
        let mut values = self.0.iter().filter(|(found, _)| *found == name);
        let (_, value) = values.next()?;
        match values.next() {
            None => Some(value.trim_matches([' ', '\t']).into()),
            Some(_) => self.signable("", &[]).header(name).map(|joined| joined.into_owned().into()),
        }
    }

    fn signable<'s>(&'s self, path: &'s str, query: &'s [(&'s str, &'s str)]) -> Signable<'s> {
        Signable { method: "POST", path, query, headers: &self.0 }
    }
}

/// A request whose signature and date hold; its body and nonce are still to be checked.
pub(crate) struct Verified {
    /// Who signed it.
    pub(crate) principal: Principal,
    /// When.
    pub(crate) date: Timestamp,
    nonce: String,
    body_sha256: [u8; 32],
}

/// Verifies the signature of a `POST` and its date.
///
/// # Errors
/// One of the unauthenticated kinds.
pub(crate) fn verify(
    gate: &Gate,
    request: &HttpRequest,
    headers: &Headers<'_>,
    source: Option<IpAddr>,
) -> Result<Verified> {
    let stranger = |error: &Error| gate.refused_stranger(error.kind(), source);
    let offered = headers.get("authorization").ok_or_else(|| incomplete("the request is not signed"));
    let offered = offered.inspect_err(stranger)?;
    let offered = Authorization::parse(&offered).inspect_err(stranger)?;
    let query = decode_query(request.uri().query().unwrap_or_default()).inspect_err(stranger)?;
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
    let to_sign = headers
        .signable(request.uri().path(), &query)
        .string_to_sign(&offered.signed_headers, &sha256)
        .inspect_err(stranger)?;
    let credential = Credential::AccessKey { id: offered.credential, signature: &offered.signature };
    let principal = gate.authenticate(SCHEME, &credential, &to_sign, source)?;
    let date = check_date(headers.get(acs3::DATE).as_deref(), gate.now()).inspect_err(stranger)?;
    let (nonce, body_sha256) = claims(headers).inspect_err(stranger)?;
    Ok(Verified { principal, date, nonce, body_sha256 })
}

impl Verified {
    /// Checks the body against the hash that was signed.
    ///
    /// # Errors
    /// `SignatureMismatch` if it is another one.
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<()> {
        constant_time::verify_slices_are_equal(&sha256(body), &self.body_sha256).map_err(|_| {
            Error::new(ErrorKind::SignatureMismatch, "x-acs-content-sha256 is not the hash of the body")
        })
    }

    /// Returns the nonce.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }
}

fn claims(headers: &Headers<'_>) -> Result<(String, [u8; 32])> {
    let nonce = headers.get(acs3::NONCE).unwrap_or_default();
    if nonce.is_empty() || nonce.len() > MAX_NONCE {
        return Err(incomplete("x-acs-signature-nonce has 1 to 128 characters"));
    }
    let hash = headers.get(acs3::CONTENT_SHA256).and_then(|hash| acs3::parse_hex(&hash));
    let hash = hash.ok_or_else(|| incomplete("x-acs-content-sha256 is 64 lower-case hexadecimal digits"))?;
    Ok((nonce.into_owned(), hash))
}

/// Reads the date of a request and checks that it is within the window around `now`, to the second.
fn check_date(date: Option<&str>, now: Timestamp) -> Result<Timestamp> {
    let date = date.and_then(Timestamp::parse).ok_or_else(|| {
        Error::new(ErrorKind::TimestampInvalid, "x-acs-date is not of the form YYYY-MM-DDTHH:MM:SSZ")
    })?;
    if date.as_s().abs_diff(now.as_s()) > WINDOW_S {
        return Err(Error::new(
            ErrorKind::TimestampExpired,
            "x-acs-date is more than 15 minutes off the server's clock",
        ));
    }
    Ok(date)
}

/// Splits a query into decoded names and values: `+` is a space, and an escape has two hexadecimal digits.
fn decode_query(query: &str) -> Result<Vec<(String, String)>> {
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes().iter();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let mut digit = || char::from(*rest.next()?).to_digit(16);
                    (digit()? << 4 | digit()?) as u8
                }
                other => *other,
            });
        }
        String::from_utf8(bytes).ok()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| incomplete("the query has an escape that is no UTF-8 text"))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn incomplete(message: &'static str) -> Error {
    Error::new(ErrorKind::IncompleteSignature, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_passes_to_the_second_15_minutes_either_side() {
        let now = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        let late = Timestamp::from_ms(now.as_ms() + 999);
        for (date, outcome) in [
            ("2026-01-02T02:49:05Z", None),
            ("2026-01-02T03:19:05Z", None),
            ("2026-01-02T02:49:04Z", Some(ErrorKind::TimestampExpired)),
            ("2026-01-02T03:19:06Z", Some(ErrorKind::TimestampExpired)),
            ("1970-01-01T00:00:00Z", Some(ErrorKind::TimestampExpired)),
            ("9999-12-31T23:59:59Z", Some(ErrorKind::TimestampExpired)),
            ("0001-01-01T00:00:00Z", Some(ErrorKind::TimestampInvalid)),
            ("2026-01-02 03:04:05", Some(ErrorKind::TimestampInvalid)),
            ("", Some(ErrorKind::TimestampInvalid)),
        ] {
            for now in [now, late] {
                assert_eq!(check_date(Some(date), now).err().map(|error| error.kind()), outcome, "{date}");
            }
        }
        assert_eq!(check_date(None, now).unwrap_err().kind(), ErrorKind::TimestampInvalid);
    }

    #[test]
    fn a_query_is_decoded_before_it_is_verified() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(decode_query("").unwrap(), []);
        assert_eq!(
            decode_query("a=b+c%20d&%C3%A9=&x").unwrap(),
            [pair("a", "b c d"), pair("é", ""), pair("x", "")]
        );
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff", "%e9=1"] {
            assert_eq!(decode_query(bad).unwrap_err().kind(), ErrorKind::IncompleteSignature, "{bad}");
        }
    }
}
