//! Key material that was made elsewhere and is imported (`Origin` `EXTERNAL`): how it is wrapped on its way, what is kept of it, and
//! what its coming and going make of a key.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cmk, DecryptAlgorithm, KeyChange, KeyState};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Bin;
use crate::time::Timestamp;

/// How key material is wrapped for its import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WrappingAlgorithm {
    /// RSAES-OAEP with SHA-1, in MGF1, too, and no label.
    #[serde(rename = "RSAES_OAEP_SHA_1")]
    RsaesOaepSha1,
    /// RSAES-OAEP with SHA-256, in MGF1, too, and no label.
    #[serde(rename = "RSAES_OAEP_SHA_256")]
    RsaesOaepSha256,
    /// An AES key of 256 bits of the caller's making under RSAES-OAEP with SHA-256, as many bytes as the modulus, and behind it the material
    /// under that key by AES key wrap with padding (RFC 5649): for material that is longer than OAEP takes.
    #[serde(rename = "RSA_AES_KEY_WRAP_SHA_256")]
    RsaAesKeyWrapSha256,
    /// RSAES-PKCS1-v1_5: the cloud's, and not offered here, since what it tells of a padding opens it, and neither aws-lc nor a token decrypts
    /// it without telling (implicit rejection).
    #[serde(rename = "RSAES_PKCS1_V1_5")]
    RsaesPkcs1V15,
    /// SM2 public-key encryption: the cloud's, and not offered here.
    #[serde(rename = "SM2PKE")]
    Sm2Pke,
}

impl WrappingAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            WrappingAlgorithm::RsaesOaepSha1 => "RSAES_OAEP_SHA_1",
            WrappingAlgorithm::RsaesOaepSha256 => "RSAES_OAEP_SHA_256",
            WrappingAlgorithm::RsaAesKeyWrapSha256 => "RSA_AES_KEY_WRAP_SHA_256",
            WrappingAlgorithm::RsaesPkcs1V15 => "RSAES_PKCS1_V1_5",
            WrappingAlgorithm::Sm2Pke => "SM2PKE",
        }
    }

    /// Tells whether what it wraps may be as long as a private key: a symmetric key takes it there, and is wrapped itself.
    pub fn is_hybrid(self) -> bool {
        self == WrappingAlgorithm::RsaAesKeyWrapSha256
    }

    /// Returns how the wrapping key opens what it wrapped; `None` where that is not offered.
    pub fn decryption(self) -> Option<DecryptAlgorithm> {
        match self {
            WrappingAlgorithm::RsaesOaepSha1 => Some(DecryptAlgorithm::RsaesOaepSha1),
            WrappingAlgorithm::RsaesOaepSha256 | WrappingAlgorithm::RsaAesKeyWrapSha256 => {
                Some(DecryptAlgorithm::RsaesOaepSha256)
            }
            WrappingAlgorithm::RsaesPkcs1V15 | WrappingAlgorithm::Sm2Pke => None,
        }
    }
}

/// What imported material is known again by: a keyed hash of it and of the CMK that it belongs to.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Takes the hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Tells whether both are of the same material, in the same time for any two.
    pub fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

/// What material in a token is known again by, where nobody else may see it: what it makes there of a text that is kept for this, or the
/// public half of a key pair. The provider's own.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyCheck(Vec<u8>);

impl KeyCheck {
    /// Takes it as a provider made it.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns it for the provider.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyCheck of {} bytes", self.0.len())
    }
}

impl Serialize for KeyCheck {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Bin::from(self.as_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyCheck {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self(Bin::deserialize(deserializer)?.into_vec()))
    }
}

/// What shows of material that was imported whether it is the one of before.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// Of material in software.
    Fingerprint(Fingerprint),
    /// Of material in a token.
    Check(KeyCheck),
}

/// What is known of the material of a key that is imported.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct External {
    /// Of the one material that the key ever has, from its first import on; kept as long as the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// The same of a key in a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<KeyCheck>,
    /// Whether the material is here.
    #[serde(default)]
    pub is_present: bool,
    /// When it is deleted by itself; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl External {
    /// Tells whether material is the one that the key has had, or its first.
    fn allows(&self, evidence: &Evidence) -> bool {
        match (evidence, &self.fingerprint, &self.check) {
            (_, None, None) => true,
            (Evidence::Fingerprint(of), Some(known), _) => known.is(of),
            (Evidence::Check(of), _, Some(known)) => known == of,
            // It would be another kind of key.
            (Evidence::Fingerprint(_), None, Some(_)) | (Evidence::Check(_), Some(_), None) => false,
        }
    }
}

impl Cmk {
    /// Returns the state that `change` leads to: as [`KeyState::after`] has it, but that a key without its material is not enabled.
    ///
    /// # Errors
    /// `StateConflict` where the change is not legal in this state.
    pub fn after(&self, change: KeyChange) -> Result<KeyState> {
        let is_absent = self.external.as_ref().is_some_and(|external| !external.is_present);
        match self.state.after(change)? {
            KeyState::Enabled if is_absent => Ok(KeyState::PendingImport),
            state => Ok(state),
        }
    }

    /// Checks that material may be imported now.
    ///
    /// # Errors
    /// `UnsupportedOrigin` for a key whose material is not; `StateConflict` for one that waits for its deletion.
    pub fn check_importable(&self) -> Result<&External> {
        let external = self.external.as_ref().ok_or_else(Error::not_external)?;
        match self.state {
            KeyState::PendingDeletion => Err(Error::new(
                ErrorKind::StateConflict,
                "a key that waits for its deletion takes no key material",
            )),
            KeyState::Enabled | KeyState::Disabled | KeyState::PendingImport => Ok(external),
        }
    }

    /// Returns what an import makes of the key: one that waits for its material is enabled, and where it is there already, it expires anew.
    ///
    /// # Errors
    /// As of [`Self::check_importable`]; `InvalidKeyMaterial` for other material than it ever had.
    pub fn with_material(&self, evidence: Evidence, expires_at: Option<Timestamp>) -> Result<Self> {
        if !self.check_importable()?.allows(&evidence) {
            return Err(Error::invalid_key_material());
        }
        let mut cmk = self.clone();
        let (fingerprint, check) = match evidence {
            Evidence::Fingerprint(fingerprint) => (Some(fingerprint), None),
            Evidence::Check(check) => (None, Some(check)),
        };
        cmk.external = Some(Box::new(External { fingerprint, check, is_present: true, expires_at }));
        if cmk.state == KeyState::PendingImport {
            cmk.state = KeyState::Enabled;
        }
        Ok(cmk)
    }

    /// Returns what is left when the material goes: a key that waits for it, or for its deletion, and knows it again.
    ///
    /// # Errors
    /// `UnsupportedOrigin` for a key whose material is not imported.
    pub fn without_material(&self) -> Result<Self> {
        let before = self.external.as_ref().ok_or_else(Error::not_external)?;
        let mut cmk = self.clone();
        let external = External { is_present: false, expires_at: None, ..(**before).clone() };
        cmk.external = Some(Box::new(external));
        if cmk.state != KeyState::PendingDeletion {
            cmk.state = KeyState::PendingImport;
        }
        Ok(cmk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AccessKeyId, CmkId, KeyVersionId};
    use crate::key::{Fallback, KeySpec, KeyUsage, KeyVersion, KeyVersions, Origin, ProtectionLevel, Tags};

    fn cmk(state: KeyState, external: Option<External>) -> Cmk {
        let version = KeyVersion {
            number: 1,
            id: KeyVersionId::from_random([3; 16]),
            created_at: Timestamp::from_ms(1),
        };
        Cmk {
            id: CmkId::from_random([1; 16]),
            spec: KeySpec::Aes256,
            usage: KeyUsage::EncryptDecrypt,
            origin: if external.is_some() { Origin::External } else { Origin::AliyunKms },
            protection: ProtectionLevel::Software,
            bulk_mode: None,
            fallback: Fallback::Never,
            token_serial: None,
            state,
            description: Box::default(),
            creator: "tester-01".parse::<AccessKeyId>().unwrap(),
            created_at: Timestamp::from_ms(1),
            delete_at: None,
            rotation: None,
            deletion_protection: None,
            policy: None,
            tags: Tags::new(),
            certificate: None,
            external: external.map(Box::new),
            versions: KeyVersions::from([version]),
        }
    }

    fn print(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    fn of(byte: u8) -> Evidence {
        Evidence::Fingerprint(print(byte))
    }

    fn check_of(byte: u8) -> Evidence {
        Evidence::Check(KeyCheck::from_bytes(vec![byte; 80]))
    }

    #[test]
    fn material_comes_and_goes_and_comes_again_but_never_another() {
        use KeyState::*;
        let new = cmk(PendingImport, Some(External::default()));
        let soon = Some(Timestamp::from_ms(9));
        let key = new.with_material(of(1), soon).unwrap();
        assert_eq!((key.state, key.external.as_ref().unwrap().expires_at), (Enabled, soon));
        let gone = key.without_material().unwrap();
        let external = gone.external.as_ref().unwrap();
        assert_eq!((gone.state, external.is_present, external.expires_at), (PendingImport, false, None));
        for key in [&gone, &key] {
            let error = key.with_material(of(2), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidKeyMaterial);
        }
        assert_eq!(gone.with_material(of(1), None).unwrap().state, Enabled);
        // It stays as its owner left it.
        let disabled = Cmk { state: Disabled, ..key.clone() };
        let again = disabled.with_material(of(1), None).unwrap();
        assert_eq!((again.state, again.external.unwrap().expires_at), (Disabled, None));
        assert_eq!(disabled.without_material().unwrap().state, PendingImport);
    }

    #[test]
    fn a_key_that_waits_for_its_deletion_takes_none_and_comes_back_waiting_for_it() {
        use KeyState::*;
        let key = cmk(PendingImport, Some(External::default())).with_material(of(1), None).unwrap();
        let doomed = Cmk { state: PendingDeletion, ..key };
        assert_eq!(doomed.with_material(of(1), None).unwrap_err().kind(), ErrorKind::StateConflict);
        assert_eq!(doomed.after(KeyChange::CancelDeletion).unwrap(), Enabled);
        let doomed = doomed.without_material().unwrap();
        assert_eq!(doomed.state, PendingDeletion);
        assert_eq!(doomed.after(KeyChange::CancelDeletion).unwrap(), PendingImport);
    }

    #[test]
    fn a_key_that_was_made_here_takes_none() {
        let key = cmk(KeyState::Enabled, None);
        assert_eq!(key.with_material(of(1), None).unwrap_err().kind(), ErrorKind::UnsupportedOrigin);
        assert_eq!(key.without_material().unwrap_err().kind(), ErrorKind::UnsupportedOrigin);
    }

    #[test]
    fn a_fingerprint_is_another_where_one_bit_is_and_is_not_shown() {
        for bit in 0..256 {
            let mut bytes = [7; 32];
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Fingerprint::from_bytes(bytes).is(&print(7)), "bit {bit}");
        }
        assert!(print(7).is(&print(7)));
        assert_eq!(format!("{:?}", print(7)), "Fingerprint");
    }

    #[test]
    fn material_in_a_token_is_known_by_its_check_and_by_nothing_else() {
        let new = cmk(KeyState::PendingImport, Some(External::default()));
        let key = new.with_material(check_of(1), None).unwrap();
        let gone = key.without_material().unwrap();
        for key in [&key, &gone] {
            assert!(key.with_material(check_of(1), None).is_ok());
            for other in [check_of(2), of(1), Evidence::Check(KeyCheck::from_bytes(vec![1; 79]))] {
                let error = key.with_material(other, None).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidKeyMaterial);
            }
        }
        let in_software = new.with_material(of(1), None).unwrap();
        assert!(in_software.with_material(check_of(1), None).is_err());
        // Neither is lost on its way to the store, and records of before there were checks have none.
        let text = serde_json::to_string(gone.external.as_ref().unwrap()).unwrap();
        let read: External = serde_json::from_str(&text).unwrap();
        assert_eq!(read.check.unwrap().as_bytes(), [1; 80]);
        let old: External = serde_json::from_str(r#"{"is_present":true}"#).unwrap();
        assert!(old.check.is_none() && old.is_present);
        assert_eq!(format!("{:?}", check_of(1)), "Check(KeyCheck of 80 bytes)");
    }
}
