//! Where records stand.

use keymill_core::id::{
    AapName, AccessKeyId, AcmeAccountId, AcmeOrderId, AliasName, ApprovalId, AuthorityName, CertificateId,
    ClientKeyId, CmkId, DataKeyName, InstanceId, NetworkRuleName, NodeName, PolicyName, RoleName, SecretName,
};
use keymill_core::seam::store::{self, Path};
use keymill_crypto::digest;

fn path(text: String) -> Path {
    Path::new(text).expect("ids and encoded names are valid segments")
}

/// Returns the path of a prefix.
pub fn prefix(text: &str) -> Path {
    path(text.to_owned())
}

/// Returns where a CMK stands.
pub fn cmk_path(id: &CmkId) -> Path {
    path(format!("cmk/{id}"))
}

/// Returns where the material of a version stands.
pub fn material_path(id: &CmkId, version: u32) -> Path {
    path(format!("material/{id}/{version}"))
}

/// Returns where the use counts of a CMK stand: those of a node, in a cluster.
pub fn usage_path(id: &CmkId, node: Option<&NodeName>) -> Path {
    match node {
        Some(node) => path(format!("usage/{id}/{node}")),
        None => path(format!("usage/{id}")),
    }
}

/// Returns the key whose use counts stand at a path, and the node that counted them, where it is one's.
pub fn usage_at(path: &str) -> Option<(CmkId, Option<&str>)> {
    let rest = path.strip_prefix("usage/")?;
    match rest.split_once('/') {
        Some((id, node)) => Some((CmkId::parse(id)?, Some(node))),
        None => Some((CmkId::parse(rest)?, None)),
    }
}

/// Returns where the reserved invocations of a CMK stand.
pub fn invocations_path(id: &CmkId) -> Path {
    path(format!("invocations/{id}"))
}

/// Returns where the parameters of an import to a CMK stand.
pub fn import_path(id: &CmkId) -> Path {
    path(format!("import/{id}"))
}

/// Returns where an account of ACME stands.
pub fn acme_account_path(id: &AcmeAccountId) -> Path {
    path(format!("acme-account/{id}"))
}

/// Returns where an order of ACME stands.
pub fn acme_order_path(id: &AcmeOrderId) -> Path {
    path(format!("acme-order/{id}"))
}

/// Returns where an alias stands: `n` and its characters, but for `/`, which becomes `.` (no alias holds one).
pub fn alias_path(name: &AliasName) -> Path {
    let name = name.as_str().strip_prefix("alias/").expect("every alias begins so");
    path(format!("alias/n{}", name.replace('/', ".")))
}

/// Returns where a managed data key stands: by the SHA-256 of its name, which may hold what a path may not.
pub fn data_key_path(name: &DataKeyName) -> Path {
    path(format!("data-key/{}", digest::hex(&digest::sha256(name.as_str().as_bytes()))))
}

/// Returns where a secret stands: by the SHA-256 of its name, which may hold what a path may not.
pub fn secret_path(name: &SecretName) -> Path {
    path(format!("secret/{}", digest::hex(&digest::sha256(name.as_str().as_bytes()))))
}

/// Returns where the value of that version of a secret stands.
pub fn secret_value_path(name: &SecretName, number: u32) -> Path {
    path(format!("secret-value/{}/{number}", digest::hex(&digest::sha256(name.as_str().as_bytes()))))
}

/// Returns where an access key stands.
pub fn access_key_path(id: &AccessKeyId) -> Path {
    path(format!("access-key/k{id}"))
}

/// Returns where the record stands that every change of who may do what writes.
pub fn access_epoch_path() -> Path {
    prefix("access-epoch/all")
}

/// Returns where an application access point stands.
pub fn aap_path(name: &AapName) -> Path {
    path(format!("aap/n{name}"))
}

/// Returns where a client key stands.
pub fn client_key_path(id: &ClientKeyId) -> Path {
    path(format!("client-key/{id}"))
}

/// Returns where a permission policy stands.
pub fn policy_path(name: &PolicyName) -> Path {
    path(format!("policy/n{name}"))
}

/// Returns where a network rule stands.
pub fn network_rule_path(name: &NetworkRuleName) -> Path {
    path(format!("network-rule/n{name}"))
}

/// Returns where a role of the installation's own stands.
pub fn role_path(name: &RoleName) -> Path {
    path(format!("role/n{name}"))
}

/// Returns where a request stands that waits for a second caller.
pub fn approval_path(id: &ApprovalId) -> Path {
    path(format!("approval/{id}"))
}

/// Returns where the record of an instance stands.
pub fn instance_path(id: &InstanceId) -> Path {
    path(format!("instance/{id}"))
}

/// Returns where a certificate stands.
pub fn certificate_path(id: &CertificateId) -> Path {
    path(format!("certificate/{id}"))
}

/// Returns where an authority stands.
pub fn authority_path(name: &AuthorityName) -> Path {
    path(format!("authority/n{name}"))
}

/// Returns where the newest list of what an authority revoked stands.
pub fn crl_path(name: &AuthorityName) -> Path {
    path(format!("crl/n{name}"))
}

/// Returns where the bytes of a certificate stand.
pub fn certificate_body_path(id: &CertificateId) -> Path {
    path(format!("certificate-body/{id}"))
}

/// Returns the certificate whose record stands at a path, where it is one's.
pub fn certificate_at(path: &str) -> Option<CertificateId> {
    path.strip_prefix("certificate/").and_then(CertificateId::parse)
}

/// Tells whether the record at a path is the policy actor's.
pub fn is_of_access(path: &str) -> bool {
    let kind = path.split('/').next().unwrap_or_default();
    ["access-key", "access-epoch", "aap", "client-key", "policy", "network-rule", "role", "approval"]
        .contains(&kind)
}

/// Returns below what the heads of audit chains stand: those of a node, in a cluster.
pub fn audit_heads(node: Option<&NodeName>) -> Path {
    match node {
        Some(node) => path(format!("audit-head/{node}/")),
        None => path("audit-head/".to_owned()),
    }
}

/// Returns where the head of an audit chain stands.
pub fn audit_head_path(node: Option<&NodeName>, chain: &str) -> Path {
    path(format!("{}{chain}", audit_heads(node)))
}

/// Returns where the nonce of an access key stands that runs out with that bucket: the soonest forgotten first, and of its characters a
/// hash, which a path holds.
pub fn nonce_path(bucket: u64, key: &AccessKeyId, hash: &[u8; 32]) -> Path {
    path(format!("nonce/{bucket:010}/k{key}/{}", digest::hex(&hash[..16])))
}

/// Returns whose nonce stands at a path, and with which bucket it runs out; `None` for a path that is none of ours.
pub fn nonce_at(path: &Path) -> Option<(u64, AccessKeyId)> {
    let (bucket, rest) = path.as_str().strip_prefix("nonce/")?.split_once('/')?;
    let (key, _) = rest.strip_prefix('k')?.split_once('/')?;
    Some((bucket.parse().ok()?, key.parse().ok()?))
}

/// Returns where it stands whether the store is of another history.
pub fn history_path() -> Path {
    prefix(store::ALARM)
}

/// Below here lies what nodes leave for their own next starts.
pub const WITNESSES: &str = "witness/";

/// Returns where a node leaves that, in the history that was accepted then.
pub fn witness_path(node: &NodeName, accepted: u64) -> Path {
    path(format!("{WITNESSES}{node}/{accepted}"))
}

/// Returns the history in which a node left what stood at a path, where it is its own.
pub fn witness_at(path: &str, node: &NodeName) -> Option<u64> {
    let (of, accepted) = path.strip_prefix(WITNESSES)?.split_once('/')?;
    (of == node.as_str()).then(|| accepted.parse().ok()).flatten()
}

/// Returns where it stands what a node says of itself.
pub fn node_path(node: &NodeName) -> Path {
    path(format!("node/{node}"))
}

/// Returns the node that says of itself what stands at a path, where it is one's.
pub fn node_at(path: &str) -> Option<NodeName> {
    path.strip_prefix("node/")?.parse().ok()
}

/// Returns where the installation's own record stands.
pub fn installation_path() -> Path {
    prefix("installation")
}
