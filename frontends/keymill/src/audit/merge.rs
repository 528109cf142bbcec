//! All chains as one stream, in the order of time, each line checked on the way. A chain is open from the time of its first line to its
//! end, so that as many files are held as were written at one time, and one line of each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use keymill_core::seam::audit::{AuditError, AuditLog, AuditReader};
use keymill_crypto::audit::{ChainHead, ChainKeys, ChainVerifier, Heads};
use keymill_runtime::heads;

use super::entry::Place;
use crate::failure::{Failure, Result};
use crate::output::{self, grouped};

/// What was found out about the chains, once all of them were read.
#[derive(Default)]
pub(super) struct Verdict {
    /// Whether lines were checked at all.
    pub(super) checked: bool,
    pub(super) chains: usize,
    /// Chains with what is wrong with them first.
    pub(super) bad: Vec<(String, String)>,
    /// Chains that are remembered and not there.
    pub(super) missing: Vec<String>,
}

impl Verdict {
    pub(super) fn is_good(&self) -> bool {
        self.checked && self.bad.is_empty() && self.missing.is_empty()
    }

    /// Says it in a few words.
    pub(super) fn text(&self) -> String {
        let chains = grouped(self.chains as u64);
        match (self.checked, self.bad.len() + self.missing.len()) {
            (false, _) => format!("{chains} chains, not verified"),
            (true, 0) => format!("{chains} chains, every line verified"),
            (true, bad) => format!("{chains} chains, {} of them bad or missing", grouped(bad as u64)),
        }
    }

    /// Tells a person on standard error what is wrong, and fails where anything is.
    pub(super) fn tell(&self) -> Result<()> {
        for (chain, why) in &self.bad {
            output::note(format_args!("bad: chain {chain}: {}", output::harmless(why)))?;
        }
        for chain in &self.missing {
            output::note(format_args!("missing: chain {chain} is remembered, and not there"))?;
        }
        match self.checked && !self.is_good() {
            false => Ok(()),
            true => {
                Err(Failure::new("the audit log does not verify: lines that say so are not to be trusted")
                    .next("`keymill audit verify` checks it against the store, too"))
            }
        }
    }
}

/// Gives every whole line of every chain to `each`, in the order of time as far as each chain's own lines are; false ends it early.
/// Without keys nothing is checked.
pub(super) fn merged(
    log: &dyn AuditLog,
    keys: Option<&ChainKeys>,
    each: &mut dyn FnMut(Place<'_>, &[u8]) -> Result<()>,
) -> Result<Verdict> {
    let names = log.chains().map_err(Failure::because("audit"))?;
    let verifier = |name: &str| keys.map(|keys| ChainVerifier::new(keys, name).without_stamps());
    let (mut remembered, mut retired) = (Heads::default(), Heads::default());
    let mut waiting = BinaryHeap::new();
    for (number, name) in names.iter().enumerate() {
        let mut source = Source::open(log, name, verifier(name))?;
        source.advance().map_err(Failure::because("audit"))?;
        if let Some(verifier) = &source.verifier {
            remembered.learn(verifier.report().previous);
        }
        waiting.push(Reverse((source.time, number)));
    }
    let mut verdict = Verdict { checked: keys.is_some(), chains: names.len(), ..Verdict::default() };
    let mut open: BinaryHeap<Reverse<(String, usize)>> = BinaryHeap::new();
    let mut sources: Vec<Option<Source>> = names.iter().map(|_| None).collect();
    loop {
        while let Some(Reverse((time, number))) = waiting.peek()
            && open.peek().is_none_or(|Reverse((first, _))| time <= first)
        {
            let (time, number) = (time.clone(), *number);
            waiting.pop();
            let name = &names[number];
            let head: Option<ChainHead> = remembered.get(name).cloned();
            let mut source =
                Source::open(log, name, verifier(name).map(|verifier| verifier.verify_against(head)))?;
            source.advance().map_err(Failure::because("audit"))?;
            sources[number] = Some(source);
            open.push(Reverse((time, number)));
        }
        let Some(Reverse((mut time, number))) = open.pop() else { break };
        let Some(source) = &mut sources[number] else { continue };
        if source.is_over {
            if let Some(report) = source.verifier.as_ref().map(ChainVerifier::report) {
                retired.learn(report.retired);
                verdict.bad.extend(report.bad.map(|bad| (names[number].clone(), bad.to_string())));
            }
            sources[number] = None;
            continue;
        }
        each(Place { chain: &names[number], verified: source.is_verified }, &source.line)?;
        source.advance().map_err(Failure::because("audit"))?;
        time.clone_from(&source.time);
        open.push(Reverse((time, number)));
    }
    if verdict.checked {
        verdict.missing.extend(heads::gone(&remembered, &names, &retired));
        verdict.bad.sort();
    }
    Ok(verdict)
}

/// One chain as it is read, with the line that it stands at.
struct Source {
    reader: Box<dyn AuditReader>,
    verifier: Option<ChainVerifier>,
    line: Vec<u8>,
    /// The time of the line, or of the one before where it has none.
    time: String,
    is_verified: bool,
    is_over: bool,
}

impl Source {
    fn open(log: &dyn AuditLog, name: &str, verifier: Option<ChainVerifier>) -> Result<Self> {
        let reader = log.reader(name).map_err(Failure::because("audit"))?;
        let (line, time) = (Vec::new(), String::new());
        Ok(Self { reader, verifier, line, time, is_verified: false, is_over: false })
    }

    /// Goes on to the next whole line.
    fn advance(&mut self) -> std::result::Result<(), AuditError> {
        self.line.clear();
        let Some(line) = self.reader.next_line()? else {
            self.is_over = true;
            return Ok(());
        };
        self.is_verified = match &mut self.verifier {
            Some(verifier) => verifier.line(line.bytes, line.torn),
            None => false,
        };
        // A last line that a crash cut belongs to a request that was never answered, or is being written.
        if line.torn {
            self.is_over = true;
            return Ok(());
        }
        self.line.extend_from_slice(line.bytes);
        if let Some(time) = time_of(&self.line) {
            time.clone_into(&mut self.time);
        }
        Ok(())
    }
}

/// Reads the time in a line, which is the second thing in it.
fn time_of(line: &[u8]) -> Option<&str> {
    const TIME: &[u8] = b",\"time\":\"";
    let rest = &line[line.iter().take(32).position(|byte| *byte == b',')?..];
    let time = rest.strip_prefix(TIME)?;
    let end = time.iter().take(32).position(|byte| *byte == b'"')?;
    std::str::from_utf8(&time[..end]).ok()
}
