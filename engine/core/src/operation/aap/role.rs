//! Roles of an installation's own: sets of operations that access keys are granted and policies give.

use serde::{Deserialize, Serialize};

use crate::id::{RequestId, RoleName};

/// Makes a role; one that covers what only `Root` may do is made by `Root` alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateRoleRequest {
    /// Its name; taken by no other. Grants and policies name it `role/<name>`.
    pub name: RoleName,
    /// What it covers: `kms:<operation>`, or the beginning of names and `*`; up to 64. An operation takes its batch form along.
    pub actions: Vec<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateRole`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRoleReply {
    /// Its name.
    pub name: RoleName,
    /// Its ARN.
    pub arn: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Describes a role.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeRoleRequest {
    /// The role.
    pub name: RoleName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeRole`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeRoleReply {
    /// Its name.
    pub name: RoleName,
    /// Its ARN.
    pub arn: String,
    /// What it covers, as it was written.
    pub actions: Vec<String>,
    /// Free text.
    pub description: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists roles by name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListRolesRequest {
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

/// The reply of `ListRoles`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListRolesReply {
    /// The rows.
    pub roles: Vec<RoleRow>,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `ListRoles`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RoleRow {
    /// Its name.
    pub name: RoleName,
    /// Free text.
    pub description: String,
}

/// Changes a role; in force with the next request of each connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateRoleRequest {
    /// The role.
    pub name: RoleName,
    /// What it covers from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateRole`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateRoleReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes a role that no access key is granted and no policy names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteRoleRequest {
    /// The role.
    pub name: RoleName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteRole`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteRoleReply {
    /// The id of the request.
    pub request_id: RequestId,
}
