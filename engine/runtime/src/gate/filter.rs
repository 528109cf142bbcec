//! Filters of `ListKeys` and `ListSecrets`: one key of them is asked for by any of its values, and all keys of them together.

use keymill_core::certificate::{AltName, ManagedCertificate, Serial};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AliasName, CmkId, InstanceId};
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

/// Tells whether a secret is asked for; `own` is the instance that all of them are of.
pub(super) fn asks_for_secret(filters: &[KeyFilter], secret: &Secret, own: Option<&InstanceId>) -> bool {
    let has = |key: &str, value: &str| match key {
        "SecretName" => secret.name.as_str().starts_with(value),
        "Description" => secret.description.starts_with(value),
        "TagKey" => secret.tags.contains_key(value),
        "TagValue" => secret.tags.values().any(|of_tag| of_tag == value),
        "SecretType" => secret.secret_type.name() == value,
        "Creator" => secret.creator.as_str() == value,
        "DKMSInstanceId" => own.is_some_and(|own| own.as_str() == value),
        _ => false,
    };
    asks(filters, has)
}

/// Checks filters of `ListCertificates`.
///
/// # Errors
/// As of [`check`].
pub(super) fn check_of_certificates(filters: &[KeyFilter]) -> Result<()> {
    const KEYS: [&str; 13] = [
        "Status",
        "KeySpec",
        "Origin",
        "Subject",
        "Issuer",
        "Name",
        "Serial",
        "TagKey",
        "TagValue",
        "Creator",
        "AuthorityName",
        "Profile",
        "AccessPoint",
    ];
    let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidParameter, why));
    if filters.len() > MAX || filters.iter().any(|filter| filter.values.len() > MAX) {
        return invalid("Filters has up to 10 entries of up to 10 Values");
    }
    match filters.iter().all(|filter| KEYS.contains(&&*filter.key)) {
        true => Ok(()),
        false => invalid(
            "the Key of a filter is Status, KeySpec, Origin, Subject, Issuer, Name, Serial, TagKey, TagValue, Creator, AuthorityName, Profile or AccessPoint",
        ),
    }
}

/// Tells whether a certificate is asked for.
pub(super) fn asks_for_certificate(filters: &[KeyFilter], certificate: &ManagedCertificate) -> bool {
    let (facts, issuance) = (certificate.facts.as_ref(), certificate.issuance.as_deref());
    let names = facts.map_or(&certificate.alt_names, |facts| &facts.alt_names);
    let has = |key: &str, value: &str| match key {
        "Status" => certificate.status.name() == value,
        "KeySpec" => certificate.spec.is_some_and(|spec| spec.name() == value),
        "Origin" => certificate.origin.name() == value,
        "Subject" => certificate.subject.contains(value),
        "Issuer" => facts.is_some_and(|facts| facts.issuer.contains(value)),
        "Name" => value.parse::<AltName>().is_ok_and(|name| names.contains(&name)),
        "Serial" => {
            facts.is_some_and(|facts| facts.serial.eq_ignore_ascii_case(value))
                || issuance.is_some_and(|issuance| {
                    // One that it was renewed from, too.
                    value
                        .parse()
                        .is_ok_and(|serial: Serial| issuance.serials.iter().any(|own| own.serial == serial))
                })
        }
        "AuthorityName" => issuance.is_some_and(|issuance| issuance.authority.as_str() == value),
        "Profile" => {
            let profile = issuance.and_then(|issuance| issuance.profile.as_ref());
            profile.is_some_and(|profile| profile.as_str() == value)
        }
        "AccessPoint" => {
            let access_point = issuance.and_then(|issuance| issuance.access_point.as_ref());
            access_point.is_some_and(|access_point| access_point.as_str() == value)
        }
        "TagKey" => certificate.tags.contains_key(value),
        "TagValue" => certificate.tags.values().any(|of_tag| of_tag == value),
        "Creator" => certificate.creator.as_str() == value,
        _ => false,
    };
    asks(filters, has)
}

/// Returns what the names of all secrets begin with that are asked for, where the filters say that.
pub(super) fn prefix_of_secrets(filters: &[KeyFilter]) -> &str {
    let mut of_names =
        filters.iter().filter(|filter| filter.key == "SecretName").flat_map(|filter| &filter.values);
    match (of_names.next(), of_names.next()) {
        (Some(prefix), None) => prefix,
        // Any of several will do.
        _ => "",
    }
}

/// Tells whether a key is asked for. `names` tells what an alias names; `own` is the instance that all of them are of.
pub(super) fn asks_for(
    filters: &[KeyFilter],
    cmk: &Cmk,
    names: impl Fn(&AliasName) -> Option<CmkId>,
    own: Option<&InstanceId>,
) -> bool {
    let has = |key: &str, value: &str| match key {
        "KeyState" => format!("{:?}", cmk.state) == value,
        "KeySpec" => cmk.spec.name() == value,
        "KeyUsage" => cmk.usage.name() == value,
        "ProtectionLevel" => match cmk.protection {
            ProtectionLevel::Software => value == "SOFTWARE",
            ProtectionLevel::Hsm => value == "HSM",
        },
        // Every key is a user's own.
        "CreatorType" => value == "User",
        "Creator" => cmk.creator.as_str() == value,
        "DKMSInstanceId" => own.is_some_and(|own| own.as_str() == value),
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
