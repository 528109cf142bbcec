//! Group E of the security cases, where the Python suite of the protocol does not go: names, pages, text that others would
//! run, and load. Of framing there is a row of each kind, so that this suite stands alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::ClientError;
use keymill_core::id::AccessKeyId;
use keymill_core::operation::*;
use keymill_e2e::{Caller, Named, Raw, audit_lines, requests_of, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use rmpv::Value;

fn begin() -> (Live, Caller, AccessKeyId, String) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let root = serde_json::from_value(serde_json::json!([{ "Role": "Root" }])).unwrap();
    let (id, secret) = caller.create_access_key(root).unwrap();
    (live, caller, id, secret)
}

#[test]
fn e2_nesting_is_refused_at_its_depth_and_not_followed() {
    let (live, mut caller, id, secret) = begin();
    let arrays = vec![0x91; 100_000];
    let maps = [&b"\x81\xa1a"[..]; 100_000].concat();
    let in_parameters = |nested: &[u8]| [b"\x93\x01\xaeDescribeLimits\x81\xa1A", nested, &[0xc0]].concat();
    for frame in [arrays.clone(), maps.clone(), in_parameters(&arrays), in_parameters(&maps)] {
        let mut raw = Raw::log_in(live.address, &id, &secret);
        raw.send_frame(&frame);
        assert_eq!(raw.last_words().status, 400);
    }
    assert!(caller.keys().is_ok(), "other connections go on");
}

#[test]
fn e4_announced_lengths_reserve_nothing_and_wrong_frames_end_the_connection() {
    let (live, mut caller, id, secret) = begin();
    let request = |body: &[u8]| [b"\x93\x01\xacBatchDecrypt\x81\xa5Items", body].concat();
    let with_id = |id: &[u8]| [&[0x93], id, b"\xaeDescribeLimits\x80"].concat();
    let frames = [
        b"\xdd\xff\xff\xff\xff".to_vec(),
        b"\xdf\xff\xff\xff\xff".to_vec(),
        b"\xc6\xff\xff\xff\xff".to_vec(),
        request(b"\xdd\xff\xff\xff\xff"),
        request(b"\x91\xc6\xff\xff\xff\xff"),
        request(b"\xdf\xff\xff\xff\xff"),
        with_id(b"\x00"),
        with_id(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        with_id(b"\xcb\x3f\xf0\0\0\0\0\0\0"),
        with_id(b"\xd4\x05\0"),
        [&with_id(b"\x01")[..], b"\xc0"].concat(),
    ];
    for frame in frames {
        let mut raw = Raw::log_in(live.address, &id, &secret);
        raw.send_frame(&frame);
        assert_eq!(raw.last_words().status, 400, "{frame:x?}");
    }
    for length in [0u32, u32::MAX] {
        let mut raw = Raw::log_in(live.address, &id, &secret);
        raw.send(&length.to_be_bytes());
        assert!((400..500).contains(&raw.last_words().status));
    }
    assert!(caller.keys().is_ok());
}

/// Names as callers send them who mean no good, each a form of its own.
fn names() -> Vec<String> {
    [
        "../../etc/passwd",
        "a/../b",
        "%2e%2e%2f",
        "a\0b",
        "a\nb",
        "a\\b",
        "a b",
        "\u{202e}gpj.exe",
        "p\u{435}ople",
        "\u{ff50}eople",
        "caf\u{e9}",
        "cafe\u{301}",
        "",
        ".",
        "'; DROP TABLE records; --",
        "*)(uid=*",
        "{{7*7}}",
        "$(reboot)",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([".".repeat(256), "a".repeat(256), "a".repeat(10_000)])
    .collect()
}

#[test]
fn e8_names_outside_the_allow_list_are_refused_and_name_nothing() {
    let (live, mut caller, id, secret) = begin();
    let key = caller.create_key();
    let mut raw = Raw::log_in(live.address, &id, &secret);
    let key_id = || ("KeyId", Value::from(key.to_string()));
    for name in names() {
        let alias = || ("AliasName", Value::from(format!("alias/{name}")));
        for told in [
            raw.ask("CreateAlias", vec![alias(), key_id()]),
            raw.ask("UpdateAlias", vec![alias(), key_id()]),
            raw.ask("DeleteAlias", vec![alias()]),
        ] {
            assert_eq!((told.status, told.text("Code")), (400, "InvalidParameter"), "{name:?}");
            assert!(told.text("Message").contains("AliasName"), "{told:?}");
        }
        for operation in ["DescribeKey", "EnableKey", "RotateKey"] {
            for text in [name.clone(), format!("alias/{name}"), format!("acs:kms:a:b:key/{name}")] {
                let told = raw.ask(operation, vec![("KeyId", text.as_str().into())]);
                assert_eq!((told.status, told.text("Code")), (404, "Forbidden.KeyNotFound"), "{text:?}");
            }
        }
        let told = raw.ask("DeleteAccessKey", vec![("AccessKeyId", name.as_str().into())]);
        assert!((400..=404).contains(&told.status), "{name:?}: {told:?}");
        let told = raw.ask(&name, Vec::new());
        assert_eq!((told.status, told.text("Code")), (404, "InvalidAction.NotFound"), "{name:?}");
    }
    // What the list allows works, also where it begins with a dash or looks like a path.
    for name in ["alias/-rf", "alias/a/b/c", "alias/A_z-9"] {
        caller.create_alias(name, key).unwrap();
        assert_eq!(caller.describe(name).unwrap().key_id, key);
    }
    // Case matters, and there is no other spelling.
    assert!(caller.describe("alias/a_z-9").is_err() && caller.describe("alias/a//b/c").is_err());
    assert_eq!(caller.aliases().unwrap().len(), 3);
    drop((caller, raw));
    verified(&live.halt());
}

#[test]
fn e8_aliases_that_look_alike_on_disk_stay_two() {
    let (live, mut caller, ..) = begin();
    let keys: Vec<_> = (0..4).map(|_| caller.create_key()).collect();
    let names = ["alias/a/b", "alias/a-b", "alias/a_b", "alias/A/B"];
    for (name, key) in names.iter().zip(&keys) {
        caller.create_alias(name, *key).unwrap();
    }
    drop(caller);
    let credentials = live.bootstrap().unwrap();
    let live = live.restart(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    for (name, key) in names.iter().zip(&keys) {
        assert_eq!(caller.describe(*name).unwrap().key_id, *key);
    }
}

#[test]
fn e9_pages_outside_their_range_are_refused_and_show_nobody_elses_rows() {
    let (live, mut caller, id, secret) = begin();
    let key = caller.create_key();
    for _ in 0..12 {
        caller.create_key();
    }
    let mut raw = Raw::log_in(live.address, &id, &secret);
    let page = |number: Value, size: Value| vec![("PageNumber", number), ("PageSize", size)];
    for operation in ["ListKeys", "ListAliases", "ListAccessKeys"] {
        let bad: [(Value, Value); 8] = [
            (1.into(), 0.into()),
            (1.into(), (-1).into()),
            (1.into(), 101.into()),
            (1.into(), (1u64 << 31).into()),
            (1.into(), u64::MAX.into()),
            (0.into(), 10.into()),
            ((-1).into(), 10.into()),
            ("1".into(), 10.into()),
        ];
        for (number, size) in bad {
            let told = raw.ask(operation, page(number.clone(), size.clone()));
            assert_eq!(told.status, 400, "{operation} page {number} of {size}: {told:?}");
        }
        let told = raw.ask(operation, page(u32::MAX.into(), 100.into()));
        assert_eq!(told.status, 0, "a page past the end is empty: {told:?}");
        let told = raw.ask(operation, vec![("NextToken", "forged".into())]);
        assert_eq!(told.status, 400, "there are no tokens to forge");
    }
    let grants = serde_json::json!([{ "Role": "Auditor", "Resources": [format!("key/{key}")] }]);
    let credentials = caller.credentials(serde_json::from_value(grants).unwrap());
    let mut user = Caller::new(&live, &credentials);
    for page_number in 1..5 {
        let request =
            ListKeysRequest { page_number: Some(page_number), page_size: Some(5), ..Default::default() };
        let (rows, total) = user
            .ask(request, |reply| match reply {
                Reply::ListKeys(reply) => (reply.keys.key.len(), reply.total_count),
                other => panic!("{other:?}"),
            })
            .unwrap();
        assert_eq!((rows, total), (usize::from(page_number == 1), 1));
    }
}

#[test]
fn e10_text_that_others_would_run_is_kept_as_it_is() {
    let (live, mut caller, ..) = begin();
    let text =
        "'); DROP TABLE records; -- *)(uid=* {{7*7}} ${jndi:ldap://x} $(reboot) `id` <script> %s%n \\u0000";
    let key = caller.create_described(text).unwrap();
    caller.update_description(key, &format!("{text}{text}")).unwrap();
    let blob = caller.encrypt(key, text.as_bytes(), &[(text, text)]).unwrap();
    drop(caller);
    let credentials = live.bootstrap().unwrap();
    let live = live.restart(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.describe(key).unwrap().description, format!("{text}{text}"));
    assert_eq!(caller.decrypt(&blob, &[(text, text)]).unwrap(), text.as_bytes());
    drop(caller);
    verified(&live.halt());
}

#[test]
fn e11_a_full_queue_says_so_at_once_and_every_answer_has_its_record() {
    let config = EngineConfig { max_queued_jobs: 16, ..EngineConfig::default() };
    let setup = Setup::new(config).with_workers(1);
    let Started { live, credentials } = Live::start_with(setup);
    let key = Caller::new(&live, &credentials).create_key();
    let mut connection = Caller::new(&live, &credentials).connection;
    let sent = 900;
    for _ in 0..sent {
        let request = EncryptRequest {
            key_id: key.key_ref(),
            plaintext: Bin::from(&b"x"[..]),
            encryption_context: None,
            timeout_ms: None,
        };
        connection.send(&request.into()).unwrap();
    }
    let (mut done, mut busy) = (0, 0);
    for _ in 0..sent {
        match connection.receive().unwrap().result() {
            Ok(_) => done += 1,
            Err(ClientError::Refused(error)) => {
                assert_eq!((error.status, &*error.code), (429, "Rejected.Throttling"));
                assert!(error.retryable && error.retry_after_ms.is_some_and(|ms| ms > 0));
                busy += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(done >= 16 && busy > 0, "{done} done, {busy} refused");
    drop(connection);
    let site = live.halt();
    let count = |outcome: &str| {
        let lines = audit_lines(&site);
        let of_it = lines.iter().filter(|line| line["operation"] == "Encrypt" && line["outcome"] == outcome);
        of_it.map(|line| requests_of(line).len()).sum::<usize>()
    };
    assert_eq!((count("ok"), count("Busy")), (done, busy));
    verified(&site);
}
