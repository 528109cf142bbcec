//! The public exponent of an RSA key that somebody else made. The library takes what it can compute with; what is encrypted under a small
//! exponent, or an even one, is not safe.

/// Bytes of an exponent, at most: it is below 2^256 (FIPS 186-5, 5.1).
const MOST_BYTES: usize = 32;

/// Tells whether the exponent of a key (SubjectPublicKeyInfo of RFC 3279, 2.3.1, in DER) is odd, at least 65,537, and below 2^256.
pub(crate) fn is_strong(spki: &[u8]) -> bool {
    let Some(exponent) = of(spki) else { return false };
    let digits = exponent.strip_prefix(&[0]).unwrap_or(exponent);
    let is_odd = digits.last().is_some_and(|last| last & 1 == 1);
    // Shortest form, so that the length says how large it is.
    let is_large = digits.first().is_some_and(|first| *first != 0)
        && match digits.len() {
            0..=2 => false,
            3 => digits >= &[1, 0, 1][..],
            bytes => bytes <= MOST_BYTES,
        };
    let is_negative = exponent.first().is_some_and(|first| first & 0x80 != 0);
    is_odd && is_large && !is_negative
}

/// Takes the exponent out of its key.
fn of(spki: &[u8]) -> Option<&[u8]> {
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const SEQUENCE: u8 = 0x30;
    let (info, rest) = value(spki, SEQUENCE)?;
    let (_algorithm, key) = value(info, SEQUENCE)?;
    let (bits, behind) = value(key, BIT_STRING)?;
    let (numbers, end) = value(bits.strip_prefix(&[0])?, SEQUENCE)?;
    let (_modulus, exponent) = value(numbers, INTEGER)?;
    let (exponent, last) = value(exponent, INTEGER)?;
    [rest, behind, end, last].iter().all(|rest| rest.is_empty()).then_some(exponent)
}

/// Takes a value of that tag, and what is behind it (X.690, 8.1.3).
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (*first == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key with a modulus of one byte, and an exponent of that encoding.
    fn with(exponent: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        let numbers = wrap(0x30, &[wrap(0x02, &[7]), wrap(0x02, exponent)].concat());
        let bits = wrap(0x03, &[&[0], &numbers[..]].concat());
        wrap(0x30, &[wrap(0x30, &[0x05, 0x00]), bits].concat())
    }

    #[test]
    fn an_exponent_is_odd_and_large_and_not_too_large() {
        for strong in [&[1, 0, 1][..], &[1, 0, 3], &[0, 0x80, 0, 1], &[1, 0, 0, 1], &[0x7f; 32]] {
            assert!(is_strong(&with(strong)), "{strong:?}");
        }
        for weak in [
            &[][..],
            &[0],
            &[1],
            &[3],
            &[17],
            &[0xff, 0xff],
            &[0, 0xff, 0xff],
            &[1, 0, 0],
            &[2, 0, 0],
            &[0x80, 0, 1],
            &[0, 0, 1],
            &[0, 0, 0, 1],
            &[0x7f; 33],
        ] {
            assert!(!is_strong(&with(weak)), "{weak:?}");
        }
        let whole = with(&[1, 0, 1]);
        for length in 0..whole.len() {
            assert!(!is_strong(&whole[..length]), "{length} bytes");
        }
        assert!(!is_strong(&[&whole[..], &[0]].concat()));
    }
}
