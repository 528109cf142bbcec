//! Managed data keys: data keys that are kept here, encrypted, under a name and in versions, for programs that all need the same one.

use serde::{Deserialize, Deserializer, Serialize};

use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{CmkId, DataKeyName, DataKeyVersionId};
use crate::limit;
use crate::operation::Bin;
use crate::time::Timestamp;

/// A data key that is kept here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManagedDataKey {
    /// The name.
    pub name: DataKeyName,
    /// The CMK that its versions are encrypted under.
    pub cmk: CmkId,
    /// How long it is, in bytes.
    pub bytes: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its versions, the oldest first; there is one at least.
    pub versions: Vec<DataKeyVersion>,
}

/// One version of a managed data key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataKeyVersion {
    /// The id.
    pub id: DataKeyVersionId,
    /// When it was made.
    pub created_at: Timestamp,
    /// The data key, encrypted under the CMK; its name and version are its encryption context.
    #[serde(deserialize_with = "owned")]
    pub blob: Bin<'static>,
}

fn owned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bin<'static>, D::Error> {
    Ok(Bin::deserialize(deserializer)?.into_owned())
}

impl ManagedDataKey {
    /// Returns the version that is asked for: the one named, or the latest, or the first, which is the one that everybody has used since the
    /// beginning.
    pub fn version(&self, id: Option<&DataKeyVersionId>, latest: bool) -> Option<&DataKeyVersion> {
        match id {
            Some(id) => self.versions.iter().find(|version| version.id == *id),
            None if latest => self.versions.last(),
            None => self.versions.first(),
        }
    }

    /// Checks that it takes another version.
    ///
    /// # Errors
    /// `LimitExceeded` where it has a hundred.
    pub fn check_new_version(&self) -> Result<()> {
        if self.versions.len() < limit::DATA_KEY_VERSIONS {
            return Ok(());
        }
        let why = format!("the data key has its limit of {} versions", limit::DATA_KEY_VERSIONS);
        Err(Error::new(ErrorKind::LimitExceeded(Limit::KeyVersions), why))
    }
}

/// Returns the encryption context of a version: its ciphertext opens as nothing else.
pub fn context_of_data_key(name: &DataKeyName, version: &DataKeyVersionId) -> EncryptionContext {
    let version = version.to_string();
    let pairs = [("keymill:managed-data-key", name.as_str()), ("keymill:version", &*version)];
    EncryptionContext::from_pairs(pairs).expect("two pairs of a bounded length")
}

/// Returns how a version is named as a whole, as the cloud's secrets are.
pub fn data_key_version_name(name: &DataKeyName, version: &DataKeyVersionId) -> String {
    format!("{name}/{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_its_id_or_is_the_first_or_the_last() {
        let version = |byte| DataKeyVersion {
            id: DataKeyVersionId::from_random([byte; 16]),
            created_at: Timestamp::from_ms(0),
            blob: vec![byte].into(),
        };
        let mut key = ManagedDataKey {
            name: "orders".parse().unwrap(),
            cmk: CmkId::from_random([9; 16]),
            bytes: 32,
            created_at: Timestamp::from_ms(0),
            versions: (1..=3).map(version).collect(),
        };
        let found = |id: Option<DataKeyVersionId>, latest| {
            key.version(id.as_ref(), latest).map(|version| version.blob[0])
        };
        assert_eq!((found(None, false), found(None, true)), (Some(1), Some(3)));
        assert_eq!(found(Some(version(2).id), false), Some(2));
        assert_eq!(found(Some(version(4).id), true), None);
        key.check_new_version().unwrap();
        key.versions = (0..100).map(version).collect();
        assert!(key.check_new_version().is_err());
    }
}
