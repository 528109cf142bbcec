//! Names and values as a query or an `application/x-www-form-urlencoded` body has them (WHATWG URL §5.1): `+` is a space, and an escape
//! has two hexadecimal digits.

use std::borrow::Cow;

use keymill_core::{Error, ErrorKind, Result};

/// Pairs of one request, at most; the longest list of the cloud's API has 800 entries.
pub const MAX_PAIRS: usize = 1_024;

/// A name and its value, lent by what they were read from where that escapes nothing.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Takes a query or a body apart, in its order.
///
/// # Errors
/// `IncompleteSignature` for an escape that is none or text that is not UTF-8, since what cannot be read cannot have been signed;
/// `MalformedRequest` for more than [`MAX_PAIRS`].
pub fn decode(encoded: &[u8]) -> Result<Vec<Pair<'_>>> {
    let pairs = encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let mut decoded = Vec::new();
    for pair in pairs {
        if decoded.len() == MAX_PAIRS {
            return Err(Error::new(
                ErrorKind::MalformedRequest,
                format!("the request has more than {MAX_PAIRS} parameters"),
            ));
        }
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..equals], pair.get(equals + 1..).unwrap_or_default());
        match (text(name), text(value)) {
            (Some(name), Some(value)) => decoded.push((name, value)),
            _ => {
                return Err(Error::new(
                    ErrorKind::IncompleteSignature,
                    "a parameter has an escape that is no UTF-8 text",
                ));
            }
        }
    }
    Ok(decoded)
}

fn text(encoded: &[u8]) -> Option<Cow<'_, str>> {
    if !encoded.iter().any(is_escape) {
        return std::str::from_utf8(encoded).ok().map(Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(is_escape) {
        bytes.extend_from_slice(&rest[..at]);
        let behind = &rest[at + 1..];
        if rest[at] == b'+' {
            bytes.push(b' ');
            rest = behind;
        } else {
            let ([high, low], behind) = behind.split_first_chunk()?;
            let digit = |c: &u8| char::from(*c).to_digit(16);
            bytes.push((digit(high)? << 4 | digit(low)?) as u8);
            rest = behind;
        }
    }
    bytes.extend_from_slice(rest);
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn is_escape(byte: &u8) -> bool {
    matches!(byte, b'+' | b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>(name: &'a str, value: &'a str) -> Pair<'a> {
        (name.into(), value.into())
    }

    #[test]
    fn what_escapes_nothing_is_lent() {
        let decoded = decode(b"KeyId=a&Plain%74ext=b").unwrap();
        let is_lent = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
        assert!(is_lent(&decoded[0].0) && is_lent(&decoded[0].1) && is_lent(&decoded[1].1));
        assert_eq!(decoded[1].0, "Plaintext");
        assert!(decode(b"a=\xff").is_err(), "what is lent is text, too");
    }

    #[test]
    fn pairs_are_decoded_in_their_order() {
        assert_eq!(decode(b"").unwrap(), []);
        assert_eq!(
            decode(b"a=b+c%20d&&%C3%A9=&x&=1&y==").unwrap(),
            [pair("a", "b c d"), pair("é", ""), pair("x", ""), pair("", "1"), pair("y", "=")]
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for bad in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%ff", b"%e9=1", b"a=%+1", b"a=\xff"] {
            assert_eq!(decode(bad).unwrap_err().kind(), ErrorKind::IncompleteSignature, "{bad:?}");
        }
        let mut many = b"a=1&".repeat(MAX_PAIRS);
        assert_eq!(decode(&many).unwrap().len(), MAX_PAIRS);
        many.push(b'b');
        assert_eq!(decode(&many).unwrap_err().kind(), ErrorKind::MalformedRequest);
    }
}
