//! Admission of data operations: the right to the key, the limits, the key version pinned, the items found in their frame.

use bytes::Bytes;
use keymill_core::blob::Header;
use keymill_core::context::EncryptionContext;
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::KeyRef;
use keymill_core::limit;
use keymill_core::operation::{Bin, Operation, Request, data_key_bytes};
use keymill_crypto::digest;

use super::Gate;
use crate::work::{Contexts, Destination, Items, Job, OpenTask, Sealing, Task};

/// Bytes of framing that an answer has beside its items, at most: names, ids, and five bytes before each item.
const ANSWER_BYTES: usize = 512;
const ITEM_FRAMING_BYTES: usize = 6;

impl Gate {
    pub(super) fn admit_data(
        &self,
        job: &mut Job,
        request: Request<'_>,
        frame: Option<&Bytes>,
        is_text: bool,
    ) -> Result<()> {
        match request {
            Request::Encrypt(r) => {
                let contexts = common(job, r.encryption_context);
                let to = self.destination(job, &r.key_id, Operation::Encrypt)?;
                check_plaintext(r.plaintext.len())?;
                let items = Items::locate(frame, std::slice::from_ref(&r.plaintext));
                let what = Sealing::Plaintexts { items, max_item_bytes: limit::ENCRYPT_BYTES, is_text };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::BatchEncrypt(r) => {
                check_count(r.items.len())?;
                let contexts = choose(job, r.encryption_context, r.encryption_contexts, r.items.len(), "")?;
                let to = self.destination(job, &r.key_id, Operation::BatchEncrypt)?;
                check_answer(job, r.items.iter().map(|item| item.len() + to.algorithm.overhead()))?;
                let items = Items::locate(frame, &r.items);
                let what =
                    Sealing::Plaintexts { items, max_item_bytes: limit::BATCH_ITEM_BYTES, is_text: false };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::Decrypt(r) => {
                let contexts = common(job, r.encryption_context);
                let open = self.source(
                    job,
                    std::slice::from_ref(&r.ciphertext_blob),
                    frame,
                    contexts,
                    r.key_id.as_ref(),
                    limit::BATCH_ITEM_BYTES,
                    Operation::Decrypt,
                )?;
                job.task = Task::Open(open);
            }
            Request::BatchDecrypt(r) => {
                check_count(r.items.len())?;
                let contexts = choose(job, r.encryption_context, r.encryption_contexts, r.items.len(), "")?;
                check_answer(job, r.items.iter().map(|item| item.len()))?;
                let open = self.source(
                    job,
                    &r.items,
                    frame,
                    contexts,
                    r.key_id.as_ref(),
                    limit::BATCH_ITEM_BYTES,
                    Operation::BatchDecrypt,
                )?;
                job.task = Task::Open(open);
            }
            Request::ReEncrypt(r) => {
                let source_contexts = common(job, r.source_encryption_context);
                let source_digest = job.context_digest.take();
                let contexts = common(job, r.destination_encryption_context);
                job.context_digest = both(source_digest, job.context_digest.take());
                let to = self.destination(job, &r.destination_key_id, Operation::Encrypt)?;
                let blob = std::slice::from_ref(&r.ciphertext_blob);
                let max = limit::BATCH_ITEM_BYTES;
                let open = self.source(job, blob, frame, source_contexts, None, max, Operation::Decrypt)?;
                job.task = Task::Seal { to, contexts, what: Sealing::Blobs(Box::new(open)), done: 0 };
            }
            Request::BatchReEncrypt(r) => {
                check_count(r.items.len())?;
                let n = r.items.len();
                let source_contexts =
                    choose(job, r.source_encryption_context, r.source_encryption_contexts, n, "Source")?;
                let source_digest = job.context_digest.take();
                let contexts = choose(
                    job,
                    r.destination_encryption_context,
                    r.destination_encryption_contexts,
                    n,
                    "Destination",
                )?;
                job.context_digest = both(source_digest, job.context_digest.take());
                let to = self.destination(job, &r.destination_key_id, Operation::Encrypt)?;
                check_answer(job, r.items.iter().map(|item| item.len()))?;
                let max = limit::BATCH_ITEM_BYTES;
                let open =
                    self.source(job, &r.items, frame, source_contexts, None, max, Operation::Decrypt)?;
                job.task = Task::Seal { to, contexts, what: Sealing::Blobs(Box::new(open)), done: 0 };
            }
            Request::GenerateDataKey(r) => {
                let contexts = common(job, r.encryption_context);
                let to = self.destination(job, &r.key_id, Operation::GenerateDataKey)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let what = Sealing::DataKeys { count: 1, bytes, with_plaintext: true };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::GenerateDataKeyWithoutPlaintext(r) => {
                let contexts = common(job, r.encryption_context);
                let to = self.destination(job, &r.key_id, Operation::GenerateDataKeyWithoutPlaintext)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let what = Sealing::DataKeys { count: 1, bytes, with_plaintext: false };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::BatchGenerateDataKey(r) => {
                let count = r.count as usize;
                if count == 0 {
                    return Err(Error::new(ErrorKind::InvalidParameter, "Count must be at least 1"));
                }
                check_count(count)?;
                let contexts = choose(job, r.encryption_context, r.encryption_contexts, count, "")?;
                let with_plaintext = !r.without_plaintext.unwrap_or(false);
                // Who may have data keys only encrypted does not get them in clear by asking for many.
                let right = match with_plaintext {
                    true => Operation::GenerateDataKey,
                    false => Operation::GenerateDataKeyWithoutPlaintext,
                };
                let to = self.destination(job, &r.key_id, right)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let each = to.algorithm.overhead()
                    + bytes
                    + ITEM_FRAMING_BYTES
                    + if with_plaintext { bytes + 1 } else { 1 };
                check_answer(job, std::iter::repeat_n(each, count))?;
                let what = Sealing::DataKeys { count, bytes, with_plaintext };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            other => {
                return Err(Error::internal(format!("{} is no data operation", other.operation().name())));
            }
        }
        let copied = match &job.task {
            Task::Seal { what: Sealing::Plaintexts { items, .. }, .. } => items.copied(),
            Task::Seal { what: Sealing::Blobs(open), .. } => open.items.copied(),
            Task::Open(open) => open.items.copied(),
            // A data key is written twice: sealed, and in clear.
            Task::Seal { what: Sealing::DataKeys { count, bytes, with_plaintext: true }, .. } => {
                count * bytes
            }
            _ => 0,
        };
        if copied > 0 {
            self.0.shared.metrics.moved_bytes.inc_by(copied as u64);
        }
        // Batches are laid out in one allocation; a single answer is small.
        if let Task::Seal { to, what: Sealing::Plaintexts { items, .. }, .. } = &job.task
            && items.len() > 1
        {
            let bytes: usize = (0..items.len())
                .map(|i| items.item_len(i) + to.algorithm.overhead() + ITEM_FRAMING_BYTES)
                .sum();
            job.sheet.reserve(bytes + ANSWER_BYTES);
        } else if let Task::Open(open) = &job.task
            && open.items.len() > 1
        {
            let bytes: usize = (0..open.items.len()).map(|i| open.items.item_len(i)).sum();
            job.sheet.reserve(bytes + ANSWER_BYTES);
        }
        Ok(())
    }

    fn destination(&self, job: &mut Job, key: &KeyRef, right: Operation) -> Result<Destination> {
        let entry = self.find_key(job, key, right)?;
        entry.cmk.state.check_usable()?;
        let version = entry.primary().clone();
        let algorithm = entry.cmk.algorithm().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidParameter,
                format!("a key of KeySpec {} does not encrypt", entry.cmk.spec.name()),
            )
        })?;
        let header = Header { algorithm, text: false, cmk: entry.cmk.id, version: version.number }.to_bytes();
        Ok(Destination { entry, version, header, algorithm })
    }

    #[allow(clippy::too_many_arguments, reason = "private, and each is a part of one task")]
    fn source(
        &self,
        job: &mut Job,
        items: &[Bin<'_>],
        frame: Option<&Bytes>,
        contexts: Contexts,
        required: Option<&KeyRef>,
        max_item_bytes: usize,
        right: Operation,
    ) -> Result<OpenTask> {
        let required = match required {
            None => None,
            Some(key) => {
                let entry = self.find_key(job, key, right)?;
                entry.cmk.state.check_usable()?;
                Some(entry.cmk.id)
            }
        };
        let items = Items::locate(frame, items);
        let index = Vec::with_capacity(items.len());
        Ok(OpenTask { items, contexts, required, slots: Vec::new(), index, max_item_bytes })
    }
}

/// Returns the digests of a source's and a destination's context as one text: `a>b`, with nothing where there is none.
fn both(source: Option<Box<str>>, destination: Option<Box<str>>) -> Option<Box<str>> {
    let text = |digest: Option<Box<str>>| digest.unwrap_or_default();
    (source.is_some() || destination.is_some())
        .then(|| format!("{}>{}", text(source), text(destination)).into())
}

fn common(job: &mut Job, context: Option<EncryptionContext>) -> Contexts {
    match context {
        Some(context) if !context.is_empty() => {
            job.context_digest = Some(digest::hex(&digest::sha256(context.canonical())[..16]).into());
            Contexts::Common(context)
        }
        _ => Contexts::None,
    }
}

fn choose(
    job: &mut Job,
    one: Option<EncryptionContext>,
    each: Option<Vec<Option<EncryptionContext>>>,
    items: usize,
    which: &str,
) -> Result<Contexts> {
    match (one, each) {
        (Some(_), Some(_)) => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("{which}EncryptionContext and {which}EncryptionContexts exclude each other"),
        )),
        (one, None) => Ok(common(job, one)),
        (None, Some(each)) if each.len() == items => {
            // One digest over all, each as its canonical form stands.
            let empty = EncryptionContext::default();
            let all: Vec<u8> = each
                .iter()
                .flat_map(|context| context.as_ref().unwrap_or(&empty).canonical())
                .copied()
                .collect();
            job.context_digest = Some(digest::hex(&digest::sha256(&all)[..16]).into());
            Ok(Contexts::Each(each))
        }
        (None, Some(each)) => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("{which}EncryptionContexts holds {} contexts for {items} items", each.len()),
        )),
    }
}

fn check_plaintext(bytes: usize) -> Result<()> {
    if bytes <= limit::ENCRYPT_BYTES {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded(Limit::PlaintextBytes),
        format!("plaintext of {bytes} bytes exceeds the limit of {}", limit::ENCRYPT_BYTES),
    ))
}

fn check_count(items: usize) -> Result<()> {
    if items <= limit::BATCH_ITEMS {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded(Limit::BatchItems),
        format!("batch of {items} items exceeds the limit of {}", limit::BATCH_ITEMS),
    ))
}

/// Refuses a request whose answer would be longer than a frame, before any work is done for it.
fn check_answer(job: &Job, items: impl Iterator<Item = usize>) -> Result<()> {
    let Some(max) = job.sheet.max_bytes() else { return Ok(()) };
    let bytes = items.map(|bytes| bytes + ITEM_FRAMING_BYTES).sum::<usize>() + ANSWER_BYTES;
    if bytes <= max {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded(Limit::AnswerBytes),
        format!("answer of about {bytes} bytes exceeds the limit of {max}"),
    ))
}
