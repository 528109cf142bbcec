//! Decisions over 10,000 access points with 100,000 permission rules, and what it takes to have them: to read all of it, and to change one of
//! its policies. Beside it, what is asked of an access key with one grant.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use keymill_core::access::{
    Aap, AccessControlRules, AccessKey, AccessKeyStatus, AccessSnapshot, ClientKey, ClientKeyAlgorithm,
    ClientKeyOrigin, Edit, Effect, Grant, NetworkRule, PermissionPolicy, Principal, Question, Resource,
    ResourcePattern, Role, SHARED, decide,
};
use keymill_core::id::{AccessKeyId, ClientKeyId, CmkId, NameMap};
use keymill_core::operation::Operation;
use keymill_core::time::Timestamp;
use keymill_core::{Result, Sensitive};

const AAPS: u64 = 10_000;
/// Rules of each access point: what its policy says of each of its keys.
const RULES: u64 = 10;
const NETWORK_RULES: u64 = 100;

/// What the installation has of each kind.
#[derive(Clone)]
struct Records {
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

fn cmk(aap: u64, rule: u64) -> CmkId {
    CmkId::from_random(id(aap * RULES + rule))
}

fn policy(n: u64) -> Result<PermissionPolicy> {
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

fn records() -> Result<Records> {
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

fn compiled(Records { client_keys, aaps, policies, network_rules }: Records) -> AccessSnapshot {
    AccessSnapshot::of(NameMap::default(), client_keys, aaps, policies, network_rules, [])
}

fn asks(principal: &Principal, key: CmkId, source: IpAddr) -> Question<'_> {
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

fn bench(c: &mut Criterion) {
    let records = records().expect("the records are good");
    let mut snapshot = compiled(records.clone());
    let access_key: AccessKeyId = "KMAK00000001".parse().expect("an id");
    let grant = Grant {
        effect: Effect::Allow,
        role: Role::CryptoServiceKeyUser.into(),
        resources: vec![ResourcePattern::AllKeys],
    };
    let key = AccessKey {
        id: access_key.clone(),
        secret: Sensitive::copied(b"secret"),
        description: String::new(),
        status: AccessKeyStatus::Active,
        grants: vec![grant],
        created_at: Timestamp::from_ms(0),
    };
    snapshot.access_keys.insert(access_key.clone(), key.into());
    let application = |n: u64| {
        let key = &records.client_keys[n as usize];
        Principal::of_client_key(AccessKeyId::from(&key.id), key.aap.clone())
    };
    // A thousand of them in turn, so that no look-up finds its entry in the nearest cache.
    let callers: Vec<_> = (0..1_000).map(|n| (n * 7, application(n * 7))).collect();
    let address = |n: u64| IpAddr::from([10, (n % NETWORK_RULES) as u8, 4, 9]);
    let mut group = c.benchmark_group("decide");
    group.bench_function("access_key", |b| {
        let principal = Principal::of_access_key(access_key.clone());
        b.iter(|| decide(&snapshot, &asks(black_box(&principal), cmk(1, 1), address(1)), None).allowed);
    });
    for (name, rule, from, expected) in
        [("allowed", 3, 0, true), ("of_another_key", RULES, 0, false), ("from_elsewhere", 3, 1, false)]
    {
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                at = (at + 1) % callers.len();
                let (n, principal) = &callers[at];
                let asked = asks(black_box(principal), cmk(*n, rule), address(n + from));
                assert_eq!(decide(&snapshot, &asked, None).allowed, expected);
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("access");
    group.sample_size(20);
    group.bench_function("compile", |b| b.iter_batched(|| records.clone(), compiled, BatchSize::LargeInput));
    group.bench_function("change_a_policy", |b| {
        b.iter(|| {
            let mut next = snapshot.clone();
            next.apply(Edit::PutPolicy(policy(77).expect("a policy")));
            next
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
