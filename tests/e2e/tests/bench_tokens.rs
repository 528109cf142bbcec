//! The rows of `keymill bench` that need a token, by the program: with SoftHSM where the distribution has it and with the simulator, and what
//! it says of modules that are not there. How fast they are, a debug build does not tell.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

use keymill_harness::built;
use keymill_harness::program::program;
use serde_json::Value;
use tempfile::TempDir;

/// Runs a quick bench whose scratch files lie in a directory of the test's own, and sees that none is left there.
fn bench(flags: &[&str]) -> Output {
    let scratch = TempDir::new().unwrap();
    let mut command = Command::new(program());
    command.args(["bench", "--quick"]).args(flags).env("TMPDIR", scratch.path());
    let output = command.output().unwrap();
    let left: Vec<_> = scratch.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} is left behind by {output:?}");
    output
}

fn report(flags: &[&str]) -> Value {
    let output = bench(&[&["--json"], flags].concat());
    // A debug build may well miss a target: 1 is that.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn measured(report: &Value, names: &[&str]) {
    assert_eq!(report["not_measured"], Value::Array(Vec::new()), "{report}");
    let rows = report["rows"].as_array().unwrap();
    let found: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(found, names);
    for row in rows {
        let positive = |figure: &Value| figure.as_f64().is_some_and(|figure| figure > 0.0);
        assert!(
            positive(&row["ours"]) && positive(&row["ceiling"]) && positive(&row["ratio"]["median"]),
            "{row}"
        );
        assert!(row["target"].is_object() && row["verdict"] != "none", "{row}");
    }
}

#[test]
fn keys_in_softhsm_are_measured_beside_the_better_of_its_plain_loops() {
    let report = report(&["--only", "hsm softhsm"]);
    measured(
        &report,
        &[
            "hsm softhsm BatchEncrypt 256 x 1 KiB",
            "hsm softhsm BatchDecrypt 256 x 1 KiB",
            "hsm softhsm BatchSign RSA_PKCS1_SHA_256 32",
            "hsm softhsm BatchSign ECDSA_SHA_256 256",
        ],
    );
    for row in report["rows"].as_array().unwrap() {
        let lower = row["also"].as_object().into_iter().flatten();
        for (name, rate) in lower {
            assert_ne!(*name, row["against"], "{row}");
            assert!(rate.as_f64() <= row["ceiling"].as_f64(), "{row}");
        }
    }
}

#[test]
fn simulated_hsms_are_measured_and_an_epoch_costs_two_calls() {
    let simulator = format!("simulator={}", built("simulator").display());
    let derived = report(&["--only", "hsm derived", "--module", &simulator]);
    measured(
        &derived,
        &[
            "hsm derived tcp BatchEncrypt 256 x 1 KiB, 4 in flight, 2 connections",
            "hsm derived tcp BatchDecrypt 256 x 1 KiB, 4 in flight, 2 connections",
            "hsm derived open 2000 records of 200 epochs at random",
        ],
    );
    let epochs = &derived["rows"][2];
    assert_eq!(
        (&epochs["ours"], &epochs["unit"], &epochs["verdict"]),
        (&400.0.into(), &"calls".into(), &"met".into())
    );
    let farm = report(&["--only", "hsm farm of 4", "--module", &simulator]);
    measured(&farm, &["hsm farm of 4 x 5000/s, BatchEncrypt 256 x 1 KiB"]);
    assert_eq!(farm["rows"][0]["ceiling"], 20_000.0);
    let single = report(&["--only", "hsm single", "--module", &simulator]);
    measured(&single, &["hsm single Encrypt 1 KiB under bulk 64 x 1 KiB, p99"]);
    // No call of the plain loop takes less than the HSM's millisecond.
    assert!(single["rows"][0]["ceiling"].as_f64() >= Some(1000.0), "{single}");
}

#[test]
fn rows_without_their_module_are_told_of_and_missed_by_nobody() {
    let told = bench(&["--only", "hsm kryoptic"]);
    let table = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success(), "{table}");
    let words = "not measured: no Kryoptic named; --module kryoptic=PATH";
    assert_eq!(table.matches(words).count(), 4, "{table}");
    assert!(table.contains("every target that was measured is met; 4 not measured"), "{table}");

    let farms = report(&["--only", "hsm farm"]);
    assert_eq!(farms["rows"], Value::Array(Vec::new()));
    let lacking = farms["not_measured"].as_array().unwrap();
    assert_eq!(lacking.len(), 4, "{farms}");
    assert_eq!(lacking[3]["name"], "hsm farm of 32 x 1000/s, BatchEncrypt 256 x 1 KiB");
    assert_eq!(lacking[3]["not_measured"], "no simulator named; --module simulator=PATH");
}

#[test]
fn a_module_that_is_no_file_is_refused_before_anything_is_measured() {
    let refused = bench(&["--module", "kryoptic=/nowhere/libkryoptic.so"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no file /nowhere/libkryoptic.so"));
}
