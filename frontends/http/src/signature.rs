//! Who signed a request: ACS3-HMAC-SHA256 (or ACS4) over what arrived. The order keeps a stranger blind: form, id and signature, then
//! time; the body's hash and the nonce follow once the body is read. Whoever fails here is counted as a stranger.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use aws_lc_rs::{constant_time, digest};
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::seam::auth::{AccessKeyMac, Credential, PeerCertificate};
use keymill_core::time::Timestamp;
use keymill_runtime::{Gate, SignedNonce};
use keymill_wire::acs3::{self, Authorization, Scope, Signable};
use keymill_wire::form;

/// The scheme of `auth-credentials` that checks access keys.
pub(crate) const SCHEME: &str = "access-key";
/// The one that checks client keys.
pub(crate) const CLIENT_KEY_SCHEME: &str = "client-key";
/// The one that knows certificates.
const CERTIFICATE_SCHEME: &str = "certificate";
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

    /// Lists them, each value without white space around it.
    pub(crate) fn listed(&self) -> Vec<(&'r str, &'r str)> {
        self.0.iter().map(|(name, value)| (*name, value.trim_matches([' ', '\t']))).collect()
    }

    /// Returns a header as it is signed.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'r, str>> {
        // The parser hands names over in lower case.
        let mut values = self.0.iter().filter(|(found, _)| *found == name);
        let (_, value) = values.next()?;
        match values.next() {
            None => Some(value.trim_matches([' ', '\t']).into()),
            Some(_) => {
                let signable = Signable { method: "", path: "", query: &[], headers: &self.0 };
                signable.header(name).map(|joined| joined.into_owned().into())
            }
        }
    }
}

/// Who sent a request, and what of it is still to be checked.
pub(crate) enum Known {
    /// By its signature.
    Signed(Verified),
    /// By the certificate of its channel, which holds the request together; nothing of it is signed.
    Shown(Principal),
}

/// A request whose signature and date hold; its body and nonce are still to be checked.
pub(crate) struct Verified {
    /// Who signed it.
    pub(crate) principal: Principal,
    /// Its nonce.
    pub(crate) nonce: SignedNonce,
    body_sha256: [u8; 32],
    signed_headers: String,
}

impl Known {
    /// Returns who it is.
    pub(crate) fn principal(&self) -> &Principal {
        match self {
            Known::Signed(Verified { principal, .. }) | Known::Shown(principal) => principal,
        }
    }
}

/// Tells who sent a request: by its signature and date, or by the certificate of its channel where it has none.
///
/// # Errors
/// One of the unauthenticated kinds.
pub(crate) fn know(
    gate: &Gate,
    request: &HttpRequest,
    headers: &Headers<'_>,
    query: &str,
    source: Option<IpAddr>,
) -> Result<Known> {
    // Whoever signs means that, whatever certificate the channel needed.
    if !request.headers().contains_key("authorization")
        && let Some(peer) = request.conn_data::<Arc<PeerCertificate>>()
    {
        let shown = Credential::Certificate(peer);
        let principal = gate.authenticate(CERTIFICATE_SCHEME, &shown, &[&[]], source);
        return principal.map(Known::Shown).map_err(|error| match error.kind() {
            ErrorKind::AccessKeyUnknown => {
                let why = "the request is not signed, and no access point is known by the certificate of its channel";
                Error::new(ErrorKind::AccessKeyUnknown, why)
            }
            _ => error,
        });
    }
    let query =
        form::decode(query.as_bytes()).inspect_err(|error| gate.refused_stranger(error.kind(), source))?;
    verify(gate, request, headers, &query, source).map(Known::Signed)
}

/// Verifies the signature of a request whose query is decoded, and its date.
///
/// # Errors
/// One of the unauthenticated kinds.
pub(crate) fn verify(
    gate: &Gate,
    request: &HttpRequest,
    headers: &Headers<'_>,
    query: &[form::Pair<'_>],
    source: Option<IpAddr>,
) -> Result<Verified> {
    let stranger = |error: &Error| gate.refused_stranger(error.kind(), source);
    let offered = headers.get("authorization").ok_or_else(|| incomplete("the request is not signed"));
    let offered = offered.inspect_err(stranger)?;
    let offered = Authorization::parse(&offered).inspect_err(stranger)?;
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
    let signable = Signable {
        method: request.method().as_str(),
        path: request.uri().path(),
        query: &query,
        headers: &headers.0,
    };
    let texts =
        offered.scope.map(|Scope { date, region, product }| [date, region, product, acs3::DERIVED_REQUEST]);
    let mac = match &texts {
        None => AccessKeyMac::HmacSha256,
        Some(texts) => AccessKeyMac::Derived { prefix: "aliyun_v4", texts },
    };
    let credential = Credential::AccessKey { id: offered.credential, mac, signature: &offered.signature };
    let (scheme, signed) = (offered.scheme(), &offered.signed_headers);
    let to_sign = signable.string_to_sign(scheme, signed, &sha256).inspect_err(stranger)?;
    let to_sign_raw = signable.string_to_sign_of_raw_names(scheme, signed, &sha256).inspect_err(stranger)?;
    let texts: Vec<&[u8]> = std::iter::once(&*to_sign).chain(to_sign_raw.as_deref()).collect();
    let principal = gate.authenticate(SCHEME, &credential, &texts, source)?;
    if headers.get(acs3::SECURITY_TOKEN).is_some_and(|token| !token.is_empty()) {
        let error = no_tokens();
        stranger(&error);
        return Err(error);
    }
    let date =
        check_date(headers.get(acs3::DATE).as_deref(), "x-acs-date", gate.now()).inspect_err(stranger)?;
    if let Some(scope) = offered.scope {
        check_scope(scope, date).inspect_err(stranger)?;
    }
    let (nonce, body_sha256) = claims(headers, date).inspect_err(stranger)?;
    let signed_headers = offered.signed_headers.into_owned();
    Ok(Verified { principal, nonce, body_sha256, signed_headers })
}

/// Checks that a derived key is one for this product and day.
fn check_scope(scope: Scope<'_>, date: Timestamp) -> Result<()> {
    let day: String = date.to_string().chars().take(10).filter(|c| *c != '-').collect();
    match scope.date == day && scope.product.eq_ignore_ascii_case("kms") {
        true => Ok(()),
        false => Err(incomplete("the credential is for another day than x-acs-date, or for another product")),
    }
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

    /// Tells whether a header is signed.
    pub(crate) fn signs(&self, header: &str) -> bool {
        self.signed_headers.split(';').any(|name| name == header)
    }
}

fn claims(headers: &Headers<'_>, date: Timestamp) -> Result<(SignedNonce, [u8; 32])> {
    let nonce = headers.get(acs3::NONCE).unwrap_or_default();
    let nonce = signed_nonce(&nonce, date, "x-acs-signature-nonce")?;
    let hash = headers.get(acs3::CONTENT_SHA256).and_then(|hash| acs3::parse_hex(&hash));
    let hash = hash.ok_or_else(|| incomplete("x-acs-content-sha256 is 64 lower-case hexadecimal digits"))?;
    Ok((nonce, hash))
}

/// Refuses temporary credentials: a token says more of its bearer than the access key does, and nobody here can read it.
pub(crate) fn no_tokens() -> Error {
    Error::new(ErrorKind::UnsupportedAuthentication, "security tokens are not known here")
}

/// Takes the nonce of a request of that date, if its length is good; `name` is what the dialect calls it.
pub(crate) fn signed_nonce(nonce: &str, date: Timestamp, name: &str) -> Result<SignedNonce> {
    match (1..=MAX_NONCE).contains(&nonce.len()) {
        true => {
            Ok(SignedNonce { text: nonce.to_owned(), good_until: date.plus(Duration::from_secs(WINDOW_S)) })
        }
        false => Err(incomplete(format!("{name} has 1 to {MAX_NONCE} characters"))),
    }
}

/// Reads the date of a request and checks that it is within the window around `now`, to the second; `name` is what the dialect calls it.
pub(crate) fn check_date(date: Option<&str>, name: &str, now: Timestamp) -> Result<Timestamp> {
    let date = date.and_then(Timestamp::parse).ok_or_else(|| {
        let message = format!("{name} is not of the form YYYY-MM-DDTHH:MM:SSZ");
        Error::new(ErrorKind::TimestampInvalid, message)
    })?;
    if date.as_s().abs_diff(now.as_s()) > WINDOW_S {
        let message = format!("{name} is more than 15 minutes off the server's clock");
        return Err(Error::new(ErrorKind::TimestampExpired, message));
    }
    Ok(date)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub(crate) fn incomplete(message: impl Into<Cow<'static, str>>) -> Error {
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
                assert_eq!(
                    check_date(Some(date), "x-acs-date", now).err().map(|error| error.kind()),
                    outcome,
                    "{date}"
                );
            }
        }
        assert_eq!(check_date(None, "x-acs-date", now).unwrap_err().kind(), ErrorKind::TimestampInvalid);
    }

    #[test]
    fn a_derived_key_is_for_its_day_and_product() {
        let date = Timestamp::parse("2026-01-02T23:59:59Z").unwrap();
        let scope = |date, product| Scope { date, region: "cn-hangzhou", product };
        check_scope(scope("20260102", "Kms"), date).unwrap();
        for (day, product) in [("20260103", "Kms"), ("20260102", "Ecs"), ("", "Kms")] {
            let error = check_scope(scope(day, product), date).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IncompleteSignature, "{day} {product}");
        }
    }
}
