//! Envelopes as a whole, at the sizes where segments end; single segments are tried in `stream`.

use std::io::{self, Cursor};
use std::sync::Arc;

use super::*;
use crate::client::{Client, Config};
use crate::fake::{self, SECRET, Session};
use crate::fake_keys::{FakeKeys, KEY};
use crate::wait;
use keymill_core::operation::{DecryptReply, GenerateDataKeyReply, Operation, Reply, Request};
use keymill_core::{Error, ErrorKind};

/// Bytes of payload in the first segment, and in the next ones.
const FIRST: usize = SEGMENT_BYTES - START_BYTES - stream::TAG_BYTES;
const NEXT: usize = SEGMENT_BYTES - stream::TAG_BYTES;

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("tenant", "a"), ("row", "7")]).unwrap()
}

fn envelope(keys: &FakeKeys) -> Envelope {
    wait(Envelope::generate(keys, KEY, &context())).unwrap()
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn sealed(envelope: &Envelope, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let totals = envelope.seal_stream(payload, &mut out, go_on).unwrap();
    assert_eq!((totals.read, totals.written), (payload.len() as u64, out.len() as u64));
    out
}

/// Opens by both ways, which must agree.
fn opened(keys: &FakeKeys, bytes: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut input = bytes;
    let envelope = wait(Envelope::decrypt(keys, Header::read(&mut input)?))?;
    let at_once = envelope.open(input);
    let mut out = Vec::new();
    let streamed = envelope.open_stream(input, &mut out, go_on);
    match (at_once, streamed) {
        (Ok(at_once), Ok(totals)) => {
            assert!(at_once == out);
            assert_eq!((totals.read, totals.written), (bytes.len() as u64, out.len() as u64));
            Ok(at_once)
        }
        (Err(EnvelopeError::Unopenable), Err(EnvelopeError::Unopenable)) => Err(EnvelopeError::Unopenable),
        (at_once, streamed) => panic!("{:?} and {streamed:?}", at_once.map(|bytes| bytes.len())),
    }
}

#[test]
fn payloads_come_back_at_every_size_around_the_ends_of_segments() {
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    for length in [0, 1, 15, 16, 17, FIRST - 1, FIRST, FIRST + 1, SEGMENT_BYTES, FIRST + NEXT - 1]
        .into_iter()
        .chain([FIRST + NEXT, FIRST + NEXT + 1, FIRST + 9 * NEXT + 5])
    {
        let payload = payload(length);
        let streamed = sealed(&envelope, &payload);
        assert!(opened(&keys, &streamed).unwrap() == payload, "{length}");
        let at_once = envelope.seal(&payload).unwrap();
        assert_eq!(at_once.len(), streamed.len());
        assert_ne!(at_once, streamed, "each has a salt of its own");
        assert!(opened(&keys, &at_once).unwrap() == payload, "{length}");
    }
}

#[test]
fn what_is_cut_moved_or_longer_does_not_open() {
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    let whole = sealed(&envelope, &payload(FIRST + 2 * NEXT + 100));
    let start = envelope.header().as_bytes().len();
    let end = |segment: usize| start + segment * SEGMENT_BYTES;
    let around = |at: usize| [at - 1, at, at + 1];
    let cuts = [start, start + START_BYTES, start + START_BYTES + 16, end(1), end(2), end(3)];
    for cut in cuts.into_iter().flat_map(around).chain([whole.len() - 16, whole.len() - 1, end(2) - 16]) {
        let error = opened(&keys, &whole[..cut]).unwrap_err();
        assert!(matches!(error, EnvelopeError::Unopenable | EnvelopeError::NotAnEnvelope), "{cut}");
        assert!(cut < start || matches!(error, EnvelopeError::Unopenable), "{cut}: {error}");
    }
    let segment = |number: usize| &whole[end(number)..end(number + 1)];
    for parts in [
        vec![&whole[..end(1)], segment(2), segment(1), &whole[end(3)..]],
        vec![&whole[..end(1)], segment(1), segment(1), &whole[end(2)..]],
        vec![&whole[..end(1)], &whole[end(2)..]],
        vec![&whole[..], &[0]],
        vec![&whole[..], &[0; 16]],
        vec![&whole[..], segment(1)],
        vec![&whole[..], &whole[..]],
    ] {
        assert!(matches!(opened(&keys, &parts.concat()), Err(EnvelopeError::Unopenable)));
    }
}

#[test]
fn an_altered_bit_anywhere_in_the_header_does_not_open() {
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    let whole = envelope.seal(b"text").unwrap();
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut altered = whole.clone();
            altered[at] ^= bit;
            let error = opened(&keys, &altered).unwrap_err();
            assert!(matches!(error, EnvelopeError::Unopenable | EnvelopeError::NotAnEnvelope), "{at}");
        }
    }
    // Another header that the same data key opens is another's all the same: its bytes are part of the stream's key.
    let other = wait(Envelope::generate(&keys, KEY, &EncryptionContext::default())).unwrap();
    let swapped = [other.header().as_bytes(), &whole[envelope.header().as_bytes().len()..]].concat();
    assert!(matches!(opened(&keys, &swapped), Err(EnvelopeError::Unopenable)));
}

/// Reads and writes that come in pieces, and fail at some byte.
struct Frail<T> {
    inner: T,
    left: usize,
}

impl<T> Frail<T> {
    fn take(&mut self, length: usize) -> io::Result<usize> {
        match self.left {
            0 => Err(io::Error::other("broken")),
            left => {
                let length = length.min(left).min(100_003);
                self.left -= length;
                Ok(length)
            }
        }
    }
}

impl<T: Read> Read for Frail<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.take(buffer.len())?;
        self.inner.read(&mut buffer[..length])
    }
}

impl<T: Write> Write for Frail<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.take(bytes.len())?;
        self.inner.write(&bytes[..length])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn pieces_and_failures_of_input_and_output_are_told() {
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    let payload = payload(FIRST + 20 * NEXT);
    let frail = |left| Frail { inner: Cursor::new(&payload), left };
    let mut out = Vec::new();
    envelope.seal_stream(frail(usize::MAX), &mut out, go_on).unwrap();
    assert!(opened(&keys, &out).unwrap() == payload);
    for left in [0, 1, FIRST, FIRST + NEXT + 7, payload.len() - 1] {
        let read = envelope.seal_stream(frail(left), io::sink(), go_on).unwrap_err();
        assert!(matches!(read, EnvelopeError::Read(_)), "{left}: {read}");
        let output = Frail { inner: io::sink(), left };
        let written = envelope.seal_stream(&payload[..], output, go_on).unwrap_err();
        assert!(matches!(written, EnvelopeError::Write(_)), "{left}: {written}");
    }
}

#[test]
fn progress_counts_the_input_and_stops_the_work() {
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    let payload = payload(FIRST + 20 * NEXT);
    let mut seen = Vec::new();
    let stop = |at| {
        seen.push(at);
        if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = envelope.seal_stream(&payload[..], io::sink(), stop);
    assert!(matches!(stopped, Err(EnvelopeError::Interrupted)));
    assert_eq!(seen, [FIRST, FIRST + NEXT, FIRST + 2 * NEXT].map(|at| at as u64));
}

#[test]
fn a_file_that_does_not_open_never_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("opened");
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    let mut whole = sealed(&envelope, &payload(FIRST + NEXT + 5));
    *whole.last_mut().unwrap() ^= 1;
    let stream = &whole[envelope.header().as_bytes().len()..];
    let mut output = Output::create(&path, 0o600, false).unwrap();
    assert!(envelope.open_stream(stream, &mut output, go_on).is_err());
    drop(output);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn neither_key_nor_context_shows_in_debug_and_errors() {
    let keys = FakeKeys::default();
    let envelope = envelope(&keys);
    assert_eq!(format!("{envelope:?}"), "Envelope(07070707-0707-0707-0707-070707070707)");
    assert!(!format!("{:?}", envelope.header()).contains("tenant"));
}

/// A data key that came from the server, by the protocol.
#[test]
fn a_client_makes_and_decrypts_data_keys_and_tells_altered_ones_from_a_server_that_is_away() {
    let (address, server) = fake::serve(|listener| {
        let mut session = Session::accept(&listener);
        let id = session
            .with_request(|id, request| {
                let Request::GenerateDataKey(request) = request else { panic!("{request:?}") };
                assert_eq!(request.encryption_context.as_ref(), Some(&context()));
                id
            })
            .unwrap();
        session.reply(
            id,
            &Reply::GenerateDataKey(GenerateDataKeyReply {
                plaintext: vec![3; 32].into(),
                ciphertext_blob: b"edk"[..].into(),
                key_id: KEY,
                key_version_id: fake::VERSION,
                request_id: fake::REQUEST,
            }),
        );
        let id = session
            .with_request(|id, request| {
                let Request::Decrypt(request) = request else { panic!("{request:?}") };
                assert_eq!(&*request.ciphertext_blob, b"edk");
                assert_eq!(request.key_id, Some(keymill_core::id::KeyRef::Id(KEY)));
                assert_eq!(request.encryption_context.as_ref(), Some(&context()));
                id
            })
            .unwrap();
        session.reply(
            id,
            &Reply::Decrypt(DecryptReply {
                plaintext: vec![3; 32].into(),
                key_id: KEY,
                key_version_id: fake::VERSION,
                request_id: fake::REQUEST,
            }),
        );
        for kind in [ErrorKind::InvalidCiphertext, ErrorKind::KeyNotFound, ErrorKind::Denied] {
            let (id, operation) = session.request().unwrap();
            assert_eq!(operation, Operation::Decrypt);
            session.refuse(id, Error::new(kind, "no"));
        }
    });
    let mut config = Config::new(address.to_string(), fake::credentials(SECRET));
    config.connections = 1;
    let client = Arc::new(Client::connect(config).unwrap());
    let envelope = wait(Envelope::generate(&client, KEY, &context())).unwrap();
    let sealed = envelope.seal(b"text").unwrap();
    let decrypt = || wait(Envelope::decrypt(&client, envelope.header().clone()));
    let again = decrypt().unwrap();
    assert_eq!(again.open(&sealed[envelope.header().as_bytes().len()..]).unwrap(), b"text");
    assert!(matches!(decrypt(), Err(EnvelopeError::Unopenable)));
    assert!(matches!(decrypt(), Err(EnvelopeError::Unopenable)));
    assert!(matches!(decrypt(), Err(EnvelopeError::Keys(_))));
    server.join().unwrap();
}
