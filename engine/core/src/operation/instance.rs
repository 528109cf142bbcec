//! Instances (Dedicated KMS): made, connected to networks, bound, given terms, looked at and released. They are operations of the installation;
//! what is in an instance is reached through its own networks, by its own credentials.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::id::{AccessKeyId, DomainName, InstanceId, RequestId};
use crate::operation::KeyFilter;
use crate::time::Timestamp;

/// Makes an instance (beyond the cloud, where one is bought). It is connected to no network yet.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateKmsInstanceRequest {
    /// Free text of up to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name: Option<String>,
    /// The domain of its own, which its tokens hold, and which neither the installation nor an instance of another domain has keys of; that of the
    /// installation if absent. It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// Threads that use its software keys where that takes long; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_workers: Option<u32>,
    /// Tokens of the pool that its keys may live in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<InstanceToken>>,
    /// What it weighs beside others where they share tokens or processors, of 1 to 1,000; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Requests a second; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<NonZeroU64>,
    /// Items of data requests a second; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_per_second: Option<NonZeroU64>,
    /// Bytes of these items a second; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
    /// Customer master keys; as of the installation if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u64>,
    /// Secrets; as of the installation if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_secrets: Option<u64>,
    /// Certificates; as of the installation if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_certificates: Option<u64>,
    /// Networks that it can be bound to; 16 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vpcs: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A token that an instance may use, with sessions of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct InstanceToken {
    /// The name that the configuration gives it.
    pub token_name: String,
    /// Sessions.
    pub sessions: u32,
}

/// The reply of `CreateKmsInstance`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKmsInstanceReply {
    /// The id of the instance.
    pub kms_instance_id: InstanceId,
    /// The first access key of the instance, which may do everything in it.
    pub access_key_id: AccessKeyId,
    /// Its secret, which is told this once.
    pub access_key_secret: String,
    /// The id of the request.
    pub request_id: RequestId,
}

impl fmt::Debug for CreateKmsInstanceReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateKmsInstanceReply({}, {})", self.kms_instance_id, self.access_key_id)
    }
}

/// Connects an instance to its first network.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ConnectKmsInstanceRequest {
    /// The instance.
    pub kms_instance_id: String,
    /// `Aliyun`, or absent.
    #[serde(rename = "KMProvider", default, skip_serializing_if = "Option::is_none")]
    pub km_provider: Option<String>,
    /// The network, by the name that the configuration gives it.
    pub vpc_id: String,
    /// Kept as it is told; names with commas between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v_switch_ids: Option<String>,
    /// Kept as it is told; names with commas between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_ids: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Binds an instance to further networks: to these, and to none that it was bound to before but that which it was connected to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateKmsInstanceBindVpcRequest {
    /// The instance.
    pub kms_instance_id: String,
    /// The networks.
    pub bind_vpcs: Vec<BindVpc>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A further network of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BindVpc {
    /// The network, by the name that the configuration gives it.
    pub vpc_id: String,
    /// Kept as it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v_switch_id: Option<String>,
    /// Kept as it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// Kept as it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc_owner_id: Option<String>,
}

/// Changes what an instance may take (beyond the cloud); what is absent stays. Ceilings are in force with the next request, and of what there
/// is above one nothing goes. Threads, tokens and sessions follow within moments, and no request fails over that: what is new serves before anything
/// leaves, and what leaves does first what it holds. A token in which keys stay that no other has is not taken away.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateKmsInstancePoolRequest {
    /// The instance.
    pub kms_instance_id: String,
    /// Threads that use its software keys where that takes long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_workers: Option<u32>,
    /// Tokens of the pool that its keys may live in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<InstanceToken>>,
    /// What it weighs beside others where they share tokens or processors, of 1 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Requests a second; 0: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u64>,
    /// Items of data requests a second; 0: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_per_second: Option<u64>,
    /// Bytes of these items a second; 0: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Customer master keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u64>,
    /// Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_secrets: Option<u64>,
    /// Certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_certificates: Option<u64>,
    /// Networks that it can be bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vpcs: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Releases an instance: it ends, with everything in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ReleaseKmsInstanceRequest {
    /// The instance.
    pub kms_instance_id: String,
    /// `true`: also where it holds keys, which are lost then. `false` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_delete_without_backup: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

macro_rules! bare_replies {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Serialize, Deserialize)]
            #[serde(rename_all = "PascalCase")]
            pub struct $name {
                /// The id of the request.
                pub request_id: RequestId,
            }
        )*
    };
}

bare_replies! {
    /// The reply of `ConnectKmsInstance`.
    ConnectKmsInstanceReply;
    /// The reply of `UpdateKmsInstanceBindVpc`.
    UpdateKmsInstanceBindVpcReply;
    /// The reply of `UpdateKmsInstancePool`.
    UpdateKmsInstancePoolReply;
    /// The reply of `ReleaseKmsInstance`.
    ReleaseKmsInstanceReply;
}

/// Shows an instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetKmsInstanceRequest {
    /// The instance.
    pub kms_instance_id: String,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetKmsInstance`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKmsInstanceReply {
    /// The instance.
    pub kms_instance: KmsInstanceShown,
    /// The id of the request.
    pub request_id: RequestId,
}

/// What `GetKmsInstance` tells. Of a private installation nothing is sold: what the cloud tells of that is not told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KmsInstanceShown {
    /// Its id.
    pub instance_id: InstanceId,
    /// Free text.
    pub instance_name: String,
    /// `Uninitialized`, `Connected`, `Disconnected` (it is being released) or `Error` (it does not run).
    pub status: String,
    /// When it was created.
    pub create_time: Timestamp,
    /// The network that it was connected to first; empty where it was to none.
    pub vpc_id: String,
    /// As it was told.
    pub vswitch_ids: Vec<String>,
    /// As it was told.
    pub zone_ids: Vec<String>,
    /// Further networks.
    pub bind_vpcs: BindVpcList,
    /// Networks that it can be bound to.
    pub vpc_num: u64,
    /// Customer master keys that it may hold.
    pub key_num: u64,
    /// Secrets that it may hold, as text.
    pub secret_num: String,
    /// Requests a second; 0: unlimited.
    pub spec: u64,
    /// The version of the server.
    pub product_version: String,
    /// What its clients trust as the issuer of the server's certificate, in PEM; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate_chain_pem: Option<String>,
    /// Whether it is protected against its release.
    pub deletion_protection: bool,
    /// Why it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection_description: Option<String>,
    /// Its domain, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// Threads that use its software keys where that takes long.
    pub software_workers: u64,
    /// Tokens of the pool that its keys may live in.
    #[serde(default)]
    pub tokens: Vec<InstanceTokenShown>,
    /// What it weighs beside others where they share tokens or processors.
    pub weight: u64,
    /// Items of data requests a second; 0: unlimited.
    pub items_per_second: u64,
    /// Bytes of these items a second; 0: unlimited.
    pub bytes_per_second: u64,
    /// Certificates that it may hold.
    pub certificate_num: u64,
}

/// A token of an instance as it is at the server that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceTokenShown {
    /// The name that the configuration gives it.
    pub token_name: String,
    /// Sessions that are wanted; 0 of one that leaves the pool of the instance as soon as another serves, and nothing waits for it.
    pub sessions: u32,
    /// Sessions that are open.
    #[serde(default)]
    pub open_sessions: u64,
    /// `up`, `out`, `drained` or `refused`.
    #[serde(default)]
    pub state: String,
}

/// Further networks, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BindVpcList {
    /// The rows.
    pub bind_vpc: Vec<BindVpc>,
}

/// Lists the instances.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListKmsInstancesRequest {
    /// From 1; the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u32>,
    /// Rows, up to 100; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// By `InstanceId`, `InstanceName`, `Status` or `VpcId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<KeyFilter>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListKmsInstances`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListKmsInstancesReply {
    /// The rows.
    pub kms_instances: KmsInstanceList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListKmsInstances`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KmsInstanceList {
    /// The rows.
    pub kms_instance: Vec<KmsInstanceRow>,
}

/// One row of `ListKmsInstances`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KmsInstanceRow {
    /// The id.
    pub kms_instance_id: InstanceId,
    /// The resource name.
    pub kms_instance_arn: String,
}

/// Tells which instance is the default one: the oldest that is connected.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetDefaultKmsInstanceRequest {
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetDefaultKmsInstance`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetDefaultKmsInstanceReply {
    /// Its id; absent where none is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_kms_instance_id: Option<InstanceId>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Tells what an instance uses, and may.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetKmsInstanceQuotaInfosRequest {
    /// The instance; the default one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_instance_id: Option<String>,
    /// `key`, `secret`, `qps`, `vpc`, `hsmSession` or `softwareWorker`, the last two beyond the cloud; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetKmsInstanceQuotaInfos`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKmsInstanceQuotaInfosReply {
    /// The instance.
    pub kms_instance_id: InstanceId,
    /// The rows.
    pub kms_instance_quota_infos: Vec<QuotaInfo>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `GetKmsInstanceQuotaInfos`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct QuotaInfo {
    /// `key`, `secret`, `qps`, `vpc`, `hsmSession` or `softwareWorker`.
    pub resource_type: String,
    /// As much as there may be; 0 of `qps`: unlimited.
    pub resource_quota: u64,
    /// As much as there is; of `qps`, requests in the last whole second that was measured, on all servers.
    pub used_quantity: u64,
}
