//! The threads that make software keys: they take jobs on the life of keys from their lane.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::Caller;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::key::{
    BulkMode, Fallback, KeyCheck, KeySpec, KeyUsage, ProtectionLevel, WrappingAlgorithm,
};
use keymill_core::seam::provider::{
    Adopt, KeyCustody, KeyMaterial, ProviderError, StoredKey, TokenObject, Unwrapped, WrappedImport,
};
use tokio::sync::oneshot;

use super::Wrapped;
use crate::lane::Lane;
use crate::ready::{Divisible, Part};
use crate::shared::Shared;
use crate::work::Served;

/// What a key is to be like whose material is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) spec: KeySpec,
    pub(crate) usage: KeyUsage,
    pub(crate) protection: ProtectionLevel,
    /// Of a symmetric key in a token.
    pub(crate) bulk_mode: Option<BulkMode>,
    pub(crate) fallback: Fallback,
    /// Whether it is to stay in the token that makes it.
    pub(crate) stays: bool,
}

/// Work on the life of a key.
pub(crate) struct CustodyJob {
    task: Task,
    /// The berth of the token that it is for, where it is for one alone.
    pub(crate) berth: Option<usize>,
    pub(crate) deadline: Instant,
    pub(crate) principal: Caller,
    /// Sessions that could not do it.
    pub(crate) attempts: u32,
    /// Whose hands it is in.
    pub(crate) by: Served,
}

enum Task {
    Make {
        wanted: Wanted,
        /// For a key that may fall back to software: the material, made there, which a token is to take in.
        copy: Option<StoredKey>,
        reply: oneshot::Sender<Result<Made>>,
    },
    Adopt {
        wanted: Adopt,
        reply: oneshot::Sender<Result<Made>>,
    },
    Import {
        wrapped: Wrapped,
        spec: KeySpec,
        usage: KeyUsage,
        reply: oneshot::Sender<Result<Made>>,
    },
    /// Makes a pair in a token, which material is to be wrapped by.
    MakeWrapping {
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
        reply: oneshot::Sender<Result<Made>>,
    },
    ImportWrapped {
        import: Box<WrappedImport>,
        reply: oneshot::Sender<Result<Made>>,
    },
    Destroy {
        key: StoredKey,
        /// Whether it wrapped material.
        is_wrapping: bool,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// What came of a job.
pub(crate) enum Done {
    Key(StoredKey),
    Unwrapped(Unwrapped),
    Destroyed,
}

/// Key material as it was made.
pub(crate) struct Made {
    pub(crate) key: StoredKey,
    /// The same in software, of a key in a token that may fall back to it.
    pub(crate) copy: Option<StoredKey>,
    /// What it is known by, where it was imported into a token.
    pub(crate) check: Option<KeyCheck>,
    /// Who made it.
    pub(crate) by: Served,
}

impl Made {
    /// Says what is left in a token of a key that was made there to stay, and was not stored: only an operator may destroy it, for the
    /// store may have kept it all the same.
    pub(crate) fn log_left_behind(object: Option<&TokenObject>) {
        if let Some(TokenObject { serial, label, .. }) = object.filter(|object| !object.adopted) {
            tracing::warn!(
                token_serial = serial,
                label,
                "a key was made in the token and may not have been stored: where no CMK uses it, it can be destroyed"
            );
        }
    }
}

impl CustodyJob {
    /// Puts the making of a key together; the material of one that may fall back to software is made on the spot. One that is to stay
    /// in its token is made by the one at `berth`, or by any.
    ///
    /// # Errors
    /// What the software provider says of that.
    pub(crate) fn make(
        shared: &Shared,
        wanted: Wanted,
        berth: Option<usize>,
        deadline: Instant,
        principal: Caller,
    ) -> Result<(Self, oneshot::Receiver<Result<Made>>)> {
        let copy = match wanted.protection == ProtectionLevel::Software || wanted.fallback.is_never() {
            true => None,
            false => Some(shared.custody.lock().generate(wanted.spec, wanted.usage, None)?),
        };
        let (reply, made) = oneshot::channel();
        let task = Task::Make { wanted, copy, reply };
        Ok((Self { task, berth, deadline, principal, attempts: 0, by: Served::default() }, made))
    }

    /// Puts the taking over of a key together that the token at `berth` holds.
    pub(crate) fn adopt(
        wanted: Adopt,
        berth: usize,
        deadline: Instant,
        principal: Caller,
    ) -> (Self, oneshot::Receiver<Result<Made>>) {
        let (reply, made) = oneshot::channel();
        let task = Task::Adopt { wanted, reply };
        (Self { task, berth: Some(berth), deadline, principal, attempts: 0, by: Served::default() }, made)
    }

    /// Puts the import of material together that comes wrapped.
    pub(crate) fn import(
        wrapped: Wrapped,
        spec: KeySpec,
        usage: KeyUsage,
        deadline: Instant,
        principal: Caller,
    ) -> (Self, oneshot::Receiver<Result<Made>>) {
        let (reply, made) = oneshot::channel();
        let task = Task::Import { wrapped, spec, usage, reply };
        (Self { task, berth: None, deadline, principal, attempts: 0, by: Served::default() }, made)
    }

    /// Puts the making of a wrapping key together in the token at `berth`.
    pub(crate) fn make_wrapping(
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
        berth: usize,
        deadline: Instant,
        principal: Caller,
    ) -> (Self, oneshot::Receiver<Result<Made>>) {
        let (reply, made) = oneshot::channel();
        let task = Task::MakeWrapping { spec, algorithm, reply };
        (Self { task, berth: Some(berth), deadline, principal, attempts: 0, by: Served::default() }, made)
    }

    /// Puts the import of material together that the token at `berth` unwraps.
    pub(crate) fn import_wrapped(
        import: WrappedImport,
        berth: usize,
        deadline: Instant,
        principal: Caller,
    ) -> (Self, oneshot::Receiver<Result<Made>>) {
        let (reply, made) = oneshot::channel();
        let task = Task::ImportWrapped { import: Box::new(import), reply };
        (Self { task, berth: Some(berth), deadline, principal, attempts: 0, by: Served::default() }, made)
    }

    /// Puts the destruction of a wrapping key together that is used up, in the token at `berth`.
    pub(crate) fn destroy_wrapping(
        key: StoredKey,
        berth: usize,
        deadline: Instant,
        principal: Caller,
    ) -> (Self, oneshot::Receiver<Result<()>>) {
        let (reply, destroyed) = oneshot::channel();
        let task = Task::Destroy { key, is_wrapping: true, reply };
        (
            Self { task, berth: Some(berth), deadline, principal, attempts: 0, by: Served::default() },
            destroyed,
        )
    }

    /// Puts the destruction of a key together that stays in the token at `berth`.
    pub(crate) fn destroy(
        key: StoredKey,
        berth: Option<usize>,
        deadline: Instant,
        principal: Caller,
    ) -> (Self, oneshot::Receiver<Result<()>>) {
        let (reply, destroyed) = oneshot::channel();
        let task = Task::Destroy { key, is_wrapping: false, reply };
        (Self { task, berth, deadline, principal, attempts: 0, by: Served::default() }, destroyed)
    }

    /// Does it.
    ///
    /// # Errors
    /// What the provider says.
    pub(crate) fn carry_out(&self, custody: &mut dyn KeyCustody) -> Result<Done, ProviderError> {
        let key = match &self.task {
            Task::Make { wanted: Wanted { spec, usage, bulk_mode, stays, .. }, copy, .. } => match copy {
                None if *stays => custody.generate_to_stay(*spec, *usage, *bulk_mode),
                None => custody.generate(*spec, *usage, *bulk_mode),
                Some(StoredKey { material: KeyMaterial::Clear(material), .. }) => {
                    custody.import(*spec, *usage, *bulk_mode, material)
                }
                Some(_) => Err(ProviderError::Rejected("a software copy is material in clear".into())),
            },
            Task::Adopt { wanted, .. } => custody.adopt(wanted),
            Task::Import { wrapped, spec, usage, .. } => {
                wrapped.open().and_then(|material| custody.import(*spec, *usage, None, &material))
            }
            Task::MakeWrapping { spec, algorithm, .. } => custody.generate_wrapping_key(*spec, *algorithm),
            Task::ImportWrapped { import, .. } => {
                return custody.import_wrapped(import).map(Done::Unwrapped);
            }
            Task::Destroy { key, is_wrapping, .. } => {
                let destroyed = match is_wrapping {
                    true => custody.destroy_wrapping_key(key),
                    false => custody.destroy(key),
                };
                return destroyed.map(|()| Done::Destroyed);
            }
        };
        key.map(Done::Key)
    }

    /// Tells whether the key that it makes stays in the token that makes it.
    pub(crate) fn stays(&self) -> bool {
        matches!(&self.task, Task::Make { wanted: Wanted { stays: true, .. }, .. } | Task::Adopt { .. })
    }

    /// Tells whether nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.task {
            Task::Make { reply, .. }
            | Task::Adopt { reply, .. }
            | Task::Import { reply, .. }
            | Task::MakeWrapping { reply, .. }
            | Task::ImportWrapped { reply, .. } => reply.is_closed(),
            Task::Destroy { reply, .. } => reply.is_closed(),
        }
    }

    /// Answers it.
    pub(crate) fn answer(self, done: Result<Done>) {
        let by = self.by;
        let (reply, copy) = match self.task {
            Task::Make { reply, copy, .. } => (reply, copy),
            Task::Adopt { reply, .. }
            | Task::Import { reply, .. }
            | Task::MakeWrapping { reply, .. }
            | Task::ImportWrapped { reply, .. } => (reply, None),
            Task::Destroy { reply, .. } => {
                let _gone = reply.send(done.map(drop));
                return;
            }
        };
        let made = done.and_then(|done| match done {
            Done::Key(key) => Ok(Made { key, copy, check: None, by }),
            Done::Unwrapped(Unwrapped { key, check }) => Ok(Made { key, copy, check: Some(check), by }),
            Done::Destroyed => Err(Error::internal("a key was destroyed that was to be made")),
        });
        if let Err(Ok(unwanted)) = reply.send(made) {
            Made::log_left_behind(unwanted.key.token_object());
        }
    }
}

impl Divisible for CustodyJob {
    fn part(&self, _budget: u64) -> Part {
        Part { items: 1, cost: 1, last: true }
    }
}

/// A worker that makes software keys, on a thread of its own and in a custody of its own: to generate a key pair takes seconds, and keys
/// must load meanwhile.
pub(crate) struct CustodyActor {
    custody: Box<dyn KeyCustody>,
    lane: Arc<Lane<Caller, CustodyJob>>,
}

impl CustodyActor {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        lane: &Arc<Lane<Caller, CustodyJob>>,
        number: usize,
    ) -> Result<std::thread::JoinHandle<()>, String> {
        let custody = shared.provider.custody().map_err(|error| error.to_string())?;
        let actor = Self { custody, lane: lane.clone() };
        lane.join(0);
        let builder = std::thread::Builder::new().name(format!("km-custody-{number}"));
        builder.spawn(move || actor.run()).map_err(|error| error.to_string())
    }

    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            self.lane.take(&mut batch);
            if batch.is_empty() {
                self.lane.leave(0);
                return;
            }
            for mut job in batch.drain(..) {
                job.by = Served::SOFTWARE;
                // Expired and abandoned jobs are dropped before they reach the provider.
                if job.is_abandoned() {
                    continue;
                }
                let outcome = if Instant::now() >= job.deadline {
                    Err(Error::new(ErrorKind::Deadline, "not done within the time allowed"))
                } else {
                    // What is imported comes from outside: a library that panics over it takes neither the thread with it nor the lane.
                    let carried = catch_unwind(AssertUnwindSafe(|| job.carry_out(&mut *self.custody)));
                    carried.map_or_else(
                        |_panic| Err(Error::internal("the crypto library panicked")),
                        |carried| carried.map_err(Error::from),
                    )
                };
                job.answer(outcome);
            }
        }
    }
}
