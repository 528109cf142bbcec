//! Admission of what is computed with key pairs and keys of MACs: which version does it, what it is done to, and how long the results are.

use std::sync::Arc;

use bytes::Bytes;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{KeyRef, KeyVersionId};
use keymill_core::key::{Cmk, KeySpec, KeyUsage};
use keymill_core::limit;
use keymill_core::operation::{Bin, MessageType, Operation};

use super::Gate;
use super::data::{check_answer, check_count};
use super::read::version_not_found;
use crate::keyring::{CmkEntry, VersionEntry};
use crate::work::{ANSWER_BYTES, Computation, Compute, ITEM_FRAMING_BYTES, Items, Job, Task};

impl Gate {
    /// Finds the key version that something is computed with, and checks that it does that.
    pub(super) fn computed_with(
        &self,
        job: &mut Job,
        key: &KeyRef,
        version: Option<&KeyVersionId>,
        right: Operation,
        what: Compute,
    ) -> Result<(Arc<CmkEntry>, Arc<VersionEntry>)> {
        let entry = self.find_key(job, key, right)?;
        self.0.shared.check_usable(&entry.cmk)?;
        check_does(&entry.cmk, what)?;
        let version = match version {
            Some(id) => entry.versions.iter().find(|version| version.id == *id),
            None => Some(entry.primary()),
        };
        let version = version.cloned().ok_or_else(version_not_found)?;
        Ok((entry, version))
    }

    /// Makes the task of a batch of computations.
    pub(super) fn batch_computation(
        &self,
        job: &mut Job,
        of: (Arc<CmkEntry>, Arc<VersionEntry>),
        what: Compute,
        items: &[Bin<'_>],
        claims: Option<&[Bin<'_>]>,
        frame: Option<&Bytes>,
    ) -> Result<()> {
        check_count(items.len())?;
        let spec = of.0.cmk.spec;
        let bytes = || items.iter().map(|item| result_bytes(spec, what, item.len()));
        check_answer(job, bytes())?;
        // At once: a buffer that grows leaves copies of opened texts behind.
        let framed = bytes().map(|bytes| bytes + ITEM_FRAMING_BYTES).sum::<usize>();
        job.sheet.reserve(items.len(), framed + ANSWER_BYTES);
        job.task = computation(of, what, items, claims, frame, limit::BATCH_ITEM_BYTES);
        Ok(())
    }
}

/// Checks that a key is for that, and has the algorithm.
pub(super) fn check_does(cmk: &Cmk, what: Compute) -> Result<()> {
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
    let (usage, algorithm, has_it) = match what {
        Compute::Sign(algorithm, _) | Compute::Verify(algorithm, _) => {
            let has_it = cmk.spec.signatures().contains(&algorithm);
            (KeyUsage::SignVerify, algorithm.name(), has_it)
        }
        Compute::Mac(algorithm) | Compute::VerifyMac(algorithm) => {
            let has_it = cmk.spec.signatures().contains(&algorithm);
            (KeyUsage::GenerateVerifyMac, algorithm.name(), has_it)
        }
        Compute::Encrypt(algorithm) | Compute::Decrypt(algorithm) => {
            let has_it = cmk.spec.decryptions().contains(&algorithm);
            (KeyUsage::EncryptDecrypt, algorithm.name(), has_it)
        }
    };
    let does = match usage {
        KeyUsage::SignVerify => matches!(cmk.usage, KeyUsage::SignVerify | KeyUsage::SignDecrypt),
        KeyUsage::EncryptDecrypt => cmk.usage.encrypts(),
        _ => cmk.usage == usage,
    };
    if !does {
        return invalid(format!("the key is for KeyUsage {}", cmk.usage.name()));
    }
    if !has_it {
        return invalid(format!("a key of KeySpec {} has no Algorithm {algorithm}", cmk.spec.name()));
    }
    Ok(())
}

pub(super) fn computation(
    (entry, version): (Arc<CmkEntry>, Arc<VersionEntry>),
    what: Compute,
    items: &[Bin<'_>],
    claims: Option<&[Bin<'_>]>,
    frame: Option<&Bytes>,
    max_item_bytes: usize,
) -> Task {
    let items = Items::locate(frame, items);
    let claims = claims.map(|claims| Items::locate(frame, claims));
    Task::Compute(Box::new(Computation { entry, version, what, items, claims, max_item_bytes, done: 0 }))
}

/// Returns what is signed: a digest, or a message.
pub(super) fn message<'a>(
    digest: Option<Bin<'a>>,
    message: Option<Bin<'a>>,
) -> Result<(Bin<'a>, MessageType)> {
    match (digest, message) {
        (Some(digest), None) => Ok((digest, MessageType::Digest)),
        (None, Some(message)) => Ok((message, MessageType::Raw)),
        (None, None) => Err(Error::new(ErrorKind::MissingParameter, "Digest: the parameter is missing")),
        (Some(_), Some(_)) => {
            Err(Error::new(ErrorKind::InvalidParameter, "Digest and Message exclude each other"))
        }
    }
}

/// Checks that there is a claim for each message.
pub(super) fn paired<'c, 'b>(
    messages: &[Bin<'_>],
    claims: &'c [Bin<'b>],
    name: &str,
) -> Result<&'c [Bin<'b>]> {
    match messages.len() == claims.len() {
        true => Ok(claims),
        false => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("{name} holds {} entries for {} messages", claims.len(), messages.len()),
        )),
    }
}

/// Returns how long the result of one computation is, at most.
fn result_bytes(spec: KeySpec, what: Compute, item: usize) -> usize {
    /// What SM2 puts around a text: a point, a digest, and their encoding.
    const SM2_OVERHEAD: usize = 128;
    /// A signature of ML-DSA-65 (FIPS 204, table 2), the longest but for RSA's of other sizes.
    const ML_DSA_65: usize = 3_309;
    /// Two numbers of 48 bytes in DER.
    const CURVE: usize = 104;
    match (what, spec.modulus_bytes()) {
        (Compute::Verify(..) | Compute::VerifyMac(_), _) => 1,
        (Compute::Mac(_), _) => 64,
        (Compute::Decrypt(_), _) => item,
        (Compute::Sign(..) | Compute::Encrypt(_), Some(modulus)) => modulus,
        (Compute::Encrypt(_), None) => item + SM2_OVERHEAD,
        (Compute::Sign(..), None) if spec == KeySpec::MlDsa65 => ML_DSA_65,
        (Compute::Sign(..), None) => CURVE,
    }
}
