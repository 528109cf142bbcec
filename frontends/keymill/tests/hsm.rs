//! `keymill hsm` by the built program on a real module: SoftHSM, and Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names its library. Each
//! test has tokens of its own in a directory of its own.

// All of it is test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

#[path = "hsm/ceremony.rs"]
mod ceremony;

const PIN: &str = "4711-user";
const SO_PIN: &str = "0815-officer";

/// A module with a configuration of its own.
struct Hsm {
    directory: TempDir,
    module: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks that the command was refused, in these words and with what to do next.
    #[track_caller]
    fn refused(self, words: &str) -> Self {
        self.ended_with(1, words)
    }

    /// Checks that the command was asked wrongly: for what is not there, or with what does not fit.
    #[track_caller]
    fn wrong_use(self, words: &str) -> Self {
        self.ended_with(2, words)
    }

    #[track_caller]
    fn ended_with(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(words) && self.err.contains("next: "), "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        self
    }
}

impl Hsm {
    fn softhsm() -> Self {
        let named = std::env::var_os("TEST_PKCS11_MODULE").map(PathBuf::from);
        let usual = [
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
            "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/local/lib/softhsm/libsofthsm2.so",
        ];
        let module = named
            .or_else(|| usual.into_iter().map(PathBuf::from).find(|path| path.exists()))
            .expect("SoftHSM is installed (package softhsm2), or TEST_PKCS11_MODULE names a module");
        let hsm = Self::new(module);
        fs::create_dir(hsm.path("tokens")).unwrap();
        let tokens = hsm.path("tokens");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(hsm.path("module.conf"), text).unwrap();
        hsm
    }

    fn kryoptic(module: PathBuf) -> Self {
        let hsm = Self::new(module);
        let slot = |number: usize| {
            let file = hsm.path(&format!("{number}.sql"));
            format!("[[slots]]\nslot = {number}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", file.display())
        };
        fs::write(hsm.path("kryoptic.conf"), (0..4).map(slot).collect::<String>()).unwrap();
        hsm
    }

    fn new(module: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hsm = Self { directory, module };
        hsm.write("pin", PIN, 0o600);
        hsm.write("so-pin", SO_PIN, 0o600);
        hsm
    }

    fn is_kryoptic(&self) -> bool {
        std::env::var_os("KEYMILL_KRYOPTIC_MODULE").is_some_and(|module| self.module.as_os_str() == module)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), format!("{text}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs `keymill hsm` on the module; names of files stand for those of the directory.
    fn run(&self, line: &str) -> Ended {
        self.run_with(line, &self.module, &[])
    }

    fn run_with(&self, line: &str, module: &Path, variables: &[(&str, &str)]) -> Ended {
        // The command, and the one below it where it has such.
        let at = line.find(" --").unwrap_or(line.len());
        let (words, flags) = line.split_at(at);
        self.run_whole(&format!("{words} --module {}{flags}", module.display()), variables)
    }

    /// Runs `keymill hsm` with every word as it is.
    fn run_whole(&self, line: &str, variables: &[(&str, &str)]) -> Ended {
        let output = self.command(line, variables).stdin(Stdio::null()).output().unwrap();
        self.ended(output)
    }

    fn command(&self, line: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keymill"));
        command.arg("hsm").args(line.split_ascii_whitespace()).env_clear().envs(variables.iter().copied());
        command
            .env("SOFTHSM2_CONF", self.path("module.conf"))
            .env("KRYOPTIC_CONF", self.path("kryoptic.conf"));
        command.current_dir(self.directory.path());
        command
    }

    fn ended(&self, output: std::process::Output) -> Ended {
        let ended = Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!format!("{ended:?}").contains(PIN), "a PIN is shown: {ended:?}");
        assert!(!format!("{ended:?}").contains(SO_PIN), "a PIN is shown: {ended:?}");
        ended
    }

    fn softhsm_util(&self, words: &[&str]) {
        let mut command = Command::new("softhsm2-util");
        let output = command.args(words).env("SOFTHSM2_CONF", self.path("module.conf")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn init(&self, label: &str) -> Ended {
        self.run(&format!("init --token {label} --pin-file pin --so-pin-file so-pin --json"))
    }
}

fn slot_of<'a>(slots: &'a Value, label: &str) -> Option<&'a Value> {
    slots.as_array().unwrap().iter().find(|slot| slot["label"] == label && slot["initialized"] == true)
}

/// From an empty slot to a token that the doctor finds good.
fn slots_init_slots_doctor(hsm: &Hsm) -> Value {
    let before = hsm.run("slots --json").done().json();
    assert!(slot_of(&before, "night").is_none());
    assert!(before.as_array().unwrap().iter().any(|slot| slot["initialized"] == false), "{before}");
    assert!(hsm.run("slots").done().out.contains("keymill hsm init"));

    let made = hsm.init("night").done().json();
    assert_eq!((&made["token_made"], &made["domain_key"]), (&true.into(), &"keymill-domain".into()));
    assert_eq!(made["private_domain_key"], "keymill-domain-private");

    let after = hsm.run("slots --json").done().json();
    let slot = slot_of(&after, "night").unwrap();
    assert_eq!((&slot["serial"], &slot["pin_set"]), (&made["serial"], &true.into()));
    assert!(hsm.run("slots").done().out.contains("keymill hsm doctor"));

    let person = hsm.run("doctor --token night --pin-file pin").done();
    assert!(person.out.contains("all that keymill needs is there"), "{}", person.out);
    assert!(person.out.contains("RSA_PSS_SHA_256, RSA_PKCS1_SHA_256"), "{}", person.out);
    let report = hsm.run("doctor --token night --pin-file pin --json").done().json();
    assert_eq!(report["good"], true);
    assert_eq!(report["token"]["serial"], made["serial"]);
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 26, "{report}");
    let refused: Vec<_> = checks.iter().filter(|check| check["result"] != "ok").collect();
    // OpenSSL as Debian has it, which this Kryoptic is built on, generates no keys on that curve.
    let lacking = if hsm.is_kryoptic() { &["EC P-256K"][..] } else { &[] };
    assert_eq!(refused.iter().map(|check| check["check"].as_str().unwrap()).collect::<Vec<_>>(), lacking);
    assert!(refused.iter().all(|check| check["result"] == "refused" && check["needed"] == false));
    let decrypts = checks.iter().find(|check| check["check"] == "RSA-2048, decryption").unwrap();
    assert_eq!(
        decrypts["means"].as_str().unwrap().contains("without RSAES_OAEP_SHA_256"),
        !hsm.is_kryoptic()
    );
    assert_eq!(report["profile"]["unwrap_template_honoured"], made["unwraps_limited"]);
    assert!(report["rates"].as_array().unwrap().iter().all(|rate| rate["items_per_s"].as_u64() > Some(100)));
    report
}

#[test]
fn an_empty_slot_becomes_a_token_that_the_doctor_finds_good() {
    let report = slots_init_slots_doctor(&Hsm::softhsm());
    let offered = |mechanism: &str| {
        let offers = report["offers"].as_array().unwrap();
        offers.iter().find(|offer| offer["mechanism"] == mechanism).unwrap()["offered"].clone()
    };
    if std::env::var_os("TEST_PKCS11_MODULE").is_none() {
        assert_eq!(report["profile"]["wrap"], "pad");
        assert_eq!([offered("CKM_ECDH1_DERIVE"), offered("CKM_RSA_AES_KEY_WRAP")], [true, false]);
    }
}

#[test]
fn the_doctor_finds_kryoptic_good_too() {
    // Built by whoever wants it; SoftHSM is a package.
    let Some(module) = std::env::var_os("KEYMILL_KRYOPTIC_MODULE") else { return };
    let report = slots_init_slots_doctor(&Hsm::kryoptic(module.into()));
    assert_eq!(report["profile"]["wrap"], "kwp");
    assert_eq!(report["profile"]["gcm"], "message");
}

#[test]
fn a_wrong_pin_is_tried_once_and_told() {
    let hsm = Hsm::softhsm();
    hsm.init("night").done();
    hsm.write("wrong", "4711-wrong", 0o600);
    for command in ["doctor", "init"] {
        let ended =
            hsm.run(&format!("{command} --token night --pin-file wrong")).refused("CKR_PIN_INCORRECT");
        assert!(ended.err.contains("tried once") && !ended.err.contains("4711-wrong"), "{ended:?}");
    }
    hsm.run("doctor --token night --pin-file pin --json").done();
}

#[test]
fn a_wrong_pin_costs_one_try_of_the_ten_that_kryoptic_gives() {
    let Some(module) = std::env::var_os("KEYMILL_KRYOPTIC_MODULE") else { return };
    let hsm = Hsm::kryoptic(module.into());
    hsm.init("night").done();
    hsm.write("wrong", "4711-wrong", 0o600);
    for _ in 0..5 {
        hsm.run("doctor --token night --pin-file wrong").refused("CKR_PIN_INCORRECT");
    }
    // With two tries each, it would be locked.
    hsm.run("doctor --token night --pin-file pin --json").done();
}

#[test]
fn a_token_is_made_once() {
    let hsm = Hsm::softhsm();
    let made = hsm.init("night").done().json();
    hsm.init("night").refused("keymill-domain already");
    let slots = hsm.run("slots --json").done().json();
    assert_eq!(slot_of(&slots, "night").unwrap()["serial"], made["serial"]);
    hsm.run("doctor --token night --pin-file pin --json").done();
}

#[test]
fn a_domain_key_that_gives_readable_keys_away_is_found_out() {
    let hsm = Hsm::softhsm();
    hsm.softhsm_util(&["--init-token", "--free", "--label", "loose", "--so-pin", SO_PIN, "--pin", PIN]);
    fs::write(hsm.path("key"), [7; 32]).unwrap();
    // Keys of another tool, without CKA_UNWRAP_TEMPLATE.
    let import = |label: &str, id: &str| {
        let key = hsm.path("key");
        let words = ["--aes", "--label", label, "--id", id, "--token", "loose", "--pin", PIN];
        hsm.softhsm_util(&[&["--import", key.to_str().unwrap()], &words[..]].concat());
    };
    let doctor = || {
        let ended = hsm.run("doctor --token loose --pin-file pin --json");
        let report = ended.json();
        let bad: Vec<Value> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["result"] != "ok")
            .cloned()
            .collect();
        (ended.code, bad)
    };
    import("keymill-domain", "01");
    let (code, bad) = doctor();
    assert_eq!((code, bad.len(), &bad[0]["check"]), (Some(1), 3, &"root MAC key".into()), "{bad:?}");

    import("keymill-root-mac", "02");
    let (code, bad) = doctor();
    assert_eq!((code, bad.len()), (Some(0), 2), "{bad:?}");
    // Nor has it a domain key for private ones.
    assert_eq!([&bad[1]["check"], &bad[1]["result"]], [&Value::from("key pairs"), &"refused".into()]);
    assert_eq!(
        [&bad[0]["check"], &bad[0]["result"], &bad[0]["needed"]],
        [&Value::from("forbidden unwrap"), &"wrong".into(), &false.into()]
    );
    let person = hsm.run("doctor --token loose --pin-file pin").done();
    assert!(person.out.contains("2 to think about"), "{}", person.out);
}

#[test]
fn a_token_without_keymills_keys_gets_them_and_keeps_its_pin() {
    let hsm = Hsm::softhsm();
    hsm.init("first").done();
    // The keys of one that exists are all that init makes there; another tool made the token.
    hsm.softhsm_util(&["--init-token", "--free", "--label", "old", "--so-pin", SO_PIN, "--pin", PIN]);
    // The doctor examines the module as far as it goes without them.
    let ended = hsm.run("doctor --token old --pin-file pin --json");
    let report = ended.json();
    assert_eq!((ended.code, &report["good"], &report["profile"]), (Some(1), &false.into(), &Value::Null));
    let results = |result: &str| {
        report["checks"].as_array().unwrap().iter().filter(|check| check["result"] == result).count()
    };
    assert_eq!((results("refused"), results("ok")), (1, 7), "{report}");
    assert!(hsm.run("doctor --token old --pin-file pin").out.contains("keymill hsm init"));
    let made = hsm.run("init --token old --pin-file pin --json").done().json();
    assert_eq!(made["token_made"], false);
    hsm.run("doctor --token old --pin-file pin --json").done();
}

#[test]
fn a_pin_file_that_is_open_to_others_is_refused_before_anything_is_made() {
    let hsm = Hsm::softhsm();
    for (pin, so_pin) in [(0o644, 0o600), (0o600, 0o640)] {
        hsm.write("pin", PIN, pin);
        hsm.write("so-pin", SO_PIN, so_pin);
        hsm.init("night").refused("open to others");
    }
    let slots = hsm.run("slots --json").done().json();
    assert!(slot_of(&slots, "night").is_none(), "{slots}");
}

#[test]
fn pins_come_from_the_environment_and_never_from_arguments() {
    let hsm = Hsm::softhsm();
    let pins = [("KEYMILL_HSM_PIN", PIN), ("KEYMILL_HSM_SO_PIN", SO_PIN)];
    hsm.run("init --token night").refused("no terminal to ask");
    hsm.run_with("init --token night", &hsm.module, &pins[..1]).refused("KEYMILL_HSM_SO_PIN");
    let made = hsm.run_with("init --token night", &hsm.module, &pins).done();
    assert!(made.out.contains("keymill-root-mac") && made.out.contains("hsm doctor"), "{made:?}");
    hsm.run_with("doctor --token night", &hsm.module, &pins[..1]).done();
    assert_eq!(hsm.run("doctor --token night --pin 1234").code, Some(2));
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let hsm = Hsm::softhsm();
    let nowhere = hsm.path("nowhere.so");
    for line in ["slots", "init --token night --pin-file pin", "doctor --token night --pin-file pin"] {
        hsm.run_with(line, &nowhere, &[]).wrong_use("no PKCS#11 module");
        hsm.run_with(line, &hsm.path("module.conf"), &[]).wrong_use("no PKCS#11 module");
    }
    hsm.run("doctor --token elsewhere --pin-file pin").wrong_use("there is no token elsewhere");
    assert_eq!(hsm.run("slots --token night").code, Some(2));
    assert_eq!(hsm.run(&format!("doctor --token {}", "x".repeat(33))).code, Some(2));
}

fn changes_its_pin(hsm: &Hsm) {
    hsm.init("night").done();
    hsm.write("new-pin", "1147-changed", 0o600);
    hsm.write("wrong", "4711-wrong", 0o600);
    let change = |old: &str, new: &str| {
        hsm.run(&format!("change-pin --token night --pin-file {old} --new-pin-file {new} --json"))
    };
    let tried = change("wrong", "new-pin").refused("CKR_PIN_INCORRECT");
    assert!(tried.err.contains("tried once") && !tried.err.contains("changed"), "{tried:?}");
    change("pin", "pin").wrong_use("the new PIN is the old one");
    hsm.write("short", "1", 0o600);
    // Kryoptic takes any.
    if !hsm.path("kryoptic.conf").exists() {
        change("pin", "short").refused("the old one holds");
    }
    let done = change("pin", "new-pin").done().json();
    assert_eq!((&done["verified"], &done["update"]), (&true.into(), &"pin".into()));
    hsm.run("doctor --token night --pin-file new-pin --json").done();
    change("pin", "wrong").refused("CKR_PIN_INCORRECT");
    let line = "change-pin --token night --new-pin-file pin";
    let told = hsm.run_with(line, &hsm.module, &[("KEYMILL_HSM_PIN", "1147-changed")]).done();
    assert!(told.out.contains("KEYMILL_HSM_PIN holds the old PIN still"), "{told:?}");
    hsm.run("doctor --token night --pin-file pin --json").done();
}

#[test]
fn a_pin_is_changed_and_verified_and_where_it_stands_is_told() {
    changes_its_pin(&Hsm::softhsm());
    if let Some(module) = std::env::var_os("KEYMILL_KRYOPTIC_MODULE") {
        changes_its_pin(&Hsm::kryoptic(module.into()));
    }
}

fn is_measured(hsm: &Hsm) -> Value {
    hsm.init("night").done();
    let line = "bench --token night --pin-file pin --seconds 1 --sessions 2";
    let person = hsm.run(line).done();
    assert!(person.out.contains("session") && person.out.contains("/s"), "{}", person.out);
    let report = hsm.run(&format!("{line} --json")).done().json();
    assert_eq!(report["sessions"], serde_json::json!([1, 2]));
    for row in report["operations"].as_array().unwrap() {
        if row["failure"].is_null() {
            assert_eq!(row["raw"].as_array().unwrap().len(), 2, "{row}");
            assert!(row["best"]["per_s"].as_f64() > Some(50.0), "{row}");
        }
    }
    // Nothing of it stays on the token.
    hsm.run("doctor --token night --pin-file pin --json").done();
    report
}

#[test]
fn a_token_is_measured_raw_and_through_the_provider() {
    let row = |report: &Value, name: &str| {
        let rows = report["operations"].as_array().unwrap();
        rows.iter().find(|row| row["operation"] == name).unwrap().clone()
    };
    let report = is_measured(&Hsm::softhsm());
    assert!(row(&report, "seal-1k")["ratio"].as_f64() > Some(0.1), "{report}");
    assert!(row(&report, "unwrap-destroy-aes-256")["seam"].as_array().unwrap().len() == 1);
    if std::env::var_os("TEST_PKCS11_MODULE").is_none() {
        assert!(
            row(&report, "seal-message-1k")["failure"].as_str().unwrap().contains("no message interface")
        );
    }
    if let Some(module) = std::env::var_os("KEYMILL_KRYOPTIC_MODULE") {
        let report = is_measured(&Hsm::kryoptic(module.into()));
        assert!(row(&report, "seal-message-1k")["ratio"].as_f64() > Some(0.1), "{report}");
    }
}

#[test]
fn a_token_without_keys_is_not_measured() {
    let hsm = Hsm::softhsm();
    hsm.run("init --no-keys --token night --pin-file pin --so-pin-file so-pin").done();
    hsm.run("bench --token night --pin-file pin").refused("not initialised for keymill");
    assert_eq!(hsm.run("bench --token night --pin-file pin --seconds 0").code, Some(2));
    assert_eq!(hsm.run("bench --token night --pin-file pin --sessions 0").code, Some(2));
}

/// A second token of one label is found by its serial number alone.
#[test]
fn tokens_of_one_label_are_told_apart_by_their_serial_numbers() {
    let hsm = Hsm::softhsm();
    let made = hsm.init("night").done().json();
    hsm.softhsm_util(&["--init-token", "--free", "--label", "night", "--so-pin", SO_PIN, "--pin", PIN]);
    for command in ["doctor --token night --pin-file pin", "init --token night --pin-file pin"] {
        hsm.run(command).wrong_use("two tokens have the label night");
    }
    let serial = made["serial"].as_str().unwrap();
    hsm.run(&format!("doctor --token night --serial {serial} --pin-file pin --json")).done();
    hsm.run(&format!("init --token night --serial {serial} --pin-file pin")).refused("already");
    hsm.run("doctor --token night --serial 1234 --pin-file pin").wrong_use("with serial number 1234");
    let slots = hsm.run("slots --json").done().json();
    let other = slots
        .as_array()
        .unwrap()
        .iter()
        .find(|slot| slot["label"] == "night" && slot["initialized"] == true && slot["serial"] != serial);
    let other = other.unwrap()["serial"].as_str().unwrap();
    let made = hsm.run(&format!("init --token night --serial {other} --pin-file pin --json")).done().json();
    assert_eq!((&made["serial"], &made["token_made"]), (&other.into(), &false.into()));
}

#[test]
fn a_module_that_does_not_answer_ends_the_command_at_its_deadline() {
    let hsm = Hsm::softhsm();
    // The module waits for a configuration that nobody writes.
    fs::remove_file(hsm.path("module.conf")).unwrap();
    nix::unistd::mkfifo(&hsm.path("module.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    hsm.run("slots --timeout 1").refused("no end after 1 s");
}
