//! The keyring actor: owns CMKs, their versions and aliases. Each change is decided by a pure rule, committed to the store, and
//! only then published; the timers for use counts and deletions run here, too.

mod alias;
mod authority;
mod certificate;
mod create;
mod data_key;
mod followed;
mod import;
mod invocations;
mod keeping;
mod nonces;
mod reseal;
mod rotation;
mod secret;
mod spent;
mod timers;

pub(crate) use alias::{DeleteAlias, PutAlias};
pub(crate) use authority::{
    ActivateAuthority, ChangeAuthority, ChangeIssued, CreateAuthority, EndAuthority, IssuedChange, PutCrl,
    PutIssued, Renewed, authority_exists, not_issued,
};
pub(crate) use certificate::{
    CertificateChange, ChangeCertificate, CreateCertificateKey, EndCertificate, EndCertificateKey,
    PutCertificates, Uploaded,
};
pub(crate) use create::{CountLeftBehind, CreateCmk, Material};
pub(crate) use data_key::{PutDataKey, RemoveDataKey, data_key_exists, data_key_not_found};
pub(crate) use import::{BeginImport, Begun, DeleteMaterial, FinishImport, Parameters, PutParameters};
pub(crate) use invocations::Reserve;
pub(crate) use keeping::{KeepKeys, Keeping};
pub(crate) use nonces::{CheckNonce, KeepNonce};
pub(crate) use reseal::{ResealSecret, SealedAnew};
pub(crate) use rotation::{
    BeginRotation, DraftFailed, HastenRotation, Rotated, RotationRests, StepBegins, Stepped,
};
pub(crate) use secret::{ChangeSecret, EndSecret, MakeSecretCmk, NewSecret, PutSecret, SecretChange};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use keymill_core::audit::{KeyTouch, Outcome, RecordStamp};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, KeyVersionId, SecretName};
use keymill_core::key::{Cmk, KeyChange, KeyState, KeyVersion, KeyVersionMaterial};
use keymill_core::seam::store::{Path, Revision, StoreError};
use keymill_core::secret::Step;
use keymill_core::time::Timestamp;
use keymill_crypto::random;
use serde::Serialize;

use self::create::Owner;
use super::ledger::{Draft, ended_by, is_removal};
use super::{Changed, MAILBOX, Made};
use crate::audit::{AuditMessage, TimerRecord, TimerTouch};
use crate::keyring::{CmkEntry, Ended, Stamp, VersionEntry};
use crate::nonces::Claim;
use crate::records::{self, InstallationRecord, Kind};
use crate::shared::Shared;

/// Owns CMKs and aliases.
pub struct KeyringActor {
    shared: Arc<Shared>,
    audit: flume::Sender<AuditMessage>,
    /// How records ended: one that comes again goes on from there.
    ended: HashMap<String, Ended>,
    usage_stamps: HashMap<CmkId, Stamp>,
    invocation_stamps: HashMap<CmkId, Stamp>,
    /// What imports of material are waited for.
    imports: HashMap<CmkId, Parameters>,
    /// Keys that material is being imported to, and how many times at once: what it is wrapped by stays until none is.
    importing: HashMap<CmkId, usize>,
    /// Keys whose used-up wrapping keys are being destroyed in a token.
    clearing: HashSet<CmkId>,
    /// Keys whose primary version has sealed as many messages as it may.
    worn: HashSet<CmkId>,
    /// Keys whose new version is being generated in a token.
    renewing: HashSet<CmkId>,
    /// Keys whose material is being destroyed in the token where it stays: nothing brings them back. And which of them a job is out for.
    ending: HashMap<CmkId, bool>,
    /// Secrets of which values were left to be removed at the last look: those are removed at the next, when nobody reads them any more.
    left_by: BTreeSet<SecretName>,
    /// Secrets whose rotation waits for a thread, or is at work: at which step, where it is at one.
    rotating: HashMap<SecretName, Option<Step>>,
    /// Who waits for a rotation.
    awaited: HashMap<SecretName, Vec<rotation::Waiting>>,
    installation: InstallationRecord,
    installation_stamp: Option<Stamp>,
    /// Wall and monotonic time of the last look at the clock.
    last_look: (Timestamp, Instant),
    /// Whether more is to be deleted, or rotated, than was at once.
    goes_on_deleting: bool,
    goes_on_rotating: bool,
    /// Keys taken over from other nodes whose material could not be read yet.
    unread: BTreeSet<CmkId>,
    /// Rotations that another node may be at: as they were seen first, and when.
    elsewhere: HashMap<SecretName, (rotation::Standing, Instant)>,
    /// Whether it was looked for keys whose certificates were never made, since this node keeps the time.
    looked_for_strays: bool,
    /// What the signed request claims whose message is handled.
    claim: Option<Arc<Claim>>,
}

/// What the actor takes over from the start.
pub(crate) struct Inherited {
    pub(crate) ended: HashMap<String, Ended>,
    pub(crate) usage_stamps: HashMap<CmkId, Stamp>,
    pub(crate) invocation_stamps: HashMap<CmkId, Stamp>,
    pub(crate) imports: HashMap<CmkId, Parameters>,
    pub(crate) installation: InstallationRecord,
    pub(crate) installation_stamp: Option<Stamp>,
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

/// Writes use counts that changed.
pub(crate) struct FlushUsage;

/// Writes the record of a new installation: whoever comes with another root finds out by it.
pub(crate) struct Found;

macro_rules! messages {
    ($($message:ty => $result:ty;)*) => {
        $(impl Message for $message { type Result = Result<$result>; })*
    };
}

messages! {
    ChangeState => Changed<Arc<CmkEntry>>;
    ChangeDescription => Changed<Arc<CmkEntry>>;
    Rotate => Changed<Arc<CmkEntry>>;
    FlushUsage => ();
    Found => ();
}

impl KeyringActor {
    pub(crate) fn new(shared: Arc<Shared>, audit: flume::Sender<AuditMessage>, inherited: Inherited) -> Self {
        let last_look = (shared.clock.now(), shared.clock.instant());
        let Inherited { ended, usage_stamps, invocation_stamps, imports, installation, installation_stamp } =
            inherited;
        Self {
            shared,
            audit,
            ended,
            usage_stamps,
            invocation_stamps,
            imports,
            importing: HashMap::new(),
            clearing: HashSet::new(),
            worn: HashSet::new(),
            renewing: HashSet::new(),
            ending: HashMap::new(),
            left_by: BTreeSet::new(),
            rotating: HashMap::new(),
            awaited: HashMap::new(),
            installation,
            installation_stamp,
            last_look,
            goes_on_deleting: false,
            goes_on_rotating: false,
            unread: BTreeSet::new(),
            elsewhere: HashMap::new(),
            looked_for_strays: false,
            claim: None,
        }
    }

    fn draft<T: Serialize>(
        &self,
        path: Path,
        kind: Kind,
        before: Option<Stamp>,
        record: &T,
    ) -> Result<Draft> {
        let ended = self.ended.get(path.as_str()).copied();
        Draft::put(&self.shared, path, kind, before, ended, record)
    }

    fn commit(&mut self, drafts: Vec<Draft>) -> Result<(Revision, Vec<RecordStamp>)> {
        let committed = Draft::commit(&self.shared, self.claim.as_deref(), drafts);
        if self.shared.cluster.is_some()
            && let Some(path) = committed.as_ref().err().and_then(conflicting)
        {
            // Whoever asks again finds what came first.
            self.refresh(path.as_str())?;
        }
        let (revision, stamps) = committed?;
        for stamp in stamps.iter().filter(|stamp| is_removal(stamp)) {
            self.ended.insert(stamp.path.clone(), ended_by(&self.shared, stamp, revision));
        }
        Ok((revision, stamps))
    }

    /// Returns where a record stands that is to be replaced or removed whatever it is; what comes is newer than it, and than what the audit
    /// log remembers of it.
    fn standing(&self, path: &Path) -> Result<Option<Stamp>> {
        let remembered = self.ended.get(path.as_str()).map_or(0, |ended| ended.sequence);
        Ok(self.shared.store.get(path)?.map(|stored| {
            let sequence = keymill_crypto::record::sequence_of(&stored.value).unwrap_or(0).max(remembered);
            Stamp { revision: stored.revision, sequence }
        }))
    }

    /// Checks that a record is as this node knows it: what is answered without a commit would else be true of an older one. Whoever asks again finds
    /// the newest.
    fn confirm(&mut self, path: Path, known: Stamp) -> Result<()> {
        if self.shared.cluster.is_none() {
            return Ok(());
        }
        let stands = self.shared.store.get(&path)?.map(|stored| stored.revision);
        if stands == Some(known.revision) {
            return Ok(());
        }
        self.refresh(path.as_str())?;
        Err(Error::new(ErrorKind::Conflict, "the resource was changed meanwhile"))
    }

    /// Drafts the end of whatever stands at a path, where something does.
    fn removal_of(&self, path: Path) -> Result<Option<Draft>> {
        let Some(stamp) = self.standing(&path)? else { return Ok(None) };
        let is_over = self.ended.get(path.as_str()).and_then(Ended::revision) == Some(stamp.revision);
        (!is_over).then(|| Draft::removal(&self.shared, path, stamp)).transpose()
    }

    fn entry(&self, id: &CmkId) -> Result<Arc<CmkEntry>> {
        self.shared.keyring.cmk(id).ok_or_else(Error::key_not_found)
    }

    /// Commits a changed CMK and publishes it.
    fn change(&mut self, before: &CmkEntry, cmk: Cmk) -> Result<Changed<Arc<CmkEntry>>> {
        let Changed { mut value, keys, writes } = self.change_all(vec![(before, cmk)])?;
        Ok(Changed { value: value.remove(0), keys, writes })
    }

    /// Commits changed CMKs, all or none, and publishes them; where one may no longer be used, everything computed from it is forgotten.
    fn change_all(&mut self, changes: Vec<(&CmkEntry, Cmk)>) -> Result<Changed<Vec<Arc<CmkEntry>>>> {
        let drafts = changes
            .iter()
            .map(|(before, cmk)| self.draft(records::cmk_path(&cmk.id), Kind::Cmk, Some(before.stamp), cmk))
            .collect::<Result<Vec<_>>>()?;
        let (revision, writes) = self.commit(drafts)?;
        let (mut value, mut keys) = (Vec::new(), Vec::new());
        for ((before, cmk), stamp) in changes.into_iter().zip(&writes) {
            let usable = cmk.state == KeyState::Enabled;
            let was_usable = before.cmk.state == KeyState::Enabled;
            let stamp = Stamp { revision, sequence: stamp.sequence };
            let generation = before.generation + u64::from(usable != was_usable);
            let entry = Arc::new(before.next(cmk, before.versions.clone(), stamp, generation));
            self.shared.keyring.publish(entry.clone());
            if !usable {
                self.shared.forget(&entry);
            }
            keys.extend(touched(&entry));
            value.push(entry);
        }
        Ok(Changed { value, keys, writes })
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
        self.record_touch(operation, rule, TimerTouch::Key(key), writes)
    }

    /// Has what was done by itself recorded of a key or a secret that may be gone.
    fn record_touch(
        &self,
        operation: &'static str,
        rule: &'static str,
        touch: TimerTouch,
        writes: Vec<RecordStamp>,
    ) -> Result<()> {
        let record = TimerRecord {
            frontend: "timer",
            by: None,
            operation,
            rule: rule.into(),
            outcome: Outcome::Done,
            touch,
            writes,
        };
        let recorded = self.audit.send(AuditMessage::Timer(Box::new(record)));
        recorded.map_err(|_| Error::new(ErrorKind::AuditUnavailable, "the audit log is closed"))
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
        if let Some(policy) = &mut cmk.rotation {
            policy.next_at = version.created_at.plus(policy.interval.duration());
        }
        let stays = made.key.token_object().cloned();
        if stays.as_ref().map(|object| &*object.serial) != cmk.token_serial.as_deref() {
            Made::log_left_behind(stays.as_ref());
            return Err(Error::new(ErrorKind::Conflict, "the token was exchanged for another meanwhile"));
        }
        let (material, version) = self.material(&id, &version, made)?;
        let drafts = vec![self.draft(records::cmk_path(&id), Kind::Cmk, Some(before.stamp), &cmk)?, material];
        let committed = self.commit(drafts).inspect_err(|_| Made::log_left_behind(stays.as_ref()));
        let (revision, writes) = committed?;
        let mut versions = before.versions.clone();
        versions.push(version);
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let entry = Arc::new(before.next(cmk, versions, stamp, before.generation));
        self.shared.keyring.publish(entry.clone());
        Ok(Changed { keys: touched(&entry), value: entry, writes })
    }

    /// Drafts the material of a new version.
    fn material(
        &self,
        id: &CmkId,
        version: &KeyVersion,
        Made { key, copy, .. }: Made,
    ) -> Result<(Draft, Arc<VersionEntry>)> {
        let record = KeyVersionMaterial { id: version.id, key, copy };
        let path = records::material_path(id, version.number);
        let draft = self.draft(path, Kind::Material, None, &record)?;
        let material = draft.tag();
        Ok((draft, Arc::new(VersionEntry::new(version.number, version.id, material))))
    }
}

/// Returns where a commit came second, if that is why it failed.
fn conflicting(error: &Error) -> Option<&Path> {
    let source = std::error::Error::source(error)?;
    match source.downcast_ref()? {
        StoreError::Conflict(path) => Some(path),
        _ => None,
    }
}

pub(crate) fn touched(entry: &CmkEntry) -> Vec<KeyTouch> {
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
            if actor.keeps_time() {
                report("making new versions", actor.rotate_due(ctx));
            }
        });
        ctx.run_interval(self.shared.config.deletion_check, move |actor, ctx| {
            let keeps_time = actor.keeps_time();
            actor.look_at_clock();
            if keeps_time {
                actor.look_for_strays(report);
                report("deleting keys whose time has come", actor.delete_due(ctx));
            }
        });
        ctx.run_interval(self.shared.config.rotation.check, move |actor, _| {
            if actor.keeps_time() {
                report("rotating secrets", actor.rotate_secrets_due());
            }
        });
        self.look_at_last_seen();
        self.forget_nonces(ctx);
        // One of several nodes is given the timers, or not, after its start.
        if self.keeps_time() {
            self.look_for_strays(report);
            report("deleting keys whose time has come", self.delete_due(ctx));
            report("rotating secrets", self.rotate_secrets_due());
        }
    }
}

impl Handler<ChangeState> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: ChangeState, _: &mut Self::Context) -> Self::Result {
        let before = self.entry(&message.id)?;
        if self.ending.contains_key(&message.id) {
            let why = "the window of its deletion is over, and its destruction in the token has begun";
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        // Another node may have begun to end it in its token.
        let is_over = || before.cmk.delete_at.is_some_and(|at| at <= self.shared.clock.now());
        if message.change == KeyChange::CancelDeletion
            && self.shared.cluster.is_some()
            && before.cmk.token_serial.is_some()
            && is_over()
        {
            return Err(Error::new(ErrorKind::StateConflict, "the window of its deletion is over"));
        }
        let state = before.cmk.after(message.change)?;
        if message.change == KeyChange::ScheduleDeletion && before.cmk.deletion_protection.is_some() {
            let why = "the key is protected against deletion: SetDeletionProtection takes that away";
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        if state == before.cmk.state {
            self.confirm(records::cmk_path(&message.id), before.stamp)?;
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
        self.change(&before, Cmk { description: message.description.into(), ..before.cmk.clone() })
    }
}

impl Handler<Rotate> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: Rotate, _: &mut Self::Context) -> Self::Result {
        let before = self.entry(&message.id)?;
        before.cmk.state.check_usable()?;
        // Once more: another version may have been made while this one was.
        match before.cmk.spec.is_key_pair() {
            true => before.cmk.check_new_version(self.shared.clock.now())?,
            false => before.cmk.check_rotation()?,
        }
        self.rotate(&before, message.made)
    }
}

impl Handler<Found> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, Found: Found, _: &mut Self::Context) -> Self::Result {
        match self.installation_stamp {
            Some(_) => Ok(()),
            None => self.keep_installation(self.last_look.0),
        }
    }
}

impl Handler<FlushUsage> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, FlushUsage: FlushUsage, _: &mut Self::Context) -> Self::Result {
        self.flush_usage()?;
        let now = self.look_at_clock();
        match self.shared.keeps_time() {
            true => self.keep_installation(now),
            false => Ok(()),
        }
    }
}
