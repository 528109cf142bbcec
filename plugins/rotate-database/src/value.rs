//! What a secret of a database login holds: the account and its password, as `GetSecretValue` answers it and as `CreateSecret` is told it.

use std::fmt;

use keymill_core::Sensitive;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::accounts::is_name;

/// The longest password that is taken. Servers take that much, and generated ones are shorter.
pub const MAX_PASSWORD_BYTES: usize = 128;
/// No database has accounts of longer names; each says what it takes besides.
const MAX_NAME_BYTES: usize = 128;

/// An account and its password.
pub struct Login {
    /// The name of the account.
    pub name: String,
    /// Its password: printable ASCII, so that no encoding or normal form changes it on its way.
    pub password: Sensitive,
}

impl Login {
    /// Reads `{"AccountName":…,"AccountPassword":…}`.
    ///
    /// # Errors
    /// What is wrong with it, without anything of it.
    pub fn read(value: &[u8]) -> Result<Self, &'static str> {
        let written: Written = serde_json::from_slice(value)
            .map_err(|_| "the value is not {\"AccountName\":\"…\",\"AccountPassword\":\"…\"}")?;
        written.checked()
    }

    /// Reads `{"Accounts":[…]}`, of one or two accounts.
    ///
    /// # Errors
    /// What is wrong with it, without anything of it.
    pub fn read_all(value: &[u8]) -> Result<Vec<Self>, &'static str> {
        const FORM: &str = "the value is not {\"Accounts\":[{\"AccountName\":\"…\",\"AccountPassword\":\"…\"},…]} of one or two accounts";
        let all: All = serde_json::from_slice(value).map_err(|_| FORM)?;
        if !(1..=2).contains(&all.accounts.len()) {
            return Err(FORM);
        }
        all.accounts.into_iter().map(Written::checked).collect()
    }

    /// Returns the value that [`Login::read`] reads.
    pub fn write(&self) -> Sensitive {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Shown<'l> {
            account_name: &'l str,
            account_password: &'l str,
        }
        // A quote or backslash takes two bytes; with room for all there is one copy, which is wiped.
        let mut value = Vec::with_capacity(64 + 2 * (self.name.len() + self.password.len()));
        let shown = Shown { account_name: &self.name, account_password: self.password() };
        serde_json::to_writer(&mut value, &shown).expect("text is written to memory");
        Sensitive::new(value)
    }

    /// Lends the password as text.
    pub fn password(&self) -> &str {
        std::str::from_utf8(self.password.expose()).expect("it is ASCII")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct All {
    accounts: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    account_name: String,
    account_password: Text,
}

impl Written {
    fn checked(self) -> Result<Login, &'static str> {
        let password = Sensitive::copied(self.account_password.0.as_bytes());
        if !is_name(&self.account_name, MAX_NAME_BYTES) {
            return Err("AccountName is not of letters, digits, _, -, . and $, beginning with a letter or _");
        }
        if !(1..=MAX_PASSWORD_BYTES).contains(&password.len()) {
            return Err("AccountPassword is not of 1 to 128 characters");
        }
        if !password.expose().iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err("AccountPassword is not of printable ASCII alone");
        }
        Ok(Login { name: self.account_name, password })
    }
}

/// Text that is wiped.
struct Text(Zeroizing<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Into;
        impl Visitor<'_> for Into {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                match text.len() {
                    ..=MAX_PASSWORD_BYTES => Ok(Text(Zeroizing::new(text.to_owned()))),
                    _ => Err(E::custom("too long")),
                }
            }
        }
        deserializer.deserialize_str(Into).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_back_with_every_character_that_prints() {
        let password: String = (' '..='~').collect();
        let login = Login { name: "app".into(), password: Sensitive::copied(password.as_bytes()) };
        let value = login.write();
        let back = Login::read(value.expose()).unwrap();
        assert_eq!((&*back.name, back.password()), ("app", &*password));
        assert_eq!(
            Login { name: "a".into(), password: Sensitive::copied(b"p") }.write().expose(),
            br#"{"AccountName":"a","AccountPassword":"p"}"#
        );
    }

    #[test]
    fn what_is_no_login_is_refused_without_a_word_of_it() {
        let long = format!(r#"{{"AccountName":"app","AccountPassword":"{}"}}"#, "hidden".repeat(30));
        for odd in [
            "",
            "hidden",
            "[]",
            r#"{"AccountName":"hidden"}"#,
            r#"{"AccountName":"app","AccountPassword":""}"#,
            r#"{"AccountName":"","AccountPassword":"hidden"}"#,
            r#"{"AccountName":"app\"","AccountPassword":"hidden"}"#,
            r#"{"AccountName":"app'","AccountPassword":"hidden"}"#,
            r#"{"AccountName":"äpp","AccountPassword":"hidden"}"#,
            r#"{"AccountName":"app","AccountPassword":"hidden\u0000"}"#,
            r#"{"AccountName":"app","AccountPassword":"hidden\n"}"#,
            r#"{"AccountName":"app","AccountPassword":"hiddén"}"#,
            r#"{"AccountName":"app","AccountPassword":7}"#,
            r#"{"AccountName":"app","AccountPassword":"hidden","hidden":1}"#,
            r#"{"AccountName":"app","AccountPassword":"hidden"} hidden"#,
            &long,
        ] {
            let why = Login::read(odd.as_bytes()).map(|login| login.name).unwrap_err();
            assert!(!why.contains("hidden"), "{why}");
        }
    }

    #[test]
    fn one_account_or_two_come_first() {
        let account = r#"{"AccountName":"app","AccountPassword":"p"}"#;
        for (count, is_fine) in [(0, false), (1, true), (2, true), (3, false)] {
            let value = format!(r#"{{"Accounts":[{}]}}"#, vec![account; count].join(","));
            assert_eq!(Login::read_all(value.as_bytes()).is_ok(), is_fine, "{count}");
        }
        assert!(Login::read_all(account.as_bytes()).is_err());
        assert!(Login::read_all(br#"{"Accounts":[{"AccountName":"a b","AccountPassword":"p"}]}"#).is_err());
    }
}
