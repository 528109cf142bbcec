//! Responses as frames, as MessagePack bodies and as JSON bodies, from the reply types of core.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::Error;
use keymill_core::id::{CmkId, KeyVersionId, RequestId};
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
    match reply {
        Reply::Encrypt(r) => {
            json_single("CiphertextBlob", &r.ciphertext_blob, &r.key_id, &r.key_version_id, &r.request_id)
        }
        Reply::Decrypt(r) => {
            json_single("Plaintext", &r.plaintext, &r.key_id, &r.key_version_id, &r.request_id)
        }
        other => serde_json::to_vec(other).expect("replies hold nothing without a JSON form"),
    }
}

/// Writes the reply of a single operation as serde would, but its bytes straight into the answer: serde would look for characters to escape
/// in base64, which has none.
fn json_single(
    name: &str,
    bytes: &[u8],
    key: &CmkId,
    version: &KeyVersionId,
    request: &RequestId,
) -> Vec<u8> {
    const IDS_AND_NAMES: usize = 256;
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4 + IDS_AND_NAMES);
    out.push_str("{\"");
    out.push_str(name);
    out.push_str("\":\"");
    STANDARD.encode_string(bytes, &mut out);
    for (name, id) in
        [("KeyId", key.to_ascii()), ("KeyVersionId", version.to_ascii()), ("RequestId", request.to_ascii())]
    {
        out.push_str("\",\"");
        out.push_str(name);
        out.push_str("\":\"");
        out.push_str(std::str::from_utf8(&id).expect("an id is ASCII"));
    }
    out.push_str("\"}");
    out.into_bytes()
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

#[cfg(test)]
mod tests {
    use keymill_core::operation::{Bin, DecryptReply, EncryptReply};

    use super::*;

    #[test]
    fn a_single_reply_in_json_is_byte_for_byte_what_serde_makes() {
        let key_id = CmkId::from_bytes([7; 16]);
        let key_version_id = KeyVersionId::from_bytes([8; 16]);
        let request_id = RequestId::from_bytes([9; 16]);
        for length in [0, 1, 2, 3, 255, 6144] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37) as u8).collect();
            let (ciphertext_blob, plaintext) = (Bin::from(&bytes[..]), Bin::from(&bytes[..]));
            let replies = [
                Reply::Encrypt(EncryptReply { ciphertext_blob, key_id, key_version_id, request_id }),
                Reply::Decrypt(DecryptReply { plaintext, key_id, key_version_id, request_id }),
            ];
            for reply in replies {
                let ours = String::from_utf8(json_reply(&reply)).unwrap();
                assert_eq!(ours, serde_json::to_string(&reply).unwrap());
            }
        }
    }
}
