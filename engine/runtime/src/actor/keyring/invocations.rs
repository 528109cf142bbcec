//! How often a key version may seal: invocations are reserved before they are used, and a version that has used up its own is replaced, as is
//! one whose time by the policy is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use keymill_core::access::Caller;
use keymill_core::blob::Algorithm;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, KeyVersionId};
use keymill_core::key::{Cmk, KeyState, ProtectionLevel, RotationPolicy};
use keymill_core::limit;
use keymill_core::seam::store::Path;
use keymill_core::time::Timestamp;

use super::KeyringActor;
use super::timers::SOON;
use crate::actor::{CustodyJob, Made, Wanted};
use crate::keyring::{CmkEntry, Keyring, Stamp};
use crate::pool::chunk::{Home, Return};
use crate::records::{self, InvocationsRecord, Kind};
use crate::work::{Fault, Served};

/// How long versions are made in one go; it keeps whoever changes keys waiting.
const ROTATIONS: Duration = Duration::from_millis(50);
/// Keys whose new versions tokens are asked for at once.
const RENEWING: usize = 32;
/// How far a clock may be ahead before what it set is set anew.
const AHEAD: Duration = Duration::from_secs(86_400);

/// Reserves invocations of a key version whose blobs have random 96-bit nonces; the answer goes to `home`.
pub(crate) struct Reserve {
    pub(crate) cmk: CmkId,
    pub(crate) version: KeyVersionId,
    pub(crate) home: Arc<dyn Home>,
}

impl Message for Reserve {
    type Result = ();
}

impl KeyringActor {
    /// Makes a new version of each key whose primary one has sealed as many messages as random nonces allow, or is due by the policy.
    pub(super) fn rotate_due(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        let now = self.trusted_time();
        // A new version needs its record, and a place: without them none is made that nobody could use.
        if self.shared.audit.check().is_err() || self.shared.store_trouble.lock().is_some() {
            return Ok(());
        }
        let began = Instant::now();
        let keyring = &self.shared.keyring;
        self.worn.retain(|id| keyring.cmk(id).is_some_and(|entry| is_exhausted(keyring, &entry)));
        let mut due: HashMap<CmkId, _> =
            keyring.timed().into_iter().map(|entry| (entry.cmk.id, entry)).collect();
        due.extend(self.worn.iter().filter_map(|id| Some((*id, keyring.cmk(id)?))));
        due.retain(|_, entry| entry.cmk.state == KeyState::Enabled && reason(keyring, entry, now).is_some());
        let mut made = 0;
        for entry in due.into_values() {
            if began.elapsed() > ROTATIONS {
                // Where nothing came of it the next look is in time.
                if made > 0 {
                    self.go_on_rotating(ctx);
                }
                break;
            }
            match entry.cmk.protection {
                ProtectionLevel::Software => match self.renew_in_software(&entry, now) {
                    Ok(()) => made += 1,
                    Err(error) => {
                        tracing::error!(key = %entry.cmk.id, ?error, "a new version that is due could not be made");
                    }
                },
                ProtectionLevel::Hsm if self.renewing.len() >= RENEWING => {}
                ProtectionLevel::Hsm => self.renew_in_token(&entry, ctx),
            }
        }
        Ok(())
    }

    /// Makes the other versions that are due once those who wait have had their turn.
    fn go_on_rotating(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.goes_on_rotating, true) {
            ctx.run_later(SOON, |actor, ctx| {
                actor.goes_on_rotating = false;
                if actor.keeps_time()
                    && let Err(error) = actor.rotate_due(ctx)
                {
                    tracing::error!(?error, "making new versions failed");
                }
            });
        }
    }

    fn renew_in_software(&mut self, entry: &CmkEntry, now: Timestamp) -> Result<()> {
        let (spec, usage) = (entry.cmk.spec, entry.cmk.usage);
        let key = self.shared.custody.lock().generate(spec, usage, entry.cmk.bulk_mode)?;
        self.renew(
            entry,
            Made { key, copy: None, check: None, by: Served::default() },
            reason(&self.shared.keyring, entry, now).unwrap_or_default(),
        )
    }

    /// Returns the time by which policies are carried out and nonces run out: the first of all while what the clock says may be wrong.
    pub(super) fn trusted_time(&mut self) -> Timestamp {
        let now = self.look_at_clock();
        if now.as_ms() < self.installation.rest_until_ms { Timestamp::default() } else { now }
    }

    /// Makes a new version by itself, and has it recorded.
    fn renew(&mut self, entry: &CmkEntry, made: Made, reason: &'static str) -> Result<()> {
        let changed = self.rotate(entry, made)?;
        tracing::info!(key = %entry.cmk.id, reason, "a new version was made");
        self.record("RotateKey", reason, entry, changed.writes)
    }

    /// Has a token generate a new version; until it has, the old one goes on up to its end.
    fn renew_in_token(&mut self, entry: &CmkEntry, ctx: &mut Context<Self>) {
        let id = entry.cmk.id;
        if !self.renewing.insert(id) {
            return;
        }
        let principal = Caller::from(entry.cmk.creator.clone());
        let Cmk { spec, usage, protection, bulk_mode, fallback, .. } = entry.cmk;
        let deadline = Instant::now() + Duration::from_secs(60);
        let stays = entry.cmk.token_serial.is_some();
        let wanted = Wanted { spec, usage, protection, bulk_mode, fallback, stays };
        let sent = self.shared.pool.berth(&entry.cmk).and_then(|berth| {
            let (job, made) = CustodyJob::make(&self.shared, wanted, berth, deadline, principal.clone())?;
            let sent = self.shared.pool.control.submit(&principal, berth, job);
            sent.map(|_shed| made).map_err(|(error, _)| error)
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
                .and_then(|made| actor.renew_if_due(&id, made));
            if let Err(error) = renewed {
                tracing::error!(key = %id, ?error, "a new version that is due could not be made");
            }
        }));
    }

    /// Makes what a token generated the new version, unless the key has one already, or is gone, by someone else's doing.
    fn renew_if_due(&mut self, id: &CmkId, made: Made) -> Result<()> {
        let left = |_: &Error| Made::log_left_behind(made.key.token_object());
        let entry = self.entry(id).inspect_err(left)?;
        self.shared.audit.check().inspect_err(left)?;
        // It may have been disabled meanwhile, or its end have begun.
        let is_usable = entry.cmk.state == KeyState::Enabled && !self.ending.contains_key(id);
        let now = self.trusted_time();
        if let Some(reason) = reason(&self.shared.keyring, &entry, now).filter(|_| is_usable) {
            return self.renew(&entry, made, reason);
        }
        Made::log_left_behind(made.key.token_object());
        Ok(())
    }

    /// Reserves invocations of a key version; where other nodes reserve of the same key, what is behind theirs.
    fn reserve(&mut self, id: &CmkId, version: &KeyVersionId) -> Result<()> {
        const TRIES: usize = 8;
        for _ in 1..TRIES {
            match self.try_reserve(id, version) {
                Err(error) if error.kind() == ErrorKind::Conflict && self.shared.cluster.is_some() => {
                    self.refresh(records::invocations_path(id).as_str())?;
                }
                outcome => return outcome,
            }
        }
        self.try_reserve(id, version)
    }

    /// Reads what is reserved by all nodes; an engine that is alone knows it.
    fn stored_invocations(&mut self, id: &CmkId, path: &Path) -> Result<Vec<(u32, u64)>> {
        if self.shared.cluster.is_none() || !self.invocation_stamps.contains_key(id) {
            return Ok(Vec::new());
        }
        let Some(stored) = self.shared.stored(path)? else { return Ok(Vec::new()) };
        let opened =
            records::open::<InvocationsRecord>(&self.shared.sealer, path, Kind::Invocations, &stored.value);
        match opened {
            Ok((InvocationsRecord(rows), ..)) => Ok(rows),
            Err(error) => {
                tracing::error!(key = %id, %error, "the count of reserved messages is damaged");
                Err(Error::new(
                    ErrorKind::Quarantined,
                    "the count of the messages of the key failed its check",
                ))
            }
        }
    }

    /// Has a key looked at that is used up, on whichever node.
    pub(super) fn note_worn(&mut self, entry: &CmkEntry) {
        if is_exhausted(&self.shared.keyring, entry) {
            self.worn.insert(entry.cmk.id);
        }
    }

    /// Reserves invocations of a key version: durable before the first of them is used, so that no crash makes one be used twice.
    fn try_reserve(&mut self, id: &CmkId, version: &KeyVersionId) -> Result<()> {
        let entry = self.entry(id)?;
        let reserved = entry.versions.iter().find(|v| v.id == *version).ok_or_else(Error::key_not_found)?;
        let reserved = reserved.in_use();
        // Others may have asked for the same.
        if reserved.invocations.left() >= limit::RESERVED_INVOCATIONS / 4 {
            return Ok(());
        }
        let path = records::invocations_path(id);
        let stored = self.stored_invocations(id, &path)?;
        let of = |number: u32| stored.iter().find(|row| row.0 == number).map_or(0, |row| row.1);
        let number = entry.versions.iter().find(|v| v.id == *version).map_or(0, |v| v.number);
        let total = reserved.invocations.reserved().max(of(number)) + limit::RESERVED_INVOCATIONS;
        if total > limit::MAX_INVOCATIONS {
            return Err(Error::new(
                ErrorKind::StateConflict,
                "the key version has sealed as many messages as it may: rotate the key",
            ));
        }
        let rows = entry.versions.iter().filter_map(|v| {
            let of_version = match v.id == *version {
                true => total,
                false => v.if_used().map_or(0, |in_use| in_use.invocations.reserved()).max(of(v.number)),
            };
            (of_version > 0).then_some((v.number, of_version))
        });
        // Also of versions that this node has not heard of yet.
        let others = stored.iter().filter(|row| entry.version(row.0).is_none()).copied();
        let record = InvocationsRecord(rows.chain(others).collect());
        let before = match self.invocation_stamps.get(id) {
            Some(stamp) => Some(*stamp),
            // One that failed its check at the start is replaced; what it counted is lost, and no version of before seals any more.
            None => self.standing(&path)?,
        };
        let draft = self.draft(path, Kind::Invocations, before, &record)?;
        let (revision, writes) = self.commit(vec![draft])?;
        self.invocation_stamps.insert(*id, Stamp { revision, sequence: writes[0].sequence });
        self.record("ReserveInvocations", "random nonces are counted", &entry, writes)?;
        reserved.invocations.grant(total, limit::RESERVED_INVOCATIONS);
        // As many may be reserved now as call for a new version.
        self.shared.keyring.note(id, &reserved.usage);
        Ok(())
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

/// Tells why a key is due for a new version, if it is.
fn reason(keyring: &Keyring, entry: &CmkEntry, now: Timestamp) -> Option<&'static str> {
    // Imported material is the only one that its key ever has.
    if entry.cmk.external.is_some() {
        None
    } else if is_exhausted(keyring, entry) {
        Some("number of messages reached")
    } else if entry.cmk.rotation.is_some_and(|policy| is_due(policy, now)) {
        Some("rotation policy")
    } else {
        None
    }
}

/// Tells whether a policy asks for a new version: its time has come, or lies so far ahead that a clock was wrong when it was set.
fn is_due(policy: RotationPolicy, now: Timestamp) -> bool {
    let is_known = now > Timestamp::default();
    is_known && (policy.next_at <= now || policy.next_at > now.plus(policy.interval.duration() + AHEAD))
}

/// Tells whether the primary version of a key has sealed as many messages as random nonces allow it.
pub(super) fn is_exhausted(keyring: &Keyring, entry: &CmkEntry) -> bool {
    let primary = entry.primary();
    match entry.cmk.algorithm() {
        Some(Algorithm::Xaes256Gcm) => has_used_up_192_bits(keyring.uses(&entry.cmk.id, primary).encrypted),
        Some(_) => has_used_up_96_bits(primary.if_used().map_or(0, |in_use| in_use.invocations.reserved())),
        // Nothing of a key pair or a key of MACs wears out.
        None => false,
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
    use keymill_core::key::RotationInterval;

    #[test]
    fn a_policy_is_due_in_its_time_and_where_a_clock_had_run_ahead() {
        let at = |s: u64| Timestamp::from_ms(s * 1_000);
        let interval = RotationInterval::parse("7d").unwrap();
        let (now, week) = (2_000_000_000, 604_800);
        for (next, due) in [
            (now - 1, true),
            (now, true),
            (now + 1, false),
            (now + week, false),
            (now + week + 86_000, false),
            (now + week + 87_000, true),
        ] {
            assert_eq!(is_due(RotationPolicy { interval, next_at: at(next) }, at(now)), due, "{next}");
        }
        assert!(
            !is_due(RotationPolicy { interval, next_at: at(now) }, Timestamp::default()),
            "the clock rests"
        );
    }

    #[test]
    fn a_version_is_replaced_at_its_number_of_messages() {
        assert!(!has_used_up_192_bits((1 << 45) - 1) && has_used_up_192_bits(1 << 45));
        assert!(!has_used_up_96_bits((1 << 31) - 1) && has_used_up_96_bits(1 << 31));
    }
}
