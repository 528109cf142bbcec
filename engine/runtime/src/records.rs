//! How records are named, kinded and encoded in the store. Every record is sealed, bound to its path, kind and sequence number.

use keymill_core::error::{Error, Result};
use keymill_core::id::{AccessKeyId, AliasName, CmkId};
use keymill_core::key::{KeyVersionMaterial, WrappingAlgorithm};
use keymill_core::seam::provider::StoredKey;
use keymill_core::seam::store::Path;
use keymill_core::time::Timestamp;
use keymill_crypto::payload;
use keymill_crypto::record::{RecordError, RecordSealer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A CMK's metadata.
    Cmk = 1,
    /// The material of one version.
    Material = 2,
    /// An alias.
    Alias = 3,
    /// An access key.
    AccessKey = 4,
    /// Use counts of a CMK.
    Usage = 5,
    /// The head of an audit chain.
    AuditHead = 6,
    /// What the installation knows of itself.
    Installation = 7,
    /// Reserved invocations of a CMK's versions.
    Invocations = 8,
    /// What material of a CMK is wrapped by on its way here.
    Import = 9,
}

/// What material of a CMK is wrapped by on its way here, and what is known of the token that goes with it.
#[derive(Serialize, Deserialize)]
pub struct ImportRecord {
    /// The SHA-256 of the token.
    pub token: [u8; 32],
    /// How the material is wrapped.
    pub algorithm: WrappingAlgorithm,
    /// Until when it is taken.
    pub expires_at: Timestamp,
    /// How often that was tried.
    pub tries: u32,
    /// The key that wrapped it; none any more once its time was over.
    pub wrapping: Option<StoredKey>,
}

/// Reserved invocations of a CMK's versions as they are stored: number, reserved in all. Only ever raised (SP 800-38D §8.3).
#[derive(Serialize, Deserialize, Default, Clone)]
pub struct InvocationsRecord(pub Vec<(u32, u64)>);

/// Use counts of a CMK's versions as they are stored: number, encrypted, decrypted, milliseconds of the last use.
#[derive(Serialize, Deserialize, Default)]
pub struct UsageRecord(pub Vec<(u32, u64, u64, u64)>);

/// What an alias names.
#[derive(Serialize, Deserialize)]
pub struct AliasRecord {
    /// The key.
    pub cmk: CmkId,
    /// The alias, which its path cannot hold as it is.
    pub name: AliasName,
}

/// What the installation knows of itself.
#[derive(Serialize, Deserialize, Default)]
pub struct InstallationRecord {
    /// Wall time when it was last seen, in milliseconds.
    pub seen_ms: u64,
    /// Until when deletions rest after a jump of the clock, in milliseconds.
    pub rest_until_ms: u64,
}

fn path(text: String) -> Path {
    Path::new(text).expect("ids and encoded names are valid segments")
}

/// Returns the path of a prefix.
pub fn prefix(text: &str) -> Path {
    path(text.to_owned())
}

/// Returns where a CMK stands.
pub fn cmk_path(id: &CmkId) -> Path {
    path(format!("cmk/{id}"))
}

/// Returns where the material of a version stands.
pub fn material_path(id: &CmkId, version: u32) -> Path {
    path(format!("material/{id}/{version}"))
}

/// Returns where the use counts of a CMK stand.
pub fn usage_path(id: &CmkId) -> Path {
    path(format!("usage/{id}"))
}

/// Returns where the reserved invocations of a CMK stand.
pub fn invocations_path(id: &CmkId) -> Path {
    path(format!("invocations/{id}"))
}

/// Returns where the parameters of an import to a CMK stand.
pub fn import_path(id: &CmkId) -> Path {
    path(format!("import/{id}"))
}

/// Returns where an alias stands: `n` and its characters, but for `/`, which becomes `.` (no alias holds one).
pub fn alias_path(name: &AliasName) -> Path {
    let name = name.as_str().strip_prefix("alias/").expect("every alias begins so");
    path(format!("alias/n{}", name.replace('/', ".")))
}

/// Returns where an access key stands.
pub fn access_key_path(id: &AccessKeyId) -> Path {
    path(format!("access-key/k{id}"))
}

/// Returns where the head of an audit chain stands.
pub fn audit_head_path(chain: &str) -> Path {
    path(format!("audit-head/{chain}"))
}

/// Returns where the installation's own record stands.
pub fn installation_path() -> Path {
    prefix("installation")
}

/// A sealed record, and what the audit remembers of it.
pub struct Sealed {
    /// The bytes for the store.
    pub bytes: Vec<u8>,
    /// Its tag.
    pub tag: [u8; 16],
}

/// Encodes and seals a record.
///
/// # Errors
/// `Internal` where randomness fails.
pub fn seal<T: Serialize>(
    sealer: &RecordSealer,
    path: &Path,
    kind: Kind,
    sequence: u64,
    record: &T,
) -> Result<Sealed> {
    let payload = payload::encode(record)?;
    let sealed =
        sealer.seal(path.as_str(), kind as u8, sequence, payload.expose()).map_err(Error::internal)?;
    Ok(Sealed { bytes: sealed.bytes, tag: sealed.tag })
}

/// Opens and decodes a record; returns it with its sequence number and tag.
///
/// # Errors
/// [`RecordError`] where it was altered, stands in another's place, or does not decode.
pub fn open<T: DeserializeOwned>(
    sealer: &RecordSealer,
    path: &Path,
    kind: Kind,
    bytes: &[u8],
) -> Result<(T, u64, [u8; 16]), OpenFailed> {
    open_at(sealer, path.as_str(), kind, bytes)
}

/// Opens and decodes the record at a path that is not known to be one.
///
/// # Errors
/// As of [`open`].
pub(crate) fn open_at<T: DeserializeOwned>(
    sealer: &RecordSealer,
    path: &str,
    kind: Kind,
    bytes: &[u8],
) -> Result<(T, u64, [u8; 16]), OpenFailed> {
    let opened = sealer.open(path, kind as u8, bytes).map_err(OpenFailed::Record)?;
    let record = payload::decode(&opened.payload).map_err(OpenFailed::Payload)?;
    Ok((record, opened.sequence, opened.tag))
}

/// Opens the material of a key version.
///
/// # Errors
/// [`OpenFailed`] where it was altered or stands in another's place.
pub fn open_material(
    sealer: &RecordSealer,
    id: &CmkId,
    version: u32,
    bytes: &[u8],
) -> Result<KeyVersionMaterial, OpenFailed> {
    open::<KeyVersionMaterial>(sealer, &material_path(id, version), Kind::Material, bytes)
        .map(|(record, ..)| record)
}

/// Why a record cannot be used.
#[derive(Debug)]
pub enum OpenFailed {
    /// It was altered, or stands in another's place.
    Record(RecordError),
    /// It opens, but holds something else.
    Payload(payload::NotDecoded),
}

impl std::fmt::Display for OpenFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenFailed::Record(error) => write!(f, "{error}"),
            OpenFailed::Payload(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for OpenFailed {}
