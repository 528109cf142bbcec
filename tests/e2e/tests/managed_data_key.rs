//! Managed data keys: made, renewed, given out, kept over a restart, and gone with their key; and nobody else's.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_client::ServerError;
use keymill_core::access::Grant;
use keymill_e2e::{Caller, GRANTED, Rows, eventually, find_in_files, named, policy, statement, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::json;

const NO_DATA_KEY: &str = "Forbidden.ResourceNotFound";
const NAME: &str = "apps/orders+1=x.y@z";

fn begin() -> (Live, Caller, keymill_client::Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn grants(value: serde_json::Value) -> Vec<Grant> {
    serde_json::from_value(value).expect("grants")
}

fn code<T>(answered: Result<T, ServerError>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

#[test]
fn it_is_the_same_for_everybody_in_every_version_and_after_a_restart() {
    let (live, mut caller, credentials) = begin();
    let key = caller.create_key();
    let first = caller.create_data_key(NAME, key).unwrap();
    let (version, one) = caller.managed_data_key(NAME, None, false).unwrap();
    assert_eq!((version, one.len()), (first, 32));
    assert_eq!(code(caller.create_data_key(NAME, key)), "Rejected.ResourceExist");
    caller.rotate(key).unwrap();
    let second = caller.renew_data_key(NAME).unwrap();
    let (latest, two) = caller.managed_data_key(NAME, None, true).unwrap();
    assert_eq!(latest, second);
    assert_ne!(one, two);
    assert_eq!(caller.data_key_versions(NAME).unwrap(), [first, second]);
    assert_eq!(caller.managed_data_keys().unwrap(), [(NAME.to_owned(), 2)]);
    // One for each version made, and one for each given out.
    assert_eq!(caller.uses(key).unwrap(), [(1, 1), (1, 1)]);
    let live = live.restart(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.managed_data_key(NAME, None, false).unwrap(), (first, one.clone()));
    assert_eq!(caller.managed_data_key(NAME, Some(second), false).unwrap(), (second, two.clone()));
    assert_eq!(code(caller.managed_data_key(NAME, Some(second), true)), "InvalidParameter");
    caller.disable(key).unwrap();
    assert_eq!(code(caller.managed_data_key(NAME, None, false)), "Rejected.Disabled");
    assert_eq!(code(caller.renew_data_key(NAME)), "Rejected.Disabled");
    caller.enable(key).unwrap();
    caller.delete_data_key(NAME).unwrap();
    for answered in [caller.managed_data_key(NAME, None, false).map(drop), caller.delete_data_key(NAME)] {
        assert_eq!(code(answered), NO_DATA_KEY);
    }
    // Its name is free again, for another one.
    caller.create_data_key(NAME, key).unwrap();
    assert_ne!(caller.managed_data_key(NAME, None, false).unwrap().1, one);
    let site = live.halt();
    for clear in [one, two] {
        assert!(find_in_files(site.path(), &clear).is_empty());
    }
    verified(&site);
}

#[test]
fn who_may_not_have_one_is_told_of_none() {
    let (live, mut root, _) = begin();
    let (own, other) = (root.create_key(), root.create_key());
    root.create_data_key("own", own).unwrap();
    root.create_data_key("other", other).unwrap();
    let role = "RbacPermission/Template/CryptoServiceKeyUser";
    let of_user = root.credentials(grants(json!([{ "Role": role, "Resources": [format!("key/{own}")] }])));
    let mut user = Caller::new(&live, &of_user);
    user.managed_data_key("own", None, false).unwrap();
    let refused = [
        user.managed_data_key("other", None, false).unwrap_err(),
        user.managed_data_key("none", None, false).unwrap_err(),
        user.data_key_versions("other").unwrap_err(),
    ];
    let told: Vec<_> = refused.iter().map(|error| (&*error.code, &*error.message, error.status)).collect();
    assert_eq!(told, [(NO_DATA_KEY, "the specified data key is not found", 404); 3]);
    assert_eq!(code(user.create_data_key("mine", own)), "Forbidden.KeyNotFound");
    assert_eq!(code(user.delete_data_key("own")), NO_DATA_KEY);
    assert_eq!(user.managed_data_keys().unwrap(), []);
    // Who makes keys does not get data keys in clear, and who may not decrypt has none either.
    let of_maker = root.credentials(grants(json!([{ "Role": "KeyAdministrator" }])));
    let mut maker = Caller::new(&live, &of_maker);
    maker.create_data_key("made", own).unwrap();
    assert_eq!(code(maker.managed_data_key("made", None, false)), NO_DATA_KEY);
    assert_eq!(maker.managed_data_keys().unwrap().len(), 3);
    let denied = statement("Deny", &[&named(of_user.access_key_id())], &["kms:Decrypt"]);
    root.set_policy(own, &policy(&[statement("Allow", &[GRANTED], &["kms:*"]), denied])).unwrap();
    assert_eq!(code(user.managed_data_key("own", None, false)), NO_DATA_KEY);
}

/// Its ciphertext is none of anything else: rows that change places are refused, and so is an older row.
#[test]
fn f1_a_record_in_the_place_of_another_is_refused() {
    let (live, mut caller, credentials) = begin();
    let key = caller.create_key();
    caller.create_data_key("a", key).unwrap();
    caller.create_data_key("b", key).unwrap();
    let site = live.halt();
    let rows = Rows::of(&site);
    let paths = rows.paths("data-key/");
    assert_eq!(paths.len(), 2);
    rows.swap(&paths[0], &paths[1]);
    drop(rows);
    let live = site.start(Setup::new(EngineConfig::default()));
    let mut caller = Caller::new(&live, &credentials);
    for name in ["a", "b"] {
        assert_eq!(code(caller.managed_data_key(name, None, false)), NO_DATA_KEY);
    }
}

#[test]
fn it_ends_with_its_key() {
    let config = || EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() };
    let Started { live, credentials } = Live::start(config());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    caller.create_data_key(NAME, key).unwrap();
    caller.schedule_deletion(key).unwrap();
    assert_eq!(code(caller.managed_data_key(NAME, None, false)), "Rejected.PendingDeletion");
    let site = live.halt();
    let live = site.start(Setup::new(config()).at_offset_ms(8 * 86_400_000));
    let mut caller = Caller::new(&live, &credentials);
    eventually("the data key is gone", || caller.managed_data_keys().unwrap().is_empty().then_some(()));
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("data-key/"), Vec::<String>::new());
    verified(&site);
}
