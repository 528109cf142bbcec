//! The headers of a gateway request: what they must be, the bytes that its signature covers, and its date and body. A client key signs
//! `method LF content-sha256 LF content-type LF date LF`, each `x-kms-*` header as `name:value LF` in sorted order, and `/`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::time::Timestamp;

/// The media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/x-protobuf";
/// The version of the protocol.
pub const API_VERSION: &str = "dkms-gcs-0.2";
/// The header that names the operation.
pub const API_NAME: &str = "x-kms-apiname";
/// The header that names the client key; all SDKs spell it with three c.
pub const CLIENT_KEY: &str = "x-kms-acccesskeyid";
const VERSION: &str = "x-kms-apiversion";
const METHOD: &str = "x-kms-signaturemethod";
const PREFIX: &str = "x-kms-";
/// How requests are signed: by keys of RSA, and beyond the cloud by keys on a curve.
const METHODS: [&str; 2] = ["RSA_PKCS1_SHA_256", "ECDSA_SHA_256"];
/// Seconds that the date of a request may be off, either side.
const WINDOW_S: u64 = 15 * 60;
/// Characters of a signature in base64, at most: one of RSA-8192 has as many.
const MAX_SIGNATURE: usize = 1_368;
/// `x-kms-*` headers of one request, at most; those of the SDKs have four.
const MAX_HEADERS: usize = 32;

/// What the headers of a request say. Nothing of it is trusted before the signature has been checked.
#[derive(Debug)]
pub struct Offered<'h> {
    /// The id of the client key.
    pub client_key: &'h str,
    /// The signature.
    pub signature: Vec<u8>,
    /// What it is a signature of.
    pub to_sign: Vec<u8>,
    /// The operation, as it is spelled.
    pub api: &'h str,
    version: &'h str,
    date: Timestamp,
    body_sha256: [u8; 32],
}

/// Reads the headers of a request; names are in lower case, and values without white space around them.
///
/// # Errors
/// `MissingParameter` for a header that is absent, `IncompleteSignature` for one that is not of its form or comes twice,
/// `UnsupportedAuthentication` for another way of signing, `TimestampInvalid` for a date that is none.
pub fn read<'h>(method: &str, headers: &[(&'h str, &'h str)]) -> Result<Offered<'h>> {
    let signed = signed_headers(headers)?;
    let [authorization, content_type, date, sha256] =
        ["authorization", "content-type", "date", "content-sha256"].map(|name| one(headers, name));
    let [client_key, api, version, signs] =
        [CLIENT_KEY, API_NAME, VERSION, METHOD].map(|name| one(&signed, name));
    let (authorization, content_type, date, sha256) = (authorization?, content_type?, date?, sha256?);
    if !is_media_type(content_type) {
        return Err(incomplete(format!("content-type is {MEDIA_TYPE}")));
    }
    if !METHODS.contains(&signs?) {
        let why = format!("{METHOD} is {}", METHODS.join(" or "));
        return Err(Error::new(ErrorKind::UnsupportedAuthentication, why));
    }
    let signature = authorization.strip_prefix("Bearer ").or(authorization.strip_prefix("TOKEN "));
    let signature =
        signature.filter(|text| text.len() <= MAX_SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
    let signature =
        signature.ok_or_else(|| incomplete("authorization is Bearer and a signature in base64"))?;
    let body_sha256 = upper_hex(sha256)
        .ok_or_else(|| incomplete("content-sha256 is 64 hexadecimal digits, the letters in upper case"))?;
    let mut to_sign = String::with_capacity(512);
    for text in [method, sha256, content_type, date] {
        to_sign.push_str(text);
        to_sign.push('\n');
    }
    for (name, value) in &signed {
        to_sign.extend([name, ":", value, "\n"]);
    }
    to_sign.push('/');
    let date = parse_date(date).ok_or_else(|| {
        Error::new(ErrorKind::TimestampInvalid, "date is not of the form Fri, 02 Jan 2026 03:04:05 GMT")
    })?;
    let (client_key, api, version) = (client_key?, api?, version?);
    Ok(Offered { client_key, signature, to_sign: to_sign.into_bytes(), api, version, date, body_sha256 })
}

impl Offered<'_> {
    /// Checks that the date is within 15 minutes of `now`, to the second.
    ///
    /// # Errors
    /// `TimestampExpired` where it is not.
    pub fn check_date(&self, now: Timestamp) -> Result<()> {
        match self.date.as_s().abs_diff(now.as_s()) <= WINDOW_S {
            true => Ok(()),
            false => {
                let why = "date is more than 15 minutes off the server's clock";
                Err(Error::new(ErrorKind::TimestampExpired, why))
            }
        }
    }

    /// Checks the hash of the body against the one that was signed.
    ///
    /// # Errors
    /// `SignatureMismatch` where it is another.
    pub fn check_body(&self, sha256: &[u8; 32]) -> Result<()> {
        match self.body_sha256 == *sha256 {
            true => Ok(()),
            false => {
                Err(Error::new(ErrorKind::SignatureMismatch, "content-sha256 is not the hash of the body"))
            }
        }
    }

    /// Checks the version of the protocol.
    ///
    /// # Errors
    /// `UnsupportedVersion` for another.
    pub fn check_version(&self) -> Result<()> {
        match self.version == API_VERSION {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::UnsupportedVersion, format!("{VERSION} is {API_VERSION}"))),
        }
    }
}

/// Tells whether a content type is that of the gateway.
pub fn is_media_type(content_type: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// Lists the headers that are signed by their names, sorted.
fn signed_headers<'h>(headers: &[(&'h str, &'h str)]) -> Result<Vec<(&'h str, &'h str)>> {
    let mut signed: Vec<_> = headers.iter().copied().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    if signed.len() > MAX_HEADERS {
        return Err(incomplete(format!("the request has more than {MAX_HEADERS} headers {PREFIX}*")));
    }
    signed.sort_unstable();
    match signed.windows(2).find(|two| two[0].0 == two[1].0) {
        // Which of them was signed has no answer.
        Some(two) => Err(twice(two[0].0)),
        None => Ok(signed),
    }
}

fn one<'h>(headers: &[(&'h str, &'h str)], name: &'static str) -> Result<&'h str> {
    let mut found = headers.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value);
    match (found.next(), found.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value),
        (Some(_), Some(_)) => Err(twice(name)),
        _ => Err(Error::new(ErrorKind::MissingParameter, format!("{name}: the header is missing"))),
    }
}

fn twice(name: &str) -> Error {
    incomplete(format!("{}: the header comes twice", crate::frame::clip(name)))
}

fn upper_hex(text: &str) -> Option<[u8; 32]> {
    let is_upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    is_upper.then(|| crate::acs3::parse_hex(&text.to_ascii_lowercase())).flatten()
}

/// Reads exactly `Fri, 02 Jan 2026 03:04:05 GMT` (RFC 1123), of the day of the week that it was.
fn parse_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 1970-01-01 was a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (weekday, rest) = text.split_once(", ")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let date = Timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z"))?;
    let days = date.as_s() / 86_400;
    (DAYS[(days % 7) as usize] == weekday).then_some(date)
}

fn incomplete(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::IncompleteSignature, message)
}
