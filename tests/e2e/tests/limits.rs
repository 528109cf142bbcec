//! What callers can make is bounded (CWE-770): at each limit of an installation the next one is refused, and room that is made is room again.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::limit::{MaxRecords, SYMMETRIC_KEY_VERSIONS};
use keymill_core::operation::*;
use keymill_e2e::{Answered, Caller};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;

fn begin() -> (Live, Caller) {
    let max_records =
        MaxRecords { keys: 2, aliases: 2, data_keys: 1, access_keys: 3, ..MaxRecords::default() };
    let Started { live, credentials } = Live::start(EngineConfig { max_records, ..EngineConfig::default() });
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

fn refused<T>(answered: Answered<T>, code: &str) {
    let error = answered.map(drop).expect_err("the limit is reached");
    assert_eq!(
        (error.status, &*error.code, error.retryable),
        (400, &*format!("Rejected.LimitExceeded.{code}"), false)
    );
}

#[test]
fn at_each_limit_the_next_one_is_refused_and_what_was_removed_makes_room() {
    let (_live, mut root) = begin();
    let key = root.create_key();
    root.create_key();
    refused(root.create_described(""), "Keys");
    root.create_alias("alias/a", key).unwrap();
    root.create_alias("alias/b", key).unwrap();
    refused(root.create_alias("alias/c", key), "Aliases");
    root.move_alias("alias/b", key).unwrap();
    root.delete_alias("alias/a").unwrap();
    root.create_alias("alias/c", key).unwrap();
    root.create_data_key("one", key).unwrap();
    refused(root.create_data_key("two", key), "DataKeys");
    root.renew_data_key("one").unwrap();
    // The first start made one.
    let (id, _) = root.create_access_key(Vec::new()).unwrap();
    root.create_access_key(Vec::new()).unwrap();
    refused(root.create_access_key(Vec::new()), "AccessRecords");
    root.set_grants(&id, Vec::new()).unwrap();
    root.delete_access_key(&id).unwrap();
    root.create_access_key(Vec::new()).unwrap();
}

#[test]
fn the_limits_of_the_installation_are_told() {
    let (_live, mut root) = begin();
    let told = root
        .ask(DescribeLimitsRequest::default(), |reply| match reply {
            Reply::DescribeLimits(reply) => {
                (reply.keys, reply.aliases, reply.managed_data_keys, reply.access_keys)
            }
            other => panic!("{:?}", other.operation()),
        })
        .unwrap();
    assert_eq!(told, (2, 2, 1, 3));
}

#[test]
fn a_symmetric_key_is_rotated_up_to_its_limit_and_opens_what_its_first_version_sealed() {
    let (_live, mut root) = begin();
    let key = root.create_key();
    let blob = root.encrypt(key, b"x", &[]).unwrap();
    for _ in 1..SYMMETRIC_KEY_VERSIONS {
        root.rotate(key).unwrap();
    }
    refused(root.rotate(key), "KeyVersions");
    assert_eq!(root.decrypt(&blob, &[]).unwrap(), b"x");
    root.encrypt(key, b"x", &[]).unwrap();
}
