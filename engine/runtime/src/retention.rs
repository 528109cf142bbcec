//! Removes audit files whose time is over, by age or by the bytes of all, on a thread of its own: a chain goes whole, once it has ended and
//! been verified, and once a note of it is durable in the management chain, so that a file that somebody took is told from one that was
//! removed. Management chains stay: the store is compared with what they remember, and they bind all others.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use keymill_core::error::Result;
use keymill_core::seam::audit::{AuditError, AuditLog};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{ChainReport, ChainVerifier, Heads};

use crate::audit::{AuditMessage, Retiring};
use crate::config::AuditFiles;
use crate::heads;
use crate::shared::Shared;

/// The thread that removes files.
pub(crate) struct Retention {
    stop: flume::Sender<()>,
    thread: JoinHandle<()>,
}

impl Retention {
    /// Starts it, where files are ever to go.
    pub(crate) fn start(
        shared: Arc<Shared>,
        audit: flume::Sender<AuditMessage>,
    ) -> std::io::Result<Option<Self>> {
        let AuditFiles { keep_age, keep_bytes, check, .. } = shared.config.audit_files;
        if keep_age.is_none() && keep_bytes.is_none() {
            return Ok(None);
        }
        let (stop, stopped) = flume::bounded(1);
        let mut round = Round { shared, audit, refused: HashSet::new() };
        let run = move || {
            while let Err(flume::RecvTimeoutError::Timeout) = stopped.recv_timeout(check) {
                if let Err(error) = round.go(&|| !stopped.is_empty()) {
                    tracing::error!(?error, "audit files whose time is over could not be removed");
                }
            }
        };
        let thread = std::thread::Builder::new().name("km-retention".into()).spawn(run)?;
        Ok(Some(Self { stop, thread }))
    }

    /// Ends it, after the file that it is at.
    pub(crate) fn stop(self) {
        let _ended = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the audit retention thread panicked");
        }
    }
}

/// A file that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    chain: String,
    /// The time of its first line.
    from: String,
    bytes: u64,
}

/// Why a file is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Its last line is older than is kept.
    Age,
    /// All files take more bytes than they may.
    Bytes,
}

/// Lists the files that may have to go, oldest first. `others`: bytes of the files that stay whatever happens. Whether the last line of one
/// under [`Rule::Age`] is as old is seen when it is read.
fn due(
    mut files: Vec<File>,
    others: u64,
    oldest: Option<&str>,
    keep_bytes: Option<u64>,
) -> Vec<(File, Rule)> {
    files.sort_by(|a, b| (&a.from, &a.chain).cmp(&(&b.from, &b.chain)));
    let mut total = others + files.iter().map(|file| file.bytes).sum::<u64>();
    let mut due = Vec::new();
    for file in files {
        let rule = if keep_bytes.is_some_and(|most| total > most) {
            Rule::Bytes
        } else if oldest.is_some_and(|oldest| *file.from < *oldest) {
            Rule::Age
        } else {
            continue;
        };
        total -= file.bytes;
        due.push((file, rule));
    }
    due
}

/// Tells whether a chain may go: nothing is wrong with it, and it is known to have ended where it does.
fn may_go(report: &ChainReport, known: &Heads) -> Result<(), String> {
    match (&report.bad, known.get(&report.head.chain)) {
        (Some(bad), _) => Err(bad.to_string()),
        (None, _) if report.closed => Ok(()),
        // Of a process that was killed: the next one has bound it as it stands.
        (None, Some(head)) if head == &report.head => Ok(()),
        (None, _) => Err("it was not ended, and no later chain names its end".into()),
    }
}

struct Round {
    shared: Arc<Shared>,
    audit: flume::Sender<AuditMessage>,
    /// Chains that may not go, which was said.
    refused: HashSet<String>,
}

impl Round {
    fn go(&mut self, is_over: &dyn Fn() -> bool) -> Result<()> {
        let hub = self.shared.audit.clone();
        let AuditFiles { keep_age, keep_bytes, .. } = self.shared.config.audit_files;
        let oldest = keep_age.map(|age| self.shared.clock.now().minus(age));
        let names = hub.log().chains()?;
        let live = hub.live();
        let mut others = 0;
        let mut files = Vec::new();
        for chain in &names {
            let bytes = hub.log().bytes(chain)?;
            let stays = live.contains(chain) || self.refused.contains(chain);
            if stays || heads::is_management(chain) {
                others += bytes;
                continue;
            }
            let from = first_time(hub.log(), chain, self.verifier(chain))?;
            files.push(File { chain: chain.clone(), from, bytes });
        }
        let oldest = oldest.map(Timestamp::to_ms_text);
        let due = due(files, others, oldest.as_deref(), keep_bytes);
        if due.is_empty() {
            return Ok(());
        }
        let mut known = Heads::default();
        known.learn(heads::named(hub.log(), &names, |chain| self.verifier(chain))?);
        for (file, rule) in due {
            if is_over() {
                break;
            }
            self.retire(file, rule, oldest.as_deref(), &known)?;
        }
        Ok(())
    }

    fn verifier(&self, chain: &str) -> ChainVerifier {
        ChainVerifier::new(self.shared.audit.keys(), chain).without_stamps()
    }

    fn retire(&mut self, file: File, rule: Rule, oldest: Option<&str>, known: &Heads) -> Result<()> {
        let hub = self.shared.audit.clone();
        let File { chain, bytes, .. } = file;
        let mut verifier = self.verifier(&chain).verify_against(known.get(&chain).cloned());
        hub.log().read(&chain, &mut |line| verifier.line(line.bytes, line.torn))?;
        let report = verifier.report();
        if rule == Rule::Age && oldest.is_none_or(|oldest| *report.to >= *oldest) {
            return Ok(());
        }
        if let Err(why) = may_go(&report, known) {
            tracing::error!(
                chain,
                why,
                "an audit file whose time is over is kept; run `keymill audit verify`"
            );
            self.refused.insert(chain);
            return Ok(());
        }
        let rule = match rule {
            Rule::Age => "age",
            Rule::Bytes => "bytes",
        };
        let (sender, recorded) = tokio::sync::oneshot::channel();
        let message = AuditMessage::Retire(Box::new(Retiring { report, bytes, rule }), sender);
        let closed = |_| AuditError::Failed("the audit log is closed".into());
        self.audit.send(message).map_err(|_| closed(()))?;
        recorded.blocking_recv().map_err(|_| closed(()))??;
        hub.log().remove(&chain)?;
        hub.retired.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(chain, bytes, rule, "an audit file was removed: its time is over");
        Ok(())
    }
}

/// Returns the time of a chain's first line, empty where there is none that is good.
fn first_time(log: &dyn AuditLog, chain: &str, mut verifier: ChainVerifier) -> Result<String, AuditError> {
    log.read(chain, &mut |line| {
        verifier.line(line.bytes, line.torn);
        false
    })?;
    Ok(verifier.report().from)
}

#[cfg(test)]
mod tests {
    use keymill_core::Sensitive;
    use keymill_crypto::audit::{ChainHead, ChainKeys, ChainWriter, Opening};

    use super::*;

    fn file(chain: &str, from: &str, bytes: u64) -> File {
        File { chain: chain.into(), from: from.into(), bytes }
    }

    fn chosen(oldest: Option<&str>, keep_bytes: Option<u64>) -> Vec<(String, Rule)> {
        let files = vec![file("c", "2026-03", 30), file("a", "2026-01", 10), file("b", "2026-02", 20)];
        due(files, 5, oldest, keep_bytes).into_iter().map(|(file, rule)| (file.chain, rule)).collect()
    }

    #[test]
    fn the_oldest_files_go_by_age_or_until_the_rest_fits() {
        let (age, bytes) = (Rule::Age, Rule::Bytes);
        let name = |chain: &str, rule| (chain.to_owned(), rule);
        assert_eq!(chosen(None, None), []);
        assert_eq!(chosen(Some("2026-02"), None), [name("a", age)]);
        assert_eq!(chosen(Some("2027"), None), [name("a", age), name("b", age), name("c", age)]);
        assert_eq!(chosen(None, Some(65)), []);
        assert_eq!(chosen(None, Some(64)), [name("a", bytes)]);
        assert_eq!(chosen(None, Some(55)), [name("a", bytes)]);
        assert_eq!(chosen(None, Some(54)), [name("a", bytes), name("b", bytes)]);
        assert_eq!(chosen(None, Some(0)), [name("a", bytes), name("b", bytes), name("c", bytes)]);
        assert_eq!(chosen(Some("2026-03"), Some(60)), [name("a", bytes), name("b", age)]);
    }

    #[test]
    fn a_chain_goes_that_is_good_and_known_to_have_ended_there() {
        let keys = ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap();
        let time = Timestamp::from_ms(0);
        let opening = Opening { time, node: "n", software: "0", previous: &[] };
        let report = |closes: bool, altered: bool| {
            let mut out = Vec::new();
            let mut writer = ChainWriter::new(&keys, "a-1", &opening, &mut out).unwrap();
            writer.checkpoint(time, &mut out);
            if closes {
                writer.close(time, &mut out);
            }
            out[30] ^= u8::from(altered);
            let mut verifier = ChainVerifier::new(&keys, "a-1");
            for line in out.strip_suffix(b"\n").unwrap().split(|c| *c == b'\n') {
                verifier.line(line, false);
            }
            verifier.report()
        };
        let none = Heads::default();
        let knowing = |head: ChainHead| {
            let mut known = Heads::default();
            known.learn([head]);
            known
        };
        assert!(may_go(&report(true, false), &none).is_ok());
        assert!(may_go(&report(true, true), &none).is_err());
        let open = report(false, false);
        assert!(may_go(&open, &none).is_err(), "there may have been more of it");
        assert!(may_go(&open, &knowing(open.head.clone())).is_ok());
        let farther = ChainHead { sequence: 9, ..open.head.clone() };
        assert!(may_go(&open, &knowing(farther)).is_err());
        let other = ChainHead { mac: [0; 16], ..open.head.clone() };
        assert!(may_go(&open, &knowing(other)).is_err());
    }
}
