//! Names and values as a query or an `application/x-www-form-urlencoded` body has them (WHATWG URL §5.1): `+` is a space, and an escape
//! has two hexadecimal digits.

use keymill_core::{Error, ErrorKind, Result};

/// Pairs of one request, at most; the longest list of the cloud's API has 800 entries.
pub const MAX_PAIRS: usize = 1_024;

/// Takes a query or a body apart, in its order.
///
/// # Errors
/// `IncompleteSignature` for an escape that is none or text that is not UTF-8, since what cannot be read cannot have been signed;
/// `MalformedRequest` for more than [`MAX_PAIRS`].
pub fn decode(encoded: &[u8]) -> Result<Vec<(String, String)>> {
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

fn text(encoded: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'+' | b'%')) {
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
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
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
