//! JSON written by hand into a buffer that is reused: the audit is on the way of every request, and a serializer costs more
//! than the MAC. All that is written is printable ASCII.

use std::io::Write;
use std::net::IpAddr;

use keymill_core::id::RequestId;

/// Longer texts are cut and end in an ellipsis: a record says who and what, it does not store what callers send.
pub(super) const TEXT_MAX_BYTES: usize = 1024;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The two digits of every byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a quoted text, escaped and cut at [`TEXT_MAX_BYTES`].
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    if text.len() <= TEXT_MAX_BYTES {
        return whole_text(out, text);
    }
    let cut = text.floor_char_boundary(TEXT_MAX_BYTES);
    out.push(b'"');
    escaped(out, &text[..cut]);
    out.extend_from_slice(b"\\u2026\"");
}

/// Appends a quoted text, escaped and whole, where it names something that must be found again.
pub(super) fn whole_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Without an early end, so that it is done many bytes at a time.
    let odd =
        text.bytes().fold(false, |odd, c| odd | !(b' '..=b'~').contains(&c) | (c == b'"') | (c == b'\\'));
    if !odd {
        out.extend_from_slice(text.as_bytes());
    } else {
        escaped(out, text);
    }
    out.push(b'"');
}

// CWE-117: control characters would break the line, C1 and bidirectional ones the terminal of who reads it.
#[cold]
fn escaped(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            ' '..='~' => out.push(c as u8),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    hex(out, &unit.to_be_bytes());
                }
            }
        }
    }
}

/// Appends bytes in lower-case hexadecimal, without quotes.
pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

/// Returns bytes in lower-case hexadecimal.
pub(super) fn hex_text(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(2 * bytes.len());
    hex(&mut out, bytes);
    String::from_utf8(out).expect("hexadecimal digits are ASCII")
}

/// Reads exactly `N` bytes in lower-case hexadecimal.
pub(super) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    // What is no digit is more than four bits, and found at the end: this is done for every line of a log.
    let digit = |c: u8| match c {
        b'0'..=b'9' => c - b'0',
        b'a'..=b'f' => c - b'a' + 10,
        _ => 0xf0,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(text.as_chunks().0) {
        let (high, low) = (digit(*high), digit(*low));
        seen |= high | low;
        *byte = high << 4 | low & 0x0f;
    }
    (seen <= 0x0f).then_some(bytes)
}

// Where each byte of an id stands in its quoted text.
/// Appends a quoted id, 8-4-4-4-12.
pub(super) fn uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    out.push(b'"');
    out.extend_from_slice(&RequestId::from_bytes(*bytes).to_ascii());
    out.push(b'"');
}

/// Appends a quoted address.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    out.push(b'"');
    match address {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("a vector takes every write"),
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_character_comes_back_and_none_leaves_printable_ascii() {
        for c in ('\0'..='\u{2fff}').chain(['\u{feff}', '\u{1f511}', '\u{10ffff}']) {
            let quoted = written(|out| text(out, &format!("a{c}b")));
            assert!(quoted.bytes().all(|b| (b' '..=b'~').contains(&b)), "{quoted}");
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), format!("a{c}b"));
        }
    }

    #[test]
    fn a_megabyte_of_text_is_cut_and_says_so() {
        for filler in ["x", "\n", "é"] {
            let quoted = written(|out| text(out, &filler.repeat(1 << 20)));
            assert!(quoted.len() < 8 * TEXT_MAX_BYTES);
            let back = serde_json::from_str::<String>(&quoted).unwrap();
            assert_eq!(back.trim_end_matches('…'), filler.repeat(TEXT_MAX_BYTES / filler.len()));
            assert!(back.ends_with('…'));
        }
    }

    #[test]
    fn numbers_addresses_and_ids_are_those_of_the_standard_library() {
        for n in [0, 9, 10, 4_294_967_296, u64::MAX] {
            assert_eq!(written(|out| number(out, n)), n.to_string());
        }
        for source in ["127.0.0.1", "255.10.0.99", "::1", "2001:db8::ff"] {
            assert_eq!(written(|out| address(out, source.parse().unwrap())), format!("\"{source}\""));
        }
        let id = keymill_core::id::CmkId::from_bytes(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(written(|out| uuid(out, id.as_bytes())), format!("\"{id}\""));
    }

    #[test]
    fn hexadecimal_has_one_spelling() {
        assert_eq!(unhex(b"00ff"), Some([0, 0xff]));
        for text in ["00fF", "00f", "00ff0", "0 ff", "+0ff", ""] {
            assert_eq!(unhex::<2>(text.as_bytes()), None, "{text}");
        }
    }
}
