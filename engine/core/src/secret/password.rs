//! Passwords: of the kinds of characters that are asked for, one of each kind if that is wanted, and in any order. Randomness comes from
//! whoever asks.

use crate::error::{Error, ErrorKind, Result};
use crate::limit;
use crate::operation::GetRandomPasswordRequest;

/// Tells whether a character is of a kind.
type IsOf = fn(&u8) -> bool;

/// Characters that a password may have, by their kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordRules {
    length: usize,
    kinds: Vec<Vec<u8>>,
    has_each: bool,
}

impl PasswordRules {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// `InvalidParameter` for a length out of bounds, or where no character is left, or fewer than a password of each kind needs.
    pub fn of(asked: &GetRandomPasswordRequest) -> Result<Self> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        let length = asked.password_length.unwrap_or(32);
        if !limit::PASSWORD_CHARACTERS.contains(&length) {
            let (least, most) = limit::PASSWORD_CHARACTERS.into_inner();
            return invalid(format!("PasswordLength of {length} is not in {least} to {most}"));
        }
        let without = asked.exclude_characters.as_deref().unwrap_or_default();
        let printable = || b'!'..=b'~';
        let kinds: [(Option<bool>, IsOf); 4] = [
            (asked.exclude_lowercase, u8::is_ascii_lowercase),
            (asked.exclude_uppercase, u8::is_ascii_uppercase),
            (asked.exclude_numbers, u8::is_ascii_digit),
            (asked.exclude_punctuation, u8::is_ascii_punctuation),
        ];
        let left = kinds.into_iter().filter(|(excluded, _)| !excluded.unwrap_or(false)).map(|(_, is_of)| {
            let is_left = |c: &u8| is_of(c) && !without.contains(char::from(*c));
            printable().filter(is_left).collect::<Vec<u8>>()
        });
        let kinds: Vec<_> = left.collect();
        let has_each = asked.require_each_included_type.unwrap_or(true);
        if has_each && kinds.iter().any(Vec::is_empty) {
            let why = "ExcludeCharacters leaves none of a kind that is required: RequireEachIncludedType";
            return invalid(why.into());
        }
        match kinds.iter().all(Vec::is_empty) {
            false => Ok(Self { length: length as usize, kinds, has_each }),
            true => invalid("no character is left that the password could have".into()),
        }
    }
}

/// Makes a password; `below` returns a number below the one that it is given, each as likely as any other.
///
/// # Errors
/// Those of `below`.
pub fn password(rules: &PasswordRules, below: &mut dyn FnMut(u32) -> Result<u32>) -> Result<String> {
    let mut one_of = |all: &[u8]| below(all.len() as u32).map(|at| all[at as usize]);
    let mut characters = Vec::with_capacity(rules.length);
    if rules.has_each {
        for kind in &rules.kinds {
            characters.push(one_of(kind)?);
        }
    }
    let all = rules.kinds.concat();
    while characters.len() < rules.length {
        characters.push(one_of(&all)?);
    }
    // Where those of each kind stand is as random as they are (Fisher and Yates).
    for last in (1..characters.len()).rev() {
        let at = below(last as u32 + 1)? as usize;
        characters.swap(last, at);
    }
    Ok(characters.into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn below(seed: u64) -> impl FnMut(u32) -> Result<u32> {
        let mut state = seed | 1;
        move |bound| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            Ok(((state >> 33) % u64::from(bound)) as u32)
        }
    }

    proptest! {
        #[test]
        fn a_password_is_of_what_was_asked_for(
            length in 8u32..=128, excluded in any::<[bool; 4]>(), without in "[ -~]{0,20}", each in any::<bool>(), seed in any::<u64>()
        ) {
            let [lower, upper, numbers, punctuation] = excluded.map(Some);
            let asked = GetRandomPasswordRequest {
                password_length: Some(length),
                exclude_characters: Some(without.clone()),
                exclude_lowercase: lower,
                exclude_uppercase: upper,
                exclude_numbers: numbers,
                exclude_punctuation: punctuation,
                require_each_included_type: Some(each),
                timeout_ms: None,
            };
            let Ok(rules) = PasswordRules::of(&asked) else {
                // No twenty characters take away a whole kind but digits.
                prop_assert!(excluded == [true; 4] || without.len() >= 10);
                return Ok(());
            };
            let made = password(&rules, &mut below(seed)).unwrap();
            prop_assert_eq!(made.len(), length as usize);
            let is_of: [fn(char) -> bool; 4] = [
                |c| c.is_ascii_lowercase(), |c| c.is_ascii_uppercase(), |c| c.is_ascii_digit(), |c| c.is_ascii_punctuation(),
            ];
            for (is_of, excluded) in is_of.into_iter().zip(excluded) {
                prop_assert!(!(excluded && made.contains(is_of)));
                prop_assert!(excluded || !each || made.contains(is_of));
            }
            prop_assert!(made.chars().all(|c| !without.contains(c)));
        }
    }

    #[test]
    fn lengths_are_bounded_and_something_is_left() {
        let asked = GetRandomPasswordRequest::default;
        assert_eq!(password(&PasswordRules::of(&asked()).unwrap(), &mut below(1)).unwrap().len(), 32);
        for length in [0, 7, 129] {
            let odd = GetRandomPasswordRequest { password_length: Some(length), ..asked() };
            assert_eq!(PasswordRules::of(&odd).unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
        let digits = GetRandomPasswordRequest { exclude_characters: Some("0123456789".into()), ..asked() };
        assert!(PasswordRules::of(&digits).is_err());
        let any = GetRandomPasswordRequest { require_each_included_type: Some(false), ..digits };
        assert!(PasswordRules::of(&any).is_ok());
    }
}
