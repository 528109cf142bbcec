//! Customer master keys: what they are, the states they pass through, and which change is legal in which state.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

mod external;
mod keeping;
mod managed;
mod spec;

pub use external::{Evidence, External, Fingerprint, KeyCheck, WrappingAlgorithm};
pub(crate) use keeping::interval_seconds;
pub use keeping::{RotationInterval, RotationPolicy, Tags, check_tag, check_tags};
pub use managed::{DataKeyVersion, ManagedDataKey, context_of_data_key, data_key_version_name};
pub use spec::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};

use crate::access::KeyPolicy;
use crate::blob::Algorithm;
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{AccessKeyId, CertificateId, CmkId, KeyVersionId};
use crate::limit;
use crate::seam::provider::StoredKey;
use crate::time::Timestamp;

/// Where key material comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Generated here.
    #[serde(rename = "Aliyun_KMS")]
    AliyunKms,
    /// Made by somebody else, in the token where it stays (beyond the cloud).
    #[serde(rename = "ADOPTED")]
    Adopted,
    /// Made by somebody else, and imported.
    #[serde(rename = "EXTERNAL")]
    External,
}

impl Origin {
    /// Returns the name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Origin::AliyunKms => "Aliyun_KMS",
            Origin::Adopted => "ADOPTED",
            Origin::External => "EXTERNAL",
        }
    }
}

/// Where key material lives in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtectionLevel {
    /// In this process's memory.
    #[serde(rename = "SOFTWARE")]
    Software,
    /// In a hardware security module.
    #[serde(rename = "HSM")]
    Hsm,
}

/// Where the AES-GCM of an HSM key runs; fixed for the key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BulkMode {
    /// Every item in the HSM.
    InHsm,
    /// On the CPU, under subkeys that the HSM derives.
    HsmDerived,
}

/// Where the material of an HSM key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyStorageMechanism {
    /// In the store, wrapped by the domain key, which never leaves the tokens: any token of the domain serves it.
    HsmEncryptedDatabase,
    /// As an object of one token.
    HsmInternal,
}

/// When a software copy of an HSM key may stand in for the HSM. Each allows what those before it do, so that the least of two is
/// what both allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// Never: there is no copy.
    #[default]
    Never,
    /// While no session of the HSM is up.
    Unavailable,
    /// Also while its queue is full.
    Saturated,
}

impl Fallback {
    /// Tells whether there is none.
    pub fn is_never(&self) -> bool {
        *self == Fallback::Never
    }

    /// Returns the name in requests, metrics and audit records.
    pub fn name(self) -> &'static str {
        match self {
            Fallback::Never => "never",
            Fallback::Unavailable => "unavailable",
            Fallback::Saturated => "saturated",
        }
    }
}

/// The state of a CMK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyState {
    /// May be used.
    Enabled,
    /// May not be used until enabled again.
    Disabled,
    /// Waits for its deletion.
    PendingDeletion,
    /// Waits for its material.
    PendingImport,
}

/// A change of state that a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyChange {
    /// `EnableKey`.
    Enable,
    /// `DisableKey`.
    Disable,
    /// `ScheduleKeyDeletion`.
    ScheduleDeletion,
    /// `CancelKeyDeletion`.
    CancelDeletion,
}

impl KeyState {
    /// Returns the state that `change` leads to, by the table of the cloud API.
    ///
    /// # Errors
    /// `StateConflict` where the change is not legal in this state.
    pub fn after(self, change: KeyChange) -> Result<Self> {
        use KeyChange::*;
        use KeyState::*;
        match (change, self) {
            (Enable, Enabled | Disabled) => Ok(Enabled),
            (Disable, Enabled | Disabled) => Ok(Disabled),
            (ScheduleDeletion, Enabled | Disabled | PendingImport) => Ok(PendingDeletion),
            (CancelDeletion, PendingDeletion) => Ok(Enabled),
            (Enable | Disable, PendingDeletion | PendingImport)
            | (ScheduleDeletion, PendingDeletion)
            | (CancelDeletion, Enabled | Disabled | PendingImport) => Err(Error::new(
                ErrorKind::StateConflict,
                format!("a key in state {self:?} does not allow this change"),
            )),
        }
    }

    /// Checks that a key in this state may be used.
    ///
    /// # Errors
    /// `KeyDisabled`, `KeyPendingDeletion` or `KeyPendingImport`.
    pub fn check_usable(self) -> Result<()> {
        let kind = match self {
            KeyState::Enabled => return Ok(()),
            KeyState::Disabled => ErrorKind::KeyDisabled,
            KeyState::PendingDeletion => ErrorKind::KeyPendingDeletion,
            KeyState::PendingImport => ErrorKind::KeyPendingImport,
        };
        Err(Error::new(kind, format!("the key is in state {self:?}")))
    }
}

/// Whether a key or a secret is rotated by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AutomaticRotation {
    /// It is.
    Enabled,
    /// It is not.
    Disabled,
    /// It would be, were it enabled.
    Suspended,
    /// It would be, had the configuration its rotator: of secrets alone.
    Invalid,
}

/// Whether a key is protected against deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeletionProtection {
    /// It is.
    Enabled,
    /// It is not.
    Disabled,
}

/// A customer master key: its metadata and the versions of its material. There may be a million of them in memory, so that what few have
/// takes little room where it is absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cmk {
    /// The id.
    pub id: CmkId,
    /// The kind of material.
    pub spec: KeySpec,
    /// What it may be used for.
    pub usage: KeyUsage,
    /// Where its material comes from.
    pub origin: Origin,
    /// Where its material lives in clear.
    pub protection: ProtectionLevel,
    /// For an HSM key: where AES-GCM runs.
    pub bulk_mode: Option<BulkMode>,
    /// For an HSM key: when its software copy may stand in; it has one where that is not never.
    #[serde(default, skip_serializing_if = "Fallback::is_never")]
    pub fallback: Fallback,
    /// For a key whose material stays in one token (`HsmInternal`): the serial number of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_serial: Option<Box<str>>,
    /// The state.
    pub state: KeyState,
    /// Free text.
    pub description: Box<str>,
    /// Who created it.
    pub creator: AccessKeyId,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it is to be deleted, in state `PendingDeletion`.
    pub delete_at: Option<Timestamp>,
    /// That it is rotated by itself, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationPolicy>,
    /// Why it is protected against deletion, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<Box<str>>,
    /// Its own policy, where it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<KeyPolicy>,
    /// Text of the users' own.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Of a key whose material is imported (`EXTERNAL`): what is known of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<External>>,
    /// The certificate that it is the key of, where it is one's: nothing else leads to it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Box<CertificateId>>,
    /// The versions, by number; the last is the primary one. A key whose material is imported has one, also while that is not here.
    pub versions: KeyVersions,
}

/// The versions of a CMK; most have one, which stands in its place.
pub type KeyVersions = SmallVec<[KeyVersion; 1]>;

/// One generation of a CMK's material; the material itself is a record of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyVersion {
    /// The number, from 1; it stands in every blob and is never given twice.
    pub number: u32,
    /// The id that the API shows.
    pub id: KeyVersionId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a dialect needs to know of a key whose requests leave it out: how it is done, and with which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySketch {
    /// The kind of material.
    pub spec: KeySpec,
    /// What it is for.
    pub usage: KeyUsage,
    /// Its first version.
    pub first_version: KeyVersionId,
}

impl Cmk {
    /// Returns the version that encrypts.
    pub fn primary(&self) -> &KeyVersion {
        self.versions.last().expect("a CMK is created with its first version")
    }

    /// Tells whether it is rotated by itself.
    pub fn automatic_rotation(&self) -> AutomaticRotation {
        match (&self.rotation, self.state) {
            (None, _) => AutomaticRotation::Disabled,
            (Some(_), KeyState::Disabled | KeyState::PendingDeletion) => AutomaticRotation::Suspended,
            (Some(_), KeyState::Enabled | KeyState::PendingImport) => AutomaticRotation::Enabled,
        }
    }

    /// Returns where its material is kept; `None` for a key of software.
    pub fn storage(&self) -> Option<KeyStorageMechanism> {
        match (self.protection, &self.token_serial) {
            (ProtectionLevel::Software, _) => None,
            (ProtectionLevel::Hsm, None) => Some(KeyStorageMechanism::HsmEncryptedDatabase),
            (ProtectionLevel::Hsm, Some(_)) => Some(KeyStorageMechanism::HsmInternal),
        }
    }

    /// Checks that the key takes a new version of `CreateKeyVersion` at `now`: key pairs that are generated here alone, a week after the last
    /// one, up to fifty.
    ///
    /// # Errors
    /// `Unsupported`, `LimitExceeded`, or `StateConflict` where it is too early.
    pub fn check_new_version(&self, now: Timestamp) -> Result<()> {
        if !self.spec.is_key_pair() || self.origin != Origin::AliyunKms {
            let why = "CreateKeyVersion is for key pairs that are generated here";
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        if self.versions.len() >= limit::KEY_VERSIONS {
            let why = format!("the key has its limit of {} versions", limit::KEY_VERSIONS);
            return Err(Error::new(ErrorKind::LimitExceeded(Limit::KeyVersions), why));
        }
        let last = self.primary().created_at;
        let next = last.plus(Duration::from_secs(limit::KEY_VERSION_DAYS * 86_400));
        // A clock that was ahead when the last one was made does not keep the next one off for ever.
        match last <= now && now < next {
            true => {
                let why = format!("the last version is of {last}: the next one can be made from {next} on");
                Err(Error::new(ErrorKind::StateConflict, why))
            }
            false => Ok(()),
        }
    }

    /// Checks that `RotateKey` may make one more version of a symmetric key.
    ///
    /// # Errors
    /// `LimitExceeded` where it has as many as that may make.
    pub fn check_rotation(&self) -> Result<()> {
        limit::check_room(self.versions.len(), limit::SYMMETRIC_KEY_VERSIONS, Limit::KeyVersions)
    }

    /// Returns how blobs of this key are sealed; `None` where it seals none.
    pub fn algorithm(&self) -> Option<Algorithm> {
        sealed_by(self.spec, self.bulk_mode)
    }
}

/// Returns how blobs of keys of `spec` are sealed, in software or in that bulk mode of a token; `None` where there are none.
pub fn sealed_by(spec: KeySpec, mode: Option<BulkMode>) -> Option<Algorithm> {
    match (spec, mode) {
        (KeySpec::Aes256, None | Some(BulkMode::HsmDerived)) => Some(Algorithm::Xaes256Gcm),
        (KeySpec::Aes256, Some(BulkMode::InHsm)) => Some(Algorithm::Aes256Gcm),
        (KeySpec::Aes192, None | Some(BulkMode::InHsm)) => Some(Algorithm::Aes192Gcm),
        (KeySpec::Aes128, None | Some(BulkMode::InHsm)) => Some(Algorithm::Aes128Gcm),
        (KeySpec::Sm4, None | Some(BulkMode::InHsm)) => Some(Algorithm::Sm4Gcm),
        // The subkeys of XAES come from a key of 256 bits.
        (KeySpec::Aes192 | KeySpec::Aes128 | KeySpec::Sm4, Some(BulkMode::HsmDerived)) => None,
        (
            KeySpec::Rsa2048
            | KeySpec::Rsa3072
            | KeySpec::Rsa4096
            | KeySpec::EcP256
            | KeySpec::EcP384
            | KeySpec::EcP256K
            | KeySpec::Ed25519
            | KeySpec::MlDsa65
            | KeySpec::EcSm2
            | KeySpec::HmacSha256
            | KeySpec::HmacSha384
            | KeySpec::HmacSha512,
            _,
        ) => None,
    }
}

/// The stored material of one key version.
#[derive(Serialize, Deserialize)]
pub struct KeyVersionMaterial {
    /// The version that it belongs to.
    pub id: KeyVersionId,
    /// The material as the provider wants it back.
    pub key: StoredKey,
    /// Of an HSM key that may fall back: the same material as a software provider wants it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<StoredKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_two_fallbacks_is_what_both_allow() {
        use Fallback::*;
        assert_eq!((Saturated.min(Never), Saturated.min(Unavailable)), (Never, Unavailable));
        for fallback in [Never, Unavailable, Saturated] {
            let name = format!("\"{}\"", fallback.name());
            assert_eq!(serde_json::to_string(&fallback).unwrap(), name);
            assert_eq!(serde_json::from_str::<Fallback>(&name).unwrap(), fallback);
        }
    }

    #[test]
    fn material_of_before_there_were_copies_has_none() {
        let old = r#"{"id":"00000000-0000-4000-8000-000000000000","key":
            {"spec":"Aliyun_AES_256","bulk_mode":"InHsm","material":[1,"AQID"]}}"#;
        let material: KeyVersionMaterial = serde_json::from_str(old).unwrap();
        assert!(material.copy.is_none());
    }

    /// Rows: Enabled, Disabled, PendingDeletion, PendingImport, as `state` in the cloud's table of operations.
    #[test]
    fn every_change_in_every_state_is_as_the_cloud_has_it() {
        use KeyState::*;
        let states = [Enabled, Disabled, PendingDeletion, PendingImport];
        for (change, expected) in [
            (KeyChange::Enable, [Some(Enabled), Some(Enabled), None, None]),
            (KeyChange::Disable, [Some(Disabled), Some(Disabled), None, None]),
            (
                KeyChange::ScheduleDeletion,
                [Some(PendingDeletion), Some(PendingDeletion), None, Some(PendingDeletion)],
            ),
            (KeyChange::CancelDeletion, [None, None, Some(Enabled), None]),
        ] {
            for (state, expected) in states.into_iter().zip(expected) {
                match (state.after(change), expected) {
                    (Ok(got), Some(expected)) => assert_eq!(got, expected),
                    (Err(error), None) => assert_eq!(error.kind(), ErrorKind::StateConflict),
                    (got, expected) => panic!("{change:?} in {state:?}: {got:?}, expected {expected:?}"),
                }
            }
        }
    }
}
