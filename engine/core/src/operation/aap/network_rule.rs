//! Network rules: from which addresses applications may come.

use serde::{Deserialize, Serialize};

use super::TextList;
use crate::id::{NetworkRuleName, RequestId};

/// What kind of addresses a network rule has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkRuleType {
    /// Those that callers have as this server sees them.
    Private,
}

/// Makes a network rule, which policies name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateNetworkRuleRequest {
    /// Its name; taken by no other.
    pub name: NetworkRuleName,
    /// `Private`, which is the only one.
    pub r#type: NetworkRuleType,
    /// Addresses and ranges (CIDR) of IPv4 and IPv6, up to 800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_private_ip: Option<Vec<String>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateNetworkRule`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetworkRuleReply {
    /// Its name.
    pub name: NetworkRuleName,
    /// Its ARN.
    pub arn: String,
    /// `Private`.
    pub r#type: NetworkRuleType,
    /// Addresses and ranges (CIDR) of IPv4 and IPv6, up to 800.
    pub source_private_ip: TextList<String>,
    /// Free text.
    pub description: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Describes a network rule.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeNetworkRuleRequest {
    /// The network rule.
    pub name: NetworkRuleName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeNetworkRule`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeNetworkRuleReply {
    /// Its name.
    pub name: NetworkRuleName,
    /// Its ARN.
    pub arn: String,
    /// `Private`.
    pub r#type: NetworkRuleType,
    /// Addresses and ranges (CIDR) of IPv4 and IPv6, up to 800.
    pub source_private_ip: TextList<String>,
    /// Free text.
    pub description: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists network rules by name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListNetworkRulesRequest {
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

/// The reply of `ListNetworkRules`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListNetworkRulesReply {
    /// The rows.
    pub network_rules: NetworkRuleList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListNetworkRules`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkRuleList {
    /// The rows.
    pub network_rule: Vec<NetworkRuleRow>,
}

/// One row of `ListNetworkRules`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkRuleRow {
    /// Its name.
    pub name: NetworkRuleName,
    /// `Private`.
    pub r#type: NetworkRuleType,
}

/// Changes a network rule; in force with the next request of each connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateNetworkRuleRequest {
    /// The network rule.
    pub name: NetworkRuleName,
    /// Addresses and ranges (CIDR) of IPv4 and IPv6, up to 800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_private_ip: Option<Vec<String>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateNetworkRule`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateNetworkRuleReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes a network rule that no policy names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteNetworkRuleRequest {
    /// The network rule.
    pub name: NetworkRuleName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteNetworkRule`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteNetworkRuleReply {
    /// The id of the request.
    pub request_id: RequestId,
}
