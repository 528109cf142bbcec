//! A scene as an instance, as `KEYMILL_TEST_INSTANCES` has all of them: the other one is there, has all names as well, and knows nothing of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{Connection, Options};
use keymill_e2e::{Caller, Rows, audit_lines, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;

fn beside(live: &Live) -> Caller {
    let (_, address, credentials) = live.neighbour().unwrap();
    Caller::of(Connection::open(address, credentials, &Options::default()).unwrap())
}

#[test]
fn a_scene_is_an_instance_beside_another_that_has_all_names_and_nothing_behind_them() {
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).as_instance());
    let id = live.instance().unwrap().to_owned();
    assert_ne!(live.neighbour().unwrap().0, id);
    let mut caller = Caller::new(&live, &credentials);
    // Who asks the scene, and nobody beside.
    let mut alone = Caller::of(live.connect(&credentials));
    let key = caller.create_key();
    caller.create_alias("alias/orders", key).unwrap();
    caller.create_secret("db", "v1", "value").unwrap();
    let blob = caller.encrypt("alias/orders", b"of the scene", &[]).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"of the scene");

    let mut other = beside(&live);
    assert_ne!(other.describe("alias/orders").unwrap().key_id, key);
    assert!(other.value("db").is_ok(), "it was asked for there as well");
    assert!(other.describe(key).is_err() && other.decrypt(&blob, &[]).is_err());
    // And what was done there is nothing to the scene.
    other.delete_alias("alias/orders").unwrap();
    let its_own = other.create_key();
    assert!(alone.describe(its_own).is_err());
    assert_eq!(alone.describe("alias/orders").unwrap().key_id, key);
    drop((caller, alone, other));

    let site = live.halt();
    verified(&site);
    assert!(audit_lines(&site).iter().any(|line| line["operation"] == "CreateAlias"));
    assert!(Rows::of(&site).get(&format!("cmk/{key}")).is_some());
    assert!(Rows::of(&site).paths("instance").is_empty(), "its part of the store reads as if it was all");
    let live = site.start(Setup::new(EngineConfig::default()));
    assert_eq!(live.instance(), Some(&*id));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"of the scene");
    assert!(beside(&live).describe("alias/orders").is_err());
}
