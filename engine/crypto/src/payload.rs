//! How the payload of a stored record is encoded: MessagePack maps by name, so that a later version can add fields. Here rather
//! than in the runtime, since what is encoded is about to be sealed and its bytes must be wiped.

use std::fmt;

use keymill_core::{Error, Sensitive};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes a record.
///
/// # Errors
/// `Internal` where a value has no encoding.
pub fn encode<T: Serialize>(record: &T) -> Result<Sensitive, Error> {
    // Room enough that the vector does not grow, which would leave copies behind.
    let mut bytes = Vec::with_capacity(16 * 1024);
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    let outcome = record.serialize(&mut serializer);
    let bytes = Sensitive::new(bytes);
    outcome.map(|()| bytes).map_err(|_| Error::internal("a record has no encoding"))
}

/// Decodes a record.
///
/// # Errors
/// [`NotDecoded`]; it names no value.
pub fn decode<T: DeserializeOwned>(payload: &Sensitive) -> Result<T, NotDecoded> {
    rmp_serde::from_slice(payload.expose()).map_err(|_| NotDecoded)
}

/// The payload holds something else than what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDecoded;

impl fmt::Display for NotDecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the record opens, but does not decode")
    }
}

impl std::error::Error for NotDecoded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_go_by_name_and_another_record_does_not_decode() {
        #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
        struct Old {
            a: u8,
        }
        #[derive(serde::Serialize, serde::Deserialize)]
        struct New {
            a: u8,
            b: Option<String>,
        }
        let payload = encode(&New { a: 7, b: Some("x".into()) }).unwrap();
        assert_eq!(decode::<Old>(&payload).unwrap(), Old { a: 7 });
        assert_eq!(decode::<New>(&encode(&Old { a: 7 }).unwrap()).unwrap().b, None);
        assert_eq!(decode::<Old>(&Sensitive::copied(b"\xc0")), Err(NotDecoded));
    }
}
