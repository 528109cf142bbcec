//! Filters of `ListKeys` and `ListSecrets`: one key of them is asked for by any of its values, and all keys of them together.

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AliasName, CmkId};
use keymill_core::key::{Cmk, ProtectionLevel};
use keymill_core::operation::KeyFilter;
use keymill_core::secret::Secret;

/// Filters, and values of one, at most.
const MAX: usize = 10;

/// Checks filters.
///
/// # Errors
/// `InvalidParameter` for more than ten, and for one that nothing is known of.
pub(super) fn check(filters: &[KeyFilter]) -> Result<()> {
    let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidParameter, why));
    if filters.len() > MAX || filters.iter().any(|filter| filter.values.len() > MAX) {
        return invalid("Filters has up to 10 entries of up to 10 Values");
    }
    match filters.iter().all(|filter| KEYS.contains(&&*filter.key)) {
        true => Ok(()),
        false => invalid(
            "the Key of a filter is KeyState, KeySpec, KeyUsage, ProtectionLevel, CreatorType, Creator, DKMSInstanceId, keyId, AliasName, TagKey or TagValue",
        ),
    }
}

const KEYS: [&str; 11] = [
    "KeyState",
    "KeySpec",
    "KeyUsage",
    "ProtectionLevel",
    "CreatorType",
    "Creator",
    "DKMSInstanceId",
    "keyId",
    "AliasName",
    "TagKey",
    "TagValue",
];

/// Checks filters of `ListSecrets`.
///
/// # Errors
/// As of [`check`].
pub(super) fn check_of_secrets(filters: &[KeyFilter]) -> Result<()> {
    const KEYS: [&str; 7] =
        ["SecretName", "Description", "TagKey", "TagValue", "DKMSInstanceId", "SecretType", "Creator"];
    let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidParameter, why));
    if filters.len() > MAX || filters.iter().any(|filter| filter.values.len() > MAX) {
        return invalid("Filters has up to 10 entries of up to 10 Values");
    }
    match filters.iter().all(|filter| KEYS.contains(&&*filter.key)) {
        true => Ok(()),
        false => invalid(
            "the Key of a filter is SecretName, Description, TagKey, TagValue, DKMSInstanceId, SecretType or Creator",
        ),
    }
}

/// Tells whether a secret is asked for.
pub(super) fn asks_for_secret(filters: &[KeyFilter], secret: &Secret) -> bool {
    let has = |key: &str, value: &str| match key {
        "SecretName" => secret.name.as_str().starts_with(value),
        "Description" => secret.description.starts_with(value),
        "TagKey" => secret.tags.contains_key(value),
        "TagValue" => secret.tags.values().any(|of_tag| of_tag == value),
        "SecretType" => secret.secret_type.name() == value,
        "Creator" => secret.creator.as_str() == value,
        // None is of an instance.
        _ => false,
    };
    asks(filters, has)
}

/// Tells whether a key is asked for. `names` tells what an alias names.
pub(super) fn asks_for(
    filters: &[KeyFilter],
    cmk: &Cmk,
    names: impl Fn(&AliasName) -> Option<CmkId>,
) -> bool {
    let has = |key: &str, value: &str| match key {
        "KeyState" => format!("{:?}", cmk.state) == value,
        "KeySpec" => cmk.spec.name() == value,
        "KeyUsage" => cmk.usage.name() == value,
        "ProtectionLevel" => match cmk.protection {
            ProtectionLevel::Software => value == "SOFTWARE",
            ProtectionLevel::Hsm => value == "HSM",
        },
        // Every key is a user's own, and none is of an instance.
        "CreatorType" => value == "User",
        "Creator" => cmk.creator.as_str() == value,
        "keyId" => cmk.id.to_string() == value,
        "AliasName" => value.parse().is_ok_and(|name| names(&name) == Some(cmk.id)),
        "TagKey" => cmk.tags.contains_key(value),
        "TagValue" => cmk.tags.values().any(|of_tag| of_tag == value),
        _ => false,
    };
    asks(filters, has)
}

fn asks(filters: &[KeyFilter], has: impl Fn(&str, &str) -> bool) -> bool {
    // Entries of one key are alternatives, like the values of one entry.
    filters.iter().all(|filter| {
        let same = filters.iter().filter(|other| other.key == filter.key);
        same.flat_map(|other| &other.values).any(|value| has(&filter.key, value))
    })
}
