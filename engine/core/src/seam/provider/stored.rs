//! A key as it stands in the store: its material, and what the provider must know of it beside.

use serde::{Deserialize, Serialize};

use crate::key::{BulkMode, KeySpec, KeyUsage};
use crate::operation::Bin;
use crate::sensitive::Sensitive;

/// Key material as it is stored.
#[derive(Serialize, Deserialize)]
pub struct StoredKey {
    /// The kind of material.
    pub spec: KeySpec,
    /// The one usage that it has: an HSM key is loaded for no other.
    #[serde(default)]
    pub usage: KeyUsage,
    /// For a symmetric key of an HSM that encrypts: where AES-GCM runs.
    pub bulk_mode: Option<BulkMode>,
    /// The material.
    pub material: KeyMaterial,
    /// The public half of a key pair: SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
}

/// The bytes of a stored key.
pub enum KeyMaterial {
    /// Clear bytes of a software key: the engine seals the record they stand in.
    Clear(Sensitive),
    /// Bytes that only a token of the domain can unwrap.
    Wrapped(Vec<u8>),
}

impl Serialize for KeyMaterial {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let (kind, bytes) = match self {
            KeyMaterial::Clear(bytes) => (0u8, bytes.expose()),
            KeyMaterial::Wrapped(bytes) => (1, bytes.as_slice()),
        };
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&kind)?;
        tuple.serialize_element(&Bin::from(bytes))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for KeyMaterial {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, bytes) = <(u8, Bin<'de>)>::deserialize(deserializer)?;
        match kind {
            0 => Ok(KeyMaterial::Clear(Sensitive::copied(&bytes))),
            1 => Ok(KeyMaterial::Wrapped(bytes.to_vec())),
            _ => Err(serde::de::Error::custom("unknown kind of key material")),
        }
    }
}

/// The public half of a key pair: SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Takes the encoding as a provider made it.
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// Returns the encoding.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Bin::from(self.as_der()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Bin::deserialize(deserializer)?.into_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_before_key_pairs_is_a_key_that_encrypts() {
        let old = r#"{"spec":"Aliyun_AES_256","bulk_mode":null,"material":[0,"AQID"]}"#;
        let key: StoredKey = serde_json::from_str(old).unwrap();
        assert_eq!((key.usage, key.public_key), (KeyUsage::EncryptDecrypt, None));
    }

    #[test]
    fn a_key_pair_keeps_its_public_half() {
        let public_key = Some(PublicKey::from_der(vec![0x30, 1, 2]));
        let key = StoredKey {
            spec: KeySpec::EcP256,
            usage: KeyUsage::SignVerify,
            bulk_mode: None,
            material: KeyMaterial::Wrapped(vec![7; 80]),
            public_key: public_key.clone(),
        };
        let again: StoredKey = serde_json::from_str(&serde_json::to_string(&key).unwrap()).unwrap();
        assert_eq!((again.usage, again.public_key), (KeyUsage::SignVerify, public_key));
    }
}
