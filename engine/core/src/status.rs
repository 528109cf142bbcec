//! The HTTP status of each error: told by frontends in their answers, and by replies that hold the errors of their parts.

use crate::error::ErrorKind;

impl ErrorKind {
    /// Returns the HTTP status of an error, which is also the status of its frame.
    pub fn status(self) -> u16 {
        use ErrorKind::*;
        match self {
            InvalidParameter
            | MissingParameter
            | MalformedRequest
            | InvalidCiphertext
            | DryRun
            | LimitExceeded(_)
            | UnsupportedVersion
            | UnsupportedAuthentication
            | Unsupported
            | UnsupportedAlias
            | UnsupportedOrigin
            | InvalidImportToken
            | ExpiredImportToken
            | InvalidKeyMaterial
            | AccessKeyInactive
            | SignatureMismatch
            | IncompleteSignature
            | TimestampInvalid
            | TimestampExpired
            | NonceUsed
            // The cloud answers 400 for a taken alias, not 409.
            | AliasExists
            | AlreadyOpen => 400,
            Denied | UnsupportedMethod | InstanceState => 403,
            AccessKeyUnknown | OperationNotFound | KeyNotFound | KeyVersionNotFound | AliasNotFound
            | ResourceNotFound | CertificateNotFound => 404,
            // The time that ran out is the caller's own `TimeoutMs`; 504 would blame a server behind us.
            // A caller that went away reads no status; its audit record does, and 408 is the nearest registered one.
            Deadline | Cancelled => 408,
            KeyDisabled | KeyPendingDeletion | KeyPendingImport | StateConflict | Conflict
            | ResourceExists | ResourceInUse | ResourceInDeleteWindow | ApprovalNeeded => 409,
            BodyTooLarge => 413,
            // The cloud documents 400 for the latter two; what backs off looks for 429.
            Busy | OverQuota | LoginThrottled => 429,
            Internal => 500,
            Unavailable | AuditUnavailable | StoreUnavailable | Quarantined => 503,
        }
    }
}
