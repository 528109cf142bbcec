//! Start: what the audit logs of earlier processes remember, of records and of each other. Only management chains are read, since the
//! others write no records and may be long; that they are there is looked at, and `audit verify` reads them. Those that no head tells of
//! are read once, and bound from then on.

use keymill_core::audit::RecordStamp;
use keymill_core::id::NodeName;
use keymill_core::seam::audit::{AuditError, AuditLog};
use keymill_core::seam::store::{Entry, Path, Revision, Store, StoreError};
use keymill_crypto::audit::{ChainHead, ChainKeys, ChainVerifier, Heads, Stamps};
use keymill_crypto::record::RecordSealer;

use crate::heads::{self, MAX_NAMED, StoredHead};
use crate::load::all;
use crate::records::{self, Kind};

/// What the audit logs of earlier processes remember.
#[derive(Default)]
pub(crate) struct Remembered {
    pub(crate) stamps: Stamps,
    /// Heads for the `open` line of the next management chain.
    pub(crate) to_name: Vec<ChainHead>,
    /// Heads that the store need not keep once that line is durable.
    pub(crate) to_forget: Vec<(Path, Revision)>,
    pub(crate) troubles: Vec<String>,
    /// What this node has left in a store that others use, too: the last of each process.
    pub(crate) witnesses: Vec<RecordStamp>,
}

/// Reads the heads in the store, and what is wrong with those that do not open.
pub(crate) fn stored_heads(
    store: &dyn Store,
    sealer: &RecordSealer,
    node: Option<&NodeName>,
) -> Result<(Vec<StoredHead>, Vec<String>), StoreError> {
    let (mut heads, mut troubles) = (Vec::new(), Vec::new());
    for Entry { path, value, revision } in all(store, records::audit_heads(node).as_str())? {
        match records::open(sealer, &path, Kind::AuditHead, &value) {
            Ok((head, ..)) => heads.push(StoredHead { path, revision, head }),
            Err(error) => troubles.push(format!("record {path}: {error}")),
        }
    }
    Ok((heads, troubles))
}

/// Reads the management chains, and compares the heads that they and the store remember with what is there.
pub(crate) fn remember(
    log: &dyn AuditLog,
    keys: &ChainKeys,
    stored: Vec<StoredHead>,
) -> Result<Remembered, AuditError> {
    let mut remembered = Remembered::default();
    let mut known = Heads::default();
    known.learn(stored.iter().map(|stored| stored.head.clone()));
    let chains = log.chains()?;
    let verifier = |chain: &str| ChainVerifier::new(keys, chain);
    known.learn(heads::named(log, heads::management(&chains), verifier)?);
    let (mut named, mut retired, mut reached) = (Heads::default(), Heads::default(), Vec::new());
    for chain in heads::management(&chains) {
        let head = known.get(chain).cloned();
        // Heads are kept of what is durable: where none is, a power cut may yet take what this chain names.
        let is_durable = head.is_some();
        let mut verifier = verifier(chain).verify_against(head);
        log.read(chain, &mut |line| verifier.line(line.bytes, line.torn))?;
        let report = verifier.report();
        match report.bad {
            Some(bad) => remembered.troubles.push(format!("audit chain {chain}, {bad}")),
            None => {
                named.learn(report.previous.into_iter().filter(|_| is_durable));
                reached.push(report.head);
            }
        }
        retired.learn(report.retired);
        remembered.witnesses.extend(report.witness);
        remembered.stamps.keep_newest(verifier.into_stamps());
    }
    let gone = heads::gone(&known, &chains, &retired);
    remembered.troubles.splice(0..0, gone.iter().map(|chain| format!("audit chain {chain} is gone")));
    // Of a process that was killed at once, or of one whose management chain is lost: from here on they are bound as they stand.
    for chain in heads::data(&chains).filter(|chain| known.get(chain).is_none()) {
        let mut verifier = verifier(chain);
        log.read(chain, &mut |line| verifier.line(line.bytes, line.torn))?;
        let report = verifier.report();
        if let Some(bad) = report.bad {
            remembered.troubles.push(format!("audit chain {chain}, {bad}"));
        }
        reached.push(report.head);
    }
    known.learn(reached);
    remembered.to_name = heads::to_name(&known, &named, MAX_NAMED);
    named.learn(remembered.to_name.iter().cloned());
    remembered.to_forget = heads::to_forget(stored, &named);
    Ok(remembered)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keymill_core::seam::audit::{AuditReader, AuditSink, Line};
    use keymill_core::{Sensitive, Timestamp};
    use keymill_crypto::audit::{ChainWriter, Opening};

    use super::*;

    const NOON: Timestamp = Timestamp::from_ms(1_795_521_617_000);

    /// Chains as they lie in the log, by name.
    #[derive(Default)]
    struct Log(BTreeMap<String, Vec<u8>>);

    impl AuditLog for Log {
        fn open_chain(&self, _: &str) -> Result<Box<dyn AuditSink>, AuditError> {
            Err(AuditError::Taken("this log is only read".into()))
        }

        fn chains(&self) -> Result<Vec<String>, AuditError> {
            Ok(self.0.keys().cloned().collect())
        }

        fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
            Ok(Box::new(Reader { log: self.0[name].clone(), at: 0 }))
        }

        fn bytes(&self, name: &str) -> Result<u64, AuditError> {
            Ok(self.0[name].len() as u64)
        }

        fn remove(&self, _: &str) -> Result<(), AuditError> {
            Err(AuditError::Taken("this log is only read".into()))
        }
    }

    struct Reader {
        log: Vec<u8>,
        at: usize,
    }

    impl AuditReader for Reader {
        fn next_line(&mut self) -> Result<Option<Line<'_>>, AuditError> {
            let Some(line) = self.log[self.at..].split_inclusive(|c| *c == b'\n').next() else {
                return Ok(None);
            };
            self.at += line.len();
            Ok(Some(match line.strip_suffix(b"\n") {
                Some(bytes) => Line { bytes, torn: false },
                None => Line { bytes: line, torn: true },
            }))
        }
    }

    impl Log {
        /// Writes a management chain of so many lines that names `previous`.
        fn write(&mut self, name: &str, lines: u64, previous: &[ChainHead]) -> ChainHead {
            let opening = Opening { time: NOON, node: "n", software: "0", previous };
            let mut out = Vec::new();
            let mut writer = ChainWriter::new(&keys(), name, &opening, &mut out).unwrap();
            for _ in 1..lines {
                writer.checkpoint(NOON, &mut out);
            }
            self.0.insert(name.to_owned(), out);
            writer.head()
        }
    }

    fn keys() -> ChainKeys {
        ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap()
    }

    fn head(chain: &str, sequence: u64) -> ChainHead {
        ChainHead { chain: chain.into(), sequence, mac: [7; 16] }
    }

    fn rows(heads: &[&ChainHead]) -> Vec<StoredHead> {
        let row = |head: &&ChainHead| StoredHead {
            path: records::audit_head_path(None, &head.chain),
            revision: Revision(1),
            head: (*head).clone(),
        };
        heads.iter().map(row).collect()
    }

    /// Returns what is named, what is forgotten, and the troubles.
    fn start(log: &Log, stored: &[&ChainHead]) -> (Vec<ChainHead>, Vec<String>, Vec<String>) {
        let found = remember(log, &keys(), rows(stored)).unwrap();
        let forgotten = found.to_forget.iter().map(|(path, _)| path.to_string()).collect();
        (found.to_name, forgotten, found.troubles)
    }

    #[test]
    fn a_good_management_chain_is_named_as_far_as_it_goes_and_only_once() {
        let mut log = Log::default();
        let early = log.write("a-management", 1, &[]);
        let late = log.write("a-management", 5, &[]);
        let (named, forgotten, troubles) = start(&log, &[&early]);
        assert_eq!((&*named, &*troubles), (&[late][..], &[][..]));
        assert_eq!(forgotten, ["audit-head/a-management"]);
        let next = log.write("b-management", 2, &named);
        let (named, forgotten, _) = start(&log, &[&next, &early]);
        assert_eq!(named, [next], "and not a again");
        assert_eq!(forgotten, ["audit-head/b-management", "audit-head/a-management"]);
    }

    #[test]
    fn what_a_chain_names_that_was_not_durable_or_is_bad_is_named_again() {
        let (mut log, data) = (Log::default(), head("a-data", 9));
        log.0.insert(data.chain.clone(), Vec::new());
        let namer = log.write("b-management", 3, std::slice::from_ref(&data));
        // Killed before its first line was durable: no head of it was kept.
        assert_eq!(start(&log, &[&data]).0, [data.clone(), namer.clone()]);
        assert_eq!(start(&log, &[&data, &namer]).0, std::slice::from_ref(&namer));
        // Cut: its first line verifies, and what it names is remembered; a head is named as it was kept.
        log.write("b-management", 2, std::slice::from_ref(&data));
        let (named, forgotten, troubles) = start(&log, &[&namer]);
        assert_eq!(named, [data.clone(), namer.clone()]);
        assert_eq!(forgotten, ["audit-head/b-management"]);
        assert!(matches!(&*troubles, [one] if one.contains("b-management") && one.contains("cut off")));
        // Named by a good chain, neither is named a third time.
        let next = log.write("c-management", 2, &named);
        assert_eq!(start(&log, &[&next]).0, [next]);
    }

    #[test]
    fn a_chain_that_is_gone_is_told_by_the_line_that_names_it_also_where_a_clock_was_set_back() {
        let mut log = Log::default();
        let first = log.write("z-management", 4, &[head("z-data", 3)]);
        let second = log.write("m-management", 2, std::slice::from_ref(&first));
        log.write("z-management", 2, &[head("z-data", 3)]);
        let (_, _, troubles) = start(&log, &[&second]);
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert_eq!(troubles[0], "audit chain z-data is gone");
        assert!(troubles[1].contains("z-management") && troubles[1].contains("cut off"));
    }

    #[test]
    fn a_data_chain_that_no_head_tells_of_is_bound_as_it_stands() {
        let mut log = Log::default();
        let end = log.write("a-data", 5, &[]);
        let (named, _, troubles) = start(&log, &[]);
        assert_eq!((&*named, &*troubles), (std::slice::from_ref(&end), &[][..]));
        let namer = log.write("b-management", 1, &named);
        assert_eq!(start(&log, &[&namer]).0, std::slice::from_ref(&namer), "and not again");
        // Altered before anybody knew of it.
        let mut altered = log.0["a-data"].clone();
        let at = altered.len() - 10;
        altered[at] ^= 1;
        log.0.insert("c-data".into(), altered);
        let (_, _, troubles) = start(&log, &[&namer]);
        assert!(matches!(&*troubles, [one] if one.contains("c-data")), "{troubles:?}");
    }

    #[test]
    fn a_chain_without_a_whole_line_is_not_named() {
        let mut log = Log::default();
        log.0.insert("a-management".into(), b"{\"seq\":1,".to_vec());
        let (named, _, troubles) = start(&log, &[]);
        assert!(named.is_empty() && troubles.is_empty(), "{named:?} {troubles:?}");
    }
}
