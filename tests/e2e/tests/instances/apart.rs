//! Nothing of one instance reaches anything of another, and only who has the right manages them.

use keymill_client::Credentials;
use keymill_e2e::create_secret;
use serde_json::{Value, json};

use super::scene::{ELSEWHERE, NOT_FOUND, STRANGER, Scene, source_of, told};

/// Every credential is tried in every network, and every name of one instance in another: all are refused, and all as what does not exist is.
#[test]
fn nothing_of_one_instance_reaches_anything_of_another() {
    let scene = Scene::start();
    let tenants = [scene.connected("a", "one"), scene.connected("b", "two")];
    let root = scene.root();
    let nobody = Credentials::new("KMAKNOSUCHKEY00000000000".parse().unwrap(), "a".repeat(48));
    for (credentials, own) in [
        (&root, vec![ELSEWHERE, source_of("three")]),
        (&tenants[0].credentials, vec![source_of("one")]),
        (&tenants[1].credentials, vec![source_of("two")]),
        (&nobody, vec![]),
    ] {
        for source in [ELSEWHERE, source_of("one"), source_of("two"), source_of("three")] {
            let (tcp, web) =
                (scene.try_caller(source, credentials).err(), scene.web(source, credentials).err());
            match own.contains(&source) {
                true => assert_eq!((tcp, web), (None, None), "{source}"),
                false => assert_eq!(
                    (tcp.as_deref(), web.as_deref()),
                    (Some(STRANGER), Some("InvalidAccessKeyId.NotFound")),
                    "{source}"
                ),
            }
        }
    }

    let mut callers: Vec<_> = tenants
        .iter()
        .zip(["one", "two"])
        .map(|(made, vpc)| scene.caller(source_of(vpc), &made.credentials))
        .collect();
    callers.push(scene.administrator());
    let [a, b, installation] = &mut callers[..] else { panic!("three") };
    // What the first has: a key with an alias, what is under it, a secret, an access point.
    let key = a.create_key();
    a.ask_json("CreateAlias", json!({ "KeyId": key, "AliasName": "alias/orders" })).unwrap();
    let blob = a.encrypt(key, b"a tenant's", &[]).unwrap();
    a.ask(create_secret("db", "v1", "marked"), |_| ()).unwrap();
    let (own, of_a) = (&tenants[1].id, &tenants[0].id);
    let policy = |instance: &str| json!({ "Name": "p", "KmsInstance": instance, "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"], "Resources": ["key/*"] });
    assert_eq!(a.ask_json("CreatePolicy", policy(of_a)).unwrap()["KmsInstance"], json!(of_a));
    let aap = json!({ "Name": "shop", "AuthenticationMethod": "ClientKey", "Policies": ["p"] });
    a.ask_json("CreateApplicationAccessPoint", aap).unwrap();
    let absent = "kst-aaaaaaaaaaaaaaaaaaaa";
    for other in [b, installation] {
        // Word for word.
        let mut code = |operation: &str, parameters: Value| told(other.ask_json(operation, parameters));
        let no_key = code("DescribeKey", json!({ "KeyId": "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9" }));
        assert_eq!(code("DescribeKey", json!({ "KeyId": key })), no_key);
        assert_eq!(code("DescribeKey", json!({ "KeyId": format!("acs:kms:local:0:key/{key}") })), no_key);
        assert_eq!(code("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 7 })), no_key);
        let no_alias = code("DescribeKey", json!({ "KeyId": "alias/none" }));
        assert_eq!(code("DescribeKey", json!({ "KeyId": "alias/orders" })), no_alias);
        let no_secret = code("GetSecretValue", json!({ "SecretName": "none" }));
        assert_eq!(code("GetSecretValue", json!({ "SecretName": "db" })), no_secret);
        let no_aap = code("DescribeApplicationAccessPoint", json!({ "Name": "none" }));
        assert_eq!(code("DescribeApplicationAccessPoint", json!({ "Name": "shop" })), no_aap);
        // To place something in another instance is to place it in one that is not there.
        for operation in ["CreateKey", "CreateSecret"] {
            let placed = |instance: &str| match operation {
                "CreateKey" => json!({ "DKMSInstanceId": instance }),
                _ => {
                    json!({ "DKMSInstanceId": instance, "SecretName": "x", "VersionId": "v", "SecretData": "d" })
                }
            };
            let nowhere = code(operation, placed(absent));
            assert!(nowhere.starts_with(NOT_FOUND) && code(operation, placed(of_a)) == nowhere, "{nowhere}");
        }
        let nowhere = code("CreatePolicy", policy(absent));
        assert!(nowhere.starts_with(NOT_FOUND) && code("CreatePolicy", policy(of_a)) == nowhere, "{nowhere}");
        assert_eq!(told(other.decrypt(&blob, &[])), no_key, "a blob of another names no key here");
        for list in ["ListKeys", "ListSecrets", "ListApplicationAccessPoints"] {
            assert_eq!(other.ask_json(list, json!({})).unwrap()["TotalCount"], json!(0), "{list}");
        }
    }
    // An instance does not manage instances, itself neither.
    let mut b = scene.caller(source_of("two"), &tenants[1].credentials);
    for (operation, parameters) in [
        ("CreateKmsInstance", json!({})),
        ("ListKmsInstances", json!({})),
        ("GetDefaultKmsInstance", json!({})),
        ("GetKmsInstanceQuotaInfos", json!({})),
        ("GetKmsInstance", json!({ "KmsInstanceId": of_a })),
        ("GetKmsInstance", json!({ "KmsInstanceId": own })),
        ("GetKmsInstance", json!({ "KmsInstanceId": absent })),
        ("ConnectKmsInstance", json!({ "KmsInstanceId": of_a, "VpcId": "two" })),
        ("UpdateKmsInstanceBindVpc", json!({ "KmsInstanceId": of_a, "BindVpcs": [] })),
        ("UpdateKmsInstancePool", json!({ "KmsInstanceId": own, "MaxKeys": 1 })),
        ("ReleaseKmsInstance", json!({ "KmsInstanceId": of_a, "ForceDeleteWithoutBackup": "true" })),
        ("SetDeletionProtection", json!({ "KmsInstanceId": of_a, "EnableDeletionProtection": true })),
    ] {
        assert_eq!(
            b.ask_json(operation, parameters).unwrap_err().code,
            "UnsupportedOperation",
            "{operation}"
        );
    }
    // What both call the same is each one's own.
    b.ask(create_secret("db", "v1", "another"), |_| ()).unwrap();
    assert_eq!(b.value("db").unwrap().1, "another");
    assert_eq!(callers[0].value("db").unwrap().1, "marked");
}

#[test]
fn instances_are_managed_by_who_has_the_right_and_an_auditor_reads() {
    let scene = Scene::start();
    let made = scene.connected("shop", "one");
    let mut root = scene.administrator();
    let mut with_role = |role: &str| {
        let key = root.ask_json("CreateAccessKey", json!({ "Grants": [{ "Role": role }] })).unwrap();
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"))
    };
    let [administrator, auditor, of_keys] =
        ["InstanceAdministrator", "Auditor", "KeyAdministrator"].map(&mut with_role);
    let named = json!({ "KmsInstanceId": made.id });
    for (credentials, may_read, may_change, may_make_keys) in
        [(&administrator, true, true, false), (&auditor, true, false, false), (&of_keys, false, false, true)]
    {
        let mut caller = scene.caller(ELSEWHERE, credentials);
        let mut is_denied = |operation: &str, parameters: Value| {
            caller.ask_json(operation, parameters).is_err_and(|error| error.code == "Forbidden.NoPermission")
        };
        for (operation, parameters) in [
            ("GetKmsInstance", &named),
            ("ListKmsInstances", &json!({})),
            ("GetDefaultKmsInstance", &json!({})),
            ("GetKmsInstanceQuotaInfos", &named),
        ] {
            assert_eq!(is_denied(operation, parameters.clone()), !may_read, "{operation}");
        }
        assert_eq!(
            is_denied("UpdateKmsInstancePool", json!({ "KmsInstanceId": made.id, "MaxKeys": 9 })),
            !may_change
        );
        assert_eq!(is_denied("ReleaseKmsInstance", json!({ "KmsInstanceId": "kst-none" })), !may_change);
        assert_eq!(
            is_denied(
                "SetDeletionProtection",
                json!({ "KmsInstanceId": made.id, "EnableDeletionProtection": false })
            ),
            !may_change
        );
        // Whoever manages instances may not so much as see keys.
        assert_eq!(is_denied("CreateKey", json!({})), !may_make_keys);
    }
}
