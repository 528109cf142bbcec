//! The one outward error: a closed kind for the program, a message for the caller, a source for the log only.
//! It imports nothing of keymill, so that nothing circles through it.

use std::borrow::Cow;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each cause that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A parameter is malformed, out of range, or contradicts another.
    InvalidParameter,
    /// A required parameter is absent.
    MissingParameter,
    /// The request is not of the protocol's form.
    MalformedRequest,
    /// The ciphertext does not open: wrong format, context, key version, tag or body, all alike.
    InvalidCiphertext,
    /// The request would have been carried out, and was to be tried alone.
    DryRun,
    /// A documented size or count is exceeded.
    LimitExceeded(Limit),
    /// The body of a request is larger than the listener takes.
    BodyTooLarge,
    /// The API version asked for is not spoken here.
    UnsupportedVersion,
    /// The way of logging in is not offered here.
    UnsupportedAuthentication,
    /// The operation, algorithm or key specification is not offered for this key.
    Unsupported,
    /// An alias stands where only a key id is taken.
    UnsupportedAlias,
    /// The operation is for keys whose material is imported.
    UnsupportedOrigin,
    /// The import token is none of this key, or is used up.
    InvalidImportToken,
    /// The time of the import token is over.
    ExpiredImportToken,
    /// The material cannot be imported: it does not unwrap, is none of the key's specification, or is other than the key ever had, all alike.
    InvalidKeyMaterial,
    /// No access key of that id.
    AccessKeyUnknown,
    /// The access key is switched off.
    AccessKeyInactive,
    /// The signature differs.
    SignatureMismatch,
    /// The signature is absent, malformed, or leaves out what must be signed.
    IncompleteSignature,
    /// The time of the request cannot be read.
    TimestampInvalid,
    /// The time of the request is too far from ours.
    TimestampExpired,
    /// The nonce was seen before.
    NonceUsed,
    /// The principal may not do this.
    Denied,
    /// The method of the request is none that this place takes.
    UnsupportedMethod,
    /// No operation of that name.
    OperationNotFound,
    /// No such key, or none that the caller may see.
    KeyNotFound,
    /// No such version of the key.
    KeyVersionNotFound,
    /// No such alias, or none that the caller may see.
    AliasNotFound,
    /// No such access key, managed data key, secret or version of one, access point, client key, policy or network rule, or none that the caller may see.
    ResourceNotFound,
    /// No such certificate, or none that the caller may see.
    CertificateNotFound,
    /// The alias is taken.
    AliasExists,
    /// The name of a managed data key, secret or version of one, access point, policy or network rule is taken.
    ResourceExists,
    /// The secret waits for its deletion.
    ResourceInDeleteWindow,
    /// The installation has it wait for a second caller.
    ApprovalNeeded,
    /// Something else still names the resource.
    ResourceInUse,
    /// The service is open already.
    AlreadyOpen,
    /// The key is disabled.
    KeyDisabled,
    /// The key is waiting for its deletion.
    KeyPendingDeletion,
    /// The key is waiting for its material.
    KeyPendingImport,
    /// The instance is not in the state for it.
    InstanceState,
    /// The state of the resource does not allow the change.
    StateConflict,
    /// Someone else changed the resource meanwhile.
    Conflict,
    /// A queue is full; the same request may pass later.
    Busy,
    /// The caller, or the instance, is over its quota, and nothing is idle; the same request may pass later.
    OverQuota,
    /// Too many logins from there failed; another may be tried later.
    LoginThrottled,
    /// A part that the request needs is down; the same request may pass later.
    Unavailable,
    /// The audit log cannot be written, so audited requests are refused.
    AuditUnavailable,
    /// The store refuses writes, for want of space or otherwise.
    StoreUnavailable,
    /// A stored record failed its check and is quarantined.
    Quarantined,
    /// The request ran out of its time.
    Deadline,
    /// The caller went away before the work began.
    Cancelled,
    /// A fault of ours.
    Internal,
}

/// Each documented limit; all are in `DescribeLimits`, and each has its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Items of a batch.
    BatchItems,
    /// Bytes of an item of a batch.
    ItemBytes,
    /// Bytes of plaintext of a single operation.
    PlaintextBytes,
    /// Characters of an encryption context.
    ContextCharacters,
    /// Bytes of a frame.
    FrameBytes,
    /// Bytes that the answer would have.
    AnswerBytes,
    /// Milliseconds of a time-out.
    TimeoutMs,
    /// Bytes of a data key.
    DataKeyBytes,
    /// Characters of a description.
    DescriptionCharacters,
    /// Grants of an access key, or resources of a grant.
    Grants,
    /// Rows of a page.
    PageSize,
    /// Tags of a key or of a request.
    Tags,
    /// Versions of a key pair, or of a managed data key.
    KeyVersions,
    /// Bytes of a policy.
    PolicyBytes,
    /// Permissions, resources or network rules of a policy, or policies of an access point.
    Policies,
    /// Addresses of a network rule.
    NetworkRules,
    /// Actions of a role.
    Roles,
    /// Requests that wait for a second caller.
    Approvals,
    /// Client keys of an access point.
    ClientKeys,
    /// Access keys, access points, policies or network rules.
    AccessRecords,
    /// Customer master keys.
    Keys,
    /// Aliases.
    Aliases,
    /// Managed data keys.
    DataKeys,
    /// Secrets.
    Secrets,
    /// Versions of a secret to which stages point, or stages.
    SecretVersions,
    /// Certificates.
    Certificates,
    /// Instances.
    Instances,
    /// Networks of an instance.
    InstanceVpcs,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Limit; 28] = [
        Limit::BatchItems,
        Limit::ItemBytes,
        Limit::PlaintextBytes,
        Limit::ContextCharacters,
        Limit::FrameBytes,
        Limit::AnswerBytes,
        Limit::TimeoutMs,
        Limit::DataKeyBytes,
        Limit::DescriptionCharacters,
        Limit::Grants,
        Limit::PageSize,
        Limit::Tags,
        Limit::KeyVersions,
        Limit::PolicyBytes,
        Limit::Policies,
        Limit::NetworkRules,
        Limit::Roles,
        Limit::Approvals,
        Limit::ClientKeys,
        Limit::AccessRecords,
        Limit::Keys,
        Limit::Aliases,
        Limit::DataKeys,
        Limit::Secrets,
        Limit::SecretVersions,
        Limit::Certificates,
        Limit::Instances,
        Limit::InstanceVpcs,
    ];
}

/// What kind of answer an [`ErrorKind`] calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request is wrong.
    Invalid,
    /// The caller is not known.
    Unauthenticated,
    /// The caller may not.
    Denied,
    /// There is no such thing.
    NotFound,
    /// There is one already.
    Exists,
    /// The thing is in the wrong state.
    State,
    /// Not offered.
    Unsupported,
    /// Too much at once.
    Busy,
    /// Something is down.
    Unavailable,
    /// Out of time.
    Deadline,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Every kind but the limits, for tables that must be complete.
    pub const ALL: [ErrorKind; 51] = {
        use ErrorKind::*;
        [
            InvalidParameter,
            MissingParameter,
            MalformedRequest,
            DryRun,
            InvalidCiphertext,
            BodyTooLarge,
            UnsupportedVersion,
            UnsupportedAuthentication,
            Unsupported,
            UnsupportedAlias,
            UnsupportedOrigin,
            InvalidImportToken,
            ExpiredImportToken,
            InvalidKeyMaterial,
            AccessKeyUnknown,
            AccessKeyInactive,
            SignatureMismatch,
            IncompleteSignature,
            TimestampInvalid,
            TimestampExpired,
            NonceUsed,
            Denied,
            UnsupportedMethod,
            OperationNotFound,
            KeyNotFound,
            KeyVersionNotFound,
            AliasNotFound,
            ResourceNotFound,
            CertificateNotFound,
            AliasExists,
            ResourceExists,
            ResourceInDeleteWindow,
            ApprovalNeeded,
            ResourceInUse,
            AlreadyOpen,
            KeyDisabled,
            KeyPendingDeletion,
            KeyPendingImport,
            InstanceState,
            StateConflict,
            Conflict,
            Busy,
            OverQuota,
            LoginThrottled,
            Unavailable,
            AuditUnavailable,
            StoreUnavailable,
            Quarantined,
            Deadline,
            Cancelled,
            Internal,
        ]
    };

    /// Returns the code that the API gives this kind, also inside a batch. HTTP statuses belong to the edge.
    pub fn code(self) -> &'static str {
        use ErrorKind::*;
        match self {
            // A failed decryption has no code of its own: nothing may tell a wrong context from a wrong tag.
            InvalidParameter | InvalidCiphertext => "InvalidParameter",
            DryRun => "DryRunOperationError",
            MissingParameter => "MissingParameter",
            MalformedRequest => "ParseRequestParameterException",
            LimitExceeded(limit) => match limit {
                Limit::BatchItems => "Rejected.LimitExceeded.BatchItems",
                Limit::ItemBytes => "Rejected.LimitExceeded.ItemBytes",
                Limit::PlaintextBytes => "Rejected.LimitExceeded.PlaintextBytes",
                Limit::ContextCharacters => "Rejected.LimitExceeded.ContextCharacters",
                Limit::FrameBytes => "Rejected.LimitExceeded.FrameBytes",
                Limit::AnswerBytes => "Rejected.LimitExceeded.AnswerBytes",
                Limit::TimeoutMs => "Rejected.LimitExceeded.TimeoutMs",
                Limit::DataKeyBytes => "Rejected.LimitExceeded.DataKeyBytes",
                Limit::DescriptionCharacters => "Rejected.LimitExceeded.DescriptionCharacters",
                Limit::Grants => "Rejected.LimitExceeded.Grants",
                Limit::PageSize => "Rejected.LimitExceeded.PageSize",
                Limit::Tags => "Rejected.LimitExceeded.Tags",
                Limit::KeyVersions => "Rejected.LimitExceeded.KeyVersions",
                Limit::PolicyBytes => "Rejected.LimitExceeded.PolicyBytes",
                Limit::Policies => "Rejected.LimitExceeded.Policies",
                Limit::NetworkRules => "Rejected.LimitExceeded.NetworkRules",
                Limit::Roles => "Rejected.LimitExceeded.Roles",
                Limit::Approvals => "Rejected.LimitExceeded.Approvals",
                Limit::ClientKeys => "Rejected.LimitExceeded.ClientKeys",
                Limit::AccessRecords => "Rejected.LimitExceeded.AccessRecords",
                Limit::Keys => "Rejected.LimitExceeded.Keys",
                Limit::Aliases => "Rejected.LimitExceeded.Aliases",
                Limit::DataKeys => "Rejected.LimitExceeded.DataKeys",
                Limit::Secrets => "Rejected.LimitExceeded.Secrets",
                Limit::SecretVersions => "Rejected.LimitExceeded.SecretVersions",
                Limit::Certificates => "Rejected.LimitExceeded.Certificates",
                Limit::Instances => "Rejected.LimitExceeded.Instances",
                Limit::InstanceVpcs => "Rejected.LimitExceeded.InstanceVpcs",
            },
            BodyTooLarge => "Rejected.BodyTooLarge",
            UnsupportedVersion => "InvalidVersion",
            UnsupportedAuthentication => "UnsupportedAuthentication",
            Unsupported => "UnsupportedOperation",
            UnsupportedAlias => "Unsupported.Alias",
            UnsupportedOrigin => "Unsupported.Origin",
            InvalidImportToken => "InvalidImportToken",
            ExpiredImportToken => "ExpiredImportToken",
            InvalidKeyMaterial => "InvalidKeyMaterial",
            AccessKeyUnknown => "InvalidAccessKeyId.NotFound",
            AccessKeyInactive => "InvalidAccessKeyId.Inactive",
            SignatureMismatch => "SignatureDoesNotMatch",
            IncompleteSignature => "IncompleteSignature",
            TimestampInvalid => "IllegalTimestamp",
            TimestampExpired => "InvalidTimeStamp.Expired",
            NonceUsed => "SignatureNonceUsed",
            Denied => "Forbidden.NoPermission",
            UnsupportedMethod => "UnsupportedHTTPMethod",
            OperationNotFound => "InvalidAction.NotFound",
            KeyNotFound => "Forbidden.KeyNotFound",
            KeyVersionNotFound => "Forbidden.KeyVersionNotFound",
            AliasNotFound => "Forbidden.AliasNotFound",
            ResourceNotFound => "Forbidden.ResourceNotFound",
            CertificateNotFound => "Certificate.NotFound",
            AliasExists => "AliasAlreadyExists",
            ResourceExists => "Rejected.ResourceExist",
            ResourceInDeleteWindow => "Rejected.ResourceInDeleteWindow",
            ApprovalNeeded => "Rejected.ApprovalNeeded",
            ResourceInUse => "Rejected.ResourceInUse",
            AlreadyOpen => "Forbidden.Opened",
            KeyDisabled => "Rejected.Disabled",
            KeyPendingDeletion => "Rejected.PendingDeletion",
            KeyPendingImport => "Rejected.PendingImport",
            InstanceState => "Forbidden.DKMSInstanceStateInvalid",
            StateConflict => "Rejected.StateModifiedFailed",
            Conflict => "Rejected.ConcurrentModification",
            Busy => "Rejected.Throttling",
            OverQuota => "Throttling.User",
            LoginThrottled => "Throttling",
            Unavailable | AuditUnavailable | StoreUnavailable => "ServiceUnavailableTemporary",
            Quarantined => "Rejected.Quarantined",
            Deadline => "RequestTimeout",
            Cancelled => "RequestCancelled",
            Internal => "InternalFailure",
        }
    }

    /// Returns the class of answer that this kind calls for.
    pub fn class(self) -> ErrorClass {
        use ErrorKind::*;
        match self {
            InvalidParameter | MissingParameter | MalformedRequest | InvalidCiphertext | LimitExceeded(_)
            | BodyTooLarge | DryRun | InvalidImportToken | ExpiredImportToken | InvalidKeyMaterial => {
                ErrorClass::Invalid
            }
            UnsupportedVersion
            | UnsupportedAuthentication
            | Unsupported
            | UnsupportedAlias
            | UnsupportedOrigin => ErrorClass::Unsupported,
            AccessKeyUnknown | AccessKeyInactive | SignatureMismatch | IncompleteSignature
            | TimestampInvalid | TimestampExpired | NonceUsed => ErrorClass::Unauthenticated,
            Denied | UnsupportedMethod => ErrorClass::Denied,
            OperationNotFound | KeyNotFound | KeyVersionNotFound | AliasNotFound | ResourceNotFound
            | CertificateNotFound => ErrorClass::NotFound,
            AliasExists | ResourceExists | AlreadyOpen => ErrorClass::Exists,
            KeyDisabled
            | KeyPendingDeletion
            | KeyPendingImport
            | InstanceState
            | StateConflict
            | Conflict
            | ResourceInUse
            | ResourceInDeleteWindow
            | ApprovalNeeded => ErrorClass::State,
            Busy | OverQuota | LoginThrottled => ErrorClass::Busy,
            Unavailable | AuditUnavailable | StoreUnavailable | Quarantined => ErrorClass::Unavailable,
            Deadline | Cancelled => ErrorClass::Deadline,
            Internal => ErrorClass::Internal,
        }
    }

    /// Tells whether the same request may pass later.
    pub fn retryable(self) -> bool {
        matches!(self.class(), ErrorClass::Busy | ErrorClass::Unavailable) && self != ErrorKind::Quarantined
    }
}

/// What a caller gets instead of a reply.
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    retry_after_ms: Option<u32>,
    nothing_done: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind` with a message for the caller.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after_ms: None, nothing_done: false, source: None }
    }

    /// Makes a fault of ours; `source` goes to the log, never to the caller.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Internal, "internal failure").caused_by(source)
    }

    /// The one error of every failed decryption: no part tells itself from another.
    pub fn invalid_ciphertext() -> Self {
        Self::new(ErrorKind::InvalidCiphertext, "the ciphertext does not open with this key and context")
    }

    /// The one error for a key that does not exist and for one that the caller may not see.
    pub fn key_not_found() -> Self {
        Self::new(ErrorKind::KeyNotFound, "the specified key is not found")
    }

    /// The one error for a secret that does not exist and for one that the caller may not see.
    pub fn secret_not_found() -> Self {
        Self::new(ErrorKind::ResourceNotFound, "the specified secret is not found")
    }

    /// The one error for an authority that does not exist and for one that the caller may not see.
    pub fn authority_not_found() -> Self {
        Self::new(ErrorKind::ResourceNotFound, "the specified certificate authority is not found")
    }

    /// The one error for a certificate that does not exist and for one that the caller may not see.
    pub fn certificate_not_found() -> Self {
        Self::new(ErrorKind::CertificateNotFound, "the specified certificate is not found")
    }

    /// The error for a request that is a replay of another.
    pub fn nonce_used() -> Self {
        Self::new(ErrorKind::NonceUsed, "the signature nonce was used before")
    }

    /// The one error of every failed import of key material: no part tells itself from another.
    pub fn invalid_key_material() -> Self {
        let why = "the key material does not unwrap, or is none that this key takes";
        Self::new(ErrorKind::InvalidKeyMaterial, why)
    }

    /// The error for a key whose material is not imported.
    pub fn not_external() -> Self {
        Self::new(
            ErrorKind::UnsupportedOrigin,
            "the key material of this key is not imported: its Origin is not EXTERNAL",
        )
    }

    /// Attaches what went wrong underneath, for the log only.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says after how many milliseconds a retry makes sense.
    pub fn retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Says that nothing of the request was done, nor will be, so that it may be sent to another node whatever it asks for.
    pub fn nothing_done(mut self) -> Self {
        self.nothing_done = true;
        self
    }

    /// Tells whether it is certain that nothing of the request was done.
    pub fn is_nothing_done(&self) -> bool {
        self.nothing_done
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the suggested wait before a retry, in milliseconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after_ms
    }

    /// Takes the message, for an item of a batch.
    pub fn into_message(self) -> Cow<'static, str> {
        self.message
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_busy_and_unavailable_are_retryable() {
        let retryable: Vec<_> = ErrorKind::ALL.into_iter().filter(|k| k.retryable()).collect();
        assert_eq!(
            retryable,
            [
                ErrorKind::Busy,
                ErrorKind::OverQuota,
                ErrorKind::LoginThrottled,
                ErrorKind::Unavailable,
                ErrorKind::AuditUnavailable,
                ErrorKind::StoreUnavailable
            ]
        );
    }

    #[test]
    fn a_source_is_for_the_log_and_not_for_the_caller() {
        let error = Error::internal("disk /dev/sda1 is on fire");
        assert_eq!(error.to_string(), "internal failure");
        assert!(format!("{error:?}").contains("on fire"));
    }
}
