//! Sets of operations, a bit each: what a role or a policy speaks of is looked up without a search.

use super::Role;
use crate::operation::Operation;

const WORDS: usize = 4;
const _: () = assert!(Operation::ALL.len() <= WORDS * u64::BITS as usize, "an operation is a bit");

/// A set of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OperationSet([u64; WORDS]);

impl OperationSet {
    /// Returns what any of the roles covers.
    pub(super) fn of_roles(roles: &[Role]) -> Self {
        let mut set = Self::default();
        for operation in Operation::ALL {
            if roles.iter().any(|role| role.covers(operation)) {
                set.add(operation);
            }
        }
        set
    }

    pub(super) fn has(self, operation: Operation) -> bool {
        let at = operation as usize;
        self.0[at / 64] >> (at % 64) & 1 != 0
    }

    pub(super) fn add(&mut self, operation: Operation) {
        let at = operation as usize;
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Adds what belongs to every role.
    pub(super) fn with_what_is_told_to_all(mut self) -> Self {
        Operation::ALL
            .into_iter()
            .filter(|operation| Role::is_told_to_all(*operation))
            .for_each(|o| self.add(o));
        self
    }

    /// Returns what is in both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own &= other);
        self
    }

    /// Returns what is in either.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
        self
    }

    /// Tells whether all of it is in another.
    pub(super) fn is_subset_of(self, other: Self) -> bool {
        self.and(other) == self
    }

    /// Adds what an action names: `kms:` and the name of an operation of those that are spoken of (of `what` they
    /// are rights to), or the beginning of names and `*`.
    ///
    /// # Errors
    /// Says in words why it names none.
    pub(super) fn add_action(
        &mut self,
        action: &str,
        spoken_of: fn(Operation) -> bool,
        what: &str,
    ) -> Result<(), String> {
        let known = Operation::ALL.into_iter().filter(|operation| spoken_of(*operation));
        let name = match (action, action.strip_prefix("kms:")) {
            ("*", _) => "*",
            (_, Some(name)) => name,
            (_, None) => return Err(format!("action {:?} does not begin with kms:", clip(action))),
        };
        let before = *self;
        match name.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => {
                known.filter(|operation| operation.name().starts_with(prefix)).for_each(|o| self.add(o));
            }
            _ => known.filter(|operation| operation.name() == name).for_each(|o| self.add(o)),
        }
        // Whoever may not do one may not do many.
        for operation in Operation::ALL {
            if let Some(batch) = operation.batch_form().filter(|_| self.has(operation)) {
                self.add(batch);
            }
        }
        match *self == before {
            false => Ok(()),
            true if before.names(name) => Ok(()),
            true => Err(match Operation::by_name(name) {
                Some(_) => format!("action {action} is not decided on a {what}"),
                None => format!("action {:?} names no operation; case matters", clip(action)),
            }),
        }
    }

    /// Tells whether an action of that name is in the set already.
    fn names(self, name: &str) -> bool {
        let prefix = name.strip_suffix('*');
        Operation::ALL.into_iter().any(|operation| {
            let is_named =
                prefix.map_or(operation.name() == name, |prefix| operation.name().starts_with(prefix));
            is_named && self.has(operation)
        })
    }
}

/// Shortens what is shown of a caller's text.
pub(super) fn clip(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added_and_nothing_else() {
        for one in Operation::ALL {
            let mut set = OperationSet::default();
            set.add(one);
            for other in Operation::ALL {
                assert_eq!(set.has(other), one == other, "{one:?} {other:?}");
            }
        }
        for role in Role::ALL {
            let set = OperationSet::of_roles(&[role]);
            assert!(Operation::ALL.iter().all(|operation| set.has(*operation) == role.covers(*operation)));
        }
    }
}
