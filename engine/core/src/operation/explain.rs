//! Why something is allowed or not: asked by those who administer it, of anybody.

use serde::{Deserialize, Serialize};

use crate::context::EncryptionContext;
use crate::id::{AccessKeyId, CertificateRef, ClientKeyId, KeyRef, RequestId, SecretRef};

/// Tells whether an access key or a client key may do something now, by which rule, and what would change that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExplainAccessRequest {
    /// The operation by its name.
    pub operation: String,
    /// Key id, ARN or alias, where it is about a key; the keys as a whole if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// Name or ARN of the secret, where it is about a secret, whether or not there is one; the secrets as a whole if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<SecretRef>,
    /// Id or ARN of the certificate, where it is about one; the certificates as a whole if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateRef>,
    /// The access key that would ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<AccessKeyId>,
    /// Or the client key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_id: Option<ClientKeyId>,
    /// The address that it would ask from: of IPv4 or IPv6, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The encryption context that it would be done under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// A policy of the key that is to be tried: as if it were in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ExplainAccess`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainAccessReply {
    /// Whether it may.
    pub allowed: bool,
    /// The rule that decided, as the audit names it.
    pub rule: String,
    /// The same in a sentence, and what would change it.
    pub explanation: String,
    /// The id of the request.
    pub request_id: RequestId,
}
