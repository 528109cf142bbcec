//! The keyring actor: owns CMKs, their versions and aliases. Each change is decided by a pure rule, committed to the store, and
//! only then published; the timers for use counts and deletions run here, too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use keymill_core::audit::{KeyTouch, RecordStamp};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, AliasName, CmkId, KeyVersionId};
use keymill_core::key::{
    BulkMode, Cmk, Fallback, KeyChange, KeyState, KeyVersion, KeyVersionMaterial, Origin, ProtectionLevel,
};
use keymill_core::limit;
use keymill_core::seam::store::{Path, Revision, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::{digest, random};
use serde::Serialize;

use super::{Changed, CustodyJob, MAILBOX, Made, Wanted};
use crate::audit::AuditMessage;
use crate::keyring::{AliasEntry, CmkEntry, Stamp, Usage, VersionEntry};
use crate::pool::chunk::{Home, Return};
use crate::records::{self, AliasRecord, InstallationRecord, InvocationsRecord, Kind, UsageRecord};
use crate::shared::Shared;
use crate::work::Fault;

/// Owns CMKs and aliases.
pub struct KeyringActor {
    shared: Arc<Shared>,
    audit: flume::Sender<AuditMessage>,
    /// Last sequence numbers of records that were removed: a record that comes again goes on from there.
    ended: HashMap<String, u64>,
    usage_stamps: HashMap<CmkId, Stamp>,
    invocation_stamps: HashMap<CmkId, Stamp>,
    /// Keys whose new version is being generated in a token.
    renewing: HashSet<CmkId>,
    installation: InstallationRecord,
    installation_stamp: Option<Stamp>,
    /// Wall and monotonic time of the last look at the clock.
    last_look: (Timestamp, Instant),
}

/// What the actor takes over from the start.
pub(crate) struct Inherited {
    pub(crate) ended: HashMap<String, u64>,
    pub(crate) usage_stamps: HashMap<CmkId, Stamp>,
    pub(crate) invocation_stamps: HashMap<CmkId, Stamp>,
    pub(crate) installation: InstallationRecord,
    pub(crate) installation_stamp: Option<Stamp>,
}

/// Makes a CMK of generated material.
pub(crate) struct CreateCmk {
    pub(crate) made: Made,
    pub(crate) protection: ProtectionLevel,
    pub(crate) fallback: Fallback,
    pub(crate) description: String,
    pub(crate) creator: AccessKeyId,
}

/// Changes the state of a CMK.
pub(crate) struct ChangeState {
    pub(crate) id: CmkId,
    pub(crate) change: KeyChange,
    pub(crate) window_days: Option<u32>,
}

/// Changes the description of a CMK.
pub(crate) struct ChangeDescription {
    pub(crate) id: CmkId,
    pub(crate) description: String,
}

/// Makes a new version of a CMK the primary one.
pub(crate) struct Rotate {
    pub(crate) id: CmkId,
    pub(crate) made: Made,
}

/// Reserves invocations of a key version whose blobs have random 96-bit nonces; the answer goes to `home`.
pub(crate) struct Reserve {
    pub(crate) cmk: CmkId,
    pub(crate) version: KeyVersionId,
    pub(crate) home: Arc<dyn Home>,
}

impl Message for Reserve {
    type Result = ();
}

/// Creates or moves an alias.
pub(crate) struct PutAlias {
    pub(crate) name: AliasName,
    pub(crate) to: CmkId,
    pub(crate) create: bool,
}

/// Removes an alias.
pub(crate) struct DeleteAlias {
    pub(crate) name: AliasName,
}

/// Writes use counts that changed.
pub(crate) struct FlushUsage;

macro_rules! messages {
    ($($message:ty => $result:ty;)*) => {
        $(impl Message for $message { type Result = Result<$result>; })*
    };
}

messages! {
    CreateCmk => Changed<Arc<CmkEntry>>;
    ChangeState => Changed<Arc<CmkEntry>>;
    ChangeDescription => Changed<Arc<CmkEntry>>;
    Rotate => Changed<Arc<CmkEntry>>;
    PutAlias => Changed<()>;
    DeleteAlias => Changed<()>;
    FlushUsage => ();
}

/// A record as it will be committed.
struct Draft {
    write: Write,
    stamp: RecordStamp,
}

impl KeyringActor {
    pub(crate) fn new(shared: Arc<Shared>, audit: flume::Sender<AuditMessage>, inherited: Inherited) -> Self {
        let last_look = (shared.clock.now(), shared.clock.instant());
        let Inherited { ended, usage_stamps, invocation_stamps, installation, installation_stamp } =
            inherited;
        Self {
            shared,
            audit,
            ended,
            usage_stamps,
            invocation_stamps,
            renewing: HashSet::new(),
            installation,
            installation_stamp,
            last_look,
        }
    }

    fn draft<T: Serialize>(
        &self,
        path: Path,
        kind: Kind,
        before: Option<Stamp>,
        record: &T,
    ) -> Result<Draft> {
        let sequence = match before {
            Some(stamp) => stamp.sequence,
            None => self.ended.get(path.as_str()).copied().unwrap_or(0),
        } + 1;
        let sealed = records::seal(&self.shared.sealer, &path, kind, sequence, record)?;
        let stamp = RecordStamp { path: path.to_string(), sequence, tag: digest::hex(&sealed.tag) };
        let expected = before.map(|stamp| stamp.revision);
        Ok(Draft { write: Write { path, expected, value: Some(sealed.bytes) }, stamp })
    }

    fn removal(path: Path, before: Stamp) -> Draft {
        let stamp = RecordStamp { path: path.to_string(), sequence: before.sequence + 1, tag: String::new() };
        Draft { write: Write { path, expected: Some(before.revision), value: None }, stamp }
    }

    fn commit(&mut self, drafts: Vec<Draft>) -> Result<(Revision, Vec<RecordStamp>)> {
        let (writes, stamps): (Vec<_>, Vec<_>) = drafts.into_iter().map(|d| (d.write, d.stamp)).unzip();
        let revision = self.shared.store.commit(&writes)?;
        for stamp in stamps.iter().filter(|stamp| stamp.tag.is_empty()) {
            self.ended.insert(stamp.path.clone(), stamp.sequence);
        }
        Ok((revision, stamps))
    }

    fn entry(&self, id: &CmkId) -> Result<Arc<CmkEntry>> {
        self.shared.keyring.cmk(id).ok_or_else(Error::key_not_found)
    }

    /// Commits a changed CMK and publishes it; where it may no longer be used, everything computed from it is forgotten.
    fn change(&mut self, before: &CmkEntry, cmk: Cmk) -> Result<Changed<Arc<CmkEntry>>> {
        let draft = self.draft(records::cmk_path(&cmk.id), Kind::Cmk, Some(before.stamp), &cmk)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let usable = cmk.state == KeyState::Enabled;
        let was_usable = before.cmk.state == KeyState::Enabled;
        let entry = Arc::new(CmkEntry {
            versions: before.versions.clone(),
            stamp: Stamp { revision, sequence: writes[0].sequence },
            generation: before.generation + u64::from(usable != was_usable),
            life: before.life.clone(),
            cmk,
        });
        self.shared.keyring.publish(entry.clone());
        if !usable {
            self.shared.forget(&entry);
        }
        Ok(Changed { keys: touched(&entry), value: entry, writes })
    }

    fn delete(&mut self, entry: &CmkEntry) -> Result<()> {
        let id = entry.cmk.id;
        let mut drafts = vec![Self::removal(records::cmk_path(&id), entry.stamp)];
        for version in &entry.versions {
            let path = records::material_path(&id, version.number);
            if let Some(stored) = self.shared.store.get(&path)? {
                let sequence = keymill_crypto::record::sequence_of(&stored.value).unwrap_or(0);
                drafts.push(Self::removal(path, Stamp { revision: stored.revision, sequence }));
            }
        }
        if let Some(stamp) = self.usage_stamps.get(&id) {
            drafts.push(Self::removal(records::usage_path(&id), *stamp));
        }
        if let Some(stamp) = self.invocation_stamps.get(&id) {
            drafts.push(Self::removal(records::invocations_path(&id), *stamp));
        }
        let aliases = self.shared.keyring.aliases(|cmk| *cmk == id);
        for (name, _) in &aliases {
            if let Some(alias) = self.shared.keyring.alias(name) {
                drafts.push(Self::removal(records::alias_path(name), alias.stamp));
            }
        }
        let (_, writes) = self.commit(drafts)?;
        self.usage_stamps.remove(&id);
        self.invocation_stamps.remove(&id);
        for (name, _) in &aliases {
            self.shared.keyring.remove_alias(name);
        }
        self.shared.forget(entry);
        self.shared.keyring.remove(&id);
        tracing::warn!(key = %id, "the key was deleted: its window is over");
        self.record("DeleteKey", "deletion window over", entry, writes)
    }

    /// Has what a timer did recorded.
    fn record(
        &self,
        operation: &'static str,
        rule: &'static str,
        entry: &CmkEntry,
        writes: Vec<RecordStamp>,
    ) -> Result<()> {
        let key = KeyTouch { cmk: entry.cmk.id, version: 0, items: 0, protection: entry.cmk.protection };
        let recorded = self.audit.send(AuditMessage::Timer { operation, rule, key, writes });
        recorded.map_err(|_| Error::new(ErrorKind::AuditUnavailable, "the audit log is closed"))
    }

    /// Makes a new version of each key whose primary one has sealed as many messages as random nonces allow.
    fn rotate_exhausted(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        let keyring = &self.shared.keyring;
        let exhausted: Vec<_> = keyring
            .ids()
            .iter()
            .filter_map(|id| keyring.cmk(id))
            .filter(|e| e.cmk.state == KeyState::Enabled)
            .filter(|e| is_exhausted(e))
            .collect();
        for entry in exhausted {
            match entry.cmk.protection {
                ProtectionLevel::Software => {
                    let (spec, usage) = (entry.cmk.spec, entry.cmk.usage);
                    let key = self.shared.custody.lock().generate(spec, usage, entry.cmk.bulk_mode)?;
                    self.renew(&entry, Made { key, copy: None })?;
                }
                ProtectionLevel::Hsm => self.renew_in_token(&entry, ctx),
            }
        }
        Ok(())
    }

    /// Makes a new version by itself, and has it recorded.
    fn renew(&mut self, entry: &CmkEntry, made: Made) -> Result<()> {
        let changed = self.rotate(entry, made)?;
        tracing::warn!(key = %entry.cmk.id, "a new version was made: the last one had sealed its number of messages");
        self.record("RotateKey", "number of messages reached", entry, changed.writes)
    }

    /// Has a token generate a new version; until it has, the old one goes on up to its end.
    fn renew_in_token(&mut self, entry: &CmkEntry, ctx: &mut Context<Self>) {
        let id = entry.cmk.id;
        if !self.renewing.insert(id) {
            return;
        }
        let principal = Arc::new(entry.cmk.creator.clone());
        let Cmk { spec, usage, bulk_mode, fallback, .. } = entry.cmk;
        let deadline = Instant::now() + Duration::from_secs(60);
        let wanted = Wanted { spec, usage, bulk_mode, fallback };
        let sent =
            CustodyJob::new(&self.shared, wanted, deadline, principal.clone()).and_then(|(job, made)| {
                let sent = self.shared.pool.control.submit(&principal, 1, job);
                sent.map(|()| made).map_err(|(error, _)| error)
            });
        let generated = match sent {
            Ok(generated) => generated,
            Err(error) => {
                tracing::error!(key = %id, %error, "a new version that is due cannot be generated");
                self.renewing.remove(&id);
                return;
            }
        };
        ctx.spawn(generated.into_actor(self).map(move |generated, actor, _| {
            actor.renewing.remove(&id);
            let renewed = generated
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "the pool is shut down")))
                .and_then(|made| {
                    let entry = actor.entry(&id)?;
                    // Someone may have rotated it meanwhile.
                    if is_exhausted(&entry) { actor.renew(&entry, made) } else { Ok(()) }
                });
            if let Err(error) = renewed {
                tracing::error!(key = %id, ?error, "a new version that is due could not be made");
            }
        }));
    }

    /// Reserves invocations of a key version: durable before the first of them is used, so that no crash makes one be used twice.
    fn reserve(&mut self, id: &CmkId, version: &KeyVersionId) -> Result<()> {
        let entry = self.entry(id)?;
        let reserved = entry.versions.iter().find(|v| v.id == *version).ok_or_else(Error::key_not_found)?;
        // Others may have asked for the same.
        if reserved.invocations.left() >= limit::RESERVED_INVOCATIONS / 4 {
            return Ok(());
        }
        let total = reserved.invocations.reserved.load(Ordering::Relaxed) + limit::RESERVED_INVOCATIONS;
        if total > limit::MAX_INVOCATIONS {
            return Err(Error::new(
                ErrorKind::StateConflict,
                "the key version has sealed as many messages as it may: rotate the key",
            ));
        }
        let rows = entry.versions.iter().filter_map(|v| {
            let of_version = match v.id == *version {
                true => total,
                false => v.invocations.reserved.load(Ordering::Relaxed),
            };
            (of_version > 0).then_some((v.number, of_version))
        });
        let record = InvocationsRecord(rows.collect());
        let path = records::invocations_path(id);
        let before = match self.invocation_stamps.get(id) {
            Some(stamp) => Some(*stamp),
            // One that failed its check at the start is replaced; what it counted is lost, and no version of before seals any more.
            None => self.shared.store.get(&path)?.map(|stored| Stamp {
                revision: stored.revision,
                sequence: keymill_crypto::record::sequence_of(&stored.value).unwrap_or(0),
            }),
        };
        let draft = self.draft(path, Kind::Invocations, before, &record)?;
        let (revision, writes) = self.commit(vec![draft])?;
        self.invocation_stamps.insert(*id, Stamp { revision, sequence: writes[0].sequence });
        self.record("ReserveInvocations", "random nonces are counted", &entry, writes)?;
        reserved.invocations.grant(total, limit::RESERVED_INVOCATIONS);
        Ok(())
    }

    /// Commits a new version of a key and publishes it as the primary one.
    fn rotate(&mut self, before: &CmkEntry, made: Made) -> Result<Changed<Arc<CmkEntry>>> {
        let id = before.cmk.id;
        let mut cmk = before.cmk.clone();
        let version = KeyVersion {
            number: before.primary().number + 1,
            id: KeyVersionId::from_random(random::array()?),
            created_at: self.shared.clock.now(),
        };
        cmk.versions.push(version.clone());
        let (material, version) = self.material(&id, &version, made)?;
        let drafts = vec![self.draft(records::cmk_path(&id), Kind::Cmk, Some(before.stamp), &cmk)?, material];
        let (revision, writes) = self.commit(drafts)?;
        let mut versions = before.versions.clone();
        versions.push(version);
        let entry = Arc::new(CmkEntry {
            cmk,
            versions,
            stamp: Stamp { revision, sequence: writes[0].sequence },
            generation: before.generation,
            life: before.life.clone(),
        });
        self.shared.keyring.publish(entry.clone());
        Ok(Changed { keys: touched(&entry), value: entry, writes })
    }

    /// Looks at the clock; a jump of wall time against monotonic time is recorded, and deletions rest for a while.
    fn look_at_clock(&mut self) -> Timestamp {
        let (now, instant) = (self.shared.clock.now(), self.shared.clock.instant());
        let (last_wall, last_instant) = self.last_look;
        let expected = last_wall.plus(instant.saturating_duration_since(last_instant));
        let off = now.since(expected).max(expected.since(now));
        if off > self.shared.config.clock_jump {
            self.jumped(expected, now);
        }
        self.last_look = (now, instant);
        now
    }

    fn jumped(&mut self, expected: Timestamp, now: Timestamp) {
        tracing::error!(%expected, %now, "the clock jumped: deletions rest");
        let _closed = self.audit.send(AuditMessage::ClockJump { from: expected, to: now });
        self.installation.rest_until_ms = now.plus(self.shared.config.clock_jump_rest).as_ms();
    }

    /// Compares the clock at the start with the time when this store was last seen: time does not pass backwards while stopped.
    fn look_at_last_seen(&mut self) {
        let (seen, now) = (Timestamp::from_ms(self.installation.seen_ms), self.last_look.0);
        if seen.since(now) > self.shared.config.clock_jump {
            self.jumped(seen, now);
        }
    }

    fn keep_installation(&mut self, now: Timestamp) -> Result<()> {
        self.installation.seen_ms = now.as_ms();
        let draft = self.draft(
            records::installation_path(),
            Kind::Installation,
            self.installation_stamp,
            &self.installation,
        )?;
        let (revision, stamps) = self.commit(vec![draft])?;
        self.installation_stamp = Some(Stamp { revision, sequence: stamps[0].sequence });
        Ok(())
    }

    fn delete_due(&mut self) -> Result<usize> {
        let now = self.look_at_clock();
        // Deletions need their record; without an audit log they wait.
        if self.shared.audit.check().is_err() {
            return Ok(0);
        }
        self.keep_installation(now)?;
        if now.as_ms() < self.installation.rest_until_ms {
            return Ok(0);
        }
        let due: Vec<_> = self
            .shared
            .keyring
            .ids()
            .iter()
            .filter_map(|id| self.shared.keyring.cmk(id))
            .filter(|e| {
                e.cmk.state == KeyState::PendingDeletion && e.cmk.delete_at.is_some_and(|at| at <= now)
            })
            .collect();
        for entry in &due {
            self.delete(entry)?;
        }
        Ok(due.len())
    }

    fn flush_usage(&mut self) -> Result<()> {
        let mut drafts = Vec::new();
        let mut flushed = Vec::new();
        for entry in self.shared.keyring.ids().iter().filter_map(|id| self.shared.keyring.cmk(id)) {
            let changed =
                entry.versions.iter().any(|v| v.usage.total() != v.usage.flushed.load(Ordering::Relaxed));
            if !changed {
                continue;
            }
            let totals: Vec<u64> = entry.versions.iter().map(|v| v.usage.total()).collect();
            let rows = entry
                .versions
                .iter()
                .map(|v| {
                    let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
                    (v.number, load(&v.usage.encrypted), load(&v.usage.decrypted), load(&v.usage.last_ms))
                })
                .collect();
            let id = entry.cmk.id;
            let before = self.usage_stamps.get(&id).copied();
            drafts.push(self.draft(records::usage_path(&id), Kind::Usage, before, &UsageRecord(rows))?);
            flushed.push((entry, totals));
        }
        if drafts.is_empty() {
            return Ok(());
        }
        let (revision, stamps) = self.commit(drafts)?;
        for ((entry, totals), stamp) in flushed.into_iter().zip(stamps) {
            self.usage_stamps.insert(entry.cmk.id, Stamp { revision, sequence: stamp.sequence });
            for (version, total) in entry.versions.iter().zip(totals) {
                version.usage.flushed.store(total, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Drafts the material of a new version.
    fn material(
        &self,
        id: &CmkId,
        version: &KeyVersion,
        Made { key, copy }: Made,
    ) -> Result<(Draft, Arc<VersionEntry>)> {
        let record = KeyVersionMaterial { id: version.id, key, copy };
        let path = records::material_path(id, version.number);
        let draft = self.draft(path, Kind::Material, None, &record)?;
        let sealed = draft.write.value.clone().expect("a draft of a record has its bytes").into();
        let entry = VersionEntry {
            number: version.number,
            id: version.id,
            sealed,
            handle: Default::default(),
            epoch: Default::default(),
            usage: Usage::default(),
            invocations: Default::default(),
        };
        Ok((draft, Arc::new(entry)))
    }
}

fn touched(entry: &CmkEntry) -> Vec<KeyTouch> {
    vec![KeyTouch {
        cmk: entry.cmk.id,
        version: entry.primary().number,
        items: 0,
        protection: entry.cmk.protection,
    }]
}

impl Actor for KeyringActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let report = |what: &'static str, outcome: Result<()>| {
            if let Err(error) = outcome {
                tracing::error!(?error, "{what} failed");
            }
        };
        ctx.run_interval(self.shared.config.usage_flush, move |actor, ctx| {
            report("writing use counts", actor.flush_usage());
            report("making new versions", actor.rotate_exhausted(ctx));
        });
        ctx.run_interval(self.shared.config.deletion_check, move |actor, _| {
            report("deleting keys whose time has come", actor.delete_due().map(drop));
        });
        self.look_at_last_seen();
        report("deleting keys whose time has come", self.delete_due().map(drop));
    }
}

impl Handler<CreateCmk> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: CreateCmk, _: &mut Self::Context) -> Self::Result {
        let CreateCmk { made, protection, fallback, description, creator } = message;
        let now = self.shared.clock.now();
        let id = CmkId::from_random(random::array()?);
        let version =
            KeyVersion { number: 1, id: KeyVersionId::from_random(random::array()?), created_at: now };
        let cmk = Cmk {
            id,
            spec: made.key.spec,
            usage: made.key.usage,
            origin: Origin::AliyunKms,
            protection,
            bulk_mode: made.key.bulk_mode,
            fallback,
            state: KeyState::Enabled,
            description,
            creator,
            created_at: now,
            delete_at: None,
            versions: vec![version.clone()],
        };
        let (material, version) = self.material(&id, &version, made)?;
        let drafts = vec![self.draft(records::cmk_path(&id), Kind::Cmk, None, &cmk)?, material];
        let (revision, writes) = self.commit(drafts)?;
        let entry = Arc::new(CmkEntry {
            cmk,
            versions: vec![version],
            stamp: Stamp { revision, sequence: writes[0].sequence },
            generation: 1,
            life: Arc::new(AtomicU64::new(1)),
        });
        self.shared.keyring.publish(entry.clone());
        Ok(Changed { keys: touched(&entry), value: entry, writes })
    }
}

impl Handler<ChangeState> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: ChangeState, _: &mut Self::Context) -> Self::Result {
        let before = self.entry(&message.id)?;
        let state = before.cmk.state.after(message.change)?;
        if state == before.cmk.state {
            return Ok(Changed { keys: touched(&before), value: before, writes: Vec::new() });
        }
        let delete_at = message
            .window_days
            .map(|days| self.shared.clock.now().plus(Duration::from_secs(u64::from(days) * 86_400)));
        self.change(&before, Cmk { state, delete_at, ..before.cmk.clone() })
    }
}

impl Handler<ChangeDescription> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: ChangeDescription, _: &mut Self::Context) -> Self::Result {
        let before = self.entry(&message.id)?;
        if before.cmk.state == KeyState::PendingDeletion {
            before.cmk.state.check_usable()?;
        }
        self.change(&before, Cmk { description: message.description, ..before.cmk.clone() })
    }
}

impl Handler<Rotate> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: Rotate, _: &mut Self::Context) -> Self::Result {
        let before = self.entry(&message.id)?;
        before.cmk.state.check_usable()?;
        self.rotate(&before, message.made)
    }
}

impl Handler<Reserve> for KeyringActor {
    type Result = ();

    fn handle(&mut self, message: Reserve, _: &mut Self::Context) {
        let Reserve { cmk, version, home } = message;
        let outcome = self.reserve(&cmk, &version).map_err(|error| {
            tracing::error!(key = %cmk, ?error, "invocations cannot be reserved");
            Fault::from(error)
        });
        home.returned(vec![Return::Reserved(version, outcome)]);
    }
}

impl Handler<PutAlias> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: PutAlias, _: &mut Self::Context) -> Self::Result {
        let PutAlias { name, to, create } = message;
        let target = self.entry(&to)?;
        let before = self.shared.keyring.alias(&name);
        match (&before, create) {
            (Some(_), true) => return Err(Error::new(ErrorKind::AliasExists, "the alias is taken")),
            (None, false) => {
                return Err(Error::new(ErrorKind::AliasNotFound, "the specified alias is not found"));
            }
            _ => {}
        }
        if target.cmk.state == KeyState::PendingDeletion {
            let kind = if create { ErrorKind::StateConflict } else { ErrorKind::KeyPendingDeletion };
            return Err(Error::new(kind, "a key that waits for its deletion takes no alias"));
        }
        let record = AliasRecord { cmk: to, name: name.clone() };
        let stamp = before.map(|alias| alias.stamp);
        let draft = self.draft(records::alias_path(&name), Kind::Alias, stamp, &record)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        self.shared.keyring.put_alias(name, AliasEntry { cmk: to, stamp });
        Ok(Changed { value: (), keys: touched(&target), writes })
    }
}

impl Handler<DeleteAlias> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: DeleteAlias, _: &mut Self::Context) -> Self::Result {
        let DeleteAlias { name } = message;
        let alias = self
            .shared
            .keyring
            .alias(&name)
            .ok_or_else(|| Error::new(ErrorKind::AliasNotFound, "the specified alias is not found"))?;
        let keys = self.entry(&alias.cmk).map(|entry| touched(&entry)).unwrap_or_default();
        let (_, writes) = self.commit(vec![Self::removal(records::alias_path(&name), alias.stamp)])?;
        self.shared.keyring.remove_alias(&name);
        Ok(Changed { value: (), keys, writes })
    }
}

impl Handler<FlushUsage> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, FlushUsage: FlushUsage, _: &mut Self::Context) -> Self::Result {
        self.flush_usage()?;
        let now = self.look_at_clock();
        self.keep_installation(now)
    }
}

/// Tells whether the primary version of a key has sealed as many messages as random nonces allow it.
fn is_exhausted(entry: &CmkEntry) -> bool {
    let primary = entry.primary();
    match entry.cmk.bulk_mode {
        Some(BulkMode::InHsm) => has_used_up_96_bits(primary.invocations.reserved.load(Ordering::Relaxed)),
        None | Some(BulkMode::HsmDerived) => {
            has_used_up_192_bits(primary.usage.encrypted.load(Ordering::Relaxed))
        }
    }
}

/// Tells whether so many messages call for a new version under random 192-bit nonces: they repeat with a probability of 2^-32 at 2^45
/// (`spec/ciphertext.md`).
fn has_used_up_192_bits(encrypted: u64) -> bool {
    encrypted >= 1 << limit::XAES_MESSAGES_LOG2
}

/// The same under random 96-bit nonces: at 2^31 reserved ones, half of what SP 800-38D §8.3 allows.
fn has_used_up_96_bits(reserved: u64) -> bool {
    reserved >= limit::RENEWED_AT_INVOCATIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_replaced_at_its_number_of_messages() {
        assert!(!has_used_up_192_bits((1 << 45) - 1) && has_used_up_192_bits(1 << 45));
        assert!(!has_used_up_96_bits((1 << 31) - 1) && has_used_up_96_bits(1 << 31));
    }
}
