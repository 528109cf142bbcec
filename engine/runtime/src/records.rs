//! How records are named, kinded and encoded in the store. Every record is sealed, bound to its path, kind and sequence number.

mod cluster;
mod paths;

pub use cluster::*;
pub use paths::*;

use keymill_core::certificate::IssuedSerial;
use keymill_core::error::{Error, Result};
use keymill_core::id::{AliasName, AuthorityName, CertificateId, CmkId, SecretName, SecretVersionId};
use keymill_core::key::{KeyVersionMaterial, WrappingAlgorithm};
use keymill_core::operation::Bin;
use keymill_core::seam::provider::StoredKey;
use keymill_core::seam::store::Path;
use keymill_core::time::Timestamp;
use keymill_crypto::payload;
use keymill_crypto::record::{RecordError, RecordSealer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

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
    /// A managed data key.
    DataKey = 10,
    /// The nonce of a management request.
    Nonce = 11,
    /// An application access point.
    Aap = 12,
    /// The public half of a client key.
    ClientKey = 13,
    /// A permission policy.
    Policy = 14,
    /// A network rule.
    NetworkRule = 15,
    /// A role of the installation's own.
    Role = 16,
    /// A secret, without its values.
    Secret = 17,
    /// The sealed value of a version of a secret.
    SecretValue = 18,
    /// A request that waits for a second caller.
    Approval = 19,
    /// A certificate, without its bytes.
    Certificate = 20,
    /// The bytes of a certificate, its chain and its signing request.
    CertificateBody = 21,
    /// An authority that signs certificates.
    Authority = 22,
    /// The newest list of what an authority revoked.
    Crl = 23,
    /// An account of ACME.
    AcmeAccount = 30,
    /// An order of ACME, with its authorizations and challenges.
    AcmeOrder = 31,
    /// What stands in the place of a record that ended, in a store that several nodes use.
    Ended = 40,
    /// What every change of who may do what writes, in a store that several nodes use.
    AccessEpoch = 42,
    /// What a node says of itself to the others of its cluster.
    Node = 41,
    /// An instance, as the installation knows it.
    Instance = 43,
    /// Whether a store that several nodes use was found to be of another history, and whether one was accepted.
    History = 44,
    /// What a node leaves in the store for its own next start.
    Witness = 45,
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
    /// The key that wrapped it, in a token for a key of one; none any more once its time was over.
    pub wrapping: Option<StoredKey>,
    /// Such keys that are used up, and yet to be destroyed in their tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<StoredKey>,
    /// When a try began last, in a store that several nodes use: another node may be at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<Timestamp>,
}

/// The value of a version of a secret, as it is kept.
#[derive(Serialize, Deserialize)]
pub struct SecretValueRecord {
    /// The secret.
    pub name: SecretName,
    /// The version.
    pub version: SecretVersionId,
    /// Sealed under the CMK of the secret; instance, name and version are its encryption context.
    #[serde(deserialize_with = "owned")]
    pub blob: Bin<'static>,
}

/// The bytes of a certificate, as they are kept; all in DER.
#[derive(Clone, Serialize, Deserialize)]
pub struct CertificateBodyRecord {
    /// The certificate that they are of.
    pub id: CertificateId,
    /// The signing request, where its key was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<Bytes>,
    /// The certificate, once it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Bytes>,
    /// Those that signed it, each followed by its own issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Bytes>,
}

/// Bytes of a record that owns them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(#[serde(deserialize_with = "owned")] pub Bin<'static>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

fn owned<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Bin<'static>, D::Error> {
    Ok(Bin::deserialize(deserializer)?.into_owned())
}

/// What stands in the place of a token's hash where there is no token any more: nobody knows of what it would be the hash.
const NO_TOKEN: [u8; 32] = [0; 32];

impl ImportRecord {
    /// Takes the wrapping key away: one in a token is yet to be destroyed there. What the token was stays known.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.spent.extend(self.wrapping.take().filter(|wrapping| wrapping.token_object().is_some()));
        self
    }

    /// Takes the token away, too; `None` where nothing is left to be done then.
    #[must_use]
    pub fn used_up(self) -> Option<Self> {
        Self { token: NO_TOKEN, ..self.closed() }.without_spent(&[])
    }

    /// Forgets wrapping keys that were destroyed, by their ids in the token; `None` where nothing is left to be known then.
    #[must_use]
    pub fn without_spent(mut self, destroyed: &[Vec<u8>]) -> Option<Self> {
        self.spent.retain(|key| key.token_object().is_some_and(|object| !destroyed.contains(&object.id)));
        let is_over = self.token == NO_TOKEN && self.spent.is_empty();
        (!is_over).then_some(self)
    }
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
#[derive(Clone, Serialize, Deserialize, Default)]
pub struct InstallationRecord {
    /// Wall time when it was last seen, in milliseconds.
    pub seen_ms: u64,
    /// Until when deletions rest after a jump of the clock, in milliseconds.
    pub rest_until_ms: u64,
    /// The CMK that secrets are sealed under that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_cmk: Option<CmkId>,
}

/// What is known of a nonce beside its path: that its request was carried out, and how long it could pass once more.
#[derive(Serialize, Deserialize)]
pub struct NonceRecord {
    /// The last moment at which its request could pass.
    pub good_until: Timestamp,
}

/// The newest list of what an authority revoked, as it is kept.
#[derive(Serialize, Deserialize)]
pub struct CrlRecord {
    /// The authority.
    pub authority: AuthorityName,
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it is good.
    pub next_update: Timestamp,
    /// What it names: told of until it has ended, also where the record of a certificate is lost.
    #[serde(default)]
    pub named: Vec<IssuedSerial>,
    /// The whole in DER.
    pub der: Bytes,
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

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::Sensitive;
    use keymill_core::key::{KeySpec, KeyUsage};
    use keymill_core::seam::provider::{KeyMaterial, TokenObject};

    fn wrapping(id: Option<u8>) -> StoredKey {
        let in_token = |id| TokenObject {
            adopted: false,
            serial: "0123".into(),
            label: "keymill import".into(),
            id: vec![id],
            check: Vec::new(),
        };
        let material = match id {
            None => KeyMaterial::Clear(Sensitive::copied(b"private")),
            Some(id) => KeyMaterial::TokenObject(in_token(id)),
        };
        let usage = KeyUsage::EncryptDecrypt;
        StoredKey { spec: KeySpec::Rsa2048, usage, bulk_mode: None, material, public_key: None }
    }

    fn record(wrapping: Option<StoredKey>, spent: Vec<StoredKey>) -> ImportRecord {
        ImportRecord {
            token: [7; 32],
            algorithm: WrappingAlgorithm::RsaesOaepSha256,
            expires_at: Timestamp::from_ms(1),
            tries: 1,
            wrapping,
            spent,
            tried_at: None,
        }
    }

    fn ids(record: &ImportRecord) -> Vec<u8> {
        record.spent.iter().filter_map(|key| key.token_object()).map(|object| object.id[0]).collect()
    }

    #[test]
    fn a_wrapping_key_of_software_ends_with_its_record_and_one_of_a_token_once_it_is_destroyed() {
        let closed = record(Some(wrapping(None)), Vec::new()).closed();
        assert!(closed.wrapping.is_none() && closed.spent.is_empty());
        assert!(record(Some(wrapping(None)), Vec::new()).used_up().is_none());
        let closed = record(Some(wrapping(Some(2))), vec![wrapping(Some(1))]).closed();
        assert_eq!((closed.wrapping.is_none(), closed.token, ids(&closed)), (true, [7; 32], vec![1, 2]));
        let left = closed.used_up().unwrap();
        assert_eq!((left.token, ids(&left)), (NO_TOKEN, vec![1, 2]));
        let left = left.without_spent(&[vec![1], vec![9]]).unwrap();
        assert_eq!(ids(&left), [2]);
        assert!(left.without_spent(&[vec![2]]).is_none());
    }

    #[test]
    fn what_a_token_was_stays_known_when_its_wrapping_key_is_destroyed() {
        let left = record(None, vec![wrapping(Some(1))]).without_spent(&[vec![1]]).unwrap();
        assert!(left.spent.is_empty() && left.token == [7; 32]);
    }
}
