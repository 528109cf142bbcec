//! The bytes of an HTTP connection on their way to the parser: what passes is untouched and can be read in one way only,
//! however it is cut into reads. The file is taken in by its path, since the crate has no use for it outside.

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

/// Takes the stream at once and in reads of the length that the first byte gives.
pub(crate) fn check(bytes: &[u8]) {
    let Some((read, sent)) = bytes.split_first() else { return };
    let given = through(sent, sent.len().max(1));
    assert_eq!(through(sent, usize::from(*read).max(1)), given);
    match sent.starts_with(&given) {
        true => assert_eq!(given.len(), sent.len(), "what is sound passes whole"),
        false => {
            let (poison, passed) = given.split_last().expect("something differs");
            assert_eq!(*poison, 0);
            assert!(sent.starts_with(passed));
        }
    }
    reads_in_one_way(&given);
}

/// Returns what the parser is given, up to the poison.
fn through(sent: &[u8], read: usize) -> Vec<u8> {
    let hour = Duration::from_secs(3600);
    let mut stream = Stream::new(Pieces { rest: sent, read }, hour, hour);
    let mut context = Context::from_waker(Waker::noop());
    let mut given = Vec::new();
    let mut room = vec![0; read];
    loop {
        let mut buffer = ReadBuf::new(&mut room);
        match Pin::new(&mut stream).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) => given.extend_from_slice(buffer.filled()),
            other => panic!("a reader that is always ready gave {other:?}"),
        }
        if buffer.filled().is_empty() || !sent.starts_with(&given) {
            return given;
        }
    }
}

/// Follows heads and bodies again: lines end in CRLF, and a body has one length or is in chunks.
fn reads_in_one_way(given: &[u8]) {
    let mut rest = given;
    while let Some(end) = end_of_head(rest) {
        let head = &rest[..end];
        rest = &rest[end..];
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
        if chunks > 0 {
            return;
        }
        let length = lengths.first().map_or(0, |digits| {
            assert!(digits.iter().all(u8::is_ascii_digit));
            std::str::from_utf8(digits).expect("digits are ASCII").parse::<usize>().expect("it is a number")
        });
        rest = &rest[length.min(rest.len())..];
    }
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
        ("sign", "\u{7}POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\nx".into()),
    ]
}
