//! RPC signature version 1 (HMAC-SHA1), as the bytes that are signed: all parameters of query and form body but the signature, empty ones
//! included. The HMAC is the caller's; its key is the secret and `&`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::acs3::percent;

/// The parameter that is not signed.
pub const SIGNATURE: &str = "Signature";

/// Returns the string to sign of decoded parameters, in any order.
pub fn string_to_sign<'p>(method: &str, pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut signed: Vec<_> = pairs.into_iter().filter(|(name, _)| *name != SIGNATURE).collect();
    signed.sort_unstable();
    let mut canonical = String::new();
    for (name, value) in signed {
        if !canonical.is_empty() {
            canonical.push('&');
        }
        canonical.push_str(&percent(name));
        canonical.push('=');
        canonical.push_str(&percent(value));
    }
    format!("{method}&%2F&{}", percent(&canonical))
}

/// Decodes a signature of so many bytes.
pub fn decode(text: &str, bytes: usize) -> Option<Vec<u8>> {
    // Base64 has four characters for three bytes.
    let fits = text.len() == bytes.div_ceil(3) * 4;
    fits.then(|| STANDARD.decode(text).ok()).flatten().filter(|decoded| decoded.len() == bytes)
}
