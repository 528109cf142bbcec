//! An installation of 10,000 access points with 100,000 permission rules: what decisions are measured over.

use std::net::IpAddr;

use keymill_core::Result;
use keymill_core::access::{
    Aap, AccessControlRules, AccessSnapshot, ClientKey, ClientKeyAlgorithm, ClientKeyOrigin, NetworkRule,
    PermissionPolicy, Principal, Question, Resource, ResourcePattern, Role, SHARED,
};
use keymill_core::id::{AccessKeyId, ClientKeyId, CmkId, NameMap};
use keymill_core::operation::Operation;
use keymill_core::time::Timestamp;

/// Access points, each with a client key and a policy.
pub const AAPS: u64 = 10_000;
/// Rules of each access point: what its policy says of each of its keys.
pub const RULES: u64 = 10;
/// Network rules, of eight ranges each.
pub const NETWORK_RULES: u64 = 100;

/// What the installation has of each kind.
#[derive(Clone)]
pub struct Records {
    client_keys: Vec<ClientKey>,
    aaps: Vec<Aap>,
    policies: Vec<PermissionPolicy>,
    network_rules: Vec<NetworkRule>,
}

fn id(n: u64) -> [u8; 16] {
    // A bijection, so that ids do not stand in the order of their numbers.
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes[8..].copy_from_slice(&n.rotate_left(17).to_be_bytes());
    bytes
}

/// Returns a key that an access point's policy names, where `rule` is less than [`RULES`].
pub fn cmk(aap: u64, rule: u64) -> CmkId {
    CmkId::from_random(id(aap * RULES + rule))
}

/// Makes the policy of an access point.
///
/// # Errors
/// None that this text does not have.
pub fn policy(n: u64) -> Result<PermissionPolicy> {
    Ok(PermissionPolicy {
        name: format!("policy-{n}").parse()?,
        description: String::new(),
        instance: SHARED.into(),
        permissions: vec![Role::CryptoServiceKeyUser.into()],
        resources: (0..RULES).map(|rule| ResourcePattern::Key(cmk(n, rule))).collect(),
        access_control: AccessControlRules::parse(&format!(
            r#"{{"NetworkRules":["network-{}"]}}"#,
            n % NETWORK_RULES
        ))?,
        created_at: Timestamp::from_ms(0),
    })
}

impl Records {
    /// Makes them all.
    ///
    /// # Errors
    /// None that these texts do not have.
    pub fn new() -> Result<Self> {
        let network = |n: u64| {
            let sources: Vec<_> = (0..8).map(|part| format!("10.{n}.{}.0/24", part * 2)).collect();
            NetworkRule::new(format!("network-{n}").parse()?, String::new(), &sources)
        };
        let aap = |n: u64| {
            Ok(Aap {
                name: format!("app-{n}").parse()?,
                description: String::new(),
                policies: vec![format!("policy-{n}").parse()?],
                created_at: Timestamp::from_ms(0),
            })
        };
        let client_key = |n: u64| {
            Ok(ClientKey {
                id: ClientKeyId::from_random(id(n)),
                aap: format!("app-{n}").parse()?,
                algorithm: ClientKeyAlgorithm::Rsa2048,
                origin: ClientKeyOrigin::Kms,
                public_key: Vec::new(),
                shown: String::new(),
                certificate: None,
                not_before: Timestamp::from_ms(0),
                not_after: Timestamp::from_ms(u64::MAX),
                created_at: Timestamp::from_ms(0),
            })
        };
        Ok(Records {
            client_keys: (0..AAPS).map(client_key).collect::<Result<_>>()?,
            aaps: (0..AAPS).map(aap).collect::<Result<_>>()?,
            policies: (0..AAPS).map(policy).collect::<Result<_>>()?,
            network_rules: (0..NETWORK_RULES).map(network).collect::<Result<_>>()?,
        })
    }

    /// Returns the application of an access point, by its client key.
    pub fn application(&self, n: u64) -> Principal {
        let key = &self.client_keys[n as usize];
        Principal::of_client_key(AccessKeyId::from(&key.id), key.aap.clone())
    }

    /// Puts together what decisions read.
    pub fn compiled(self) -> AccessSnapshot {
        let Self { client_keys, aaps, policies, network_rules } = self;
        AccessSnapshot::of(NameMap::default(), client_keys, aaps, policies, network_rules, [], [])
    }
}

/// Returns an address that a policy takes, of access point `n`.
pub fn address(n: u64) -> IpAddr {
    IpAddr::from([10, (n % NETWORK_RULES) as u8, 4, 9])
}

/// Asks whether somebody may encrypt.
pub fn asks(principal: &Principal, key: CmkId, source: IpAddr) -> Question<'_> {
    Question {
        principal,
        operation: Operation::Encrypt,
        resource: Resource::Key(key),
        source: Some(source),
        now: Timestamp::from_ms(1),
        spec: None,
        context: None,
    }
}
