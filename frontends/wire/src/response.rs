//! Responses as frames, as MessagePack bodies and as JSON bodies, from the reply types of core.

use keymill_core::Error;
use keymill_core::id::RequestId;
use keymill_core::operation::Reply;
use serde::Serialize;

use crate::error::{ErrorBody, status};
use crate::frame::{Fault, LENGTH_BYTES};

/// Appends the frame `[id, 0, {result}]`, with its length.
pub fn encode_reply(id: u64, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let start = begin(id, 0, out);
    encode_body(reply, out);
    close(start, out);
}

/// Appends the frame `[id, status, error]`, with its length.
pub fn encode_error(id: u64, error: &Error, request_id: RequestId, out: &mut Vec<u8>) {
    let start = begin(id, status(error.kind()), out);
    encode_error_body(error, request_id, out);
    close(start, out);
}

/// Appends the error frame of id 0 that comes before the close of a connection.
pub fn encode_fault(fault: Fault, request_id: RequestId, out: &mut Vec<u8>) {
    encode_error(0, &fault.into(), request_id, out);
}

/// Appends a reply alone, as MessagePack.
pub fn encode_body(reply: &Reply<'_>, out: &mut Vec<u8>) {
    named(reply, out);
}

/// Appends an error alone, as MessagePack.
pub fn encode_error_body(error: &Error, request_id: RequestId, out: &mut Vec<u8>) {
    named(&ErrorBody::new(error, request_id), out);
}

/// Returns a reply as JSON.
pub fn json_reply(reply: &Reply<'_>) -> Vec<u8> {
    // Most replies fit: one item of a few KiB, in base64.
    let mut out = Vec::with_capacity(2048);
    serde_json::to_writer(&mut out, reply).expect("replies hold nothing without a JSON form");
    out
}

/// Returns an error as JSON.
pub fn json_error(error: &Error, request_id: RequestId) -> Vec<u8> {
    serde_json::to_vec(&ErrorBody::new(error, request_id)).expect("an error is text, numbers and a boolean")
}

/// Appends a value whose structs are maps by name.
pub(crate) fn named<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    value
        .serialize(&mut rmp_serde::Serializer::new(out).with_struct_map())
        .expect("our own types have lengths that are known, and a vector grows");
}

/// Appends everything of an answer that stands before its body, and returns where its frame starts.
pub(crate) fn begin(id: u64, status: u16, out: &mut Vec<u8>) -> usize {
    let start = open(out);
    out.push(0x93);
    uint(id, out);
    uint(u64::from(status), out);
    start
}

/// Leaves room for the length of a frame, and returns where the frame starts.
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    out.extend([0; LENGTH_BYTES]);
    out.len() - LENGTH_BYTES
}

/// Writes the length of the frame that starts at `start` and ends here.
pub(crate) fn close(start: usize, out: &mut [u8]) {
    let length = u32::try_from(out.len() - start - LENGTH_BYTES).expect("a frame is below 4 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Appends an unsigned integer in its shortest form.
pub(crate) fn uint(value: u64, out: &mut Vec<u8>) {
    rmp::encode::write_uint(out, value).expect("a vector grows");
}
