//! What a call to a module can come back with: the codes of PKCS#11 by name and number, what each asks of us, and the
//! refusals that are ours and never reach the module.

use std::fmt;

use cryptoki_sys::*;
use keymill_core::seam::provider::{Cause, FailureCode};
use serde::{Deserialize, Serialize};

/// A return code of a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rv(pub CK_RV);

/// What a failure asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The session is no more: open another.
    SessionGone,
    /// The token or its device is no more, or is another: connect again, by label.
    TokenGone,
    /// The library is not initialised, or was initialised again since: all handles of before are void.
    ModuleGone,
    /// Nobody is logged in: log in again, once.
    Login,
    /// The PIN is wrong, locked or expired: no further login until an operator acts.
    Pin,
    /// Out of sessions or memory, or busy: give something back, or wait.
    Busy,
    /// The object is no more: load the key again.
    Object,
    /// Another operation of the session is under way: cancel it or replace the session.
    Active,
    /// The data of the call is at fault, for certain.
    Data,
    /// The module cannot do this: never ask again.
    Unsupported,
    /// A code that one module has for bad data and another for a dead device: what it means shows in whether the next
    /// operation works.
    Ambiguous,
    /// Anything else: a fault of the call.
    Other,
}

macro_rules! names {
    ($($name:ident)+) => {
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),+];

        fn name(code: CK_RV) -> Option<&'static str> {
            match code {
                $($name => Some(stringify!($name)),)+
                _ => None,
            }
        }
    };
}

names! {
    CKR_OK CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR CKR_FUNCTION_FAILED CKR_ARGUMENTS_BAD
    CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID
    CKR_ATTRIBUTE_VALUE_INVALID CKR_ACTION_PROHIBITED CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY
    CKR_DEVICE_REMOVED CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE CKR_AEAD_DECRYPT_FAILED CKR_FUNCTION_CANCELED
    CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID CKR_KEY_SIZE_RANGE CKR_KEY_TYPE_INCONSISTENT
    CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_NOT_WRAPPABLE CKR_KEY_UNEXTRACTABLE CKR_MECHANISM_INVALID
    CKR_MECHANISM_PARAM_INVALID CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED
    CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_SESSION_CLOSED CKR_SESSION_COUNT
    CKR_SESSION_HANDLE_INVALID CKR_SESSION_READ_ONLY CKR_SESSION_EXISTS CKR_SESSION_READ_ONLY_EXISTS
    CKR_SESSION_READ_WRITE_SO_EXISTS CKR_SIGNATURE_INVALID CKR_SIGNATURE_LEN_RANGE CKR_TEMPLATE_INCOMPLETE
    CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED
    CKR_UNWRAPPING_KEY_HANDLE_INVALID CKR_UNWRAPPING_KEY_SIZE_RANGE CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT
    CKR_USER_ALREADY_LOGGED_IN CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_TOO_MANY_TYPES CKR_WRAPPED_KEY_INVALID CKR_WRAPPED_KEY_LEN_RANGE
    CKR_WRAPPING_KEY_HANDLE_INVALID CKR_WRAPPING_KEY_SIZE_RANGE CKR_WRAPPING_KEY_TYPE_INCONSISTENT CKR_RANDOM_NO_RNG
    CKR_BUFFER_TOO_SMALL CKR_CRYPTOKI_NOT_INITIALIZED CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_FIPS_SELF_TEST_FAILED
    CKR_FUNCTION_REJECTED CKR_TOKEN_RESOURCE_EXCEEDED CKR_OPERATION_CANCEL_FAILED CKR_KEY_EXHAUSTED CKR_PENDING
    CKR_TOKEN_NOT_INITIALIZED
}

impl Rv {
    /// Returns the name that PKCS#11 gives the code, where it gives one.
    pub fn name(self) -> Option<&'static str> {
        name(self.0)
    }

    /// Returns what the code asks of us.
    pub fn class(self) -> Class {
        match self.0 {
            CKR_SESSION_HANDLE_INVALID | CKR_SESSION_CLOSED => Class::SessionGone,
            CKR_DEVICE_REMOVED
            | CKR_TOKEN_NOT_PRESENT
            | CKR_TOKEN_NOT_RECOGNIZED
            | CKR_SLOT_ID_INVALID
            | CKR_TOKEN_NOT_INITIALIZED => Class::TokenGone,
            CKR_CRYPTOKI_NOT_INITIALIZED => Class::ModuleGone,
            CKR_USER_NOT_LOGGED_IN => Class::Login,
            CKR_PIN_INCORRECT
            | CKR_PIN_INVALID
            | CKR_PIN_LEN_RANGE
            | CKR_PIN_EXPIRED
            | CKR_PIN_LOCKED
            | CKR_USER_PIN_NOT_INITIALIZED => Class::Pin,
            CKR_HOST_MEMORY
            | CKR_DEVICE_MEMORY
            | CKR_SESSION_COUNT
            | CKR_TOKEN_RESOURCE_EXCEEDED
            | CKR_PENDING
            | CKR_FUNCTION_CANCELED
            | CKR_FUNCTION_REJECTED
            | CKR_CANT_LOCK => Class::Busy,
            CKR_KEY_HANDLE_INVALID
            | CKR_OBJECT_HANDLE_INVALID
            | CKR_UNWRAPPING_KEY_HANDLE_INVALID
            | CKR_WRAPPING_KEY_HANDLE_INVALID => Class::Object,
            CKR_OPERATION_ACTIVE => Class::Active,
            CKR_DATA_INVALID
            | CKR_DATA_LEN_RANGE
            | CKR_ENCRYPTED_DATA_INVALID
            | CKR_ENCRYPTED_DATA_LEN_RANGE
            | CKR_AEAD_DECRYPT_FAILED
            | CKR_WRAPPED_KEY_INVALID
            | CKR_WRAPPED_KEY_LEN_RANGE
            | CKR_SIGNATURE_INVALID
            | CKR_SIGNATURE_LEN_RANGE => Class::Data,
            CKR_FUNCTION_NOT_SUPPORTED | CKR_MECHANISM_INVALID => Class::Unsupported,
            CKR_GENERAL_ERROR | CKR_DEVICE_ERROR | CKR_FUNCTION_FAILED => Class::Ambiguous,
            _ => Class::Other,
        }
    }
}

impl fmt::Display for Rv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:x})", self.0),
            None => write!(f, "code 0x{:x}", self.0),
        }
    }
}

impl fmt::Debug for Rv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a call did not do what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The module said so.
    Returned {
        /// The function.
        call: &'static str,
        /// The code.
        rv: Rv,
    },
    /// This process was forked from the one that loaded the module: nothing is called, for the two share its state.
    Forked {
        /// The function.
        call: &'static str,
    },
    /// The handle is of an earlier initialisation of the module, or the module is not initialised now.
    OldHandle {
        /// The function.
        call: &'static str,
    },
    /// The module has no such function.
    Missing {
        /// The function.
        call: &'static str,
    },
    /// The input exceeds what a module is ever given.
    TooLarge {
        /// The function.
        call: &'static str,
        /// The bytes of the input.
        bytes: usize,
    },
    /// The module claims to have written another number of bytes than can be.
    Overlong {
        /// The function.
        call: &'static str,
        /// What it claims.
        bytes: usize,
    },
    /// What a private key made of a text is not what its public half says: they are halves of two pairs.
    Mismatch {
        /// The function.
        call: &'static str,
    },
    /// Calls are under way that do not come back, or the library is another's, so that it cannot be finalised.
    InUse {
        /// The function.
        call: &'static str,
    },
}

impl Failure {
    /// Returns what the failure asks of us.
    pub fn class(&self) -> Class {
        match self {
            Failure::Returned { rv, .. } => rv.class(),
            Failure::OldHandle { .. } => Class::ModuleGone,
            Failure::Missing { .. } => Class::Unsupported,
            Failure::TooLarge { .. } | Failure::Mismatch { .. } => Class::Data,
            Failure::InUse { .. } => Class::Busy,
            // A module that counts wrong is not to be trusted with this session any longer.
            Failure::Overlong { .. } => Class::SessionGone,
            Failure::Forked { .. } => Class::Other,
        }
    }

    /// Returns the module's code, where it was the module that refused.
    pub fn rv(&self) -> Option<Rv> {
        match self {
            Failure::Returned { rv, .. } => Some(*rv),
            _ => None,
        }
    }

    /// Returns the module's code as the engine counts it, where it was the module that refused.
    pub fn code(&self) -> Option<FailureCode> {
        self.rv().map(|rv| rv.name().map_or(FailureCode::OTHER, FailureCode::named))
    }

    /// Returns the cause that the engine is told.
    pub(crate) fn cause(&self, reason: impl Into<String>) -> Cause {
        Cause { reason: reason.into(), code: self.code() }
    }

    /// Tells whether the module answered with `code`.
    pub fn is(&self, code: CK_RV) -> bool {
        self.rv() == Some(Rv(code))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Returned { call, rv } => write!(f, "{call} returned {rv}"),
            Failure::Forked { call } => {
                write!(f, "{call} refused: this process is a fork of the one that loaded the module")
            }
            Failure::OldHandle { call } => {
                write!(f, "{call} refused: the handle is of an earlier initialisation of the module")
            }
            Failure::Missing { call } => write!(f, "the module has no {call}"),
            Failure::TooLarge { call, bytes } => {
                write!(f, "{call} refused: {bytes} bytes exceed the limit of {}", super::MAX_CALL_BYTES)
            }
            Failure::Overlong { call, bytes } => {
                write!(f, "{call} claims {bytes} bytes, which cannot be")
            }
            Failure::Mismatch { call } => write!(f, "{call} shows another key than the stored one"),
            Failure::InUse { call } => write!(f, "{call} refused: the module is in use"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_asks_for_one_thing() {
        for (code, class) in [
            (CKR_SESSION_HANDLE_INVALID, Class::SessionGone),
            (CKR_SESSION_CLOSED, Class::SessionGone),
            (CKR_DEVICE_REMOVED, Class::TokenGone),
            (CKR_TOKEN_NOT_PRESENT, Class::TokenGone),
            (CKR_CRYPTOKI_NOT_INITIALIZED, Class::ModuleGone),
            (CKR_USER_NOT_LOGGED_IN, Class::Login),
            (CKR_PIN_INCORRECT, Class::Pin),
            (CKR_PIN_LOCKED, Class::Pin),
            (CKR_DEVICE_MEMORY, Class::Busy),
            (CKR_SESSION_COUNT, Class::Busy),
            (CKR_KEY_HANDLE_INVALID, Class::Object),
            (CKR_OPERATION_ACTIVE, Class::Active),
            (CKR_ENCRYPTED_DATA_INVALID, Class::Data),
            (CKR_AEAD_DECRYPT_FAILED, Class::Data),
            (CKR_FUNCTION_NOT_SUPPORTED, Class::Unsupported),
            (CKR_GENERAL_ERROR, Class::Ambiguous),
            (CKR_DEVICE_ERROR, Class::Ambiguous),
            (CKR_ATTRIBUTE_READ_ONLY, Class::Other),
        ] {
            assert_eq!(Rv(code).class(), class, "{}", Rv(code));
        }
        assert_eq!(Failure::OldHandle { call: "C_Sign" }.class(), Class::ModuleGone);
        assert_eq!(Failure::Missing { call: "C_SessionCancel" }.class(), Class::Unsupported);
    }

    #[test]
    fn the_engine_knows_every_name() {
        for name in NAMES.iter().filter(|name| **name != "CKR_OK") {
            assert_eq!(FailureCode::named(name).name(), *name);
        }
        let code = |rv| Failure::Returned { call: "C_Test", rv: Rv(rv) }.code();
        assert_eq!(code(CKR_DEVICE_ERROR), Some(FailureCode::named("CKR_DEVICE_ERROR")));
        assert_eq!(code(CKR_VENDOR_DEFINED | 7), Some(FailureCode::OTHER));
        assert_eq!(Failure::OldHandle { call: "C_Test" }.code(), None);
    }

    #[test]
    fn a_code_is_told_by_name_and_number() {
        assert_eq!(Rv(0xb3).to_string(), "CKR_SESSION_HANDLE_INVALID (0xb3)");
        assert_eq!(Rv(0x8000_0001).to_string(), "code 0x80000001");
        let failure = Failure::Returned { call: "C_Decrypt", rv: Rv(5) };
        assert_eq!(failure.to_string(), "C_Decrypt returned CKR_GENERAL_ERROR (0x5)");
        assert!(failure.is(CKR_GENERAL_ERROR));
    }
}
