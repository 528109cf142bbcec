//! Operations on the tokens of the crypto pool: how they are, and taking one out of service and in again.

use serde::{Deserialize, Serialize};

use crate::id::RequestId;

/// Lists the tokens of the pool.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListTokensRequest {
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListTokens`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTokensReply {
    /// The rows, in the order of the configuration.
    pub tokens: Vec<TokenRow>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// How one token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TokenRow {
    /// The name that the configuration gives it.
    pub token_name: String,
    /// `up`, `out` (it is being tried), `drained` (by an operator), or `refused` (an operator has to act).
    pub state: String,
    /// What went wrong last; absent where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Sessions that are open.
    pub sessions: u64,
    /// Those of them that take work; the others rest, and stand in for those that are lost.
    #[serde(default)]
    pub sessions_at_work: u64,
    /// Seconds since the oldest of them was opened; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_session_seconds: Option<u64>,
    /// How often the token was connected since the start.
    #[serde(default)]
    pub generation: u64,
    /// Sessions that are wanted.
    pub sessions_wanted: u64,
    /// Threads in calls that do not return.
    pub hung_calls: u64,
    /// Sessions lost since the start.
    pub sessions_lost: u64,
    /// Items done since the start.
    pub items: u64,
    /// Keys loaded.
    pub keys_loaded: u64,
    /// Nanoseconds that one item takes, of late.
    pub nanoseconds_per_item: u64,
}

/// Takes a token out of service: its sessions finish what they have, and it is given nothing more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DrainTokenRequest {
    /// The name that the configuration gives it.
    pub token_name: String,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DrainToken`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DrainTokenReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Takes a token into service again; one that refused to be connected is tried once more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EnableTokenRequest {
    /// The name that the configuration gives it.
    pub token_name: String,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `EnableToken`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EnableTokenReply {
    /// The id of the request.
    pub request_id: RequestId,
}
