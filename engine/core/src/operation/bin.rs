//! Bytes in a request or reply: `bin` in MessagePack, borrowed from the frame; strict base64 (RFC 4648 §4, padded, no white
//! space, no spare bits) in JSON. Neither encoding takes text for bytes or bytes for text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A byte field. It may hold a plaintext or a key, so `Debug` tells its length alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bin<'a>(Cow<'a, [u8]>);

impl Bin<'_> {
    /// Takes the bytes, copying them where they are borrowed.
    pub fn into_owned(self) -> Bin<'static> {
        Bin(Cow::Owned(self.0.into_owned()))
    }

    /// Takes the bytes as a vector.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_owned()
    }
}

impl Deref for Bin<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> From<&'a [u8]> for Bin<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Bin(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Bin<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Bin(Cow::Owned(bytes))
    }
}

impl fmt::Debug for Bin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bin<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bin<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Base64)
        } else {
            deserializer.deserialize_bytes(Bytes)
        }
    }
}

struct Bytes;

impl<'de> de::Visitor<'de> for Bytes {
    type Value = Bin<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }
    fn visit_borrowed_bytes<E>(self, v: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Bin(Cow::Borrowed(v)))
    }
    fn visit_bytes<E>(self, v: &[u8]) -> Result<Self::Value, E> {
        Ok(Bin(Cow::Owned(v.to_vec())))
    }
    fn visit_byte_buf<E>(self, v: Vec<u8>) -> Result<Self::Value, E> {
        Ok(Bin(Cow::Owned(v)))
    }
}

struct Base64;

impl<'de> de::Visitor<'de> for Base64 {
    type Value = Bin<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }
    // The decoder's own error quotes the offending byte; a plaintext must not come back in an error.
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        STANDARD.decode(v).map(|bytes| Bin(Cow::Owned(bytes))).map_err(|_| E::custom("not padded base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messagepack_borrows_and_takes_bin_only() {
        let frame = rmp_serde::to_vec(&Bin::from(&b"abc"[..])).unwrap();
        assert_eq!(frame[0], 0xc4, "bin8, not an array of integers");
        let back: Bin<'_> = rmp_serde::from_slice(&frame).unwrap();
        assert!(matches!(back.0, Cow::Borrowed(b"abc")));
        assert!(rmp_serde::from_slice::<Bin<'_>>(&rmp_serde::to_vec("abc").unwrap()).is_err());
        assert!(rmp_serde::from_slice::<Bin<'_>>(&rmp_serde::to_vec(&[1u8, 2]).unwrap()).is_err());
        let text = rmp_serde::to_vec(&Bin::from(&b"key"[..])).unwrap();
        assert!(rmp_serde::from_slice::<crate::id::KeyRef>(&text).is_err(), "bytes do not stand for text");
    }

    #[test]
    fn json_takes_one_spelling_of_each_value() {
        assert_eq!(&*serde_json::from_str::<Bin<'_>>("\"YQ==\"").unwrap(), b"a");
        for bad in ["\"YQ\"", "\"YR==\"", "\"YQ== \"", "\"Y Q==\"", "\"_w==\"", "[97]", "null", "97"] {
            let error = serde_json::from_str::<Bin<'_>>(bad).unwrap_err().to_string();
            assert!(!error.contains("YR"), "{error}");
        }
    }
}
