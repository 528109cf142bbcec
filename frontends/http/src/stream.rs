//! The byte stream of a connection, watched on its way to the parser. It refuses what two parsers could read differently
//! (RFC 9112 §11.2), and it ends connections that stall where actix has no clock: within a later head, and in front of answers
//! that nobody reads. A query of `/` that is longer than the parser takes reaches it as a header: SDKs of the cloud put whole parameters
//! there.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use keymill_core::seam::auth::PeerCertificate;
use keymill_listen::Came;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of one line of a head, at most; the parser takes no longer heads.
const MAX_LINE_BYTES: usize = 128 * 1024;
/// The header that a long query becomes. One that comes from outside is refused.
pub(crate) const QUERY: &str = "x-keymill-query";
/// Bytes of a request line that the parser takes as it is; its own limit is 65,534 of the target.
pub(crate) const LONG_LINE_BYTES: usize = 32 * 1024;
/// Stands nowhere in a head, so the parser answers it with 400 and closes.
const POISON: &[u8] = b"\0";

/// A connection as the parser sees it.
pub(crate) struct Stream<S> {
    inner: S,
    peer: Option<Arc<PeerCertificate>>,
    came: Arc<Came>,
    framing: Framing,
    /// What the parser is to be given before more is read.
    given: VecDeque<u8>,
    head_timeout: Duration,
    head_timer: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    write_timer: Option<Pin<Box<Sleep>>>,
    flush_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Stream<S> {
    /// Watches a stream that was just opened; request lines of more than `long_line` bytes are shortened.
    pub(crate) fn new(inner: S, head_timeout: Duration, write_timeout: Duration, long_line: usize) -> Self {
        Self {
            inner,
            peer: None,
            came: Arc::default(),
            framing: Framing { long_line, ..Framing::default() },
            given: VecDeque::new(),
            head_timeout,
            head_timer: None,
            write_timeout,
            write_timer: None,
            flush_timer: None,
        }
    }

    /// Notes who is at the other end.
    pub(crate) fn with_peer(self, peer: Option<Arc<PeerCertificate>>) -> Self {
        Self { peer, ..self }
    }

    /// Notes how it came in.
    pub(crate) fn with_came(self, came: Came) -> Self {
        Self { came: came.into(), ..self }
    }

    /// Returns how it came in.
    pub(crate) fn came(&self) -> &Arc<Came> {
        &self.came
    }

    /// Returns who is at the other end, where a certificate was shown and verified.
    pub(crate) fn peer(&self) -> Option<&Arc<PeerCertificate>> {
        self.peer.as_ref()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.given.is_empty() {
                let (first, _) = this.given.as_slices();
                let count = first.len().min(buffer.remaining());
                buffer.put_slice(&first[..count]);
                this.given.drain(..count);
                if this.given.is_empty() {
                    // Few have a long line, and none keeps its room.
                    this.given = VecDeque::new();
                }
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
            let mut is_held = false;
            if let Poll::Ready(Ok(())) = polled {
                match this.framing.follow(&buffer.filled()[before..]) {
                    Passed::Whole => {}
                    Passed::Until(at) => {
                        buffer.set_filled(before + at);
                        // A read that fails has a byte at the place of the fault, so there is room for one.
                        buffer.put_slice(POISON);
                    }
                    Passed::Changed(bytes) => {
                        buffer.set_filled(before);
                        this.given.extend(bytes);
                        is_held = true;
                    }
                }
            }
            if !this.framing.is_within_later_head() {
                this.head_timer = None;
            } else if polled.is_pending() {
                let timer = this.head_timer.get_or_insert_with(|| Box::pin(sleep(this.head_timeout)));
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            // To read nothing is the end of a stream, which it is not while a line is held.
            if !is_held {
                return polled;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        within(this.write_timeout, &mut this.write_timer, written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Under TLS, what was written may wait here.
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        within(this.write_timeout, &mut this.flush_timer, flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Fails once something has been pending for too long.
fn within<T>(
    patience: Duration,
    timer: &mut Option<Pin<Box<Sleep>>>,
    polled: Poll<io::Result<T>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if polled.is_ready() {
        *timer = None;
        return polled;
    }
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(patience)));
    ready!(timer.as_mut().poll(cx));
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

/// Where in a request the stream is.
#[derive(Default)]
struct Framing {
    place: Place,
    heads: u64,
    head: Head,
    long_line: usize,
}

/// What the parser is given of bytes that came.
enum Passed {
    /// All of them.
    Whole,
    /// Those before this place, and poison.
    Until(usize),
    /// Others: a request line was held back, let go, or shortened.
    Changed(Vec<u8>),
}

#[derive(Default)]
enum Place {
    #[default]
    Head,
    /// So many bytes of a body are to come.
    Body(usize),
    /// Within chunks, which are not followed: the connection closes behind their answer.
    Chunks,
}

/// What was seen of a head.
#[derive(Default)]
struct Head {
    lines: usize,
    content_length: Option<usize>,
    has_chunks: bool,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

impl Framing {
    /// Follows bytes on their way.
    fn follow(&mut self, bytes: &[u8]) -> Passed {
        let mut sink = Sink { bytes, changed: None, upto: 0 };
        let followed = self.follow_into(&mut sink);
        match (followed, sink.changed.is_some()) {
            (Ok(()), false) => Passed::Whole,
            (Ok(()), true) => Passed::Changed(sink.finish(bytes.len())),
            (Err(at), false) => Passed::Until(at),
            (Err(at), true) => {
                let mut changed = sink.finish(at);
                changed.extend_from_slice(POISON);
                Passed::Changed(changed)
            }
        }
    }

    /// Fails with the place of the first byte that must not reach the parser.
    fn follow_into(&mut self, sink: &mut Sink<'_>) -> Result<(), usize> {
        let bytes = sink.bytes;
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.place {
                Place::Chunks => return Ok(()),
                Place::Body(left) => {
                    let here = (*left).min(bytes.len() - at);
                    *left -= here;
                    at += here;
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                }
                Place::Head => {
                    let is_request_line = self.head.lines == 0;
                    let Some(end) = memchr::memchr(b'\n', &bytes[at..]) else {
                        self.head.partial.extend_from_slice(&bytes[at..]);
                        if self.head.partial.len() > MAX_LINE_BYTES {
                            return Err(at);
                        }
                        if is_request_line {
                            // How it is given to the parser is known at its end.
                            sink.replace(at, bytes.len(), &[]);
                        }
                        return Ok(());
                    };
                    let line = &bytes[at..at + end];
                    let held = std::mem::take(&mut self.head.partial);
                    let whole: Cow<'_, [u8]> = match held.is_empty() {
                        true => line.into(),
                        false => [&held[..], line].concat().into(),
                    };
                    let is_end = self.head.line(&whole);
                    if is_request_line {
                        let is_long = whole.len() > self.long_line;
                        match is_long.then(|| shortened(&whole)).flatten() {
                            Some(short) if is_end.is_ok() => sink.replace(at, at + end + 1, &short),
                            // The end of a line that is refused does not go through.
                            _ => sink.replace_held(at, &held),
                        }
                    }
                    if is_end.map_err(|Ambiguous| at + end)? {
                        self.heads += 1;
                        let head = std::mem::take(&mut self.head);
                        self.place = match head.content_length {
                            _ if head.has_chunks => Place::Chunks,
                            None | Some(0) => Place::Head,
                            Some(length) => Place::Body(length),
                        };
                    }
                    at += end + 1;
                }
            }
        }
        Ok(())
    }

    /// Tells whether a head after the first one has begun and not ended; the first is on actix's own clock.
    fn is_within_later_head(&self) -> bool {
        self.heads > 0
            && matches!(self.place, Place::Head)
            && (self.head.lines > 0 || !self.head.partial.is_empty())
    }
}

/// Gathers what the parser is given instead of `bytes`, once something of them is changed.
struct Sink<'b> {
    bytes: &'b [u8],
    changed: Option<Vec<u8>>,
    /// Where what is not dealt with yet begins.
    upto: usize,
}

impl Sink<'_> {
    /// Gives `new` instead of the bytes of a place.
    fn replace(&mut self, from: usize, to: usize, new: &[u8]) {
        let changed = self.changed.get_or_insert_default();
        changed.extend_from_slice(&self.bytes[self.upto..from]);
        changed.extend_from_slice(new);
        self.upto = to;
    }

    /// Gives what was held back before the place where it goes on.
    fn replace_held(&mut self, at: usize, held: &[u8]) {
        if !held.is_empty() {
            self.replace(at, at, held);
        }
    }

    /// Returns all that is given of the bytes before a place.
    fn finish(mut self, to: usize) -> Vec<u8> {
        if to > self.upto {
            self.replace(to, to, &[]);
        }
        self.changed.unwrap_or_default()
    }
}

/// Makes a header of the query of a request line without its LF; `None` where the line is no request for `/` with a query.
fn shortened(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\r")?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let query = target.strip_prefix(b"/?")?;
    // What may stand in a header's value, and is no end of anything.
    let is_graphic = |part: &[u8]| part.iter().all(u8::is_ascii_graphic);
    let is_sound = parts.next().is_none() && [method, query, version].into_iter().all(is_graphic);
    is_sound.then(|| [method, b" / ", version, b"\r\n", QUERY.as_bytes(), b": ", query, b"\r\n"].concat())
}

/// A line that two parsers could read differently, or that is ours to add.
struct Ambiguous;

impl Head {
    /// Takes a line without its LF, and tells whether it ends the head.
    fn line(&mut self, line: &[u8]) -> Result<bool, Ambiguous> {
        let line = line.strip_suffix(b"\r").ok_or(Ambiguous)?;
        if line.is_empty() {
            // RFC 9112 §2.2: an empty line in front of a request is passed over.
            return Ok(self.lines > 0);
        }
        self.lines += 1;
        if value_of(line, QUERY.as_bytes()).is_some() {
            return Err(Ambiguous);
        }
        if let Some(value) = value_of(line, b"content-length") {
            let length = std::str::from_utf8(value.trim_ascii())
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()));
            let length = length.and_then(|text| text.parse().ok()).ok_or(Ambiguous)?;
            if self.content_length.replace(length).is_some() || self.has_chunks {
                return Err(Ambiguous);
            }
        } else if value_of(line, b"transfer-encoding").is_some()
            && (std::mem::replace(&mut self.has_chunks, true) || self.content_length.is_some())
        {
            return Err(Ambiguous);
        }
        Ok(false)
    }
}

/// Returns what stands behind `name:`, for a name in lower case.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    rest.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const STALL: Duration = Duration::from_secs(5);

    /// Feeds `bytes` in pieces and returns what the parser is given.
    fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
        through_with(LONG_LINE_BYTES, bytes, piece)
    }

    fn through_with(long_line: usize, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut framing = Framing { long_line, ..Framing::default() };
        let mut out = Vec::new();
        for chunk in bytes.chunks(piece) {
            match framing.follow(chunk) {
                Passed::Whole => out.extend_from_slice(chunk),
                Passed::Changed(changed) => {
                    out.extend_from_slice(&changed);
                    if changed.ends_with(POISON) {
                        break;
                    }
                }
                Passed::Until(at) => {
                    out.extend_from_slice(&chunk[..at]);
                    out.extend_from_slice(POISON);
                    break;
                }
            }
        }
        out
    }

    #[test]
    fn sound_requests_pass_untouched_however_they_are_cut() {
        let body = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length:  7 \r\n\r\na\nb\r\nc\n";
        let mut all = b"\r\n".to_vec();
        all.extend_from_slice(body);
        all.extend_from_slice(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n\r\n");
        all.extend_from_slice(body);
        all.extend_from_slice(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\nanything");
        for piece in 1..=all.len() {
            assert_eq!(through(&all, piece), all, "in pieces of {piece}");
        }
    }

    // E7
    #[test]
    fn what_two_parsers_could_read_differently_is_poisoned_before_its_head_ends() {
        for head in [
            &b"POST / HTTP/1.1\nhost: a"[..],
            b"POST / HTTP/1.1\r\nhost: a\nx: b",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x1",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999",
            b"POST / HTTP/1.1\r\nhost: a\r\nCONTENT-LENGTH: 1\r\nTransfer-Encoding: chunked",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 1",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity",
            b"POST / HTTP/1.1\r\nhost: a\r\nx: b\r\n\nGET / HTTP/1.1",
            b"POST / HTTP/1.1\r\nhost: a\r\nX-Keymill-Query: a=b",
        ] {
            let all = [head, b"\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n"].concat();
            for piece in 1..=all.len() {
                let given = through(&all, piece);
                assert!(given.ends_with(POISON), "{} in pieces of {piece}", head.escape_ascii());
                assert!(!given.windows(4).any(|end| end == b"\r\n\r\n"), "{}", head.escape_ascii());
            }
        }
    }

    #[test]
    fn a_long_query_becomes_a_header_however_it_is_cut() {
        let rest = "host: a\r\ncontent-length: 3\r\n\r\na\nb";
        let long = format!("POST /?a=%20b&c=d HTTP/1.1\r\n{rest}");
        let short = format!("POST / HTTP/1.1\r\nx-keymill-query: a=%20b&c=d\r\n{rest}");
        let twice = |one: &str, other: &str| [one, "\r\n", other, one].concat().into_bytes();
        let other = "GET /v1/x?aaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nhost: a\r\n\r\n";
        for piece in 1..=long.len() + 30 {
            let given = through_with(20, &twice(&long, other), piece);
            assert_eq!(given, twice(&short, other), "in pieces of {piece}");
        }
        // A bare line end does not go through behind a line that was held.
        for piece in 1..4 {
            assert_eq!(through_with(20, b"GET\n\r\n", piece), b"GET\0", "in pieces of {piece}");
        }
        for kept in [
            "POST /?a=b c&d=eeeeeeeeeeeeeeeee HTTP/1.1\r\n",
            "POST /?\u{e9}aaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n",
            "POST /a?aaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n",
            "POST /?aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
            "POST /?aaa HTTP/1.1\r\n",
        ] {
            assert_eq!(through_with(20, kept.as_bytes(), 7), kept.as_bytes());
        }
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut framing = Framing::default();
        let given: Vec<_> = (0..1000).map(|_| framing.follow(&[b'a'; 1024])).collect();
        let is_poisoned = |passed: &Passed| match passed {
            Passed::Whole => false,
            Passed::Until(_) => true,
            Passed::Changed(bytes) => bytes.ends_with(POISON),
        };
        assert!(given.iter().any(is_poisoned));
        let mut framing = Framing::default();
        let within = given.iter().take_while(|passed| !is_poisoned(passed)).count();
        for _ in 0..within {
            framing.follow(&[b'a'; 1024]);
        }
        assert!(framing.head.partial.len() <= MAX_LINE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_that_stalls_ends_the_connection_and_an_idle_one_does_not() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut stream = Stream::new(near, STALL, STALL, LONG_LINE_BYTES);
        let sound = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        far.write_all(sound).await.unwrap();
        let mut buffer = [0; 1024];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), sound.len());
        assert!(tokio::time::timeout(STALL * 100, stream.read(&mut buffer)).await.is_err(), "it is idle");
        far.write_all(b"GET").await.unwrap();
        let begun = tokio::time::Instant::now();
        // One byte each four seconds does not buy more time.
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.write_all(b"x").await.unwrap();
            }
        };
        let read = async {
            loop {
                if let Err(error) = stream.read(&mut buffer).await {
                    return error;
                }
            }
        };
        let error = tokio::select! { error = read => error, () = drip => unreachable!() };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_below_for_a_flush_ends_the_connection_as_well() {
        let (near, _far) = tokio::io::duplex(16);
        // Takes all at once, as TLS does, and waits with the flush.
        let below = tokio::io::BufWriter::new(near);
        let mut stream = Stream::new(below, STALL, STALL, LONG_LINE_BYTES);
        stream.write_all(&[0; 1024]).await.unwrap();
        let error = stream.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = Stream::new(near, STALL, STALL, LONG_LINE_BYTES);
        let error = stream.write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
