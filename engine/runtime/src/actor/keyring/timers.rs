//! What the keyring does by the clock: use counts are written, keys deleted whose time has come, and what was imported and has expired; a
//! clock that jumps makes deletions rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use keymill_core::access::Caller;
use keymill_core::error::{ErrorKind, Result};
use keymill_core::key::KeyState;
use keymill_core::time::Timestamp;

use super::{Draft, KeyringActor, conflicting};
use crate::actor::CustodyJob;
use crate::actor::ledger;
use crate::actor::signed::Claims;
use crate::audit::AuditMessage;
use crate::keyring::{CmkEntry, Stamp};
use crate::records::{self, Kind, UsageRecord};

/// How long the destruction of a key in its token may take.
pub(super) const DESTRUCTION: Duration = Duration::from_secs(60);
/// How long keys and secrets are ended in one go; it keeps whoever changes keys waiting.
pub(super) const AT_A_TIME: Duration = Duration::from_millis(100);
/// How long others have their turn where more is to be done.
pub(super) const SOON: Duration = Duration::from_millis(50);
/// How long after the last time a node of several writes that the store was seen.
const SEEN_ANEW: Duration = Duration::from_secs(10);
/// How far the clocks of nodes may differ for one not to take back what another is ending in a token.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

impl KeyringActor {
    /// Tells whether this node does what is done by the clock, as things stand now.
    pub(super) fn keeps_time(&mut self) -> bool {
        let keeps_time = self.shared.keeps_time();
        self.looked_for_strays &= keeps_time;
        if keeps_time {
            self.catch_up();
        }
        keeps_time
    }

    /// Looks once for keys whose certificates were never made.
    pub(super) fn look_for_strays(&mut self, report: impl Fn(&'static str, Result<()>)) {
        if !std::mem::replace(&mut self.looked_for_strays, true) {
            report("deleting keys of certificates that were never made", self.end_stray_keys());
        }
    }

    fn delete(&mut self, entry: &CmkEntry) -> Result<()> {
        let id = entry.cmk.id;
        let shared = self.shared.clone();
        let mut drafts = vec![Draft::removal(&shared, records::cmk_path(&id), entry.stamp)?];
        for version in &entry.versions {
            drafts.extend(self.removal_of(records::material_path(&id, version.number))?);
        }
        drafts.extend(self.drafts_of_counts_end(&id)?);
        // A wrapping key in a token outlives it until it is destroyed there.
        let ended = self.imports.get(&id).map(|known| self.used_up(&id, known)).transpose()?;
        let at = drafts.len();
        let left = ended.and_then(|(draft, left)| {
            drafts.push(draft);
            left
        });
        let aliases = self.shared.keyring.aliases(|cmk| *cmk == id);
        for (name, _) in &aliases {
            if let Some(alias) = self.shared.keyring.alias(name) {
                let path = records::alias_path(name);
                drafts.push(Draft::removal_named(&shared, path, alias.stamp, Some(name.as_str()))?);
            }
        }
        let data_keys = self.shared.keyring.data_keys(|cmk| *cmk == id);
        for entry in &data_keys {
            let name = &entry.key.name;
            let path = records::data_key_path(name);
            drafts.push(Draft::removal_named(&shared, path, entry.stamp, Some(name.as_str()))?);
        }
        let (revision, writes) = self.commit(drafts)?;
        self.usage_stamps.remove(&id);
        self.invocation_stamps.remove(&id);
        let left = left.map(|left| (left, Stamp { revision, sequence: writes[at].sequence }));
        self.note_parameters(&id, left);
        for (name, _) in &aliases {
            self.shared.keyring.remove_alias(name);
        }
        data_keys.iter().for_each(|entry| self.shared.keyring.remove_data_key(&entry.key.name));
        self.shared.forget(entry);
        self.shared.keyring.remove(&id);
        tracing::warn!(key = %id, "the key was deleted: its window is over");
        self.record("DeleteKey", "deletion window over", entry, writes)
    }

    /// Looks at the clock; a jump of wall time against monotonic time is recorded, and deletions rest for a while.
    pub(super) fn look_at_clock(&mut self) -> Timestamp {
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
    pub(super) fn look_at_last_seen(&mut self) {
        let (seen, now) = (Timestamp::from_ms(self.installation.seen_ms), self.last_look.0);
        if seen.since(now) > self.shared.config.clock_jump {
            self.jumped(seen, now);
        }
    }

    pub(super) fn keep_installation(&mut self, now: Timestamp) -> Result<()> {
        // Other nodes write it, too: each time is one at which one of two comes second.
        let is_new = now.since(Timestamp::from_ms(self.installation.seen_ms)) < SEEN_ANEW;
        let is_known =
            is_new && self.installation_stamp.is_some() && self.installation.rest_until_ms <= now.as_ms();
        if self.shared.cluster.is_some() && is_known {
            return Ok(());
        }
        self.installation.seen_ms = now.as_ms();
        let draft = self.draft(
            records::installation_path(),
            Kind::Installation,
            self.installation_stamp,
            &self.installation,
        )?;
        let (revision, stamps) = match self.commit(vec![draft]) {
            // Another node has just written it: what it says comes by itself.
            Err(error) if error.kind() == ErrorKind::Conflict && self.shared.cluster.is_some() => {
                return Ok(());
            }
            committed => committed?,
        };
        self.installation_stamp = Some(Stamp { revision, sequence: stamps[0].sequence });
        Ok(())
    }

    pub(super) fn delete_due(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        let now = self.look_at_clock();
        // Deletions need their record; without an audit log they wait.
        if self.shared.audit.check().is_err() {
            return Ok(());
        }
        self.keep_installation(now)?;
        if now.as_ms() < self.installation.rest_until_ms {
            return Ok(());
        }
        self.expire_due(now);
        self.destroy_spent(ctx);
        let (ended, mut are_more) = self.end_secrets_due(now)?;
        self.remove_left()?;
        let shared = self.shared.clone();
        ledger::purge(&shared, &mut self.ended)?;
        let mut due = self.shared.keyring.timed();
        due.retain(|e| {
            e.cmk.state == KeyState::PendingDeletion && e.cmk.delete_at.is_some_and(|at| at <= now)
        });
        let (began, mut deleted) = (Instant::now(), 0);
        for entry in &due {
            // Others have their turn, and this node still keeps the time then.
            if began.elapsed() > AT_A_TIME {
                are_more = true;
                break;
            }
            match entry.cmk.token_serial {
                None => match self.delete(entry) {
                    Ok(()) => deleted += 1,
                    Err(error) => {
                        tracing::warn!(key = %entry.cmk.id, ?error, "a key whose time has come was not deleted: it is tried again");
                    }
                },
                Some(_) if self.is_out_of_reach(entry, now) => self.destroy_in_token(entry, ctx),
                Some(_) => {}
            }
        }
        // Where nothing came of it the next look is in time.
        if are_more && (deleted > 0 || ended > 0) && !std::mem::replace(&mut self.goes_on_deleting, true) {
            ctx.run_later(SOON, |actor, ctx| {
                actor.goes_on_deleting = false;
                if actor.keeps_time()
                    && let Err(error) = actor.delete_due(ctx)
                {
                    tracing::error!(?error, "deleting keys whose time has come failed");
                }
            });
        }
        Ok(())
    }

    /// Tells whether no node takes a key back any more: their clocks may differ.
    fn is_out_of_reach(&self, entry: &CmkEntry, now: Timestamp) -> bool {
        let is_alone = self.shared.cluster.is_none();
        is_alone || entry.cmk.delete_at.is_some_and(|at| at.plus(CLOCKS_DIFFER) <= now)
    }

    /// Has the versions of a key destroyed in the token where they stay, and deletes it then; where that fails, the next check goes on with
    /// it. What was adopted is somebody else's, and is left as it is.
    fn destroy_in_token(&mut self, entry: &Arc<CmkEntry>, ctx: &mut Context<Self>) {
        let id = entry.cmk.id;
        if self.ending.insert(id, true) == Some(true) {
            return;
        }
        let (shared, entry) = (self.shared.clone(), entry.clone());
        let destroyed = async move {
            let principal = Caller::from(entry.cmk.creator.clone());
            for version in &entry.versions {
                let key = shared.stored_key(&entry, version).map_err(|fault| format!("{:?}", fault.kind))?;
                if key.token_object().is_none_or(|object| object.adopted) {
                    continue;
                }
                let berth = shared.pool.berth(&entry.cmk).map_err(|error| error.to_string())?;
                let deadline = Instant::now() + DESTRUCTION;
                let (job, destroyed) = CustodyJob::destroy(key, berth, deadline, principal.clone());
                let sent = shared.pool.control.submit(&principal, berth, job);
                sent.map_err(|(error, _)| error.to_string())?;
                destroyed
                    .await
                    .map_err(|_| "the pool is shut down".to_owned())?
                    .map_err(|e| e.to_string())?;
            }
            Ok::<_, String>(entry)
        };
        ctx.spawn(destroyed.into_actor(self).map(move |destroyed, actor, _| {
            actor.ending.insert(id, false);
            let deleted = destroyed.and_then(|entry| actor.delete(&entry).map_err(|e| e.to_string()));
            match deleted {
                Ok(()) => drop(actor.ending.remove(&id)),
                Err(why) => {
                    tracing::error!(key = %id, why, "a key whose time has come was not destroyed in its token: it is tried again");
                }
            }
        }));
    }

    /// Writes the use counts of the keys that were used since the last time.
    pub(super) fn flush_usage(&mut self) -> Result<()> {
        let used = self.shared.keyring.take_used();
        used.iter().for_each(|entry| self.note_worn(entry));
        let written = self.write_usage(&used);
        if written.is_err() {
            // Another time.
            for entry in &used {
                let in_use = entry.versions.iter().find_map(|version| version.if_used());
                in_use.into_iter().for_each(|in_use| self.shared.keyring.note(&entry.cmk.id, &in_use.usage));
            }
        }
        written
    }

    fn write_usage(&mut self, used: &[Arc<CmkEntry>]) -> Result<()> {
        let mut drafts = Vec::new();
        let mut flushed = Vec::new();
        for entry in used {
            let counted: Vec<_> = entry
                .versions
                .iter()
                .filter_map(|version| Some((version.number, version.if_used()?)))
                .map(|(number, in_use)| (number, &in_use.usage, in_use.usage.read()))
                .collect();
            if counted.iter().all(|(_, usage, uses)| usage.is_flushed(uses)) {
                continue;
            }
            let rows = counted
                .iter()
                .map(|(number, _, uses)| (*number, uses.encrypted, uses.decrypted, uses.last_ms))
                .collect();
            let id = entry.cmk.id;
            let before = self.usage_stamps.get(&id).copied();
            let path = records::usage_path(&id, self.shared.node());
            drafts.push(self.draft(path, Kind::Usage, before, &UsageRecord(rows))?);
            flushed.push((id, counted));
        }
        if drafts.is_empty() {
            return Ok(());
        }
        let committed = self.commit(drafts);
        if let Some(path) = committed.as_ref().err().and_then(conflicting) {
            // A commit whose answer was lost was kept all the same: the next goes on from it. There may be many rows: some at a time.
            let (began, first) = (Instant::now(), records::usage_at(path.as_str()).map(|(id, _)| id));
            for (id, _) in flushed.iter().skip_while(|(id, _)| first != Some(*id)) {
                let standing = self.standing(&records::usage_path(id, self.shared.node()))?;
                self.usage_stamps.extend(standing.map(|stamp| (*id, stamp)));
                if began.elapsed() > AT_A_TIME {
                    break;
                }
            }
        }
        let (revision, stamps) = committed?;
        for ((id, counted), stamp) in flushed.into_iter().zip(stamps) {
            self.usage_stamps.insert(id, Stamp { revision, sequence: stamp.sequence });
            counted.into_iter().for_each(|(_, usage, uses)| usage.flushed(&uses));
        }
        Ok(())
    }
}
