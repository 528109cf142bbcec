//! Why the store does not open, and what an answer of the server means for the engine. The SQLSTATE decides. Of the texts the primary
//! message alone is passed on: the detail beside it may name values.

use std::fmt;
use std::time::Duration;

use keymill_core::seam::store::StoreError;
use tokio_postgres::Error;

/// Characters of a server's message that are passed on.
const MAX_MESSAGE: usize = 200;

/// Why the store does not open.
#[derive(Debug)]
pub enum OpenError {
    /// Options that do not make sense, or a certificate that cannot be read.
    Options(String),
    /// The server would lose what it acknowledged, or is too old.
    Unfit(String),
    /// A newer keymill has made the schema.
    Newer {
        /// The schema.
        schema: String,
        /// The version of its tables.
        found: i32,
        /// The newest version that is known here.
        known: i32,
    },
    /// The schema belongs to another program.
    Foreign {
        /// The schema.
        schema: String,
    },
    /// The operating system gives no threads.
    Threads(std::io::Error),
    /// The server says no, or does not answer.
    Database(StoreError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Options(why) | OpenError::Unfit(why) => f.write_str(why),
            OpenError::Newer { schema, found, known } => write!(
                f,
                "the schema {schema} has version {found}, and this program knows versions up to {known}: \
                 use the keymill that made it, or a newer one"
            ),
            OpenError::Foreign { schema } => {
                write!(f, "the schema {schema} belongs to another program: choose another name")
            }
            OpenError::Threads(source) => write!(f, "no thread can be started: {source}"),
            OpenError::Database(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Threads(source) => Some(source),
            OpenError::Database(source) => Some(source),
            _ => None,
        }
    }
}

/// Sorts an answer of the server by what to do next.
pub(crate) fn store_error(error: &Error) -> StoreError {
    sorted(error.code().map(|state| state.code()), describe(error))
}

fn sorted(state: Option<&str>, why: String) -> StoreError {
    match state {
        // disk_full
        Some("53100") => StoreError::Full(why),
        // data_corrupted and index_corrupted
        Some("XX001" | "XX002") => StoreError::Corrupt(why),
        // Our statements are fixed: a table, column or schema that is not there, or takes no such value, is not ours any more.
        Some("42P01" | "42703" | "42804" | "3F000") => StoreError::Corrupt(why),
        Some(state) if state.starts_with("23") || state.starts_with("22") => StoreError::Corrupt(why),
        _ => StoreError::Unavailable(why),
    }
}

/// Tells whether the same may go well on another connection, which may lead to another server.
pub(crate) fn is_transient(error: &Error) -> bool {
    // Without a SQLSTATE it is the connection that failed.
    error.code().is_none_or(|state| is_transient_state(state.code()))
}

/// Classes 08 connection, 40 rolled back, 57P shutting down or starting; read_only_sql_transaction after a fail-over, and a transaction that
/// the server ended since we were paused.
fn is_transient_state(state: &str) -> bool {
    matches!(state.get(..2), Some("08" | "40"))
        || state.starts_with("57P")
        || matches!(state, "25006" | "25P02" | "25P03" | "53300")
}

/// Says what went wrong in one line.
pub(crate) fn describe(error: &Error) -> String {
    let Some(refused) = error.as_db_error() else {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            text = format!("{text}: {source}");
        }
        return tidy(&text);
    };
    format!("{} (SQLSTATE {})", tidy(refused.message()), refused.code().code())
}

fn tidy(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Says that time is over.
pub(crate) fn late(timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!("there was no answer within {} ms", timeout.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_server_says_what_to_do_next() {
        let sort = |state| sorted(state, String::new());
        assert!(matches!(sort(Some("53100")), StoreError::Full(_)));
        for damaged in ["XX001", "XX002", "42P01", "42703", "23505", "22021"] {
            assert!(matches!(sort(Some(damaged)), StoreError::Corrupt(_)), "{damaged}");
        }
        for later in ["53200", "53300", "57P01", "57014", "25006", "28P01", "42501", "XX000", "58030"] {
            assert!(matches!(sort(Some(later)), StoreError::Unavailable(_)), "{later}");
        }
        assert!(matches!(sort(None), StoreError::Unavailable(_)));
    }

    #[test]
    fn a_server_that_goes_or_takes_no_writes_is_asked_again_and_one_that_refuses_is_not() {
        for again in ["08006", "40001", "40P01", "57P01", "57P03", "25006", "25P03", "53300"] {
            assert!(is_transient_state(again), "{again}");
        }
        for never in ["53100", "28P01", "42501", "57014", "XX001", "42P01"] {
            assert!(!is_transient_state(never), "{never}");
        }
    }

    #[test]
    fn what_a_server_says_stays_one_short_line() {
        assert_eq!(tidy("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(tidy(&"x".repeat(500)).len(), MAX_MESSAGE);
    }
}
