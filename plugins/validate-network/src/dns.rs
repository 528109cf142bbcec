//! Messages of the DNS (RFC 1035 §4): one question, and the records of the answer that are asked for, at the end of what aliases there are. Bytes in,
//! values out.

/// Which records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    Aaaa,
    /// Text.
    Txt,
}

const NO_SUCH_NAME: u8 = 3;
const CNAME: u16 = 5;
const IN: u16 = 1;
/// Records of an answer that are looked at, and aliases that are followed.
const RECORDS: usize = 256;
const ALIASES: usize = 16;
/// Bytes of a name as it is sent (RFC 1035 §2.3.4).
const NAME_BYTES: usize = 255;

impl Kind {
    fn code(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Txt => 16,
        }
    }
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not of the form, or answers another question.
    Malformed,
    /// It says that there is none (RFC 1035 §4.1.1: the response code).
    Refused(u8),
}

/// Writes a question; `None` for a name that is none.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    // Recursion is desired; one question.
    let mut message = [&id.to_be_bytes()[..], &[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    let is_short = message.len() - 12 <= NAME_BYTES;
    message.extend_from_slice(&[kind.code(), IN].map(u16::to_be_bytes).concat());
    is_short.then_some(message)
}

/// A record of an answer.
struct Record<'m> {
    owner: Vec<u8>,
    kind: u16,
    data: &'m [u8],
    /// Where the data begin in the message.
    at: usize,
}

/// Reads the answer to a question: the data of its records, none where the name has none.
///
/// # Errors
/// [`Fault`].
pub fn answer<'m>(message: &'m [u8], id: u16, name: &str, kind: Kind) -> Result<Vec<&'m [u8]>, Fault> {
    let mut at = 0;
    let mut next = || number(message, &mut at).ok_or(Fault::Malformed);
    let (its_id, flags, questions, answers) = (next()?, next()?, next()?, next()?);
    next()?;
    next()?;
    // An answer to a plain question, and whole.
    if its_id != id || flags & 0xfa00 != 0x8000 || questions != 1 {
        return Err(Fault::Malformed);
    }
    let code = (flags & 0x000f) as u8;
    if !matches!(code, 0 | NO_SUCH_NAME) {
        return Err(Fault::Refused(code));
    }
    let asked = read_name(message, &mut at).ok_or(Fault::Malformed)?;
    let mut next = || number(message, &mut at).ok_or(Fault::Malformed);
    if (next()?, next()?) != (kind.code(), IN) || asked != name.to_ascii_lowercase().as_bytes() {
        return Err(Fault::Malformed);
    }
    if code == NO_SUCH_NAME {
        return Ok(Vec::new());
    }
    let mut records = Vec::new();
    for _ in 0..usize::from(answers).min(RECORDS) {
        records.extend(record(message, &mut at).ok_or(Fault::Malformed)?);
    }
    let mut owner = asked;
    for _ in 0..ALIASES {
        let of = |kind: u16| records.iter().filter(move |record| record.kind == kind);
        let found: Vec<_> =
            of(kind.code()).filter(|record| record.owner == owner).map(|record| record.data).collect();
        let alias = of(CNAME).find(|record| record.owner == owner);
        match alias {
            Some(alias) if found.is_empty() => {
                owner = read_name(message, &mut { alias.at }).ok_or(Fault::Malformed)?;
            }
            _ => return Ok(found),
        }
    }
    Err(Fault::Malformed)
}

/// Returns the text of a TXT record: its strings, one behind the other (RFC 1035 §3.3.14).
pub fn text(mut data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(data.len());
    while let Some((length, rest)) = data.split_first() {
        let (part, rest) = rest.split_at_checked(usize::from(*length))?;
        text.extend_from_slice(part);
        data = rest;
    }
    Some(text)
}

/// Reads a record; `Some(None)` for one of another class.
fn record<'m>(message: &'m [u8], at: &mut usize) -> Option<Option<Record<'m>>> {
    let owner = read_name(message, at)?;
    let (kind, class) = (number(message, at)?, number(message, at)?);
    // How long it may be kept.
    *at += 4;
    let length = usize::from(number(message, at)?);
    let begins = *at;
    let data = message.get(begins..begins + length)?;
    *at += length;
    Some((class == IN).then_some(Record { owner, kind, data, at: begins }))
}

fn number(message: &[u8], at: &mut usize) -> Option<u16> {
    let bytes = message.get(*at..*at + 2)?;
    *at += 2;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Reads a name in lower case, its labels behind points. A pointer leads back, each further than the last, so that none leads in a circle.
fn read_name(message: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let (mut place, mut lowest, mut has_jumped) = (*at, *at, false);
    loop {
        let length = *message.get(place)?;
        match length {
            0 => {
                if !has_jumped {
                    *at = place + 1;
                }
                return Some(name);
            }
            1..=63 => {
                let label = message.get(place + 1..place + 1 + usize::from(length))?;
                // A point inside a label would make it two.
                if label.contains(&b'.') || name.len() + label.len() + 1 > NAME_BYTES {
                    return None;
                }
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                place += 1 + usize::from(length);
            }
            0xc0.. => {
                let low = *message.get(place + 1)?;
                if !has_jumped {
                    *at = place + 2;
                    has_jumped = true;
                }
                place = usize::from(length & 0x3f) << 8 | usize::from(low);
                if place >= lowest {
                    return None;
                }
                lowest = place;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_acme-challenge.a.example";

    /// An answer with some records: the owner as it is sent, the type, the data.
    fn answered(flags: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut message = question(7, NAME, Kind::Txt).unwrap();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (owner, kind, data) in records {
            message.extend_from_slice(owner);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    fn read(message: &[u8]) -> Result<Vec<&[u8]>, Fault> {
        answer(message, 7, NAME, Kind::Txt)
    }

    /// A pointer to the name of the question.
    const ASKED: &[u8] = &[0xc0, 12];

    #[test]
    fn a_question_is_written_as_the_rfc_has_it() {
        let message = question(0x1234, "a.example", Kind::Aaaa).unwrap();
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x1c\0\x01";
        assert_eq!(message, expected);
        for odd in ["", "a..b", ".a", &"a".repeat(64), &"a.".repeat(127)] {
            assert_eq!(question(1, odd, Kind::A), None, "{odd}");
        }
        assert!(question(1, "a.".repeat(127).trim_end_matches('.'), Kind::A).is_some());
    }

    #[test]
    fn records_of_the_name_are_read_and_others_are_not() {
        let other = b"\x05other\x07example\0";
        let message = answered(0x8180, &[(ASKED, 16, b"\x01a"), (other, 16, b"\x01b"), (ASKED, 1, &[1; 4])]);
        assert_eq!(read(&message).unwrap(), [b"\x01a"]);
        assert_eq!(read(&answered(0x8180, &[])).unwrap(), [b""; 0]);
        assert_eq!(read(&answered(0x8183, &[])).unwrap(), [b""; 0], "no such name");
    }

    #[test]
    fn aliases_are_followed_to_their_end_and_not_in_a_circle() {
        let target = b"\x01t\x07example\0";
        let message = answered(0x8180, &[(target, 16, b"\x01a"), (ASKED, 5, target)]);
        assert_eq!(read(&message).unwrap(), [b"\x01a"]);
        let circle = answered(0x8180, &[(ASKED, 5, target), (target, 5, ASKED)]);
        assert_eq!(read(&circle), Err(Fault::Malformed));
        let itself = answered(0x8180, &[(ASKED, 5, ASKED)]);
        assert_eq!(read(&itself), Err(Fault::Malformed));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        let good = answered(0x8180, &[(ASKED, 16, b"\x01a")]);
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), Err(Fault::Malformed), "cut at {length}");
        }
        assert_eq!(answer(&good, 8, NAME, Kind::Txt), Err(Fault::Malformed), "another id");
        assert_eq!(answer(&good, 7, NAME, Kind::A), Err(Fault::Malformed), "another type");
        for message in [&good, &answered(0x8183, &[])] {
            assert_eq!(answer(message, 7, "b.example", Kind::Txt), Err(Fault::Malformed), "another name");
        }
        for flags in [0x0180, 0x8380, 0x9180] {
            assert_eq!(
                read(&answered(flags, &[])),
                Err(Fault::Malformed),
                "a question, cut off, another operation"
            );
        }
        assert_eq!(read(&answered(0x8182, &[])), Err(Fault::Refused(2)));
        let forward = answered(0x8180, &[(&[0xc0, 200], 16, b"\x01a")]);
        let circle = answered(0x8180, &[(&[0xc0, 43], 16, b"\x01a")]);
        let reserved = answered(0x8180, &[(&[0x80, 12], 16, b"\x01a")]);
        let two_in_one = answered(0x8180, &[(b"\x03a.b\0", 16, b"\x01a")]);
        for odd in [forward, circle, reserved, two_in_one] {
            assert_eq!(read(&odd), Err(Fault::Malformed));
        }
    }

    #[test]
    fn text_is_its_strings_one_behind_the_other() {
        assert_eq!(text(b"\x02ab\0\x01c").unwrap(), b"abc");
        assert_eq!(text(b"").unwrap(), b"");
        assert_eq!(text(b"\x03ab"), None);
    }
}
