//! What the audit keeps of a request: who, what, on which key, from where, with which outcome. Never a plaintext, a key or a
//! secret value: there is no field for one.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::id::{AccessKeyId, CertificateId, CmkId, RequestId, SecretName, SecretVersionId};
use crate::key::{Fallback, ProtectionLevel};
use crate::time::Timestamp;

/// One request as the audit keeps it.
#[derive(Clone, Debug, Serialize)]
pub struct AuditRecord<'a> {
    /// When it was answered.
    pub time: Timestamp,
    /// Its id.
    pub request: RequestId,
    /// Who asked; absent where nobody had logged in.
    pub principal: Option<&'a AccessKeyId>,
    /// Where the request came from.
    pub source: Option<IpAddr>,
    /// The frontend that took it.
    pub frontend: &'a str,
    /// The operation.
    pub operation: &'a str,
    /// `ok`, or the kind of the error.
    pub outcome: Outcome,
    /// The rule that allowed or denied it.
    pub rule: Cow<'a, str>,
    /// The keys it touched, and those that items named and that refused them; none that the principal has no right to.
    pub keys: &'a [KeyTouch],
    /// The secrets that it was about; none that the principal has no right to.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub secrets: &'a [SecretTouch],
    /// The certificates that it was about; none that the principal has no right to.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub certificates: &'a [CertificateId],
    /// Who did its items, or made the key that it keeps: tokens by the names that the configuration gives them, the provider of this
    /// process by its own. Empty where nothing was computed.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub providers: &'a [&'a str],
    /// Items asked for.
    pub items: u32,
    /// Items answered with an error.
    pub failed: u32,
    /// First 16 bytes of the SHA-256 of the canonical encryption context, in hexadecimal, where one was given; of a re-encryption that of the
    /// source, `>`, and that of the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Cow<'a, str>>,
    /// Why software copies of HSM keys did some of it, where they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo in DER) that a data key was exported for, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Cow<'a, str>>,
    /// The second caller who approved it, where the installation has it wait for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Cow<'a, str>>,
    /// Microseconds from the request's admission to its answer.
    pub micros: u64,
    /// Requests that came beside this one and differ from it in nothing but these.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub alike: &'a [Alike],
    /// The records that a management operation wrote.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub writes: &'a [RecordStamp],
}

/// A request that is recorded beside another: its id, and the microseconds from its admission to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike(pub RequestId, pub u64);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with a reply (single items of it may have failed).
    Done,
    /// Answered with an error.
    Failed(ErrorKind),
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Outcome::Done => serializer.serialize_str("ok"),
            Outcome::Failed(kind) => serializer.collect_str(&format_args!("{kind:?}")),
        }
    }
}

/// One key version that a request touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTouch {
    /// The CMK.
    pub cmk: CmkId,
    /// The version of it.
    pub version: u32,
    /// Items done under it.
    pub items: u32,
    /// Where its material lives in clear.
    pub protection: ProtectionLevel,
}

/// A secret that a request was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTouch {
    /// Its name.
    pub name: SecretName,
    /// The version, where it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SecretVersionId>,
}

/// A stored record as the audit remembers it, so that an older or missing row is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordStamp {
    /// The path of the record.
    pub path: String,
    /// Its sequence number after the write.
    pub sequence: u64,
    /// The record's tag in hexadecimal; empty where the record was removed.
    pub tag: String,
}
