//! `keymill audit export`: all chains as one file for other programs, JSON lines or CSV, each row saying whether its line verified.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keymill_core::seam::audit::AuditLog;
use keymill_crypto::audit::ChainKeys;
use nix::libc;

use super::entry::{Line, NoteRow, Place, Row, SecretTouch, write_json};
use super::filter::Filter;
use super::merge::{Verdict, merged};
use super::search::TrustArgs;
use crate::failure::{Failure, Result};
use crate::output::{self, grouped};
use crate::process;
use crate::serve::PlaceArgs;

/// Write the audit log, of every chain, in the order of time, for other programs
///
/// A row is one request, or, where no filter but that of time is given, one note of what happened to the server. `verified` says of each whether its line
/// is as it was written and in its place; exit code 1 if anything is wrong, after all was written. Works on the files alone, whether the
/// server runs or not.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExportArgs {
    /// The form of the rows
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// The file to write, mode 0600, which must not exist yet; - for standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    places: PlaceArgs,
}

/// The form of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One object a line
    Json,
    /// Comma-separated, with a head; cells that a spreadsheet would take for a formula begin with '
    Csv,
}

/// Exports, and says what was written.
pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    process::harden()?;
    let (log, keys) = args.trust.open(&args.places)?;
    let written = |error| match args.out == Path::new("-") {
        true => Failure::of_output(error),
        false => Failure::new(format!("cannot write {}: {error}", args.out.display())),
    };
    let mut out: Box<dyn Write> = match args.out == Path::new("-") {
        true => Box::new(BufWriter::new(io::stdout().lock())),
        false => Box::new(BufWriter::new(Durable(create(&args.out)?))),
    };
    let (count, verdict) = export(&*log, keys.as_ref(), &args.filter, args.format, &mut *out, &written)?;
    out.flush().map_err(written)?;
    output::note(format_args!("{} rows; {}", grouped(count), verdict.text()))?;
    verdict.tell()
}

/// Flushes to the disk.
struct Durable(std::fs::File);

impl Write for Durable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

pub(super) fn create(path: &Path) -> Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!("{} exists already", path.display()))
            .next("move it away, or name another file"),
        _ => Failure::new(format!("cannot write {}: {error}", path.display())),
    })
}

pub(super) fn export(
    log: &dyn AuditLog,
    keys: Option<&ChainKeys>,
    filter: &Filter,
    format: Format,
    out: &mut dyn Write,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<(u64, Verdict)> {
    if format == Format::Csv {
        writeln!(out, "{}", COLUMNS.join(",")).map_err(failed)?;
    }
    let mut count = 0;
    let verdict = merged(log, keys, &mut |place: Place<'_>, bytes: &[u8]| {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(bytes) else { return Ok(()) };
        if !filter.wants_time(&line.time) {
            return Ok(());
        }
        match &*line.kind {
            "request" => {
                for row in line.requests(place).filter(|row| filter.wants(row)) {
                    count += 1;
                    match format {
                        Format::Json => write_json(&row, out),
                        Format::Csv => write_cells(&cells(&row), out),
                    }
                    .map_err(failed)?;
                }
            }
            "note" if filter.is_of_time_alone() => {
                let Some(note) = NoteRow::of(&line, bytes, place) else { return Ok(()) };
                count += 1;
                match format {
                    Format::Json => write_json(&note, out),
                    Format::Csv => write_cells(&note_cells(&note), out),
                }
                .map_err(failed)?;
            }
            // What opens and signs a chain is for the verifier.
            _ => {}
        }
        Ok(())
    })?;
    Ok((count, verdict))
}

pub(super) const COLUMNS: [&str; 25] = [
    "time",
    "chain",
    "seq",
    "type",
    "verified",
    "request",
    "principal",
    "source",
    "frontend",
    "operation",
    "outcome",
    "rule",
    "keys",
    "providers",
    "items",
    "failed",
    "context",
    "fallback",
    "recipient",
    "micros",
    "note",
    "details",
    "secrets",
    "approved_by",
    "certificates",
];

type Cells<'a> = [Cow<'a, str>; COLUMNS.len()];

/// Lays a request out; of its keys each is `CMK:version:protection:items`, of its secrets each `name:version`, separated by blanks, and
/// `details` has the paths that it wrote.
fn cells<'a>(row: &'a Row<'_>) -> Cells<'a> {
    let text = |text: Option<&'a str>| Cow::Borrowed(text.unwrap_or(""));
    let number = |number: u64| Cow::Owned(number.to_string());
    let keys = row.keys.iter();
    let keys = keys.map(|k| format!("{}:{}:{}:{}", k.cmk, k.version, k.protection, k.items));
    let writes = row.writes.iter().map(|written| format!("{}:{}", written.path, written.sequence));
    [
        row.time.into(),
        row.chain.into(),
        number(row.seq),
        row.kind.into(),
        row.verified.to_string().into(),
        row.request.into(),
        text(row.principal),
        text(row.source),
        row.frontend.into(),
        row.operation.into(),
        row.outcome.into(),
        row.rule.into(),
        keys.collect::<Vec<_>>().join(" ").into(),
        row.providers.join(" ").into(),
        number(row.items),
        number(row.failed),
        text(row.context),
        text(row.fallback),
        text(row.recipient),
        number(row.micros),
        "".into(),
        writes.collect::<Vec<_>>().join(" ").into(),
        row.secrets.iter().map(SecretTouch::text).collect::<Vec<_>>().join(" ").into(),
        text(row.approved_by),
        row.certificates.join(" ").into(),
    ]
}

fn note_cells<'a>(note: &'a NoteRow<'_>) -> Cells<'a> {
    let mut cells: Cells<'a> = std::array::from_fn(|_| Cow::Borrowed(""));
    cells[0] = note.time.into();
    cells[1] = note.chain.into();
    cells[2] = note.seq.to_string().into();
    cells[3] = note.kind.into();
    cells[4] = note.verified.to_string().into();
    cells[20] = (&*note.note).into();
    cells[21] = serde_json::to_string(&note.says).unwrap_or_default().into();
    cells
}

fn write_cells(cells: &Cells<'_>, out: &mut dyn Write) -> io::Result<()> {
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        out.write_all(safe_cell(cell).as_bytes())?;
    }
    out.write_all(b"\n")
}

/// Makes a cell that is one cell, in one line, of printable ASCII, and that no spreadsheet takes for a formula (CWE-1236).
fn safe_cell(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| matches!(c, ' '..='~');
    let begins_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !begins_formula && text.chars().all(|c| is_plain(c) && c != '"' && c != ',' && c != '\'') {
        return Cow::Borrowed(text);
    }
    let mut cell = String::with_capacity(text.len() + 8);
    cell.push('"');
    if begins_formula {
        cell.push('\'');
    }
    for c in text.chars() {
        match c {
            '"' => cell.push_str("\"\""),
            _ if is_plain(c) => cell.push(c),
            _ => cell.extend(c.escape_unicode()),
        }
    }
    cell.push('"');
    Cow::Owned(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_stays_a_cell() {
        for (text, cell) in [
            ("plain text", "plain text"),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\\u{9}=1\""),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\r\nb", "\"a\\u{d}\\u{a}b\""),
            ("\u{1b}[2J\u{202e}é", "\"\\u{1b}[2J\\u{202e}\\u{e9}\""),
        ] {
            assert_eq!(safe_cell(text), cell);
        }
    }
}
