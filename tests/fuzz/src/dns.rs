//! What a resolver answers when it is asked for a name.

use keymill_validate_network::dns::{Kind, answer, question, text};

use crate::memory::{room, within};
use crate::target::Seed;

const NAME: &str = "_acme-challenge.a.example";
const KINDS: [Kind; 3] = [Kind::A, Kind::Aaaa, Kind::Txt];

/// Reads an answer to each question.
pub(crate) fn check(bytes: &[u8]) {
    let mut read = 0;
    for kind in KINDS {
        // The owner of each record may be as long as a name is.
        let records = within(room(64 * bytes.len()), || answer(bytes, 7, NAME, kind));
        let Ok(records) = records else { continue };
        read += usize::from(!records.is_empty());
        for data in records {
            assert!(bytes.as_ptr_range().contains(&data.as_ptr()) || data.is_empty());
            assert!(text(data).is_none_or(|text| text.len() < data.len().max(1)));
        }
        assert!(answer(bytes, 8, NAME, kind).is_err() && answer(bytes, 7, "other.example", kind).is_err());
    }
    assert!(read <= 1, "one message answers one question");
    if let Some(message) = std::str::from_utf8(bytes).ok().and_then(|name| question(7, name, Kind::Txt)) {
        assert!(answer(&message, 7, NAME, Kind::Txt).is_err(), "a question is no answer");
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let answered = |kind: Kind, records: &[u8], count: u8| {
        let mut message = question(7, NAME, kind).expect("it is a name");
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[7] = count;
        [&message, records].concat()
    };
    let txt = b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x04\x03abc";
    let alias =
        b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01t\xc0\x1c\x01t\xc0\x1c\0\x10\0\x01\0\0\0\x3c\0\x02\x01a";
    vec![
        ("txt", answered(Kind::Txt, txt, 1)),
        ("alias", answered(Kind::Txt, alias, 2)),
        ("address", answered(Kind::A, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01", 1)),
        ("name", b"a.example".to_vec()),
    ]
}
