//! What becomes of a request that failed: the rule by which it may go to another node, or to the same one again. All of it is pure.

use std::time::Duration;

use keymill_core::ErrorKind;

use crate::error::{ClientError, ServerError};
use crate::pool::Health;

/// A failed try, and how far it came.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: ClientError,
    pub(crate) reached: Reached,
}

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The server cannot have had the whole of it.
    Nothing,
    /// The server may have carried it out.
    Server,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The caller is told.
    Tell,
    /// The caller is told that the outcome is not known.
    TellUnknown,
    /// Another node may do, and this one will not.
    Elsewhere,
    /// Another node may do at once, or any after a wait.
    Again(Duration),
    /// Any node may do after a wait, and none before.
    Later(Duration),
}

impl Failure {
    pub(crate) fn unsent(error: ClientError) -> Self {
        Self { error, reached: Reached::Nothing }
    }

    pub(crate) fn sent(error: ClientError) -> Self {
        Self { error, reached: Reached::Server }
    }

    /// Returns what to do next with a request that may, or may not, be carried out twice.
    pub(crate) fn next(&self, is_idempotent: bool) -> Next {
        let is_free = self.reached == Reached::Nothing || is_idempotent;
        match &self.error {
            ClientError::Io(_) if is_free => Next::Again(Duration::ZERO),
            ClientError::Io(_) => Next::TellUnknown,
            ClientError::Refused(refusal) if !refusal.retryable || !(is_free || refusal.nothing_done) => {
                Next::Tell
            }
            ClientError::Refused(refusal) => {
                let after = Duration::from_millis(refusal.retry_after_ms.unwrap_or(0).into());
                match is_of_the_caller(refusal) {
                    true => Next::Later(after),
                    false => Next::Again(after),
                }
            }
            // A server that is not the one that was meant got nothing, and will be no other later.
            ClientError::Tls(_) | ClientError::Protocol(_) if self.reached == Reached::Nothing => {
                Next::Elsewhere
            }
            ClientError::Tls(_)
            | ClientError::Protocol(_)
            | ClientError::Unsendable(_)
            | ClientError::OutcomeUnknown(_) => Next::Tell,
        }
    }

    /// Returns what it says of the node.
    pub(crate) fn health(&self) -> Health {
        match (&self.error, self.reached) {
            // It takes no connection of ours.
            (ClientError::Refused(refusal), Reached::Nothing) if refusal.retryable => Health::Troubled,
            (error, _) => health(error),
        }
    }
}

/// Returns what an error of an open connection says of its node.
pub(crate) fn health(error: &ClientError) -> Health {
    match error {
        ClientError::Io(_)
        | ClientError::Tls(_)
        | ClientError::Protocol(_)
        | ClientError::OutcomeUnknown(_) => Health::Lost,
        ClientError::Refused(refusal) if refusal.retryable && is_unavailable(&refusal.code) => {
            Health::Troubled
        }
        ClientError::Refused(_) => Health::Well,
        ClientError::Unsendable(_) => Health::Unknown,
    }
}

/// Tells whether a code, also that of an item, says that the node cannot serve: it drains, its view of the store is too old, or a part of it is down.
pub(crate) fn is_unavailable(code: &str) -> bool {
    code == ErrorKind::Unavailable.code()
}

/// Returns how long a node is waited for: half of the time that is left where another may then be asked, which so has as much.
pub(crate) fn patience(left: Duration, may_move: bool) -> Duration {
    match may_move {
        true => left / 2,
        false => left,
    }
}

/// Tells a limit that holds for the caller, wherever it asks, from a queue of one node.
fn is_of_the_caller(refusal: &ServerError) -> bool {
    [ErrorKind::OverQuota, ErrorKind::LoginThrottled].into_iter().any(|kind| kind.code() == refusal.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const NOW: Next = Next::Again(Duration::ZERO);

    fn refused(kind: ErrorKind) -> ServerError {
        ServerError {
            status: kind.status(),
            code: kind.code().to_owned(),
            message: String::new(),
            request_id: String::new(),
            retryable: kind.retryable(),
            retry_after_ms: None,
            nothing_done: false,
        }
    }

    fn lost() -> ClientError {
        io::Error::from(io::ErrorKind::ConnectionReset).into()
    }

    #[test]
    fn what_was_lost_on_the_way_is_repeated_unless_it_may_have_been_done_and_must_not_be_twice() {
        assert_eq!(Failure::unsent(lost()).next(false), NOW);
        assert_eq!(Failure::unsent(lost()).next(true), NOW);
        assert_eq!(Failure::sent(lost()).next(true), NOW);
        assert_eq!(Failure::sent(lost()).next(false), Next::TellUnknown);
    }

    #[test]
    fn each_refusal_goes_where_it_may_be_answered_otherwise() {
        for kind in ErrorKind::ALL {
            let failure = Failure::sent(refused(kind).into());
            let expected = match kind {
                ErrorKind::Busy
                | ErrorKind::Unavailable
                | ErrorKind::StoreUnavailable
                | ErrorKind::AuditUnavailable => NOW,
                ErrorKind::OverQuota | ErrorKind::LoginThrottled => Next::Later(Duration::ZERO),
                _ => Next::Tell,
            };
            assert_eq!(failure.next(true), expected, "{kind:?}");
            assert_eq!(failure.next(false), Next::Tell, "{kind:?}: something may have been done");
        }
    }

    #[test]
    fn a_refusal_that_did_nothing_moves_every_request() {
        let refusal =
            ServerError { nothing_done: true, retry_after_ms: Some(7), ..refused(ErrorKind::Unavailable) };
        let failure = Failure::sent(refusal.into());
        assert_eq!(failure.next(false), Next::Again(Duration::from_millis(7)));
        assert_eq!(failure.health(), Health::Troubled);
    }

    #[test]
    fn a_login_that_is_refused_for_now_moves_and_one_for_good_is_told() {
        let full = Failure::unsent(refused(ErrorKind::Busy).into());
        assert_eq!((full.next(false), full.health()), (NOW, Health::Troubled));
        let unknown = Failure::unsent(refused(ErrorKind::AccessKeyUnknown).into());
        assert_eq!((unknown.next(false), unknown.health()), (Next::Tell, Health::Well));
    }

    #[test]
    fn another_server_than_was_meant_is_left_and_a_broken_answer_is_told() {
        for error in [|| ClientError::Tls("another".into()), || ClientError::Protocol("odd".into())] {
            assert_eq!(Failure::unsent(error()).next(false), Next::Elsewhere);
            assert_eq!(Failure::sent(error()).next(true), Next::Tell);
            assert_eq!(Failure::sent(error()).health(), Health::Lost);
        }
        let long = Failure::unsent(ClientError::Unsendable("too long".into()));
        assert_eq!((long.next(true), long.health()), (Next::Tell, Health::Unknown));
    }

    #[test]
    fn only_a_node_that_cannot_serve_rests() {
        for kind in ErrorKind::ALL {
            let expected = match kind {
                ErrorKind::Unavailable | ErrorKind::StoreUnavailable | ErrorKind::AuditUnavailable => {
                    Health::Troubled
                }
                _ => Health::Well,
            };
            assert_eq!(Failure::sent(refused(kind).into()).health(), expected, "{kind:?}");
        }
    }

    #[test]
    fn half_of_the_time_is_left_for_another_node() {
        let left = Duration::from_secs(12);
        assert_eq!((patience(left, true), patience(left, false)), (left / 2, left));
    }
}
