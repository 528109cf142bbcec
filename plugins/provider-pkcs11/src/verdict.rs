//! Whose fault a failure is: the item's, the key's, the session's; or unknown, until an operation works whose answer is known.

use keymill_core::seam::provider::JobError;

use crate::module::{Class, Failure};

/// What a job is told that is at fault, and how far a code for bad data is believed.
#[derive(Clone, Copy)]
pub(crate) struct Blame {
    pub(crate) error: JobError,
    certain: bool,
}

impl Blame {
    /// A job that cannot be done as it is.
    pub(crate) const JOB: Blame = Blame { error: JobError::Rejected, certain: true };
    /// A ciphertext that may be forged.
    pub(crate) const CIPHERTEXT: Blame = Blame { error: JobError::InvalidCiphertext, certain: true };
    /// A ciphertext for a private key. Whatever is wrong with it must show alike, in time, too (Manger, CRYPTO 2001): a code for bad
    /// data means no more than any other.
    pub(crate) const PRIVATE: Blame = Blame { error: JobError::InvalidCiphertext, certain: false };
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
pub(crate) fn judge(blame: Blame, failure: Failure) -> Verdict {
    match failure.class() {
        Class::Data if blame.certain => Verdict::Outcome(Err(blame.error)),
        Class::Data => Verdict::Doubtful,
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

    fn judged(blame: Blame, code: CK_RV) -> &'static str {
        match judge(blame, Failure::Returned { call: "C_Test", rv: Rv(code) }) {
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
        for (blame, code, verdict) in [
            (Blame::CIPHERTEXT, CKR_ENCRYPTED_DATA_INVALID, "forged"),
            (Blame::CIPHERTEXT, CKR_AEAD_DECRYPT_FAILED, "forged"),
            (Blame::JOB, CKR_DATA_LEN_RANGE, "rejected"),
            (Blame::CIPHERTEXT, CKR_MECHANISM_INVALID, "rejected"),
            (Blame::JOB, CKR_DATA_LEN_RANGE, "rejected"),
            (Blame::PRIVATE, CKR_ENCRYPTED_DATA_INVALID, "doubtful"),
            (Blame::PRIVATE, CKR_DATA_LEN_RANGE, "doubtful"),
            (Blame::PRIVATE, CKR_GENERAL_ERROR, "doubtful"),
            (Blame::CIPHERTEXT, CKR_GENERAL_ERROR, "doubtful"),
            (Blame::CIPHERTEXT, CKR_DEVICE_ERROR, "doubtful"),
            (Blame::JOB, CKR_FUNCTION_FAILED, "doubtful"),
            (Blame::CIPHERTEXT, CKR_VENDOR_DEFINED | 7, "doubtful"),
            (Blame::CIPHERTEXT, CKR_KEY_HANDLE_INVALID, "stale"),
            (Blame::JOB, CKR_OBJECT_HANDLE_INVALID, "stale"),
            (Blame::CIPHERTEXT, CKR_SESSION_HANDLE_INVALID, "lost"),
            (Blame::CIPHERTEXT, CKR_DEVICE_REMOVED, "lost"),
            (Blame::CIPHERTEXT, CKR_DEVICE_MEMORY, "lost"),
            (Blame::CIPHERTEXT, CKR_USER_NOT_LOGGED_IN, "lost"),
            (Blame::CIPHERTEXT, CKR_CRYPTOKI_NOT_INITIALIZED, "lost"),
        ] {
            assert_eq!(judged(blame, code), verdict, "0x{code:x}");
        }
    }

    #[test]
    fn what_is_no_code_never_blames_an_item() {
        for failure in [
            Failure::Forked { call: "C_Test" },
            Failure::OldHandle { call: "C_Test" },
            Failure::Overlong { call: "C_Test", bytes: 99 },
        ] {
            assert!(matches!(judge(Blame::CIPHERTEXT, failure), Verdict::Lost(_)), "{failure}");
        }
    }
}
