//! `keymill bench` by the built program: whether its curves and its memory are measured, drawn and told; how fast anything is, a debug build does
//! not tell.

// All of it is test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keymill"));
    command.current_dir(directory).env("HOME", directory).arg("bench").args(args);
    command.output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn each_curve_is_measured_beside_its_ceiling_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let report =
        report(&bench(directory.path(), &["--quick", "--json", "--only", "curve", "--plot", "figures"]));
    let curves = report["curves"].as_array().unwrap();
    let names: Vec<&str> = curves.iter().map(|curve| curve["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["batch-size", "item-size", "connections", "keys", "principals", "cores-in-process", "cores-tcp"]
    );
    for curve in curves {
        let points = curve["points"].as_array().unwrap();
        assert!(!points.is_empty());
        for point in points {
            for whose in ["ours", "ceiling"] {
                let [min, median, max] =
                    ["min", "median", "max"].map(|of| point[whose][of].as_f64().unwrap());
                assert!(0.0 < min && min <= median && median <= max, "{point}");
            }
        }
        let svg = directory.path().join("figures").join(format!("{}.svg", curve["name"].as_str().unwrap()));
        let svg = fs::read_to_string(svg).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        let texts: Vec<&str> = texts.filter_map(|node| node.text()).map(str::trim).collect();
        for text in ["ours", "against", "title", "x"].map(|part| curve[part].as_str().unwrap()) {
            assert!(texts.contains(&text), "{text} is not among {texts:?}");
        }
    }
    let numbers = fs::read(directory.path().join("figures/curves.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&numbers).unwrap()["curves"], report["curves"]);
    // What was not asked for was not measured.
    assert_eq!(
        (report["rows"].as_array().unwrap().len(), report["memory"].as_array().unwrap().len()),
        (0, 0)
    );
}

#[test]
fn connections_and_queued_items_are_weighed() {
    let directory = tempfile::tempdir().unwrap();
    let output = bench(directory.path(), &["--quick", "--json", "--only", "memory"]);
    // What is above its target is told by the report, and by the program's exit code.
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), report["missed"] == 0, "{report}");
    let memory = report["memory"].as_array().unwrap();
    assert_eq!(memory.len(), 6);
    for of in memory {
        let bytes = of["bytes"].as_f64().unwrap();
        assert!(bytes > 1.0, "{of}");
        if let Some(target) = of["target"].as_f64() {
            assert_eq!(of["verdict"], if bytes <= target { "met" } else { "missed" }, "{of}");
        }
    }
}

#[test]
fn everything_is_not_some_of_it() {
    let directory = tempfile::tempdir().unwrap();
    for some in [["--only", "tcp"], ["--pairs", "7"], ["--seconds-per-row", "1"]] {
        let output = bench(directory.path(), &["--all", some[0], some[1]]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("--all") && error.contains(some[0]), "{error}");
    }
}
