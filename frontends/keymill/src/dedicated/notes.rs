//! What is noted of instances that did not start when that was tried last: why, which of their tokens refused, and whether that stays so until
//! somebody acts. A note holds for the terms that the try was made by.

use std::collections::HashMap;

use keymill_core::id::InstanceId;
use keymill_core::instance::{Instance, InstanceTerms};
use parking_lot::Mutex;

use crate::tokens::Refusals;

/// The notes, by instance.
#[derive(Default)]
pub(super) struct Notes(Mutex<HashMap<InstanceId, Note>>);

struct Note {
    terms: InstanceTerms,
    why: String,
    /// Whether it does not start until somebody has acted.
    stays: bool,
    refusals: Refusals,
}

impl Notes {
    /// Tells whether an instance does not start by these terms until somebody has acted.
    pub(super) fn stays(&self, instance: &Instance) -> bool {
        self.of(instance, |note| note.stays).unwrap_or(false)
    }

    /// Returns which of its tokens refused, by these terms.
    pub(super) fn refusals(&self, instance: &Instance) -> Refusals {
        self.of(instance, |note| note.refusals.clone()).unwrap_or_default()
    }

    fn of<T>(&self, instance: &Instance, look: impl Fn(&Note) -> T) -> Option<T> {
        let notes = self.0.lock();
        notes.get(&instance.id).filter(|note| note.terms == instance.terms).map(look)
    }

    /// Notes which of its tokens refused.
    pub(super) fn refused(&self, instance: &Instance, refusals: Refusals) {
        self.note(instance, |note| note.refusals = refusals);
    }

    /// Notes why an instance does not start, and whether that stays so; tells whether it is news.
    pub(super) fn failed(&self, instance: &Instance, why: &str, stays: bool) -> bool {
        self.note(instance, |note| {
            note.stays = stays;
            std::mem::replace(&mut note.why, why.to_owned()) != why
        })
    }

    fn note<T>(&self, instance: &Instance, change: impl FnOnce(&mut Note) -> T) -> T {
        let mut notes = self.0.lock();
        let fresh = || Note {
            terms: instance.terms.clone(),
            why: String::new(),
            stays: false,
            refusals: Refusals::new(),
        };
        let note = notes.entry(instance.id.clone()).or_insert_with(fresh);
        if note.terms != instance.terms {
            *note = fresh();
        }
        change(note)
    }

    /// Forgets what was noted of an instance.
    pub(super) fn forget(&self, id: &InstanceId) {
        self.0.lock().remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedicated::tests::instance;

    #[test]
    fn what_refused_is_not_tried_again_until_the_terms_are_others() {
        let (notes, first) = (Notes::default(), instance("kst-1"));
        let refusals = vec![(0, "its PIN was refused".to_owned())];
        notes.refused(&first, refusals.clone());
        assert!(
            notes.failed(&first, "no token", true) && !notes.failed(&first, "no token", true),
            "news once"
        );
        assert!(notes.stays(&first));
        // Whatever else becomes of it.
        let protected = Instance { protection: Some("production".into()), ..first.clone() };
        assert_eq!((notes.stays(&protected), notes.refusals(&protected)), (true, refusals));
        let more = InstanceTerms { keys: Some(5), ..InstanceTerms::default() };
        let other = Instance { terms: more, ..first.clone() };
        assert_eq!((notes.stays(&other), notes.refusals(&other)), (false, Refusals::new()));
        assert!(notes.failed(&other, "no token", false), "of these nothing was told");
        assert!(!notes.stays(&other) && !notes.stays(&first), "the last try counts");
        notes.failed(&other, "no token", true);
        notes.forget(&other.id);
        assert!(!notes.stays(&other));
    }
}
