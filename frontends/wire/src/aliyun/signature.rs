//! RPC signature version 1 (HMAC-SHA1), as the bytes that are signed: all parameters of query and form body but the signature, empty ones
//! included. The HMAC is the caller's; its key is the secret and `&`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::acs3::escape;

/// The parameter that is not signed.
pub const SIGNATURE: &str = "Signature";

/// Returns the string to sign of decoded parameters, in any order.
pub fn string_to_sign<'p>(method: &str, pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut signed: Vec<_> = pairs.into_iter().filter(|(name, _)| *name != SIGNATURE).collect();
    signed.sort_unstable();
    // Once for itself, and once more for the whole of it: both at once, with room for Base64.
    let bytes: usize = signed.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let mut out = Vec::with_capacity(method.len() + 5 + bytes + bytes / 2);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"&%2F&");
    for (at, (name, value)) in signed.into_iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b"%26");
        }
        escape(name, b"%25", &mut out);
        out.extend_from_slice(b"%3D");
        escape(value, b"%25", &mut out);
    }
    String::from_utf8(out).expect("a method, unreserved characters and escapes are text")
}

/// Decodes a signature of up to so many bytes.
pub fn decode(text: &str, most: usize) -> Option<Vec<u8>> {
    // Base64 has four characters for three bytes.
    let fits = text.len() <= most.div_ceil(3) * 4;
    fits.then(|| STANDARD.decode(text).ok()).flatten().filter(|decoded| decoded.len() <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word for word: names and values are escaped and joined, and what comes of it is escaped once more.
    #[test]
    fn both_escapes_at_once_are_one_after_the_other() {
        let percent = |text: &str| {
            let mut out = Vec::new();
            escape(text, b"%", &mut out);
            String::from_utf8(out).unwrap()
        };
        let pairs =
            [("b", "x=&%+ *~/\u{5bc6}\u{0}"), ("a", ""), ("", "1"), ("Signature", "no"), ("a b", "-_.~")];
        let mut signed: Vec<_> = pairs.into_iter().filter(|(name, _)| *name != SIGNATURE).collect();
        signed.sort_unstable();
        let joined: Vec<_> =
            signed.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value))).collect();
        let expected = format!("GET&%2F&{}", percent(&joined.join("&")));
        assert_eq!(string_to_sign("GET", pairs), expected);
        assert_eq!(string_to_sign("GET", []), "GET&%2F&");
    }
}
