//! Measuring with a file of the user's: columns of a CSV go through `keymill batch` both ways, and the result is compared with the
//! file, line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use keymill_ceilings::{BareLoop, Mode};

use super::{Rates, Report, Server, Tally};
use crate::batch::{self, BatchArgs, Direction, Place, Summary};
use crate::credentials::Tcp;
use crate::failure::{Failure, Result};

/// Encrypts, decrypts and compares `columns` of the CSV `input`.
pub(super) fn measure(
    server: &Server,
    input: &Path,
    columns: &[String],
    place: &Path,
    is_quiet: bool,
) -> Result<Report> {
    let [sealed, opened, ceiling] = ["sealed.csv", "opened.csv", "ceiling.csv"].map(|name| place.join(name));
    let run = |address: &str, direction, from: &Path, to: &Path| -> Result<Summary> {
        let key = (direction == Direction::Encrypt).then(|| server.key_id.to_string());
        let args = arguments(from, to, columns, key, is_quiet);
        let target = batch::Target { tcp: Tcp::plain(address), credentials: server.credentials() };
        batch::run(direction, &args, target).map_err(Failure::of_batch)
    };
    let encrypted = run(&server.address, Direction::Encrypt, input, &sealed)?;
    let decrypted = run(&server.address, Direction::Decrypt, &sealed, &opened)?;
    let mismatches = differing_lines(input, &opened).map_err(Failure::because("comparing the files"))?;
    let bare_loop = BareLoop::start(Mode::Seal).map_err(Failure::because("the bare loop"))?;
    let address = bare_loop.addr.to_string();
    let bare = Rates {
        encrypt: tally(&run(&address, Direction::Encrypt, input, &ceiling)?),
        decrypt: tally(&{
            std::fs::remove_file(&opened).map_err(Failure::because(opened.display()))?;
            run(&address, Direction::Decrypt, &ceiling, &opened)?
        }),
    };
    let ours = Rates { encrypt: tally(&encrypted), decrypt: tally(&decrypted) };
    Ok(Report::new(encrypted.items, mismatches, ours, bare, server.key_id))
}

fn tally(summary: &Summary) -> Tally {
    Tally { items: summary.items, time: Duration::from_secs_f64(summary.seconds) }
}

fn arguments(from: &Path, to: &Path, columns: &[String], key: Option<String>, quiet: bool) -> BatchArgs {
    BatchArgs {
        input: Place::File(from.to_owned()),
        output: Place::File(to.to_owned()),
        format: clap::ValueEnum::from_str("csv", false).ok(),
        columns: columns.to_vec(),
        fields: Vec::new(),
        key,
        context: Vec::new(),
        resume: false,
        force: false,
        connections: super::lane::CONNECTIONS as u16,
        batch_items: 256,
        batch_bytes: 256 * 1024,
        no_header: false,
        delimiter: None,
        allow_reencrypt: true,
        skip_plain: false,
        keep_empty: false,
        ignore_missing: false,
        json: false,
        quiet,
    }
}

/// Counts the lines in which two files differ; those that only one has count, too.
fn differing_lines(one: &Path, other: &Path) -> io::Result<u64> {
    let [mut one, mut other] = [BufReader::new(File::open(one)?), BufReader::new(File::open(other)?)];
    let (mut ours, mut theirs, mut differing) = (Vec::new(), Vec::new(), 0);
    loop {
        ours.clear();
        theirs.clear();
        let read = one.read_until(b'\n', &mut ours)? + other.read_until(b'\n', &mut theirs)?;
        if read == 0 {
            return Ok(differing);
        }
        differing += u64::from(ours != theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_differs_or_is_missing_counts() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        let differing = |ours: &str, theirs: &str| {
            std::fs::write(&one, ours).unwrap();
            std::fs::write(&other, theirs).unwrap();
            differing_lines(&one, &other).unwrap()
        };
        assert_eq!(differing("a\nb\n", "a\nb\n"), 0);
        assert_eq!(differing("a\nb\n", "a\nb"), 1, "an end of line counts");
        assert_eq!(differing("a\nb\nc\n", "x\nb\n"), 2);
        assert_eq!(differing("", "a\n"), 1);
    }
}
