//! Group C of the security cases: the life of keys, in each state, and past the end of it. Changes under load and races have a
//! file of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_core::id::CmkId;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyState, KeyUsage, SignAlgorithm};
use keymill_core::operation::*;
use keymill_e2e::{
    Answered, Caller, GRANTED, Logs, Named, Owner, Pair, Rows, audit_lines, eventually, find_in_files,
    metric, named, policy, statement, verified,
};
use keymill_harness::{Fuse, Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;

const DAY_MS: i64 = 86_400_000;

/// An engine that looks for deletions often.
fn config() -> EngineConfig {
    EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() }
}

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(config());
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

const OK: &str = "ok";
const MODIFIED: &str = "Rejected.StateModifiedFailed";
const DISABLED: &str = "Rejected.Disabled";
const PENDING: &str = "Rejected.PendingDeletion";
const NO_KEY: &str = "Forbidden.KeyNotFound";
const NO_DATA_KEY: &str = "Forbidden.ResourceNotFound";
const NO_ALIAS: &str = "Forbidden.AliasNotFound";
const AWAITS: &str = "Rejected.PendingImport";

/// The cloud's table of states (its operations by name; `RotateKey`, which is ours, is as its `CreateKeyVersion`, and batches follow their
/// single form): what each operation answers for a key that is Enabled, Disabled, PendingDeletion, PendingImport.
const TABLE: [(Operation, [&str; 4]); 62] = [
    (Operation::CreateKey, [OK, OK, OK, OK]),
    (Operation::DescribeKey, [OK, OK, OK, OK]),
    (Operation::ListKeys, [OK, OK, OK, OK]),
    (Operation::EnableKey, [OK, OK, MODIFIED, MODIFIED]),
    (Operation::DisableKey, [OK, OK, MODIFIED, MODIFIED]),
    (Operation::ScheduleKeyDeletion, [OK, OK, MODIFIED, OK]),
    (Operation::CancelKeyDeletion, [MODIFIED, MODIFIED, OK, MODIFIED]),
    (Operation::UpdateKeyDescription, [OK, OK, PENDING, OK]),
    (Operation::RotateKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::UpdateRotationPolicy, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::SetDeletionProtection, [OK, OK, PENDING, OK]),
    (Operation::TagResource, [OK, OK, PENDING, OK]),
    (Operation::UntagResource, [OK, OK, PENDING, OK]),
    (Operation::ListResourceTags, [OK, OK, OK, OK]),
    (Operation::TagResources, [OK, OK, PENDING, OK]),
    (Operation::UntagResources, [OK, OK, PENDING, OK]),
    (Operation::ListTagResources, [OK, OK, OK, OK]),
    // The cloud documents no row of these; a right can be taken away in any state.
    (Operation::GetKeyPolicy, [OK, OK, OK, OK]),
    (Operation::SetKeyPolicy, [OK, OK, OK, OK]),
    (Operation::DescribeKeyVersion, [OK, OK, OK, OK]),
    (Operation::ListKeyVersions, [OK, OK, OK, OK]),
    (Operation::CreateAlias, [OK, OK, MODIFIED, OK]),
    (Operation::UpdateAlias, [OK, OK, PENDING, OK]),
    (Operation::DeleteAlias, [OK, OK, OK, OK]),
    (Operation::ListAliases, [OK, OK, OK, OK]),
    (Operation::ListAliasesByKeyId, [OK, OK, OK, OK]),
    (Operation::Encrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::Decrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::ReEncrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::AdvanceEncrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::AdvanceDecrypt, [OK, DISABLED, PENDING, AWAITS]),
    // A managed data key is there whatever the state of its key; one is made and given out by a key in use.
    (Operation::CreateManagedDataKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::CreateManagedDataKeyVersion, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::DeleteManagedDataKey, [OK, OK, OK, OK]),
    (Operation::GetManagedDataKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::ListManagedDataKeys, [OK, OK, OK, OK]),
    (Operation::ListManagedDataKeyVersions, [OK, OK, OK, OK]),
    (Operation::GenerateDataKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GenerateDataKeyWithoutPlaintext, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchEncrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchDecrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchReEncrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchGenerateDataKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::ExportDataKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GenerateAndExportDataKey, [OK, DISABLED, PENDING, AWAITS]),
    // The last version is of today; `pairs` has one that is made in time.
    (Operation::CreateKeyVersion, [MODIFIED, DISABLED, PENDING, AWAITS]),
    // The cloud documents no row of it; what a disabled key signed can be verified elsewhere.
    (Operation::GetPublicKey, [OK, OK, PENDING, AWAITS]),
    (Operation::AsymmetricSign, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::AsymmetricVerify, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::AsymmetricEncrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::AsymmetricDecrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GenerateMac, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::VerifyMac, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchSign, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchVerify, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchAsymmetricEncrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchAsymmetricDecrypt, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchGenerateMac, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::BatchVerifyMac, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GetParametersForImport, [OK, OK, OK, OK]),
    (Operation::ImportKeyMaterial, [OK, OK, MODIFIED, OK]),
    (Operation::DeleteKeyMaterial, [OK, OK, OK, OK]),
];

const ECDSA: SignAlgorithm = SignAlgorithm::EcdsaSha256;
// What every module has; some have no other hash for OAEP.
const OAEP: DecryptAlgorithm = DecryptAlgorithm::RsaesOaepSha1;
const HMAC: SignAlgorithm = SignAlgorithm::HmacSha256;

/// The number of the state PendingImport in the table, and material that can be imported.
const AWAITING: usize = 3;
const MATERIAL: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A key with two aliases and what it made (a blob, a signature, a MAC), and another key that stays as it is.
struct Subject {
    key: CmkId,
    pair: Pair,
    other: CmkId,
    blob: Vec<u8>,
}

/// Makes the key that an operation is tried on: of the kind that it is for.
fn subject(caller: &mut Caller, operation: Operation, state: usize) -> Subject {
    let (spec, usage) = match operation {
        Operation::CreateKeyVersion
        | Operation::GetPublicKey
        | Operation::AsymmetricSign
        | Operation::AsymmetricVerify
        | Operation::BatchSign
        | Operation::BatchVerify => (KeySpec::EcP256, KeyUsage::SignVerify),
        Operation::AsymmetricEncrypt
        | Operation::AsymmetricDecrypt
        | Operation::BatchAsymmetricEncrypt
        | Operation::BatchAsymmetricDecrypt => (KeySpec::Rsa2048, KeyUsage::EncryptDecrypt),
        Operation::GenerateMac
        | Operation::VerifyMac
        | Operation::BatchGenerateMac
        | Operation::BatchVerifyMac => (KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac),
        _ => (KeySpec::Aes256, KeyUsage::EncryptDecrypt),
    };
    let is_import = matches!(
        operation,
        Operation::GetParametersForImport | Operation::ImportKeyMaterial | Operation::DeleteKeyMaterial
    );
    let pair = match is_import || state == AWAITING {
        true => caller.create_external(spec, Some(usage)),
        false => caller.create_pair(spec, Some(usage), None),
    };
    let pair = pair.unwrap();
    let (key, other) = (pair.key, caller.create_key());
    if is_import || state == AWAITING && spec == KeySpec::Aes256 {
        caller.import(key, MATERIAL, None).unwrap();
    }
    let blob = match spec {
        // A key that never had material made nothing.
        KeySpec::EcP256 | KeySpec::Rsa2048 | KeySpec::HmacSha256 if state == AWAITING => Ok(vec![7; 64]),
        KeySpec::EcP256 => caller.sign_digest(pair, ECDSA, &[7; 32]),
        KeySpec::Rsa2048 => caller.encrypt_for(pair, OAEP, b"x"),
        KeySpec::HmacSha256 => caller.mac(key, HMAC, b"x"),
        _ => caller.encrypt(key, b"x", &[]),
    };
    let blob = blob.unwrap();
    if spec == KeySpec::Aes256 {
        caller.create_data_key(&format!("own-{key}"), key).unwrap();
    }
    caller.create_alias(&format!("alias/own-{key}"), key).unwrap();
    caller.create_alias(&format!("alias/other-{key}"), other).unwrap();
    match state {
        0 => {}
        1 => caller.disable(key).unwrap(),
        AWAITING => caller.delete_material(key).unwrap(),
        _ => caller.schedule_deletion(key).unwrap(),
    }
    Subject { key, pair, other, blob }
}

/// Tries an operation on a key; where an item of a batch fails, its code counts.
fn attempt(caller: &mut Caller, operation: Operation, subject: &Subject) -> String {
    let Subject { key, pair, other, blob } = subject;
    let (key_id, pair) = (key.key_ref(), *pair);
    let batch = std::slice::from_ref(blob);
    let own = format!("own-{key}");
    let mut item_code = None;
    let answered: Answered<()> = match operation {
        Operation::CreateKey => caller.create_described("").map(drop),
        Operation::DescribeKey => caller.describe(*key).map(drop),
        Operation::ListKeys => caller.keys().map(|keys| assert!(keys.contains(key))),
        Operation::EnableKey => caller.enable(*key),
        Operation::DisableKey => caller.disable(*key),
        Operation::ScheduleKeyDeletion => caller.schedule_deletion(*key),
        Operation::CancelKeyDeletion => caller.cancel_deletion(*key),
        Operation::UpdateKeyDescription => caller.update_description(*key, "new"),
        Operation::RotateKey => caller.rotate(*key),
        Operation::GetKeyPolicy => caller.policy(*key).map(drop),
        Operation::SetKeyPolicy => {
            caller.set_policy(*key, &policy(&[statement("Allow", &[GRANTED], &["kms:*"])]))
        }
        Operation::UpdateRotationPolicy => {
            let request = UpdateRotationPolicyRequest {
                key_id,
                enable_automatic_rotation: false,
                rotation_interval: None,
                timeout_ms: None,
            };
            caller.ask(request, |_| ())
        }
        Operation::SetDeletionProtection => {
            let request = SetDeletionProtectionRequest {
                protected_resource_arn: None,
                key_id: Some(key_id),
                kms_instance_id: None,
                enable_deletion_protection: true,
                deletion_protection_description: None,
                timeout_ms: None,
            };
            caller.ask(request, |_| ())
        }
        Operation::TagResource => {
            let tags = vec![TagPair { tag_key: "a".into(), tag_value: "b".into() }];
            let (secret_name, certificate_id, timeout_ms) = (None, None, None);
            let key_id = Some(key_id);
            caller.ask(TagResourceRequest { key_id, secret_name, certificate_id, tags, timeout_ms }, |_| ())
        }
        Operation::UntagResource => {
            let (key_id, tag_keys) = (Some(key_id), vec!["a".into()]);
            let (secret_name, certificate_id, timeout_ms) = (None, None, None);
            caller.ask(
                UntagResourceRequest { key_id, secret_name, certificate_id, tag_keys, timeout_ms },
                |_| (),
            )
        }
        Operation::ListResourceTags => {
            caller.ask(ListResourceTagsRequest { key_id, timeout_ms: None }, |_| ())
        }
        Operation::TagResources => {
            let (resource_type, resource_id) = (ResourceType::Key, vec![other.key_ref(), key_id]);
            let tag = vec![Tag { key: "a".into(), value: "b".into() }];
            caller.ask(TagResourcesRequest { resource_type, resource_id, tag, timeout_ms: None }, |_| ())
        }
        Operation::UntagResources => {
            let (resource_type, resource_id) = (ResourceType::Key, vec![other.key_ref(), key_id]);
            let (tag_key, all, timeout_ms) = (None, Some(true), None);
            caller.ask(UntagResourcesRequest { resource_type, resource_id, tag_key, all, timeout_ms }, |_| ())
        }
        Operation::ListTagResources => {
            let (resource_type, resource_id) = (ResourceType::Key, Some(vec![key_id]));
            let (tag, next_token, timeout_ms) = (None, None, None);
            let request = ListTagResourcesRequest { resource_type, resource_id, tag, next_token, timeout_ms };
            caller.ask(request, |_| ())
        }
        Operation::GetParametersForImport => caller.usual_parameters(*key).map(drop),
        Operation::ImportKeyMaterial => caller.import(*key, MATERIAL, None),
        Operation::DeleteKeyMaterial => caller.delete_material(*key),
        Operation::DescribeKeyVersion => {
            let key_version_id = caller.describe(*key).unwrap().primary_key_version;
            caller.ask(DescribeKeyVersionRequest { key_id, key_version_id, timeout_ms: None }, |_| ())
        }
        Operation::ListKeyVersions => caller.versions(*key).map(drop),
        Operation::CreateAlias => caller.create_alias(&format!("alias/new-{key}"), *key),
        Operation::UpdateAlias => caller.move_alias(&format!("alias/other-{key}"), *key),
        Operation::DeleteAlias => caller.delete_alias(&format!("alias/own-{key}")),
        Operation::ListAliases => caller.aliases().map(drop),
        Operation::ListAliasesByKeyId => {
            let (page_number, page_size, timeout_ms) = (None, None, None);
            caller.ask(ListAliasesByKeyIdRequest { key_id, page_number, page_size, timeout_ms }, |_| ())
        }
        Operation::Encrypt => caller.encrypt(*key, b"x", &[]).map(drop),
        Operation::Decrypt => caller.decrypt(blob, &[]).map(drop),
        Operation::ReEncrypt => caller.re_encrypt(blob, *other).map(drop),
        Operation::AdvanceEncrypt => caller.advance_encrypt(*key, b"x", Some(b"a")).map(drop),
        Operation::AdvanceDecrypt => caller.advance_decrypt(blob, None, None).map(drop),
        Operation::CreateManagedDataKey => caller.create_data_key(&format!("new-{key}"), *key).map(drop),
        Operation::CreateManagedDataKeyVersion => caller.renew_data_key(&own).map(drop),
        Operation::DeleteManagedDataKey => caller.delete_data_key(&own),
        Operation::GetManagedDataKey => caller.managed_data_key(&own, None, false).map(drop),
        Operation::ListManagedDataKeys => caller.managed_data_keys().map(drop),
        Operation::ListManagedDataKeyVersions => caller.data_key_versions(&own).map(drop),
        Operation::GenerateDataKey => caller.data_key(*key, &[]).map(drop),
        Operation::GenerateDataKeyWithoutPlaintext => caller.data_key_sealed(*key).map(drop),
        Operation::BatchEncrypt => caller.batch_encrypt(*key, &[vec![7]]).map(drop),
        Operation::BatchDecrypt => caller.batch_decrypt(batch).map(|opened| {
            item_code = opened.errors.first().map(|error| error.1.to_string());
        }),
        Operation::BatchReEncrypt => caller.batch_re_encrypt(batch, *other).map(|(_, errors)| {
            item_code = errors.first().map(|error| error.1.to_string());
        }),
        Operation::BatchGenerateDataKey => caller.data_keys(*key, 2).map(drop),
        Operation::ExportDataKey => caller.export(blob, &[], &Owner::shared().recipient()).map(drop),
        Operation::GenerateAndExportDataKey => {
            caller.generate_and_export(*key, 32, &Owner::shared().recipient()).map(drop)
        }
        Operation::CreateKeyVersion => caller.create_version(*key).map(drop),
        Operation::GetPublicKey => caller.public_key(pair).map(drop),
        Operation::AsymmetricSign => caller.sign_digest(pair, ECDSA, &[7; 32]).map(drop),
        Operation::AsymmetricVerify => {
            caller.verify(pair, ECDSA, (Some(&[7; 32]), None), blob).map(|valid| assert!(valid))
        }
        Operation::AsymmetricEncrypt => caller.encrypt_for(pair, OAEP, b"x").map(drop),
        Operation::AsymmetricDecrypt => {
            caller.decrypt_by(pair, OAEP, blob).map(|text| assert_eq!(text, b"x"))
        }
        Operation::GenerateMac => caller.mac(*key, HMAC, b"x").map(drop),
        Operation::VerifyMac => caller.verify_mac(*key, HMAC, b"x", blob).map(|valid| assert!(valid)),
        Operation::BatchSign => caller.batch_sign(pair, ECDSA, MessageType::Raw, &[vec![7]]).map(drop),
        Operation::BatchVerify => {
            caller.batch_verify(pair, ECDSA, MessageType::Digest, &[vec![7; 32]], batch).map(drop)
        }
        Operation::BatchAsymmetricEncrypt => caller.batch_encrypt_for(pair, OAEP, &[vec![7]]).map(drop),
        Operation::BatchAsymmetricDecrypt => caller.batch_decrypt_by(pair, OAEP, batch).map(drop),
        Operation::BatchGenerateMac => caller.batch_mac(*key, HMAC, &[vec![7]]).map(drop),
        Operation::BatchVerifyMac => caller.batch_verify_mac(*key, HMAC, &[vec![7]], batch).map(drop),
        other => panic!("{other:?} is not about a key's state"),
    };
    match answered {
        Ok(()) => item_code.unwrap_or_else(|| OK.to_owned()),
        Err(error) => {
            assert!(
                error.status == 409 || [NO_KEY, NO_ALIAS, NO_DATA_KEY].contains(&&*error.code),
                "{error}"
            );
            error.code
        }
    }
}

#[test]
fn c1_each_operation_in_each_state_answers_as_the_cloud_has_it() {
    let (_live, mut caller) = begin();
    for (operation, expected) in TABLE {
        for (state, expected) in expected.into_iter().enumerate() {
            let subject = subject(&mut caller, operation, state);
            let got = attempt(&mut caller, operation, &subject);
            assert_eq!(got, expected, "{operation:?} in state {state}");
        }
    }
    let elsewhere = [
        Operation::CreateAccessKey,
        Operation::ListAccessKeys,
        Operation::UpdateAccessKey,
        Operation::DeleteAccessKey,
        Operation::DescribeLimits,
        Operation::DescribeRegions,
        Operation::DescribeService,
        Operation::DescribeAccountKmsStatus,
        Operation::OpenKmsService,
        Operation::AdoptKey,
        Operation::ListTokens,
        Operation::DrainToken,
        Operation::EnableToken,
    ];
    for operation in Operation::ALL {
        let covered = TABLE.iter().any(|(row, _)| *row == operation) || elsewhere.contains(&operation);
        assert!(covered, "{operation:?} has no row");
    }
}

/// D8: each right to a key that a policy can speak of is one, and an explicit deny of it wins over every grant.
#[test]
fn d8_what_a_policy_denies_is_refused_operation_by_operation() {
    let (live, mut root) = begin();
    let roles = ["KeyAdministrator", "PolicyAdministrator", "RbacPermission/Template/CryptoServiceKeyUser"];
    let grants =
        roles.map(|role| serde_json::from_value(serde_json::json!({ "Role": role })).unwrap()).to_vec();
    let credentials = root.credentials(grants);
    let mut user = Caller::new(&live, &credentials);
    for (operation, _) in TABLE.into_iter().filter(|(operation, _)| operation.is_right_to_a_key()) {
        let subject = subject(&mut user, operation, 0);
        let action = format!("kms:{}", operation.name());
        let denied = statement("Deny", &[&named(credentials.access_key_id())], &[&action]);
        root.set_policy(subject.key, &policy(&[statement("Allow", &[GRANTED], &["kms:*"]), denied])).unwrap();
        match operation {
            Operation::ListKeys => assert!(!user.keys().unwrap().contains(&subject.key)),
            Operation::ListAliases => {
                assert!(user.aliases().unwrap().iter().all(|(_, key)| *key != subject.key));
            }
            Operation::DeleteAlias => assert_eq!(attempt(&mut user, operation, &subject), NO_ALIAS),
            Operation::ListManagedDataKeys => {
                let own = format!("own-{}", subject.key);
                assert!(user.managed_data_keys().unwrap().iter().all(|(name, _)| *name != own));
            }
            Operation::CreateManagedDataKeyVersion
            | Operation::DeleteManagedDataKey
            | Operation::GetManagedDataKey
            | Operation::ListManagedDataKeyVersions => {
                assert_eq!(attempt(&mut user, operation, &subject), NO_DATA_KEY, "{operation:?}");
            }
            _ => assert_eq!(attempt(&mut user, operation, &subject), NO_KEY, "{operation:?}"),
        }
    }
}

#[test]
fn c1_re_encrypt_looks_at_the_state_of_its_destination_too() {
    let (_live, mut caller) = begin();
    for (state, code) in [(1, DISABLED), (2, PENDING), (AWAITING, AWAITS)] {
        let Subject { key, other, .. } = subject(&mut caller, Operation::ReEncrypt, state);
        let blob = caller.encrypt(other, b"x", &[]).unwrap();
        assert_eq!(caller.re_encrypt(&blob, key).unwrap_err().code, code);
        assert_eq!(caller.batch_re_encrypt(&[blob], key).unwrap_err().code, code);
    }
}

#[test]
fn what_is_sealed_anew_is_a_use_of_both_versions() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let items: Vec<Vec<u8>> = (0..300).map(|i| vec![1; i]).collect();
    let blobs = caller.batch_encrypt(key, &items).unwrap();
    caller.rotate(key).unwrap();
    assert_eq!(caller.batch_re_encrypt(&blobs, key).unwrap().1, []);
    caller.re_encrypt(&blobs[7], key).unwrap();
    assert_eq!(caller.uses(key).unwrap(), [(300, 301), (301, 0)]);
}

#[test]
fn c4_a_key_that_waits_for_its_deletion_refuses_changes_and_comes_back_whole() {
    let (live, mut caller) = begin();
    let (key, other) = (caller.create_key(), caller.create_key());
    let old = caller.encrypt(key, b"old", &[]).unwrap();
    caller.rotate(key).unwrap();
    let new = caller.encrypt(key, b"new", &[]).unwrap();
    caller.create_alias("alias/waits", key).unwrap();
    caller.create_alias("alias/else", other).unwrap();
    caller.schedule_deletion(key).unwrap();
    let before = caller.describe(key).unwrap();
    assert_eq!((before.key_state, before.delete_date.is_empty()), (KeyState::PendingDeletion, false));
    let refused = [
        (caller.encrypt(key, b"x", &[]).map(drop), PENDING),
        (caller.encrypt("alias/waits", b"x", &[]).map(drop), PENDING),
        (caller.decrypt(&old, &[]).map(drop), PENDING),
        (caller.create_alias("alias/another", key), MODIFIED),
        (caller.move_alias("alias/else", key), PENDING),
        (caller.rotate(key), PENDING),
        (caller.enable(key), MODIFIED),
        (caller.disable(key), MODIFIED),
        (caller.schedule_deletion(key), MODIFIED),
    ];
    for (answered, code) in refused {
        assert_eq!(answered.unwrap_err().code, code);
    }
    // Two that would have encrypted, one that would have decrypted: somebody still needs it.
    assert_eq!(metric(&live, "keymill_pending_deletion_uses_total"), 3.0);
    let after = caller.describe(key).unwrap();
    assert_eq!((after.key_state, &after.delete_date), (KeyState::PendingDeletion, &before.delete_date));
    caller.cancel_deletion(key).unwrap();
    let back = caller.describe(key).unwrap();
    assert_eq!((back.key_state, &*back.delete_date), (KeyState::Enabled, ""));
    assert_eq!(caller.decrypt(&old, &[]).unwrap(), b"old");
    assert_eq!(caller.decrypt(&new, &[]).unwrap(), b"new");
    let by_alias = caller.encrypt("alias/waits", b"x", &[]).unwrap();
    assert_eq!(caller.decrypt(&by_alias, &[]).unwrap(), b"x");
}

#[test]
fn c5_a_date_that_passed_while_stopped_is_kept_at_the_start_and_not_before_it() {
    let Started { live, credentials } = Live::start(config());
    let mut caller = Caller::new(&live, &credentials);
    let (due, kept) = (caller.create_key(), caller.create_key());
    let blob = caller.encrypt(due, b"x", &[]).unwrap();
    caller.create_alias("alias/due", due).unwrap();
    caller.schedule_deletion(due).unwrap();
    drop(caller);

    let fuse = Fuse::new();
    let around = fuse.clone();
    let early =
        Setup::new(config()).at_offset_ms(7 * DAY_MS - 60_000).with_store(move |inner| around.store(inner));
    let live = live.halt().start(early);
    let looked = fuse.commits();
    eventually("three looks at what is due", || (fuse.commits() >= looked + 3).then_some(()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.describe(due).unwrap().key_state, KeyState::PendingDeletion);
    drop(caller);

    let live = live.halt().start(Setup::new(config()).at_offset_ms(7 * DAY_MS + 60_000));
    let mut caller = Caller::new(&live, &credentials);
    eventually("the key is gone", || caller.describe(due).is_err().then_some(()));
    for error in [
        caller.describe(due).unwrap_err(),
        caller.encrypt(due, b"x", &[]).unwrap_err(),
        caller.decrypt(&blob, &[]).unwrap_err(),
        caller.cancel_deletion(due).unwrap_err(),
    ] {
        assert_eq!((error.status, &*error.code), (404, "Forbidden.KeyNotFound"));
    }
    assert_eq!(caller.encrypt("alias/due", b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
    assert!(caller.encrypt(kept, b"x", &[]).is_ok());
    drop(caller);
    let site = live.halt();
    let deleted = |line: &serde_json::Value| {
        line["operation"] == "DeleteKey" && line["keys"][0]["cmk"] == due.to_string()
    };
    assert_eq!(audit_lines(&site).iter().filter(|line| deleted(line)).count(), 1);
    verified(&site);
}

/// Starts an engine that counts its looks at the clock, and schedules the deletion of a key.
fn begin_waiting(config: EngineConfig) -> (Live, Caller, CmkId, Fuse) {
    let fuse = Fuse::new();
    let around = fuse.clone();
    let setup = Setup::new(config).with_store(move |inner| around.store(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    caller.schedule_deletion(key).unwrap();
    (live, caller, key, fuse)
}

fn jumps(site: &Site) -> usize {
    audit_lines(site).iter().filter(|line| line["note"] == "clock-jump").count()
}

#[test]
fn c5_a_clock_that_jumps_a_year_either_way_is_noted_and_deletions_rest() {
    for offset_ms in [365 * DAY_MS, -365 * DAY_MS] {
        let (live, mut caller, key, fuse) = begin_waiting(config());
        live.clock.jump_to_offset_ms(offset_ms);
        let looked = fuse.commits();
        eventually("five looks at the clock", || (fuse.commits() >= looked + 5).then_some(()));
        assert_eq!(caller.describe(key).unwrap().key_state, KeyState::PendingDeletion, "{offset_ms}");
        caller.cancel_deletion(key).unwrap();
        assert!(caller.encrypt(key, b"x", &[]).is_ok());
        drop(caller);
        let site = live.halt();
        assert_eq!(jumps(&site), 1, "{offset_ms}");
        // The rest outlives a restart: the clock is where it jumped to.
        let live = site.start(Setup::new(config()).at_offset_ms(offset_ms));
        drop(live);
    }
}

#[test]
fn c5_deletions_rest_over_a_restart_too_and_go_on_when_the_rest_is_over() {
    let rests = EngineConfig { clock_jump_rest: Duration::from_secs(2), ..config() };
    let (live, mut caller, key, fuse) = begin_waiting(rests.clone());
    live.clock.jump_to_offset_ms(8 * DAY_MS);
    let looked = fuse.commits();
    eventually("a look at the clock", || (fuse.commits() >= looked + 2).then_some(()));
    assert_eq!(caller.describe(key).unwrap().key_state, KeyState::PendingDeletion);
    drop(caller);
    let site = live.halt();
    assert_eq!(jumps(&site), 1);
    let live = site.start(Setup::new(rests).at_offset_ms(8 * DAY_MS));
    // Two seconds after the jump, by the engine's clock.
    eventually("the key is deleted", || (metric(&live, "keymill_keys") == 0.0).then_some(()));
}

#[test]
fn c5_a_clock_set_back_by_a_year_while_stopped_is_noted_at_the_start() {
    let (live, caller, key, _fuse) = begin_waiting(config());
    drop(caller);
    let live = live.halt().start(Setup::new(config()).at_offset_ms(-365 * DAY_MS));
    let credentials_gone = live.bootstrap().is_none();
    assert!(credentials_gone, "it is the same store");
    assert_eq!(metric(&live, "keymill_keys"), 1.0, "{key} is still there");
    let site = live.halt();
    assert_eq!(jumps(&site), 1, "the store was last seen a year later than now");
}

#[test]
fn c6_what_was_destroyed_is_in_no_file_of_the_store_and_usable_from_nothing() {
    let Started { live, credentials } = Live::start(config());
    let mut caller = Caller::new(&live, &credentials);
    let (key, kept) = (caller.create_key(), caller.create_key());
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    caller.rotate(key).unwrap();
    let newer = caller.encrypt(key, b"y", &[]).unwrap();
    // One that was brought, and is about to be brought again.
    let brought = caller.create_external(KeySpec::Aes128, None).unwrap().key;
    caller.import(brought, &MATERIAL[..16], None).unwrap();
    let foreign = caller.encrypt(brought, b"z", &[]).unwrap();
    let by = caller.usual_parameters(brought).unwrap();
    for (name, key) in [("alias/first", key), ("alias/second", brought)] {
        caller.create_alias(name, key).unwrap();
        caller.schedule_deletion(key).unwrap();
    }
    drop(caller);
    let site = live.halt();
    let of_keys = |site: &Site| {
        let rows = Rows::of(site);
        let prefixes = ["cmk/", "material/", "usage/", "invocations/", "import/"];
        let mut paths: Vec<String> = prefixes
            .iter()
            .flat_map(|prefix| [key, brought].map(|key| rows.paths(&format!("{prefix}{key}"))))
            .flatten()
            .collect();
        paths.extend(rows.paths("alias/"));
        paths.into_iter().map(|path| (rows.get(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let rows = of_keys(&site);
    let secret: Vec<&[u8]> = rows
        .iter()
        .filter(|(_, path)| path.starts_with("material/") || path.starts_with("import/"))
        .map(|(value, _)| &value[..])
        .collect();
    assert_eq!(secret.len(), 4);
    for value in &secret {
        assert!(!find_in_files(&site.data(), &value[10..]).is_empty(), "the search finds what is there");
    }

    let live = site.start(Setup::new(config()).at_offset_ms(8 * DAY_MS));
    eventually("the keys are deleted", || (metric(&live, "keymill_keys") == 1.0).then_some(()));
    let gone = |caller: &mut Caller, codes: &[&str]| {
        let mut told = Vec::new();
        for blob in [&blob, &newer, &foreign] {
            told.push(caller.decrypt(blob, &[]).unwrap_err().code);
        }
        for key in [key, brought] {
            told.push(caller.encrypt(key, b"x", &[]).unwrap_err().code);
            told.push(caller.describe(key).unwrap_err().code);
            told.push(caller.cancel_deletion(key).unwrap_err().code);
            told.push(caller.enable(key).unwrap_err().code);
        }
        told.push(caller.import_by(brought, &by, &MATERIAL[..16]).unwrap_err().code);
        assert!(told.iter().all(|code| codes.contains(&&**code)), "{told:?}");
        for name in ["alias/first", "alias/second"] {
            assert_eq!(caller.encrypt(name, b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
        }
        assert!(caller.encrypt(kept, b"x", &[]).is_ok());
    };
    let mut caller = Caller::new(&live, &credentials);
    gone(&mut caller, &["Forbidden.KeyNotFound"]);
    drop(caller);
    let site = live.halt();
    for value in &secret {
        // Any part of the record that is long enough to be no accident: nonce, ciphertext, tag.
        for part in [&value[10..34], &value[34..value.len() - 16], &value[value.len() - 16..]] {
            assert_eq!(find_in_files(&site.data(), part), Vec::<std::path::PathBuf>::new());
        }
    }
    assert_eq!(of_keys(&site), []);
    // Brought back by one who kept the rows, all of them: refused by name, and the keys stay gone.
    for (value, path) in &rows {
        Rows::of(&site).insert(path, value);
    }
    let logs = Logs::keep();
    let live = site.start(Setup::new(config()).at_offset_ms(8 * DAY_MS));
    let mut caller = Caller::new(&live, &credentials);
    gone(&mut caller, &["Forbidden.KeyNotFound", "Rejected.Quarantined"]);
    // Use counts alone are not remembered by the audit.
    for (_, path) in rows.iter().filter(|(_, path)| !path.starts_with("usage/")) {
        let lines = logs.lines_with(path);
        let named = |line: &String| line.contains("ERROR") && line.contains("quarantined");
        assert!(lines.iter().any(named), "{path}: {lines:?}");
    }
    drop(caller);
    verified(&live.halt());
}
