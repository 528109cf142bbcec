//! Decisions over 10,000 access points with 100,000 permission rules, and what it takes to have them: to read all of it, and to change one of
//! its policies. Beside it, what is asked of an access key with one grant.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use keymill_bench::access::{RULES, Records, address, asks, cmk, policy};
use keymill_core::Sensitive;
use keymill_core::access::{
    AccessKey, AccessKeyStatus, Edit, Effect, Grant, Principal, ResourcePattern, Role, decide,
};
use keymill_core::id::AccessKeyId;
use keymill_core::time::Timestamp;

fn bench(c: &mut Criterion) {
    let records = Records::new().expect("the records are good");
    let mut snapshot = records.clone().compiled();
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
    // A thousand of them in turn, so that no look-up finds its entry in the nearest cache.
    let callers: Vec<_> = (0..1_000).map(|n| (n * 7, records.application(n * 7))).collect();
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
    group.bench_function("compile", |b| {
        b.iter_batched(|| records.clone(), Records::compiled, BatchSize::LargeInput)
    });
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
