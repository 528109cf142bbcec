//! The seam between the pipeline and the server: runs of rows go out ahead of their answers. Tests put a sealer of their own
//! here, which answers late, out of order, or not at all.

use std::fmt;
use std::time::Duration;

use keymill_client::{ClientError, Member, Nodes, ServerError};
use keymill_core::ErrorKind;
use keymill_core::context::EncryptionContext;
use keymill_core::id::KeyRef;
use keymill_core::operation::{
    BatchDecryptRequest, BatchEncryptRequest, BatchReEncryptRequest, Bin, ItemError, Reply, Request,
};

use super::plan::Plan;
use super::rows::Rows;
use super::{Direction, Target};

/// Time that the server may take for a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time without a byte from the server before the connection counts as lost.
const SILENCE: Duration = Duration::from_secs(35);

/// Makes connections; each worker keeps one.
pub(super) trait Connector: Sync {
    /// A connection.
    type Sealer: Sealer;
    /// Connects and logs in.
    fn connect(&self) -> Result<Self::Sealer, SealError>;
    /// Makes a connection to take the place of one that had better be left; nothing where there is no better place after all.
    fn move_from(&self, sealer: &Self::Sealer) -> Option<Self::Sealer>;
}

/// A connection that seals or opens the cells of rows.
pub(super) trait Sealer: Send {
    /// Sends the cells of `rows` and returns a ticket for the answer.
    fn send(&mut self, rows: &Rows) -> Result<u64, SealError>;
    /// Waits for an answer, in whatever order they come. A refusal is of that request alone.
    fn receive(&mut self, results: &mut Results) -> Result<(u64, Result<(), Refusal>), SealError>;
    /// Tells whether another connection had better take its place, once everything is answered.
    fn should_leave(&self) -> bool;
}

/// Why a connection is of no use, or was never made.
#[derive(Clone, Debug)]
pub(super) enum SealError {
    /// It was lost, or could not be made; another may do.
    Lost(String),
    /// The server ended it, or refused the login.
    Refused(Refusal),
    /// The request has no encoding that the server takes; the connection is good.
    Unsendable(String),
    /// The server does not keep to the protocol.
    Broken(String),
}

/// A refusal, and whether the same may pass later.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) passing: bool,
    pub(super) wait: Duration,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::Lost(message) | SealError::Broken(message) => f.write_str(message),
            SealError::Refused(refusal) => f.write_str(&refusal.message),
            SealError::Unsendable(message) => {
                write!(f, "{message} (--batch-bytes and --batch-items make requests smaller)")
            }
        }
    }
}

impl From<ClientError> for SealError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Io(_) | ClientError::OutcomeUnknown(_) => SealError::Lost(message),
            ClientError::Tls(_) | ClientError::Protocol(_) => SealError::Broken(message),
            ClientError::Unsendable(_) => SealError::Unsendable(message),
            ClientError::Refused(error) => SealError::Refused(error.into()),
        }
    }
}

impl From<ServerError> for Refusal {
    fn from(error: ServerError) -> Self {
        Self {
            message: error.to_string(),
            passing: error.retryable || may_pass(&error.code),
            wait: Duration::from_millis(error.retry_after_ms.unwrap_or(0).into()),
        }
    }
}

/// Tells whether what failed with `code` may pass when it is sent again. Nothing that is sealed or opened twice does harm, so
/// that a request whose time ran out may be repeated as well.
pub(super) fn may_pass(code: &str) -> bool {
    ErrorKind::ALL
        .into_iter()
        .filter(|kind| kind.retryable() || *kind == ErrorKind::Deadline)
        .any(|kind| kind.code() == code)
}

/// What the server made of the cells of a run of rows.
#[derive(Debug, Default)]
pub(super) struct Results {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Cells that failed: place among the cells, code, message.
    pub(super) failures: Vec<(usize, String, String)>,
}

impl Results {
    /// Empties it for the next answer.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.failures.clear();
    }

    /// Adds the next result; nothing where it failed.
    pub(super) fn push(&mut self, result: Option<&[u8]>) {
        self.bytes.extend_from_slice(result.unwrap_or_default());
        self.ends.push(self.bytes.len());
    }

    /// Returns how many results there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the results in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.bytes[std::mem::replace(&mut start, *end)..*end])
    }

    fn take(&mut self, items: &[Option<Bin<'_>>], errors: Vec<ItemError>) {
        for item in items {
            self.push(item.as_deref());
        }
        self.failures = errors
            .into_iter()
            .map(|ItemError(index, code, message)| (index as usize, code.into_owned(), message.into_owned()))
            .collect();
        // Never write an empty cell for one that the server neither answered nor refused.
        for (index, _) in items.iter().enumerate().filter(|(_, item)| item.is_none()) {
            if !self.failures.iter().any(|(failed, ..)| *failed == index) {
                let message = "the server gives neither a result nor a reason".to_owned();
                self.failures.push((index, "InternalFailure".to_owned(), message));
            }
        }
    }
}

/// The real server, or the nodes of a cluster.
#[derive(Debug)]
pub(super) struct Server {
    nodes: Nodes,
    what: What,
}

/// What is asked of every run of rows.
#[derive(Clone, Debug)]
struct What {
    direction: Direction,
    key: Option<KeyRef>,
    common: Option<EncryptionContext>,
    per_row: bool,
}

impl Server {
    /// Names the server.
    pub(super) fn new(plan: &Plan, target: Target) -> Self {
        let what = What {
            direction: plan.direction,
            key: plan.key.clone(),
            common: plan.context.common(),
            per_row: plan.context.is_per_row(),
        };
        let mut config = target.tcp.config(target.credentials, plan.connections);
        config.options.read_timeout = SILENCE;
        Self { nodes: Nodes::new(config), what }
    }
}

impl Connector for Server {
    type Sealer = ServerSealer;

    fn connect(&self) -> Result<ServerSealer, SealError> {
        match self.nodes.connect() {
            Ok(member) => Ok(ServerSealer { member, what: self.what.clone() }),
            Err(ClientError::Io(error)) => {
                Err(SealError::Lost(format!("cannot reach {}: {error}", self.nodes.addresses())))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn move_from(&self, sealer: &ServerSealer) -> Option<ServerSealer> {
        let member = self.nodes.move_from(&sealer.member)?;
        Some(ServerSealer { member, what: self.what.clone() })
    }
}

/// A connection to the real server.
#[derive(Debug)]
pub(super) struct ServerSealer {
    member: Member,
    what: What,
}

impl Sealer for ServerSealer {
    fn send(&mut self, rows: &Rows) -> Result<u64, SealError> {
        let items: Vec<_> = rows.items().map(Bin::from).collect();
        let contexts = self.what.per_row.then(|| rows.contexts().cloned().map(Some).collect::<Vec<_>>());
        let common = self.what.common.clone();
        let timeout_ms = Some(TIMEOUT.as_millis() as u64);
        let request: Request<'_> = match (self.what.direction, &self.what.key) {
            (Direction::Encrypt, key) => BatchEncryptRequest {
                key_id: key.clone().expect("the plan of an encryption has a key"),
                items,
                encryption_context: common,
                encryption_contexts: contexts,
                timeout_ms,
            }
            .into(),
            (Direction::ReEncrypt, key) => BatchReEncryptRequest {
                items,
                destination_key_id: key.clone().expect("the plan of a re-encryption has a key"),
                source_encryption_context: common.clone(),
                source_encryption_contexts: contexts.clone(),
                destination_encryption_context: common,
                destination_encryption_contexts: contexts,
                timeout_ms,
            }
            .into(),
            (Direction::Decrypt, key) => BatchDecryptRequest {
                items,
                key_id: key.clone(),
                encryption_context: common,
                encryption_contexts: contexts,
                timeout_ms,
            }
            .into(),
        };
        self.member.connection().send(&request).map_err(|error| self.lost(error))
    }

    fn receive(&mut self, results: &mut Results) -> Result<(u64, Result<(), Refusal>), SealError> {
        results.clear();
        let answer = self.member.connection().receive().map_err(|error| self.lost(error))?;
        match answer.result() {
            Ok(Reply::BatchEncrypt(reply)) => results.take(&reply.items, reply.errors),
            Ok(Reply::BatchDecrypt(reply)) => results.take(&reply.items, reply.errors),
            Ok(Reply::BatchReEncrypt(reply)) => results.take(&reply.items, reply.errors),
            Ok(_) => return Err(SealError::Broken("the answer is of another operation".to_owned())),
            Err(error) => {
                self.member.failed(&error);
                return match error {
                    ClientError::Refused(error) => Ok((answer.id(), Err(error.into()))),
                    error => Err(error.into()),
                };
            }
        }
        match results.failures.iter().find(|(_, code, _)| may_pass(code)) {
            Some((_, code, _)) => self.member.refused_item(code),
            None => self.member.answered(),
        }
        Ok((answer.id(), Ok(())))
    }

    fn should_leave(&self) -> bool {
        self.member.should_leave()
    }
}

impl ServerSealer {
    fn lost(&mut self, error: ClientError) -> SealError {
        self.member.failed(&error);
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_later_is_sent_again() {
        for kind in
            [ErrorKind::Busy, ErrorKind::Unavailable, ErrorKind::Deadline, ErrorKind::StoreUnavailable]
        {
            assert!(may_pass(kind.code()), "{kind:?}");
        }
        for kind in
            [ErrorKind::InvalidCiphertext, ErrorKind::KeyNotFound, ErrorKind::Denied, ErrorKind::KeyDisabled]
        {
            assert!(!may_pass(kind.code()), "{kind:?}");
        }
    }

    #[test]
    fn results_keep_their_order_and_a_missing_one_is_a_failure() {
        let mut results = Results::default();
        let items =
            [Some(Bin::from(&b"ab"[..])), None, Some(Bin::from(&b""[..])), None, Some(Bin::from(&b"c"[..]))];
        results.take(&items, vec![ItemError(1, "Code".into(), "why".into())]);
        assert_eq!(results.iter().collect::<Vec<_>>(), [&b"ab"[..], b"", b"", b"", b"c"]);
        assert_eq!(results.failures.iter().map(|failure| failure.0).collect::<Vec<_>>(), [1, 3]);
        results.clear();
        assert_eq!(results.len(), 0);
    }
}
