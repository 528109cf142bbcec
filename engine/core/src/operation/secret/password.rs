//! Passwords: made at random, of the kinds of characters that are asked for.

use serde::{Deserialize, Serialize};

use super::SecretText;
use crate::id::RequestId;

/// Makes a password; it is kept nowhere.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetRandomPasswordRequest {
    /// 8 to 128 characters; 32 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_length: Option<u32>,
    /// Characters that it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_characters: Option<String>,
    /// Whether it has no small letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_lowercase: Option<bool>,
    /// Whether it has no capital letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_uppercase: Option<bool>,
    /// Whether it has no digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_numbers: Option<bool>,
    /// Whether it has none of the other characters of ASCII that print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_punctuation: Option<bool>,
    /// Whether it has one at least of each kind that is left; it does if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_each_included_type: Option<bool>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetRandomPassword`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetRandomPasswordReply<'a> {
    /// The password.
    #[serde(borrow)]
    pub random_password: SecretText<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}
