//! Quotas before a token: where its lane is full, what is over its quota makes room, and is no work for software instead. The module behind the
//! simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU64;
use std::time::Duration;

use keymill_client::ClientError;
use keymill_core::key::{BulkMode, Fallback};
use keymill_core::operation::*;
use keymill_core::quota::{Quota, Rate};
use keymill_e2e::{Caller, Named, eventually, metric};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::clock::Clock;
use keymill_runtime::{EngineConfig, PoolConfig, QuotaConfig};
use serde_json::json;

#[test]
fn a_full_lane_of_a_token_sheds_what_is_over_its_quota() {
    let one = Some(Rate::new(NonZeroU64::MIN, NonZeroU64::MIN));
    let caller = Quota { items: one, ..Quota::default() };
    let config = EngineConfig {
        quota: QuotaConfig { caller, ..QuotaConfig::default() },
        pool: PoolConfig { queue: 2, fallback: Fallback::Saturated, ..PoolConfig::default() },
        ..EngineConfig::default()
    };
    let farm = Farm::new(1);
    let tokens = farm.parts_with(|token| {
        token.sessions = 1;
        token.call_timeout = Duration::from_secs(30);
        token.probe_interval = Duration::from_secs(3600);
    });
    let mut setup = Setup::new(config).with_tokens(tokens).with_workers(1);
    setup.clock = Clock::standing();
    let Started { live, credentials } = Live::start_with(setup);
    let mut root = Caller::new(&live, &credentials);
    let up = |root: &mut Caller| root.tokens().unwrap()[0].state == "up";
    eventually("the token comes up", || up(&mut root).then_some(()));
    let key = root.create_with(BulkMode::InHsm, Some(Fallback::Saturated)).unwrap();
    // It reserves invocations, and is all that root may have.
    root.encrypt(key, b"x", &[]).unwrap();
    let grants = json!([{ "Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": [format!("key/{key}")] }]);
    let other = root.credentials(serde_json::from_value(grants).unwrap());
    let mut single = Caller::new(&live, &other);

    farm.control(
        "faults = [{ functions = [\"C_Encrypt*\", \"C_MessageEncryptInit\"], next = 1, hang_ms = 3000 }]",
    );
    let waiting = |live: &Live| metric(live, "keymill_hsm_lane_chunks");
    let mut connection = root.connection;
    let mut send = || {
        let request = EncryptRequest {
            key_id: key.key_ref(),
            plaintext: Bin::from(&b"x"[..]),
            encryption_context: None,
            timeout_ms: None,
        };
        let sent = connection.send(&request.into()).unwrap();
        connection.flush().unwrap();
        sent
    };
    let first = send();
    eventually("the session has it", || {
        let is_cut =
            metric(&live, "keymill_requests_in_flight") == 1.0 && metric(&live, "keymill_queue_jobs") == 0.0;
        (is_cut && waiting(&live) == 0.0).then_some(())
    });
    let (second, third) = (send(), send());
    eventually("the lane is full", || (waiting(&live) == 2.0).then_some(()));
    single.encrypt(key, b"y", &[]).unwrap();
    let mut answers = [(); 3].map(|()| {
        let answer = connection.receive().unwrap();
        let code = match answer.result() {
            Ok(_) => "ok".to_owned(),
            Err(ClientError::Refused(error)) => error.code,
            Err(other) => panic!("{other}"),
        };
        (answer.id(), code)
    });
    answers.sort();
    let expected = [(first, "ok"), (second, "ok"), (third, "Throttling.User")];
    assert_eq!(answers, expected.map(|(id, code)| (id, code.to_owned())));
    let outcome = |outcome: &str| {
        metric(&live, &format!("keymill_over_quota_total{{instance=\"default\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((outcome("admitted"), outcome("shed")), (3.0, 1.0));
    assert_eq!(metric(&live, "keymill_fallback_items_total{reason=\"saturated\"}"), 0.0);
}
