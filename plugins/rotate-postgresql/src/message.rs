//! Messages of the protocol, version 3.0: the few that a login and a statement take. What a server sends is read here, and nothing of it is
//! believed before it is there.
//!
//! | bytes | of a message |
//! |---|---|
//! | 1 | kind; a first message has none |
//! | 4 | length, with these four bytes and without the kind, big-endian |
//! | … | body |

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest body that is read: what is asked for answers in some hundred bytes, and a server says more of itself than that.
pub const MAX_BODY: usize = 64 << 10;
/// The number that asks for TLS in place of a version.
const TLS_REQUEST: u32 = 80_877_103;
const VERSION: u32 = 3 << 16;
/// Columns of a row that are looked at.
const MAX_COLUMNS: usize = 16;

/// A message of a server's.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'m> {
    /// The login is complete, as far as the server is concerned.
    LoggedIn,
    /// The server offers SASL; whether SCRAM-SHA-256 is among it.
    Sasl(bool),
    /// The server goes on with SASL.
    SaslContinue(&'m [u8]),
    /// The server's last word of SASL.
    SaslFinal(&'m [u8]),
    /// The server asks for the password in another way, by its number.
    Asks(u32),
    /// The server refuses; with the SQLSTATE, where there is one.
    Error(Option<&'m str>),
    /// A row.
    Row(Vec<Option<&'m [u8]>>),
    /// The server waits for a statement.
    Ready,
    /// What need not be known.
    Other,
}

/// Reads the head of a message: its kind, and how long its body is.
pub fn head(head: [u8; 5]) -> Option<(u8, usize)> {
    let [kind, length @ ..] = head;
    let body = (u32::from_be_bytes(length) as usize).checked_sub(4)?;
    (body <= MAX_BODY).then_some((kind, body))
}

/// Reads a message.
pub fn read(kind: u8, body: &[u8]) -> Option<Message<'_>> {
    Some(match kind {
        b'R' => authentication(body)?,
        b'E' => Message::Error(state(body)),
        b'D' => row(body)?,
        b'Z' => Message::Ready,
        _ => Message::Other,
    })
}

fn authentication(body: &[u8]) -> Option<Message<'_>> {
    let (number, rest) = body.split_first_chunk()?;
    Some(match u32::from_be_bytes(*number) {
        0 => Message::LoggedIn,
        10 => Message::Sasl(rest.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256")),
        11 => Message::SaslContinue(rest),
        12 => Message::SaslFinal(rest),
        other => Message::Asks(other),
    })
}

/// Finds the SQLSTATE: the field C. All else of an error is text that could hold anything, and is not looked at.
fn state(body: &[u8]) -> Option<&str> {
    let fields = body.split(|byte| *byte == 0);
    let code = fields.filter_map(|field| field.strip_prefix(b"C")).find(|code| code.len() == 5)?;
    code.iter().all(u8::is_ascii_alphanumeric).then(|| std::str::from_utf8(code).ok()).flatten()
}

fn row(body: &[u8]) -> Option<Message<'_>> {
    let (columns, mut rest) = body.split_first_chunk()?;
    let columns = u16::from_be_bytes(*columns) as usize;
    if columns > MAX_COLUMNS {
        return None;
    }
    let mut row = Vec::with_capacity(columns);
    for _ in 0..columns {
        let length;
        (length, rest) = rest.split_first_chunk()?;
        row.push(match i32::from_be_bytes(*length) {
            -1 => None,
            length => {
                let column;
                (column, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                Some(column)
            }
        });
    }
    rest.is_empty().then_some(Message::Row(row))
}

/// A server that asks for more has us compute, and nothing else.
const MAX_ITERATIONS: u32 = 1_000_000;

/// What a server says first of SCRAM: what the password is to be hashed with.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge<'m> {
    /// Our nonce, and the server's behind it.
    pub nonce: &'m str,
    /// Hashed with the password.
    pub salt: Vec<u8>,
    /// So often.
    pub iterations: NonZeroU32,
}

impl<'m> Challenge<'m> {
    /// Reads `r=…,s=…,i=…`. What follows would be extensions, of which we know none that may be passed over.
    pub fn read(text: &'m [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(',');
        let nonce = parts.next()?.strip_prefix("r=")?;
        let salt = STANDARD.decode(parts.next()?.strip_prefix("s=")?).ok()?;
        let iterations: NonZeroU32 = parts.next()?.strip_prefix("i=")?.parse().ok()?;
        let is_ours = iterations.get() <= MAX_ITERATIONS && parts.next().is_none();
        is_ours.then_some(Self { nonce, salt, iterations })
    }
}

/// Asks whether there is TLS; the answer is one byte.
pub fn tls_request() -> Vec<u8> {
    first(&TLS_REQUEST.to_be_bytes())
}

/// Begins.
pub fn startup(user: &str, database: Option<&str>) -> Vec<u8> {
    let mut body = VERSION.to_be_bytes().to_vec();
    let parameters = [
        ("user", Some(user)),
        ("database", database),
        ("application_name", Some("keymill")),
        ("client_encoding", Some("UTF8")),
    ];
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    first(&body)
}

fn first(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32 + 4;
    let mut message = vec![kind];
    message.extend_from_slice(&length.to_be_bytes());
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message
}

/// Begins SCRAM-SHA-256.
pub fn sasl_first(text: &[u8]) -> Vec<u8> {
    message(b'p', &[b"SCRAM-SHA-256\0", &(text.len() as u32).to_be_bytes(), text])
}

/// Goes on with it.
pub fn sasl_next(text: &[u8]) -> Vec<u8> {
    message(b'p', &[text])
}

/// A statement, or several.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), &[0]])
}

/// Takes leave.
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        assert_eq!(head(*b"R\0\0\0\x08"), Some((b'R', 4)));
        assert_eq!(read(b'R', &[0, 0, 0, 0]), Some(Message::LoggedIn));
        assert_eq!(read(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), Some(Message::Sasl(true)));
        assert_eq!(read(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"), Some(Message::Sasl(false)));
        assert_eq!(read(b'R', b"\0\0\0\x05salt"), Some(Message::Asks(5)));
        assert_eq!(
            read(b'E', b"SFATAL\0C28P01\0Mpassword of \"x\"\0\0"),
            Some(Message::Error(Some("28P01")))
        );
        assert_eq!(read(b'E', b"SFATAL\0C28'01\0\0"), Some(Message::Error(None)));
        let row = b"\0\x02\0\0\0\x011\xff\xff\xff\xff";
        assert_eq!(read(b'D', row), Some(Message::Row(vec![Some(b"1"), None])));
        assert_eq!(read(b'S', b"anything"), Some(Message::Other));
    }

    #[test]
    fn what_is_cut_or_too_long_is_not() {
        assert_eq!(head(*b"R\0\0\0\x03"), None);
        assert_eq!(head(*b"R\0\x01\0\x05"), None);
        assert_eq!(read(b'R', &[0, 0, 0]), None);
        for odd in
            [&b"\0"[..], b"\0\x01\0\0\0\x02a", b"\0\x01\0\0\0\x01ab", b"\xff\xff", b"\0\x01\xff\xff\xff\xfe"]
        {
            assert_eq!(read(b'D', odd), None, "{odd:?}");
        }
    }

    #[test]
    fn what_we_say_is_as_the_manual_has_it() {
        assert_eq!(tls_request(), [0, 0, 0, 8, 4, 210, 22, 47]);
        let begun = startup("app", Some("shop"));
        assert_eq!(
            &begun[4..],
            b"\0\x03\0\0user\0app\0database\0shop\0application_name\0keymill\0client_encoding\0UTF8\0\0"
        );
        assert_eq!(begun[..4], (begun.len() as u32).to_be_bytes());
        assert_eq!(query("SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0");
        assert_eq!(sasl_first(b"n,,"), b"p\0\0\0\x19SCRAM-SHA-256\0\0\0\0\x03n,,");
    }
}
