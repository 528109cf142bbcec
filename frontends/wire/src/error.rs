//! Our own dialect of errors: the HTTP status of each kind and the body that tells it, alike in JSON and MessagePack.

use keymill_core::id::RequestId;
use keymill_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// Returns the HTTP status of an error, which is also the status of its frame.
pub fn status(kind: ErrorKind) -> u16 {
    kind.status()
}

/// The body of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ErrorBody {
    /// The code, for programs.
    pub code: String,
    /// The message, for people.
    pub message: String,
    /// The id of the request, for the log; empty where the request got none.
    pub request_id: String,
    /// Whether the same request may pass later.
    pub retryable: bool,
    /// After how many milliseconds, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// Whether it is certain that nothing was done, so that another node may be asked whatever the request is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nothing_done: bool,
}

impl ErrorBody {
    /// Tells `error` to the caller: kind and message, never the source.
    pub fn new(error: &Error, request_id: RequestId) -> Self {
        Self {
            code: error.kind().code().to_owned(),
            message: error.message().to_owned(),
            request_id: request_id.to_string(),
            retryable: error.kind().retryable(),
            retry_after_ms: error.retry_after(),
            nothing_done: error.is_nothing_done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::error::{ErrorClass, Limit};

    #[test]
    fn every_kind_has_the_status_of_its_class() {
        let limits = Limit::ALL.into_iter().map(ErrorKind::LimitExceeded);
        for kind in ErrorKind::ALL.into_iter().chain(limits) {
            let expected = match kind.class() {
                ErrorClass::Invalid | ErrorClass::Unsupported | ErrorClass::Unauthenticated => {
                    [400, 404, 413]
                }
                ErrorClass::Exists => [400, 409, 409],
                ErrorClass::Denied => [403; 3],
                ErrorClass::NotFound => [404; 3],
                // The cloud answers 403 where an instance is not in the state for something.
                ErrorClass::State => [403, 409, 409],
                ErrorClass::Busy => [429; 3],
                ErrorClass::Unavailable => [503; 3],
                ErrorClass::Deadline => [408; 3],
                ErrorClass::Internal => [500; 3],
            };
            assert!(expected.contains(&status(kind)), "{kind:?} is {}", status(kind));
            assert!(!kind.retryable() || status(kind) >= 429, "{kind:?} is retryable");
        }
    }

    #[test]
    fn kinds_of_one_code_share_a_status() {
        for a in ErrorKind::ALL {
            for b in ErrorKind::ALL {
                assert!(a.code() != b.code() || status(a) == status(b), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn a_body_tells_the_message_and_not_the_source() {
        let error = Error::new(ErrorKind::Busy, "the lane is full").caused_by("queue 7").retry_after_ms(20);
        let body = serde_json::to_string(&ErrorBody::new(&error, RequestId::from_bytes([0; 16]))).unwrap();
        assert_eq!(
            body,
            r#"{"Code":"Rejected.Throttling","Message":"the lane is full","RequestId":"00000000-0000-0000-0000-000000000000","Retryable":true,"RetryAfterMs":20}"#
        );
    }

    #[test]
    fn that_nothing_was_done_is_said_where_it_is_certain_and_read_back() {
        let told = |error: &Error| {
            let text = serde_json::to_string(&ErrorBody::new(error, RequestId::from_bytes([0; 16]))).unwrap();
            (text.contains("NothingDone"), serde_json::from_str::<ErrorBody>(&text).unwrap().nothing_done)
        };
        let stopping = Error::new(ErrorKind::Unavailable, "the server is stopping");
        assert_eq!(told(&stopping), (false, false));
        assert_eq!(told(&stopping.nothing_done()), (true, true));
    }
}
