//! Application access points over MessagePack TCP: what their policies give and take, from where, and until when. A change is in force with the
//! next request of a connection that is open already (D6, D9, D10).
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::Credentials;
use keymill_core::Sensitive;
use keymill_core::access::Grant;
use keymill_core::id::{ClientKeyId, CmkId};
use keymill_core::operation::*;
use keymill_core::time::Timestamp;
use keymill_e2e::{Answered, Caller, audit_lines, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NO_KEY: &str = "Forbidden.KeyNotFound";
/// What a caller is told whose client key is not taken any more.
const NOT_ADMITTED: &str = "InvalidAccessKeyId.Inactive";
const NO_RESOURCE: &str = "Forbidden.ResourceNotFound";
const PASSWORD: &str = "secret-1234";
const HERE: &str = "127.0.0.0/8";

struct Scene {
    live: Live,
    root: Caller,
    credentials: Credentials,
    key: CmkId,
}

fn begin() -> Scene {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut root = Caller::new(&live, &credentials);
    let key = root.create_key();
    Scene { live, root, credentials, key }
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

impl Scene {
    fn ask(&mut self, operation: &str, parameters: Value) -> Answered<Value> {
        self.root.ask_json(operation, parameters)
    }

    /// Makes a network rule, a policy on the key and an access point, all of that name.
    fn app(&mut self, name: &str, network: &str) {
        let key = self.key;
        self.ask(
            "CreateNetworkRule",
            json!({ "Name": name, "Type": "Private", "SourcePrivateIp": [network] }),
        )
        .unwrap();
        self.ask(
            "CreatePolicy",
            json!({
                "Name": name, "KmsInstance": "shared",
                "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"],
                "Resources": [format!("key/{key}")],
                "AccessControlRules": format!(r#"{{"NetworkRules":["{name}"]}}"#),
            }),
        )
        .unwrap();
        self.ask("CreateApplicationAccessPoint", json!({ "Name": name, "Policies": [name] })).unwrap();
    }

    /// Makes a client key and returns what logs in with it.
    fn client_key(&mut self, name: &str, span: Option<(Timestamp, Timestamp)>) -> Credentials {
        // An RSA key takes its time, and a password that becomes a key, too.
        let mut parameters = json!({ "AapName": name, "Password": PASSWORD, "TimeoutMs": 60_000 });
        if let Some((from, until)) = span {
            parameters["NotBefore"] = json!(from.to_string());
            parameters["NotAfter"] = json!(until.to_string());
        }
        let reply = self.ask("CreateClientKey", parameters).unwrap();
        let file = json!({ "KeyId": reply["ClientKeyId"], "PrivateKeyData": reply["PrivateKeyData"] });
        Credentials::of_client_key_file(file.to_string().as_bytes(), PASSWORD).unwrap()
    }
}

#[test]
fn an_application_does_what_its_policies_say_with_the_keys_that_they_name_and_nothing_else() {
    let mut scene = begin();
    let other = scene.root.create_key();
    scene.app("shop", HERE);
    let credentials = scene.client_key("shop", None);
    let mut shop = Caller::new(&scene.live, &credentials);
    let (key, id) = (scene.key, credentials.access_key_id().clone());
    assert_eq!(shop.connection.principal(), format!("aap/shop/{id}"));
    let blob = shop.encrypt(key, b"x", &[]).unwrap();
    assert_eq!(shop.decrypt(&blob, &[]).unwrap(), b"x");
    shop.data_key(key, &[]).unwrap();
    // D6: not found and forbidden are alike, and lists hold nothing of others.
    let foreign = scene.root.encrypt(other, b"x", &[]).unwrap();
    assert_eq!(code(shop.encrypt(other, b"x", &[])), NO_KEY);
    assert_eq!(code(shop.decrypt(&foreign, &[])), NO_KEY);
    assert_eq!(code(shop.re_encrypt(&blob, other)), NO_KEY);
    for (operation, parameters) in
        [("DisableKey", json!({ "KeyId": key })), ("SetKeyPolicy", json!({ "KeyId": key, "Policy": "{}" }))]
    {
        assert_eq!(code(shop.ask_json(operation, parameters)), NO_KEY, "{operation}");
    }
    for (operation, parameters) in [
        ("CreateKey", json!({})),
        ("ListAccessKeys", json!({})),
        ("CreateAccessKey", json!({ "Grants": [] })),
        ("DescribeApplicationAccessPoint", json!({ "Name": "shop" })),
        ("DescribeApplicationAccessPoint", json!({ "Name": "none" })),
        ("CreateClientKey", json!({ "AapName": "shop", "Password": PASSWORD })),
        ("DeleteClientKey", json!({ "ClientKeyId": id })),
        ("UpdatePolicy", json!({ "Name": "shop", "Resources": ["key/*"] })),
    ] {
        assert_eq!(code(shop.ask_json(operation, parameters)), "Forbidden.NoPermission", "{operation}");
    }
    assert!(shop.keys().unwrap().is_empty());
    let site = scene.live.halt();
    let lines = audit_lines(&site);
    let done = |line: &&Value| line["principal"] == id.as_str() && line["outcome"] == "ok";
    let rules: Vec<_> = lines.iter().filter(done).map(|line| line["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"policy shop"), "{rules:?}");
    verified(&site);
}

/// Each of what lets an application in is taken away and given back under an open connection.
#[test]
fn d10_what_is_taken_away_is_gone_with_the_next_request_of_an_open_connection() {
    let mut scene = begin();
    scene.app("shop", HERE);
    let credentials = scene.client_key("shop", None);
    let mut shop = Caller::new(&scene.live, &credentials);
    let key = scene.key;
    let blob = shop.encrypt(key, b"x", &[]).unwrap();
    let network = |network: &str| json!({ "Name": "shop", "SourcePrivateIp": [network] });
    let resources = |resource: String| json!({ "Name": "shop", "Resources": [resource] });
    let permissions = |role: &str| json!({ "Name": "shop", "Permissions": [format!("RbacPermission/Template/CryptoService{role}")] });
    scene
        .ask(
            "CreatePolicy",
            json!({
                "Name": "nothing", "Permissions": ["RbacPermission/Template/CryptoServiceSecretUser"],
                "Resources": ["secret/*"],
            }),
        )
        .unwrap();
    for (operation, taken, given) in [
        ("UpdateNetworkRule", network("10.0.0.0/8"), network(HERE)),
        ("UpdatePolicy", resources("secret/*".into()), resources("key/*".into())),
        ("UpdatePolicy", permissions("SecretUser"), permissions("KeyUser")),
        (
            "UpdateApplicationAccessPoint",
            json!({ "Name": "shop", "Policies": ["nothing"] }),
            json!({ "Name": "shop", "Policies": ["nothing", "shop"] }),
        ),
    ] {
        scene.ask(operation, taken).unwrap();
        assert_eq!(code(shop.encrypt(key, b"x", &[])), NO_KEY, "{operation}");
        assert_eq!(code(shop.decrypt(&blob, &[])), NO_KEY, "{operation}");
        scene.ask(operation, given).unwrap();
        shop.decrypt(&blob, &[]).unwrap();
    }
    // A second client key goes on where the first is revoked, and none where the access point is gone.
    let second = scene.client_key("shop", None);
    let mut beside = Caller::new(&scene.live, &second);
    scene.ask("DeleteClientKey", json!({ "ClientKeyId": credentials.access_key_id() })).unwrap();
    assert_eq!(code(shop.decrypt(&blob, &[])), NOT_ADMITTED);
    assert!(Caller::try_new(&scene.live, &credentials).is_err());
    beside.decrypt(&blob, &[]).unwrap();
    scene.ask("DeleteApplicationAccessPoint", json!({ "Name": "shop" })).unwrap();
    assert_eq!(code(beside.decrypt(&blob, &[])), NOT_ADMITTED);
    assert!(Caller::try_new(&scene.live, &second).is_err());
    let id = second.access_key_id();
    assert_eq!(code(scene.ask("GetClientKey", json!({ "ClientKeyId": id }))), NO_RESOURCE);
    // One of the same name later is another.
    scene.ask("CreateApplicationAccessPoint", json!({ "Name": "shop", "Policies": ["shop"] })).unwrap();
    assert_eq!(code(beside.decrypt(&blob, &[])), NOT_ADMITTED);
    let site = scene.live.halt();
    let rules: Vec<_> = audit_lines(&site)
        .iter()
        .filter(|line| line["outcome"] == "KeyNotFound")
        .map(|line| line["rule"].as_str().unwrap().to_owned())
        .collect();
    for rule in ["network shop", "default"] {
        assert!(rules.iter().any(|told| told == rule), "{rule}: {rules:?}");
    }
    verified(&site);
}

#[test]
fn a_client_key_is_taken_in_its_time_alone() {
    let mut scene = begin();
    scene.app("shop", HERE);
    let now = scene.live.clock.now();
    let second = std::time::Duration::from_secs(1);
    let soon = scene.client_key("shop", Some((now.plus(60 * second), now.plus(120 * second))));
    let valid = scene.client_key("shop", Some((now.minus(60 * second), now.plus(60 * second))));
    assert!(Caller::try_new(&scene.live, &soon).is_err());
    let mut shop = Caller::new(&scene.live, &valid);
    let key = scene.key;
    let blob = shop.encrypt(key, b"x", &[]).unwrap();
    scene.live.clock.jump_to_offset_ms(90_000);
    assert_eq!(code(shop.decrypt(&blob, &[])), NO_KEY);
    assert!(Caller::try_new(&scene.live, &valid).is_err());
    Caller::new(&scene.live, &soon).decrypt(&blob, &[]).unwrap();
    let site = scene.live.halt();
    // A decryption is refused item by item, and its record names no rule.
    let is_told = |line: &Value| line["outcome"] == "KeyNotFound" && line["operation"] == "Decrypt";
    assert!(audit_lines(&site).iter().any(is_told));
}

/// A key whose private half never was here.
#[test]
fn a_public_key_that_was_registered_is_as_good_as_one_that_was_made_here() {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    let mut scene = begin();
    scene.app("shop", HERE);
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = keymill_core::seam::provider::PublicKey::from_der(public.as_ref().to_vec()).to_pem();
    let reply = scene.ask("RegisterClientKey", json!({ "AapName": "shop", "PublicKey": pem })).unwrap();
    assert_eq!(reply["KeyAlgorithm"], "EC_P256");
    let id: ClientKeyId = reply["ClientKeyId"].as_str().unwrap().parse().unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let credentials = Credentials::of_client_key(&id, &Sensitive::copied(private.as_ref())).unwrap();
    let key = scene.key;
    Caller::new(&scene.live, &credentials).encrypt(key, b"x", &[]).unwrap();
    let told = scene.ask("GetClientKey", json!({ "ClientKeyId": id })).unwrap();
    assert_eq!(
        (told["KeyOrigin"].as_str(), told["PublicKeyData"].as_str()),
        (Some("USER_PROVIDED"), Some(&*pem))
    );
    for wrong in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        let parameters = json!({ "AapName": "shop", "PublicKey": wrong });
        assert_eq!(code(scene.ask("RegisterClientKey", parameters)), "InvalidParameter");
    }
}

#[test]
fn everything_is_there_after_a_restart_and_nothing_that_was_deleted() {
    let mut scene = begin();
    scene.app("shop", HERE);
    scene.app("gone", HERE);
    let (kept, gone) = (scene.client_key("shop", None), scene.client_key("gone", None));
    scene.ask("DeleteApplicationAccessPoint", json!({ "Name": "gone" })).unwrap();
    scene.ask("DeletePolicy", json!({ "Name": "gone" })).unwrap();
    scene.ask("DeleteNetworkRule", json!({ "Name": "gone" })).unwrap();
    let all = |scene: &mut Scene| {
        ["ListApplicationAccessPoints", "ListClientKeys", "ListPolicies", "ListNetworkRules"].map(
            |operation| {
                let mut told = scene.ask(operation, json!({})).unwrap();
                told.as_object_mut().unwrap().remove("RequestId");
                told
            },
        )
    };
    let before = all(&mut scene);
    let Scene { live, credentials, key, .. } = scene;
    let live = live.restart(EngineConfig::default());
    let root = Caller::new(&live, &credentials);
    let mut scene = Scene { live, root, credentials, key };
    assert_eq!(all(&mut scene), before);
    Caller::new(&scene.live, &kept).encrypt(key, b"x", &[]).unwrap();
    assert!(Caller::try_new(&scene.live, &gone).is_err());
    // A name that was free is taken anew, by a record that is newer than the one that ended.
    scene.app("gone", HERE);
    let site = scene.live.halt();
    verified(&site);
}

#[test]
fn what_is_named_elsewhere_stays_and_what_is_wrong_is_told() {
    let mut scene = begin();
    scene.app("shop", HERE);
    for (operation, parameters, expected) in [
        ("DeletePolicy", json!({ "Name": "shop" }), "Rejected.ResourceInUse"),
        ("DeleteNetworkRule", json!({ "Name": "shop" }), "Rejected.ResourceInUse"),
        (
            "CreateApplicationAccessPoint",
            json!({ "Name": "shop", "Policies": ["shop"] }),
            "Rejected.ResourceExist",
        ),
        ("CreateApplicationAccessPoint", json!({ "Name": "a", "Policies": ["none"] }), NO_RESOURCE),
        ("CreateApplicationAccessPoint", json!({ "Name": "a", "Policies": [] }), "InvalidParameter"),
        (
            "CreateApplicationAccessPoint",
            json!({ "Name": "a", "Policies": ["shop", "shop"] }),
            "InvalidParameter",
        ),
        (
            "CreateApplicationAccessPoint",
            json!({ "Name": "a", "Policies": ["shop", "b", "c", "d"] }),
            "Rejected.LimitExceeded.Policies",
        ),
        (
            "CreateNetworkRule",
            json!({ "Name": "a", "Type": "Private", "SourcePrivateIp": ["x"] }),
            "InvalidParameter",
        ),
        ("CreateNetworkRule", json!({ "Name": "shop", "Type": "Private" }), "Rejected.ResourceExist"),
        ("UpdateNetworkRule", json!({ "Name": "none" }), NO_RESOURCE),
        ("UpdatePolicy", json!({ "Name": "none" }), NO_RESOURCE),
        ("UpdatePolicy", json!({ "Name": "shop", "AccessControlRules": "[]" }), "InvalidParameter"),
        ("CreateClientKey", json!({ "AapName": "none", "Password": PASSWORD }), NO_RESOURCE),
        ("CreateClientKey", json!({ "AapName": "shop", "Password": "short" }), "InvalidParameter"),
        ("ListClientKeys", json!({ "AapName": "none" }), NO_RESOURCE),
    ] {
        match Request::deserialize(Operation::by_name(operation).unwrap(), &parameters) {
            Ok(_) => assert_eq!(
                code(scene.ask(operation, parameters.clone())),
                expected,
                "{operation} {parameters}"
            ),
            Err(_) => assert_eq!(expected, "InvalidParameter", "{operation} {parameters}"),
        }
    }
}

/// A policy is about the key that an alias names when it is written: an alias that is moved later gives nothing.
#[test]
fn a_policy_by_alias_is_about_the_key_that_it_names_then() {
    let mut scene = begin();
    let (key, other) = (scene.key, scene.root.create_key());
    scene.app("shop", HERE);
    let credentials = scene.client_key("shop", None);
    let mut shop = Caller::new(&scene.live, &credentials);
    scene.root.create_alias("alias/orders", other).unwrap();
    let by_alias = |name: &str| json!({ "Name": "shop", "Resources": [format!("alias/{name}")] });
    scene.ask("UpdatePolicy", by_alias("orders")).unwrap();
    let policy = scene.ask("DescribePolicy", json!({ "Name": "shop" })).unwrap();
    assert!(policy["Resources"].to_string().contains(&format!("key/{other}")), "{policy}");
    assert_eq!(code(shop.encrypt(key, b"x", &[])), NO_KEY);
    shop.encrypt(other, b"x", &[]).unwrap();
    shop.encrypt("alias/orders", b"x", &[]).unwrap();
    scene.root.move_alias("alias/orders", key).unwrap();
    shop.encrypt(other, b"x", &[]).unwrap();
    assert_eq!(code(shop.encrypt("alias/orders", b"x", &[])), "Forbidden.AliasNotFound");
    assert_eq!(code(scene.ask("UpdatePolicy", by_alias("none"))), "Forbidden.AliasNotFound");
    // Who may not see keys is told no more of an alias by a policy.
    let grants = serde_json::from_value(json!([{ "Role": "PolicyAdministrator" }])).unwrap();
    let of_admin = scene.root.credentials(grants);
    let mut admin = Caller::new(&scene.live, &of_admin);
    let parameters = json!({
        "Name": "p", "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"], "Resources": ["alias/orders"],
    });
    assert_eq!(code(admin.ask_json("CreatePolicy", parameters)), "Forbidden.AliasNotFound");
}

/// Grants of administrators are for access keys: the policy of an application gives none.
#[test]
fn who_administers_policies_gives_applications_the_use_of_keys_alone() {
    let mut scene = begin();
    let grants: Vec<Grant> = serde_json::from_value(json!([{ "Role": "PolicyAdministrator" }])).unwrap();
    let credentials = scene.root.credentials(grants);
    let mut admin = Caller::new(&scene.live, &credentials);
    for role in ["Root", "KeyAdministrator", "PolicyAdministrator", "Auditor"] {
        let parameters = json!({ "Name": "p", "Permissions": [role], "Resources": ["key/*"] });
        assert_eq!(code(admin.ask_json("CreatePolicy", parameters)), "InvalidParameter", "{role}");
    }
    let key = scene.key;
    assert_eq!(code(admin.encrypt(key, b"x", &[])), NO_KEY);
}

#[test]
fn a_decision_is_explained_to_those_who_administer_it() {
    let mut scene = begin();
    scene.app("shop", HERE);
    let credentials = scene.client_key("shop", None);
    let (key, id) = (scene.key, credentials.access_key_id().clone());
    let asked = |operation: &str, source: &str| json!({ "Operation": operation, "KeyId": key, "ClientKeyId": id, "Source": source });
    for (operation, source, allowed, rule, word) in [
        ("Encrypt", "127.0.0.1", true, "policy shop", "allows"),
        ("Encrypt", "::ffff:127.0.0.1", true, "policy shop", "allows"),
        ("Encrypt", "10.0.0.1", false, "network shop", "not from 10.0.0.1"),
        ("DisableKey", "127.0.0.1", false, "default", "no policy of an access point"),
    ] {
        let told = scene.ask("ExplainAccess", asked(operation, source)).unwrap();
        assert_eq!(
            (told["Allowed"].as_bool(), told["Rule"].as_str()),
            (Some(allowed), Some(rule)),
            "{operation}"
        );
        assert!(told["Explanation"].as_str().unwrap().contains(word), "{told}");
    }
    // A policy is tried before it is in force.
    let denied = json!({ "Version": "1", "Statement": [
        { "Effect": "Allow", "Principal": { "RAM": ["acs:ram::0:*"] }, "Action": ["kms:*"], "Resource": ["*"] },
        { "Effect": "Deny", "Principal": { "RAM": ["acs:ram::0:aap/shop"] }, "Action": ["kms:Decrypt"], "Resource": ["*"] },
    ] });
    let mut tried = asked("Decrypt", "127.0.0.1");
    tried["Policy"] = json!(denied.to_string());
    let told = scene.ask("ExplainAccess", tried).unwrap();
    assert_eq!((told["Allowed"].as_bool(), told["Rule"].as_str()), (Some(false), Some("key-policy 1")));
    assert_eq!(scene.ask("ExplainAccess", asked("Decrypt", "127.0.0.1")).unwrap()["Allowed"], true);
    // In force it is explained like any.
    scene.root.set_policy(key, &denied.to_string()).unwrap();
    assert_eq!(scene.ask("ExplainAccess", asked("Decrypt", "127.0.0.1")).unwrap()["Allowed"], false);
    for (wrong, expected) in [
        (json!({ "Operation": "encrypt", "ClientKeyId": id }), "InvalidParameter"),
        (json!({ "Operation": "Encrypt" }), "InvalidParameter"),
        (json!({ "Operation": "Encrypt", "ClientKeyId": id, "Source": "here" }), "InvalidParameter"),
        (json!({ "Operation": "Encrypt", "ClientKeyId": id, "Policy": "{}" }), "InvalidParameter"),
        (json!({ "Operation": "ReEncrypt", "ClientKeyId": id, "KeyId": key }), "InvalidParameter"),
        (json!({ "Operation": "Encrypt", "AccessKeyId": "KMAK00000000" }), NO_RESOURCE),
        (
            json!({ "Operation": "Encrypt", "ClientKeyId": id, "KeyId": "alias/none" }),
            "Forbidden.AliasNotFound",
        ),
    ] {
        assert_eq!(code(scene.ask("ExplainAccess", wrong.clone())), expected, "{wrong}");
    }
    let random = json!({ "Operation": "GenerateRandom", "ClientKeyId": id, "Source": "127.0.0.1" });
    assert_eq!(scene.ask("ExplainAccess", random).unwrap()["Allowed"], true);
    let mut shop = Caller::new(&scene.live, &credentials);
    let own = json!({ "Operation": "Encrypt", "ClientKeyId": id });
    assert_eq!(code(shop.ask_json("ExplainAccess", own)), "Forbidden.NoPermission");
}
