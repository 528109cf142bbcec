//! What other nodes wrote of who may do what.

use std::sync::Arc;

use keymill_core::access::{AccessSnapshot, Edit};
use keymill_core::audit::RecordStamp;
use keymill_core::id::AccessKeyId;

use super::PolicyActor;
use crate::actor::follow::{Follows, catches_up};
use crate::cluster::{Owner, Written};
use crate::scan::What;

catches_up!(PolicyActor);

/// What becomes of the snapshot.
type Change = Box<dyn FnOnce(&mut AccessSnapshot)>;

fn edit<T>(record: T, make: impl FnOnce(T) -> Edit + 'static) -> Change
where
    T: 'static,
{
    Box::new(|access| access.apply(make(record)))
}

/// Returns what a record comes to, with its sequence number; why it cannot be used, else.
fn change_of(path: &str, what: What) -> Result<(Change, u64), String> {
    fn of<T: 'static>(
        opened: Result<(T, u64), String>,
        make: impl FnOnce(T) -> Edit + 'static,
    ) -> Result<(Change, u64), String> {
        opened.map(|(record, sequence)| (edit(record, make), sequence))
    }
    match what {
        What::AccessKey(opened) => opened.map(|(key, sequence)| {
            let change: Change = Box::new(|access| {
                access.access_keys.insert(key.id.clone(), Arc::new(key));
            });
            (change, sequence)
        }),
        What::Aap(opened) => of(opened, Edit::PutAap),
        What::ClientKey(opened) => of(opened, Edit::PutClientKey),
        What::Policy(opened) => of(opened, Edit::PutPolicy),
        What::NetworkRule(opened) => of(opened, Edit::PutNetworkRule),
        What::Role(opened) => of(opened, Edit::PutRole),
        What::Approval(opened) => of(opened, Edit::PutApproval),
        What::Ended(opened) => {
            let (_, sequence) = opened?;
            removal_of(path).map(|change| (change, sequence)).ok_or_else(|| "nobody's record".to_owned())
        }
        _ => Err("it is of no kind that stands there".to_owned()),
    }
}

/// Returns what the end of the record at a path comes to.
fn removal_of(path: &str) -> Option<Change> {
    let (kind, id) = path.split_once('/')?;
    let name = || id.strip_prefix('n');
    Some(match kind {
        "access-key" => {
            let id: AccessKeyId = id.strip_prefix('k')?.parse().ok()?;
            Box::new(move |access| drop(access.access_keys.remove(&id)))
        }
        "aap" => edit(name()?.parse().ok()?, Edit::RemoveAap),
        "client-key" => edit(id.parse().ok()?, Edit::RemoveClientKey),
        "policy" => edit(name()?.parse().ok()?, Edit::RemovePolicy),
        "network-rule" => edit(name()?.parse().ok()?, Edit::RemoveNetworkRule),
        "role" => edit(name()?.parse().ok()?, Edit::RemoveRole),
        "approval" => edit(id.parse().ok()?, Edit::RemoveApproval),
        _ => return None,
    })
}

impl Follows for PolicyActor {
    const OWNER: Owner = Owner::Policy;

    fn follow(&mut self, commit: Vec<Written>) -> Vec<RecordStamp> {
        let (taken, changes) = self.ledger.follow(commit, change_of);
        if !changes.is_empty() {
            self.publish(|access| changes.into_iter().for_each(|change| change(access)));
        }
        taken
    }
}
