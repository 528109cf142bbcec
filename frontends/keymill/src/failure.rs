//! How a command fails: a sentence for the person, what to do next, and the exit code. Nothing else of the program prints errors.

use std::fmt;
use std::io::{self, Write};
use std::process::{ExitCode, ExitStatus};

use keymill_client::{ClientError, ServerError};

use crate::batch::BatchError;

/// A result whose error is [`Failure`].
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    next: Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    WrongUse,
    /// Whoever read our output went away; there is nobody to tell.
    Unheard,
    /// A process of ours has told it, and ended with this code.
    Told(u8),
}

impl Failure {
    /// Makes the failure of something that was refused or went wrong: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), next: None, kind: Kind::Failed }
    }

    /// Makes the failure of a command that was asked wrongly: exit code 2.
    pub(crate) fn wrong_use(message: impl Into<String>) -> Self {
        Self { message: message.into(), next: None, kind: Kind::WrongUse }
    }

    /// Makes a function that puts what was tried before the reason.
    pub(crate) fn because<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |why| Self::new(format!("{what}: {why}"))
    }

    /// Makes the failure of a command that ran as another process of this program: that one has said why, unless a signal ended it.
    pub(crate) fn told(ended: ExitStatus) -> Self {
        match ended.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => Self { message: String::new(), next: None, kind: Kind::Told(code) },
            None => Self::new(format!("the command was ended: {ended}")),
        }
    }

    /// Makes the failure of writing to standard output.
    pub(crate) fn of_output(error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::Unheard } else { Kind::Failed };
        Self { message: format!("standard output: {error}"), next: None, kind }
    }

    /// Makes the failure of a batch run, which says itself what to do next.
    pub(crate) fn of_batch(error: BatchError) -> Self {
        let kind = if error.exit_code() == 2 { Kind::WrongUse } else { Kind::Failed };
        Self { message: error.to_string(), next: None, kind }
    }

    /// Says what to do next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Tells the person, and returns the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        if !matches!(self.kind, Kind::Unheard | Kind::Told(_)) {
            // Where standard error is gone, too, the exit code still says it.
            let _ = writeln!(io::stderr(), "keymill: {self}");
        }
        match self.kind {
            Kind::Failed => ExitCode::from(1),
            Kind::WrongUse => ExitCode::from(2),
            Kind::Unheard => ExitCode::SUCCESS,
            Kind::Told(code) => ExitCode::from(code),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::of_client(&error)
    }
}

impl Failure {
    /// Makes the failure of a request.
    pub(crate) fn of_client(error: &ClientError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            ClientError::Io(_) => failure.next(
                "start the server with `keymill serve`, or name another with --tcp HOST:PORT or --url http://HOST:PORT; one that speaks TLS is \
                 tls://HOST:PORT or https://HOST:PORT",
            ),
            ClientError::Tls(_) => failure.next(
                "check that the address is one with TLS, that its host is a name in the server's certificate, that --ca names the CA of that, \
                 and whether the server wants a certificate (--client-certificate FILE --client-key FILE)",
            ),
            ClientError::Refused(refusal) => match next_after(refusal) {
                Some(next) => failure.next(next),
                None => failure,
            },
            ClientError::Protocol(_) => {
                failure.next("check that the address is that of a keymill server, of this version")
            }
            ClientError::OutcomeUnknown(_) => {
                failure.next("look whether it was done (`list`, `describe`) before you run this again")
            }
            ClientError::Unsendable(_) => failure,
        }
    }
}

fn next_after(refusal: &ServerError) -> Option<&'static str> {
    match refusal.code.as_str() {
        "SignatureDoesNotMatch" | "InvalidAccessKeyId.NotFound" | "InvalidAccessKeyId.Inactive" => {
            Some("check the access key: `keymill login --help` says where it is looked for")
        }
        "Forbidden.NoPermission" => {
            Some("use an access key whose role allows this, or have its grants changed")
        }
        "Forbidden.KeyNotFound" => Some("`keymill key list` shows the keys that this access key may see"),
        "Forbidden.AliasNotFound" => {
            Some("`keymill alias list` shows the aliases that this access key may see")
        }
        "Forbidden.ResourceNotFound" => Some(
            "`keymill access-key list`, `keymill data-key list`, `keymill aap list`, `keymill ca list` and `keymill instance list` show what is there",
        ),
        "AliasAlreadyExists" => Some("`keymill alias update` lets an alias name another key"),
        "Rejected.Disabled" => Some(
            "`keymill key enable` enables a key again, and `keymill cert activate` a certificate that is INACTIVE",
        ),
        "Certificate.NotFound" => {
            Some("`keymill cert list` shows the certificates that this access key may see")
        }
        "Rejected.PendingDeletion" => Some("`keymill key cancel-deletion` keeps the key"),
        "Rejected.ApprovalNeeded" => Some(
            "have another caller, who has the right to this as well, run `keymill approval approve ID`, and run this again",
        ),
        "InvalidTimeStamp.Expired" => Some("set the clock of this machine right"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = Failure::of_output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(gone.kind, Kind::Unheard);
        assert_eq!(Failure::of_output(io::ErrorKind::StorageFull.into()).kind, Kind::Failed);
    }

    #[test]
    fn the_sentence_comes_first_and_what_to_do_next_below_it() {
        let failure = Failure::wrong_use("no such column: card").next("name one of: id, email");
        assert_eq!(failure.to_string(), "no such column: card\n  next: name one of: id, email");
    }
}
