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
