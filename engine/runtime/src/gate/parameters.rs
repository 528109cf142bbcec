//! What the parameters of management requests come to: each is checked before anything is done, and named where it is refused.

use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::key::{BulkMode, Fallback, KeySpec, KeyStorageMechanism, KeyUsage};
use keymill_core::limit;
use keymill_crypto::digest;

/// Bytes of the label or the id of a key in a token, at most.
const OBJECT_NAME_BYTES: usize = 255;

/// Tells whether a key is to stay in the token that makes it.
pub(super) fn stays(
    bulk_mode: Option<BulkMode>,
    fallback: Fallback,
    asked: Option<KeyStorageMechanism>,
) -> Result<bool> {
    let invalid = |why| Err(Error::new(ErrorKind::InvalidParameter, why));
    match (asked, bulk_mode) {
        (None, _) => Ok(false),
        (Some(_), None) => invalid("KeyStorageMechanism is for keys of ProtectionLevel HSM"),
        (Some(KeyStorageMechanism::HsmEncryptedDatabase), _) => Ok(false),
        (Some(KeyStorageMechanism::HsmInternal), _) if !fallback.is_never() => {
            invalid("a key of KeyStorageMechanism HsmInternal has no copy in software to fall back to")
        }
        (Some(KeyStorageMechanism::HsmInternal), _) => Ok(true),
    }
}

/// Reads how a key in a token is named.
pub(super) fn named(label: Option<String>, id: Option<&str>) -> Result<(Option<String>, Option<Vec<u8>>)> {
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
    let id = match id.map(digest::unhex) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => return invalid("ObjectId is no text of hexadecimal digits, two a byte".into()),
    };
    let lengths = [label.as_ref().map(String::len), id.as_ref().map(Vec::len)];
    if let Some(length) =
        lengths.into_iter().flatten().find(|length| !(1..=OBJECT_NAME_BYTES).contains(length))
    {
        return invalid(format!(
            "ObjectLabel and ObjectId have 1 to {OBJECT_NAME_BYTES} bytes, not {length}"
        ));
    }
    if label.is_none() && id.is_none() {
        return invalid("a key in a token is named by ObjectLabel or ObjectId".into());
    }
    Ok((label, id))
}

/// Refuses keys that the engine does nothing with yet, whatever its provider offers.
pub(super) fn offered(spec: KeySpec, usage: KeyUsage, bulk_mode: Option<BulkMode>) -> Result<()> {
    let refused = |why| Err(Error::new(ErrorKind::Unsupported, why));
    match (spec, bulk_mode) {
        (KeySpec::Aes256, _) | (KeySpec::Aes128, Some(BulkMode::InHsm)) => {}
        (_, None) => return refused(format!("this installation makes no keys of KeySpec {}", spec.name())),
        (_, Some(mode)) => {
            return refused(format!("a key of KeySpec {} has no bulk mode {mode:?} here", spec.name()));
        }
    }
    if !spec.usages().contains(&usage) {
        return refused(format!("a key of KeySpec {} has no KeyUsage {}", spec.name(), usage.name()));
    }
    Ok(())
}

pub(super) fn describe(text: String) -> Result<String> {
    bounded(text, limit::DESCRIPTION_CHARACTERS)
}

pub(super) fn name(text: String) -> Result<String> {
    bounded(text, limit::NAME_CHARACTERS)
}

fn bounded(text: String, limit: usize) -> Result<String> {
    let characters = text.chars().count();
    if characters > limit {
        return Err(Error::new(
            ErrorKind::LimitExceeded(Limit::DescriptionCharacters),
            format!("description of {characters} characters exceeds the limit of {limit}"),
        ));
    }
    Ok(text)
}
