//! Application access points, with what stands beside them: the control plane of applications.

mod client_key;
mod network_rule;
mod policy;
mod role;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use client_key::*;
pub use network_rule::*;
pub use policy::*;
pub use role::*;

use crate::id::{AapName, PolicyName, RequestId, Text};

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
}
