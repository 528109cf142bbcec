//! `keymill audit search`: the requests that match, of all chains in the order of time.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use keymill_core::seam::audit::AuditLog;
use keymill_crypto::audit::ChainKeys;

use super::entry::{Line, Place, Row, write_json};
use super::filter::Filter;
use super::merge::{Verdict, merged};
use super::{Whose, chain_keys, derive, existing_audit};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows, grouped, or_dash};
use crate::process;
use crate::serve::PlaceArgs;

/// Find requests in the audit log, of every chain, in the order of time
///
/// Works on the files alone, whether the server runs or not, and checks every line on the way as `audit verify` does: exit code 1 if
/// anything is wrong, after what was found.
#[derive(Args, Clone, Debug)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    filter: Filter,
    /// Show so many requests, the newest; the others are counted
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print each request that matches as a line of JSON, without a limit
    #[arg(long, conflicts_with = "limit")]
    json: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    places: PlaceArgs,
}

/// Whether lines are checked.
#[derive(Args, Clone, Debug)]
pub(super) struct TrustArgs {
    /// Check nothing, which needs no root keys: each line is shown as not verified
    #[arg(long)]
    pub(super) unverified: bool,
    #[command(flatten)]
    pub(super) whose: Whose,
}

impl TrustArgs {
    /// Opens the log, and derives what its lines are checked with.
    pub(super) fn open(
        &self,
        places: &PlaceArgs,
    ) -> Result<(std::sync::Arc<dyn AuditLog>, Option<ChainKeys>)> {
        let config = self.whose.of(places.config()?)?;
        let places = config.places()?;
        let log = existing_audit(&config, Path::new(&places.audit))?;
        let keys = match self.unverified {
            true => None,
            false => Some(chain_keys(&derive(&config, &places.root, self.whose.domain.as_ref())?)?),
        };
        Ok((log, keys))
    }
}

/// Searches, and prints what was found.
pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    process::harden()?;
    let (log, keys) = args.trust.open(&args.places)?;
    let verdict = match args.json {
        true => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            let mut show = |row: &Row<'_>| write_json(row, &mut out).map_err(Failure::of_output);
            let (count, verdict) = each_request(&*log, keys.as_ref(), &args.filter, &mut show)?;
            out.flush().map_err(Failure::of_output)?;
            output::note(summary(count, count, &verdict))?;
            verdict
        }
        false => {
            let mut newest = Newest::new(args.limit as usize);
            let mut show = |row: &Row<'_>| {
                newest.push(row);
                Ok(())
            };
            let (count, verdict) = each_request(&*log, keys.as_ref(), &args.filter, &mut show)?;
            let shown = newest.print()?;
            output::line(format_args!("\n{}", summary(shown, count, &verdict)))?;
            verdict
        }
    };
    verdict.tell()
}

/// Gives each request that matches to `show`; returns how many there are.
pub(super) fn each_request(
    log: &dyn AuditLog,
    keys: Option<&ChainKeys>,
    filter: &Filter,
    show: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<(u64, Verdict)> {
    let mut count = 0;
    let verdict = merged(log, keys, &mut |place: Place<'_>, bytes: &[u8]| {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(bytes) else { return Ok(()) };
        if line.kind != "request" || !filter.wants_time(&line.time) {
            return Ok(());
        }
        for row in line.requests(place).filter(|row| filter.wants(row)) {
            count += 1;
            show(&row)?;
        }
        Ok(())
    })?;
    Ok((count, verdict))
}

fn summary(shown: u64, count: u64, verdict: &Verdict) -> String {
    let requests = match (shown, count) {
        (_, 1) => "1 request".to_owned(),
        (shown, count) if shown == count => format!("{} requests", grouped(count)),
        (shown, count) => format!(
            "the newest {} of {} requests (--limit shows more, --json all)",
            grouped(shown),
            grouped(count)
        ),
    };
    format!("{requests}; {}", verdict.text())
}

const HEAD: [&str; 11] = [
    "time (UTC)",
    "principal",
    "source",
    "frontend",
    "operation",
    "key and version",
    "by",
    "items",
    "outcome",
    "took",
    "request",
];

/// The newest rows, as a table shows them.
struct Newest {
    limit: usize,
    rows: VecDeque<[String; HEAD.len()]>,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self { limit, rows: VecDeque::new() }
    }

    fn push(&mut self, row: &Row<'_>) {
        if self.rows.len() == self.limit {
            self.rows.pop_front();
        }
        let key = row.keys.first().map(|touch| match row.keys.len() {
            1 => format!("{} v{}", touch.cmk, touch.version),
            keys => format!("{} v{} and {} more", touch.cmk, touch.version, grouped(keys as u64 - 1)),
        });
        // Of what is about a secret, that tells more than what it is sealed under.
        let key = row.secrets.first().map(|secret| format!("secret {}", secret.text())).or(key);
        let key = row.certificates.first().map(|id| format!("certificate {id}")).or(key);
        let mut outcome = row.outcome.to_owned();
        if row.failed > 0 {
            outcome += &format!(", {} of {} items failed", grouped(row.failed), grouped(row.items));
        }
        if !row.verified {
            outcome += " (not verified)";
        }
        let providers = Some(row.providers.join(", ")).filter(|names| !names.is_empty());
        self.rows.push_back([
            row.time.to_owned(),
            or_dash(row.principal),
            or_dash(row.source),
            row.frontend.to_owned(),
            row.operation.to_owned(),
            or_dash(key),
            or_dash(providers),
            grouped(row.items),
            outcome,
            took(row.micros),
            row.request.to_owned(),
        ]);
    }

    /// Prints them; returns how many there are.
    fn print(self) -> Result<u64> {
        let count = self.rows.len() as u64;
        let mut rows = Rows::new(&HEAD).numbers(&[7, 9]);
        for row in self.rows {
            let cells: Vec<&dyn std::fmt::Display> = row.iter().map(|cell| cell as _).collect();
            rows.add(&cells);
        }
        rows.print("no request matches")?;
        Ok(count)
    }
}

/// Writes a time with its unit.
fn took(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        _ => format!("{}.{} s", grouped(micros / 1_000_000), micros / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (micros, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.0 ms"),
            (12_345, "12.3 ms"),
            (999_999, "999.9 ms"),
            (61_500_000, "61.5 s"),
        ] {
            assert_eq!(took(micros), text);
        }
    }
}
