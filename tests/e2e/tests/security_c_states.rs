//! Case C1 of the security cases, and D8 beside it: what each operation answers for a key in each state, and where the key's policy denies it.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::access::Role;
use keymill_core::id::CmkId;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::operation::*;
use keymill_e2e::{Answered, Caller, GRANTED, Named, Owner, Pair, named, policy, statement};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
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
const TABLE: [(Operation, [&str; 4]); 73] = [
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
    // So is a secret, whose values are sealed and opened by its key.
    (Operation::CreateSecret, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::PutSecretValue, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GetSecretValue, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::DescribeSecret, [OK, OK, OK, OK]),
    (Operation::ListSecrets, [OK, OK, OK, OK]),
    (Operation::ListSecretVersionIds, [OK, OK, OK, OK]),
    (Operation::UpdateSecret, [OK, OK, OK, OK]),
    (Operation::UpdateSecretVersionStage, [OK, OK, OK, OK]),
    (Operation::DeleteSecret, [OK, OK, OK, OK]),
    (Operation::GenerateDataKey, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GenerateDataKeyWithoutPlaintext, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GenerateDataKeyPair, [OK, DISABLED, PENDING, AWAITS]),
    (Operation::GenerateDataKeyPairWithoutPlaintext, [OK, DISABLED, PENDING, AWAITS]),
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
        caller.create_secret_under(key, &format!("own-{key}"), "v1", "value").unwrap();
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
        Operation::ListResourceTags => caller.ask(
            ListResourceTagsRequest { key_id: Some(key_id), certificate_id: None, timeout_ms: None },
            |_| (),
        ),
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
        Operation::CreateSecret => {
            caller.create_secret_under(*key, &format!("new-{key}"), "v1", "value").map(drop)
        }
        Operation::PutSecretValue => caller.put_value(&own, "v2", "value", &[]).map(drop),
        Operation::GetSecretValue => caller.value(&own).map(drop),
        Operation::DescribeSecret => caller.describe_secret(&own).map(drop),
        Operation::ListSecrets => caller.secrets().map(drop),
        Operation::ListSecretVersionIds => caller.secret_versions(&own).map(drop),
        Operation::UpdateSecret => caller.update_secret(&own, "new"),
        Operation::UpdateSecretVersionStage => caller.move_stage(&own, "test", Some("v1"), None),
        Operation::DeleteSecret => caller.delete_secret(&own, Some(7)),
        Operation::GenerateDataKey => caller.data_key(*key, &[]).map(drop),
        Operation::GenerateDataKeyWithoutPlaintext => caller.data_key_sealed(*key).map(drop),
        Operation::GenerateDataKeyPair => {
            caller.data_key_pair(*key, KeySpec::EcP256, KeyFormat::Pem, &[]).map(drop)
        }
        Operation::GenerateDataKeyPairWithoutPlaintext => {
            caller.data_key_pair_sealed(*key, KeySpec::EcP256).map(drop)
        }
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
        Operation::GenerateRandom,
        Operation::GetRandomPassword,
        Operation::RestoreSecret,
        Operation::ResealSecret,
        Operation::RotateSecret,
        Operation::UpdateSecretRotationPolicy,
        Operation::GetSecretPolicy,
        Operation::SetSecretPolicy,
        Operation::CreateCertificate,
        Operation::UploadCertificate,
        Operation::ImportCertificate,
        Operation::GetCertificate,
        Operation::DescribeCertificate,
        Operation::ListCertificates,
        Operation::UpdateCertificateStatus,
        Operation::DeleteCertificate,
        Operation::ExportCertificate,
        Operation::CertificatePrivateKeySign,
        Operation::CertificatePublicKeyVerify,
        Operation::CertificatePublicKeyEncrypt,
        Operation::CertificatePrivateKeyDecrypt,
        Operation::CreateCertificateAuthority,
        Operation::ActivateCertificateAuthority,
        Operation::DescribeCertificateAuthority,
        Operation::ListCertificateAuthorities,
        Operation::UpdateCertificateAuthority,
        Operation::DeleteCertificateAuthority,
        Operation::IssueCertificate,
        Operation::BatchIssueCertificate,
        Operation::RenewCertificate,
        Operation::RevokeCertificate,
        Operation::CreateAccessKey,
        Operation::ListAccessKeys,
        Operation::UpdateAccessKey,
        Operation::DeleteAccessKey,
        Operation::CreateApplicationAccessPoint,
        Operation::DescribeApplicationAccessPoint,
        Operation::ListApplicationAccessPoints,
        Operation::UpdateApplicationAccessPoint,
        Operation::DeleteApplicationAccessPoint,
        Operation::CreateClientKey,
        Operation::RegisterClientKey,
        Operation::RegisterClientCertificate,
        Operation::CreateAcmeBinding,
        Operation::GetClientKey,
        Operation::ListClientKeys,
        Operation::DeleteClientKey,
        Operation::CreatePolicy,
        Operation::DescribePolicy,
        Operation::ListPolicies,
        Operation::UpdatePolicy,
        Operation::DeletePolicy,
        Operation::CreateNetworkRule,
        Operation::DescribeNetworkRule,
        Operation::ListNetworkRules,
        Operation::UpdateNetworkRule,
        Operation::DeleteNetworkRule,
        Operation::CreateRole,
        Operation::DescribeRole,
        Operation::ListRoles,
        Operation::ListApprovals,
        Operation::ApproveRequest,
        Operation::RejectRequest,
        Operation::UpdateRole,
        Operation::DeleteRole,
        Operation::BatchGetSecretValue,
        Operation::ExportSecrets,
        Operation::CreateKmsInstance,
        Operation::ConnectKmsInstance,
        Operation::GetKmsInstance,
        Operation::ListKmsInstances,
        Operation::UpdateKmsInstanceBindVpc,
        Operation::UpdateKmsInstancePool,
        Operation::ReleaseKmsInstance,
        Operation::GetDefaultKmsInstance,
        Operation::GetKmsInstanceQuotaInfos,
        Operation::CreateLoginToken,
        Operation::ExplainAccess,
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
        let is_elsewhere = elsewhere.contains(&operation);
        assert!(TABLE.iter().any(|(row, _)| *row == operation) != is_elsewhere, "{operation:?} has no row");
        // A policy that speaks of what is not asked of a key would seem to deny it.
        assert!(!is_elsewhere || !operation.is_right_to_a_key(), "{operation:?} is no right to a key");
    }
}

/// D8: each right to a key that a policy can speak of is one, and an explicit deny of it wins over every grant.
#[test]
fn d8_what_a_policy_denies_is_refused_operation_by_operation() {
    let (live, mut root) = begin();
    let roles = [
        Role::KeyAdministrator,
        Role::SecretAdministrator,
        Role::PolicyAdministrator,
        Role::CryptoServiceKeyUser,
    ];
    let grant = |role: Role| serde_json::from_value(serde_json::json!({ "Role": role.name() })).unwrap();
    let grants = roles.map(grant).to_vec();
    let credentials = root.credentials(grants);
    let mut user = Caller::new(&live, &credentials);
    for (operation, _) in TABLE.into_iter().filter(|(operation, _)| operation.is_right_to_a_key()) {
        assert!(roles.iter().any(|role| role.covers(operation)), "{operation:?} would be allowed");
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
