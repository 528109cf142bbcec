//! The software lane's workers: threads that take jobs on the life of keys (later also private-key work) from their lane.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::AccessKeyId;
use keymill_core::key::{BulkMode, Fallback, KeySpec, KeyUsage};
use keymill_core::seam::provider::{KeyCustody, KeyMaterial, ProviderError, StoredKey};
use tokio::sync::oneshot;

use crate::lane::Lane;
use crate::ready::{Divisible, Part};
use crate::shared::Shared;

/// What a key is to be like whose material is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) spec: KeySpec,
    pub(crate) usage: KeyUsage,
    /// Of a key in a token.
    pub(crate) bulk_mode: Option<BulkMode>,
    pub(crate) fallback: Fallback,
}

/// Key material to be made.
pub(crate) struct CustodyJob {
    wanted: Wanted,
    pub(crate) deadline: Instant,
    pub(crate) principal: Arc<AccessKeyId>,
    /// Sessions that could not do it.
    pub(crate) attempts: u32,
    /// For a key that may fall back to software: the material, made there, which a token is to take in.
    copy: Option<StoredKey>,
    reply: oneshot::Sender<Result<Made>>,
}

/// Key material as it was made.
pub(crate) struct Made {
    pub(crate) key: StoredKey,
    /// The same in software, of a key in a token that may fall back to it.
    pub(crate) copy: Option<StoredKey>,
}

impl CustodyJob {
    /// Puts a job together; the material of a key that may fall back to software is made on the spot.
    ///
    /// # Errors
    /// What the software provider says of that.
    pub(crate) fn new(
        shared: &Shared,
        wanted: Wanted,
        deadline: Instant,
        principal: Arc<AccessKeyId>,
    ) -> Result<(Self, oneshot::Receiver<Result<Made>>)> {
        let copy = match wanted.bulk_mode.is_none() || wanted.fallback.is_never() {
            true => None,
            false => Some(shared.custody.lock().generate(wanted.spec, wanted.usage, None)?),
        };
        let (reply, made) = oneshot::channel();
        Ok((Self { wanted, deadline, principal, attempts: 0, copy, reply }, made))
    }

    /// Does it: the material is made there, or taken in.
    ///
    /// # Errors
    /// What the provider says.
    pub(crate) fn make(&self, custody: &mut dyn KeyCustody) -> Result<StoredKey, ProviderError> {
        let Wanted { spec, usage, bulk_mode, .. } = self.wanted;
        match &self.copy {
            None => custody.generate(spec, usage, bulk_mode),
            Some(StoredKey { material: KeyMaterial::Clear(material), .. }) => {
                custody.import(spec, usage, bulk_mode, material)
            }
            Some(_) => Err(ProviderError::Rejected("a software copy is material in clear".into())),
        }
    }

    /// Tells whether nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers it.
    pub(crate) fn answer(self, made: Result<StoredKey>) {
        let _gone = self.reply.send(made.map(|key| Made { key, copy: self.copy }));
    }
}

impl Divisible for CustodyJob {
    fn part(&self, _budget: u64) -> Part {
        Part { items: 1, cost: 1, last: true }
    }
}

/// A worker of the software lane, on a thread of its own.
pub(crate) struct CustodyActor {
    shared: Arc<Shared>,
    lane: Arc<Lane<Arc<AccessKeyId>, CustodyJob>>,
}

impl CustodyActor {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        lane: &Arc<Lane<Arc<AccessKeyId>, CustodyJob>>,
        number: usize,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let actor = Self { shared: shared.clone(), lane: lane.clone() };
        lane.join();
        std::thread::Builder::new().name(format!("km-custody-{number}")).spawn(move || actor.run())
    }

    fn run(self) {
        let mut batch = Vec::new();
        loop {
            self.lane.take(&mut batch);
            if batch.is_empty() {
                self.lane.leave();
                return;
            }
            for job in batch.drain(..) {
                // Expired and abandoned jobs are dropped before they reach the provider.
                if job.is_abandoned() {
                    continue;
                }
                let outcome = if Instant::now() >= job.deadline {
                    Err(Error::new(ErrorKind::Deadline, "not done within the time allowed"))
                } else {
                    job.make(&mut **self.shared.custody.lock()).map_err(Error::from)
                };
                job.answer(outcome);
            }
        }
    }
}
