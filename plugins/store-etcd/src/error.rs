//! Why the store does not open, and what an answer of etcd means: whether a request was carried out, and what to do next. Texts of etcd
//! name no value, so nothing that is stored can reach a log through them.

use std::path::PathBuf;
use std::{fmt, io};

use keymill_core::seam::store::StoreError;
use tonic::{Code, Status};

/// Why the store does not open.
#[derive(Debug)]
pub enum OpenError {
    /// An option cannot be meant.
    Config(String),
    /// A file of certificates cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The threads that talk to etcd cannot be started.
    Threads(io::Error),
    /// The etcd is older than 3.4.
    TooOld {
        /// Its version.
        version: String,
    },
    /// A newer keymill has written under the prefix, or another program.
    Foreign {
        /// The prefix.
        prefix: String,
        /// What stands in the place of our format.
        found: String,
    },
    /// The cluster does not answer, or refuses.
    Cluster(StoreError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Config(why) => f.write_str(why),
            OpenError::File { path, why } => write!(f, "{}: {why}", path.display()),
            OpenError::Threads(error) => write!(f, "threads for etcd: {error}"),
            OpenError::TooOld { version } => {
                write!(f, "etcd {version} is too old: 3.4 is the oldest that this program knows")
            }
            OpenError::Foreign { prefix, found } => write!(
                f,
                "what is under {prefix} in etcd has the format {found:?}, which this program does not know: \
                 use the keymill that wrote it, or a newer one, or another prefix"
            ),
            OpenError::Cluster(error) => write!(f, "etcd: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Threads(error) => Some(error),
            OpenError::Cluster(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a request has no good answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It did not leave this process, or was turned away at the door: another member, or later.
    NotDone(String),
    /// It may have been carried out or not, or be carried out yet.
    Lost(String),
    /// It was not carried out: the token is none, or an old one.
    LoggedOut(String),
    /// It was not carried out: the revision is compacted, or yet to come.
    NoSuchRevision,
    /// It was not carried out: there is no such lease.
    NoSuchLease,
    /// It was not carried out: there is such a lease already.
    LeaseExists,
    /// It was carried out, and its answer is larger than is taken here.
    LargeAnswer,
    /// It was not carried out, and will not be.
    Refused(StoreError),
}

impl Fault {
    /// Sorts an answer by what to do next. Whatever is not known to be refused may have been done.
    pub(crate) fn of(status: &Status) -> Self {
        let text = status.message();
        let why = format!("{:?}: {text}", status.code());
        match status.code() {
            Code::Unauthenticated => Fault::LoggedOut(why),
            // A token of before somebody changed a role or user; and none, after the server was started anew.
            Code::InvalidArgument if text.contains("is old") || text.contains("user name is empty") => {
                Fault::LoggedOut(why)
            }
            // So 3.4 says it.
            Code::Unknown if text.contains("revision in header is old") => Fault::LoggedOut(why),
            Code::InvalidArgument if text.contains("too large") || text.contains("too many operations") => {
                Fault::Refused(StoreError::Full(format!(
                    "the commit is larger than etcd takes at once: {text}"
                )))
            }
            Code::OutOfRange if text.contains("compacted") || text.contains("future") => {
                Fault::NoSuchRevision
            }
            Code::OutOfRange if text.contains("decoded message length too large") => Fault::LargeAnswer,
            Code::NotFound if text.contains("lease not found") => Fault::NoSuchLease,
            Code::FailedPrecondition if text.contains("lease already exists") => Fault::LeaseExists,
            Code::ResourceExhausted if text.contains("space exceeded") => {
                Fault::Refused(StoreError::Full(text.to_owned()))
            }
            Code::ResourceExhausted if text.contains("larger than max") => Fault::Refused(StoreError::Full(
                format!("the commit is larger than etcd takes at once: {text}"),
            )),
            Code::ResourceExhausted => Fault::NotDone(why),
            Code::DataLoss => Fault::Refused(StoreError::Corrupt(text.to_owned())),
            Code::InvalidArgument
            | Code::OutOfRange
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unimplemented => Fault::Refused(StoreError::Unavailable(why)),
            _ => Fault::Lost(why),
        }
    }

    /// Says what the engine is to do about it.
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Fault::NotDone(why) | Fault::Lost(why) | Fault::LoggedOut(why) => StoreError::Unavailable(why),
            Fault::NoSuchRevision => StoreError::Compacted,
            Fault::NoSuchLease | Fault::LeaseExists => {
                StoreError::Unavailable("a lease is not as it was left".into())
            }
            Fault::LargeAnswer => StoreError::Unavailable("a record is larger than is read here".into()),
            Fault::Refused(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(code: Code, text: &str) -> Fault {
        Fault::of(&Status::new(code, text))
    }

    #[test]
    fn what_is_not_known_to_be_refused_may_have_been_done() {
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::Unknown,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Aborted,
        ] {
            assert!(matches!(sorted(code, "x"), Fault::Lost(_)), "{code:?}");
        }
    }

    #[test]
    fn answers_are_sorted_by_what_to_do_next() {
        let space = sorted(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(space, Fault::Refused(StoreError::Full(_))));
        let many = sorted(Code::ResourceExhausted, "etcdserver: too many requests");
        assert!(matches!(many, Fault::NotDone(_)));
        let large = sorted(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(matches!(large, Fault::Refused(StoreError::Full(_))));
        let old = sorted(Code::InvalidArgument, "etcdserver: revision of auth store is old");
        assert!(matches!(old, Fault::LoggedOut(_)));
        let token = sorted(Code::Unauthenticated, "etcdserver: invalid auth token");
        assert!(matches!(token, Fault::LoggedOut(_)));
        let compacted = sorted(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(compacted, Fault::NoSuchRevision));
        let denied = sorted(Code::PermissionDenied, "etcdserver: permission denied");
        assert!(matches!(denied, Fault::Refused(StoreError::Unavailable(_))));
    }
}
