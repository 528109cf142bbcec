//! The check itself: each chain against its keys and the heads that are remembered, then the records against the chains.

use std::path::Path;
use std::sync::Arc;

use keymill_core::id::{InstanceId, NodeName};
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_crypto::audit::{ChainHead, ChainKeys, ChainReport, ChainVerifier, Heads, Shed, Stamps};
use keymill_crypto::derived::DerivedKeys;
use keymill_crypto::digest;
use keymill_crypto::record::RecordSealer;
use keymill_runtime::heads;
use keymill_runtime::scoped::Scoped;
use keymill_runtime::verify::{self, Finding};
use serde::Serialize;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::plugins;

/// All that was found, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Findings {
    pub(super) good: bool,
    pub(super) public_key: String,
    pub(super) chains: Vec<ChainRow>,
    /// Chains that are remembered and not there.
    pub(super) missing: Vec<String>,
    /// Chains that were removed, their time being over, as notes say.
    pub(super) retired: u64,
    /// Lines that a place beside the files did not get, as notes say.
    pub(super) shed: Vec<ShedRow>,
    /// Records compared, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) records: Option<u64>,
    pub(super) record_findings: Vec<RecordRow>,
}

#[derive(Serialize)]
pub(super) struct ChainRow {
    pub(super) chain: String,
    pub(super) good: bool,
    pub(super) lines: u64,
    pub(super) requests: u64,
    pub(super) notes: u64,
    pub(super) checkpoints: u64,
    pub(super) unsigned: u64,
    pub(super) closed: bool,
    pub(super) torn: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bad: Option<String>,
}

/// Lines of a chain that a place beside the files did not get.
#[derive(Serialize)]
pub(super) struct ShedRow {
    pub(super) chain: String,
    pub(super) sink: String,
    pub(super) lines: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

#[derive(Serialize)]
pub(super) struct RecordRow {
    pub(super) path: String,
    pub(super) wrong: bool,
    pub(super) why: String,
}

/// How lines are checked.
pub(super) enum Trust {
    Keys(Box<ChainKeys>),
    Public([u8; 32]),
}

impl Trust {
    fn verifier(&self, chain: &str) -> ChainVerifier {
        match self {
            Trust::Keys(keys) => ChainVerifier::new(keys, chain),
            Trust::Public(key) => ChainVerifier::public(*key, chain),
        }
    }

    fn public_key(&self) -> [u8; 32] {
        match self {
            Trust::Keys(keys) => keys.verifying_key(),
            Trust::Public(key) => *key,
        }
    }
}

/// The store, and what opens its records.
pub(super) struct Storage {
    store: Arc<dyn Store>,
    sealer: RecordSealer,
    /// Whose heads are compared, where several servers use the store.
    node: Option<NodeName>,
}

impl Storage {
    /// Opens it, or the part of it that is an instance's; the server must be stopped.
    pub(super) fn open(
        config: &Config,
        data: &Path,
        derived: &DerivedKeys,
        instance: Option<&InstanceId>,
    ) -> Result<Self> {
        if !data.is_dir() {
            return Err(Failure::new(format!("there is no data directory {}", data.display()))
                .next("name it with --data-dir DIR"));
        }
        let store = plugins::store(&config.store, data).map_err(|failure| {
            failure.next("--store needs the server stopped; without it the audit log alone is verified")
        })?;
        let store = match instance {
            Some(id) => Arc::new(Scoped::of(store, id)) as Arc<dyn Store>,
            None => store,
        };
        let sealer = RecordSealer::new(&derived.storage).map_err(Failure::because("storage key"))?;
        Ok(Self { store, sealer, node: config.node()? })
    }
}

/// Checks every chain, and the records where a store is given.
pub(super) fn examine(log: &dyn AuditLog, trust: &Trust, storage: Option<&Storage>) -> Result<Findings> {
    let mut remembered = Heads::default();
    let mut findings: Vec<Finding> = Vec::new();
    if let Some(Storage { store, sealer, node }) = storage {
        remembered.learn(verify::heads(&**store, sealer, node.as_ref()).map_err(Failure::because("store"))?);
    }
    let names = log.chains().map_err(Failure::because("audit"))?;
    let named = heads::named(log, &names, |chain| trust.verifier(chain));
    remembered.learn(named.map_err(Failure::because("audit"))?);
    let (mut chains, mut stamps, mut shed) = (Vec::new(), Stamps::default(), Vec::new());
    let (mut retired, mut retirements) = (Heads::default(), 0);
    for name in &names {
        let (mut report, written) = verified(log, trust, name, remembered.get(name).cloned())?;
        stamps.keep_newest(written);
        retirements += report.retired.len() as u64;
        retired.learn(std::mem::take(&mut report.retired));
        shed.extend(report.shed.iter().map(|Shed { sink, lines, first, last }| ShedRow {
            chain: name.clone(),
            sink: sink.clone(),
            lines: *lines,
            first: *first,
            last: *last,
        }));
        chains.push(row(&report));
    }
    let missing: Vec<String> = heads::gone(&remembered, &names, &retired).into_iter().collect();
    let mut records = None;
    if let Some(Storage { store, sealer, .. }) = storage {
        let (count, found) = verify::compare(&**store, sealer, &stamps).map_err(Failure::because("store"))?;
        records = Some(count);
        findings.extend(found);
    }
    let good = chains.iter().all(|chain| chain.good)
        && missing.is_empty()
        && findings.iter().all(|finding| !finding.is_wrong);
    let record_findings = findings
        .into_iter()
        .map(|Finding { path, why, is_wrong }| RecordRow { path, wrong: is_wrong, why })
        .collect();
    Ok(Findings {
        good,
        public_key: digest::hex(&trust.public_key()),
        chains,
        missing,
        retired: retirements,
        shed,
        records,
        record_findings,
    })
}

fn verified(
    log: &dyn AuditLog,
    trust: &Trust,
    chain: &str,
    head: Option<ChainHead>,
) -> Result<(ChainReport, Stamps)> {
    let mut verifier = trust.verifier(chain).verify_against(head);
    log.read(chain, &mut |line| verifier.line(line.bytes, line.torn)).map_err(Failure::because("audit"))?;
    Ok((verifier.report(), verifier.into_stamps()))
}

fn row(report: &ChainReport) -> ChainRow {
    ChainRow {
        chain: report.head.chain.clone(),
        good: report.is_good(),
        lines: report.head.sequence,
        requests: report.requests,
        notes: report.notes,
        checkpoints: report.checkpoints,
        unsigned: report.unsigned,
        closed: report.closed,
        torn: report.torn,
        bad: report.bad.as_ref().map(ToString::to_string),
    }
}
