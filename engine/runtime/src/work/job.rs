//! A job: one request as it waits for its turn and is done in parts.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_core::access::Rule;
use keymill_core::audit::{KeyTouch, SecretTouch};
use keymill_core::blob::Algorithm;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::{CertificateId, CmkId, DataKeyName, DataKeyVersionId, KeyVersionId};
use keymill_core::key::{Fallback, KeySpec, SignAlgorithm};
use keymill_core::limit;
use keymill_core::operation::{ItemError, Operation, Reply, SecretType};
use keymill_core::quota::Taken;
use keymill_core::secret::{RotationTold, SecretVersion};

use super::{
    ANSWER_BYTES, Export, ITEM_FRAMING_BYTES, KeySlot, MadePair, NamedSecrets, OpenTask, Sealing, Served,
    Sheet, Task,
};
use crate::gate::Call;
use crate::keyring::{CmkEntry, VersionEntry};
use crate::quota::OverQuota;
use crate::ready::{Divisible, Part};

/// A request that waits for its turn.
pub struct Job {
    pub(crate) call: Call,
    /// `None`: the operation is not one of ours.
    pub(crate) operation: Option<Operation>,
    pub(crate) deadline: Instant,
    pub(crate) rule: Option<Rule>,
    pub(crate) context_digest: Option<Box<str>>,
    pub(crate) task: Task,
    pub(crate) sheet: Sheet,
    /// Items done so far.
    pub(crate) next: usize,
    pub(crate) errors: Vec<ItemError>,
    /// The kind of the first failed item, which is the error of a single operation.
    pub(crate) first_fault: Option<Fault>,
    pub(crate) reply_to: Option<Arc<dyn ReplyTo>>,
    pub(crate) cancel: Cancel,
    /// Whatever the frontend wants back with the answer.
    pub(crate) ticket: u64,
    pub(crate) started: Option<Instant>,
    /// Under which number its desk keeps what it has under way in tokens.
    pub(crate) trip: Option<u64>,
    /// Whether it can do nothing until something of that comes back.
    pub(crate) waits: bool,
    /// Whether it is only tried.
    pub(crate) is_dry_run: bool,
    /// The second caller who approved it, where the installation has it wait for one.
    pub(crate) approved_by: Option<Arc<str>>,
    /// That it is over its quota, where it is: it was let in since nothing waited, and goes first where there is too much.
    pub(crate) over_quota: Option<OverQuota>,
    /// Why software copies of HSM keys did some of it, where they did.
    pub(crate) fallback: Option<Fallback>,
    /// Who did its items.
    pub(crate) served: Served,
    /// For whom the clear data key that comes out is encrypted, in the place of itself.
    pub(crate) export: Option<Box<Export>>,
    /// The version of a managed data key that is opened, where one is.
    pub(crate) data_key: Option<Box<NamedDataKey>>,
    /// The secret that it is about, where it is about one.
    pub(crate) secret: Option<Box<NamedSecret>>,
    /// The certificate that it is about, where it is about one.
    pub(crate) certificate: Option<CertificateId>,
    /// The secrets that it reads, where it reads many.
    pub(crate) secrets: Option<Box<NamedSecrets>>,
    /// The data key pair whose private half is sealed, where one is.
    pub(crate) pair: Option<Box<MadePair>>,
}

/// A secret, and the version of it whose value is opened, where one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSecret {
    /// As the audit names it.
    pub touch: SecretTouch,
    /// What is opened.
    pub opened: Option<OpenedSecret>,
}

impl NamedSecret {
    /// Makes one of which nothing is opened.
    pub(crate) fn of(touch: SecretTouch) -> Self {
        Self { touch, opened: None }
    }
}

/// A version whose value is opened, and what is told beside the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedSecret {
    /// The version.
    pub version: SecretVersion,
    /// What the secret is of.
    pub secret_type: SecretType,
    /// What is told of its rotation, where it has a rotator.
    pub rotation: Option<RotationTold>,
    /// Whether its own text on that is asked for as well.
    pub fetch_extended: bool,
}

/// A version of a managed data key.
#[derive(Debug)]
pub struct NamedDataKey {
    /// The name of the data key.
    pub name: DataKeyName,
    /// The version.
    pub version: DataKeyVersionId,
}

/// Takes finished jobs; called on the arbiter that did them.
pub trait ReplyTo: Send + Sync {
    /// Takes one finished job.
    fn finished(&self, finished: Finished);
}

/// Lets a frontend call off the jobs of a connection that went away.
#[derive(Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Calls off what has not begun.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Tells whether it was called off.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A job that is done: its answer may be given, the audit has it.
pub struct Finished {
    /// What the frontend gave with the job.
    pub ticket: u64,
    /// The request.
    pub call: Call,
    /// The operation, if it is one of ours.
    pub operation: Option<Operation>,
    /// The answer.
    pub result: Result<Product, Error>,
    /// The results of the items, or the buffer to write the answer into.
    pub sheet: Sheet,
}

/// What an answer consists of, beside the items on the sheet.
pub enum Product {
    /// A reply that was read from what is published.
    Reply(Box<Reply<'static>>),
    /// Items made with one key version: sealed, signed, opened by a private key, or found true or not.
    Made {
        /// The key.
        key: CmkId,
        /// The version.
        version: KeyVersionId,
        /// How MACs were computed, where they were.
        mac: Option<SignAlgorithm>,
        /// Of which kind the data key pair is, where one was made.
        pair: Option<KeySpec>,
        /// The certificate whose key it is, where it is one's.
        certificate: Option<CertificateId>,
        /// Items that failed.
        errors: Vec<ItemError>,
    },
    /// Items opened, each under the key that it named.
    Opened {
        /// The keys and versions.
        keys: Vec<(CmkId, KeyVersionId)>,
        /// For each item its place in `keys`.
        index: Vec<Option<u32>>,
        /// Items that failed.
        errors: Vec<ItemError>,
        /// How the blobs of the first key are sealed.
        algorithm: Option<Algorithm>,
        /// The version of a managed data key that was opened, where one was.
        data_key: Option<Box<NamedDataKey>>,
        /// The secret whose value was opened, where one was.
        secret: Option<Box<NamedSecret>>,
        /// The secrets whose values were opened, where there were many.
        secrets: Option<Box<NamedSecrets>>,
    },
}

/// Why an item failed, kept small since there may be many.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) message: Cow<'static, str>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), message: error.into_message() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::new(fault.kind, fault.message)
    }
}

/// Estimated nanoseconds of an item: set-up, nonce, tag, and eight bytes a nanosecond.
fn item_cost(bytes: usize) -> u64 {
    110 + bytes as u64 / 8
}

/// Estimated nanoseconds of a request without items: audit, encoding.
const REQUEST_COST: u64 = 700;

impl Job {
    /// Returns the rule that decided: the first that refused a key, where items name theirs, else the one of the request.
    pub(crate) fn decided_by(&self) -> Option<&Rule> {
        let by_items = match &self.task {
            Task::Open(open) => Some(open),
            Task::Seal { what: Sealing::Blobs(open), .. } => Some(&**open),
            _ => None,
        };
        let denied = by_items.and_then(|open| open.keys.denied_by.as_ref());
        denied.or(self.rule.as_ref()).or_else(|| by_items?.keys.allowed_by.as_ref())
    }

    /// Makes the job of a request that nobody waits for.
    pub(crate) fn new(call: Call, operation: Option<Operation>, task: Task) -> Self {
        Self::under(Cancel::default(), call, operation, task)
    }

    /// Makes the job of a request that is called off by `cancel`.
    pub(crate) fn under(cancel: Cancel, call: Call, operation: Option<Operation>, task: Task) -> Self {
        Self {
            deadline: call.received + Duration::from_millis(limit::DEFAULT_TIMEOUT_MS),
            call,
            operation,
            rule: None,
            context_digest: None,
            task,
            sheet: Sheet::default(),
            next: 0,
            errors: Vec::new(),
            first_fault: None,
            reply_to: None,
            cancel,
            ticket: 0,
            started: None,
            trip: None,
            waits: false,
            is_dry_run: false,
            approved_by: None,
            over_quota: None,
            fallback: None,
            served: Served::default(),
            export: None,
            data_key: None,
            secret: None,
            certificate: None,
            secrets: None,
            pair: None,
        }
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        match &self.task {
            Task::Seal { what: Sealing::Plaintexts { items, .. }, .. } => items.len(),
            Task::Seal { what: Sealing::Blobs(open), .. } => open.items.len(),
            Task::Open(open) => open.items.len(),
            Task::Seal { what: Sealing::DataKeys { count, .. }, .. } => *count,
            Task::Seal { what: Sealing::Pair(_), .. } => 1,
            Task::Compute(task) => task.items.len(),
            Task::Answered(_) | Task::Refused(_) => 0,
        }
    }

    /// Tells whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether it is a refusal.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.task, Task::Refused(_))
    }

    /// Returns who asked.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Returns what the job takes of a quota beside being a request.
    pub(crate) fn taken(&self) -> Taken {
        let bytes = match &self.task {
            Task::Seal { what: Sealing::Plaintexts { items, .. }, .. } => items.bytes(),
            Task::Seal { what: Sealing::Blobs(open), .. } => open.items.bytes(),
            Task::Seal { what: Sealing::DataKeys { count, bytes, .. }, .. } => *count as u64 * *bytes as u64,
            Task::Open(open) => open.items.bytes(),
            Task::Compute(task) => task.items.bytes(),
            Task::Seal { what: Sealing::Pair(_), .. } | Task::Answered(_) | Task::Refused(_) => 0,
        };
        Taken { items: self.len() as u64, bytes }
    }

    fn cost_of(&self, i: usize) -> u64 {
        match &self.task {
            Task::Seal { what: Sealing::Plaintexts { items, .. }, .. } => item_cost(items.item_len(i)),
            Task::Seal { what: Sealing::Blobs(open), .. } => 2 * item_cost(open.items.item_len(i)),
            Task::Seal { what: Sealing::DataKeys { bytes, .. }, .. } => item_cost(*bytes),
            Task::Seal { what: Sealing::Pair(_), .. } => item_cost(0),
            Task::Open(open) => item_cost(open.items.item_len(i)),
            Task::Compute(task) => task.cost_of(i),
            Task::Answered(_) | Task::Refused(_) => 0,
        }
    }

    /// Makes room for the whole answer to a batch, in one piece; a single answer is small. It is done when its turn comes: what waits holds its
    /// request and little more.
    pub(crate) fn lay_out(&mut self) {
        let (items, framing) = match &self.task {
            Task::Seal { to, what: Sealing::Plaintexts { items, .. }, .. } => {
                (items, items.len() * (to.algorithm.overhead() + ITEM_FRAMING_BYTES))
            }
            // What was sealed is longer than what it opens to, by more than the framing.
            Task::Open(open) => (&open.items, 0),
            _ => return,
        };
        if items.len() > 1 {
            self.sheet.reserve(items.len(), items.bytes() as usize + framing + ANSWER_BYTES);
        }
    }

    /// Returns what the whole of it costs at most, where that is known without a look at each item.
    fn most_cost(&self) -> Option<u64> {
        let items = match &self.task {
            _ if self.next > 0 => return None,
            Task::Seal { what: Sealing::Plaintexts { items, .. }, .. } => items,
            Task::Open(open) => &open.items,
            _ => return None,
        };
        Some(REQUEST_COST + items.len() as u64 * item_cost(0) + items.bytes() / 8)
    }

    pub(crate) fn fail_item(&mut self, i: usize, fault: Fault) {
        let fault = match &mut self.secrets {
            Some(secrets) => secrets.fail(i, fault),
            None => fault,
        };
        if self.first_fault.is_none() {
            self.first_fault = Some(fault.clone());
        }
        self.errors.push(ItemError::new(i, fault.into()));
    }

    /// Forgets what was done, so that it is done again under the keys as they are now.
    pub(crate) fn restart(&mut self) {
        self.sheet.restart();
        self.errors.clear();
        self.first_fault = None;
        self.next = 0;
        if let Some(secrets) = &mut self.secrets {
            secrets.restart();
        }
        match &mut self.task {
            Task::Seal { what, done, .. } => {
                *done = 0;
                if let Sealing::Blobs(open) = what {
                    open.keys.slots.clear();
                }
            }
            Task::Open(open) => {
                open.keys.slots.clear();
                open.index.clear();
            }
            Task::Compute(task) => task.done = 0,
            Task::Answered(_) | Task::Refused(_) => {}
        }
    }

    /// Tells whether the error of its one item is the error of the whole.
    pub(crate) fn is_single(&self) -> bool {
        use Operation::*;
        matches!(
            self.operation,
            Some(
                Encrypt
                    | Decrypt
                    | ReEncrypt
                    | AdvanceEncrypt
                    | AdvanceDecrypt
                    | GetManagedDataKey
                    | GetSecretValue
                    | GenerateDataKey
                    | GenerateDataKeyWithoutPlaintext
                    | ExportDataKey
                    | GenerateAndExportDataKey
                    | GenerateDataKeyPair
                    | GenerateDataKeyPairWithoutPlaintext
                    | AsymmetricSign
                    | AsymmetricVerify
                    | AsymmetricEncrypt
                    | AsymmetricDecrypt
                    | CertificatePrivateKeySign
                    | CertificatePublicKeyVerify
                    | CertificatePublicKeyEncrypt
                    | CertificatePrivateKeyDecrypt
                    | GenerateMac
                    | VerifyMac
            )
        )
    }

    /// Answers a job that came behind the end of its desk.
    #[allow(clippy::boxed_local, reason = "it is taken apart in its box, not moved out first")]
    pub(crate) fn turn_away(mut self: Box<Self>) {
        self.refuse(Error::new(ErrorKind::Unavailable, "the instance is released"));
        let Job { call, operation, task, sheet, reply_to, ticket, .. } = *self;
        if let (Task::Refused(error), Some(reply_to)) = (task, reply_to) {
            reply_to.finished(Finished { ticket, call, operation, result: Err(error), sheet });
        }
    }

    /// Turns the job into a refusal, and wipes what it had written.
    pub(crate) fn refuse(&mut self, error: Error) {
        self.sheet.wipe();
        self.errors.clear();
        self.first_fault = None;
        self.task = Task::Refused(error);
    }
}

// Boxed: a job is large, and changes hands several times.
impl Divisible for Box<Job> {
    fn part(&self, budget: u64) -> Part {
        let total = self.len();
        if let Some(cost) = self.most_cost().filter(|cost| *cost <= budget) {
            return Part { items: total, cost, last: true };
        }
        let mut cost = if self.next == 0 { REQUEST_COST } else { 0 };
        let mut at = self.next;
        while at < total {
            let more = self.cost_of(at);
            if at > self.next && cost + more > budget {
                break;
            }
            cost += more;
            at += 1;
        }
        Part { items: at - self.next, cost, last: at == total }
    }

    fn sheddable_since(&self) -> Option<Instant> {
        let is_untouched = self.next == 0 && self.trip.is_none() && !matches!(self.task, Task::Refused(_));
        (self.over_quota.is_some() && is_untouched).then_some(self.call.received)
    }
}

/// The keys that a finished job touched.
pub struct Tally;

impl Tally {
    /// Lists the key versions that a job named with the items done under each.
    pub(crate) fn of(task: &Task, out: &mut Vec<KeyTouch>) {
        let touch = |entry: &CmkEntry, version: &VersionEntry, items| KeyTouch {
            cmk: entry.cmk.id,
            version: version.number,
            items,
            protection: entry.cmk.protection,
        };
        // Those that were refused, too: whoever reads it learns what was tried.
        let mut of_slots = |open: &OpenTask| {
            for KeySlot { cmk, version_number: version, protection, done: items, .. } in &open.keys.slots {
                let touch = |protection| KeyTouch { cmk: *cmk, version: *version, items: *items, protection };
                out.extend(protection.map(touch));
            }
        };
        match task {
            Task::Seal { to, what, done, .. } => {
                if let Sealing::Blobs(open) = what {
                    of_slots(open);
                }
                out.push(touch(&to.entry, &to.version, *done));
            }
            Task::Open(open) => of_slots(open),
            Task::Compute(task) => out.push(touch(&task.entry, &task.version, task.done)),
            Task::Answered(_) | Task::Refused(_) => {}
        }
    }
}
