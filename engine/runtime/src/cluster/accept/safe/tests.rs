//! That nothing comes back as more than it may be.

use keymill_core::instance::{BoundVpc, Connection, InstanceTerms, Stage};

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_795_521_617_000);

#[test]
fn counts_are_raised_by_all_that_can_have_been_reserved_and_to_the_limit_at_most() {
    assert_eq!(reserved_in(2), 18 << 20);
    assert_eq!(raise(5, reserved_in(0)), 5 + (16 << 20));
    assert_eq!(raise(1, reserved_in(u64::MAX)), limit::MAX_INVOCATIONS);
}

#[test]
fn what_may_have_allowed_more_is_of_policies_and_not_of_access_keys() {
    let gives = |path| gives_rights(&Path::new(path).unwrap());
    for path in ["aap/nx", "policy/nx", "client-key/1", "role/nx", "network-rule/nx", "approval/1"] {
        assert!(gives(path), "{path}");
    }
    for path in ["access-key/kx", "access-epoch/all", "cmk/1", "alias/nx"] {
        assert!(!gives(path), "{path}");
    }
}

#[test]
fn an_instance_is_reached_from_nowhere() {
    let vpc: keymill_core::id::VpcId = "a".parse().unwrap();
    let before = Instance {
        id: "kst-1".parse().unwrap(),
        name: "one".into(),
        created_at: NOW,
        stage: Stage::Made,
        domain: None,
        connection: Some(Connection { vpc: vpc.clone(), vswitches: Vec::new(), zones: Vec::new() }),
        bound: vec![BoundVpc { vpc, vswitch: None, region: None, owner: None }],
        terms: InstanceTerms::default(),
        protection: Some("kept".into()),
    };
    let payload = Anew::of(Kind::Instance, &before).unwrap().payload;
    let anew = Anew::safe(Kind::Instance as u8, payload, 0, false).unwrap();
    let after: Instance = decoded(&anew.payload).unwrap();
    assert_eq!(after.vpcs().count(), 0);
    assert_eq!(after, Instance { connection: None, bound: Vec::new(), ..before });
}

#[test]
fn an_account_of_acme_orders_nothing_more_and_one_that_has_ended_stays_as_it_is() {
    use AccountStatus::*;
    for (status, comes_back) in [(Valid, Revoked), (Deactivated, Deactivated), (Revoked, Revoked)] {
        let before = Account {
            id: keymill_core::id::AcmeAccountId::from_bytes([1; 16]),
            key: keymill_core::acme::AccountKey { jwk: "{}".into(), thumbprint: "x".into() },
            contact: Vec::new(),
            status,
            aap: "one".parse().unwrap(),
            binding: keymill_core::id::ClientKeyId::from_random([1; 16]),
            created: NOW,
        };
        let payload = Anew::of(Kind::AcmeAccount, &before).unwrap().payload;
        let anew = Anew::safe(Kind::AcmeAccount as u8, payload, 0, false).unwrap();
        assert_eq!(decoded::<Account>(&anew.payload).unwrap(), Account { status: comes_back, ..before });
    }
}

#[test]
fn what_has_no_state_stays_as_it_is() {
    let payload = Anew::of(Kind::Alias, &7).unwrap().payload;
    let anew = Anew::safe(Kind::Alias as u8, payload, 9, false).unwrap();
    assert_eq!((anew.kind, decoded::<u32>(&anew.payload).unwrap()), (Kind::Alias as u8, 7));
    assert!(Anew::end(NOW, None).unwrap().has_ended() && !anew.has_ended());
}
