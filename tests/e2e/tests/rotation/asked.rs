//! Who has a secret rotated: the clock, callers as often as they may, and none by a rotator what it could not do itself.

use std::time::Duration;

use keymill_core::access::Grant;
use keymill_core::operation::*;
use keymill_e2e::{Caller, Logs, MARK, audit_lines, create_secret, eventually, find_in_files, verified};
use keymill_harness::{Fuse, Live, Setup, Started};
use keymill_runtime::{EngineConfig, Rotators};
use serde_json::json;

use crate::scene::{DAY_MS, ONE, SINGLE, begin, code, one, rds};

#[test]
fn by_itself_a_secret_is_rotated_in_its_time_and_rests_while_the_clock_does() {
    let bank = one();
    let mut config = bank.config();
    config.clock_jump_rest = Duration::from_secs(3_600);
    // Each look for deletions, which are as often as those for rotations, keeps when it was.
    let fuse = Fuse::new();
    let around = fuse.clone();
    let setup = Setup::new(config.clone()).with_store(move |inner| around.store(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    let automatic = CreateSecretRequest {
        enable_automatic_rotation: Some(true),
        rotation_interval: Some("6h".parse().unwrap()),
        ..rds("db", SINGLE, ONE)
    };
    caller.create_secret_as(automatic).unwrap();
    let told = caller.describe_secret("db").unwrap();
    assert_eq!(told.rotation_interval.unwrap().to_string(), "21600s");
    let until = told.next_rotation_date.unwrap().since(live.clock.now()).as_secs();
    assert!((19_400..=21_600).contains(&until), "{until}");
    let value =
        caller.ask_json("GetSecretValue", json!({"SecretName": "db", "FetchExtendedConfig": true})).unwrap();
    assert_eq!((&value["AutomaticRotation"], &value["SecretType"]), (&json!("Enabled"), &json!("Rds")));
    assert!(
        value["ExtendedConfig"].as_str().unwrap().contains("SingleUser")
            && value["NextRotationDate"].is_string()
    );
    // The clock jumps a day ahead: what would be due rests.
    live.clock.jump_to_offset_ms(DAY_MS);
    let looked = fuse.commits();
    eventually("ten looks at the clock", || (fuse.commits() >= looked + 10).then_some(()));
    assert!(bank.versions().is_empty());
    caller.rotate_secret("db", "by-hand").unwrap();
    assert_eq!(bank.versions(), ["by-hand"], "who asks is served");
    // A second start finds the clock where it was, and the rest over: the timer rotates.
    let live = live.halt().start(Setup::new(config.clone()).at_offset_ms(DAY_MS + 7 * 3_600_000));
    let mut caller = Caller::new(&live, &credentials);
    eventually("it is rotated", || (caller.value("db").unwrap().0 != "by-hand").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    caller
        .ask_json("UpdateSecretRotationPolicy", json!({"SecretName": "db", "EnableAutomaticRotation": false}))
        .unwrap();
    let told = caller.describe_secret("db").unwrap();
    assert_eq!((told.next_rotation_date, told.rotation_interval), (None, None));
    let missing = json!({"SecretName": "db", "EnableAutomaticRotation": true});
    assert_eq!(code(caller.ask_json("UpdateSecretRotationPolicy", missing)), "MissingParameter");
    let site = live.halt();
    let by_timer = audit_lines(&site).into_iter().any(|line| {
        line["operation"] == "RotateSecret" && line["frontend"] == "timer" && line["principal"].is_null()
    });
    assert!(by_timer);
    // Without its rotator it says so, and nothing is lost.
    let live = site.start(Setup::new(EngineConfig::default()).at_offset_ms(DAY_MS + 7 * 3_600_000));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(code(caller.rotate_secret("db", "v9")), "InvalidParameter");
    assert!(bank.takes(&caller.value("db").unwrap().1));
}

#[test]
fn callers_rotate_a_secret_fifty_times_an_hour() {
    let bank = one();
    let (_live, mut caller, _) = begin(bank.config());
    for n in 0..50 {
        caller.rotate_secret("db", &format!("r{n}")).unwrap();
    }
    assert_eq!(code(caller.rotate_secret("db", "r50")), "Throttling.User");
    assert!(bank.takes(&caller.value("db").unwrap().1));
}

/// D7: a rotator is configured, and works by a secret that only who may read it can make it use; nobody is handed that value.
#[test]
fn d7_no_caller_reaches_by_a_rotator_what_it_could_not_by_itself() {
    let logs = Logs::keep();
    let bank = one().by("admin");
    let Started { live, credentials } = Live::start(bank.config());
    let mut root = Caller::new(&live, &credentials);
    root.create_secret("admin", "v1", "marked-admin-password").unwrap();
    let grants: Vec<Grant> =
        serde_json::from_value(json!([{ "Role": "SecretAdministrator", "Resources": ["*"] }])).unwrap();
    let mut administrator = Caller::new(&live, &root.credentials(grants));
    assert_eq!(code(administrator.create_secret_as(rds("db", SINGLE, ONE))), "Forbidden.NoPermission");
    root.create_secret_as(rds("db", SINGLE, ONE)).unwrap();
    let custom = json!({"SecretName": "db", "ExtendedConfig": {"CustomData": {"Host": "elsewhere"}}});
    assert_eq!(code(administrator.ask_json("UpdateSecret", custom.clone())), "Forbidden.NoPermission");
    root.ask_json("UpdateSecret", custom).unwrap();
    assert!(root.describe_secret("db").unwrap().extended_config.unwrap().contains("elsewhere"));
    // Who may rotate may: it learns nothing by it.
    administrator.rotate_secret("db", "v2").unwrap();
    assert_eq!(bank.admins()[0], "marked-admin-password");
    let user: Vec<Grant> = serde_json::from_value(
        json!([{ "Role": "RbacPermission/Template/CryptoServiceSecretUser", "Resources": ["secret/db"] }]),
    )
    .unwrap();
    let mut user = Caller::new(&live, &root.credentials(user));
    assert_eq!(code(user.rotate_secret("db", "v3")), "Forbidden.ResourceNotFound");
    let policy = json!({"SecretName": "db", "EnableAutomaticRotation": true, "RotationInterval": "6h"});
    assert_eq!(code(user.ask_json("UpdateSecretRotationPolicy", policy)), "Forbidden.ResourceNotFound");
    assert!(!user.value("db").unwrap().1.contains("admin"));
    for (extended, told) in [
        (r#"{"SecretSubType":"SingleUser","DBInstanceId":"elsewhere"}"#, "InvalidParameter"),
        (r#"{"SecretSubType":"SingleUser","DBInstanceId":"http://127.0.0.1:1/"}"#, "InvalidParameter"),
        (r#"{"SecretSubType":"SingleUser","DBInstanceId":"bank","Host":"127.0.0.1"}"#, "InvalidParameter"),
    ] {
        assert_eq!(code(root.create_secret_as(rds("other", extended, ONE))), told, "{extended}");
    }
    // Nor by a value that it puts: the rotation would go on from that, by the admin.
    let extended_config = Some(r#"{"Rotator":"bank"}"#.to_owned());
    root.create_secret_as(CreateSecretRequest { extended_config, ..create_secret("put", "v1", ONE) })
        .unwrap();
    let other = r#"{"AccountName":"payments","AccountPassword":"x"}"#;
    assert_eq!(code(administrator.put_value("put", "v2", other, &[])), "Forbidden.NoPermission");
    root.put_value("put", "v2", other, &[]).unwrap();
    let own = rds("admin", SINGLE, ONE);
    root.delete_secret("admin", None).unwrap();
    assert_eq!(
        code(root.create_secret_as(own)),
        "InvalidParameter",
        "a rotator does not rotate what it works by"
    );
    // Without it the rotation waits, and says so to the log alone.
    assert_eq!(code(administrator.rotate_secret("db", "v3")), "ServiceUnavailableTemporary");
    assert!(!logs.lines_with("which the rotator works by, is not there").is_empty());
    let text = live.gate().expose_metrics();
    let site = live.halt();
    for hidden in ["marked-admin-password", "marked-first", MARK] {
        assert!(!logs.text().contains(hidden) && !text.contains(hidden), "{hidden}");
        assert!(find_in_files(site.path(), hidden.as_bytes()).is_empty(), "{hidden}");
    }
    let reads: Vec<_> = audit_lines(&site)
        .into_iter()
        .filter(|line| line["operation"] == "GetSecretValue" && line["secrets"][0]["name"] == "admin")
        .collect();
    assert!(
        !reads.is_empty() && reads.iter().all(|line| line["principal"] == "keymill.rotation"),
        "{reads:?}"
    );
    verified(&site);
}

/// A generic secret names a rotator beyond the cloud, and is put as well; one that names none is as it ever was.
#[test]
fn a_generic_secret_with_a_rotator_is_rotated_and_put() {
    let mut config = EngineConfig::default();
    let mut rotators = Rotators::default();
    let passwords = keymill_rotate_password::open(Default::default()).unwrap();
    rotators.add("passwords".parse().unwrap(), std::sync::Arc::new(passwords));
    config.rotators = rotators;
    let Started { live, credentials } = Live::start(config);
    let mut caller = Caller::new(&live, &credentials);
    let extended_config =
        Some(r#"{"Rotator":"passwords","CustomData":{"PasswordLength":"40"},"Else":[1]}"#.to_owned());
    caller
        .create_secret_as(CreateSecretRequest { extended_config, ..create_secret("cookie", "v1", "first") })
        .unwrap();
    caller.rotate_secret("cookie", "v2").unwrap();
    assert_eq!(caller.value("cookie").unwrap().1.len(), 40);
    caller.put_value("cookie", "v3", "by hand", &[]).unwrap();
    caller.rotate_secret("cookie", "v4").unwrap();
    assert_eq!(caller.value_of("cookie", None, Some("ACSPrevious")).unwrap().1, "by hand");
    caller.create_secret("plain", "v1", "value").unwrap();
    assert_eq!(code(caller.rotate_secret("plain", "v2")), "UnsupportedOperation");
    let policy = json!({"SecretName": "plain", "EnableAutomaticRotation": true, "RotationInterval": "6h"});
    assert_eq!(code(caller.ask_json("UpdateSecretRotationPolicy", policy)), "UnsupportedOperation");
    let automatic = CreateSecretRequest {
        enable_automatic_rotation: Some(true),
        rotation_interval: Some("6h".parse().unwrap()),
        ..create_secret("other", "v1", "value")
    };
    assert_eq!(code(caller.create_secret_as(automatic)), "UnsupportedOperation");
    let ignored = CreateSecretRequest {
        extended_config: Some("no JSON".into()),
        ..create_secret("ignored", "v1", "x")
    };
    caller.create_secret_as(ignored).unwrap();
    let listed = json!([{ "Key": "SecretType", "Values": ["Rds"] }]);
    let rows = caller.ask_json("ListSecrets", json!({ "Filters": listed })).unwrap();
    assert_eq!(rows["TotalCount"], 0);
}
