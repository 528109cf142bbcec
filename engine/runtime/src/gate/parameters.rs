//! What the parameters of management requests come to: each is checked before anything is done, and named where it is refused.

use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::KeyRef;
use keymill_core::key::{
    BulkMode, Fallback, KeySpec, KeyStorageMechanism, KeyUsage, ProtectionLevel, RotationInterval,
    WrappingAlgorithm, check_tag,
};
use keymill_core::limit;
use keymill_core::operation::{Bin, ResourceType};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;

/// Bytes of the label or the id of a key in a token, at most.
const OBJECT_NAME_BYTES: usize = 255;

/// Tells whether a key is to stay in the token that makes it.
pub(super) fn stays(
    protection: ProtectionLevel,
    fallback: Fallback,
    asked: Option<KeyStorageMechanism>,
) -> Result<bool> {
    let invalid = |why| Err(Error::new(ErrorKind::InvalidParameter, why));
    match (asked, protection) {
        (None, _) => Ok(false),
        (Some(_), ProtectionLevel::Software) => {
            invalid("KeyStorageMechanism is for keys of ProtectionLevel HSM")
        }
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

/// Tells whether a key of `spec` seals blobs.
pub(super) fn is_symmetric(spec: KeySpec) -> bool {
    !spec.is_key_pair() && spec.usages().contains(&KeyUsage::EncryptDecrypt)
}

/// Checks that a key of `spec` can be used so, and can have that bulk mode.
pub(super) fn check_modes(spec: KeySpec, usage: KeyUsage, bulk_mode: Option<BulkMode>) -> Result<()> {
    let refused = |why| Err(Error::new(ErrorKind::Unsupported, why));
    if bulk_mode == Some(BulkMode::HsmDerived) && spec != KeySpec::Aes256 {
        return refused(format!("a key of KeySpec {} has no bulk mode HsmDerived", spec.name()));
    }
    match spec.usages().contains(&usage) {
        true => Ok(()),
        false => refused(format!("a key of KeySpec {} has no KeyUsage {}", spec.name(), usage.name())),
    }
}

/// Checks that a key can be made whose material is imported.
pub(super) fn check_external(
    stays: bool,
    fallback: Fallback,
    rotation: Option<RotationInterval>,
) -> Result<()> {
    let refused = |why| Err(Error::new(ErrorKind::Unsupported, why));
    if rotation.is_some() {
        return refused("a key whose material is imported has one version, and is not rotated");
    }
    if stays {
        return refused(
            "material is imported into keys of KeyStorageMechanism HsmEncryptedDatabase, not HsmInternal",
        );
    }
    // It would have to be seen outside the token.
    match fallback.is_never() {
        true => Ok(()),
        false => refused("a key whose material is imported into a token has no copy to fall back to"),
    }
}

/// Checks that key material can be wrapped so here.
pub(super) fn check_wrapping(spec: KeySpec, algorithm: WrappingAlgorithm) -> Result<()> {
    let refused = |why| Err(Error::new(ErrorKind::Unsupported, why));
    if spec.modulus_bytes().is_none() {
        return refused(format!(
            "WrappingKeySpec {} is not offered: RSA_2048, RSA_3072 and RSA_4096 are",
            spec.name()
        ));
    }
    match algorithm.decryption() {
        Some(_) => Ok(()),
        None => refused(format!(
            "WrappingAlgorithm {} is not offered: RSAES_OAEP_SHA_256, RSAES_OAEP_SHA_1 and RSA_AES_KEY_WRAP_SHA_256 are",
            algorithm.name()
        )),
    }
}

/// Reads when key material expires: seconds since 1970, or never.
pub(super) fn expiry(unix: Option<u64>, now: Timestamp) -> Result<Option<Timestamp>> {
    // The last second that a time in text has, which is how it is kept.
    const LAST: u64 = 253_402_300_799;
    let at = match unix {
        None | Some(0) => return Ok(None),
        Some(seconds) if seconds <= LAST => Timestamp::from_ms(seconds * 1_000),
        Some(_) => {
            let why = "KeyMaterialExpireUnix lies behind the year 9999";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
    };
    match at > now {
        true => Ok(Some(at)),
        false => Err(Error::new(ErrorKind::InvalidParameter, "KeyMaterialExpireUnix lies in the past")),
    }
}

/// Takes wrapped key material, unless it is longer than any that would be a key.
pub(super) fn wrapped(material: Bin<'_>) -> Result<Vec<u8>> {
    match material.len() {
        0..=limit::WRAPPED_MATERIAL_BYTES => Ok(material.into_vec()),
        length => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("EncryptedKeyMaterial has up to {} bytes, not {length}", limit::WRAPPED_MATERIAL_BYTES),
        )),
    }
}

/// Finds the one key that is tagged, where neither a secret nor a certificate is.
pub(super) fn tagged(key: Option<KeyRef>) -> Result<KeyRef> {
    key.ok_or_else(|| {
        let why = "KeyId, SecretName or CertificateId: the parameter is missing";
        Error::new(ErrorKind::MissingParameter, why)
    })
}

/// The error of a request that names more than one resource where it may name one.
pub(super) fn one_is_tagged() -> Error {
    Error::new(ErrorKind::InvalidParameter, "one of KeyId, SecretName and CertificateId names what is tagged")
}

/// Refuses resources that there are none of.
pub(super) fn keys_only(resource: ResourceType) -> Result<()> {
    match resource {
        ResourceType::Key => Ok(()),
        ResourceType::Secret => Err(Error::new(
            ErrorKind::Unsupported,
            "the tags of secrets are told by DescribeSecret, and put on by TagResource",
        )),
    }
}

/// Checks tags that are to be put on: each, and how many.
pub(super) fn tags(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>> {
    bounded(pairs.len(), limit::TAGS, "Tags")?;
    for (at, (name, value)) in pairs.iter().enumerate() {
        check_tag(name, value)?;
        if pairs[..at].iter().any(|(other, _)| other == name) {
            return Err(Error::new(ErrorKind::InvalidParameter, "a TagKey comes twice"));
        }
    }
    Ok(pairs)
}

/// Checks how many entries a list has.
pub(super) fn bounded(count: usize, limit: usize, name: &str) -> Result<()> {
    match count <= limit {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("{name} has up to {limit} entries, not {count}"),
        )),
    }
}

/// Checks that a list has entries, and not too many.
pub(super) fn some(count: usize, limit: usize, name: &str) -> Result<()> {
    match count {
        0 => Err(Error::new(ErrorKind::MissingParameter, format!("{name} has no entry"))),
        _ => bounded(count, limit, name),
    }
}

/// Reads how often a key is to be rotated, if it is.
pub(super) fn rotation(
    enable: Option<bool>,
    interval: Option<RotationInterval>,
) -> Result<Option<RotationInterval>> {
    match (enable.unwrap_or(false), interval) {
        (true, Some(interval)) => Ok(Some(interval)),
        (true, None) => {
            Err(Error::new(ErrorKind::MissingParameter, "RotationInterval: the parameter is missing"))
        }
        (false, None) => Ok(None),
        (false, Some(_)) => {
            let why = "RotationInterval is for keys that are rotated by themselves: EnableAutomaticRotation";
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

pub(super) fn describe(text: String) -> Result<String> {
    short(text, limit::DESCRIPTION_CHARACTERS)
}

pub(super) fn name(text: String) -> Result<String> {
    short(text, limit::NAME_CHARACTERS)
}

fn short(text: String, limit: usize) -> Result<String> {
    let characters = text.chars().count();
    if characters > limit {
        return Err(Error::new(
            ErrorKind::LimitExceeded(Limit::DescriptionCharacters),
            format!("description of {characters} characters exceeds the limit of {limit}"),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_expires_later_than_now_or_never_and_in_a_year_that_can_be_written() {
        let now = Timestamp::from_ms(2_000_000_000_500);
        for never in [None, Some(0)] {
            assert_eq!(expiry(never, now).unwrap(), None);
        }
        for seconds in [2_000_000_001, 253_402_300_799] {
            let at = expiry(Some(seconds), now).unwrap().unwrap();
            assert_eq!(Timestamp::parse(&at.to_string()), Some(at), "{seconds}");
        }
        for seconds in [1, 2_000_000_000, 253_402_300_800, u64::MAX] {
            assert_eq!(
                expiry(Some(seconds), now).unwrap_err().kind(),
                ErrorKind::InvalidParameter,
                "{seconds}"
            );
        }
    }

    #[test]
    fn material_is_wrapped_by_rsa_with_oaep_alone() {
        use WrappingAlgorithm::*;
        for spec in [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096] {
            for algorithm in [RsaesOaepSha1, RsaesOaepSha256, RsaAesKeyWrapSha256] {
                check_wrapping(spec, algorithm).unwrap();
            }
            for algorithm in [RsaesPkcs1V15, Sm2Pke] {
                let error = check_wrapping(spec, algorithm).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.message().contains(algorithm.name()), "{error}");
            }
        }
        for spec in [KeySpec::EcSm2, KeySpec::Aes256] {
            assert_eq!(check_wrapping(spec, RsaesOaepSha256).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
