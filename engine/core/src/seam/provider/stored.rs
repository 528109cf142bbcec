//! A key as it stands in the store: its material, and what the provider must know of it beside.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

impl StoredKey {
    /// Returns where it lives, of a key that stays in its token.
    pub fn token_object(&self) -> Option<&TokenObject> {
        match &self.material {
            KeyMaterial::TokenObject(object) => Some(object),
            KeyMaterial::Clear(_) | KeyMaterial::Wrapped(_) => None,
        }
    }
}

/// The bytes of a stored key.
pub enum KeyMaterial {
    /// Clear bytes of a software key: the engine seals the record they stand in.
    Clear(Sensitive),
    /// Bytes that only a token of the domain can unwrap.
    Wrapped(Vec<u8>),
    /// An object that stays in its token (`HsmInternal`): no other token has it.
    TokenObject(TokenObject),
}

/// A key to be taken over that is in a token already, made by somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    /// What it is.
    pub spec: KeySpec,
    /// The one usage that it is to have, which must be the only one that it has.
    pub usage: KeyUsage,
    /// For an AES key: where AES-GCM runs.
    pub bulk_mode: Option<BulkMode>,
    /// Its label (`CKA_LABEL`), where it is named by that.
    pub label: Option<String>,
    /// Its id (`CKA_ID`), where it is named by that.
    pub id: Option<Vec<u8>>,
}

/// Where a key lives that stays in its token, and how it is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenObject {
    /// Whether somebody else made it: it is not destroyed with its CMK.
    pub adopted: bool,
    /// The serial number of the token.
    pub serial: String,
    /// The label that the key had when it was made or taken over, for people.
    pub label: String,
    /// The id that it is found by.
    pub id: Vec<u8>,
    /// What it must do to be the same key; the provider's own.
    pub check: Vec<u8>,
}

/// The version of [`TokenObject`] in bytes.
const TOKEN_OBJECT_VERSION: u8 = 1;

impl TokenObject {
    /// Writes version, whether it is adopted, then serial number, label, id and check, each behind its length in two bytes.
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut out = vec![TOKEN_OBJECT_VERSION, u8::from(self.adopted)];
        for field in [self.serial.as_bytes(), self.label.as_bytes(), &self.id, &self.check] {
            out.extend(u16::try_from(field.len()).ok()?.to_be_bytes());
            out.extend(field);
        }
        Some(out)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (adopted, mut rest) = match bytes.strip_prefix(&[TOKEN_OBJECT_VERSION])?.split_first()? {
            (flag @ (0 | 1), rest) => (*flag == 1, rest),
            _ => return None,
        };
        let mut field = || {
            let (length, behind) = rest.split_first_chunk()?;
            let (field, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = behind;
            Some(field.to_vec())
        };
        let (serial, label, id, check) = (field()?, field()?, field()?, field()?);
        let (serial, label) = (String::from_utf8(serial).ok()?, String::from_utf8(label).ok()?);
        rest.is_empty().then_some(Self { adopted, serial, label, id, check })
    }
}

impl Serialize for KeyMaterial {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let object;
        let (kind, bytes) = match self {
            KeyMaterial::Clear(bytes) => (0u8, bytes.expose()),
            KeyMaterial::Wrapped(bytes) => (1, bytes.as_slice()),
            KeyMaterial::TokenObject(token_object) => {
                let too_long = || serde::ser::Error::custom("a field of a token object is too long");
                object = token_object.to_bytes().ok_or_else(too_long)?;
                (2, object.as_slice())
            }
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
            2 => TokenObject::from_bytes(&bytes)
                .map(KeyMaterial::TokenObject)
                .ok_or_else(|| serde::de::Error::custom("no token object of a known version")),
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

    /// Reads PEM (RFC 7468, 13): one block, white space around it; `None` where it is none. What is in it is not looked at.
    pub fn from_pem(text: &str) -> Option<Self> {
        // A key of RSA-4096 has 550 bytes.
        const MOST: usize = 4_096;
        let text = text.trim();
        let body =
            text.strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
        let base64: String = body.chars().filter(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).collect();
        STANDARD.decode(&base64).ok().filter(|der| !der.is_empty() && text.len() <= MOST).map(Self)
    }

    /// Returns it in PEM (RFC 7468, 13), with a new line at its end.
    pub fn to_pem(&self) -> String {
        let pem = pem("PUBLIC KEY", &self.0);
        String::from_utf8(pem.expose().to_vec()).expect("base64 and its label are ASCII")
    }
}

/// Writes PKCS #8 of a private key in PEM (RFC 7468, 10), with a new line at its end.
pub fn private_key_pem(pkcs8: &Sensitive) -> Sensitive {
    pem("PRIVATE KEY", pkcs8.expose())
}

/// Writes PEM, of which no copy stays behind.
fn pem(label: &str, der: &[u8]) -> Sensitive {
    /// Bytes that make a line of 64 characters.
    const LINE: usize = 48;
    let (begin, end) = (format!("-----BEGIN {label}-----\n"), format!("-----END {label}-----\n"));
    let body = der.len().div_ceil(3) * 4 + der.len().div_ceil(LINE);
    let mut pem = Sensitive::zeroed(begin.len() + body + end.len());
    let (first, rest) = pem.expose_mut().split_at_mut(begin.len());
    first.copy_from_slice(begin.as_bytes());
    let (mut rest, last) = rest.split_at_mut(body);
    last.copy_from_slice(end.as_bytes());
    for line in der.chunks(LINE) {
        let written = STANDARD.encode_slice(line, rest).expect("there is room for each line");
        rest[written] = b'\n';
        rest = &mut rest[written + 1..];
    }
    pem
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

    #[test]
    fn pem_has_lines_of_64_characters_and_nothing_else() {
        for length in [0, 1, 47, 48, 49, 96, 97, 1_217] {
            let der: Vec<u8> = (0..length).map(|i| (i * 37) as u8).collect();
            let written = private_key_pem(&Sensitive::copied(&der));
            let text = std::str::from_utf8(written.expose()).unwrap();
            let body = text.strip_prefix("-----BEGIN PRIVATE KEY-----\n").unwrap();
            let body = body.strip_suffix("-----END PRIVATE KEY-----\n").unwrap();
            let lines: Vec<&str> = body.lines().collect();
            assert!(lines.iter().rev().skip(1).all(|line| line.len() == 64), "{text}");
            assert_eq!(STANDARD.decode(lines.concat()).unwrap(), der);
            assert_eq!(body.len(), lines.iter().map(|line| line.len() + 1).sum::<usize>());
        }
        let public = PublicKey::from_der(vec![7; 91]).to_pem();
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----\nBwcH") && public.lines().count() == 4);
    }

    #[test]
    fn a_token_object_is_the_same_when_it_is_read_again_and_no_piece_of_it_is_one() {
        let object = TokenObject {
            adopted: true,
            serial: "0123".into(),
            label: "payments".into(),
            id: vec![7; 16],
            check: vec![1, 2, 3],
        };
        let bytes = object.to_bytes().unwrap();
        assert_eq!(bytes[..8], [1, 1, 0, 4, b'0', b'1', b'2', b'3']);
        assert_eq!(TokenObject::from_bytes(&bytes).unwrap(), object);
        for length in 0..bytes.len() {
            assert!(TokenObject::from_bytes(&bytes[..length]).is_none(), "{length} bytes");
        }
        assert!(TokenObject::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
        assert!(TokenObject::from_bytes(&[&[2], &bytes[1..]].concat()).is_none());
        assert!(TokenObject::from_bytes(&[&[1, 2], &bytes[2..]].concat()).is_none());
        let text = serde_json::to_string(&KeyMaterial::TokenObject(object.clone())).unwrap();
        let again: KeyMaterial = serde_json::from_str(&text).unwrap();
        assert!(matches!(again, KeyMaterial::TokenObject(again) if again == object));
        let long = TokenObject { id: vec![0; 0x1_0000], ..object };
        assert!(serde_json::to_string(&KeyMaterial::TokenObject(long)).is_err());
    }
}
