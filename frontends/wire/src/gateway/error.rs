//! Refusals of the gateway: the codes and statuses that it documents, in its `Error` message.

use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::RequestId;
use prost::Message;

use super::messages;

/// Returns the code and the HTTP status of a kind of error.
pub fn code_and_status(kind: ErrorKind) -> (&'static str, u16) {
    use ErrorKind::*;
    match kind {
        OperationNotFound => ("InvalidApiName", 400),
        UnsupportedVersion => ("InvalidApiVersion", 400),
        // Whether there is such a client key is nobody's business who cannot sign with it.
        AccessKeyUnknown | AccessKeyInactive | SignatureMismatch => ("SignatureNotMatch", 401),
        TimestampExpired => ("RequestTimeTooSkewed", 400),
        MalformedRequest | IncompleteSignature | TimestampInvalid | UnsupportedAuthentication => {
            ("InvalidParam", 400)
        }
        // The one of the three that the SDKs wait and try again for.
        OverQuota | LoginThrottled => (Busy.code(), 429),
        other => (other.code(), crate::error::status(other)),
    }
}

/// Returns the HTTP status of a refusal, and its body.
pub fn encode(error: &Error, request_id: RequestId) -> (u16, Vec<u8>) {
    let (code, status) = code_and_status(error.kind());
    let message = match error.kind() {
        ErrorKind::AccessKeyUnknown | ErrorKind::AccessKeyInactive | ErrorKind::SignatureMismatch => {
            "the signature does not match the request"
        }
        _ => error.message(),
    };
    let body = messages::Error {
        status_code: i32::from(status),
        error_code: code.to_owned(),
        error_message: message.to_owned(),
        request_id: request_id.to_string(),
    };
    (status, body.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::error::ErrorClass;

    #[test]
    fn an_unknown_client_key_and_a_wrong_signature_are_told_alike() {
        let id = RequestId::from_bytes([7; 16]);
        let told = |kind, message: &'static str| encode(&Error::new(kind, message), id);
        let unknown = told(ErrorKind::AccessKeyUnknown, "the access key id is not found");
        assert_eq!(unknown, told(ErrorKind::SignatureMismatch, "the signature does not match the request"));
        assert_eq!(unknown, told(ErrorKind::AccessKeyInactive, "the access key is inactive"));
        let error = messages::Error::decode(&*unknown.1).unwrap();
        assert_eq!((error.status_code, &*error.error_code), (401, "SignatureNotMatch"));
        assert_eq!(error.request_id, id.to_string());
    }

    #[test]
    fn documented_codes_have_their_statuses() {
        for (kind, code, status) in [
            (ErrorKind::OperationNotFound, "InvalidApiName", 400),
            (ErrorKind::UnsupportedVersion, "InvalidApiVersion", 400),
            (ErrorKind::MalformedRequest, "InvalidParam", 400),
            (ErrorKind::InvalidParameter, "InvalidParameter", 400),
            (ErrorKind::InvalidCiphertext, "InvalidParameter", 400),
            (ErrorKind::MissingParameter, "MissingParameter", 400),
            (ErrorKind::Unsupported, "UnsupportedOperation", 400),
            (ErrorKind::TimestampExpired, "RequestTimeTooSkewed", 400),
            (ErrorKind::Denied, "Forbidden.NoPermission", 403),
            (ErrorKind::KeyNotFound, "Forbidden.KeyNotFound", 404),
            (ErrorKind::KeyDisabled, "Rejected.Disabled", 409),
            (ErrorKind::BodyTooLarge, "Rejected.BodyTooLarge", 413),
            (ErrorKind::Busy, "Rejected.Throttling", 429),
            (ErrorKind::OverQuota, "Rejected.Throttling", 429),
            (ErrorKind::LoginThrottled, "Rejected.Throttling", 429),
        ] {
            assert_eq!(code_and_status(kind), (code, status), "{kind:?}");
        }
    }

    #[test]
    fn every_kind_is_a_refusal_and_kinds_of_one_code_share_a_status() {
        for a in ErrorKind::ALL {
            let (code, status) = code_and_status(a);
            assert!((400..600).contains(&status), "{a:?}");
            assert!(a.class() != ErrorClass::Unauthenticated || status <= 401, "{a:?}");
            for b in ErrorKind::ALL {
                let (other, other_status) = code_and_status(b);
                assert!(code != other || status == other_status, "{a:?} and {b:?}");
            }
        }
    }
}
