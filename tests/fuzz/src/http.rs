//! The bytes of an HTTP connection on their way to the parser: what passes is untouched, but for a long query that becomes a header, and
//! can be read in one way only, however it is cut into reads. The file is taken in by its path, since the crate has no use for it outside.

#[path = "../../../frontends/http/src/stream.rs"]
#[allow(dead_code, reason = "nothing is written here")]
mod stream;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use crate::target::Seed;
use stream::Stream;

/// Bytes of a request line whose query becomes a header; few, so that inputs reach it.
const LONG_LINE_BYTES: usize = 48;

/// Takes the stream at once and in reads of the length that the first byte gives.
pub(crate) fn check(bytes: &[u8]) {
    let Some((read, sent)) = bytes.split_first() else { return };
    let given = through(sent, sent.len().max(1));
    assert_eq!(through(sent, usize::from(*read).max(1)), given);
    let came = undone(&given);
    match sent.strip_prefix(&came[..]) {
        Some(held) => assert!(
            !held.contains(&b'\n'),
            "what is sound passes whole, but for a request line without its end"
        ),
        None => {
            let (poison, passed) = came.split_last().expect("something differs");
            assert_eq!(*poison, 0);
            assert!(sent.starts_with(passed));
        }
    }
    reads_in_one_way(&given);
}

/// Puts queries back that became headers; such a header comes from nowhere else.
fn undone(given: &[u8]) -> Vec<u8> {
    let mut came = Vec::with_capacity(given.len());
    let mut rest = given;
    loop {
        let end = end_of_head(rest);
        let mut lines: Vec<&[u8]> =
            rest[..end.unwrap_or(rest.len())].split_inclusive(|byte| *byte == b'\n').collect();
        let first = lines.iter().position(|line| *line != b"\r\n").unwrap_or(0);
        let query = lines.get(first + 1).and_then(|line| line.strip_prefix(b"x-keymill-query: "));
        let put_back = query.and_then(|query| {
            let (method, version) = split_once(lines[first], b" / ")?;
            Some([method, b" /?", query.strip_suffix(b"\r\n")?, b" ", version].concat())
        });
        if let Some(line) = &put_back {
            lines.remove(first + 1);
            lines[first] = line;
        }
        lines.iter().for_each(|line| came.extend_from_slice(line));
        let Some(end) = end else { return came };
        let body = match body_of(&rest[..end]) {
            Some(length) => length.min(rest.len() - end),
            None => rest.len() - end,
        };
        came.extend_from_slice(&rest[end..end + body]);
        rest = &rest[end + body..];
    }
}

fn split_once<'b>(bytes: &'b [u8], by: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(by.len()).position(|window| window == by)?;
    Some((&bytes[..at], &bytes[at + by.len()..]))
}

/// Returns what the parser is given, up to the poison.
fn through(sent: &[u8], read: usize) -> Vec<u8> {
    let hour = Duration::from_secs(3600);
    let mut stream = Stream::new(Pieces { rest: sent, read }, hour, hour, LONG_LINE_BYTES);
    let mut context = Context::from_waker(Waker::noop());
    let mut given = Vec::new();
    let mut room = vec![0; read];
    loop {
        let mut buffer = ReadBuf::new(&mut room);
        match Pin::new(&mut stream).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) => given.extend_from_slice(buffer.filled()),
            other => panic!("a reader that is always ready gave {other:?}"),
        }
        let may_be_poison = buffer.filled().last() == Some(&0);
        if buffer.filled().is_empty() || may_be_poison && !sent.starts_with(&undone(&given)) {
            return given;
        }
    }
}

/// Follows heads and bodies again: lines end in CRLF, and a body has one length or is in chunks.
fn reads_in_one_way(given: &[u8]) {
    let mut rest = given;
    while let Some(end) = end_of_head(rest) {
        let Some(length) = body_of(&rest[..end]) else { return };
        rest = &rest[end..];
        rest = &rest[length.min(rest.len())..];
    }
}

/// Returns the length of the body behind a head; `None` where it is in chunks.
fn body_of(head: &[u8]) -> Option<usize> {
    let mut lengths = Vec::new();
    let mut chunks = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n"), "a line ends in LF alone");
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        match &*line[..colon].to_ascii_lowercase() {
            b"content-length" => lengths.push(line[colon + 1..].trim_ascii()),
            b"transfer-encoding" => chunks += 1,
            _ => {}
        }
    }
    assert!(lengths.len() + chunks <= 1, "a body has two lengths");
    let digits = lengths.first().copied().unwrap_or(b"0");
    assert!(digits.iter().all(u8::is_ascii_digit));
    let length = std::str::from_utf8(digits).expect("digits are ASCII").parse().expect("it is a number");
    (chunks == 0).then_some(length)
}

/// Returns where the first head ends that has a line and an empty line behind it.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut lines = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        match line {
            b"\r\n" if lines > 0 => return Some(at),
            b"\r\n" => {}
            _ if line.ends_with(b"\n") => lines += 1,
            _ => return None,
        }
    }
    None
}

/// A socket whose reads are of one length and never wait.
struct Pieces<'b> {
    rest: &'b [u8],
    read: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (piece, rest) = self.rest.split_at(self.read.min(self.rest.len()));
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// Returns connections that are sound, and one of each trick.
pub(crate) fn seeds() -> Vec<Seed> {
    let post = "\r\nPOST /v1/Encrypt HTTP/1.1\r\nHost: a\r\nContent-Length:  7 \r\n\r\na\nb\r\nc\n";
    let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    vec![
        ("two", format!("\u{3}{post}GET / HTTP/1.1\r\nhost: a\r\n\r\n{chunked}").into()),
        (
            "lengths",
            format!("\u{1}{post}POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx").into(),
        ),
        ("both", "\u{7}POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx".into()),
        ("bare", "\u{7}POST / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n".into()),
        (
            "query",
            format!("\u{5}POST /?a=b&c=ddddddddddddddddddddddddddddddddddd HTTP/1.1\r\nContent-Length: 1\r\n\r\nx{post}").into(),
        ),
        ("sign", "\u{7}POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\nx".into()),
    ]
}
