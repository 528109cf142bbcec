//! Application access points, their client keys, permission policies and network rules: the control plane of applications.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Bin;
use crate::access::{AccessControlRules, ClientKeyAlgorithm, ClientKeyOrigin, ResourcePattern, Role};
use crate::id::{AapName, ClientKeyId, NetworkRuleName, PolicyName, RequestId, Text};
use crate::time::Timestamp;

/// A list that is text in an answer: `["a","b"]` without spaces, as the cloud writes it, where some clients compare it. In requests it is a
/// list like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextList<T>(pub Vec<T>);

impl<T: Serialize> Serialize for TextList<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for TextList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        serde_json::from_str(&text.0).map(Self).map_err(|_| de::Error::custom("not the JSON text of a list"))
    }
}

/// How an application shows which access point it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthenticationMethod {
    /// It signs with a client key.
    ClientKey,
}

/// Makes an application access point.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateApplicationAccessPointRequest {
    /// Its name; taken by no other.
    pub name: AapName,
    /// `ClientKey`, which is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_method: Option<AuthenticationMethod>,
    /// The policies that say what it may do, 1 to 3.
    pub policies: Vec<PolicyName>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateApplicationAccessPoint`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateApplicationAccessPointReply {
    /// Its name.
    pub name: AapName,
    /// Its ARN.
    pub arn: String,
    /// `ClientKey`.
    pub authentication_method: AuthenticationMethod,
    /// Free text.
    pub description: String,
    /// The policies that say what it may do.
    pub policies: TextList<PolicyName>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Describes an application access point.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeApplicationAccessPointRequest {
    /// The access point.
    pub name: AapName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeApplicationAccessPoint`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeApplicationAccessPointReply {
    /// Its name.
    pub name: AapName,
    /// Its ARN.
    pub arn: String,
    /// `ClientKey`.
    pub authentication_method: AuthenticationMethod,
    /// Free text.
    pub description: String,
    /// The policies that say what it may do.
    pub policies: TextList<PolicyName>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists application access points by name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListApplicationAccessPointsRequest {
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

/// The reply of `ListApplicationAccessPoints`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListApplicationAccessPointsReply {
    /// The rows.
    pub application_access_points: AapList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListApplicationAccessPoints`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AapList {
    /// The rows.
    pub application_access_point: Vec<AapRow>,
}

/// One row of `ListApplicationAccessPoints`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AapRow {
    /// Its name.
    pub name: AapName,
    /// `ClientKey`.
    pub authentication_method: AuthenticationMethod,
}

/// Changes an application access point; in force with the next request of each of its connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateApplicationAccessPointRequest {
    /// The access point.
    pub name: AapName,
    /// The policies that say what it may do from now on, 1 to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<PolicyName>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateApplicationAccessPoint`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateApplicationAccessPointReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes an application access point with its client keys; in force with the next request of each of its connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteApplicationAccessPointRequest {
    /// The access point.
    pub name: AapName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteApplicationAccessPoint`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteApplicationAccessPointReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a client key; its private half is told once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateClientKeyRequest {
    /// The access point that it is to be of.
    pub aap_name: AapName,
    /// What the PKCS #12 is locked with: 8 to 64 characters, of two kinds at least of digits, letters and `~!@#$%^&*?_-`.
    pub password: Password,
    /// From when on it is taken; now if absent, and then `NotAfter` is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is taken; five years later if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl fmt::Debug for CreateClientKeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateClientKeyRequest({})", self.aap_name)
    }
}

/// A password: wiped when it goes, and shown nowhere.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Takes a text for one.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// The reply of `CreateClientKey`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateClientKeyReply<'a> {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// Private key and certificate in PKCS #12 (RFC 7292), locked with the password; never told again.
    #[serde(borrow)]
    pub private_key_data: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}

impl fmt::Debug for CreateClientKeyReply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateClientKeyReply({})", self.client_key_id)
    }
}

/// Takes the public half of a key whose private half never leaves the application for a client key. Beyond the cloud's API.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RegisterClientKeyRequest {
    /// The access point that it is to be of.
    pub aap_name: AapName,
    /// SubjectPublicKeyInfo in PEM (RFC 7468 §13): RSA of 2,048, 3,072 or 4,096 bits, or EC on P-256.
    pub public_key: String,
    /// From when on it is taken; now if absent, and then `NotAfter` is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is taken; five years later if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RegisterClientKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterClientKeyReply {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Describes a client key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetClientKeyRequest {
    /// The client key.
    pub client_key_id: ClientKeyId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetClientKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetClientKeyReply {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// Whose it is.
    pub aap_name: AapName,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// Where it was made.
    pub key_origin: ClientKeyOrigin,
    /// A certificate in PEM; of a key that was registered the public key.
    pub public_key_data: String,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// When it was made.
    pub create_time: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the client keys of an access point, or of all; the oldest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListClientKeysRequest {
    /// The access point; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aap_name: Option<AapName>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListClientKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListClientKeysReply {
    /// The rows.
    pub client_keys: Vec<ClientKeyRow>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `ListClientKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientKeyRow {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// Whose it is.
    pub aap_name: AapName,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// Where it was made.
    pub key_origin: ClientKeyOrigin,
    /// A certificate in PEM; of a key that was registered the public key.
    pub public_key_data: String,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// When it was made.
    pub create_time: Timestamp,
}

/// Revokes a client key; in force with the next request of each of its connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteClientKeyRequest {
    /// The client key.
    pub client_key_id: ClientKeyId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteClientKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteClientKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a permission policy, which access points name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreatePolicyRequest {
    /// Its name; taken by no other.
    pub name: PolicyName,
    /// The instance that it is for: `shared`, as long as there is one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_instance: Option<String>,
    /// What may be done: `RbacPermission/Template/CryptoServiceKeyUser`, `RbacPermission/Template/CryptoServiceSecretUser`.
    pub permissions: Vec<Role>,
    /// With which resources: `key/*`, `key/<id>`, `secret/*`, `secret/<name>`.
    pub resources: Vec<ResourcePattern>,
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
    pub permissions: TextList<Role>,
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
    pub permissions: Vec<Role>,
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
    pub permissions: Option<Vec<Role>>,
    /// With which resources: `key/*`, `key/<id>`, `secret/*`, `secret/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<ResourcePattern>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_an_answer_is_text_without_spaces_and_reads_back() {
        let list = TextList(vec!["a".to_owned(), "b".to_owned()]);
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(json, r#""[\"a\",\"b\"]""#);
        assert_eq!(serde_json::from_str::<TextList<String>>(&json).unwrap(), list);
        for wrong in [r#""""#, r#""a""#, r#""[1]""#, r#"["a"]"#] {
            assert!(serde_json::from_str::<TextList<String>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_with_a_password_shows_none() {
        let json = r#"{"AapName":"app","Password":"secret-1234"}"#;
        let request: CreateClientKeyRequest = serde_json::from_str(json).unwrap();
        assert_eq!(format!("{request:?}"), "CreateClientKeyRequest(app)");
    }
}
