//! `keymill hsm bench`: what a token does a second, by the number of sessions, by the module's own calls and through the provider.

mod report;
mod seam;

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keymill_bench::token::pace::{RUNS, Rate, rate};
use keymill_bench::token::raw::{self, Operation};
use keymill_core::seam::provider::CryptoProvider;

use super::pin::PinArgs;
use super::{TokenArgs, load, refused};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::module::{Module, Session, number::CK_SLOT_ID};
use crate::plugins::pkcs11::{Config, Pkcs11Provider, open_on};
use crate::{output, process};

use report::{Report, Row};

/// A run that is shorter shows the clock and the start of threads.
const SHORTEST: Duration = Duration::from_millis(10);

/// Measure a token: each operation by 1, 2, 4, 8 … sessions, by the module's own calls and through keymill, with the best setting
///
/// Keys are made for it as session objects, which go with the command; nothing stays on the token. It loads the token as much as it
/// can: not beside one that serves. The PIN is tried once.
#[derive(Args, Clone, Debug)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// How long it measures, all in all; making key pairs comes before
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The most sessions at once
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=128))]
    sessions: u8,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    /// How long the command may take beside what it measures.
    pub(super) fn measures(&self) -> Duration {
        // As long again, for calls that are longer than a run.
        Duration::from_secs(2 * self.seconds)
    }
}

pub(super) fn run(args: BenchArgs) -> Result<()> {
    process::harden()?;
    let module = load(&args.token.module.module)?;
    let info = args.token.present(&module)?;
    let Some((slot, _)) = args.token.find(&module)? else { return Err(args.token.absent()) };
    let pin = args.pin.read(false)?;
    let mut config = Config::new(args.token.module.module.clone(), args.token.token.clone(), pin);
    config.token_serial = Some(info.serial.clone());
    config.max_sessions = usize::from(args.sessions);
    let provider = open_on(module.clone(), config).map_err(refused)?;
    let sessions = counts(usize::from(args.sessions).min(provider.profile().max_sessions));
    let bench = Bench::prepare(&provider, slot, args.seconds, sessions)?;
    let operations = bench.measured();
    let report = Report {
        token: info.label,
        serial: info.serial,
        model: format!("{} {}", info.manufacturer, info.model),
        library: library(&module),
        seconds: args.seconds,
        runs: RUNS,
        text_bytes: raw::TEXT_BYTES,
        batch_items: provider.profile().max_batch,
        sessions: bench.sessions,
        operations,
        unoptimised: cfg!(debug_assertions),
    };
    match args.json {
        true => output::json(&report),
        false => report.print(),
    }
}

fn library(module: &Module) -> String {
    let info = module.info();
    info.map_or_else(|_| String::new(), |info| format!("{} {}", info.description, info.version))
}

/// Returns 1, 2, 4, 8 … up to `most`, and `most` itself.
fn counts(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < most).collect();
    counts.push(most);
    counts
}

struct Bench<'a> {
    provider: &'a Pkcs11Provider,
    slot: CK_SLOT_ID,
    raw: raw::Keys,
    /// Whose objects they are.
    _owner: Session,
    seam: seam::Keys,
    sessions: Vec<usize>,
    moment: Duration,
}

impl<'a> Bench<'a> {
    fn prepare(
        provider: &'a Pkcs11Provider,
        slot: CK_SLOT_ID,
        seconds: u64,
        sessions: Vec<usize>,
    ) -> Result<Self> {
        let (raw, owner) = raw::Keys::make(provider.module(), slot, provider.module_profile())
            .map_err(Failure::because("the keys to measure with"))?;
        let seam = seam::Keys::make(provider)
            .map_err(|broken| Failure::new(format!("the keys to measure with: {}", broken.0)))?;
        let mut bench = Self { provider, slot, raw, _owner: owner, seam, sessions, moment: SHORTEST };
        let runs: usize = Operation::ALL
            .iter()
            .filter(|operation| bench.raw.lacks(**operation, provider.module_profile()).is_none())
            .map(|operation| bench.sessions.len() + bench.through(*operation).len())
            .sum();
        let share = Duration::from_secs(seconds) / u32::try_from(RUNS * runs.max(1)).unwrap_or(u32::MAX);
        bench.moment = share.max(SHORTEST);
        Ok(bench)
    }

    /// The numbers of sessions that the provider takes an operation on.
    fn through(&self, operation: Operation) -> Vec<usize> {
        let most = self.seam.sessions(operation, self.provider).unwrap_or(0);
        self.sessions.iter().copied().filter(|count| *count <= most).collect()
    }

    fn measured(&self) -> Vec<Row> {
        let style = ProgressStyle::with_template("measuring: {msg}").expect("the template is well formed");
        let shown = ProgressBar::new_spinner().with_style(style);
        let row = |operation: &Operation| {
            shown.set_message(operation.name());
            shown.tick();
            self.row(*operation)
        };
        let rows = Operation::ALL.iter().map(row).collect();
        shown.finish_and_clear();
        rows
    }

    /// Measures one operation both ways, run by run in turn: what else goes on in the machine meets both.
    fn row(&self, operation: Operation) -> Row {
        if let Some(why) = self.raw.lacks(operation, self.provider.module_profile()) {
            return Row::new(operation, Vec::new(), Vec::new(), Some(why));
        }
        let (mut raw, mut seam) = (Vec::new(), Vec::new());
        let through = self.through(operation);
        for count in &self.sessions {
            let measured = self.runs(operation, *count, through.contains(count));
            match measured {
                Ok((plain, ours)) => {
                    raw.push(Rate::of(*count, plain));
                    seam.extend((!ours.is_empty()).then(|| Rate::of(*count, ours)));
                }
                Err(why) => {
                    return Row::new(operation, raw, seam, Some(format!("with {count} sessions: {why}")));
                }
            }
        }
        Row::new(operation, raw, seam, None)
    }

    fn runs(&self, operation: Operation, count: usize, ours: bool) -> Result<(Vec<f64>, Vec<f64>), String> {
        let mut plain = (0..count)
            .map(|number| raw::Worker::open(self.provider.module(), self.slot, &self.raw, operation, number))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|failure| failure.to_string())?;
        let mut through = (0..if ours { count } else { 0 })
            .map(|number| seam::Worker::open(self.provider, &self.seam, operation, number))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|broken| broken.0)?;
        let mut rates = (Vec::new(), Vec::new());
        let (plain_keys, our_keys) = (&self.raw, &self.seam);
        for _ in 0..RUNS {
            let done = rate(&mut plain, self.moment, |worker| worker.call(plain_keys, operation));
            rates.0.push(done.map_err(|failure| failure.to_string())?);
            if ours {
                let done = rate(&mut through, self.moment, |worker| worker.call(our_keys, operation));
                rates.1.push(done.map_err(|broken| broken.0)?);
            }
        }
        Ok(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_double_up_to_the_most() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(8), [1, 2, 4, 8]);
        assert_eq!(counts(12), [1, 2, 4, 8, 12]);
    }
}
