//! Opening: each item names its key in its header; each key is looked up, authorised and checked once a request.

use std::net::IpAddr;
use std::sync::Arc;

use keymill_core::access::{Principal, Resource};
use keymill_core::blob::{Algorithm, Blob, HEADER_BYTES, Header};
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::KeyVersionId;
use keymill_core::key::ProtectionLevel;
use keymill_core::operation::Operation;
use keymill_core::seam::provider::{CryptoSession, DeriveJob};
use keymill_core::time::Timestamp;
use keymill_crypto::xaes::{PREFIX_BYTES, Subkey, SubkeyCipher, subkey_messages};

use super::away::{Away, Place, Segment};
use super::seal::too_long;
use super::{Fault, Job, KeySlot, NamedKeys, OpenTask, Served, Task};
use crate::keyring::{CmkEntry, Use, VersionEntry};
use crate::shared::Shared;

/// The subkey that the last item was opened with; neighbours mostly share it.
#[derive(Default)]
pub(super) struct Memo(Option<Remembered>);

struct Remembered {
    version: KeyVersionId,
    generation: u64,
    prefix: [u8; PREFIX_BYTES],
    cipher: Arc<SubkeyCipher>,
    /// No tag has verified under it yet.
    fresh: bool,
}

/// What opening needs beside the task.
pub(super) struct Opener<'d> {
    pub(super) shared: &'d Shared,
    pub(super) session: &'d mut dyn CryptoSession,
    pub(super) memo: &'d mut Memo,
    pub(super) aad: &'d mut Vec<u8>,
    pub(super) plaintext: &'d mut Vec<u8>,
    pub(super) principal: &'d Principal,
    /// From where it asks.
    pub(super) source: Option<IpAddr>,
    /// The operations whose rights a key needs, all of them.
    pub(super) rights: &'static [Operation],
}

/// Slots that are searched one by one before a request is told to name fewer keys.
const MAX_KEYS: usize = 4_096;

/// How an item is opened.
pub(super) enum Way {
    /// Under the subkey in the memo; a fresh one is kept once a tag has verified under it.
    Subkey { slot: usize, fresh: bool },
    /// By a token, which has done it.
    Made { slot: usize, chunk: usize, item: usize },
    /// By a token, or under a subkey that a token has to derive first.
    Away,
}

impl Opener<'_> {
    /// Finds out how item `i` is opened, and has its subkey at hand; `head` is what the job has under way.
    #[inline]
    pub(super) fn way(
        &mut self,
        keys: &mut NamedKeys,
        blob: &Blob<'_>,
        i: usize,
        head: Option<&Segment>,
    ) -> Result<Way, Fault> {
        let slot = self.find(keys, blob, i)?;
        let (entry, version) = match &keys.slots[slot].state {
            Ok(usable) => usable,
            Err(fault) => return Err(fault.clone()),
        };
        if Some(blob.header.algorithm) != entry.cmk.algorithm() {
            return Err(opaque());
        }
        let head = head.filter(|segment| segment.range.contains(&i));
        if blob.header.algorithm != Algorithm::Xaes256Gcm {
            return match head.map(|segment| (segment.place(i), segment.is_back())) {
                None | Some((Place::In { .. }, false)) => Ok(Way::Away),
                Some((Place::In { chunk, item }, true)) => Ok(Way::Made { slot, chunk: *chunk, item: *item }),
                Some((Place::Failed(fault), _)) => Err(fault.clone()),
                Some((Place::Here, _)) => Err(Error::internal("an item was not sent to its token").into()),
            };
        }
        let prefix = prefix_of(blob);
        let generation = entry.generation;
        if let Memo(Some(last)) = &*self.memo
            && last.prefix == *prefix
            && last.version == version.id
            && last.generation == generation
        {
            return Ok(Way::Subkey { slot, fresh: last.fresh });
        }
        let (cipher, fresh) = match self.shared.subkeys.lookup(&version.id, prefix, generation) {
            Some(cipher) => (cipher, false),
            None if entry.cmk.protection == ProtectionLevel::Hsm => {
                match head.and_then(|segment| segment.subkeys.get(&(version.id, *prefix))) {
                    Some(subkey) => (subkey.clone()?, true),
                    None if head.is_some_and(Segment::is_back) => {
                        return Err(Error::internal("a subkey did not come back").into());
                    }
                    None => return Ok(Way::Away),
                }
            }
            None => (self.derive(entry, version, prefix)?, true),
        };
        *self.memo =
            Memo(Some(Remembered { version: version.id, generation, prefix: *prefix, cipher, fresh }));
        Ok(Way::Subkey { slot, fresh })
    }

    /// Opens item `i` into `out`, which is as long as [`plaintext_len`] says, and returns the place of its key among the slots.
    #[inline]
    pub(super) fn open(
        &mut self,
        way: &Way,
        blob: &Blob<'_>,
        keys: &mut NamedKeys,
        i: usize,
        head: Option<&Segment>,
        out: &mut [u8],
    ) -> Result<u32, Fault> {
        let slot = match way {
            Way::Made { slot, chunk, item } => {
                let made = head.expect("what was made came back").made(*chunk, *item)?;
                out.copy_from_slice(made.text);
                *slot
            }
            Way::Subkey { slot, fresh } => {
                self.lay_out(blob.header_bytes, keys.contexts.canonical(i));
                let nonce = blob.nonce[PREFIX_BYTES..].try_into().expect("a nonce of 24 bytes");
                let Memo(Some(last)) = &mut *self.memo else { return Err(opaque()) };
                last.cipher.open_to(nonce, self.aad, blob.ciphertext, blob.tag, out).map_err(|_| opaque())?;
                if *fresh
                    && let Ok((entry, version)) = &keys.slots[*slot].state
                    && entry.is_current()
                {
                    last.fresh = false;
                    let cipher = last.cipher.clone();
                    self.shared.subkeys.insert_verified(&version.id, &last.prefix, last.generation, cipher);
                }
                *slot
            }
            Way::Away => return Err(Error::internal("an item is away").into()),
        };
        keys.slots[slot].done += 1;
        Ok(slot as u32)
    }

    /// Lays out associated data, unless that of the last item is the same, as mostly it is: what was just written is slow to read.
    #[inline]
    fn lay_out(&mut self, header: &[u8; HEADER_BYTES], context: &[u8]) {
        if self.aad.split_first_chunk().is_some_and(|(last, rest)| last == header && rest == context) {
            return;
        }
        self.aad.clear();
        self.aad.extend_from_slice(header);
        self.aad.extend_from_slice(context);
    }

    /// Derives a subkey here, of a software key.
    fn derive(
        &mut self,
        entry: &CmkEntry,
        version: &VersionEntry,
        prefix: &[u8; PREFIX_BYTES],
    ) -> Result<Arc<SubkeyCipher>, Fault> {
        let handle = self.shared.handle(entry, version)?;
        let mut jobs = [DeriveJob::new(subkey_messages(prefix))];
        self.session.derive(&handle, &mut jobs).map_err(|lost| {
            Fault::from(
                Error::new(ErrorKind::Unavailable, "the crypto session was lost").caused_by(lost.reason),
            )
        })?;
        let [job] = jobs;
        let Some(Ok(subkey)) = job.output else {
            return Err(Error::internal("derivation failed").into());
        };
        let subkey = Subkey::from_sensitive(subkey).map_err(|e| Fault::from(Error::internal(e)))?;
        Ok(Arc::new(SubkeyCipher::new(&subkey)))
    }

    /// Finds the slot of the key version that item `i` names, making it where it is new.
    #[inline]
    pub(super) fn find(&mut self, keys: &mut NamedKeys, blob: &Blob<'_>, i: usize) -> Result<usize, Fault> {
        if blob.ciphertext.len() > keys.max_item_bytes {
            return Err(too_long(blob.ciphertext.len(), keys.max_item_bytes));
        }
        let header = &blob.header;
        // Asked before anything is looked up, so that the answer does not tell whether that other key exists.
        if keys.required.is_some_and(|required| required != header.cmk) {
            return Err(opaque());
        }
        let same = |slot: &KeySlot| slot.cmk == header.cmk && slot.version_number == header.version;
        let last = keys.slots.len().checked_sub(1).filter(|last| same(&keys.slots[*last]));
        if let Some(at) = last.or_else(|| keys.slots.iter().position(same)) {
            // What holds under one context need not hold under another.
            return match keys.slots[at].per_context && !self.may(keys, i, header) {
                true => Err(Error::key_not_found().into()),
                false => Ok(at),
            };
        }
        self.make_slot(keys, header, i)
    }

    #[cold]
    fn make_slot(&mut self, keys: &mut NamedKeys, header: &Header, i: usize) -> Result<usize, Fault> {
        if keys.slots.len() == MAX_KEYS {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("items of one request name more than {MAX_KEYS} key versions"),
            )
            .into());
        }
        let policy = self.shared.keyring.policy(&header.cmk);
        let per_context = policy.is_some_and(|policy| policy.reads_context());
        let allowed = self.may(keys, i, header);
        if per_context && !allowed {
            return Err(Error::key_not_found().into());
        }
        // Nothing is looked up for one without the right, nor recorded: how long that takes would tell whether the key exists.
        let entry = allowed.then(|| self.shared.keyring.cmk(&header.cmk)).flatten();
        let protection = entry.as_ref().map(|entry| entry.cmk.protection);
        let state = match entry {
            _ if !allowed => Err(Error::key_not_found().into()),
            None => match self.shared.keyring.quarantined(&header.cmk) {
                Some(why) => Err(Error::new(ErrorKind::Quarantined, why).into()),
                None => Err(Error::key_not_found().into()),
            },
            Some(entry) => match self.shared.check_usable(&entry.cmk) {
                Err(error) => Err(error.into()),
                Ok(()) => match entry.version(header.version).cloned() {
                    Some(version) => Ok((entry, version)),
                    None => Err(opaque()),
                },
            },
        };
        let (cmk, version_number) = (header.cmk, header.version);
        keys.slots.push(KeySlot { cmk, version_number, protection, per_context, state, done: 0 });
        Ok(keys.slots.len() - 1)
    }

    /// Tells whether the caller may do with the key of item `i` what the request asks, under the context of the item.
    fn may(&self, keys: &mut NamedKeys, i: usize, header: &Header) -> bool {
        for right in self.rights {
            let (resource, context) = (Resource::Key(header.cmk), keys.contexts.get(i));
            let decision = self.shared.decide_under(self.principal, self.source, *right, resource, context);
            match decision.allowed {
                true => drop(keys.allowed_by.get_or_insert(decision.rule)),
                false => {
                    keys.denied_by.get_or_insert(decision.rule);
                    return false;
                }
            }
        }
        true
    }
}

/// Returns the first half of an XAES nonce.
pub(super) fn prefix_of<'b>(blob: &Blob<'b>) -> &'b [u8; PREFIX_BYTES] {
    blob.nonce[..PREFIX_BYTES].try_into().expect("a nonce of 24 bytes")
}

/// Returns the bytes of plaintext in an item; zero for what is too short to hold any.
pub(super) fn plaintext_len(item: &[u8]) -> usize {
    Blob::parse(item).map_or(0, |blob| blob.ciphertext.len())
}

/// The one fault of everything that does not open.
pub(super) fn opaque() -> Fault {
    Error::invalid_ciphertext().into()
}

/// Opens items from `next` on, up to `count`, onto the job's sheet; returns how many: fewer where one has to go to a token first.
pub(super) fn open(
    job: &mut Job,
    count: usize,
    opener: &mut Opener<'_>,
    away: Option<&mut Away>,
    at: Timestamp,
) -> usize {
    let Task::Open(task) = &mut job.task else { return count };
    let mut faults = Vec::new();
    let mut segments = away.map(|away| &mut away.segments);
    let OpenTask { items, keys, index } = task;
    let before: Vec<u32> = keys.slots.iter().map(|slot| slot.done).collect();
    let mut done = count;
    for i in job.next..job.next + count {
        let head = segments.as_ref().and_then(|segments| segments.front());
        // What is lent here stays where it is: a blob that is taken apart is slow to read right after it was moved.
        let blob = Blob::parse(items.get(i));
        let opened = match &blob {
            None => {
                job.sheet.absent();
                Err(opaque())
            }
            Some(blob) => match opener.way(keys, blob, i, head) {
                Ok(Way::Away) => {
                    done = i - job.next;
                    break;
                }
                Ok(way) => {
                    if matches!(way, Way::Subkey { .. }) {
                        job.served.add(Served::SOFTWARE);
                    }
                    job.sheet.put(blob.ciphertext.len(), |out| opener.open(&way, blob, keys, i, head, out))
                }
                Err(fault) => {
                    job.sheet.absent();
                    Err(fault)
                }
            },
        };
        match opened {
            Ok(slot) => index.push(Some(slot)),
            Err(fault) => {
                index.push(None);
                faults.push((i, fault));
            }
        }
        if let Some(segments) = &mut segments
            && segments.front().is_some_and(|head| head.range.end == i + 1)
        {
            segments.pop_front();
        }
    }
    for (n, slot) in keys.slots.iter().enumerate() {
        let new = slot.done - before.get(n).copied().unwrap_or(0);
        if let Ok((_, version)) = &slot.state
            && new > 0
        {
            opener.shared.keyring.count(&slot.cmk, version, Use::Decrypted, new, at);
        }
    }
    for (i, fault) in faults {
        job.fail_item(i, fault);
    }
    done
}
