//! The text of a sealed cell, and how an opened one is put back where it came from.
//!
//! | cell | what is sealed |
//! |---|---|
//! | `km1:` + base64url of the blob | the value: of a CSV field without its quoting, of a JSON string without its escapes |
//! | `km1j:` + base64url of the blob | the JSON text of a number, boolean, null, array or object, or of a string that is not in its shortest escapes |
//!
//! A sealed CSV cell stands in quotes where the field did, so that opening it restores the quoting. The prefix is not
//! authenticated: who can write to the sealed file can turn a string into the JSON that its text spells.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keymill_core::blob::Algorithm;
use keymill_core::limit;
use serde::de::IgnoredAny;

/// The most that a ciphertext is longer than its plaintext.
const MAX_OVERHEAD: usize = Algorithm::Xaes256Gcm.overhead();

/// Opens the cell of a sealed value.
pub(super) const SEALED: &str = "km1:";
/// Opens the cell of sealed JSON text.
pub(super) const SEALED_JSON: &str = "km1j:";

/// How a cell stands in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A CSV field without quotes, in a file of this delimiter.
    Bare { delimiter: u8 },
    /// A CSV field in quotes.
    Quoted,
    /// A JSON string in its shortest escapes.
    Text,
    /// Any other JSON text.
    Json,
}

/// What is said of a cell that should be sealed and is not.
pub(super) const NOT_SEALED: &str = "the cell is not sealed (--skip-plain leaves such cells as they are)";

/// Checks that a value may be sealed: not twice, and not beyond the limit.
pub(super) fn check_plain(value: &[u8], allow_reencrypt: bool) -> Result<(), String> {
    let sealed = value.starts_with(SEALED.as_bytes()) || value.starts_with(SEALED_JSON.as_bytes());
    if sealed && !allow_reencrypt {
        return Err("the cell is sealed already (--allow-reencrypt seals it once more)".to_owned());
    }
    check_length("cell", value.len(), limit::BATCH_ITEM_BYTES)
}

fn check_length(what: &str, length: usize, limit: usize) -> Result<(), String> {
    if length > limit {
        return Err(format!("{what} of {length} bytes exceeds the limit of {limit}"));
    }
    Ok(())
}

/// Appends the sealed cell of `blob`.
pub(super) fn write_sealed(form: Form, blob: &[u8], out: &mut Vec<u8>) {
    let (before, after) = match form {
        Form::Bare { .. } => (SEALED, ""),
        Form::Quoted | Form::Text => ("\"km1:", "\""),
        Form::Json => ("\"km1j:", "\""),
    };
    out.extend_from_slice(before.as_bytes());
    let start = out.len();
    let length =
        base64::encoded_len(blob.len(), false).expect("a blob is far shorter than the address space");
    out.resize(start + length, 0);
    URL_SAFE_NO_PAD.encode_slice(blob, &mut out[start..]).expect("the slice is as long as the text");
    out.extend_from_slice(after.as_bytes());
}

/// Appends the blob that `text`, without its prefix, spells.
pub(super) fn read_sealed(text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    check_length("ciphertext", text.len() / 4 * 3, limit::BATCH_ITEM_BYTES + MAX_OVERHEAD)?;
    // The decoder's error quotes the byte; a cell's content stays out of errors.
    URL_SAFE_NO_PAD.decode_vec(text, out).map_err(|_| "the sealed cell is not unpadded base64url".to_owned())
}

/// Appends an opened value as it stood before it was sealed. `next` is the byte behind the cell.
pub(super) fn write_opened(
    form: Form,
    value: &[u8],
    next: Option<u8>,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    match form {
        Form::Bare { delimiter } if !needs_quotes(value, delimiter, next) => out.extend_from_slice(value),
        Form::Bare { .. } | Form::Quoted => write_quoted(value, out),
        Form::Text => {
            let text = std::str::from_utf8(value).map_err(|_| "the opened value is not UTF-8")?;
            serde_json::to_writer(out, text).expect("text has a JSON form and a vector grows");
        }
        Form::Json => {
            let line_of_json = !value.contains(&b'\n')
                && std::str::from_utf8(value)
                    .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
            if !line_of_json {
                return Err("the opened value is not the JSON text that its prefix promises");
            }
            out.extend_from_slice(value);
        }
    }
    Ok(())
}

/// Tells whether a bare field would be read as something else. Never so for what was bare when it was sealed; but programs
/// between may take quotes away that a sealed cell does not need.
fn needs_quotes(value: &[u8], delimiter: u8, next: Option<u8>) -> bool {
    memchr::memchr2(delimiter, b'\n', value).is_some()
        || value.first() == Some(&b'"')
        || (value.last() == Some(&b'\r') && next == Some(b'\n'))
}

fn write_quoted(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = value;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=quote]);
        out.push(b'"');
        rest = &rest[quote + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Form = Form::Bare { delimiter: b',' };

    fn opened(form: Form, value: &[u8], next: Option<u8>) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        write_opened(form, value, next, &mut out).map(|()| out)
    }

    #[test]
    fn a_sealed_cell_is_unpadded_base64url_behind_its_prefix() {
        let mut out = b"x,".to_vec();
        write_sealed(BARE, &[0xfb, 0xff, 0], &mut out);
        out.push(b',');
        write_sealed(Form::Quoted, b"a", &mut out);
        write_sealed(Form::Json, b"", &mut out);
        assert_eq!(out, b"x,km1:-_8A,\"km1:YQ\"\"km1j:\"");
        let mut blob = Vec::new();
        read_sealed(b"-_8A", &mut blob).unwrap();
        assert_eq!(blob, [0xfb, 0xff, 0]);
        for bad in ["YQ==", "YR", "+/8A", "YQ ", "Y"] {
            assert!(read_sealed(bad.as_bytes(), &mut blob).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_whose_quotes_were_taken_away_gets_them_back() {
        assert_eq!(opened(BARE, b"a\"b", None).unwrap(), b"a\"b");
        assert_eq!(opened(BARE, b"a,b", None).unwrap(), b"\"a,b\"");
        assert_eq!(opened(BARE, b"\"a", None).unwrap(), b"\"\"\"a\"");
        assert_eq!(opened(BARE, b"a\n", None).unwrap(), b"\"a\n\"");
        assert_eq!(opened(BARE, b"a\r", Some(b'\n')).unwrap(), b"\"a\r\"");
        assert_eq!(opened(BARE, b"a\r", Some(b'\r')).unwrap(), b"a\r");
    }

    #[test]
    fn opened_json_that_would_break_its_line_is_refused() {
        assert_eq!(opened(Form::Json, b"{\"a\":1}", None).unwrap(), b"{\"a\":1}");
        for bad in [&b"1,\"admin\":true"[..], b"[1,\n2]", b"", b"\xff", b"1 2"] {
            assert!(opened(Form::Json, bad, None).is_err());
        }
        assert_eq!(
            opened(Form::Text, "a\"\n\u{1}é".as_bytes(), None).unwrap(),
            "\"a\\\"\\n\\u0001é\"".as_bytes()
        );
        assert!(opened(Form::Text, b"\xff", None).is_err());
    }
}
