//! Packets of the protocol, version 10: the few that a login and a statement take. What a server sends is read here, and nothing of it is
//! believed before it is there.
//!
//! | bytes | of a packet |
//! |---|---|
//! | 3 | length of the body, little-endian |
//! | 1 | number, counted from 0 in each exchange |
//! | … | body |

use std::fmt;

/// The longest body that is read: what is asked for answers in some hundred bytes.
pub const MAX_BODY: usize = 64 << 10;
/// Columns of a row that are looked at.
const MAX_COLUMNS: usize = 16;

const CONNECT_WITH_DATABASE: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const TLS: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
/// Without these a server is older than any that is kept.
const NEEDED: u32 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
/// utf8mb4, so that no byte of ours is half a character of another encoding.
const UTF8MB4: u8 = 45;
/// Set in a status where a backslash in quotes is a backslash.
const NO_BACKSLASH_ESCAPES: u16 = 1 << 9;

/// How a login shows its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `mysql_native_password`: SHA-1.
    Native,
    /// `caching_sha2_password`: SHA-256.
    CachingSha2,
}

impl Method {
    /// Returns the method of that name, where it is one of ours.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"mysql_native_password" => Some(Self::Native),
            b"caching_sha2_password" => Some(Self::CachingSha2),
            _ => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
        })
    }
}

/// What is to be hashed with a password: new with every login.
pub type Nonce = [u8; 20];

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Whether it is MariaDB, and not MySQL.
    pub is_mariadb: bool,
    /// Whether it has TLS.
    pub has_tls: bool,
    /// Whether it can be talked to.
    pub is_recent: bool,
    /// What is hashed with a password.
    pub nonce: Nonce,
    /// How it has a login show its password, where that is one of our ways.
    pub method: Option<Method>,
}

/// A packet of a server's, in answer to ours.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'p> {
    /// Done; whether a backslash in quotes escapes.
    Done {
        /// It does, unless the server was told otherwise.
        backslash_escapes: bool,
    },
    /// The server refuses, with the number of its reason.
    Error(u16),
    /// The account shows its password in another way: none where it is none of ours.
    Switch(Option<(Method, Nonce)>),
    /// More of the method that is under way.
    More(&'p [u8]),
    /// Anything else.
    Other(&'p [u8]),
}

/// Reads the head of a packet: how long its body is, and its number.
pub fn head(head: [u8; 4]) -> Option<(usize, u8)> {
    let [a, b, c, number] = head;
    let body = u32::from_le_bytes([a, b, c, 0]) as usize;
    (1..=MAX_BODY).contains(&body).then_some((body, number))
}

/// Reads what a server says first.
pub fn greeting(body: &[u8]) -> Option<Greeting> {
    let rest = body.strip_prefix(&[10])?;
    let (version, rest) = until_zero(rest)?;
    let (_thread, rest) = rest.split_at_checked(4)?;
    let (nonce_begin, rest) = rest.split_at_checked(8)?;
    let rest = rest.strip_prefix(&[0])?;
    let (low, rest) = rest.split_first_chunk::<2>()?;
    let (_charset_and_status, rest) = rest.split_at_checked(3)?;
    let (high, rest) = rest.split_first_chunk::<2>()?;
    let able = u32::from(u16::from_le_bytes(*low)) | u32::from(u16::from_le_bytes(*high)) << 16;
    let (&nonce_length, rest) = rest.split_first()?;
    let (_reserved, rest) = rest.split_at_checked(10)?;
    let (nonce_end, rest) = rest.split_at_checked(usize::from(nonce_length).saturating_sub(8).max(13))?;
    let (method, _) = until_zero(rest).unwrap_or((rest, &[]));
    Some(Greeting {
        is_mariadb: version.windows(7).any(|name| name.eq_ignore_ascii_case(b"MariaDB")),
        has_tls: able & TLS != 0,
        is_recent: able & NEEDED == NEEDED,
        nonce: [nonce_begin, nonce_end.get(..12)?].concat().try_into().ok()?,
        method: Method::named(method),
    })
}

/// Reads an answer.
pub fn read(body: &[u8]) -> Option<Packet<'_>> {
    let (kind, rest) = body.split_first()?;
    Some(match kind {
        0x00 => {
            let (_rows, rest) = number(rest)?;
            let (_id, rest) = number(rest)?;
            let (status, _) = rest.split_first_chunk()?;
            Packet::Done { backslash_escapes: u16::from_le_bytes(*status) & NO_BACKSLASH_ESCAPES == 0 }
        }
        0x01 => Packet::More(rest),
        // The text beside the number could hold anything, and is not looked at.
        0xff => Packet::Error(u16::from_le_bytes(*rest.first_chunk()?)),
        0xfe if body.len() >= 9 => {
            let (name, rest) = until_zero(rest)?;
            Packet::Switch(Method::named(name).and_then(|method| Some((method, *rest.first_chunk()?))))
        }
        0xfe if rest.is_empty() => Packet::Switch(None),
        _ => Packet::Other(body),
    })
}

/// Reads how many columns an answer has that is a table.
pub fn columns(body: &[u8]) -> Option<usize> {
    let (columns, rest) = number(body)?;
    (rest.is_empty() && (1..=MAX_COLUMNS as u64).contains(&columns)).then_some(columns as usize)
}

/// Tells whether a packet is what columns and rows end with.
pub fn is_end(body: &[u8]) -> bool {
    body.first() == Some(&0xfe) && body.len() < 9
}

/// Reads a row of texts.
pub fn row(mut body: &[u8], columns: usize) -> Option<Vec<Option<&[u8]>>> {
    let mut row = Vec::with_capacity(columns.min(MAX_COLUMNS));
    for _ in 0..columns {
        if let Some(rest) = body.strip_prefix(&[0xfb]) {
            body = rest;
            row.push(None);
            continue;
        }
        let (length, rest) = number(body)?;
        let column;
        (column, body) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        row.push(Some(column));
    }
    body.is_empty().then_some(row)
}

/// Reads a number of the length that it tells of itself.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let length = match first {
        0..=0xfa => return Some((u64::from(*first), rest)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(length)?;
    let mut wide = [0; 8];
    wide[..length].copy_from_slice(digits);
    Some((u64::from_le_bytes(wide), rest))
}

fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn packet(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
    let [a, b, c, _] = length.to_le_bytes();
    // With room for all of it there is one copy, which its owner can wipe.
    let mut packet = Vec::with_capacity(4 + length as usize);
    packet.extend_from_slice(&[a, b, c, number]);
    parts.iter().for_each(|part| packet.extend_from_slice(part));
    packet
}

/// Begins a login, or says that it will go on in TLS.
fn begin(database: Option<&str>, tls: bool) -> [u8; 32] {
    let mut able = NEEDED | TRANSACTIONS;
    able |= if database.is_some() { CONNECT_WITH_DATABASE } else { 0 };
    able |= if tls { TLS } else { 0 };
    let mut begin = [0; 32];
    begin[..4].copy_from_slice(&able.to_le_bytes());
    begin[4..8].copy_from_slice(&(MAX_BODY as u32).to_le_bytes());
    begin[8] = UTF8MB4;
    begin
}

/// Asks for TLS.
pub fn tls_request(number: u8, database: Option<&str>) -> Vec<u8> {
    packet(number, &[&begin(database, true)])
}

/// A login.
pub struct Hello<'h> {
    /// The account.
    pub user: &'h str,
    /// The database to begin in.
    pub database: Option<&'h str>,
    /// Whether it goes over TLS.
    pub tls: bool,
    /// How the password is shown.
    pub method: Method,
    /// What shows it: 20 or 32 bytes.
    pub proof: &'h [u8],
}

/// Logs in.
pub fn hello(number: u8, hello: &Hello<'_>) -> Vec<u8> {
    let database: &[&[u8]] = match hello.database {
        Some(name) => &[name.as_bytes(), &[0]],
        None => &[],
    };
    packet(
        number,
        &[
            &begin(hello.database, hello.tls),
            hello.user.as_bytes(),
            &[0, hello.proof.len() as u8],
            hello.proof,
            &database.concat(),
            hello.method.to_string().as_bytes(),
            &[0],
        ],
    )
}

/// Goes on with a method.
pub fn more(number: u8, bytes: &[u8]) -> Vec<u8> {
    packet(number, &[bytes])
}

/// A statement.
pub fn query(sql: &str) -> Vec<u8> {
    packet(0, &[&[3], sql.as_bytes()])
}

/// Takes leave.
pub fn quit() -> Vec<u8> {
    packet(0, &[&[1]])
}

#[cfg(test)]
mod tests;
