//! The seam to authentication: who calls, never what they may do. A dialect builds the bytes that are signed.

use crate::access::{AccessSnapshot, Principal};
use crate::error::{Error, ErrorKind};

/// Checks one kind of credential.
pub trait Authenticator: Send + Sync {
    /// Returns the name of the scheme, for the log and metrics.
    fn scheme(&self) -> &'static str;
    /// Tells who signed `signed`, in a time that does not depend on where a signature differs, nor on whether the key is known.
    ///
    /// # Errors
    /// [`AuthError`], which callers of a login protocol may merge into one answer.
    fn authenticate(
        &self,
        offered: &Credential<'_>,
        signed: &[u8],
        known: &AccessSnapshot,
    ) -> Result<Principal, AuthError>;
}

/// What a caller offers.
pub enum Credential<'a> {
    /// HMAC-SHA256 under the secret of an access key.
    AccessKey {
        /// The id as the caller spelled it.
        id: &'a str,
        /// 32 bytes.
        signature: &'a [u8],
    },
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No such access key.
    Unknown,
    /// The access key is switched off.
    Inactive,
    /// The signature differs.
    Mismatch,
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unknown => Error::new(ErrorKind::AccessKeyUnknown, "the access key id is not found"),
            AuthError::Inactive => Error::new(ErrorKind::AccessKeyInactive, "the access key is inactive"),
            AuthError::Mismatch => {
                Error::new(ErrorKind::SignatureMismatch, "the signature does not match the request")
            }
        }
    }
}
