//! `keymill secret edit|run|template|import|export` as an operator has them: values in editors, environments and files in memory, and nowhere else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use keymill_harness::program::{Server, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Scene {
    place: TempDir,
    server: Server,
}

impl Scene {
    fn start() -> Self {
        let place = TempDir::new().unwrap();
        let server = Server::start(place.path());
        Self { place, server }
    }

    fn command(&self, credentials: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        for variable in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_CA", "VISUAL", "EDITOR"] {
            command.env_remove(variable);
        }
        // Server flags stand before what is run.
        command
            .args(["secret", "--tcp", &self.server.msgpack.to_string(), "--credentials"])
            .arg(credentials)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("credentials.json")
    }

    fn run_with(&self, command: &mut Command, input: &[u8]) -> Output {
        let mut child = command.spawn().unwrap();
        // One that does not read its input may be gone by now.
        let _unread = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(&mut self.command(&self.root(), arguments), b"")
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    fn create(&self, name: &str, value: &[u8], more: &[&str]) {
        let arguments = [&["create", name, "--version", "v1", "--from", "-"], more].concat();
        let output = self.run_with(&mut self.command(&self.root(), &arguments), value);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let output = self.run(&["get", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn versions(&self, name: &str) -> usize {
        self.done(&["versions", name]).lines().count() - 1
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.place.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Makes a script of it, which is an editor.
    fn editor(&self, name: &str, lines: &str) -> String {
        let path = self.write(name, &format!("#!/bin/sh\n{lines}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// Makes an access key with a role, and returns the file of its credentials.
    fn credentials_of(&self, role: &str) -> PathBuf {
        let path = self.place.path().join(format!("{}.json", role.replace('/', "-")));
        let output = Command::new(program())
            .args([
                "access-key",
                "create",
                "--tcp",
                &self.server.msgpack.to_string(),
                "--role",
                role,
                "--out",
            ])
            .arg(&path)
            .arg("--credentials")
            .arg(self.root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[test]
fn a_value_is_edited_in_memory_and_put_once() {
    let scene = Scene::start();
    scene.create("db", b"first", &[]);
    let edit = |editor: &str, more: &[&str]| {
        let mut command = scene.command(&scene.root(), &[&["edit", "db"], more].concat());
        scene.run_with(command.env("EDITOR", editor), b"")
    };
    // What the editor sees: the value, in a file and a folder of ours alone, in memory.
    let seen = scene.place.path().join("seen").to_str().unwrap().to_owned();
    let looks = format!(
        "cat \"$1\" >{seen}; stat -c %a \"$1\" >>{seen}; stat -c %a \"$(dirname \"$1\")\" >>{seen}; echo \"$1\" >>{seen}"
    );
    let unchanged = edit(&scene.editor("look", &looks), &[]);
    assert!(unchanged.status.success() && text(&unchanged).contains("nothing is put"), "{unchanged:?}");
    assert_eq!(scene.versions("db"), 1);
    let seen = fs::read_to_string(seen).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["first600", "700"]);
    assert!(lines[2].starts_with("/dev/shm/keymill-") && !Path::new(lines[2]).exists(), "{seen}");

    // It does not see what let us in.
    let surroundings = scene.place.path().join("surroundings");
    let shows = scene.editor("shows", &format!("env >{}", surroundings.display()));
    let mut command = scene.command(&scene.root(), &["edit", "db"]);
    command.env("EDITOR", shows).env("KEYMILL_ACCESS_KEY_ID", "KMAK00000001");
    let shown = scene.run_with(command.env("KEYMILL_ACCESS_KEY_SECRET", "marked-secret"), b"");
    assert!(shown.status.success(), "{shown:?}");
    assert!(!fs::read_to_string(surroundings).unwrap().contains("marked-secret"));

    // An editor that is a command line of its own, and one that writes a newline at the end.
    let append =
        scene.editor("append", "[ \"$1\" = --wait ] && shift; printf 'second\\n' >\"$1\"; cp \"$1\" \"$1~\"");
    let changed = edit(&format!("{append} --wait"), &["--version", "v2"]);
    assert!(changed.status.success(), "{changed:?}");
    assert!(!text(&changed).contains("second"));
    assert_eq!((scene.get("db"), scene.versions("db")), (b"second".to_vec(), 2));
    let listed = scene.done(&["versions", "db"]);
    assert!(
        listed.lines().any(|line| line.contains("v2") && line.trim_end().ends_with("ACSCurrent")),
        "{listed}"
    );

    // $VISUAL goes first; one that fails puts nothing, and so does one that is not there.
    let fails = scene.editor("fails", "printf other >\"$1\"; exit 3");
    let mut command = scene.command(&scene.root(), &["edit", "db"]);
    let failed = scene.run_with(command.env("VISUAL", &fails).env("EDITOR", &append), b"");
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(edit("/nowhere/editor", &[]).status.code(), Some(1));
    let no_text = edit(&scene.editor("bytes", "printf '\\377' >\"$1\""), &[]);
    assert!(text(&no_text).contains("no text"), "{no_text:?}");
    let long = edit(&scene.editor("long", "head -c 30721 /dev/zero | tr '\\0' x >\"$1\""), &[]);
    assert!(text(&long).contains("30720"), "{long:?}");
    assert_eq!((scene.get("db"), scene.versions("db")), (b"second".to_vec(), 2));
}

#[test]
fn a_change_by_somebody_else_while_one_edits_is_told_and_nothing_is_lost() {
    let scene = Scene::start();
    scene.create("db", b"first", &[]);
    // The other one puts a value while the editor is open.
    let other = format!(
        "printf theirs | {} secret --tcp {} --credentials {} put db --version v2 --from - >&2; printf mine >\"$1\"",
        program().display(),
        scene.server.msgpack,
        scene.root().display()
    );
    let mut command = scene.command(&scene.root(), &["edit", "db", "--version", "v3"]);
    let told = scene.run_with(command.env("EDITOR", scene.editor("other", &other)), b"");
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told).contains("changed meanwhile") && text(&told).contains("v2"), "{told:?}");
    assert_eq!(scene.get("db"), b"theirs");
    assert_eq!(scene.done(&["get", "db", "--version", "v3"]), "mine");
}

#[test]
fn a_signal_ends_the_editor_and_leaves_nothing_behind() {
    let scene = Scene::start();
    scene.create("db", b"first", &[]);
    let mut command = scene.command(&scene.root(), &["edit", "db"]);
    let editor = scene.editor("waits", "echo \"$1\"; exec sleep 600");
    let mut child = command.env("EDITOR", editor).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    let file = PathBuf::from(first.trim_end());
    assert!(file.exists());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!file.exists() && !file.parent().unwrap().exists());
    assert_eq!(scene.versions("db"), 1);
}

#[test]
fn a_program_has_values_in_its_environment_and_its_files_and_never_in_its_arguments() {
    let scene = Scene::start();
    scene.create("db", br#"{"user":"me","password":"s3cr3t-m4rk","port":5432}"#, &[]);
    scene.create("raw", &[0, 255, 1], &["--binary"]);
    let script = "printf '%s|%s|%s|' \"$PW\" \"$PORT\" \"$KEYMILL_ACCESS_KEY_SECRET\"; cat \"$DB\" | head -c 7; \
        od -An -tx1 \"$RAW\"; stat -c '%a' \"$DB\"; echo \"$DB\"; cat /proc/$$/cmdline /proc/$PPID/cmdline | tr '\\0' ' '; exit 7";
    let mut command = scene.command(
        &scene.root(),
        &[
            "run",
            "--env",
            "PW=db#password",
            "--env",
            "PORT=db#port",
            "--file",
            "DB=db",
            "--file",
            "RAW=raw",
            "--",
            "sh",
            "-c",
            script,
        ],
    );
    let output = scene.run_with(command.env("KEYMILL_ACCESS_KEY_SECRET", "not-for-it"), b"");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "s3cr3t-m4rk|5432||{\"user\" 00 ff 01");
    assert_eq!(lines[1], "600");
    assert!(lines[2].starts_with("/dev/shm/keymill-") && !Path::new(lines[2]).exists(), "{said}");
    assert_eq!(lines[2..].join("\n").matches("s3cr3t-m4rk").count(), 0, "{said}");

    // Without files there is nothing to come back for: we become the program.
    let mut child = scene
        .command(
            &scene.root(),
            &["run", "--env", "PW=db#user", "--", "sh", "-c", "echo $$ $PW; read line; exit 3"],
        )
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, format!("{} me\n", child.id()));
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));

    for (arguments, told) in [
        (&["run", "--env", "A=none", "--", "true"][..], "Forbidden.ResourceNotFound"),
        (&["run", "--env", "A=db#none", "--", "true"], "no such field"),
        (&["run", "--env", "A=db", "--env", "B=raw", "--", "true"], "--file"),
        (&["run", "--env", "A=db", "--", "/nowhere/program"], "/nowhere/program"),
    ] {
        let error = scene.refused(arguments, 1);
        assert!(error.contains(told) && !error.contains("s3cr3t"), "{error}");
    }
    for wrong in [
        &["run", "--env", "A=db"][..],
        &["run", "--env", "1A=db", "--", "true"],
        &["run", "--env", "A=db", "--file", "A=db", "--", "true"],
    ] {
        scene.refused(wrong, 2);
    }
}

fn ended(mut child: Child) -> (Option<i32>, Option<i32>) {
    let status = child.wait().unwrap();
    (status.code(), status.signal())
}

#[test]
fn signals_are_passed_on_and_files_go_with_the_program() {
    let scene = Scene::start();
    scene.create("db", b"value", &[]);
    let start = |script: &str| {
        let mut child = scene
            .command(&scene.root(), &["run", "--file", "DB=db", "--", "sh", "-c", script])
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        (child, PathBuf::from(first.trim_end()))
    };
    // One that catches it says how it ends; one that does not ends by it, and by the code that shells have for that. What runs in the background
    // has some of them ignored, and so have its children.
    for (script, signal, code) in [
        ("trap 'exit 9' USR1; echo \"$DB\"; while :; do sleep 0.05; done", Signal::SIGUSR1, 9),
        ("exec env --default-signal sh -c 'echo \"$DB\"; exec sleep 600'", Signal::SIGTERM, 143),
        ("exec env --default-signal sh -c 'echo \"$DB\"; exec sleep 600'", Signal::SIGINT, 130),
    ] {
        let (child, file) = start(script);
        assert_eq!(fs::read(&file).unwrap(), b"value");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(ended(child), (Some(code), None), "{script}");
        assert!(!file.exists());
    }
}

#[test]
fn a_template_is_made_into_a_file_of_ours_alone_and_what_is_wrong_is_told_by_line() {
    let scene = Scene::start();
    scene.create("shop/db", br#"{"user":"me","password":"p\"w"}"#, &[]);
    scene.create("token", b"t0ken", &[]);
    scene.create("raw", &[0, 255], &["--binary"]);
    let template = scene.write(
        "template",
        "user={{ secret \"shop/db\" \"user\" }}\npassword={{ secret \"shop/db\" \"password\" }}\n{{ \"{{\" }}{{secret \"token\"}}",
    );
    let out = scene.place.path().join("made.conf");
    fs::write(&out, "before").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
    let said = scene.done(&["template", &template, "--out", out.to_str().unwrap()]);
    assert!(said.contains("3 secrets"), "{said}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "user=me\npassword=p\"w\n{{t0ken");
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
    assert_eq!(scene.done(&["template", &template, "--out", "-"]), "user=me\npassword=p\"w\n{{t0ken");
    for (text, told) in [
        ("a\n{{ secret \"none\" }}", ":2: secret none: Forbidden.ResourceNotFound"),
        ("a\n\n{{ secret \"shop/db\" \"port\" }}", ":3: secret shop/db#port: its value has no such field"),
        ("{{ secret \"token\" \"x\" }}", ":1: secret token#x: its value is no JSON"),
        ("{{ secret \"raw\" }}", ":1: secret raw: its value is bytes"),
        ("a\n{{ token }}", ":2: between braces"),
    ] {
        let error =
            scene.refused(&["template", &scene.write("bad", text), "--out", out.to_str().unwrap()], 1);
        assert!(error.contains(told) && !error.contains("t0ken"), "{error}");
    }
    assert!(fs::read_to_string(&out).unwrap().starts_with("user=me"), "what failed changed nothing");
}

#[test]
fn an_import_shows_first_what_it_does_and_done_twice_changes_nothing() {
    let scene = Scene::start();
    let env = scene.write("prod.env", "DB_USER=me\nDB_PASSWORD='pa$$ w'\n");
    let outcomes = |arguments: &[&str]| -> Vec<(String, String)> {
        let output = scene.run(&[arguments, &["--json"]].concat());
        let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
        lines.as_array().unwrap().iter().map(|line| (text(line, "name"), text(line, "outcome"))).collect()
    };
    let both = |outcome: &str| -> Vec<(String, String)> {
        ["shop/DB_USER", "shop/DB_PASSWORD"].map(|name| (name.to_owned(), outcome.to_owned())).into()
    };
    let said = scene.run(&["import", &env, "--prefix", "shop/"]);
    assert!(
        said.status.success() && text(&said).contains("--apply") && !text(&said).contains("pa$$"),
        "{said:?}"
    );
    scene.refused(&["get", "shop/DB_USER"], 1);
    let apply = ["import", &env, "--prefix", "shop/", "--apply"];
    assert_eq!(outcomes(&apply), both("created"));
    assert_eq!(scene.get("shop/DB_PASSWORD"), b"pa$$ w");
    assert_eq!(outcomes(&apply), both("same"));
    assert_eq!(scene.versions("shop/DB_USER"), 1);
    scene.write("prod.env", "DB_USER=you\nDB_PASSWORD='pa$$ w'\n");
    assert_eq!(outcomes(&apply)[0].1, "put");
    assert_eq!((scene.get("shop/DB_USER"), scene.versions("shop/DB_USER")), (b"you".to_vec(), 2));

    // Who may not read values names the version, and the same again changes nothing.
    let admin = scene.credentials_of("SecretAdministrator");
    scene.write("prod.env", "DB_USER=them\nDB_NEW=x\n");
    for outcome in [["put", "created"], ["same", "same"]] {
        let mut command = scene.command(&admin, &[&apply[..], &["--version", "r7", "--json"]].concat());
        let lines: Value = serde_json::from_slice(&scene.run_with(&mut command, b"").stdout).unwrap();
        assert_eq!([&lines[0]["outcome"], &lines[1]["outcome"]], outcome, "{lines}");
    }
    assert_eq!(scene.versions("shop/DB_USER"), 3);

    let manifest = scene.write(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\ndata: {raw: AP8=, user: bWU=}\nstringData: {token: \"5\"}\n",
    );
    scene.done(&["import", &manifest, "--apply"]);
    assert_eq!((scene.get("web/raw"), scene.get("web/token")), (vec![0, 255], b"5".to_vec()));
    let mut command = scene.command(&scene.root(), &["import", "-", "--format", "json", "--apply"]);
    let some = scene.run_with(&mut command, br#"{"j":{"a":1},"empty":"","k":"v"}"#);
    assert_eq!(some.status.code(), Some(1), "one of them failed: {some:?}");
    assert!(text(&some).contains("1 of 3"), "{some:?}");
    assert_eq!((scene.get("j"), scene.get("k")), (br#"{"a":1}"#.to_vec(), b"v".to_vec()));
    for (name, content, told) in [
        ("bad.env", "A=x\nMARKED", ":2: expected NAME=VALUE"),
        ("bad.json", "[\"MARKED\"]", "one JSON object"),
        ("bad.yaml", "kind: ConfigMap\n", "another kind"),
        ("odd.env", "A=\"MARKED\\d\"", ":1: an escape"),
    ] {
        let error = scene.refused(&["import", &scene.write(name, content), "--apply"], 1);
        assert!(error.contains(told) && !error.contains("MARKED\""), "{error}");
    }
    scene.refused(&["import", &scene.write("what", "A=b")], 2);
}

#[test]
fn an_export_needs_a_right_of_its_own_and_reads_back() {
    let scene = Scene::start();
    scene.create("shop/db", "pass \"wörd\"\n".as_bytes(), &[]);
    scene.create("shop/raw", &[0, 255], &["--binary"]);
    scene.create("other", b"x", &[]);
    let out = scene.place.path().join("export.json");
    let out = out.to_str().unwrap();
    let reader = scene.credentials_of("RbacPermission/Template/CryptoServiceSecretUser");
    let arguments = ["export", "--prefix", "shop/", "--out", out];
    let refused = scene.run_with(&mut scene.command(&reader, &arguments), b"");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("ExportSecrets") && !Path::new(out).exists(), "{refused:?}");
    let said = scene.done(&arguments);
    assert!(said.contains("2 secrets") && !said.contains("wörd"), "{said}");
    assert_eq!(fs::metadata(out).unwrap().mode() & 0o777, 0o600);
    let mut exported = String::new();
    fs::File::open(out).unwrap().read_to_string(&mut exported).unwrap();
    let expected = json!({ "shop/db": "pass \"wörd\"\n", "shop/raw": { "Binary": "AP8=" } });
    assert_eq!(serde_json::from_str::<Value>(&exported).unwrap(), expected);
    assert!(scene.refused(&arguments, 1).contains("exists already"));
    assert_eq!(scene.done(&["export", "--stdout", "other"]), "{\n  \"other\": \"x\"\n}\n");
    scene.refused(&["export", "--stdout", "other", "none"], 1);
    scene.refused(&["export", "other"], 2);
    scene.refused(&["export", "--stdout"], 2);
    // What was exported is read back as it was.
    let same = scene.done(&["import", out, "--json"]);
    assert_eq!(same.matches("\"same\"").count(), 2, "{same}");
    scene.done(&["import", out, "--prefix", "copy/", "--apply"]);
    assert_eq!(scene.get("copy/shop/raw"), [0, 255]);
}
