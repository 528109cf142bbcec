//! Key material that comes wrapped into a token, and is unwrapped nowhere else.

use serde::{Deserialize, Serialize};

use super::StoredKey;
use crate::key::{BulkMode, KeyCheck, KeySpec, KeyUsage, WrappingAlgorithm};
use crate::operation::Bin;

/// Material that is to be unwrapped in a token, and what it is to be there.
#[derive(Serialize, Deserialize)]
pub struct WrappedImport {
    /// The kind of material.
    pub spec: KeySpec,
    /// The one usage that it is to have.
    pub usage: KeyUsage,
    /// For a symmetric key that encrypts: where AES-GCM runs.
    pub bulk_mode: Option<BulkMode>,
    /// The wrapping key, as it was made for this.
    pub wrapping: StoredKey,
    /// How the material was wrapped by it.
    pub algorithm: WrappingAlgorithm,
    /// The wrapped material.
    #[serde(with = "as_bytes")]
    pub wrapped: Vec<u8>,
    /// What the only material is known by that will be taken; `None`: any.
    pub check: Option<KeyCheck>,
}

/// Bytes as MessagePack has them, not as a list of numbers.
mod as_bytes {
    use super::Bin;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Bin::from(bytes).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(Bin::deserialize(deserializer)?.into_vec())
    }
}

/// Material that was unwrapped in a token.
#[derive(Serialize, Deserialize)]
pub struct Unwrapped {
    /// The key as it is to be stored.
    pub key: StoredKey,
    /// What it is known by from now on.
    pub check: KeyCheck,
}
