//! base64url as JWS has it (RFC 7515 §2): no padding, no white space, no spare bits, so that one value has one text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keymill_core::acme::{Outcome, Problem, ProblemKind};

/// Reads bytes; `what` names them in the error.
pub(crate) fn decode(text: &str, what: &str) -> Outcome<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| {
        let why = format!("{what} is not base64url without padding");
        Problem::new(ProblemKind::Malformed, why)
    })
}

/// Writes bytes.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_text() {
        assert_eq!(decode("_-8", "it").unwrap(), [0xff, 0xef]);
        assert_eq!(encode([0xff, 0xef]), "_-8");
        for odd in ["_-8=", "/+8", "_-9", "_", "_-8 ", " _-8", "_\n-8", "_-8\0"] {
            assert!(decode(odd, "it").unwrap_err().detail.contains("it is not base64url"), "{odd:?}");
        }
    }
}
