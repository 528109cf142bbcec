//! `keymill audit verify`: reads every audit chain and finds any edit, drop, move or cut tail; with `--store` also what was changed
//! behind the server's back in its records. `search` and `export` read the same files, merged by time.

mod entry;
mod examine;
mod export;
mod filter;
mod merge;
mod search;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use keymill_core::id::{DomainName, InstanceId};
use keymill_core::seam::audit::AuditLog;
use keymill_crypto::audit::ChainKeys;
use keymill_crypto::derived::{DerivedKeys, cmac_pair};

use crate::config::{Config, RootKind};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows, grouped};
use crate::serve::PlaceArgs;
use crate::tokens::{Driver, Tokens};
use crate::{dedicated, plugins, process, root};

pub(crate) use export::{ExportArgs, run as export};
pub(crate) use search::{SearchArgs, run as search};

use examine::{Findings, ShedRow, Storage, Trust, examine};

/// Verify every audit chain; exit code 1 if anything is wrong
///
/// With the root file every line is checked. It may be run while the server runs, whose last lines are then not signed yet. Earlier
/// chains are checked against the heads that later ones name; --store compares with those that the store remembers, too, so
/// that a cut tail of the last one shows.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// Also compare with the store: the heads that it remembers, and each record with what the audit says of it. The server
    /// must be stopped
    #[arg(long, conflicts_with = "public_key")]
    store: bool,
    /// Check numbering and signed checkpoints alone, with the public key instead of the root file
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    places: PlaceArgs,
}

/// Whose audit it is.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Whose {
    /// The audit of an instance (Dedicated KMS), released ones among them, rather than that of the installation
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// The domain of that instance, where it has one of its own: a token of the configuration that holds it has the keys
    #[arg(long, value_name = "NAME", requires = "instance")]
    domain: Option<DomainName>,
}

impl Whose {
    /// Returns the configuration as it is for that audit: another directory, and other keys.
    pub(super) fn of(&self, mut config: Config) -> Result<Config> {
        let Some(id) = &self.instance else { return Ok(config) };
        let directory = dedicated::audit_of(&config.places()?.audit, id);
        config.audit.file.directory = Some(directory);
        config.engine.instance = id.to_string();
        Ok(config)
    }
}

/// The Ed25519 key that verifies checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PublicKey([u8; 32]);

impl FromStr for PublicKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a public key is 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut key = [0; 32];
        for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(key))
    }
}

/// Verifies, and prints what was found.
pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    process::harden()?;
    let config = args.whose.of(args.places.config()?)?;
    let places = config.places()?;
    let log = existing_audit(&config, &places.audit)?;
    let (trust, derived) = match args.public_key {
        Some(PublicKey(key)) => (Trust::Public(key), None),
        None => {
            let derived = derive(&config, &places.root, args.whose.domain.as_ref())?;
            (Trust::Keys(Box::new(chain_keys(&derived)?)), Some(derived))
        }
    };
    let storage = match derived.filter(|_| args.store) {
        Some(derived) => Some(Storage::open(&config, &places.data, &derived, args.whose.instance.as_ref())?),
        None => None,
    };
    let findings = examine(&*log, &trust, storage.as_ref())?;
    match args.json {
        true => output::json(&findings)?,
        false => findings.print(&places.audit)?,
    }
    match findings.good {
        true => Ok(()),
        false => Err(Failure::new("the audit log does not verify").next(
            "keep the audit directory and the data as they are, and compare them with copies kept elsewhere",
        )),
    }
}

fn chain_keys(derived: &DerivedKeys) -> Result<ChainKeys> {
    ChainKeys::new(&derived.audit, &derived.audit_signing).map_err(Failure::because("audit keys"))
}

fn existing_audit(config: &Config, directory: &Path) -> Result<Arc<dyn AuditLog>> {
    // Opening would make the directory, which a check should not.
    if !directory.is_dir() {
        return Err(Failure::new(format!("there is no audit directory {}", directory.display()))
            .next("name it with --audit-dir DIR, or the data directory with --data-dir DIR"));
    }
    plugins::audit(&config.audit, directory)
}

fn derive(config: &Config, root_file: &Path, domain: Option<&DomainName>) -> Result<DerivedKeys> {
    let instance = config.engine()?.instance;
    let by_token = |token: Driver| {
        let cmac = &mut |messages| token.derive(messages);
        DerivedKeys::derive(1, &instance, cmac).map_err(Failure::because("the root MAC key of the token"))
    };
    if domain.is_some() {
        return by_token(Tokens::of_instances(config, domain)?.first()?);
    }
    match config.root.kind {
        RootKind::File => {
            let root = root::open(root_file)?;
            let cmac = &mut |messages| Ok::<_, std::convert::Infallible>(cmac_pair(&root.mac, messages));
            match DerivedKeys::derive(1, &instance, cmac) {
                Ok(derived) => Ok(derived),
                Err(never) => match never {},
            }
        }
        RootKind::Pkcs11 => by_token(Tokens::of(config)?.first()?),
    }
}

impl Findings {
    fn print(&self, directory: &Path) -> Result<()> {
        let head = ["chain", "lines", "requests", "notes", "checkpoints", "unsigned", "end", "verdict"];
        let mut rows = Rows::new(&head).numbers(&[1, 2, 3, 4, 5]);
        for chain in &self.chains {
            let end = match (chain.closed, chain.torn) {
                (true, _) => "closed",
                (false, true) => "torn",
                (false, false) => "open",
            };
            let verdict = chain.bad.as_deref().unwrap_or("good");
            let [lines, requests, notes] = [chain.lines, chain.requests, chain.notes].map(grouped);
            let [checkpoints, unsigned] = [chain.checkpoints, chain.unsigned].map(grouped);
            rows.add(&[&chain.chain, &lines, &requests, &notes, &checkpoints, &unsigned, &end, &verdict]);
        }
        rows.print(&format!("no chains in {}", directory.display()))?;
        for chain in &self.missing {
            output::line(format_args!(
                "missing: chain {chain} is remembered, and not in {}",
                directory.display()
            ))?;
        }
        for ShedRow { chain, sink, lines, first, last } in &self.shed {
            output::line(format_args!(
                "note: {sink} did not get {} lines of chain {chain}, numbers {first} to {last}; they are in the file",
                grouped(*lines)
            ))?;
        }
        for record in &self.record_findings {
            let word = if record.wrong { "wrong" } else { "note" };
            output::line(format_args!("{word}: record {}: {}", output::harmless(&record.path), record.why))?;
        }
        output::line(self.summary())
    }

    fn summary(&self) -> String {
        let bad = self.chains.iter().filter(|chain| !chain.good).count() + self.missing.len();
        let wrong = self.record_findings.iter().filter(|record| record.wrong).count();
        let mut text = format!("\n{} chains, {bad} bad", self.chains.len());
        if self.retired > 0 {
            text += &format!("; {} more were removed, their time being over", grouped(self.retired));
        }
        match self.records {
            Some(records) => text += &format!("; {} records compared, {wrong} wrong", grouped(records)),
            None => {
                text += "; records were not compared with the store (--store does, with the server stopped)"
            }
        }
        text
    }
}

#[cfg(test)]
mod tampering;
#[cfg(test)]
mod tests;
