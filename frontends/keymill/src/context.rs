//! Encryption contexts as arguments: `NAME=VALUE`, once for each pair.

use keymill_core::context::EncryptionContext;

use crate::failure::{Failure, Result};

/// Reads one pair; its name ends at the first equals sign.
pub(crate) fn parse_pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("takes NAME=VALUE".to_owned()),
    }
}

/// Makes a context of them.
pub(crate) fn of_pairs(pairs: &[(String, String)]) -> Result<EncryptionContext> {
    let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    EncryptionContext::from_pairs(pairs).map_err(|error| Failure::wrong_use(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_ends_its_name_at_the_first_equals_sign() {
        assert_eq!(parse_pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(parse_pair("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(parse_pair("a").is_err() && parse_pair("=b").is_err());
    }
}
