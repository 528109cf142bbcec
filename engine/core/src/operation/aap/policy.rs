//! Permission policies: what applications may do, with which resources, and from where.

use serde::{Deserialize, Serialize};

use super::TextList;
use crate::access::{AccessControlRules, NamedResource, ResourcePattern, RoleRef};
use crate::id::{PolicyName, RequestId};

/// Makes a permission policy, which access points name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreatePolicyRequest {
    /// Its name; taken by no other.
    pub name: PolicyName,
    /// The instance that it is for: `shared`, as long as there is one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_instance: Option<String>,
    /// What may be done: `RbacPermission/Template/CryptoServiceKeyUser`, `RbacPermission/Template/CryptoServiceSecretUser`,
    /// `role/<name>`.
    pub permissions: Vec<RoleRef>,
    /// With which resources: `key/*`, `key/<id>`, `secret/*`, `secret/<name>`; `alias/<name>` for the key that it names now.
    pub resources: Vec<NamedResource>,
    /// From where: `{"NetworkRules":["<name>"]}`; from everywhere without a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_control_rules: Option<AccessControlRules>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreatePolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePolicyReply {
    /// Its name.
    pub name: PolicyName,
    /// Its ARN.
    pub arn: String,
    /// The instance that it is for: `shared`, as long as there is one alone.
    pub kms_instance: String,
    /// What may be done: `RbacPermission/Template/CryptoServiceKeyUser`, `RbacPermission/Template/CryptoServiceSecretUser`.
    pub permissions: TextList<RoleRef>,
    /// With which resources: `key/*`, `key/<id>`, `secret/*`, `secret/<name>`.
    pub resources: TextList<ResourcePattern>,
    /// From where: `{"NetworkRules":["<name>"]}`; from everywhere without a rule.
    pub access_control_rules: AccessControlRules,
    /// Free text.
    pub description: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Describes a permission policy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribePolicyRequest {
    /// The policy.
    pub name: PolicyName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribePolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribePolicyReply {
    /// Its name.
    pub name: PolicyName,
    /// Its ARN.
    pub arn: String,
    /// The instance that it is for: `shared`, as long as there is one alone.
    pub kms_instance: String,
    /// What may be done: `RbacPermission/Template/CryptoServiceKeyUser`, `RbacPermission/Template/CryptoServiceSecretUser`.
    pub permissions: Vec<RoleRef>,
    /// With which resources: `key/*`, `key/<id>`, `secret/*`, `secret/<name>`.
    pub resources: Vec<ResourcePattern>,
    /// From where: `{"NetworkRules":["<name>"]}`; from everywhere without a rule.
    pub access_control_rules: AccessControlRules,
    /// Free text.
    pub description: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists permission policies by name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListPoliciesRequest {
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

/// The reply of `ListPolicies`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListPoliciesReply {
    /// The rows.
    pub policies: PolicyList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListPolicies`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyList {
    /// The rows.
    pub policy: Vec<PolicyRow>,
}

/// One row of `ListPolicies`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyRow {
    /// Its name.
    pub name: PolicyName,
}

/// Changes a permission policy; in force with the next request of each connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdatePolicyRequest {
    /// The policy.
    pub name: PolicyName,
    /// What may be done: `RbacPermission/Template/CryptoServiceKeyUser`, `RbacPermission/Template/CryptoServiceSecretUser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<RoleRef>>,
    /// With which resources: `key/*`, `key/<id>`, `secret/*`, `secret/<name>`; `alias/<name>` for the key that it names now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<NamedResource>>,
    /// From where: `{"NetworkRules":["<name>"]}`; from everywhere without a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_control_rules: Option<AccessControlRules>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdatePolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdatePolicyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes a permission policy that no access point names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeletePolicyRequest {
    /// The policy.
    pub name: PolicyName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeletePolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeletePolicyReply {
    /// The id of the request.
    pub request_id: RequestId,
}
