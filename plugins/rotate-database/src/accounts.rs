//! The accounts that may be rotated. A name is of few characters, so that it is the same name in every encoding and within any quotes.

use crate::OpenError;

/// More than this would be a list that nobody reads.
const MAX_PATTERNS: usize = 256;

/// The accounts that may be rotated.
#[derive(Clone, Debug)]
pub struct Accounts {
    exact: Vec<String>,
    prefixes: Vec<String>,
    reserved: &'static [&'static str],
    max_bytes: usize,
}

impl Accounts {
    /// Reads the list: names, or what names begin with and `*`. What a name that is `reserved` begins with does not name it.
    ///
    /// # Errors
    /// [`OpenError`] for an empty list, an entry that is no name, and one that would name every account.
    pub fn read(
        patterns: &[String],
        reserved: &'static [&'static str],
        max_bytes: usize,
    ) -> Result<Self, OpenError> {
        if patterns.is_empty() || patterns.len() > MAX_PATTERNS {
            return Err(OpenError::new(format!(
                "accounts names 1 to {MAX_PATTERNS} accounts that may be rotated, not {}",
                patterns.len()
            )));
        }
        let mut read = Self { exact: Vec::new(), prefixes: Vec::new(), reserved, max_bytes };
        for pattern in patterns {
            let prefix = pattern.strip_suffix('*');
            if !is_name(prefix.unwrap_or(pattern), max_bytes) {
                return Err(OpenError::new(format!(
                    "accounts: {pattern:?} is neither a name of 1 to {max_bytes} letters, digits, _, -, . or $ nor such a beginning and *"
                )));
            }
            match prefix {
                Some(prefix) => read.prefixes.push(prefix.into()),
                None => read.exact.push(pattern.clone()),
            }
        }
        Ok(read)
    }

    /// Tells whether an account may be rotated.
    pub fn hold(&self, name: &str) -> bool {
        is_name(name, self.max_bytes)
            && (self.exact.iter().any(|exact| exact == name)
                || !self.reserved.iter().any(|reserved| is_reserved(name, reserved))
                    && self.prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }
}

fn is_reserved(name: &str, reserved: &str) -> bool {
    match reserved.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == reserved,
    }
}

/// Tells whether it is a name of an account that we take.
pub(crate) fn is_name(name: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.$".contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Result<Accounts, OpenError> {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        Accounts::read(&patterns, &["postgres", "pg_*"], 63)
    }

    #[test]
    fn only_what_is_listed_may_be_rotated() {
        let accounts = list(&["orders", "app_*"]).unwrap();
        for held in ["orders", "app_", "app_a", "app_a.b-c$"] {
            assert!(accounts.hold(held), "{held}");
        }
        for other in [
            "order", "orders2", "app", "APP_A", "postgres", "", "app_ü", "app_\"x", "app_'x", "app_ x",
            "app_\\",
        ] {
            assert!(!accounts.hold(other), "{other}");
        }
        assert!(!accounts.hold(&format!("app_{}", "a".repeat(60))), "longer than the server takes");
    }

    #[test]
    fn a_beginning_does_not_name_what_belongs_to_the_server() {
        let accounts = list(&["p*"]).unwrap();
        assert!(accounts.hold("payments"));
        assert!(!accounts.hold("postgres") && !accounts.hold("pg_monitor"));
        assert!(list(&["postgres"]).unwrap().hold("postgres"), "whoever names it in full means it");
    }

    #[test]
    fn a_list_that_names_nobody_or_everybody_is_refused() {
        for odd in [&[][..], &["*"], &[""], &["a", "*"], &["a*b"], &["a'"], &["ü"], &["1a"]] {
            assert!(list(odd).is_err(), "{odd:?}");
        }
        assert!(list(&vec!["a"; MAX_PATTERNS + 1]).is_err());
    }
}
