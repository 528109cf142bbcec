//! Fills a store with CMKs like those that `CreateKey` made there: the same records, sealed by the engine's own code under the keys of the
//! same root, and the same lines of a management chain of the audit. Only the commits are larger, and nobody waits for each.

use std::path::Path;
use std::sync::Arc;

use keymill_core::audit::{AuditRecord, KeyTouch, Outcome, RecordStamp};
use keymill_core::id::{CmkId, KeyVersionId, RequestId};
use keymill_core::key::{Cmk, KeyVersionMaterial};
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::provider::{CryptoProvider, KeyCustody};
use keymill_core::seam::store::{Entry, Page, Path as RecordPath, Store, Write};
use keymill_crypto::audit::ChainKeys;
use keymill_crypto::derived::{DerivedKeys, cmac_pair};
use keymill_crypto::record::RecordSealer;
use keymill_crypto::root::RootKeys;
use keymill_crypto::{digest, random};
use keymill_runtime::EngineConfig;
use keymill_runtime::audit::{AuditHub, DeskChain, MANAGEMENT};
use keymill_runtime::clock::Clock;
use keymill_runtime::records::{self, Kind};

use super::Result;

/// CMKs of a commit.
const GROUP: usize = 50_000;
/// CMKs of an append to the audit log.
const LINES: usize = 512;

/// Returns a description as people write them.
pub(crate) fn description(number: usize) -> String {
    format!("orders of customer {number}")
}

/// Adds CMKs until there are `count`.
pub(crate) fn fill(place: &Path, count: usize) -> Result<()> {
    let data = place.join("data");
    let root = RootKeys::decode(&std::fs::read(place.join("data.root"))?)?;
    let instance = EngineConfig::default().instance;
    let derived = DerivedKeys::derive(1, &instance, &mut |messages| {
        Ok::<_, std::convert::Infallible>(cmac_pair(&root.mac, messages))
    })?;
    let store = keymill_store_sqlite::open(keymill_store_sqlite::Config::new(&data))?;
    let log: Arc<dyn AuditLog> =
        Arc::new(keymill_audit_file::open(keymill_audit_file::Config::at(data.join("audit")))?);
    let sealer = RecordSealer::new(&derived.storage)?;
    let provider = keymill_provider_software::open(Default::default())?;
    let mut maker = Maker::like_those_in(&store, sealer, provider.custody()?)?;
    let there = list(&store, "cmk/")?.len();

    let clock = Clock::default();
    let keys = ChainKeys::new(&derived.audit, &derived.audit_signing)?;
    let process = "20260101T000000Z-00000001".to_owned();
    let files = keymill_runtime::AuditFiles::default();
    let hub =
        Arc::new(AuditHub::new(log, keys, process, "fill".into(), clock.clone(), Vec::new(), (true, files)));
    let mut chain = DeskChain::open(&hub, MANAGEMENT)?;
    let creator = maker.cmk.creator.clone();
    let mut left = count.saturating_sub(there);
    let mut number = there;
    while left > 0 {
        let mut writes = Vec::new();
        let mut created = Vec::new();
        for _ in 0..GROUP.min(left) {
            let made = maker.make(number, clock.now())?;
            writes.extend(made.writes);
            created.push((made.id, made.stamps));
            number += 1;
        }
        left -= created.len();
        store.commit(&writes)?;
        for lines in created.chunks(LINES) {
            for (id, stamps) in lines {
                chain.append(&AuditRecord {
                    time: clock.now(),
                    request: RequestId::from_random(random::array()?),
                    principal: Some(&creator),
                    source: Some(std::net::Ipv4Addr::LOCALHOST.into()),
                    frontend: "msgpack",
                    operation: "CreateKey",
                    outcome: Outcome::Done,
                    rule: "grant 0 Root".into(),
                    keys: &[KeyTouch { cmk: *id, version: 1, items: 0, protection: maker.cmk.protection }],
                    secrets: &[],
                    certificates: &[],
                    providers: &[],
                    items: 0,
                    failed: 0,
                    context: None,
                    fallback: None,
                    recipient: None,
                    approved_by: None,
                    micros: 4_321,
                    alike: &[],
                    writes: stamps,
                });
            }
            chain.flush()?;
        }
    }
    chain.close();
    Ok(())
}

/// Returns the ids of the CMKs, in no order that anything else has.
pub(crate) fn ids(place: &Path) -> Result<Vec<CmkId>> {
    let store = keymill_store_sqlite::open(keymill_store_sqlite::Config::new(place.join("data")))?;
    let id = |path: &RecordPath| path.as_str().strip_prefix("cmk/").and_then(CmkId::parse);
    Ok(list(&store, "cmk/")?.iter().filter_map(|entry| id(&entry.path)).collect())
}

fn list(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>> {
    let prefix = records::prefix(prefix);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.path.clone());
        let mut page = store.list(&prefix, Page { after: after.as_ref(), limit: 4_096 })?;
        if page.is_empty() {
            return Ok(entries);
        }
        entries.append(&mut page);
    }
}

/// Makes CMKs after a pattern.
struct Maker {
    sealer: RecordSealer,
    custody: Box<dyn KeyCustody>,
    cmk: Cmk,
    /// Bytes of a sealed record of material, as `CreateKey` wrote it.
    material_bytes: usize,
}

/// A CMK that was made.
struct Made {
    id: CmkId,
    writes: [Write; 2],
    stamps: [RecordStamp; 2],
}

impl Maker {
    fn like_those_in(store: &dyn Store, sealer: RecordSealer, custody: Box<dyn KeyCustody>) -> Result<Self> {
        let entry = list(store, "cmk/")?.into_iter().next().ok_or("no CMK to make others like")?;
        let (cmk, ..) = records::open::<Cmk>(&sealer, &entry.path, Kind::Cmk, &entry.value)?;
        let path = records::material_path(&cmk.id, 1);
        let material = store.get(&path)?.ok_or("it has no material")?;
        Ok(Self { sealer, custody, cmk, material_bytes: material.value.len() })
    }

    fn make(&mut self, number: usize, now: keymill_core::Timestamp) -> Result<Made> {
        let id = CmkId::from_random(random::array()?);
        let mut cmk =
            Cmk { id, created_at: now, description: description(number).into(), ..self.cmk.clone() };
        cmk.versions[0].id = KeyVersionId::from_random(random::array()?);
        cmk.versions[0].created_at = now;
        let key = self.custody.generate(cmk.spec, cmk.usage, cmk.bulk_mode)?;
        let material = KeyVersionMaterial { id: cmk.versions[0].id, key, copy: None };
        let (cmk_write, cmk_stamp) = self.seal(records::cmk_path(&id), Kind::Cmk, &cmk)?;
        let path = records::material_path(&id, 1);
        let (material_write, material_stamp) = self.seal(path, Kind::Material, &material)?;
        if material_write.value.as_ref().map(Vec::len) != Some(self.material_bytes) {
            return Err("this is not what CreateKey writes".into());
        }
        Ok(Made { id, writes: [cmk_write, material_write], stamps: [cmk_stamp, material_stamp] })
    }

    fn seal<T: serde::Serialize>(
        &self,
        path: RecordPath,
        kind: Kind,
        record: &T,
    ) -> Result<(Write, RecordStamp)> {
        let sealed = records::seal(&self.sealer, &path, kind, 1, record)?;
        let stamp = RecordStamp { path: path.to_string(), sequence: 1, tag: digest::hex(&sealed.tag) };
        Ok((Write { path, expected: None, value: Some(sealed.bytes) }, stamp))
    }
}
