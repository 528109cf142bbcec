//! Admission of data operations: the right to the key, the limits, the key version pinned, the items found in their frame.

use std::sync::Arc;

use bytes::Bytes;
use keymill_core::access::Resource;
use keymill_core::blob::Header;
use keymill_core::context::EncryptionContext;
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::KeyRef;
use keymill_core::key::{DecryptAlgorithm, KeySpec, ProtectionLevel};
use keymill_core::limit;
use keymill_core::operation::{
    Bin, GenerateRandomReply, KeyFormat, Operation, Reply, Request, check_pair_spec, context_of_aad,
    data_key_bytes,
};
use keymill_crypto::{digest, random};

use super::Gate;
use super::data_compute::{computation, message, paired};
use crate::keyring::CmkEntry;
use crate::work::{
    ANSWER_BYTES, Compute, Contexts, Destination, Export, ITEM_FRAMING_BYTES, Items, Job, OpenTask, Sealing,
    Task, WantedPair,
};

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
                let to = self.destination(job, &r.key_id, Operation::Encrypt, &contexts)?;
                check_plaintext(r.plaintext.len())?;
                let items = Items::locate(frame, std::slice::from_ref(&r.plaintext));
                let what = Sealing::Plaintexts { items, max_item_bytes: limit::ENCRYPT_BYTES, is_text };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::AdvanceEncrypt(r) => {
                r.check()?;
                let contexts = common(job, context_of_aad(r.aad.as_deref())?);
                let to = self.destination(job, &r.key_id, Operation::Encrypt, &contexts)?;
                r.algorithm.map_or(Ok(()), |algorithm| algorithm.check(to.entry.cmk.spec))?;
                check_plaintext(r.plaintext.len())?;
                let items = Items::locate(frame, std::slice::from_ref(&r.plaintext));
                let what =
                    Sealing::Plaintexts { items, max_item_bytes: limit::ENCRYPT_BYTES, is_text: false };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::AdvanceDecrypt(r) => {
                r.check()?;
                let contexts = common(job, context_of_aad(r.aad.as_deref())?);
                let (blob, key) = (std::slice::from_ref(&r.ciphertext_blob), r.key_id.as_ref());
                let max = limit::BATCH_ITEM_BYTES;
                let open = self.source(job, blob, frame, contexts, key, max, Operation::Decrypt)?;
                job.task = Task::Open(open);
            }
            Request::GenerateRandom(r) => {
                self.require(job, Operation::GenerateRandom, Resource::Nothing)?;
                let mut random = vec![0; r.bytes()?];
                random::draw(&mut random)?;
                let request_id = job.call.request_id;
                let reply = GenerateRandomReply { random: random.into(), request_id };
                job.task = Task::Answered(Box::new(Reply::GenerateRandom(reply)));
            }
            Request::CreateLoginToken(r) => {
                let reply = self.create_login_token(job, r)?;
                job.task = Task::Answered(Box::new(reply));
            }
            Request::GetManagedDataKey(r) => self.admit_data_key(job, r)?,
            Request::GetSecretValue(r) => self.admit_secret(job, r)?,
            Request::BatchGetSecretValue(r) => self.admit_secrets(job, r.secrets_list)?,
            Request::ExportSecrets(r) => self.admit_secrets(job, r.secrets_list)?,
            Request::GetRandomPassword(r) => self.admit_password(job, &r)?,
            Request::CertificatePrivateKeySign(_)
            | Request::CertificatePublicKeyVerify(_)
            | Request::CertificatePublicKeyEncrypt(_)
            | Request::CertificatePrivateKeyDecrypt(_) => self.admit_certificate(job, request, frame)?,
            Request::BatchEncrypt(r) => {
                check_count(r.items.len())?;
                let contexts = choose(job, r.encryption_context, r.encryption_contexts, r.items.len(), "")?;
                let to = self.destination(job, &r.key_id, Operation::BatchEncrypt, &contexts)?;
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
                let to = self.destination(job, &r.destination_key_id, Operation::Encrypt, &contexts)?;
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
                let to = self.destination(job, &r.destination_key_id, Operation::Encrypt, &contexts)?;
                check_answer(job, r.items.iter().map(|item| item.len()))?;
                let max = limit::BATCH_ITEM_BYTES;
                let open =
                    self.source(job, &r.items, frame, source_contexts, None, max, Operation::Decrypt)?;
                job.task = Task::Seal { to, contexts, what: Sealing::Blobs(Box::new(open)), done: 0 };
            }
            Request::GenerateDataKey(r) => {
                let contexts = common(job, r.encryption_context);
                let to = self.destination(job, &r.key_id, Operation::GenerateDataKey, &contexts)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let what = Sealing::DataKeys { count: 1, bytes, with_plaintext: true };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::GenerateDataKeyWithoutPlaintext(r) => {
                let contexts = common(job, r.encryption_context);
                let to =
                    self.destination(job, &r.key_id, Operation::GenerateDataKeyWithoutPlaintext, &contexts)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let what = Sealing::DataKeys { count: 1, bytes, with_plaintext: false };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::GenerateDataKeyPair(r) => {
                let contexts = common(job, r.encryption_context);
                let to = self.destination(job, &r.key_id, Operation::GenerateDataKeyPair, &contexts)?;
                let what = self.pair(r.key_pair_spec, r.key_format, true)?;
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::GenerateDataKeyPairWithoutPlaintext(r) => {
                let contexts = common(job, r.encryption_context);
                let right = Operation::GenerateDataKeyPairWithoutPlaintext;
                let to = self.destination(job, &r.key_id, right, &contexts)?;
                let what = self.pair(r.key_pair_spec, r.key_format, false)?;
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::ExportDataKey(r) => {
                let contexts = common(job, r.encryption_context);
                let blob = std::slice::from_ref(&r.ciphertext_blob);
                let max = limit::BATCH_ITEM_BYTES;
                let open = self.source(job, blob, frame, contexts, None, max, Operation::ExportDataKey)?;
                job.export =
                    Some(self.export(r.wrapping_key_spec, r.wrapping_algorithm, &r.public_key_blob)?);
                job.task = Task::Open(open);
            }
            Request::GenerateAndExportDataKey(r) => {
                let contexts = common(job, r.encryption_context);
                // Whoever has the private key has the data key in clear: that is to decrypt.
                let opens = self.find_key_under(job, &r.key_id, Operation::Decrypt, &contexts)?;
                // An alias that is moved meanwhile does not lead to another key.
                let key_id = KeyRef::Id(opens.cmk.id);
                let to = self.destination(job, &key_id, Operation::GenerateAndExportDataKey, &contexts)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let export = self.export(r.wrapping_key_spec, r.wrapping_algorithm, &r.public_key_blob)?;
                export.check(bytes)?;
                job.export = Some(export);
                let what = Sealing::DataKeys { count: 1, bytes, with_plaintext: true };
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
                let to = self.destination(job, &r.key_id, right, &contexts)?;
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let each = to.algorithm.overhead()
                    + bytes
                    + ITEM_FRAMING_BYTES
                    + if with_plaintext { bytes + 1 } else { 1 };
                check_answer(job, std::iter::repeat_n(each, count))?;
                let what = Sealing::DataKeys { count, bytes, with_plaintext };
                job.task = Task::Seal { to, contexts, what, done: 0 };
            }
            Request::AsymmetricSign(r) => {
                let (message, kind) = message(r.digest, r.message)?;
                let what = Compute::Sign(r.algorithm, kind);
                let version = Some(&r.key_version_id);
                let of = self.computed_with(job, &r.key_id, version, Operation::AsymmetricSign, what)?;
                job.task = computation(of, what, &[message], None, frame, limit::BATCH_ITEM_BYTES);
            }
            Request::BatchSign(r) => {
                let what = Compute::Sign(r.algorithm, r.message_type);
                let named = (r.key_id, r.key_version_id);
                let of = self.named_key(job, named, r.certificate_id, Operation::BatchSign, what)?;
                self.batch_computation(job, of, what, &r.messages, None, frame)?;
            }
            Request::AsymmetricVerify(r) => {
                let (message, kind) = message(r.digest, r.message)?;
                let what = Compute::Verify(r.algorithm, kind);
                let version = Some(&r.key_version_id);
                let of = self.computed_with(job, &r.key_id, version, Operation::AsymmetricVerify, what)?;
                let claim = Some(std::slice::from_ref(&r.value));
                job.task = computation(of, what, &[message], claim, frame, limit::BATCH_ITEM_BYTES);
            }
            Request::BatchVerify(r) => {
                let what = Compute::Verify(r.algorithm, r.message_type);
                let named = (r.key_id, r.key_version_id);
                let of = self.named_key(job, named, r.certificate_id, Operation::BatchVerify, what)?;
                let claims = paired(&r.messages, &r.signatures, "Signatures")?;
                self.batch_computation(job, of, what, &r.messages, Some(claims), frame)?;
            }
            Request::AsymmetricEncrypt(r) => {
                let what = Compute::Encrypt(r.algorithm);
                let version = Some(&r.key_version_id);
                let of = self.computed_with(job, &r.key_id, version, Operation::AsymmetricEncrypt, what)?;
                job.task = computation(of, what, &[r.plaintext], None, frame, limit::BATCH_ITEM_BYTES);
            }
            Request::BatchAsymmetricEncrypt(r) => {
                let what = Compute::Encrypt(r.algorithm);
                let version = Some(&r.key_version_id);
                let right = Operation::BatchAsymmetricEncrypt;
                let of = self.computed_with(job, &r.key_id, version, right, what)?;
                self.batch_computation(job, of, what, &r.items, None, frame)?;
            }
            Request::AsymmetricDecrypt(r) => {
                let what = Compute::Decrypt(r.algorithm);
                let version = Some(&r.key_version_id);
                let of = self.computed_with(job, &r.key_id, version, Operation::AsymmetricDecrypt, what)?;
                job.task = computation(of, what, &[r.ciphertext_blob], None, frame, limit::BATCH_ITEM_BYTES);
            }
            Request::BatchAsymmetricDecrypt(r) => {
                let what = Compute::Decrypt(r.algorithm);
                let version = Some(&r.key_version_id);
                let right = Operation::BatchAsymmetricDecrypt;
                let of = self.computed_with(job, &r.key_id, version, right, what)?;
                self.batch_computation(job, of, what, &r.items, None, frame)?;
            }
            Request::GenerateMac(r) => {
                let what = Compute::Mac(r.algorithm);
                let of = self.computed_with(job, &r.key_id, None, Operation::GenerateMac, what)?;
                job.task = computation(of, what, &[r.message], None, frame, limit::BATCH_ITEM_BYTES);
            }
            Request::BatchGenerateMac(r) => {
                let what = Compute::Mac(r.algorithm);
                let of = self.computed_with(job, &r.key_id, None, Operation::BatchGenerateMac, what)?;
                self.batch_computation(job, of, what, &r.messages, None, frame)?;
            }
            Request::VerifyMac(r) => {
                let what = Compute::VerifyMac(r.algorithm);
                let of = self.computed_with(job, &r.key_id, None, Operation::VerifyMac, what)?;
                let claim = Some(std::slice::from_ref(&r.mac));
                job.task = computation(of, what, &[r.message], claim, frame, limit::BATCH_ITEM_BYTES);
            }
            Request::BatchVerifyMac(r) => {
                let what = Compute::VerifyMac(r.algorithm);
                let of = self.computed_with(job, &r.key_id, None, Operation::BatchVerifyMac, what)?;
                let claims = paired(&r.messages, &r.macs, "Macs")?;
                self.batch_computation(job, of, what, &r.messages, Some(claims), frame)?;
            }
            other => {
                return Err(Error::internal(format!("{} is no data operation", other.operation().name())));
            }
        }
        let copied = match &job.task {
            Task::Seal { what: Sealing::Plaintexts { items, .. }, .. } => items.copied(),
            Task::Seal { what: Sealing::Blobs(open), .. } => open.items.copied(),
            Task::Open(open) => open.items.copied(),
            Task::Compute(task) => {
                task.items.copied() + task.claims.as_ref().map_or(0, |claims| claims.copied())
            }
            // A data key is written twice: sealed, and in clear.
            Task::Seal { what: Sealing::DataKeys { count, bytes, with_plaintext: true }, .. } => {
                count * bytes
            }
            _ => 0,
        };
        if copied > 0 {
            self.0.shared.metrics.moved_bytes.inc_by(copied as u64);
        }
        Ok(())
    }

    fn destination(
        &self,
        job: &mut Job,
        key: &KeyRef,
        right: Operation,
        contexts: &Contexts,
    ) -> Result<Destination> {
        self.sealing_under(self.find_key_under(job, key, right, contexts)?)
    }

    /// Pins the primary version of a key, to seal under it.
    pub(super) fn sealing_under(&self, entry: Arc<CmkEntry>) -> Result<Destination> {
        self.0.shared.check_usable(&entry.cmk)?;
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

    /// Checks that data key pairs of that kind are made here.
    fn pair(&self, spec: KeySpec, format: Option<KeyFormat>, with_plaintext: bool) -> Result<Sealing> {
        check_pair_spec(spec)?;
        self.check_offered(spec, spec.usages()[0], ProtectionLevel::Software, None)?;
        Ok(Sealing::Pair(WantedPair { spec, format: format.unwrap_or_default(), with_plaintext }))
    }

    fn export(&self, spec: KeySpec, algorithm: DecryptAlgorithm, public: &[u8]) -> Result<Box<Export>> {
        Ok(Box::new(Export::to(&*self.0.shared.provider, spec, algorithm, public)?))
    }

    #[allow(clippy::too_many_arguments, reason = "private, and each is a part of one task")]
    pub(super) fn source(
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
                let entry = self.find_key_under(job, key, right, &contexts)?;
                self.0.shared.check_usable(&entry.cmk)?;
                Some(entry.cmk.id)
            }
        };
        Ok(OpenTask::new(Items::locate(frame, items), contexts, required, max_item_bytes))
    }
}

/// Returns the digests of a source's and a destination's context as one text: `a>b`, with nothing where there is none.
fn both(source: Option<Box<str>>, destination: Option<Box<str>>) -> Option<Box<str>> {
    let text = |digest: Option<Box<str>>| digest.unwrap_or_default();
    (source.is_some() || destination.is_some())
        .then(|| format!("{}>{}", text(source), text(destination)).into())
}

pub(super) fn common(job: &mut Job, context: Option<EncryptionContext>) -> Contexts {
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

pub(super) fn check_count(items: usize) -> Result<()> {
    if items <= limit::BATCH_ITEMS {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded(Limit::BatchItems),
        format!("batch of {items} items exceeds the limit of {}", limit::BATCH_ITEMS),
    ))
}

/// Refuses a request whose answer would be longer than a frame, before any work is done for it.
pub(super) fn check_answer(job: &Job, items: impl Iterator<Item = usize>) -> Result<()> {
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
