//! Every documented limit in one place, so that `DescribeLimits`, the errors and the checks cannot disagree.

use crate::error::{Error, ErrorKind, Limit, Result};

/// Items in one batch request.
pub const BATCH_ITEMS: usize = 65_536;
/// Bytes of plaintext in one item of a batch.
pub const BATCH_ITEM_BYTES: usize = 64 * 1024;
/// Bytes of plaintext in a single `Encrypt`, as in the cloud API.
pub const ENCRYPT_BYTES: usize = 6_144;
/// Characters of an encryption context, written as compact JSON.
pub const CONTEXT_CHARACTERS: usize = 8_192;
/// Bytes of a data key.
pub const DATA_KEY_BYTES: usize = 1_024;
/// Bytes of one `GenerateRandom`.
pub const RANDOM_BYTES: usize = 1_024;
/// Data keys in one `BatchGenerateDataKey`.
pub const BATCH_DATA_KEYS: usize = 65_536;
/// Characters of a key's description.
pub const DESCRIPTION_CHARACTERS: usize = 8_192;
/// Characters of an access key's description.
pub const NAME_CHARACTERS: usize = 128;
/// Grants of one access key.
pub const GRANTS: usize = 64;
/// Resources of one grant.
pub const GRANT_RESOURCES: usize = 256;
/// Policies of one application access point.
pub const AAP_POLICIES: usize = 3;
/// Client keys of one application access point.
pub const CLIENT_KEYS: usize = 16;
/// Years that a client key is taken unless its maker says otherwise, and at most.
pub const CLIENT_KEY_YEARS: (u64, u64) = (5, 10);
/// Permissions of one policy.
pub const PERMISSIONS: usize = 16;
/// Resources of one policy.
pub const POLICY_RESOURCES: usize = 1_024;
/// Network rules of one policy.
pub const POLICY_NETWORK_RULES: usize = 40;
/// Values of a secret that were sealed anew and are still to be removed.
pub const SECRET_VALUES_LEFT: usize = 60;
/// Requests that wait for a second caller.
pub const APPROVALS: usize = 1_000;
/// Those of one caller.
pub const APPROVALS_OF_ONE: usize = 100;
/// Seconds that a login token is taken for, at least and at most.
pub const TOKEN_SECONDS: (u32, u32) = (60, 43_200);
/// Bytes of a pattern in a condition: what it takes to hold a text against it is their product, at most.
pub const PATTERN_BYTES: usize = 256;
/// Actions of a role of the installation's own.
pub const ROLE_ACTIONS: usize = 64;
/// Addresses and ranges of one network rule.
pub const NETWORKS: usize = 800;
/// Application access points, policies or network rules of an installation, of each.
pub const ACCESS_RECORDS: usize = 100_000;
/// Bytes of a request of ACME.
pub const ACME_BODY_BYTES: usize = 64 * 1024;
/// Accounts of ACME of an installation.
pub const ACME_ACCOUNTS: usize = 10_000;
/// Accounts that one binding may bind.
pub const ACME_BOUND_ACCOUNTS: usize = 100;
/// Orders of an account that wait for something.
pub const ACME_OPEN_ORDERS: usize = 50;
/// Orders of an account that are kept.
pub const ACME_KEPT_ORDERS: usize = 5_000;
/// Orders of an installation that are kept.
pub const ACME_ORDERS: usize = 100_000;
/// Names of an order.
pub const ACME_IDENTIFIERS: usize = 100;
/// Contacts of an account.
pub const ACME_CONTACTS: usize = 4;
/// Milliseconds that a request may take unless it says otherwise.
pub const DEFAULT_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds that a request may ask for.
pub const MAX_TIMEOUT_MS: u64 = 60_000;
/// Days between the scheduling and the deletion of a key, at least and at most.
pub const DELETION_WINDOW_DAYS: std::ops::RangeInclusive<u32> = 7..=366;
/// Days between two versions of a key that is rotated by itself, at least and at most.
pub const ROTATION_DAYS: std::ops::RangeInclusive<u64> = 7..=730;
/// Bytes of the policy of a key.
pub const POLICY_BYTES: usize = 32_768;
/// Statements of one.
pub const POLICY_STATEMENTS: usize = 64;
/// Tags of a key, and of one request.
pub const TAGS: usize = 20;
/// Characters of the name of a tag, and of its value.
pub const TAG_CHARACTERS: usize = 128;
/// Keys of one request on tags.
pub const TAGGED_KEYS: usize = 50;
/// Rows of one answer of `ListTagResources`.
pub const TAG_ROWS: usize = 200;
/// Days between two versions of a key pair that `CreateKeyVersion` makes, at least.
pub const KEY_VERSION_DAYS: u64 = 7;
/// Versions of a key pair.
pub const KEY_VERSIONS: usize = 50;
/// Versions of a symmetric key that `RotateKey` makes; those that are due by themselves come beyond it, too.
pub const SYMMETRIC_KEY_VERSIONS: usize = 1_000;
/// Versions of a managed data key.
pub const DATA_KEY_VERSIONS: usize = 100;
/// Bytes of wrapped key material: a private key of RSA-4096 behind what wraps its key, and room.
pub const WRAPPED_MATERIAL_BYTES: usize = 8_192;
/// Hours that an import token is taken.
pub const IMPORT_TOKEN_HOURS: u64 = 24;
/// Tries that an import token is good for.
pub const IMPORT_TRIES: u32 = 5;
/// Wrapping keys of one CMK that wait to be destroyed in their tokens.
pub const SPENT_WRAPPING_KEYS: usize = 16;
/// Bytes of a text that SM2 encrypts (`AsymmetricEncrypt`).
pub const SM2_PLAINTEXT_BYTES: usize = 6_047;
/// Bytes of the value of a secret, as UTF-8.
pub const SECRET_BYTES: usize = 30_720;
/// Secrets that one request reads.
pub const SECRETS_A_BATCH: usize = 20;
/// Versions of a secret: beyond, the oldest to which no stage points goes.
pub const SECRET_VERSIONS: usize = 10;
/// Stages of a secret that its users name.
pub const SECRET_STAGES: usize = 20;
/// Secrets of an installation.
pub const SECRETS: usize = 1_000_000;
/// Certificates of an installation.
pub const CERTIFICATES: usize = 1_000_000;
/// Certificates of a chain, the leaf among them.
pub const CHAIN_CERTIFICATES: usize = 10;
/// Characters of a certificate or a chain in PEM, and bytes of a PKCS #12 container.
pub const PEM_CHARACTERS: usize = 256 << 10;
/// Alternative names of a certificate that is created.
pub const ALT_NAMES: usize = 10;
/// Bytes of a message that the key of a certificate signs or checks raw.
pub const CERTIFICATE_MESSAGE_BYTES: usize = 4_096;
/// Days between the deletion of a secret and its end, at least and at most.
pub const SECRET_WINDOW_DAYS: std::ops::RangeInclusive<u32> = 7..=30;
/// The same, where the request does not say.
pub const SECRET_WINDOW_DAYS_DEFAULT: u32 = 30;
/// Hours between two rotations of a secret by itself, at least and at most.
pub const SECRET_ROTATION_HOURS: std::ops::RangeInclusive<u64> = 6..=8_760;
/// Rotations of a secret that callers ask for in an hour.
pub const SECRET_ROTATIONS_AN_HOUR: usize = 50;
/// Characters of `ExtendedConfig`.
pub const EXTENDED_CONFIG_CHARACTERS: usize = 1_024;
/// Entries of `CustomData` in it.
pub const CUSTOM_DATA: usize = 10;
/// Characters of a password that is made, at least and at most.
pub const PASSWORD_CHARACTERS: std::ops::RangeInclusive<u32> = 8..=128;
/// Certificates that one request has issued.
pub const CERTIFICATES_A_BATCH: usize = 1_024;
/// Certificate authorities of an installation.
pub const AUTHORITIES: usize = 1_000;
/// Instances of an installation: each has threads of its own.
pub const INSTANCES: usize = 64;
/// Networks that an instance can be bound to.
pub const INSTANCE_VPCS: u32 = 16;
/// Sessions that an instance has of one token.
pub const INSTANCE_SESSIONS: u32 = 1_024;
/// What an instance weighs beside others, at most.
pub const INSTANCE_WEIGHT: u32 = 1_000;
/// Threads of an instance that use software keys where that takes long.
pub const INSTANCE_WORKERS: u32 = 256;
/// Nonces of management requests that the store keeps of one access key.
pub const KEPT_NONCES: usize = 1 << 18;
/// Rows of a page, at most.
pub const PAGE_SIZE: u32 = 100;
/// Bytes of a MessagePack frame, unless configured otherwise.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Requests in flight on one connection.
pub const MAX_IN_FLIGHT: usize = 1_024;
/// Messages under one AES-256 key by random nonces before it must be replaced, as a power of two (`spec`: 2^45 for XAES).
pub const XAES_MESSAGES_LOG2: u32 = 45;
/// Messages under one AES key by random 96-bit nonces that are reserved at a time, before their use (`spec/ciphertext.md`).
pub const RESERVED_INVOCATIONS: u64 = 1 << 20;
/// Reserved messages at which a new version of the key is made.
pub const RENEWED_AT_INVOCATIONS: u64 = 1 << 31;
/// Messages under one AES key by random 96-bit nonces, at most (SP 800-38D §8.3).
pub const MAX_INVOCATIONS: u64 = 1 << 32;

/// How much of each kind callers may make, over all of them. What there is already stays, whatever the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRecords {
    /// Customer master keys.
    pub keys: usize,
    /// Aliases.
    pub aliases: usize,
    /// Managed data keys.
    pub data_keys: usize,
    /// Access keys.
    pub access_keys: usize,
    /// Secrets.
    pub secrets: usize,
    /// Certificates.
    pub certificates: usize,
}

impl Default for MaxRecords {
    fn default() -> Self {
        Self {
            keys: 2_000_000,
            aliases: 2_000_000,
            data_keys: 100_000,
            access_keys: 100_000,
            secrets: SECRETS,
            certificates: CERTIFICATES,
        }
    }
}

/// Checks that one more may be made where there are `count` and may be `max`.
///
/// # Errors
/// `LimitExceeded` where there is no room.
pub fn check_room(count: usize, max: usize, limit: Limit) -> Result<()> {
    if count < max {
        return Ok(());
    }
    let what = match limit {
        Limit::Keys => "customer master keys",
        Limit::Aliases => "aliases",
        Limit::DataKeys => "managed data keys",
        Limit::AccessRecords => "access keys",
        Limit::Secrets => "secrets",
        Limit::Certificates => "certificates",
        Limit::KeyVersions => "versions of the key",
        _ => "of this kind",
    };
    Err(Error::new(
        ErrorKind::LimitExceeded(limit),
        format!("there are {count} {what} already, and the limit is {max}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_below_the_limit_and_none_at_it_or_beyond() {
        check_room(9, 10, Limit::Keys).unwrap();
        for count in [10, 11] {
            let error = check_room(count, 10, Limit::Keys).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::Keys));
            assert!(error.message().contains("10") && error.message().contains("customer master keys"));
        }
        check_room(0, 0, Limit::Aliases).unwrap_err();
    }
}
