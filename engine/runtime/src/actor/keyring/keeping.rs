//! How keys are kept: tags, rotation by policy, protection against deletion, who may do what with them. What a change makes of a key is a pure rule.

use std::sync::Arc;

use actix::{Context, Handler, Message};
use keymill_core::access::KeyPolicy;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::CmkId;
use keymill_core::key::{Cmk, KeyState, Origin, RotationInterval, RotationPolicy, check_tags};
use keymill_core::time::Timestamp;

use super::KeyringActor;
use crate::actor::Changed;

/// Changes how keys are kept, of all or none.
pub(crate) struct KeepKeys {
    pub(crate) ids: Vec<CmkId>,
    pub(crate) change: Keeping,
}

/// A change of how a key is kept.
#[derive(Clone, Debug)]
pub(crate) enum Keeping {
    /// Puts tags on it; those of the same name are replaced.
    Tag(Vec<(String, String)>),
    /// Takes tags off.
    Untag(Vec<String>),
    /// Takes every tag off.
    UntagAll,
    /// Has it rotated so often, or no longer.
    Rotate(Option<RotationInterval>),
    /// Protects it against deletion, for a reason, or no longer.
    Protect(Option<String>),
    /// Gives it another policy, in any state: rights can always be taken away.
    Policy(KeyPolicy),
}

impl Message for KeepKeys {
    type Result = Result<Changed<()>>;
}

impl Keeping {
    /// Returns what becomes of a key.
    ///
    /// # Errors
    /// `KeyPendingDeletion` and the like where its state does not allow it; `LimitExceeded` for too many tags; `Unsupported` where it cannot be
    /// rotated.
    fn apply(&self, mut cmk: Cmk, now: Timestamp) -> Result<Cmk> {
        match self {
            Keeping::Rotate(_) => cmk.state.check_usable()?,
            Keeping::Policy(_) => {}
            _ if cmk.state == KeyState::PendingDeletion => cmk.state.check_usable()?,
            _ => {}
        }
        match self {
            Keeping::Tag(tags) => {
                cmk.tags.extend(tags.iter().cloned());
                check_tags(&cmk.tags)?;
            }
            Keeping::Untag(names) => names.iter().for_each(|name| drop(cmk.tags.remove(name))),
            Keeping::UntagAll => cmk.tags.clear(),
            Keeping::Rotate(None) => cmk.rotation = None,
            Keeping::Rotate(Some(interval)) => cmk.rotation = Some(policy(&cmk, *interval, now)?),
            Keeping::Protect(protection) => cmk.deletion_protection = protection.as_deref().map(Box::from),
            Keeping::Policy(policy) => cmk.policy = Some(policy.clone()),
        }
        Ok(cmk)
    }
}

/// Makes the policy by which a key is rotated: an interval after its last version, at once where that is over.
///
/// # Errors
/// `Unsupported` for a key that has no versions of its own making.
pub(crate) fn policy(cmk: &Cmk, interval: RotationInterval, now: Timestamp) -> Result<RotationPolicy> {
    if cmk.algorithm().is_none() || cmk.origin != Origin::AliyunKms {
        let why = "only a symmetric key whose material is generated here is rotated by itself";
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    let last = cmk.primary().created_at;
    // A clock that was ahead when the version was made does not put it off.
    let last = if last > now { now } else { last };
    Ok(RotationPolicy { interval, next_at: last.plus(interval.duration()) })
}

impl Handler<KeepKeys> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: KeepKeys, _: &mut Context<Self>) -> Self::Result {
        let now = self.shared.clock.now();
        let befores = message.ids.iter().map(|id| self.entry(id)).collect::<Result<Vec<Arc<_>>>>()?;
        let mut changes = Vec::with_capacity(befores.len());
        for before in &befores {
            let cmk = message.change.apply(before.cmk.clone(), now)?;
            changes.push((&**before, cmk));
        }
        let Changed { keys, writes, .. } = self.change_all(changes)?;
        Ok(Changed { value: (), keys, writes })
    }
}
