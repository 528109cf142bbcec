//! Keys that stay in one token, made there or taken over: used beside keys that any token serves, over restarts, with their token gone,
//! and to their end. The module behind each simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::key::{
    BulkMode, Fallback, KeyState, KeyStorageMechanism, Origin, ProtectionLevel, RotationInterval,
};
use keymill_core::operation::{CreateKeyRequest, Reply};
use keymill_e2e::{Caller, audit_lines, eventually, verified};
use keymill_harness::program::program;
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::EngineConfig;

/// What keys that are made to stay are called in their token.
const MADE: &str = "keymill CMK";
const DAY_MS: i64 = 86_400_000;

fn config() -> EngineConfig {
    EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() }
}

fn setup(farm: &Farm) -> Setup {
    Setup::new(config()).with_tokens(farm.parts(2))
}

fn begin(farm: &Farm) -> (Live, Credentials, Caller) {
    let Started { live, credentials } = Live::start_with(setup(farm));
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    (live, credentials, caller)
}

fn await_tokens(caller: &mut Caller) {
    eventually("the tokens are up", || {
        caller.tokens().unwrap().iter().all(|token| token.state == "up").then_some(())
    });
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("record {i} ").repeat(i % 20).into_bytes()).collect()
}

/// Calls that used a key, at each HSM.
fn uses(farm: &Farm) -> Vec<u64> {
    let seals = ["C_EncryptInit", "C_EncryptMessage", "C_MessageEncryptInit", "C_SignInit"];
    farm.hsms.iter().map(|hsm| seals.iter().map(|function| hsm.calls(function)).sum()).collect()
}

#[test]
fn a_key_that_stays_is_served_by_its_token_alone_and_never_by_another() {
    let farm = Farm::new(2);
    let (live, _, mut caller) = begin(&farm);
    for mode in [BulkMode::InHsm, BulkMode::HsmDerived] {
        let made = |farm: &Farm| farm.hsms.iter().map(|hsm| hsm.count_keys(MADE)).collect::<Vec<_>>();
        let others = made(&farm);
        let key = caller.create_internal(mode, None).unwrap();
        assert_eq!(key.key_storage_mechanism, Some(KeyStorageMechanism::HsmInternal));
        let at = made(&farm).iter().zip(&others).position(|(now, before)| now > before).unwrap();
        assert!(key.token_serial_number.is_some());

        let before = uses(&farm);
        let items = texts(600);
        let blobs = caller.batch_encrypt(key.key_id, &items).unwrap();
        let opened = caller.batch_decrypt(&blobs).unwrap();
        assert_eq!(opened.errors, []);
        assert!(opened.items.iter().zip(&items).all(|(got, item)| got.as_ref() == Some(item)));
        let after = uses(&farm);
        assert!(after[at] > before[at], "{before:?} {after:?}");
        // Its canary may have come by.
        assert!(after[1 - at] - before[1 - at] < 8, "{before:?} {after:?}");

        // A new version is made in the same token.
        caller.rotate(key.key_id).unwrap();
        assert_eq!(farm.hsms[at].count_keys(MADE), others[at] + 2);
        let newer = caller.encrypt(key.key_id, b"newer", &[]).unwrap();

        // Beside keys that any token serves, in one batch.
        let other = caller.create_in_hsm(mode).unwrap();
        let mixed = [blobs[1].clone(), caller.encrypt(other, b"other", &[]).unwrap(), newer.clone()];
        let opened = caller.batch_decrypt(&mixed).unwrap();
        assert_eq!((opened.errors.len(), opened.keys.len()), (0, 2));

        // Its token gone, it is refused, and fast; the other goes on.
        farm.hsms[at].control("removed = true");
        eventually("its token is out", || {
            let refused = caller.encrypt(key.key_id, b"x", &[]).err()?;
            assert_eq!(refused.code, "ServiceUnavailableTemporary", "{refused:?}");
            Some(())
        });
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(
                caller.encrypt(key.key_id, b"x", &[]).unwrap_err().code,
                "ServiceUnavailableTemporary"
            );
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(caller.decrypt(&mixed[1], &[]).unwrap(), b"other");
        farm.hsms[at].control("");
        let opened = eventually("its token is back", || caller.decrypt(&newer, &[]).ok());
        assert_eq!(opened, b"newer");
    }
    drop(caller);
    verified(&live.halt());
}

#[test]
fn a_key_that_stays_has_no_copy_to_fall_back_to() {
    let farm = Farm::new(1);
    let mut allowing = config();
    allowing.pool.fallback = Fallback::Saturated;
    let Started { live, credentials } = Live::start_with(Setup::new(allowing).with_tokens(farm.parts(1)));
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    let refused = caller.create_internal(BulkMode::InHsm, Some(Fallback::Unavailable)).unwrap_err();
    assert!(refused.code == "InvalidParameter" && refused.message.contains("HsmInternal"), "{refused:?}");
    assert!(caller.create_internal(BulkMode::InHsm, Some(Fallback::Never)).is_ok());
    assert_eq!(farm.hsms[0].count_keys(MADE), 1);
}

/// The thread that generates is given up, and what it made is not.
#[test]
fn a_key_that_comes_late_is_used_and_not_left_behind() {
    let farm = Farm::new(1);
    let tokens = farm.parts_with(|config| config.generate_timeout = Duration::from_millis(500));
    let Started { live, credentials } = Live::start_with(Setup::new(config()).with_tokens(tokens));
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    farm.control("faults = [{ functions = [\"C_GenerateKey\"], next = 1, hang_ms = 2000 }]");
    let key = caller.create_internal(BulkMode::InHsm, None).unwrap().key_id;
    assert_eq!(farm.hsms[0].count_keys(MADE), 1);
    let blob = eventually("the token is back", || caller.encrypt(key, b"x", &[]).ok());
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"x");
    caller.create_internal(BulkMode::InHsm, None).unwrap();
    assert_eq!(farm.hsms[0].count_keys(MADE), 2);
}

#[test]
fn a_key_that_stays_is_destroyed_in_its_token_when_its_time_comes_and_an_adopted_one_is_left() {
    let farm = Farm::new(1);
    let hsm = &farm.hsms[0];
    hsm.make_foreign_key("payments", b"pay-1");
    let (live, credentials, mut caller) = begin(&farm);
    let made = caller.create_internal(BulkMode::InHsm, None).unwrap().key_id;
    caller.rotate(made).unwrap();
    let adopted = caller.adopt(None, Some("payments"), None).unwrap().key_id;
    let kept = caller.create_internal(BulkMode::HsmDerived, None).unwrap().key_id;
    // The new version of an adopted key is ours.
    caller.rotate(adopted).unwrap();
    let blob = caller.encrypt(kept, b"kept", &[]).unwrap();
    assert_eq!((hsm.count_keys(MADE), hsm.count_keys("payments")), (4, 1));
    caller.schedule_deletion(made).unwrap();
    caller.schedule_deletion(adopted).unwrap();
    drop(caller);

    // Its token is gone when the time comes: it is kept, and cannot be saved any more.
    hsm.control("removed = true");
    let late = || setup(&farm).at_offset_ms(7 * DAY_MS + 60_000);
    let live = live.halt().start(late());
    let mut caller = Caller::new(&live, &credentials);
    let refused = eventually("its end has begun", || caller.cancel_deletion(made).err());
    assert_eq!((refused.status, refused.code.as_str()), (409, "Rejected.StateModifiedFailed"), "{refused:?}");
    assert_eq!(caller.describe(made).unwrap().key_state, KeyState::PendingDeletion);
    hsm.control("");
    eventually("both are gone", || {
        (caller.describe(made).is_err() && caller.describe(adopted).is_err()).then_some(())
    });
    await_tokens(&mut caller);
    assert_eq!((hsm.count_keys(MADE), hsm.count_keys("payments")), (1, 1));
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"kept");
    drop(caller);
    let site = live.halt();
    let lines = audit_lines(&site);
    for key in [made, adopted] {
        let deleted = |line: &&serde_json::Value| {
            line["operation"] == "DeleteKey" && line["keys"][0]["cmk"] == key.to_string()
        };
        assert_eq!(lines.iter().filter(deleted).count(), 1);
    }
    verified(&site);
}

#[test]
fn a_key_of_another_program_is_taken_over_as_it_is() {
    let farm = Farm::new(2);
    let name = farm.hsms[1].name.clone();
    farm.hsms[1].make_foreign_key("payments", b"pay-1");
    farm.hsms[1].make_foreign_key("twin", b"twin-1");
    farm.hsms[1].make_foreign_key("twin", b"twin-2");
    let (live, credentials, mut caller) = begin(&farm);
    let token = Some(&name[..]);

    for (refused, told) in [
        (caller.adopt(None, Some("payments"), None), "TokenName"),
        (caller.adopt(Some("nobody"), Some("payments"), None), "TokenName"),
        (caller.adopt(token, None, None), "ObjectLabel or ObjectId"),
        (caller.adopt(token, None, Some("xyz")), "ObjectId"),
        (caller.adopt(token, Some(""), None), "1 to 255"),
        (caller.adopt(token, Some("absent"), None), "0 keys"),
        (caller.adopt(token, Some("twin"), None), "2 keys"),
        (caller.adopt(token, Some("keymill-domain"), None), "domain's own"),
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.code == "InvalidParameter" && refused.message.contains(told), "{told}: {refused:?}");
    }

    let key = caller.adopt(token, Some("payments"), None).unwrap();
    assert_eq!((key.origin, key.bulk_mode), (Origin::Adopted, Some(BulkMode::InHsm)));
    assert_eq!(key.key_storage_mechanism, Some(KeyStorageMechanism::HsmInternal));
    let by_id = caller.adopt(token, None, Some("7477696e2D32")).unwrap();
    assert_eq!(by_id.token_serial_number, key.token_serial_number);
    // Each would count its messages for itself.
    let again = caller.adopt(token, None, Some("7061792d31")).unwrap_err();
    assert!(
        again.code == "Rejected.StateModifiedFailed" && again.message.contains(&key.key_id.to_string()),
        "{again:?}"
    );
    let blob = caller.encrypt(key.key_id, b"kept", &[("table", "people")]).unwrap();

    drop(caller);
    let live = live.halt().start(setup(&farm));
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    assert_eq!(caller.decrypt(&blob, &[("table", "people")]).unwrap(), b"kept");
    drop(caller);

    // Another key in its place is noticed, and not used.
    let site = live.halt();
    farm.hsms[1].destroy_keys(b"pay-1");
    farm.hsms[1].make_foreign_key("payments", b"pay-1");
    let live = site.start(setup(&farm));
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    for refused in [
        caller.decrypt(&blob, &[("table", "people")]).map(drop).unwrap_err(),
        caller.encrypt(key.key_id, b"x", &[]).map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code, "Rejected.Quarantined", "{refused:?}");
    }
    // Which is that key's trouble alone.
    let sealed = caller.encrypt(by_id.key_id, b"fine", &[]).unwrap();
    assert_eq!(caller.decrypt(&sealed, &[]).unwrap(), b"fine");
    drop(caller);
    let site = live.halt();
    let adopted = |line: &&serde_json::Value| line["operation"] == "AdoptKey" && line["outcome"] == "ok";
    assert_eq!(audit_lines(&site).iter().filter(adopted).count(), 2);
    verified(&site);
}

#[test]
fn the_program_takes_a_key_over_and_makes_one_that_stays() {
    let farm = Farm::new(1);
    farm.hsms[0].make_foreign_key("payments", b"pay-1");
    let (live, _, mut caller) = begin(&farm);
    let keymill = |args: &[&str]| -> Output {
        Command::new(program())
            .args(args)
            .args(["--tcp", &live.address.to_string()])
            .env("KEYMILL_ACCESS_KEY_ID", live.bootstrap_id().unwrap())
            .env("KEYMILL_ACCESS_KEY_SECRET", live.bootstrap_secret().unwrap())
            .output()
            .unwrap()
    };
    let shown = |output: Output| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let adopted = shown(keymill(&["hsm", "adopt", "--label", "payments", "--alias", "alias/pay"]));
    for told in ["alias/pay", "HsmInternal", "ADOPTED", "serial number"] {
        assert!(adopted.contains(told), "{told}: {adopted}");
    }
    let blob = caller.encrypt("alias/pay", b"x", &[]).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"x");
    let refused = keymill(&["hsm", "adopt", "--label", "absent"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("0 keys of Aliyun_AES_256 have the label absent"),
        "{error}"
    );
    assert!(!keymill(&["hsm", "adopt"]).status.success(), "it has to be named");
    let made = shown(keymill(&["key", "create", "--storage", "HsmInternal"]));
    assert!(made.contains("HsmInternal") && farm.hsms[0].count_keys(MADE) == 1, "{made}");
}

/// The token takes its time, and meanwhile the key is disabled.
#[test]
fn a_key_is_not_rotated_by_policy_once_it_may_not_be_used() {
    let farm = Farm::new(1);
    let quick = EngineConfig { usage_flush: Duration::from_millis(20), ..config() };
    let setup = || Setup::new(quick.clone()).with_tokens(farm.parts(2));
    let Started { live, credentials } = Live::start_with(setup());
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    let request = CreateKeyRequest {
        protection_level: Some(ProtectionLevel::Hsm),
        key_storage_mechanism: Some(KeyStorageMechanism::HsmInternal),
        enable_automatic_rotation: Some(true),
        rotation_interval: Some(RotationInterval::parse("7d").unwrap()),
        ..Default::default()
    };
    let take = |reply: Reply<'_>| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    };
    let key = caller.ask(request, take).unwrap();
    caller.disable(key).unwrap();
    drop(caller);
    let live = live.halt().start(setup().at_offset_ms(8 * DAY_MS));
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    farm.control("faults = [{ functions = [\"C_GenerateKey\"], next = 1, hang_ms = 2000 }]");
    caller.enable(key).unwrap();
    // Other calls come back at once.
    let mut hung = 0;
    eventually("the token is asked for a new version", || {
        let in_flight = farm.hsms[0].stats()["in_flight"].as_u64().unwrap();
        hung = if in_flight > 0 { hung + 1 } else { 0 };
        (hung == 5).then_some(())
    });
    caller.disable(key).unwrap();
    eventually("the token has made it", || (farm.hsms[0].count_keys(MADE) == 2).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(caller.versions(key).unwrap().len(), 1);
    caller.enable(key).unwrap();
    eventually("it is rotated", || (caller.versions(key).unwrap().len() == 2).then_some(()));
    drop(caller);
    verified(&live.halt());
}
