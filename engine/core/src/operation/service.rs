//! What the installation is, as the cloud's API asks for it. Of a private installation there is one region, and nothing to be ordered.

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::key::{KeySpec, KeyUsage, ProtectionLevel};

macro_rules! bare_requests {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default, Serialize, Deserialize)]
            #[serde(rename_all = "PascalCase", deny_unknown_fields)]
            pub struct $name {
                /// Milliseconds that the request may take.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub timeout_ms: Option<u64>,
            }
        )*
    };
}

bare_requests! {
    /// Lists the regions: the one that ARNs name.
    DescribeRegionsRequest;
    /// Tells whether the service may be used.
    DescribeAccountKmsStatusRequest;
    /// Tells which keys can be made.
    DescribeServiceRequest;
    /// Orders the service, which is refused: it is open.
    OpenKmsServiceRequest;
}

/// The reply of `DescribeRegions`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeRegionsReply {
    /// The rows.
    pub regions: RegionList,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `DescribeRegions`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegionList {
    /// The rows.
    pub region: Vec<RegionRow>,
}

/// One row of `DescribeRegions`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegionRow {
    /// As it stands in ARNs.
    pub region_id: String,
}

/// The reply of `DescribeAccountKmsStatus`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeAccountKmsStatusReply {
    /// `Enabled`.
    pub account_status: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// The reply of `DescribeService`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeServiceReply {
    /// Where material may live.
    pub protection_levels: ProtectionLevelList,
    /// The kinds of keys.
    pub key_specs: KeySpecList,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `DescribeService`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProtectionLevelList {
    /// The rows.
    pub protection_level: Vec<ProtectionLevelRow>,
}

/// One protection level of `DescribeService`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProtectionLevelRow {
    /// Its name.
    pub r#type: ProtectionLevel,
}

/// Rows of `DescribeService`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeySpecList {
    /// The rows.
    pub key_spec: Vec<KeySpecRow>,
}

/// One kind of key of `DescribeService`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeySpecRow {
    /// Its name.
    pub name: KeySpec,
    /// Where its material may live.
    pub supported_protection_levels: SupportedProtectionLevelList,
    /// What it may be for.
    pub usages: UsageList,
}

/// Rows of `DescribeService`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SupportedProtectionLevelList {
    /// The rows.
    pub supported_protection_level: Vec<ProtectionLevel>,
}

/// Rows of `DescribeService`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UsageList {
    /// The rows.
    pub usage: Vec<KeyUsage>,
}

/// The reply of `OpenKmsService`, which never comes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenKmsServiceReply {
    /// The id of the request.
    pub request_id: RequestId,
}
