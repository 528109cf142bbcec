//! Why a provider fails: a sentence for the log, and the code that its device returned. Codes are a closed set, since each becomes a label
//! of a metric; they are the names of PKCS#11, the one language of devices that there is, and mean nothing to the engine.

use std::fmt;

/// A code that a device returned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FailureCode(u8);

/// The first is any code without a name.
const NAMES: [&str; 79] = [
    "other",
    "CKR_CANCEL",
    "CKR_HOST_MEMORY",
    "CKR_SLOT_ID_INVALID",
    "CKR_GENERAL_ERROR",
    "CKR_FUNCTION_FAILED",
    "CKR_ARGUMENTS_BAD",
    "CKR_NEED_TO_CREATE_THREADS",
    "CKR_CANT_LOCK",
    "CKR_ATTRIBUTE_READ_ONLY",
    "CKR_ATTRIBUTE_SENSITIVE",
    "CKR_ATTRIBUTE_TYPE_INVALID",
    "CKR_ATTRIBUTE_VALUE_INVALID",
    "CKR_ACTION_PROHIBITED",
    "CKR_DATA_INVALID",
    "CKR_DATA_LEN_RANGE",
    "CKR_DEVICE_ERROR",
    "CKR_DEVICE_MEMORY",
    "CKR_DEVICE_REMOVED",
    "CKR_ENCRYPTED_DATA_INVALID",
    "CKR_ENCRYPTED_DATA_LEN_RANGE",
    "CKR_AEAD_DECRYPT_FAILED",
    "CKR_FUNCTION_CANCELED",
    "CKR_FUNCTION_NOT_SUPPORTED",
    "CKR_KEY_HANDLE_INVALID",
    "CKR_KEY_SIZE_RANGE",
    "CKR_KEY_TYPE_INCONSISTENT",
    "CKR_KEY_FUNCTION_NOT_PERMITTED",
    "CKR_KEY_NOT_WRAPPABLE",
    "CKR_KEY_UNEXTRACTABLE",
    "CKR_MECHANISM_INVALID",
    "CKR_MECHANISM_PARAM_INVALID",
    "CKR_OBJECT_HANDLE_INVALID",
    "CKR_OPERATION_ACTIVE",
    "CKR_OPERATION_NOT_INITIALIZED",
    "CKR_PIN_INCORRECT",
    "CKR_PIN_INVALID",
    "CKR_PIN_LEN_RANGE",
    "CKR_PIN_EXPIRED",
    "CKR_PIN_LOCKED",
    "CKR_SESSION_CLOSED",
    "CKR_SESSION_COUNT",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_SESSION_READ_ONLY",
    "CKR_SESSION_EXISTS",
    "CKR_SESSION_READ_ONLY_EXISTS",
    "CKR_SESSION_READ_WRITE_SO_EXISTS",
    "CKR_SIGNATURE_INVALID",
    "CKR_SIGNATURE_LEN_RANGE",
    "CKR_TEMPLATE_INCOMPLETE",
    "CKR_TEMPLATE_INCONSISTENT",
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_TOKEN_NOT_RECOGNIZED",
    "CKR_TOKEN_WRITE_PROTECTED",
    "CKR_UNWRAPPING_KEY_HANDLE_INVALID",
    "CKR_UNWRAPPING_KEY_SIZE_RANGE",
    "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
    "CKR_USER_ALREADY_LOGGED_IN",
    "CKR_USER_NOT_LOGGED_IN",
    "CKR_USER_PIN_NOT_INITIALIZED",
    "CKR_USER_TYPE_INVALID",
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    "CKR_USER_TOO_MANY_TYPES",
    "CKR_WRAPPED_KEY_INVALID",
    "CKR_WRAPPED_KEY_LEN_RANGE",
    "CKR_WRAPPING_KEY_HANDLE_INVALID",
    "CKR_WRAPPING_KEY_SIZE_RANGE",
    "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
    "CKR_RANDOM_NO_RNG",
    "CKR_BUFFER_TOO_SMALL",
    "CKR_CRYPTOKI_NOT_INITIALIZED",
    "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    "CKR_FIPS_SELF_TEST_FAILED",
    "CKR_FUNCTION_REJECTED",
    "CKR_TOKEN_RESOURCE_EXCEEDED",
    "CKR_OPERATION_CANCEL_FAILED",
    "CKR_KEY_EXHAUSTED",
    "CKR_PENDING",
    "CKR_TOKEN_NOT_INITIALIZED",
];

impl FailureCode {
    /// A code without a name: a vendor's own, or of a later PKCS#11.
    pub const OTHER: Self = Self(0);
    /// How many there are.
    pub const COUNT: usize = NAMES.len();

    /// Returns the code of a name; [`Self::OTHER`] where it is none of PKCS#11's.
    pub fn named(name: &str) -> Self {
        let found = NAMES.iter().position(|known| *known == name);
        found.and_then(Self::from_index).unwrap_or(Self::OTHER)
    }

    /// Returns the code of a number as of [`Self::index`].
    pub fn from_index(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|_| index < Self::COUNT).map(Self)
    }

    /// Returns a number below [`Self::COUNT`]; it is for this build alone, as codes may come in between.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Returns its name; `other` where it has none.
    pub fn name(self) -> &'static str {
        NAMES[self.index()]
    }
}

impl fmt::Debug for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a provider fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What the provider said, for the log.
    pub reason: String,
    /// The code that its device returned; `None` where it is not the device that failed, or it returned nothing: a crash, a hang.
    pub code: Option<FailureCode>,
}

impl<T: Into<String>> From<T> for Cause {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), code: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name_and_its_number() {
        for index in 0..FailureCode::COUNT {
            let code = FailureCode::from_index(index).unwrap();
            assert_eq!((code.index(), FailureCode::named(code.name())), (index, code));
        }
        assert_eq!(FailureCode::from_index(FailureCode::COUNT), None);
        assert_eq!(FailureCode::from_index(256), None);
    }

    #[test]
    fn a_name_that_is_not_known_is_other_and_never_a_label() {
        for name in ["", "CKR_VENDOR", "ckr_device_error", "1234\"} 1\n"] {
            assert_eq!(FailureCode::named(name), FailureCode::OTHER);
        }
        assert_eq!(FailureCode::OTHER.name(), "other");
        assert_eq!(format!("{:?}", FailureCode::named("CKR_DEVICE_ERROR")), "CKR_DEVICE_ERROR");
    }
}
