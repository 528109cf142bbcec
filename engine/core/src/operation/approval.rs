//! Dual control: requests that wait for a second caller, and what that one says.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{ApprovalId, RequestId};
use crate::time::Timestamp;

/// Lists the requests that wait for a second caller, and those that were approved and not carried out yet; the oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListApprovalsRequest {
    /// From 1; the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u32>,
    /// Rows, up to 100; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListApprovals`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListApprovalsReply {
    /// The rows.
    pub approvals: Vec<ApprovalRow>,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `ListApprovals`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ApprovalRow {
    /// Its id.
    pub approval_id: ApprovalId,
    /// The operation that was asked for.
    pub operation: String,
    /// Its parameters as JSON, aliases of keys resolved.
    pub parameters: String,
    /// Who asked: `access-key/<id>` or `aap/<name>`.
    pub asked_by: String,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// When.
    pub ask_time: Timestamp,
    /// Who approved, where somebody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Until when it waits, or stands.
    pub expire_time: Timestamp,
}

/// Approves a request that waits, so that whoever asked can have it carried out by asking again. It takes another caller, who may do what is asked
/// for as well.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ApproveRequestRequest {
    /// The request.
    pub approval_id: ApprovalId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ApproveRequest`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ApproveRequestReply {
    /// The operation that may go on now.
    pub operation: String,
    /// Until when.
    pub expire_time: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Takes a request that waits, or was approved, away; whoever asked may do so as well.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RejectRequestRequest {
    /// The request.
    pub approval_id: ApprovalId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RejectRequest`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RejectRequestReply {
    /// The id of the request.
    pub request_id: RequestId,
}
