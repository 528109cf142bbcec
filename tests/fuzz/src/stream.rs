//! A connection's bytes, as server and client see them: however they are cut into reads, the same frames come out, every
//! request or fault has an answer, and the client reads from it what the server said.

use keymill_core::id::RequestId;
use keymill_core::operation::Operation;
use keymill_core::{Error, ErrorKind};
use keymill_wire::answer::{check_answer, decode_error};
use keymill_wire::error::status;
use keymill_wire::frame::{self, Fault, LENGTH_BYTES};
use keymill_wire::{request, response};

use crate::memory::{room, within};
use crate::target::Seed;

/// A limit that an input of a few kilobytes can meet.
const MAX_FRAME: usize = 1024;

/// Feeds the stream at once and in reads of the length that the first byte gives.
pub(crate) fn check(bytes: &[u8]) {
    let Some((read, stream)) = bytes.split_first() else { return };
    let at_once = serve([stream]);
    let in_reads = serve(stream.chunks(usize::from(*read).max(1)));
    assert_eq!(format!("{in_reads:?}"), format!("{at_once:?}"));
    for (id, error) in &at_once {
        reads_as_said(*id, error.as_ref());
    }
}

/// What is said of each frame: the id, and what is wrong. A fault has id 0 and is the last.
type Said = Vec<(u64, Option<Error>)>;

fn serve<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Said {
    let mut said = Vec::new();
    let mut unread: Vec<u8> = Vec::new();
    for read in reads {
        unread.extend_from_slice(read);
        let mut at = 0;
        while let Some(prefix) = unread[at..].first_chunk::<LENGTH_BYTES>() {
            let length = match frame::length(*prefix, MAX_FRAME) {
                Ok(length) => length,
                Err(fault) => return end(said, fault),
            };
            let Some(frame) = unread[at + LENGTH_BYTES..].get(..length) else { break };
            match within(room(length), || answer(frame)) {
                Ok(one) => said.push(one),
                Err(fault) => return end(said, fault),
            }
            at += LENGTH_BYTES + length;
        }
        unread.drain(..at);
    }
    said
}

fn end(mut said: Said, fault: Fault) -> Said {
    said.push((0, Some(fault.into())));
    said
}

fn answer(frame: &[u8]) -> Result<(u64, Option<Error>), Fault> {
    let shape = frame::check(frame)?;
    let outcome = match Operation::by_name(shape.operation) {
        Some(operation) => shape.decode(operation).map(|_| ()),
        None => Err(Error::new(ErrorKind::OperationNotFound, "no operation of this name")),
    };
    Ok((shape.id, outcome.err()))
}

fn reads_as_said(id: u64, error: Option<&Error>) {
    let Some(error) = error else { return };
    let mut out = Vec::new();
    response::encode_error(id, error, RequestId::from_bytes([1; 16]), &mut out);
    let length = frame::length(*out.first_chunk().expect("a frame has a length"), MAX_FRAME * 4);
    assert_eq!(length, Ok(out.len() - LENGTH_BYTES));
    let answer = check_answer(&out[LENGTH_BYTES..]).expect("it was written here");
    assert_eq!((answer.id, answer.status), (id, status(error.kind())));
    let body = decode_error(answer.body).expect("it was written here");
    assert_eq!((&*body.code, &*body.message), (error.kind().code(), error.message()));
}

/// Returns streams of good requests, and one with each kind of trouble.
pub(crate) fn seeds() -> Vec<Seed> {
    let body = |text: &str, operation, id| {
        let request = request::decode_json(operation, text.as_bytes()).expect("the seed is a request");
        let mut out = Vec::new();
        request::encode_request(id, &request, &mut out).expect("the seed is a request");
        out
    };
    let limits = body("{}", Operation::DescribeLimits, 1);
    let encrypt = body(r#"{"KeyId":"alias/a","Plaintext":"AQID"}"#, Operation::Encrypt, 2);
    let missing = b"\0\0\0\x0b\x93\x01\xa7Encrypt\x80";
    vec![
        ("two", [&[3], &limits[..], &encrypt[..]].concat()),
        ("missing", [&[1], &missing[..], &limits[..]].concat()),
        ("empty", [&[200], &limits[..], &[0; 4]].concat()),
        ("long", [&[7], &limits[..], &[0, 0, 4, 1]].concat()),
        ("cut", [&[7], &encrypt[..encrypt.len() - 1]].concat()),
    ]
}
