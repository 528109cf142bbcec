//! Start: reads the whole store and opens its records. There may be millions: one thread reads from one end to the other, a few open what it
//! read, and the caller takes what they opened, in whatever order it comes.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use keymill_core::access::{Aap, AccessKey, Approval, ClientKey, CustomRole, NetworkRule, PermissionPolicy};
use keymill_core::acme::{Account, Order};
use keymill_core::certificate::{Authority, ManagedCertificate};
use keymill_core::id::{CertificateId, CmkId};
use keymill_core::instance::Instance;
use keymill_core::key::{Cmk, KeyVersion, ManagedDataKey};
use keymill_core::seam::store::{Revision, Row, Store, StoreError};
use keymill_core::secret::Secret;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};
use serde::de::DeserializeOwned;

use crate::assembly::Tag;
use crate::keyring::{CmkEntry, Stamp, VersionEntry};
use crate::records::{
    self, AccessEpochRecord, AliasRecord, CrlRecord, EndedRecord, ImportRecord, InstallationRecord,
    InvocationsRecord, Kind, UsageRecord,
};

/// Records that go from thread to thread at once, and about as many bytes.
const CHUNK: usize = 256;
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks that wait for a thread, at most.
const WAITING: usize = 4;
/// Threads that open records, at most.
const OPENERS: usize = 4;

/// A record of the store.
pub(crate) struct Found<'a> {
    pub(crate) path: &'a str,
    /// Its sequence number and tag, unverified; nothing where it is too short to have them.
    pub(crate) mark: Option<(u64, Tag)>,
    pub(crate) revision: Revision,
    pub(crate) what: What,
}

/// Records as they were read, one behind the other: their paths, and their values.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Bytes of the path, bytes of the value, revision.
    rows: Vec<(usize, usize, Revision)>,
}

impl Chunk {
    fn new() -> Self {
        Self { bytes: Vec::with_capacity(CHUNK_BYTES), rows: Vec::with_capacity(CHUNK) }
    }

    fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.rows.clear();
        self
    }

    fn push(&mut self, row: Row<'_>) {
        self.bytes.extend_from_slice(row.path.as_bytes());
        self.bytes.extend_from_slice(row.value);
        self.rows.push((row.path.len(), row.value.len(), row.revision));
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK || self.bytes.len() >= CHUNK_BYTES
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut rest = &self.bytes[..];
        self.rows.iter().map(move |&(path, value, revision)| {
            let (path, behind) = rest.split_at(path);
            let (value, behind) = behind.split_at(value);
            rest = behind;
            let path = std::str::from_utf8(path).expect("it was text before");
            Row { path, value, revision }
        })
    }
}

/// What a record holds, with its sequence number, or why it does not open.
pub(crate) type Opened<T> = Result<(T, u64), String>;

/// What a record is.
pub(crate) enum What {
    /// Its entry, without the tags of its material.
    Cmk(CmkId, Opened<Arc<CmkEntry>>),
    /// The material of that version; it is opened when it is used.
    Material(Option<(CmkId, u32)>),
    /// As a node counted it, where that is one of several.
    Usage(CmkId, Option<Box<str>>, Opened<UsageRecord>),
    Invocations(CmkId, Opened<InvocationsRecord>),
    Import(CmkId, Opened<ImportRecord>),
    Alias(Opened<AliasRecord>),
    DataKey(Opened<ManagedDataKey>),
    Secret(Opened<Secret>),
    Certificate(CertificateId, Opened<ManagedCertificate>),
    /// The bytes of a certificate; they are opened when they are read.
    CertificateBody,
    Authority(Opened<Authority>),
    Crl(Opened<CrlRecord>),
    /// The value of a version of a secret; it is opened when it is read.
    SecretValue,
    AccessKey(Opened<AccessKey>),
    AccessEpoch(Opened<AccessEpochRecord>),
    Aap(Opened<Aap>),
    ClientKey(Opened<ClientKey>),
    Policy(Opened<PermissionPolicy>),
    NetworkRule(Opened<NetworkRule>),
    Role(Opened<CustomRole>),
    Approval(Opened<Approval>),
    AcmeAccount(Opened<Account>),
    AcmeOrder(Opened<Order>),
    Instance(Opened<Instance>),
    /// What the installation knows of itself.
    Installation(Opened<InstallationRecord>),
    /// That what stood there has ended.
    Ended(Opened<EndedRecord>),
}

impl What {
    /// Returns the name that a record says, where its path has only a hash of it.
    pub(crate) fn name(&self) -> Option<Box<str>> {
        let name = match self {
            What::Alias(Ok((record, _))) => record.name.as_str(),
            What::DataKey(Ok((key, _))) => key.name.as_str(),
            What::Secret(Ok((secret, _))) => secret.name.as_str(),
            What::Ended(Ok((record, _))) => return record.name.clone(),
            _ => return None,
        };
        Some(name.into())
    }
}

/// Has `take` take every record, and returns whether there was one.
pub(crate) fn all(
    store: &dyn Store,
    sealer: &RecordSealer,
    take: &mut dyn FnMut(Found<'_>),
) -> Result<bool, StoreError> {
    let openers = thread::available_parallelism().map_or(1, NonZero::get).min(OPENERS);
    let (to_openers, chunks) = flume::bounded::<Chunk>(WAITING);
    // Chunks are used again: their memory need not be had anew.
    let (to_reader, spare) = flume::bounded::<Chunk>(2 * WAITING);
    let (to_caller, opened) = flume::bounded::<(Chunk, Vec<Option<What>>)>(WAITING);
    thread::scope(|scope| {
        let read = move || {
            let empty = || spare.try_recv().map_or_else(|_| Chunk::new(), Chunk::emptied);
            let mut chunk = empty();
            store.scan(&mut |row| {
                chunk.push(row);
                // Whoever takes them has panicked where nobody does.
                !chunk.is_full() || to_openers.send(std::mem::replace(&mut chunk, empty())).is_ok()
            })?;
            let _nobody_takes = to_openers.send(chunk);
            Ok(())
        };
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let failed = |error: std::io::Error| StoreError::Unavailable(format!("a thread to read it: {error}"));
        let reader = spawn("km-scan").spawn_scoped(scope, read).map_err(failed)?;
        for _ in 0..openers {
            let (chunks, to_caller) = (chunks.clone(), to_caller.clone());
            let open = move || {
                for chunk in chunks {
                    let opened = chunk.rows().map(|row| open(sealer, row)).collect();
                    if to_caller.send((chunk, opened)).is_err() {
                        return;
                    }
                }
            };
            spawn("km-open").spawn_scoped(scope, open).map_err(failed)?;
        }
        drop((chunks, to_caller));
        let mut is_any = false;
        for (chunk, mut opened) in opened {
            // Material first: a CMK behind it, which was mostly written with it, is whole then and need not wait.
            for is_material in [true, false] {
                for (Row { path, value, revision }, what) in chunk.rows().zip(&mut opened) {
                    let is_next = |what: &mut What| matches!(what, What::Material(_)) == is_material;
                    let Some(what) = what.take_if(is_next) else { continue };
                    is_any = true;
                    take(Found { path, mark: sequence_of(value).zip(tag_of(value)), revision, what });
                }
            }
            let _nobody_reads = to_reader.try_send(chunk);
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|()| is_any)
    })
}

/// Opens a record, unless it is one that is read apart, or nobody's.
pub(crate) fn open(sealer: &RecordSealer, row: Row<'_>) -> Option<What> {
    if row.path == records::installation_path().as_str() {
        return Some(What::Installation(opened(sealer, row, Kind::Installation)));
    }
    let (kind, rest) = row.path.split_once('/')?;
    if records::says_ended(row.value) {
        return Some(What::Ended(opened(sealer, row, Kind::Ended)));
    }
    let id = || CmkId::parse(rest.rsplit('/').next()?);
    Some(match kind {
        "cmk" => What::Cmk(id()?, opened(sealer, row, Kind::Cmk).map(|cmk| entry(cmk, row.revision))),
        "material" => What::Material(version(rest)),
        "usage" => {
            let (id, node) = records::usage_at(row.path)?;
            What::Usage(id, node.map(Box::from), opened(sealer, row, Kind::Usage))
        }
        "invocations" => What::Invocations(id()?, opened(sealer, row, Kind::Invocations)),
        "import" => What::Import(id()?, opened(sealer, row, Kind::Import)),
        "alias" => What::Alias(opened(sealer, row, Kind::Alias)),
        "data-key" => What::DataKey(opened(sealer, row, Kind::DataKey)),
        "secret" => What::Secret(opened(sealer, row, Kind::Secret)),
        "secret-value" => What::SecretValue,
        "certificate" => {
            What::Certificate(CertificateId::parse(rest)?, opened(sealer, row, Kind::Certificate))
        }
        "certificate-body" => What::CertificateBody,
        "authority" => What::Authority(opened(sealer, row, Kind::Authority)),
        "crl" => What::Crl(opened(sealer, row, Kind::Crl)),
        "access-key" => What::AccessKey(opened(sealer, row, Kind::AccessKey)),
        "access-epoch" => What::AccessEpoch(opened(sealer, row, Kind::AccessEpoch)),
        "aap" => What::Aap(opened(sealer, row, Kind::Aap)),
        "client-key" => What::ClientKey(opened(sealer, row, Kind::ClientKey)),
        "policy" => What::Policy(opened(sealer, row, Kind::Policy)),
        "network-rule" => What::NetworkRule(opened(sealer, row, Kind::NetworkRule)),
        "approval" => What::Approval(opened(sealer, row, Kind::Approval)),
        "acme-account" => What::AcmeAccount(opened(sealer, row, Kind::AcmeAccount)),
        "acme-order" => What::AcmeOrder(opened(sealer, row, Kind::AcmeOrder)),
        "instance" => What::Instance(opened(sealer, row, Kind::Instance)),
        "role" => What::Role(opened(sealer, row, Kind::Role)),
        _ => return None,
    })
}

fn entry((cmk, sequence): (Cmk, u64), revision: Revision) -> (Arc<CmkEntry>, u64) {
    let version = |version: &KeyVersion| Arc::new(VersionEntry::new(version.number, version.id, None));
    let versions = cmk.versions.iter().map(version).collect();
    (Arc::new(CmkEntry::first(cmk, versions, Stamp { revision, sequence })), sequence)
}

fn opened<T: DeserializeOwned>(sealer: &RecordSealer, row: Row<'_>, kind: Kind) -> Opened<T> {
    let opened = records::open_at::<T>(sealer, row.path, kind, row.value);
    opened.map(|(record, sequence, _)| (record, sequence)).map_err(|error| error.to_string())
}

/// Reads the key and the number of the version in a path of material, where it is as ours are.
fn version(rest: &str) -> Option<(CmkId, u32)> {
    let (id, number) = rest.split_once('/')?;
    let is_plain = number.bytes().all(|c| c.is_ascii_digit()) && !number.starts_with('0');
    Some((CmkId::parse(id)?, number.parse().ok().filter(|_| is_plain)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_is_of_the_version_that_its_path_names_as_ours_do() {
        let id = CmkId::from_bytes([7; 16]);
        let at = |number: &str| version(&format!("{id}/{number}"));
        assert_eq!((at("1"), at("4294967295")), (Some((id, 1)), Some((id, u32::MAX))));
        for odd in ["", "0", "01", "+1", "1/1", "4294967296", "a"] {
            assert_eq!(at(odd), None, "{odd}");
        }
        assert_eq!(version(&id.to_string()), None);
    }
}
