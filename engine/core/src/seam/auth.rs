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
    /// A MAC under the secret of an access key.
    AccessKey {
        /// The id as the caller spelled it.
        id: &'a str,
        /// How the MAC is made.
        mac: AccessKeyMac<'a>,
        /// The MAC, all of it.
        signature: &'a [u8],
    },
    /// A signature under the private key of a client key: RSASSA-PKCS1-v1_5 with SHA-256, or ECDSA with SHA-256 in DER where the key is one on
    /// a curve. Which of the two belongs to the key, and is nothing that the caller says.
    ClientKey {
        /// The id as the caller spelled it.
        id: &'a str,
        /// The signature, all of it.
        signature: &'a [u8],
    },
    /// The TLS certificate that the caller has shown: its channel has verified it, and that the caller holds its key. Nothing else is signed.
    Certificate(&'a PeerCertificate),
}

impl Credential<'_> {
    /// Returns the id of the key that is said to have signed, as the caller spelled it; a certificate has none, and cannot be guessed.
    pub fn id(&self) -> Option<&str> {
        match self {
            Credential::AccessKey { id, .. } | Credential::ClientKey { id, .. } => Some(id),
            Credential::Certificate(_) => None,
        }
    }
}

/// How a request is signed with the secret of an access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKeyMac<'a> {
    /// HMAC-SHA256 under the secret.
    HmacSha256,
    /// HMAC-SHA256 under a key that is derived from `prefix` and the secret by HMAC-SHA256 over each of the texts in turn.
    Derived {
        /// What stands before the secret.
        prefix: &'a str,
        /// What it is derived for.
        texts: &'a [&'a str],
    },
    /// HMAC-SHA1 under the secret and `&`: the RPC signature of the cloud, version 1. SHA-1's collisions do not break HMAC (RFC 6194 §3.3).
    HmacSha1Rpc,
}

/// The TLS certificate that a caller has shown and that was verified: what it is known by, never what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
    /// The URIs of its subject alternative name, in their order.
    pub uris: Vec<String>,
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No such access key or client key.
    Unknown,
    /// The access key is switched off, or the client key is not taken at this time.
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
