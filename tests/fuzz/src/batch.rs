//! The rows that `keymill batch` reads: whatever a file holds, each row that is sealed opens to the bytes that it was, in the
//! same place and under the same context. The program has no library, so its files are taken in here by their paths; of what
//! they lean on, `stand_in` has the little that they touch.

mod stand_in;

#[path = "../../../frontends/keymill/src/batch/cell.rs"]
mod cell;
#[path = "../../../frontends/keymill/src/batch/context.rs"]
#[allow(dead_code, reason = "the rest of the program uses it")]
mod context;
#[path = "../../../frontends/keymill/src/batch/csv.rs"]
mod csv;
#[path = "../../../frontends/keymill/src/batch/error.rs"]
#[allow(dead_code, reason = "the rest of the program uses it")]
mod error;
#[path = "../../../frontends/keymill/src/batch/json.rs"]
mod json;
#[path = "../../../frontends/keymill/src/batch/ndjson.rs"]
mod ndjson;
#[path = "../../../frontends/keymill/src/batch/reader.rs"]
#[allow(dead_code, reason = "the rest of the program uses it")]
mod reader;
#[path = "../../../frontends/keymill/src/batch/rows.rs"]
#[allow(dead_code, reason = "the rest of the program uses it")]
mod rows;

use context::ContextPlan;
use csv::CsvCutter;
use error::BatchError;
use ndjson::NdjsonCutter;
use plan::Plan;
use reader::Cutter;
use rows::Rows;
use stand_in::{Direction, args, checkpoint, plan, seal};

use crate::memory::{room, within};
use crate::target::Seed;
use args::{Format, Place};

/// Reads the input as a file of the form that the first byte picks, seals its rows and opens them again.
pub(crate) fn check(bytes: &[u8]) {
    let Some((choice, file)) = bytes.split_first() else { return };
    let mut rows = cut(&made(*choice, Direction::Encrypt), file);
    let sealed = through(&mut rows, Direction::Encrypt, |item| [b"sealed:", item].concat());

    let mut again = cut(&made(*choice, Direction::Decrypt), &sealed);
    assert_eq!(again.raw(), sealed, "what was sealed here reads to its end");
    assert_eq!(again.count, rows.count);
    assert_eq!(again.cells(), rows.cells());
    assert!((0..rows.cells()).all(|cell| again.locate(cell) == rows.locate(cell)));
    if made(*choice, Direction::Encrypt).context.is_per_row() {
        assert!(again.contexts().eq(rows.contexts()));
    }
    let opened = through(&mut again, Direction::Decrypt, |item| {
        item.strip_prefix(b"sealed:").expect("it was sealed here").to_vec()
    });
    assert_eq!(opened, rows.raw());

    // What is sealed anew stands where it stood.
    let mut anew = cut(&made(*choice, Direction::ReEncrypt), &sealed);
    assert_eq!(through(&mut anew, Direction::ReEncrypt, <[u8]>::to_vec), sealed);

    // Strangers' files are opened, too.
    let strange = cut(&made(*choice, Direction::Decrypt), file);
    assert!(file.starts_with(strange.raw()));
}

fn made(choice: u8, direction: Direction) -> Plan {
    let bit = |bit: u8| choice & 1 << bit != 0;
    let format = if bit(0) { Format::Ndjson } else { Format::Csv };
    let header = !bit(1) || format == Format::Ndjson;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (selection, id) = match (format, header) {
        (Format::Csv, true) => (names(&["a", "b"]), "id"),
        (Format::Csv, false) => (names(&["3", "1"]), "2"),
        (Format::Ndjson, _) => (names(&["a", "b.c"]), "id"),
    };
    let pairs = if bit(2) { vec![format!("row={id}"), "t=literal:x".to_owned()] } else { Vec::new() };
    Plan {
        direction,
        input: Place::Standard,
        format,
        selection,
        context: ContextPlan::parse(&pairs).expect("the pairs are fine"),
        header,
        delimiter: if bit(3) { b';' } else { b',' },
        allow_reencrypt: bit(4),
        skip_plain: false,
        keep_empty: bit(5),
        ignore_missing: bit(6),
        batch_items: usize::MAX,
        batch_bytes: usize::MAX,
    }
}

/// Cuts rows up to the end or the first that is wrong.
fn cut(plan: &Plan, file: &[u8]) -> Rows {
    let cutter: Result<Box<dyn Cutter + '_>, BatchError> = match plan.format {
        Format::Csv => CsvCutter::new(plan).map(|cutter| Box::new(cutter) as _),
        Format::Ndjson => NdjsonCutter::new(plan).map(|cutter| Box::new(cutter) as _),
    };
    let mut cutter = cutter.expect("the selection is fine");
    let mut rows = Rows::default();
    rows.first_row = 1;
    let mut unread = file;
    while !unread.is_empty() {
        match within(room(4 * file.len()), || cutter.cut(unread, true, &mut rows)) {
            Ok(Some(length)) => {
                assert!(length > 0, "a record has bytes");
                unread = &unread[length..];
            }
            Ok(None) => panic!("nothing more will come"),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    assert!(file.starts_with(rows.raw()));
    rows
}

/// Renders the rows with what `serve` makes of each item.
fn through(rows: &mut Rows, direction: Direction, serve: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let results: Vec<Vec<u8>> = rows.items().map(serve).collect();
    let names = ["a", "b"].map(str::to_owned);
    rows.render(direction, &names, results.iter().map(Vec::as_slice)).expect("it was sealed here");
    std::mem::take(&mut rows.out)
}

/// Returns files of each form.
pub(crate) fn seeds() -> Vec<Seed> {
    let csv = "id,a,x,b\r\n1,\"q\"\"u\no\",,b\r\n\r\n2,ä,y,\"\"\r\n3,,z,km1:AA";
    let ndjson = "{\"id\":1,\"a\":\"x\",\"b\":{\"c\":[1,{\"d\":null}]}}\n\n\
        {\"a\": \"\\u00e4\\n\" , \"b\" : { \"x\":2,\"c\":\"\"},\"id\":true}\r\n{\"a\":null,\"b\":{\"c\":1e5},\"id\":\"s\"}";
    vec![
        ("csv", [&[0b00_0100], csv.as_bytes()].concat()),
        ("csv-mark", [&[0b11_0000], &b"\xef\xbb\xbf"[..], csv.as_bytes()].concat()),
        ("csv-bare", [&[0b00_1010], &b"1;2;3\nx;;\"y\"\n"[..]].concat()),
        ("ndjson", [&[0b00_0101], ndjson.as_bytes()].concat()),
        ("ndjson-empty", [&[0b110_0001], ndjson.as_bytes()].concat()),
        ("sealed", [&[0b00_0000], &b"a,b\nkm1:AQID,\"km1:\"\n"[..]].concat()),
    ]
}
