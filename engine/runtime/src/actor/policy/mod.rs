//! The policy actor: owns access keys with what they grant, and access points with theirs, and publishes the snapshot that every decision
//! reads. What a change comes to is decided by pure rules; here it is committed, and then published.

mod aap;
mod access_key;

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use keymill_core::access::AccessSnapshot;
use keymill_core::audit::RecordStamp;
use keymill_core::error::{Error, Result};
use keymill_core::seam::store::{Path, Write};
use keymill_crypto::digest;
use serde::Serialize;

pub(crate) use aap::ChangeAccess;
pub(crate) use access_key::{AddAccessKey, ChangeAccessKey, RemoveAccessKey, fresh_access_key};

use super::signed::{Claims, Signed};
use super::{Changed, MAILBOX};
use crate::keyring::Stamp;
use crate::nonces::Claim;
use crate::records::{self, Kind};
use crate::shared::Shared;

/// Owns who may do what.
pub struct PolicyActor {
    shared: Arc<Shared>,
    /// Of each record, by its path.
    stamps: HashMap<String, Stamp>,
    /// The sequence numbers with which records ended.
    ended: HashMap<String, u64>,
    /// What the signed request claims whose message is handled.
    claim: Option<Arc<Claim>>,
}

/// A write of one record: what is committed, and what is remembered of it.
struct Pending {
    write: Write,
    stamp: RecordStamp,
}

impl PolicyActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<String, Stamp>,
        ended: HashMap<String, u64>,
    ) -> Self {
        Self { shared, stamps, ended, claim: None }
    }

    /// Seals a record for its path.
    fn put<T: Serialize>(&self, path: Path, kind: Kind, record: &T) -> Result<Pending> {
        let before = self.stamps.get(path.as_str()).copied();
        let last = before.map(|stamp| stamp.sequence).or_else(|| self.ended.get(path.as_str()).copied());
        let sequence = last.unwrap_or(0) + 1;
        let sealed = records::seal(&self.shared.sealer, &path, kind, sequence, record)?;
        let stamp = RecordStamp { path: path.to_string(), sequence, tag: digest::hex(&sealed.tag) };
        let write = Write { path, expected: before.map(|stamp| stamp.revision), value: Some(sealed.bytes) };
        Ok(Pending { write, stamp })
    }

    /// Removes the record at a path.
    fn remove(&self, path: Path) -> Result<Pending> {
        let before = self.stamps.get(path.as_str()).copied();
        let before = before.ok_or_else(|| Error::internal(format!("{path} has no stamp")))?;
        let stamp = RecordStamp { path: path.to_string(), sequence: before.sequence + 1, tag: String::new() };
        let write = Write { path, expected: Some(before.revision), value: None };
        Ok(Pending { write, stamp })
    }

    /// Commits writes, all or none, and publishes what they make of the snapshot.
    fn commit(
        &mut self,
        pending: Vec<Pending>,
        change: impl FnOnce(&mut AccessSnapshot),
    ) -> Result<Changed<()>> {
        let (writes, stamps): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|Pending { write, stamp }| (write, stamp)).unzip();
        let revision = self.shared.commit(self.claim.as_deref(), writes)?;
        for RecordStamp { path, sequence, tag } in &stamps {
            match tag.is_empty() {
                true => {
                    self.stamps.remove(path);
                    self.ended.insert(path.clone(), *sequence);
                }
                false => drop(self.stamps.insert(path.clone(), Stamp { revision, sequence: *sequence })),
            }
        }
        let mut next = AccessSnapshot::clone(&self.shared.access.read());
        change(&mut next);
        self.shared.access.publish(next);
        self.shared.access_version.fetch_add(1, std::sync::atomic::Ordering::Release);
        Ok(Changed { value: (), keys: Vec::new(), writes: stamps })
    }
}

impl Actor for PolicyActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Claims for PolicyActor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>> {
        &mut self.claim
    }
}

impl<T: 'static> Handler<Signed<Self, T>> for PolicyActor {
    type Result = Result<T>;

    fn handle(&mut self, signed: Signed<Self, T>, ctx: &mut Self::Context) -> Self::Result {
        signed.handle(self, ctx)
    }
}
