//! The heads of the audit chains of earlier processes. While a process lives the store keeps its heads; the next management chain
//! names them in its `open` line, and the store forgets them: management chains bind all chains before them, as links do.

use std::collections::{BTreeSet, HashSet};

use keymill_core::seam::audit::{AuditError, AuditLog};
use keymill_core::seam::store::{Path, Revision};
use keymill_crypto::audit::{ChainHead, ChainVerifier, Heads};

use crate::audit::MANAGEMENT;

/// Heads that one `open` line names, at most: a line of them is a seventh of what the audit files read as a line.
pub(crate) const MAX_NAMED: usize = 4_096;

/// A head as it stands in the store.
pub(crate) struct StoredHead {
    pub(crate) path: Path,
    pub(crate) revision: Revision,
    pub(crate) head: ChainHead,
}

/// Tells whether a chain is one that names those of earlier processes.
pub(crate) fn is_management(chain: &str) -> bool {
    chain.ends_with(MANAGEMENT)
}

/// Returns those of the chains that name those of earlier processes.
pub(crate) fn management(chains: &[String]) -> impl Iterator<Item = &String> {
    chains.iter().filter(|chain| is_management(chain))
}

/// Returns those of the chains that name at most the one before them.
pub(crate) fn data(chains: &[String]) -> impl Iterator<Item = &String> {
    chains.iter().filter(|chain| !is_management(chain))
}

/// Reads the heads that these chains name in their first lines, where those verify. To be learned before any chain is checked: a clock
/// set back puts names out of the order of age, so that no order of checking has every head in time.
///
/// # Errors
/// [`AuditError`] where a chain cannot be read.
pub fn named<'c>(
    log: &dyn AuditLog,
    chains: impl IntoIterator<Item = &'c String>,
    verifier: impl Fn(&str) -> ChainVerifier,
) -> Result<Vec<ChainHead>, AuditError> {
    let mut heads = Vec::new();
    for chain in chains {
        let mut verifier = verifier(chain);
        log.read(chain, &mut |line| {
            verifier.line(line.bytes, line.torn);
            false
        })?;
        heads.append(&mut verifier.report().previous);
    }
    Ok(heads)
}

/// Names the management chains that must have been: each process opens its own before any other, so that chains of a process without one
/// show that it was taken away, also where no head tells.
pub fn opened_first(chains: &[String]) -> BTreeSet<String> {
    let process = |chain: &String| {
        let mut dashes = chain.match_indices('-').map(|(at, _)| at);
        let (end, number) = (dashes.nth(1)?, dashes.next()?);
        chain[end + 1..number].bytes().all(|c| c.is_ascii_digit()).then(|| chain[..end].to_owned())
    };
    chains.iter().filter_map(process).map(|process| format!("{process}-000-{MANAGEMENT}")).collect()
}

/// Names the chains that were and are not `present`, but for those whose removal is recorded: `retired` has their ends.
pub fn gone(known: &Heads, present: &[String], retired: &Heads) -> BTreeSet<String> {
    let there: HashSet<&String> = present.iter().collect();
    let was = known.iter().filter(|head| !retired.accounts_for(head)).map(|head| head.chain.clone());
    was.chain(opened_first(present)).filter(|chain| !there.contains(chain)).collect()
}

/// Chooses what the next management chain names: what is known and not `named` as far by an earlier one, up to `limit`. The rest
/// stays in the store for the start after.
pub(crate) fn to_name(known: &Heads, named: &Heads, limit: usize) -> Vec<ChainHead> {
    let unnamed = known.iter().filter(|head| head.sequence > 0 && !named.covers(head));
    unnamed.take(limit).cloned().collect()
}

/// Chooses what the store need not keep: what is `named` as far or farther.
pub(crate) fn to_forget(stored: Vec<StoredHead>, named: &Heads) -> Vec<(Path, Revision)> {
    let named = stored.into_iter().filter(|stored| named.covers(&stored.head));
    named.map(|stored| (stored.path, stored.revision)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records;

    fn head(chain: &str, sequence: u64) -> ChainHead {
        ChainHead { chain: chain.into(), sequence, mac: [sequence as u8; 16] }
    }

    fn heads<const N: usize>(heads: [(&str, u64); N]) -> Heads {
        let mut known = Heads::default();
        known.learn(heads.map(|(chain, sequence)| head(chain, sequence)));
        known
    }

    fn stored(chain: &str, sequence: u64) -> StoredHead {
        let path = records::audit_head_path(None, chain);
        StoredHead { path, revision: Revision(sequence), head: head(chain, sequence) }
    }

    fn forgotten(stored: Vec<StoredHead>, named: &Heads) -> Vec<String> {
        to_forget(stored, named).into_iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn chains_of_a_process_tell_that_its_management_chain_was() {
        let chains = [
            "20261124T053017.042Z-a3f91c02-003-in-process",
            "20261124T053018.000Z-a3f91c03-000-management",
            "other",
        ];
        assert_eq!(
            opened_first(&chains.map(str::to_owned)).into_iter().collect::<Vec<_>>(),
            ["20261124T053017.042Z-a3f91c02-000-management", "20261124T053018.000Z-a3f91c03-000-management"]
        );
    }

    #[test]
    fn what_is_gone_is_named_unless_its_removal_is_recorded_at_its_end() {
        let known = heads([("a", 3), ("b", 3), ("c", 3), ("d", 3), ("e", 3)]);
        let present = ["e".to_owned(), "p-q-001-data".to_owned()];
        let mut retired = heads([("a", 3), ("b", 2), ("c", 9)]);
        retired.learn([ChainHead { mac: [8; 16], ..head("d", 3) }]);
        let gone: Vec<_> = gone(&known, &present, &retired).into_iter().collect();
        assert_eq!(gone, ["b", "d", "p-q-000-management"]);
    }

    #[test]
    fn only_what_no_chain_names_as_far_is_named() {
        let known = heads([("a", 3), ("b", 3), ("c", 3), ("d", 0)]);
        let named = heads([("a", 3), ("b", 2)]);
        assert_eq!(to_name(&known, &named, 9), [head("b", 3), head("c", 3)]);
        assert_eq!(to_name(&known, &known, 9), []);
    }

    #[test]
    fn what_does_not_fit_a_line_stays_in_the_store_for_the_next_start() {
        let chains: Vec<String> = (0..10).map(|n| format!("chain-{n}")).collect();
        let rows = || chains.iter().map(|chain| stored(chain, 5)).collect::<Vec<_>>();
        let (mut known, mut named) = (Heads::default(), Heads::default());
        known.learn(rows().into_iter().map(|row| row.head));
        for count in [4, 4, 2, 0] {
            let line = to_name(&known, &named, 4);
            assert_eq!(line.len(), count);
            named.learn(line);
            assert_eq!(forgotten(rows(), &named).len(), named.iter().count());
        }
        assert_eq!(named.iter().count(), chains.len());
    }

    #[test]
    fn a_row_goes_once_it_is_named_as_far_also_where_an_older_one_was_put_back() {
        let named = heads([("a", 7), ("b", 7)]);
        let rows = vec![stored("a", 7), stored("b", 8), stored("c", 1)];
        assert_eq!(forgotten(rows, &named), ["audit-head/a"]);
        assert_eq!(forgotten(vec![stored("a", 2)], &named), ["audit-head/a"]);
    }
}
