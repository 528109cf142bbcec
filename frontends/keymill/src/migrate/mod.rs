//! `keymill migrate`: moves an installation from one store to another. Records are sealed and bound to their paths, so that they are copied as
//! they are and no key is needed. What is here is the command and what a person sees; `copy` does the work.

mod copy;
mod holdings;
mod show;
mod target;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use keymill_core::seam::store::{Page, Path as StorePath, Store};
use serde::Serialize;

use crate::batch::Interrupt;
use crate::config::{Config, StoreKind};
use crate::failure::{Failure, Result};
use crate::{output, plugins, process};

use copy::{End, Manner, Trouble, migrate};
use holdings::Holdings;
use show::Shown;

pub(crate) use target::refuse_unfinished;

/// How long nothing may be written to a store that others can write to, before it is taken for quiet: servers that have anything to do write
/// to it at least once a second.
const QUIET: Duration = Duration::from_secs(3);
/// How often a store that is away is tried again, and after what time.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(2);

/// Move an installation to another store
///
/// Copies all records from the store of one configuration to that of another, as they are: sealed. A store on SQLite belongs to one process: stop its
/// server first; the migration ends by itself. From etcd and PostgreSQL the copy is made beside the running servers and then follows them, until it is
/// interrupted. Then stop the servers, and run the same with --finish: what is missing is copied, both stores are compared, and the new one
/// is released. Until then no server starts on it. What was interrupted or killed goes on where it was when it is run again. The source is
/// only read. Root, data directories and audit stay as they are: name them in the new configuration, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct MigrateArgs {
    /// Configuration of the servers so far; its store is the source
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Configuration of the servers to come; its store is the target, which must be empty
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Finish: the servers of the source are stopped. Refused where something is still written to it
    #[arg(long)]
    finish: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Summary {
    /// Whether the target may be used.
    finished: bool,
    from: String,
    to: String,
    /// Whether what follows was compared.
    verified: bool,
    /// Records that both stores have.
    records: Option<u64>,
    /// Bytes of them.
    bytes: Option<u64>,
    /// SHA-256 over all paths and values.
    sha256: Option<String>,
    /// Records that this run wrote or removed.
    changed: u64,
    seconds: f64,
}

/// Migrates, and prints what was done.
pub(crate) fn run(args: &MigrateArgs) -> Result<()> {
    process::harden()?;
    // Before the stores start threads, which inherit what is blocked.
    let interrupt = Interrupt::watch().map_err(Failure::of_batch)?;
    let began = Instant::now();
    let (source, target) = (Side::read(&args.from)?, Side::read(&args.to)?);
    if source.name == target.name {
        return Err(Failure::wrong_use(format!("both configurations name one store: {}", source.name)));
    }
    let is_ours_alone = source.config.store.kind == StoreKind::Sqlite;
    let (from, to) = (source.open_source()?, target.open()?);
    let manner = Manner {
        finish: args.finish || is_ours_alone,
        quiet: if is_ours_alone { Duration::ZERO } else { QUIET },
        tries: TRIES,
        pause: PAUSE,
    };
    let mut shown = Shown::new(args.quiet, &source.name, &target.name, !manner.finish);
    shown.count(&*from).map_err(Failure::because(&source.name))?;
    let migrated =
        migrate(&*from, &*to, &source.name, &manner, &mut |step| shown.take(step) && !interrupt.is_set());
    shown.finish();
    let summary = |finished, held: Option<Holdings>, changed| Summary {
        finished,
        from: source.name.clone(),
        to: target.name.clone(),
        verified: held.is_some(),
        records: held.as_ref().map(|held| held.records),
        bytes: held.as_ref().map(|held| held.bytes),
        sha256: held.map(|held| held.sha256),
        changed,
        seconds: began.elapsed().as_secs_f64(),
    };
    match migrated {
        Ok(End::Finished { held, changed }) => tell(args.json, &summary(true, Some(held), changed)),
        Ok(End::Stopped { changed }) => tell(args.json, &summary(false, None, changed)),
        Err(Trouble::Interrupted) => {
            Err(Failure::new("interrupted").next("run the same again: it goes on where it was"))
        }
        Err(Trouble::Store(side, error)) => {
            let name = if side == copy::Side::Source { &source.name } else { &target.name };
            Err(Failure::new(format!("{name}: {error}")).next("run the same again: it goes on where it was"))
        }
        Err(Trouble::Refused(failure)) => Err(failure),
    }
}

fn tell(json: bool, summary: &Summary) -> Result<()> {
    if json {
        return output::json(summary);
    }
    match (&summary.records, &summary.bytes, &summary.sha256) {
        (Some(records), Some(bytes), Some(sha256)) => output::line(format_args!(
            "{} records of {} bytes are in {} as they are in {}: both have SHA-256 {sha256}\n\
             start the servers with the new configuration; none should be started with the old one again",
            output::grouped(*records),
            output::grouped(*bytes),
            summary.to,
            summary.from,
        )),
        _ => output::line(format_args!(
            "{} has all that {} had a moment ago, and is not released yet\n\
             stop the servers, and run the same with --finish",
            summary.to, summary.from,
        )),
    }
}

/// A store and where it is.
struct Side {
    config: Config,
    data: PathBuf,
    /// What a person calls it.
    name: String,
}

impl Side {
    fn read(path: &Path) -> Result<Self> {
        let config = Config::read(Some(path))?;
        let data = config.places()?.data;
        let name = plugins::name_of_store(&config.store, &data);
        Ok(Self { config, data, name })
    }

    fn open(&self) -> Result<std::sync::Arc<dyn Store>> {
        plugins::store_beside_servers(&self.config.store, &self.data)
    }

    /// Opens a store that is there, since opening would make it.
    fn open_source(&self) -> Result<std::sync::Arc<dyn Store>> {
        let nothing = || {
            Failure::new(format!("{} holds nothing", self.name)).next("name the store that is in use so far")
        };
        if self.config.store.kind == StoreKind::Sqlite && !self.data.is_dir() {
            return Err(nothing());
        }
        let store = self.open()?;
        refuse_unfinished(&*store)?;
        let first = store.list(&StorePath::all(), Page { after: None, limit: 1 });
        match first.map_err(Failure::because(&self.name))?.is_empty() {
            true => Err(nothing()),
            false => Ok(store),
        }
    }
}
