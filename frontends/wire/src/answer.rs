//! Answers as a client reads them: the frame's parts, then the reply or the error in it. Fields that this version does not
//! know are passed over, so that an older client can talk to a newer server.

use keymill_core::operation::{Operation, Reply};
use keymill_core::{Error, ErrorKind, Result};

use crate::error::ErrorBody;
use crate::frame::{self, Fault};

/// An answer, as far as its structure tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerShape<'a> {
    /// The id of the request; 0 before the welcome and before a close.
    pub id: u64,
    /// 0, or the HTTP status of the error.
    pub status: u16,
    /// The result or the error: one MessagePack map.
    pub body: &'a [u8],
}

/// Checks that `frame`, without its length, is one answer.
///
/// # Errors
/// What makes the connection useless.
pub fn check_answer(frame: &[u8]) -> Result<AnswerShape<'_>, Fault> {
    let (id, status, body) = frame::numbered(frame)?;
    let status = u16::try_from(status).map_err(|_| Fault::NotAnAnswer)?;
    Ok(AnswerShape { id, status, body })
}

/// Reads the result of `operation`; byte fields are borrowed.
///
/// # Errors
/// `MalformedRequest` for a result that is not of the operation's form.
pub fn decode_reply(operation: Operation, body: &[u8]) -> Result<Reply<'_>> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(body);
    Reply::deserialize(operation, &mut decoder).map_err(|error| malformed("reply", error))
}

/// Reads the body of an error.
///
/// # Errors
/// `MalformedRequest` for anything else.
pub fn decode_error(body: &[u8]) -> Result<ErrorBody> {
    rmp_serde::from_slice(body).map_err(|error| malformed("error", error))
}

/// Reads the result of `operation` from a JSON body.
///
/// # Errors
/// `MalformedRequest` for a result that is not of the operation's form.
pub fn decode_json_reply(operation: Operation, body: &[u8]) -> Result<Reply<'_>> {
    let mut decoder = serde_json::Deserializer::from_slice(body);
    let reply = Reply::deserialize(operation, &mut decoder).map_err(|error| malformed("reply", error))?;
    decoder.end().map_err(|error| malformed("reply", error))?;
    Ok(reply)
}

/// Reads the JSON body of an error.
///
/// # Errors
/// `MalformedRequest` for anything else.
pub fn decode_json_error(body: &[u8]) -> Result<ErrorBody> {
    serde_json::from_slice(body).map_err(|error| malformed("error", error))
}

// The decoder's own message may quote a value, which may be a plaintext.
fn malformed(what: &str, _: impl std::error::Error) -> Error {
    Error::new(ErrorKind::MalformedRequest, format!("the {what} of the server is not of its form"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::{encode_error, encode_fault, encode_reply};
    use keymill_core::id::{CmkId, KeyVersionId, RequestId};
    use keymill_core::operation::{Bin, EncryptReply};

    const REQUEST: RequestId = RequestId::from_bytes([1; 16]);

    #[test]
    fn a_reply_comes_back_and_borrows_its_bytes() {
        let reply = EncryptReply {
            ciphertext_blob: Bin::from(&b"blob"[..]),
            key_id: CmkId::from_bytes([7; 16]),
            key_version_id: KeyVersionId::from_bytes([9; 16]),
            request_id: REQUEST,
        };
        let mut out = Vec::new();
        encode_reply(12, &Reply::Encrypt(reply), &mut out);
        assert_eq!(frame::length(out[..4].try_into().unwrap(), out.len()), Ok(out.len() - 4));
        let answer = check_answer(&out[4..]).unwrap();
        assert_eq!((answer.id, answer.status), (12, 0));
        let Reply::Encrypt(back) = decode_reply(Operation::Encrypt, answer.body).unwrap() else { panic!() };
        assert_eq!(back.request_id, REQUEST);
        assert!(out.as_ptr_range().contains(&back.ciphertext_blob.as_ptr()));
    }

    #[test]
    fn an_error_comes_back_with_its_status() {
        let mut out = Vec::new();
        encode_error(12, &Error::new(ErrorKind::Busy, "full").retry_after_ms(5), REQUEST, &mut out);
        let answer = check_answer(&out[4..]).unwrap();
        assert_eq!((answer.id, answer.status), (12, 429));
        let body = decode_error(answer.body).unwrap();
        assert_eq!(
            (&body.code[..], body.retryable, body.retry_after_ms),
            ("Rejected.Throttling", true, Some(5))
        );
    }

    #[test]
    fn a_fault_has_id_0() {
        let mut out = Vec::new();
        encode_fault(Fault::TooDeep, REQUEST, &mut out);
        let answer = check_answer(&out[4..]).unwrap();
        assert_eq!((answer.id, answer.status), (0, 400));
        let body = decode_error(answer.body).unwrap();
        assert_eq!(body.message, "the value is nested deeper than 16");
    }

    #[test]
    fn what_is_not_an_answer_is_refused() {
        for frame in
            [&b"\x93\x01\xa1a\x80"[..], b"\x93\x01\xce\0\x01\0\0\x80", b"\x93\x01\0\x90", b"\x92\x01\0"]
        {
            assert_eq!(check_answer(frame), Err(Fault::NotAnAnswer), "{frame:x?}");
        }
    }
}
