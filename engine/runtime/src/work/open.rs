//! Opening: each item names its key in its header; each key is looked up, authorised and checked once a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keymill_core::access::{Principal, Resource, decide};
use keymill_core::blob::{Algorithm, Blob};
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::KeyVersionId;
use keymill_core::operation::Operation;
use keymill_core::seam::provider::{CryptoSession, DeriveJob};
use keymill_core::time::Timestamp;
use keymill_crypto::xaes::{PREFIX_BYTES, Subkey, SubkeyCipher, subkey_messages};

use super::seal::too_long;
use super::{Fault, Job, KeySlot, OpenTask, Task};
use crate::shared::Shared;

/// The subkey that the last item was opened with; neighbours mostly share it.
#[derive(Default)]
pub(super) struct Memo(Option<Remembered>);

struct Remembered {
    version: KeyVersionId,
    generation: u64,
    prefix: [u8; PREFIX_BYTES],
    cipher: Arc<SubkeyCipher>,
}

/// What opening needs beside the task.
pub(super) struct Opener<'d> {
    pub(super) shared: &'d Shared,
    pub(super) session: &'d mut dyn CryptoSession,
    pub(super) memo: &'d mut Memo,
    pub(super) aad: &'d mut Vec<u8>,
    pub(super) plaintext: &'d mut Vec<u8>,
    pub(super) principal: &'d Principal,
    /// The operation whose right a key needs.
    pub(super) right: Operation,
}

/// Slots that are searched one by one before a request is told to name fewer keys.
const MAX_KEYS: usize = 4_096;

impl Opener<'_> {
    /// Opens item `i` into `out`, which is as long as [`plaintext_len`] says, and returns the place of its key among the slots.
    pub(super) fn open(&mut self, task: &mut OpenTask, i: usize, out: &mut [u8]) -> Result<u32, Fault> {
        let at = self.find(task, i)?;
        let Some(blob) = Blob::parse(task.items.get(i)) else { return Err(opaque()) };
        self.aad.clear();
        self.aad.extend_from_slice(blob.header_bytes);
        self.aad.extend_from_slice(task.contexts.canonical(i));
        let slot = &mut task.slots[at];
        let (entry, version) = match &slot.state {
            Ok(usable) => usable,
            Err(fault) => return Err(fault.clone()),
        };
        if Some(blob.header.algorithm) != entry.cmk.algorithm()
            || blob.header.algorithm != Algorithm::Xaes256Gcm
        {
            return Err(opaque());
        }
        let prefix: &[u8; PREFIX_BYTES] = blob.nonce[..PREFIX_BYTES].try_into().expect("a nonce of 24 bytes");
        let nonce = blob.nonce[PREFIX_BYTES..].try_into().expect("a nonce of 24 bytes");
        let generation = entry.generation;
        if let Memo(Some(last)) = &*self.memo
            && last.prefix == *prefix
            && last.version == version.id
            && last.generation == generation
        {
            last.cipher.open_to(nonce, self.aad, blob.ciphertext, blob.tag, out).map_err(|_| opaque())?;
        } else {
            let known = self.shared.subkeys.lookup(&version.id, prefix, generation);
            let cipher = match &known {
                Some(cipher) => cipher.clone(),
                None => {
                    let handle = self.shared.handle(entry, version)?;
                    let mut jobs = [DeriveJob::new(subkey_messages(prefix))];
                    self.session.derive(&handle, &mut jobs).map_err(|lost| {
                        Fault::from(
                            Error::new(ErrorKind::Unavailable, "the crypto session was lost")
                                .caused_by(lost.reason),
                        )
                    })?;
                    let [job] = jobs;
                    let Some(Ok(subkey)) = job.output else {
                        return Err(Error::internal("derivation failed").into());
                    };
                    let subkey =
                        Subkey::from_sensitive(subkey).map_err(|e| Fault::from(Error::internal(e)))?;
                    Arc::new(SubkeyCipher::new(&subkey))
                }
            };
            cipher.open_to(nonce, self.aad, blob.ciphertext, blob.tag, out).map_err(|_| opaque())?;
            if known.is_none() && entry.is_current() {
                self.shared.subkeys.insert_verified(&version.id, prefix, generation, cipher.clone());
            }
            *self.memo = Memo(Some(Remembered { version: version.id, generation, prefix: *prefix, cipher }));
        }
        slot.done += 1;
        Ok(at as u32)
    }

    /// Finds the slot of the key version that item `i` names, making it where it is new.
    fn find(&mut self, task: &mut OpenTask, i: usize) -> Result<usize, Fault> {
        let item = task.items.get(i);
        let Some(blob) = Blob::parse(item) else { return Err(opaque()) };
        if blob.ciphertext.len() > task.max_item_bytes {
            return Err(too_long(blob.ciphertext.len(), task.max_item_bytes));
        }
        let header = blob.header;
        // Asked before anything is looked up, so that the answer does not tell whether that other key exists.
        if task.required.is_some_and(|required| required != header.cmk) {
            return Err(opaque());
        }
        let same = |slot: &KeySlot| slot.cmk == header.cmk && slot.version_number == header.version;
        if let Some(last) = task.slots.len().checked_sub(1)
            && same(&task.slots[last])
        {
            return Ok(last);
        }
        if let Some(at) = task.slots.iter().position(same) {
            return Ok(at);
        }
        if task.slots.len() == MAX_KEYS {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("items of one request name more than {MAX_KEYS} key versions"),
            )
            .into());
        }
        let access = self.shared.access.read();
        let allowed = decide(&access, self.principal, self.right, Resource::Key(header.cmk)).allowed;
        let state = match self.shared.keyring.cmk(&header.cmk) {
            _ if !allowed => Err(Error::key_not_found().into()),
            None => match self.shared.keyring.quarantined(&header.cmk) {
                Some(why) => Err(Error::new(ErrorKind::Quarantined, why).into()),
                None => Err(Error::key_not_found().into()),
            },
            Some(entry) => match entry.cmk.state.check_usable() {
                Err(error) => Err(error.into()),
                Ok(()) => match entry.version(header.version).cloned() {
                    Some(version) => Ok((entry, version)),
                    None => Err(opaque()),
                },
            },
        };
        task.slots.push(KeySlot { cmk: header.cmk, version_number: header.version, state, done: 0 });
        Ok(task.slots.len() - 1)
    }
}

/// Returns the bytes of plaintext in item `i`; zero for what is too short to hold any.
pub(super) fn plaintext_len(task: &OpenTask, i: usize) -> usize {
    task.items.item_len(i).saturating_sub(Algorithm::Xaes256Gcm.overhead())
}

/// The one fault of everything that does not open.
fn opaque() -> Fault {
    Error::invalid_ciphertext().into()
}

/// Opens items `next .. next + count` of the job onto its sheet.
pub(super) fn open(job: &mut Job, count: usize, opener: &mut Opener<'_>, at: Timestamp) {
    let Task::Open(task) = &mut job.task else { return };
    let mut faults = Vec::new();
    let before: Vec<u32> = task.slots.iter().map(|slot| slot.done).collect();
    for i in job.next..job.next + count {
        let len = plaintext_len(task, i);
        match job.sheet.put(len, |out| opener.open(task, i, out)) {
            Ok(slot) => task.index.push(Some(slot)),
            Err(fault) => {
                task.index.push(None);
                faults.push((i, fault));
            }
        }
    }
    for (n, slot) in task.slots.iter().enumerate() {
        let new = slot.done - before.get(n).copied().unwrap_or(0);
        if let Ok((_, version)) = &slot.state
            && new > 0
        {
            version.usage.decrypted.fetch_add(u64::from(new), Ordering::Relaxed);
            version.usage.last_ms.store(at.as_ms(), Ordering::Relaxed);
        }
    }
    for (i, fault) in faults {
        job.fail_item(i, fault);
    }
}
