//! A generated value in the place of another: a password that is the whole value, or one member of a JSON object whose others stay. For rotators
//! that have no form of value of their own.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{PasswordRules, password};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::GetRandomPasswordRequest;
use crate::sensitive::Sensitive;

/// What passwords are like, as the configuration of a rotator says, and as a secret says in `CustomData`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// Characters; 32 if absent.
    pub length: Option<u32>,
    /// Characters that are left out.
    pub exclude_characters: Option<String>,
    /// Whether characters but letters and digits are left out.
    pub exclude_punctuation: bool,
}

/// Names in `CustomData`.
const LENGTH: &str = "PasswordLength";
const CHARACTERS: &str = "ExcludeCharacters";
const PUNCTUATION: &str = "ExcludePunctuation";
const MEMBER: &str = "Member";

impl Generated {
    /// Reads what a secret asks for, in the place of what the configuration says: `PasswordLength`, `ExcludeCharacters`, `ExcludePunctuation` and
    /// `Member`, the name of the member of a JSON object. Other names are passed over.
    fn of(&self, custom: &BTreeMap<String, String>) -> Result<PasswordRules> {
        let length = match custom.get(LENGTH) {
            None => self.length,
            Some(text) => {
                Some(text.parse().map_err(|_| invalid("CustomData.PasswordLength is a whole number"))?)
            }
        };
        let exclude_punctuation = match custom.get(PUNCTUATION).map(String::as_str) {
            None => self.exclude_punctuation,
            Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(invalid("CustomData.ExcludePunctuation is true or false")),
        };
        PasswordRules::of(&GetRandomPasswordRequest {
            password_length: length,
            exclude_characters: custom.get(CHARACTERS).or(self.exclude_characters.as_ref()).cloned(),
            exclude_punctuation: Some(exclude_punctuation),
            ..GetRandomPasswordRequest::default()
        })
    }

    /// Checks what a secret asks for.
    ///
    /// # Errors
    /// `InvalidParameter` that names what is wrong, never the value.
    pub fn check(&self, custom: &BTreeMap<String, String>, value: &Sensitive) -> Result<()> {
        self.of(custom)?;
        custom.get(MEMBER).map_or(Ok(()), |member| Parts::of(value, member).map(drop))
    }

    /// Makes the value that follows another.
    ///
    /// # Errors
    /// As [`Generated::check`], and those of `below`.
    pub fn next(
        &self,
        custom: &BTreeMap<String, String>,
        current: &Sensitive,
        below: &mut dyn FnMut(u32) -> Result<u32>,
    ) -> Result<Sensitive> {
        let rules = self.of(custom)?;
        let made = Zeroizing::new(password(&rules, below)?);
        match custom.get(MEMBER) {
            None => Ok(Sensitive::copied(made.as_bytes())),
            Some(member) => Parts::of(current, member)?.with(&made),
        }
    }
}

/// An object and the place of the member's text in it, so that what is beside it stays as it was written.
struct Parts<'v> {
    before: &'v str,
    after: &'v str,
}

impl<'v> Parts<'v> {
    fn of(value: &'v Sensitive, member: &str) -> Result<Self> {
        let none = || invalid("CustomData.Member names no text of the JSON object that the value is");
        let text = std::str::from_utf8(value.expose()).map_err(|_| none())?;
        let members: BTreeMap<String, &serde_json::value::RawValue> =
            serde_json::from_str(text).map_err(|_| none())?;
        let raw = members.get(member).filter(|raw| raw.get().starts_with('"')).ok_or_else(none)?.get();
        // It borrows from the text, so its place there is known.
        let at = (raw.as_ptr() as usize).checked_sub(text.as_ptr() as usize).ok_or_else(none)?;
        match (text.get(..at), text.get(at + raw.len()..)) {
            (Some(before), Some(after)) => Ok(Self { before, after }),
            _ => Err(none()),
        }
    }

    fn with(&self, made: &str) -> Result<Sensitive> {
        let written = serde_json::to_string(made).map_err(Error::internal)?;
        let written = Zeroizing::new(written);
        // At once: a buffer that grows leaves copies behind.
        let mut next = Vec::with_capacity(self.before.len() + written.len() + self.after.len());
        for part in [self.before, &written, self.after] {
            next.extend_from_slice(part.as_bytes());
        }
        Ok(Sensitive::new(next))
    }
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidParameter, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn next(generated: &Generated, pairs: &[(&str, &str)], value: &str) -> Result<String> {
        let mut state = 7u32;
        let mut below = move |bound: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Ok((state >> 8) % bound)
        };
        let value = Sensitive::copied(value.as_bytes());
        let next = generated.next(&custom(pairs), &value, &mut below)?;
        Ok(String::from_utf8(next.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_password_is_as_the_configuration_says_and_as_the_secret_says_in_its_place() {
        let configured = Generated { length: Some(20), exclude_punctuation: true, ..Generated::default() };
        let made = next(&configured, &[], "old").unwrap();
        assert!(made.len() == 20 && made.bytes().all(|c| c.is_ascii_alphanumeric()), "{made}");
        let asked = [("PasswordLength", "40"), ("ExcludePunctuation", "false"), ("ExcludeCharacters", "abc")];
        let made = next(&configured, &asked, "old").unwrap();
        assert!(made.len() == 40 && made.bytes().any(|c| c.is_ascii_punctuation()), "{made}");
        assert!(!made.contains(['a', 'b', 'c']), "{made}");
    }

    #[test]
    fn of_an_object_one_member_changes_and_the_rest_stays_as_it_was_written() {
        let value = r#"{ "user":"app", "Password" : "o\"ld", "n": 1.50 }"#;
        let made = next(&Generated::default(), &[("Member", "Password")], value).unwrap();
        let (before, after) = (r#"{ "user":"app", "Password" : "#, r#", "n": 1.50 }"#);
        let written = made.strip_prefix(before).unwrap().strip_suffix(after).unwrap();
        assert_eq!(serde_json::from_str::<String>(written).unwrap().len(), 32);
    }

    #[test]
    fn what_cannot_be_is_refused_without_the_value() {
        let generated = Generated::default();
        for (pairs, value) in [
            (&[("PasswordLength", "7")][..], "SECRET"),
            (&[("PasswordLength", "x")], "SECRET"),
            (&[("ExcludePunctuation", "yes")], "SECRET"),
            (&[("Member", "a")], "SECRET"),
            (&[("Member", "a")], r#"{"b":"SECRET"}"#),
            (&[("Member", "a")], r#"{"a":7,"b":"SECRET"}"#),
            (&[("Member", "a")], r#"["SECRET"]"#),
        ] {
            let error = next(&generated, pairs, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{value}");
            assert!(!error.message().contains("SECRET"), "{error}");
            let checked = generated.check(&custom(pairs), &Sensitive::copied(value.as_bytes()));
            assert_eq!(checked.unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
    }
}
