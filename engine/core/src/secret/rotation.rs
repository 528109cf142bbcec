//! The rotation of a secret, as a pure rule. A new version is drafted and kept, with `ACSPending` to point to it; its value is set where it is
//! used, and tested there; only then `ACSCurrent` moves to it, in one commit; and what is left behind is ended. The record of the secret holds how
//! far that is, so that whoever comes after a crash goes on from there, and every step can be done again.
//!
//! What is done by hand meanwhile holds: a version that is put or staged becomes current, and the rotation goes on from it. The version under
//! way itself is given no stage by hand, and is given up by taking `ACSPending` from it, by who knows that the current value is valid.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stage::PENDING;
use super::{NewVersion, Put, Secret, SecretInterval};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AccessKeyId, RotatorName, SecretVersionId, VersionStage};
use crate::key::AutomaticRotation;
use crate::limit;
use crate::seam::rotator::{RotationSettings, RotationStrategy};
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3_600);
/// How far a clock may have been ahead before what it set is due at once.
const AHEAD: Duration = Duration::from_secs(86_400);

/// How a secret is rotated, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The rotator, as the configuration names it.
    pub rotator: RotatorName,
    /// What the secret asks of it.
    #[serde(default)]
    pub settings: RotationSettings,
    /// How often it is rotated by itself, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<SecretInterval>,
    /// When it is rotated by itself the next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// When a new version became current the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// The rotation under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// That it was tried in vain, and when it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// When callers asked for it in the last hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Timestamp>,
}

/// A rotation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The version that is to become current, or became it and is finished yet.
    pub version: SecretVersionId,
    /// What is done next.
    pub step: Step,
    /// The access key that asked for it; the timer began it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<AccessKeyId>,
    /// Once it is current: the version that was, and the one before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

/// What a promotion left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The version that was current.
    pub current: SecretVersionId,
    /// The version that was the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<SecretVersionId>,
}

/// Tries in vain, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How many.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

/// A step of a rotation whose version is kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// The value is made valid.
    Set,
    /// It is shown valid; the version is current from then on.
    Test,
    /// What is left behind is ended.
    Finish,
}

impl Step {
    /// Returns its name, for the log, the audit and callers.
    pub fn name(self) -> &'static str {
        match self {
            Step::Set => "set",
            Step::Test => "test",
            Step::Finish => "finish",
        }
    }
}

/// What is to be done for a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A new version is to be drafted.
    Draft,
    /// The rotation under way goes on.
    Step(Step),
}

/// When it is tried again after it was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// After the first time; twice as long after each.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl BackOff {
    /// Returns how long it rests after so many tries; `draw`, at random, makes it shorter by up to a tenth, so that not all come at once.
    pub fn rest(&self, attempts: u32, draw: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        less_a_tenth(doubled.min(self.most), draw)
    }
}

/// Returns when a secret is rotated by itself after `last`: up to a tenth before its interval is over, by `draw`, so that secrets made at one
/// time do not stay together.
pub fn next_rotation(last: Timestamp, interval: SecretInterval, draw: u32) -> Timestamp {
    last.plus(less_a_tenth(interval.duration(), draw))
}

fn less_a_tenth(whole: Duration, draw: u32) -> Duration {
    let part = (whole.as_millis() / 10).saturating_mul(u128::from(draw)) / u128::from(u32::MAX);
    whole.saturating_sub(Duration::from_millis(part.try_into().unwrap_or(u64::MAX)))
}

/// What is told of the rotation of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationTold {
    /// Whether it is rotated by itself.
    pub automatic: AutomaticRotation,
    /// How often, where it is.
    pub interval: Option<SecretInterval>,
    /// When the next time, where it is.
    pub next_at: Option<Timestamp>,
    /// When it was the last time.
    pub last_at: Option<Timestamp>,
    /// What it asks for, as `ExtendedConfig` has it.
    pub extended: String,
}

impl Rotation {
    /// Makes the one of a secret that was not rotated yet.
    pub fn new(rotator: RotatorName, settings: RotationSettings) -> Self {
        let (interval, next_at, last_at) = (None, None, None);
        let (pending, trouble, asked) = (None, None, Vec::new());
        Self { rotator, settings, interval, next_at, last_at, pending, trouble, asked }
    }

    /// Has it rotated so often by itself, from the last version on, or no longer. One under way goes on.
    pub fn schedule(&mut self, interval: Option<SecretInterval>, last: Timestamp, now: Timestamp, draw: u32) {
        // A clock that was ahead when the version was made does not put it off.
        self.next_at = interval.map(|interval| next_rotation(last.min(now), interval, draw));
        self.interval = interval;
        if interval.is_none() && self.pending.is_none() {
            // Nothing is tried again.
            self.trouble = None;
        }
    }

    /// Tells whether one is under way whose version is not current yet.
    pub fn is_begun(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.step != Step::Finish)
    }

    /// Tells whether one is under way that goes by which account is current, and which is the other.
    pub(super) fn is_between_two(&self) -> bool {
        self.is_begun() && self.settings.strategy == Some(RotationStrategy::AlternatingUsers)
    }

    /// Checks that a caller may ask for it once more.
    ///
    /// # Errors
    /// `OverQuota` beyond 50 in an hour.
    pub fn check_asked(&self, now: Timestamp) -> Result<()> {
        let asked = self.asked.iter().filter(|at| is_within_the_hour(**at, now)).count();
        if asked >= limit::SECRET_ROTATIONS_AN_HOUR {
            let why = format!(
                "the secret was asked to be rotated {} times within an hour, which is the limit",
                limit::SECRET_ROTATIONS_AN_HOUR
            );
            return Err(Error::new(ErrorKind::OverQuota, why));
        }
        Ok(())
    }

    /// Notes that a caller asks for it.
    fn ask(&mut self, now: Timestamp) -> Result<()> {
        self.check_asked(now)?;
        self.asked.retain(|at| is_within_the_hour(*at, now));
        self.asked.push(now);
        Ok(())
    }
}

impl Secret {
    /// Returns what is to be done for it now. Where the clock cannot be trusted, by `rests`, none is begun by its time; one under way goes on, and
    /// so does one whose next try lies further ahead than any is put off by `back_off`.
    pub fn rotation_due(&self, now: Timestamp, rests: bool, back_off: BackOff) -> Option<Due> {
        let rotation = self.rotation.as_ref().filter(|_| self.delete_at.is_none())?;
        let waits = rotation.trouble.is_some_and(|Trouble { retry_at, .. }| {
            retry_at > now && retry_at <= now.plus(back_off.most + back_off.most)
        });
        let is_time = match (rotation.interval, rotation.next_at) {
            (Some(interval), Some(next_at)) if !rests => {
                next_at <= now || next_at > now.plus(interval.duration() + AHEAD)
            }
            _ => false,
        };
        match &rotation.pending {
            Some(pending) if !waits => Some(Due::Step(pending.step)),
            // What could not be finished keeps no other from its time.
            Some(pending) => (is_time && pending.step == Step::Finish).then_some(Due::Draft),
            None => (is_time && !waits).then_some(Due::Draft),
        }
    }

    /// Checks that a caller may have it rotated to a version that is not there yet.
    ///
    /// # Errors
    /// `Unsupported` where it has no rotator, `StateConflict` where one to another version is under way. What is not finished yet of the last one
    /// is left as it is by the next.
    pub fn check_rotation(&self, to: &SecretVersionId) -> Result<&Rotation> {
        self.check_alive()?;
        let rotation = self.rotation.as_ref().ok_or_else(no_rotator)?;
        match &rotation.pending {
            Some(pending) if pending.version != *to && pending.step != Step::Finish => {
                let why = format!(
                    "a rotation to version {} is under way: ask for that, or wait until it is done",
                    pending.version
                );
                Err(Error::new(ErrorKind::StateConflict, why))
            }
            _ => Ok(rotation),
        }
    }

    /// Tells whether it was rotated to a version: that is current, or was before the one that is.
    pub fn was_rotated_to(&self, version: &SecretVersionId) -> bool {
        let stages = [VersionStage::current(), VersionStage::previous()];
        stages.iter().any(|stage| self.at(stage).is_some_and(|holder| holder.id == *version))
    }

    /// Begins a rotation: keeps the version that was drafted from the one that was current.
    ///
    /// # Errors
    /// Those of [`Secret::check_rotation`] and [`Secret::put`]; `Conflict` where another version is current by now; `OverQuota` where callers
    /// asked too often.
    pub fn begin_rotation(
        &mut self,
        version: NewVersion,
        drafted_from: &SecretVersionId,
        by: Option<AccessKeyId>,
        now: Timestamp,
    ) -> Result<Put> {
        self.check_rotation(&version.id)?;
        if self.at(&VersionStage::current()).is_none_or(|current| current.id != *drafted_from) {
            let why = "another version became current while the next one was made";
            return Err(Error::new(ErrorKind::Conflict, why));
        }
        let id = version.id.clone();
        let rotation = self.rotation.as_mut().ok_or_else(no_rotator)?;
        if rotation.is_begun() {
            return Err(Error::new(ErrorKind::Conflict, "the rotation was begun meanwhile"));
        }
        if by.is_some() {
            rotation.ask(now)?;
        }
        let put = self.keep(NewVersion { stages: vec![VersionStage::pending()], ..version }, now)?;
        if put == Put::Same {
            return Err(Error::new(ErrorKind::Conflict, "the version of the rotation is there already"));
        }
        if let Some(rotation) = &mut self.rotation {
            rotation.pending = Some(Pending { version: id, step: Step::Set, by, left: None });
            rotation.trouble = None;
        }
        Ok(put)
    }

    /// Notes that a caller asks for the rotation that is under way already: it is tried at once. False where its version is current by now, or was:
    /// nothing changes then.
    ///
    /// # Errors
    /// Those of [`Secret::check_rotation`]; `Conflict` where it was given up by now; `OverQuota` where callers asked too often.
    pub fn hasten_rotation(&mut self, to: &SecretVersionId, now: Timestamp) -> Result<bool> {
        self.check_rotation(to)?;
        let was_begun = self.version(to).is_some();
        let rotation = self.rotation.as_mut().ok_or_else(no_rotator)?;
        match &rotation.pending {
            Some(pending) if pending.version == *to && pending.left.is_none() => {}
            _ if was_begun => return Ok(false),
            _ => return Err(moved_on()),
        }
        rotation.ask(now)?;
        if let Some(trouble) = &mut rotation.trouble {
            trouble.retry_at = now;
        }
        Ok(true)
    }

    /// Goes on, a step having been done; after the test the version becomes the current one.
    ///
    /// # Errors
    /// `Conflict` where that step of that rotation is not the one that was to be done; `ResourceInDeleteWindow` where the secret is about to end.
    pub fn rotation_passed(
        &mut self,
        version: &SecretVersionId,
        step: Step,
        now: Timestamp,
        draw: u32,
    ) -> Result<()> {
        self.check_alive()?;
        self.check_step(version, step)?;
        let left = match step {
            Step::Test => Some(self.promote(version, now)?),
            Step::Set | Step::Finish => None,
        };
        let Some(rotation) = &mut self.rotation else { return Err(no_rotator()) };
        rotation.trouble = None;
        match (step, &mut rotation.pending) {
            (Step::Finish, pending) => *pending = None,
            (Step::Set, Some(pending)) => pending.step = Step::Test,
            (Step::Test, Some(pending)) => {
                (pending.step, pending.left) = (Step::Finish, left);
                rotation.last_at = Some(now);
                let next = |interval| next_rotation(now, interval, draw);
                rotation.next_at = rotation.interval.map(next);
            }
            (_, None) => return Err(moved_on()),
        }
        Ok(())
    }

    /// Notes that a step was tried in vain, or that no version could be drafted, where there is none of a rotation. What is current stays it.
    ///
    /// # Errors
    /// `Conflict` where that is not what was to be done.
    pub fn rotation_failed(
        &mut self,
        at: Option<(&SecretVersionId, Step)>,
        now: Timestamp,
        back_off: BackOff,
        draw: u32,
    ) -> Result<Trouble> {
        if let Some((version, step)) = at {
            self.check_step(version, step)?;
        }
        let rotation = self.rotation.as_mut().ok_or_else(no_rotator)?;
        if at.is_none() && rotation.is_begun() {
            return Err(moved_on());
        }
        let attempts = rotation.trouble.map_or(0, |trouble| trouble.attempts).saturating_add(1);
        let trouble = Trouble { attempts, retry_at: now.plus(back_off.rest(attempts, draw)) };
        rotation.trouble = Some(trouble);
        Ok(trouble)
    }

    /// Notes that the value was shown not to be valid after it was set: somebody else set another since, or lost it. It is set anew at the next try,
    /// which is when [`Secret::rotation_failed`] says.
    ///
    /// # Errors
    /// As of that.
    pub fn rotation_lost(
        &mut self,
        version: &SecretVersionId,
        now: Timestamp,
        back_off: BackOff,
        draw: u32,
    ) -> Result<Trouble> {
        let trouble = self.rotation_failed(Some((version, Step::Test)), now, back_off, draw)?;
        if let Some(pending) = self.rotation.as_mut().and_then(|rotation| rotation.pending.as_mut()) {
            pending.step = Step::Set;
        }
        Ok(trouble)
    }

    /// Gives up the rotation under way, before its version is current: the version stays, and no stage points to it.
    ///
    /// # Errors
    /// `InvalidParameter` where there is none of that version.
    pub(super) fn give_up_rotation(&mut self, version: &SecretVersionId, now: Timestamp) -> Result<()> {
        let pending = VersionStage::pending();
        if self.at(&pending).is_none_or(|holder| holder.id != *version) {
            let why = "VersionStage does not point to RemoveFromVersion";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        self.unpoint(&pending);
        if let Some(rotation) = &mut self.rotation {
            (rotation.pending, rotation.trouble) = (None, None);
            // By its time it would be begun at once again.
            rotation.next_at = rotation.interval.map(|interval| next_rotation(now, interval, 0));
        }
        self.updated_at = now;
        Ok(())
    }

    /// Checks that no stage is given by hand to the version of the rotation under way, nor ours to any.
    ///
    /// # Errors
    /// `InvalidParameter`, `StateConflict`.
    pub(super) fn check_by_hand(&self, stage: &VersionStage, to: &SecretVersionId) -> Result<()> {
        if stage.as_str() == PENDING {
            let why = "ACSPending is the stage of rotations: it is taken away by hand, and not given";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        match self.at(&VersionStage::pending()) {
            Some(holder) if holder.id == *to => {
                let why = "a rotation to the version is under way: it is current once it was tested";
                Err(Error::new(ErrorKind::StateConflict, why))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a step is the next of the rotation under way to a version.
    ///
    /// # Errors
    /// `Conflict` where it has moved on, or was given up.
    pub fn check_step(&self, version: &SecretVersionId, step: Step) -> Result<()> {
        let pending = self.rotation.as_ref().and_then(|rotation| rotation.pending.as_ref());
        match pending {
            Some(pending) if pending.version == *version && pending.step == step => Ok(()),
            _ => Err(moved_on()),
        }
    }

    fn promote(&mut self, version: &SecretVersionId, now: Timestamp) -> Result<Left> {
        let id = |stage: &VersionStage| self.at(stage).map(|version| version.id.clone());
        let previous = id(&VersionStage::previous());
        let current = id(&VersionStage::current());
        let current = current.ok_or_else(|| Error::internal("a secret has no current version"))?;
        self.unpoint(&VersionStage::pending());
        self.point(&VersionStage::current(), version);
        self.updated_at = now;
        Ok(Left { current, previous })
    }

    /// Returns what is told of its rotation, where it has a rotator; whether the configuration still has that, is the caller's to know.
    pub fn rotation_told(&self, is_configured: bool) -> Option<RotationTold> {
        let rotation = self.rotation.as_ref()?;
        let automatic = match (rotation.interval, is_configured) {
            (None, _) => AutomaticRotation::Disabled,
            (Some(_), true) => AutomaticRotation::Enabled,
            (Some(_), false) => AutomaticRotation::Invalid,
        };
        Some(RotationTold {
            automatic,
            interval: rotation.interval,
            next_at: rotation.next_at,
            last_at: rotation.last_at,
            extended: super::extended::text(self.secret_type, &rotation.rotator, &rotation.settings),
        })
    }
}

impl VersionStage {
    /// Returns `ACSPending`, which points to the version of a rotation under way.
    pub fn pending() -> Self {
        PENDING.parse().expect("it is a stage")
    }
}

/// Tells that a secret is not rotated.
pub fn no_rotator() -> Error {
    let why = "the secret has no rotator: its ExtendedConfig names one when it is made";
    Error::new(ErrorKind::Unsupported, why)
}

/// Tells whether it was in the hour before; what a clock had set that was ahead was not.
fn is_within_the_hour(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at) < HOUR
}

fn moved_on() -> Error {
    Error::new(ErrorKind::Conflict, "the rotation has gone on meanwhile")
}

#[cfg(test)]
#[path = "rotation/tests.rs"]
mod tests;
