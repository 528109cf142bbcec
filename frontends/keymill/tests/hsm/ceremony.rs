//! `keymill hsm ceremony` on two modules: SoftHSM, and Kryoptic where it is there, else a copy of SoftHSM's file, which is another HSM.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use super::{Ended, Hsm};

/// Two HSMs, a token without keys in each, and the second one's module.
struct Site {
    hsm: Hsm,
    other: PathBuf,
}

impl Site {
    fn new() -> Self {
        let hsm = Hsm::softhsm();
        let other = match std::env::var_os("KEYMILL_KRYOPTIC_MODULE") {
            Some(module) => {
                let slot = |number: usize| {
                    let file = hsm.path(&format!("{number}.sql"));
                    format!(
                        "[[slots]]\nslot = {number}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
                        file.display()
                    )
                };
                fs::write(hsm.path("kryoptic.conf"), (0..4).map(slot).collect::<String>()).unwrap();
                PathBuf::from(module)
            }
            None => {
                let copy = hsm.path("second-hsm.so");
                fs::copy(&hsm.module, &copy).unwrap();
                copy
            }
        };
        fs::create_dir(hsm.path("shares")).unwrap();
        let site = Self { hsm, other };
        site.token("one", false);
        site.token("two", true);
        site
    }

    fn module(&self, other: bool) -> &PathBuf {
        if other { &self.other } else { &self.hsm.module }
    }

    fn on(&self, other: bool, line: &str) -> Ended {
        self.hsm.run_with(line, self.module(other), &[])
    }

    /// Makes a token without keys.
    fn token(&self, label: &str, other: bool) {
        let line = format!("init --no-keys --token {label} --pin-file pin --so-pin-file so-pin --json");
        let made = self.on(other, &line).done().json();
        assert_eq!((&made["token_made"], made.get("domain_key")), (&true.into(), None));
    }

    /// The words of a ceremony of both tokens.
    fn words(&self, rest: &str) -> String {
        format!(
            "ceremony --module {} --module {} --token one --token two --pin-file pin --transcript transcript {rest}",
            self.hsm.module.display(),
            self.other.display()
        )
    }

    fn hold(&self, rest: &str) -> Ended {
        self.hsm.run_whole(&self.words(rest), &[])
    }

    /// Makes the wrapping key of the second token, and returns serial number and last characters.
    fn read_at_two(&self) -> (String, String) {
        let shown = self.on(true, "ceremony wrapping-key --token two --pin-file pin --json").done().json();
        let text = |name: &str| shown[name].as_str().unwrap().to_owned();
        (text("serial"), text("sha256")[60..].to_owned())
    }

    fn wrapping_key_alone(&self) {
        for (label, other) in [("one", false), ("two", true)] {
            let line = format!("ceremony clean --token {label} --pin-file pin --confirm none");
            let left = self.on(other, &line);
            match label {
                // Nothing at all.
                "one" => assert!(left.done().out.contains("nothing was left"), "{label}"),
                _ => drop(left.wrong_use("another serial number")),
            }
        }
    }

    fn doctor_finds_good(&self, label: &str, other: bool) {
        self.on(other, &format!("doctor --token {label} --pin-file pin --json")).done();
    }
}

#[test]
fn two_hsms_get_one_domain_and_a_third_token_joins_by_its_custodians() {
    let site = Site::new();
    let (serial, last) = site.read_at_two();
    let ended = site
        .hold(&format!(
            "--yes --confirm {serial}={last} --custodians 2-of-3 --copy copy --share-directory shares --json"
        ))
        .done();
    let transcript = ended.json();
    assert_eq!(fs::read_to_string(site.hsm.path("transcript")).unwrap().trim(), ended.out.trim());
    assert_eq!(transcript["wrapping_keys_destroyed"], true);
    assert_eq!(transcript["tokens"][1]["serial"], serial.as_str());
    assert!(transcript["tokens"][1]["wrapping_key_sha256"].as_str().unwrap().ends_with(&last));
    for token in transcript["tokens"].as_array().unwrap() {
        assert_eq!(token["oaep"], "SHA-1", "SoftHSM knows no other: {token}");
        assert_eq!(token["unwraps_limited"], true);
    }
    site.doctor_finds_good("one", false);
    site.doctor_finds_good("two", true);

    // Each share is its custodian's alone, and stands in nothing else that was written or shown.
    let copy = fs::read_to_string(site.hsm.path("copy")).unwrap();
    let mut shares = Vec::new();
    for number in 1..=3 {
        let path = site.hsm.path(&format!("shares/share-{number}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let values = text.lines().last().unwrap().split(':').nth(5).unwrap().to_owned();
        assert_eq!(values.len(), 64);
        assert!(!ended.out.contains(&values) && !copy.contains(&values) && !ended.err.contains(&values));
        shares.push(values);
    }
    assert!(shares[0] != shares[1] && shares[1] != shares[2]);

    for other in [false, true] {
        let label = if other { "late-other" } else { "late" };
        site.token(label, other);
        let join = |rest: &str| {
            site.on(other, &format!("ceremony join --token {label} --pin-file pin --copy copy {rest}"))
        };
        join("--share shares/share-2").wrong_use("takes 2 shares of 3, and 1 is given");
        join("--share shares/share-2 --share shares/share-2").wrong_use("share 2 is given twice");
        let joined = join("--share shares/share-3 --share shares/share-1 --json").done().json();
        assert_eq!(joined["domain"], transcript["domain"]);
        site.doctor_finds_good(label, other);
        join("--share shares/share-3 --share shares/share-1").refused("already");
    }
    // The domain is made, and nothing makes it anew.
    site.hsm
        .run_whole(
            &site.words("").replace("transcript transcript", "transcript other --yes --confirm x=1234"),
            &[],
        )
        .refused("already");
    site.on(false, "init --token one --pin-file pin").refused("already");
}

#[test]
fn characters_that_were_not_read_at_the_token_end_the_ceremony_with_nothing_made() {
    let site = Site::new();
    // A key that was made just now cannot have been read.
    let slots = site.on(true, "slots --json").done().json();
    let serial = super::slot_of(&slots, "two").unwrap()["serial"].as_str().unwrap().to_owned();
    site.hold(&format!("--yes --confirm {serial}=1234")).refused("nobody can have read");
    let (serial, last) = site.read_at_two();
    let wrong = if last == "0000" { "0001" } else { "0000" };
    site.hold(&format!("--yes --confirm {serial}={wrong}")).refused("does not end in");
    site.hold(&format!("--yes --confirm other={last}")).wrong_use("no --confirm says");
    site.hold("").wrong_use("no terminal to confirm");
    assert_eq!(site.hold("--yes").code, Some(2));
    site.wrapping_key_alone();
    assert!(!site.hsm.path("transcript").exists());
    site.hold(&format!("--yes --confirm {serial}={last}")).done();
}

#[test]
fn what_cannot_be_written_is_noticed_before_a_token_is_touched() {
    let site = Site::new();
    let (serial, last) = site.read_at_two();
    let hold = |rest: &str| site.hold(&format!("--yes --confirm {serial}={last} {rest}"));
    let custodians = "--custodians 2-of-3 --share-directory shares";
    fs::write(site.hsm.path("there"), "").unwrap();
    fs::write(site.hsm.path("shares/share-2"), "").unwrap();
    hold(&format!("{custodians} --copy copy")).refused("exists already");
    fs::remove_file(site.hsm.path("shares/share-2")).unwrap();
    hold(&format!("{custodians} --copy there")).refused("exists already");
    assert_eq!(hold("--custodians 1-of-3 --copy copy").code, Some(2));
    assert_eq!(hold("--custodians 2-of-3").code, Some(2));
    hold("--custodians 2-of-3 --copy copy").wrong_use("no terminal to show");
    fs::write(site.hsm.path("transcript"), "").unwrap();
    hold("").refused("exists already");
    site.wrapping_key_alone();
    assert_eq!(fs::read_dir(site.hsm.path("shares")).unwrap().count(), 0);
}

#[test]
fn a_wrong_mix_of_shares_and_copies_is_told_before_the_token_is_touched() {
    let site = Site::new();
    let hsm = &site.hsm;
    // Two sets, of domains of one token each.
    for (label, directory) in [("alone", "shares"), ("other", "others")] {
        site.token(label, false);
        fs::create_dir_all(hsm.path(directory)).unwrap();
        let line = format!(
            "ceremony --token {label} --pin-file pin --transcript {label} --custodians 2-of-3 --copy {label}-copy --share-directory {directory}"
        );
        site.on(false, &line).done();
    }
    site.token("late", true);
    let join = |rest: &str| site.on(true, &format!("ceremony join --token late --pin-file pin {rest}"));
    join("--share shares/share-1").wrong_use("a living token gives nothing");
    join("--copy alone-copy").wrong_use("no terminal to type shares");
    join("--copy alone-copy --share shares/share-1 --share others/share-2").wrong_use("of set");
    join("--copy other-copy --share shares/share-1 --share shares/share-2").wrong_use("the copy is of set");
    join("--copy shares/share-1 --share shares/share-1").wrong_use("no copy of a domain's keys");
    assert_eq!(join("--copy absent --share shares/share-1").code, Some(2));
    let path = hsm.path("shares/share-1");
    let text = fs::read_to_string(&path).unwrap();
    let digit = text.rfind(':').unwrap() - 1;
    let mut damaged = text.clone().into_bytes();
    damaged[digit] = if damaged[digit] == b'0' { b'1' } else { b'0' };
    fs::write(&path, damaged).unwrap();
    let told = join("--copy alone-copy --share shares/share-1 --share shares/share-2").wrong_use("checksum");
    assert!(told.err.contains("shares/share-1"));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    join("--copy alone-copy --share shares/share-1 --share shares/share-2").refused("open to others");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        site.on(true, "ceremony clean --token late --pin-file pin --confirm x")
            .done()
            .out
            .contains("nothing")
    );
    join("--copy alone-copy --share shares/share-1 --share shares/share-2").done();
}

#[test]
fn what_an_unfinished_ceremony_left_is_told_and_cleaned() {
    let site = Site::new();
    let (serial, _) = site.read_at_two();
    site.on(true, "init --token two --pin-file pin").refused("ceremony clean");
    let clean = |rest: &str| site.on(true, &format!("ceremony clean --token two --pin-file pin {rest}"));
    clean("").wrong_use("no terminal to ask");
    clean("--confirm 1234").wrong_use("another serial number");
    let done = clean(&format!("--confirm {serial} --json")).done().json();
    assert_eq!((&done["wrapping_halves"], &done["destroyed"]), (&2.into(), &Value::Array(Vec::new())));
    assert!(clean(&format!("--confirm {serial}")).done().out.contains("nothing was left"));
    site.on(true, "init --token two --pin-file pin").done();
    clean(&format!("--confirm {serial} --destroy-keys")).refused("may be in use");
    site.doctor_finds_good("two", true);
}

/// Keys that are all there beside the mark of a ceremony: only the operator knows whether the other tokens have them.
#[test]
fn what_becomes_of_complete_keys_is_for_the_operator_to_say() {
    let site = Site::new();
    let slots = site.on(false, "slots --json").done().json();
    let serial = super::slot_of(&slots, "one").unwrap()["serial"].as_str().unwrap().to_owned();
    fs::write(site.hsm.path("key"), [7; 32]).unwrap();
    let key = site.hsm.path("key");
    let leave = || {
        site.on(false, "ceremony wrapping-key --token one --pin-file pin").done();
        let words =
            ["--aes", "--label", "keymill-domain", "--id", "01", "--token", "one", "--pin", super::PIN];
        site.hsm.softhsm_util(&[&["--import", key.to_str().unwrap()], &words[..]].concat());
    };
    let clean = |rest: &str| {
        site.on(false, &format!("ceremony clean --token one --pin-file pin --confirm {serial} {rest}"))
    };
    leave();
    let told = clean("").wrong_use("all keys of a domain");
    assert!(told.err.contains("--keep-keys") && told.err.contains("nothing was destroyed"), "{told:?}");
    assert_eq!(clean("--keep-keys --destroy-keys").code, Some(2));
    let done = clean("--destroy-keys --json").done().json();
    assert_eq!(done["destroyed"], serde_json::json!(["keymill-domain"]));
    leave();
    let done = clean("--keep-keys --json").done().json();
    assert_eq!(
        (&done["wrapping_halves"], &done["kept"]),
        (&2.into(), &serde_json::json!(["keymill-domain"]))
    );
    clean("--destroy-keys").refused("may be in use");
}

/// Whoever brings a wrapping key into a token has its private half, and would have the domain's keys.
#[test]
fn a_wrapping_key_that_was_brought_into_the_token_is_refused() {
    use aws_lc_rs::encoding::AsDer;
    use base64::Engine;
    let site = Site::new();
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa3072).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    fs::write(site.hsm.path("key.pem"), pem).unwrap();
    let file = site.hsm.path("key.pem");
    let words = ["--label", "keymill-ceremony", "--id", "01", "--token", "one", "--pin", super::PIN];
    site.hsm.softhsm_util(&[&["--import", file.to_str().unwrap()], &words[..]].concat());
    site.on(false, "ceremony wrapping-key --token one --pin-file pin").refused("was not made in it");
    let (serial, last) = site.read_at_two();
    site.hold(&format!("--yes --confirm {serial}={last}")).refused("was not made in it");
}

/// With a terminal: the fingerprint's last characters are asked for and not shown, and shares are shown one by one.
#[test]
fn an_operator_types_what_was_read_and_custodians_see_their_shares_once() {
    let site = Site::new();
    let (_, last) = site.read_at_two();
    let typed = |text: &str, line: &str| {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut terminal = fs::File::from(pty.master);
        let child = site
            .hsm
            .command(line, &[])
            .stdin(Stdio::from(pty.slave))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        terminal.write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        site.hsm.ended(output)
    };
    let ended = typed("zzzz\n", &site.words("--custodians 2-of-2 --copy copy"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("does not end in zzzz") && !ended.err.contains(&last), "{ended:?}");
    assert!(!site.hsm.path("copy").exists());

    let ended = typed(&format!("{last}\n\n\n\n\n"), &site.words("--custodians 2-of-2 --copy copy")).done();
    assert!(ended.out.contains("typed at the terminal") && ended.out.contains("shown once"), "{ended:?}");
    let shares: Vec<&str> = ended.err.lines().filter(|line| line.starts_with("keymill-share-1:")).collect();
    assert_eq!(shares.len(), 2, "{ended:?}");
    assert!(!ended.out.contains("keymill-share-1:"));
    site.doctor_finds_good("two", true);

    // And they type them where a token joins.
    site.token("late", true);
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut terminal = fs::File::from(pty.master);
    let line = format!(
        "ceremony join --module {} --token late --pin-file pin --copy copy --json",
        site.other.display()
    );
    let mut child = site
        .hsm
        .command(&line, &[])
        .stdin(Stdio::from(pty.slave))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asked = child.stderr.take().unwrap();
    for share in shares.iter().rev() {
        // What is typed before the prompt is thrown away.
        let mut prompt = Vec::new();
        while !prompt.ends_with(b"shown): ") {
            let mut byte = [0];
            assert_eq!(asked.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&prompt));
            prompt.push(byte[0]);
        }
        terminal.write_all(format!("{}\n", share.to_uppercase()).as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    site.doctor_finds_good("late", true);
}
