//! Whose fault a failure is: the item's, the key's, the session's; or unknown, until an operation works whose answer is known.

use keymill_core::seam::provider::JobError;

use crate::module::{Class, Failure};

/// What is done to a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    /// What an item is told that is at fault.
    pub(crate) fn blame(self) -> JobError {
        match self {
            Direction::Encrypt => JobError::Rejected,
            Direction::Decrypt => JobError::InvalidCiphertext,
        }
    }
}

/// What became of one call.
pub(crate) enum Verdict {
    Outcome(Result<(), JobError>),
    /// The item is at fault, or the device: unknown yet.
    Doubtful,
    /// The key is gone from the token.
    KeyGone,
    Lost(Failure),
}

/// Decides whose fault a failure is.
pub(crate) fn judge(direction: Direction, failure: Failure) -> Verdict {
    match failure.class() {
        Class::Data => Verdict::Outcome(Err(direction.blame())),
        Class::Unsupported => Verdict::Outcome(Err(JobError::Rejected)),
        Class::Ambiguous | Class::Other => match failure {
            Failure::Forked { .. } => Verdict::Lost(failure),
            _ => Verdict::Doubtful,
        },
        Class::Object => Verdict::KeyGone,
        // Nothing is done and nothing is blamed: another session may do it.
        Class::SessionGone
        | Class::TokenGone
        | Class::ModuleGone
        | Class::Login
        | Class::Pin
        | Class::Busy
        | Class::Active => Verdict::Lost(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Rv;
    use cryptoki_sys::*;

    fn judged(direction: Direction, code: CK_RV) -> &'static str {
        match judge(direction, Failure::Returned { call: "C_Test", rv: Rv(code) }) {
            Verdict::Outcome(Err(JobError::InvalidCiphertext)) => "forged",
            Verdict::Outcome(Err(JobError::Rejected)) => "rejected",
            Verdict::Outcome(_) => "done",
            Verdict::Doubtful => "doubtful",
            Verdict::KeyGone => "stale",
            Verdict::Lost(_) => "lost",
        }
    }

    #[test]
    fn a_code_blames_what_it_is_about() {
        use Direction::{Decrypt, Encrypt};
        for (direction, code, verdict) in [
            (Decrypt, CKR_ENCRYPTED_DATA_INVALID, "forged"),
            (Decrypt, CKR_AEAD_DECRYPT_FAILED, "forged"),
            (Encrypt, CKR_DATA_LEN_RANGE, "rejected"),
            (Decrypt, CKR_MECHANISM_INVALID, "rejected"),
            (Decrypt, CKR_GENERAL_ERROR, "doubtful"),
            (Decrypt, CKR_DEVICE_ERROR, "doubtful"),
            (Encrypt, CKR_FUNCTION_FAILED, "doubtful"),
            (Decrypt, CKR_VENDOR_DEFINED | 7, "doubtful"),
            (Decrypt, CKR_KEY_HANDLE_INVALID, "stale"),
            (Encrypt, CKR_OBJECT_HANDLE_INVALID, "stale"),
            (Decrypt, CKR_SESSION_HANDLE_INVALID, "lost"),
            (Decrypt, CKR_DEVICE_REMOVED, "lost"),
            (Decrypt, CKR_DEVICE_MEMORY, "lost"),
            (Decrypt, CKR_USER_NOT_LOGGED_IN, "lost"),
            (Decrypt, CKR_CRYPTOKI_NOT_INITIALIZED, "lost"),
        ] {
            assert_eq!(judged(direction, code), verdict, "0x{code:x}");
        }
    }

    #[test]
    fn what_is_no_code_never_blames_an_item() {
        for failure in [
            Failure::Forked { call: "C_Test" },
            Failure::OldHandle { call: "C_Test" },
            Failure::Overlong { call: "C_Test", bytes: 99 },
        ] {
            assert!(matches!(judge(Direction::Decrypt, failure), Verdict::Lost(_)), "{failure}");
        }
    }
}
