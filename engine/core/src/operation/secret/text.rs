//! The value of a secret on its way: shown nowhere, and wiped where it was copied.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::id::Text;
use crate::limit;
use crate::sensitive::Sensitive;

/// The value of a secret, or a password.
pub struct SecretText<'a>(Held<'a>);

// No `Drop` of our own: a reply that borrows would then hold what it borrows from to the end of its scope.
enum Held<'a> {
    Lent(&'a str),
    Copied(Zeroizing<String>),
}

impl SecretText<'_> {
    /// Lends the text.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Held::Lent(text) => text,
            Held::Copied(text) => text,
        }
    }

    /// Takes it for the value of a secret.
    ///
    /// # Errors
    /// `InvalidParameter` for one that is empty or longer than 30,720 bytes.
    pub fn into_value(self) -> Result<Sensitive> {
        match self.expose().len() {
            0 => Err(Error::new(ErrorKind::InvalidParameter, "SecretData is empty")),
            1..=limit::SECRET_BYTES => Ok(Sensitive::copied(self.expose().as_bytes())),
            bytes => {
                let why = format!("SecretData of {bytes} bytes exceeds the limit of {}", limit::SECRET_BYTES);
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }
}

impl From<String> for SecretText<'_> {
    fn from(text: String) -> Self {
        Self(Held::Copied(Zeroizing::new(text)))
    }
}

impl<'a> From<&'a str> for SecretText<'a> {
    fn from(text: &'a str) -> Self {
        Self(Held::Lent(text))
    }
}

impl fmt::Debug for SecretText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

impl Serialize for SecretText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for SecretText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(match Text::deserialize(deserializer)?.0 {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_neither_debug_nor_an_error_shows_the_value() {
        let text = |bytes: usize| SecretText::from("ж".repeat(bytes / 2) + &"x".repeat(bytes % 2));
        assert_eq!(text(limit::SECRET_BYTES).into_value().unwrap().len(), limit::SECRET_BYTES);
        let long = text(limit::SECRET_BYTES + 1);
        assert_eq!(format!("{long:?}"), "SecretText");
        let error = long.into_value().map(drop).unwrap_err();
        assert!(error.message().contains("30721") && !error.message().contains('ж'), "{error}");
        assert_eq!(
            SecretText::from("").into_value().map(drop).unwrap_err().kind(),
            ErrorKind::InvalidParameter
        );
    }

    #[test]
    fn a_value_is_text_in_either_encoding() {
        let json: SecretText<'_> = serde_json::from_str(r#""a\"b""#).unwrap();
        assert_eq!(json.expose(), "a\"b");
        assert!(serde_json::from_str::<SecretText<'_>>("7").is_err());
        let frame = rmp_serde::to_vec(&SecretText::from("abc")).unwrap();
        assert_eq!(rmp_serde::from_slice::<SecretText<'_>>(&frame).unwrap().expose(), "abc");
        let bytes = rmp_serde::to_vec(&crate::operation::Bin::from(&b"abc"[..])).unwrap();
        assert!(rmp_serde::from_slice::<SecretText<'_>>(&bytes).is_err(), "bytes do not stand for text");
    }
}
