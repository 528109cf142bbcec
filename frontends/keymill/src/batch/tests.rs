//! Whole runs through the fake sealer: restored byte for byte, whatever the file, the cut and the trouble.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use proptest::prelude::*;

use super::args::BatchArgs;
use super::error::BatchError;
use super::fake::{Fake, Trouble};
use super::interrupt::Interrupt;
use super::output::Cadence;
use super::pipeline::Settings;
use super::plan::Plan;
use super::worker::Patience;
use super::{Direction, Summary, run_on};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    batch: BatchArgs,
}

/// Makes the plan of a command line.
pub(super) fn plan(direction: Direction, input: &Path, output: &Path, options: &str) -> Plan {
    let key = if direction == Direction::Decrypt { "" } else { "--key alias/people" };
    let line = format!("batch --quiet --in {} --out {} {key} {options}", input.display(), output.display());
    Plan::new(direction, &Cli::try_parse_from(line.split_whitespace()).unwrap().batch).unwrap()
}

fn settings(plan: &Plan) -> Settings {
    let mut settings = Settings::new(plan, Interrupt::default());
    settings.patience =
        Patience { first: Duration::ZERO, last: Duration::ZERO, give_up: Duration::from_secs(60) };
    settings
}

/// Keeps a checkpoint behind every write, so that a run can be cut there.
const EVERY_WRITE: Cadence = Cadence { every: Duration::ZERO, rows: 0 };

/// A folder with an input, and runs over it.
struct Bench {
    folder: tempfile::TempDir,
    kind: &'static str,
    cadence: Cadence,
}

impl Bench {
    fn new(kind: &'static str, input: &[u8]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), kind, cadence: Cadence::default() };
        fs::write(bench.path("plain"), input).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{}", self.kind))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }

    fn plan(&self, direction: Direction, from: &str, to: &str, options: &str) -> Plan {
        plan(direction, &self.path(from), &self.path(to), options)
    }

    fn run(
        &self,
        direction: Direction,
        from: &str,
        to: &str,
        options: &str,
        script: impl Fn(usize) -> Trouble + Sync,
    ) -> Result<Summary, BatchError> {
        let plan = self.plan(direction, from, to, options);
        let fake = Fake::new(&plan, script);
        run_on(&plan, &&fake, &Settings { cadence: self.cadence, ..settings(&plan) })
    }

    fn encrypt(&self, options: &str) -> Result<Summary, BatchError> {
        self.run(Direction::Encrypt, "plain", "sealed", options, |_| Trouble::None)
    }

    fn decrypt(&self, options: &str) -> Result<Summary, BatchError> {
        self.run(Direction::Decrypt, "sealed", "opened", options, |_| Trouble::None)
    }

    /// Seals, seals anew and opens, and checks that the input comes back.
    fn round_trip(&self, options: &str) -> Summary {
        let there = self.encrypt(options).unwrap();
        let anew = self.run(Direction::ReEncrypt, "sealed", "anew", options, |_| Trouble::None).unwrap();
        assert_eq!((there.rows, there.items), (anew.rows, anew.items));
        // What plays the server seals alike each time.
        assert_eq!(self.read("anew"), self.read("sealed"));
        fs::rename(self.path("anew"), self.path("sealed")).unwrap();
        let back = self.decrypt(options).unwrap();
        assert_eq!(
            self.read("opened"),
            self.read("plain"),
            "{}",
            String::from_utf8_lossy(&self.read("plain"))
        );
        assert_eq!((there.rows, there.items), (back.rows, back.items));
        assert_eq!(self.files(), 3, "no checkpoint stays");
        there
    }
}

/// Fields as they may stand in a file of the delimiter `,`.
fn raw_field() -> impl Strategy<Value = String> {
    let quoted = "[a-z\"',;\r\n é漢😀]{0,8}".prop_map(|text| format!("\"{}\"", text.replace('"', "\"\"")));
    let bare = "([a-z0-9;'é漢 ][a-z\"0-9;'é漢 ]{0,8})?";
    prop_oneof![quoted, bare]
}

fn csv() -> impl Strategy<Value = String> {
    let end = || prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n"), Just("\n\r\n")];
    let row = (raw_field(), raw_field(), raw_field(), end());
    let rows = proptest::collection::vec(row, 0..12);
    (any::<bool>(), "(\"id\"|id),email,\"the \"\"card\"\"\"", end(), rows, any::<bool>()).prop_map(
        |(mark, header, end, rows, last_end)| {
            let mut text = format!("{}{header}{end}", if mark { "\u{feff}" } else { "" });
            for (index, (a, b, c, end)) in rows.iter().enumerate() {
                // Two rows must not look like one field.
                text += &format!("{a},{b},{c}");
                text += if index + 1 == rows.len() && !last_end { "" } else { end };
            }
            text
        },
    )
}

fn json_value() -> impl Strategy<Value = String> {
    let string = proptest::collection::vec(
        prop_oneof![
            "[a-zé漢😀 :,{}\\[\\]]",
            Just("\\n".to_owned()),
            Just("\\\"".to_owned()),
            Just("\\\\".to_owned()),
            Just("\\/".to_owned()),
            Just("\\u00e9".to_owned()),
            Just("\\u001F".to_owned()),
            Just("\\ud83d\\ude00".to_owned()),
            Just("\\ud800".to_owned()),
        ],
        0..6,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    prop_oneof![
        string,
        "-?[1-9][0-9]{0,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("{ \"x\" : [1, \"]\" , {}] }".to_owned()),
        Just("[]".to_owned()),
    ]
}

fn ndjson() -> impl Strategy<Value = String> {
    let line = (json_value(), json_value(), 0..1000_u32, "[ \t]{0,2}", prop_oneof![Just("\n"), Just("\r\n")]);
    (proptest::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, last_end)| {
        let mut text = String::new();
        for (index, (a, b, id, space, end)) in lines.iter().enumerate() {
            text += &format!(
                "{space}{{\"id\":{id},{space}\"who\"{space}:{{ \"mail\" : {a}{space}}}, \"other\":{b},\"card\":{b}}}{space}"
            );
            text += if index + 1 == lines.len() && !last_end { "" } else { end };
            text += if id % 5 == 0 && (last_end || index + 1 < lines.len()) { " \n" } else { "" };
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_csv_comes_back_byte_for_byte(text in csv(), items in 1..5_u32) {
        let bench = Bench::new("csv", text.as_bytes());
        // The name with a quote in it cannot pass `split_whitespace`; columns 1 and 2 are enough there.
        bench.round_trip(&format!("--columns email --batch-items {items}"));
    }

    #[test]
    fn any_csv_without_a_header_and_with_contexts_comes_back(text in csv(), items in 1..5_u32) {
        let bench = Bench::new("csv", text.as_bytes());
        let options = "--no-header --columns 3,2 --context row=1,table=literal:x --keep-empty";
        bench.round_trip(&format!("{options} --batch-items {items} --connections 3"));
    }

    #[test]
    fn sealed_csv_has_the_columns_that_another_reader_sees(text in csv()) {
        let bench = Bench::new("csv", text.as_bytes());
        bench.encrypt("--columns email").unwrap();
        let read = |bytes: &[u8]| -> Vec<Vec<Vec<u8>>> {
            let mut reader = csv::ReaderBuilder::new();
            reader.flexible(true).terminator(csv::Terminator::Any(b'\n')).has_headers(false);
            let mut reader = reader.from_reader(bytes);
            reader.byte_records().map(|row| row.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
        };
        let (plain, sealed) = (read(&bench.read("plain")), read(&bench.read("sealed")));
        prop_assert_eq!(plain.len(), sealed.len());
        for (plain, sealed) in plain.iter().zip(&sealed).skip(1).filter(|(plain, _)| plain.len() == 3) {
            prop_assert_eq!(&plain[0], &sealed[0]);
            prop_assert!(sealed[1].starts_with(b"km1:"));
        }
    }

    #[test]
    fn any_ndjson_comes_back_byte_for_byte(text in ndjson(), items in 1..5_u32) {
        let bench = Bench::new("ndjson", text.as_bytes());
        let options = "--fields card,who.mail --context row=id,table=literal:x";
        bench.round_trip(&format!("{options} --batch-items {items}"));
        for line in std::str::from_utf8(&bench.read("sealed")).unwrap().lines() {
            prop_assert!(line.trim().is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok());
        }
    }

    #[test]
    fn trouble_on_the_way_changes_nothing(
        text in csv(),
        troubles in proptest::collection::vec(
            prop_oneof![Just(Trouble::None), Just(Trouble::Lost), Just(Trouble::Busy), Just(Trouble::Late)],
            0..24,
        ),
    ) {
        let bench = Bench::new("csv", text.as_bytes());
        let script = |request: usize| troubles.get(request).copied().unwrap_or(Trouble::None);
        let options = "--columns email --context row=id --batch-items 1 --connections 3";
        bench.run(Direction::Encrypt, "plain", "sealed", options, script).unwrap();
        bench.run(Direction::Decrypt, "sealed", "opened", options, script).unwrap();
        prop_assert_eq!(bench.read("opened"), bench.read("plain"));
    }

    #[test]
    fn a_run_that_is_cut_anywhere_and_resumed_gives_the_same(
        text in csv(),
        cuts in proptest::collection::vec(0..8_usize, 1..4),
        torn in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let bench = Bench::new("csv", text.as_bytes());
        bench.encrypt("--columns email --batch-items 1").unwrap();
        for (from, to, direction) in [("plain", "again", Direction::Encrypt), ("sealed", "opened", Direction::Decrypt)] {
            for cut in &cuts {
                let script = |request| if request == *cut { Trouble::Denied } else { Trouble::None };
                let _ = bench.run(direction, from, to, "--columns email --batch-items 1 --resume", script);
                // A crash may leave bytes behind those that the checkpoint speaks of.
                if Path::new(&format!("{}.keymill-progress", bench.path(to).display())).exists() {
                    let all = [bench.read(to), torn.clone()].concat();
                    fs::write(bench.path(to), all).unwrap();
                }
            }
            let last = bench.run(direction, from, to, "--columns email --batch-items 1 --resume", |_| Trouble::None);
            if let Err(error) = last {
                prop_assert!(error.to_string().contains("is done"), "{}", error);
            }
        }
        prop_assert_eq!(bench.read("again"), bench.read("sealed"));
        prop_assert_eq!(bench.read("opened"), bench.read("plain"));
    }
}

fn people(rows: usize) -> Vec<u8> {
    let mut text = "id,email,card\r\n".to_owned();
    for id in 1..=rows {
        text += &format!("{id},\"p{id}@example.org\",{}\r\n", 4_000_000 + id);
    }
    text.into_bytes()
}

#[test]
fn every_moment_of_a_run_can_be_resumed_from() {
    // The disk is copied from within the run, at each request: what a crash at that moment would leave.
    let bench = Bench { cadence: EVERY_WRITE, ..Bench::new("csv", &people(60)) };
    bench.encrypt("--columns email,card --batch-items 4").unwrap();
    let copies = std::sync::Mutex::new(Vec::new());
    let (output, progress) =
        (bench.path("opened"), PathBuf::from(format!("{}.keymill-progress", bench.path("opened").display())));
    let script = |_| {
        // The checkpoint first: the output only grows.
        let copy = (fs::read(&progress), fs::read(&output));
        copies.lock().unwrap().push(copy);
        Trouble::None
    };
    let options = "--columns email,card --batch-items 4 --connections 1";
    bench.run(Direction::Decrypt, "sealed", "opened", options, script).unwrap();
    let copies = copies.into_inner().unwrap();
    assert!(copies.len() >= 15);
    let mut resumed = 0;
    for (checkpoint, written) in copies {
        fs::write(&progress, checkpoint.unwrap()).unwrap();
        fs::write(&output, written.unwrap()).unwrap();
        let summary = bench.decrypt(&format!("{options} --resume")).unwrap();
        assert_eq!(bench.read("opened"), bench.read("plain"));
        assert_eq!(summary.rows + summary.resumed_from_row.map_or(0, |row| row - 1), 60);
        resumed += usize::from(summary.resumed_from_row.is_some());
    }
    assert!(resumed > 5, "{resumed}");
}

#[test]
fn an_error_in_a_cell_names_it_and_keeps_what_was_before() {
    let bench = Bench::new("csv", &people(10));
    let script = |request| if request == 2 { Trouble::Cell(1) } else { Trouble::None };
    let options = "--columns card,email --batch-items 4 --connections 1";
    let error = bench.run(Direction::Encrypt, "plain", "sealed", options, script).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 5, column card: InvalidParameter: the cell fails; 4 rows are written, continue with --resume"
    );
    assert_eq!((error.exit_code(), error.resumable_rows()), (1, Some(4)));
    let summary = bench.encrypt(&format!("{options} --resume")).unwrap();
    assert_eq!((summary.resumed_from_row, summary.rows, summary.items), (Some(5), 6, 12));
    bench.decrypt(options).unwrap();
    assert_eq!(bench.read("opened"), bench.read("plain"));
}

#[test]
fn a_run_that_did_nothing_leaves_nothing() {
    let bench = Bench::new("csv", &people(10));
    for trouble in [Trouble::Denied, Trouble::Short, Trouble::Cell(0), Trouble::Panic] {
        let options = "--columns email --connections 1";
        let attempt = || bench.run(Direction::Encrypt, "plain", "sealed", options, move |_| trouble);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)) {
            Ok(outcome) => {
                assert_eq!(outcome.unwrap_err().resumable_rows(), None, "{trouble:?}");
                assert_eq!(bench.files(), 1, "{trouble:?}");
            }
            Err(_) => {
                assert_eq!(trouble, Trouble::Panic);
                bench.encrypt("--columns email --resume").unwrap();
            }
        }
    }
}

#[test]
fn a_server_that_stays_away_is_given_up() {
    let bench = Bench::new("csv", &people(10));
    let plan =
        bench.plan(Direction::Encrypt, "plain", "sealed", "--columns email --batch-items 2 --connections 1");
    let mut settings = settings(&plan);
    settings.patience.give_up = Duration::from_millis(2);
    let fake = Fake::new(&plan, |request| if request < 2 { Trouble::None } else { Trouble::Lost });
    let error = run_on(&plan, &&fake, &settings).unwrap_err();
    assert!(error.to_string().contains("gave up after 0 s: cut off"), "{error}");
    assert!(fake.connections.load(Ordering::Relaxed) > 1);
    if error.resumable_rows().is_some() {
        bench.encrypt("--columns email --resume").unwrap();
    } else {
        bench.encrypt("--columns email").unwrap();
    }
    bench.decrypt("--columns email").unwrap();
    assert_eq!(bench.read("opened"), bench.read("plain"));
}

#[test]
fn a_connection_is_left_once_all_of_it_is_answered() {
    let bench = Bench::new("csv", &people(100));
    let plan =
        bench.plan(Direction::Encrypt, "plain", "sealed", "--columns email --batch-items 1 --connections 2");
    let mut fake = Fake::new(&plan, |_| Trouble::None);
    fake.leaves_after = 10;
    run_on(&plan, &&fake, &settings(&plan)).unwrap();
    assert_eq!(fake.requests(), 100);
    let connections = fake.connections.load(Ordering::Relaxed);
    assert!((6..=11).contains(&connections), "{connections}");
    bench.decrypt("--columns email").unwrap();
    assert_eq!(bench.read("opened"), bench.read("plain"));
}

#[test]
fn an_interrupt_keeps_a_checkpoint_and_says_how_to_go_on() {
    let bench = Bench::new("csv", &people(5000));
    let plan =
        bench.plan(Direction::Encrypt, "plain", "sealed", "--columns email --batch-items 1 --connections 1");
    let settings = settings(&plan);
    let interrupt = settings.interrupt.clone();
    let fake = Fake::new(&plan, |request| {
        if request == 20 {
            interrupt.set();
        }
        Trouble::None
    });
    let error = run_on(&plan, &&fake, &settings).unwrap_err();
    assert!(error.to_string().starts_with("interrupted; "), "{error}");
    let rows = error.resumable_rows().unwrap();
    assert!((20..5000).contains(&rows), "{rows}");
    let summary = bench.encrypt("--columns email --resume").unwrap();
    assert_eq!((summary.resumed_from_row, summary.rows), (Some(rows + 1), 5000 - rows));
    bench.decrypt("--columns email").unwrap();
    assert_eq!(bench.read("opened"), bench.read("plain"));
}

#[test]
fn what_is_there_is_not_overwritten_unasked() {
    let bench = Bench::new("csv", &people(10));
    bench.encrypt("--columns email").unwrap();
    let refused = |options: &str| bench.encrypt(options).unwrap_err().to_string();
    assert!(refused("--columns email").contains("--force overwrites it"));
    assert!(refused("--columns email --resume").contains("is done"));
    bench.encrypt("--columns email --force").unwrap();
    let itself =
        bench.run(Direction::Encrypt, "plain", "plain", "--columns email --force", |_| Trouble::None);
    assert!(itself.unwrap_err().to_string().contains("the input itself"));
    std::os::unix::fs::symlink(bench.path("plain"), bench.path("opened")).unwrap();
    assert!(bench.decrypt("--columns email --force").unwrap_err().to_string().contains("no regular file"));
    assert_eq!(bench.read("plain"), people(10));
}

#[test]
fn what_is_decrypted_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new("csv", &people(1));
    bench.round_trip("--columns email");
    assert_eq!(fs::metadata(bench.path("opened")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// What is said of a run over `input`.
fn complaint(kind: &'static str, input: &str, direction: Direction, options: &str) -> String {
    let bench = Bench::new(kind, input.as_bytes());
    let error = bench.run(direction, "plain", "out", options, |_| Trouble::None).unwrap_err();
    assert_eq!(bench.files(), 1);
    error.to_string()
}

#[test]
fn cells_that_cannot_be_are_named_by_row_and_column() {
    use Direction::{Decrypt, Encrypt};
    let long = format!("a,b\n1,{}\n", "x".repeat(65_537));
    for (kind, input, direction, options, expected) in [
        (
            "csv",
            "a,b\n1,km1:x\n",
            Encrypt,
            "--columns b",
            "row 1, column b: InvalidCell: the cell is sealed already",
        ),
        ("csv", long.as_str(), Encrypt, "--columns b", "cell of 65537 bytes exceeds the limit of 65536"),
        ("csv", "a,b\n1\n", Encrypt, "--columns b", "the row has 1 of its columns, and this is number 2"),
        ("csv", "a,b\n\"1\n", Encrypt, "--columns b", "row 1: a quoted field is not closed"),
        ("csv", "a,b\n\"1\"x,2\n", Encrypt, "--columns b", "row 1: text follows the closing quote"),
        ("csv", "a,b\n1,2\n", Encrypt, "--columns c", "no column is named c; the header has a, b"),
        ("csv", "a,a\n1,2\n", Encrypt, "--columns a", "two columns named a"),
        ("csv", "a,b\n1,2\n", Encrypt, "--columns a --context x=a", "column a is sealed itself"),
        ("csv", "a,b\n1,2\n", Decrypt, "--columns b", "row 1, column b: InvalidCell: the cell is not sealed"),
        ("csv", "a,b\n1,km1:!\n", Decrypt, "--columns b", "not unpadded base64url"),
        ("csv", "a,b\n1,km1:AAAA\n", Decrypt, "--columns b", "row 1, column b: InvalidParameter"),
        ("csv", "a,b\n1,\n", Decrypt, "--columns b", "the cell is not sealed"),
        ("ndjson", "{\"a\":\"km1:x\"}", Encrypt, "--fields a", "the cell is sealed already"),
        ("ndjson", "{\"a\":\"\\u006bm1j:x\"}", Encrypt, "--fields a", "the cell is sealed already"),
        (
            "ndjson",
            "\n{\"b\":1}",
            Encrypt,
            "--fields a",
            "row 1, column a: InvalidCell: the line has no such field",
        ),
        ("ndjson", "{\"a\":1} x", Encrypt, "--fields a", "row 1: not JSON at byte 9"),
        ("ndjson", "[1]", Encrypt, "--fields a", "row 1: the line is not a JSON object"),
        ("ndjson", "{\"a\":1,\"a\":2}", Encrypt, "--fields a", "the field a comes twice"),
        ("ndjson", "{\"a\":1,\"b\":null}", Encrypt, "--fields a --context x=b", "column b"),
        ("ndjson", "{\"a\":1}", Encrypt, "--fields a,a.b", "is sealed with a"),
        ("ndjson", "{\"a\":1}", Decrypt, "--fields a", "the cell is not sealed"),
    ] {
        let told = complaint(kind, input, direction, options);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn an_open_quote_does_not_pull_the_file_into_memory() {
    let input = format!("a,b\n1,\"{}", "x".repeat(17 * 1024 * 1024));
    let told = complaint("csv", &input, Direction::Encrypt, "--columns b");
    assert!(told.contains("row 1: the row is longer than 16777216 bytes"), "{told}");
}

#[test]
fn another_context_does_not_open_a_cell() {
    let bench = Bench::new("csv", &people(3));
    bench.encrypt("--columns email --context row=id").unwrap();
    let text = String::from_utf8(bench.read("sealed")).unwrap().replace("\n2,", "\n9,");
    fs::write(bench.path("sealed"), text).unwrap();
    let error = bench.decrypt("--columns email --context row=id").unwrap_err();
    assert!(error.to_string().starts_with("row 2, column email: InvalidParameter"), "{error}");
}

#[test]
fn options_for_odd_cells_do_what_they_say() {
    let bench = Bench::new("csv", b"a,b\n1,\n2,\"\"\n3,x\n");
    bench.encrypt("--columns b --keep-empty").unwrap();
    let sealed = String::from_utf8(bench.read("sealed")).unwrap();
    assert!(sealed.starts_with("a,b\n1,\n2,\"\"\n3,km1:"), "{sealed}");
    bench.decrypt("--columns b --skip-plain").unwrap();
    assert_eq!(bench.read("opened"), bench.read("plain"));

    let twice = Bench::new("csv", b"a\nkm1:AAAA\n");
    twice.round_trip("--columns a --allow-reencrypt");

    let lines = Bench::new("ndjson", b"{\"a\":null}\n{\"b\":1}\n{\"a\":\"\"}\n{\"a\":7}\n");
    let summary = lines.round_trip("--fields a --ignore-missing --keep-empty");
    assert_eq!((summary.rows, summary.items), (4, 1));
    assert!(lines.read("sealed").ends_with(b"\"}\n"));
}

#[test]
fn files_without_rows_come_back_too() {
    for text in ["", "\n", "\r\n\r\n", "a,b", "a,b\r\n", "\u{feff}a,b\n", "\u{feff}"] {
        Bench::new("csv", text.as_bytes()).round_trip("--columns a");
    }
    for text in ["", "\n", " \r\n", "\u{feff}"] {
        Bench::new("ndjson", text.as_bytes()).round_trip("--fields a");
    }
}

#[test]
fn a_long_file_goes_round_the_bounded_buffers() {
    let bench = Bench::new("csv", &people(20_000));
    let summary = bench.round_trip("--columns email,card --context row=id --batch-items 7 --connections 3");
    assert_eq!((summary.rows, summary.items), (20_000, 40_000));
}
