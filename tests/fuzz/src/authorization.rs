//! The `Authorization` header and the bytes that it signs. Of a request as text lines: what is signed must tell apart whatever
//! differs, so the canonical request is read back and compared.

use keymill_wire::acs3::{Authorization, CONTENT_SHA256, Signable};

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Reads the first line as the header; the second as `METHOD path`; then `?name=value` for the query and `name:value` for
/// headers, with NUL for a line end inside a query.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let value = lines.next().unwrap_or_default();
    let parsed = within(room(value.len()), || Authorization::parse(value));
    match &parsed {
        Ok(read) => assert_eq!(read.format(), value),
        Err(error) => tells(error),
    }
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or(("POST", "/"));
    let mut query = Vec::new();
    let mut headers = Vec::new();
    let odd: Vec<String> = lines.map(|line| line.replace('\0', "\n")).collect();
    for line in &odd {
        match line.strip_prefix('?') {
            Some(pair) => query.push(pair.split_once('=').unwrap_or((pair, ""))),
            // HTTP has no line ends inside a header.
            None if line.contains('\n') => {}
            None => headers.extend(line.split_once(':')),
        }
    }
    let request = Signable { method, path, query: &query, headers: &headers };
    let signed = match &parsed {
        Ok(read) => read.signed_headers.clone().into_owned(),
        Err(_) => request.all_headers(),
    };
    match within(room(4 * bytes.len()), || request.canonical_request(&signed)) {
        Ok(canonical) => reads_back(&request, &signed, &canonical),
        Err(error) => tells(&error),
    }
}

fn reads_back(request: &Signable<'_>, signed: &str, canonical: &[u8]) {
    let text = std::str::from_utf8(canonical).expect("it is made of text");
    let lines: Vec<&str> = text.split('\n').collect();
    let names: Vec<&str> = signed.split(';').collect();
    assert_eq!(lines.len(), 3 + names.len() + 3);
    assert_eq!((lines[0], lines[1]), (request.method, request.path));
    let mut asked: Vec<_> =
        request.query.iter().map(|(name, value)| (escaped(name), escaped(value))).collect();
    asked.sort();
    let mut found: Vec<_> = lines[2]
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').expect("a pair has an ="))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    found.sort();
    assert_eq!(found, asked);
    for (line, name) in lines[3..].iter().zip(&names) {
        assert_eq!(format!("{name}:{}", header(request, name)), *line);
    }
    assert_eq!(lines[3 + names.len()], "");
    assert_eq!(lines[4 + names.len()], signed);
    assert_eq!(lines[5 + names.len()], header(request, CONTENT_SHA256));
}

/// A header again: all its values, sorted.
fn header(request: &Signable<'_>, name: &str) -> String {
    let named = request.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
    let mut values: Vec<&str> = named.map(|(_, value)| value.trim_matches([' ', '\t'])).collect();
    assert!(!values.is_empty(), "{name} is signed but absent");
    values.sort();
    let joined = values.join(",");
    assert_eq!(request.header(name).as_deref(), Some(&*joined));
    joined
}

/// Percent-encoding again, written in another way than the one under test.
fn escaped(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The header of ACS4 instead.
fn good_of_a_day(header: &str) -> String {
    let derived = header.replace("ACS3", "ACS4");
    derived.replace("AK.12345678", "AK.12345678/20260102/cn-hangzhou/Kms/aliyun_v4_request")
}

/// Returns requests with a good header and with a bad one.
pub(crate) fn seeds() -> Vec<Seed> {
    let names = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
    let header = format!(
        "ACS3-HMAC-SHA256 Credential=AK.12345678,SignedHeaders={names},Signature={}",
        "0123456789abcdef".repeat(4)
    );
    let rest = "\nPOST /\n?b=1 2\n?a=ä\nHost: h:1\nx-acs-action:Encrypt\nx-acs-version:2016-01-20\n\
        x-acs-date:2026-01-02T03:04:05Z\nx-acs-signature-nonce:n\nx-acs-content-sha256: e3b0 \nx-other:a\nx-other:b";
    vec![
        ("good", format!("{header}{rest}").into()),
        ("derived", good_of_a_day(&header).into()),
        ("absent", format!("{header}\nGET /v1/Encrypt\nhost:h").into()),
        ("other", format!("Bearer x{rest}").into()),
        ("alone", header.into()),
    ]
}
