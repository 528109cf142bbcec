//! Login tokens: what a farm of clients holds for some hours in the place of a client key. A token is its client key's, no more and no longer.
#![allow(clippy::unwrap_used, reason = "tests")]

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keymill_client::Credentials;
use keymill_core::Sensitive;
use keymill_core::id::CmkId;
use keymill_core::seam::provider::PublicKey;
use keymill_e2e::{Answered, Caller, audit_lines, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use keymill_runtime::clock::Clock;
use serde_json::{Value, json};

const NO_KEY: &str = "Forbidden.KeyNotFound";
const DENIED: &str = "Forbidden.NoPermission";
const NOT_ADMITTED: &str = "InvalidAccessKeyId.Inactive";
const NO_SIGNATURE: &str = "SignatureDoesNotMatch";

struct Scene {
    live: Live,
    /// Of `root`.
    credentials: Credentials,
    clock: Clock,
    root: Caller,
    key: CmkId,
    /// The id of the application's client key.
    id: String,
    /// The application, by its client key.
    app: Caller,
}

fn begin() -> Scene {
    let setup = Setup::new(EngineConfig::default());
    let clock = setup.clock.clone();
    let Started { live, credentials } = Live::start_with(setup);
    let mut root = Caller::new(&live, &credentials);
    let key = root.create_key();
    let permissions = ["RbacPermission/Template/CryptoServiceKeyUser"];
    let policy = json!({ "Name": "etl", "Permissions": permissions, "Resources": [format!("key/{key}")] });
    root.ask_json("CreatePolicy", policy).unwrap();
    root.ask_json("CreateApplicationAccessPoint", json!({ "Name": "etl", "Policies": ["etl"] })).unwrap();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = PublicKey::from_der(public.as_ref().to_vec()).to_pem();
    let made = root.ask_json("RegisterClientKey", json!({ "AapName": "etl", "PublicKey": pem })).unwrap();
    let id = made["ClientKeyId"].as_str().unwrap().to_owned();
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    let own = Credentials::of_client_key(&id.parse().unwrap(), &Sensitive::copied(pkcs8.as_ref())).unwrap();
    let app = Caller::new(&live, &own);
    Scene { live, credentials, clock, root, key, id, app }
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

fn holding(made: &Value) -> Credentials {
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Credentials::of_token(text("Token"), text("Secret"))
}

#[test]
fn a_token_is_its_application_until_it_ends_on_every_connection() {
    let mut scene = begin();
    let made = scene.app.ask_json("CreateLoginToken", json!({ "ValiditySeconds": 600 })).unwrap();
    let mut worker = Caller::new(&scene.live, &holding(&made));
    assert_eq!(worker.connection.principal(), format!("aap/etl/{}", scene.id));
    let blob = worker.encrypt(scene.key, b"x", &[]).unwrap();
    let other = scene.root.create_key();
    assert_eq!(code(worker.encrypt(other, b"x", &[])), NO_KEY);
    assert_eq!(code(worker.ask_json("CreateKey", json!({}))), DENIED);
    // None makes another, or it would never end; nor does an access key.
    assert_eq!(code(worker.ask_json("CreateLoginToken", json!({}))), DENIED);
    assert_eq!(code(scene.root.ask_json("CreateLoginToken", json!({}))), "UnsupportedOperation");
    for seconds in [0, 59, 43_201] {
        let wrong = json!({ "ValiditySeconds": seconds });
        assert_eq!(code(scene.app.ask_json("CreateLoginToken", wrong)), "InvalidParameter");
    }
    scene.clock.jump_to_offset_ms(590_000);
    worker.decrypt(&blob, &[]).unwrap();
    Caller::new(&scene.live, &holding(&made)).decrypt(&blob, &[]).unwrap();
    scene.clock.jump_to_offset_ms(601_000);
    assert_eq!(code(worker.decrypt(&blob, &[])), NO_KEY);
    assert_eq!(code(Caller::try_new(&scene.live, &holding(&made)).map(drop)), NOT_ADMITTED);
    scene.app.decrypt(&blob, &[]).unwrap();
    let site = scene.live.halt();
    let lines = audit_lines(&site);
    let ended = |line: &&Value| line["principal"] == scene.id.as_str() && line["rule"] == "not-valid-now";
    assert_eq!(lines.iter().filter(ended).count(), 1);
    // The token says who logs in; its secret is told once, and stands nowhere.
    let secret = made["Secret"].as_str().unwrap();
    assert!(lines.iter().all(|line| !line.to_string().contains(secret)));
    verified(&site);
}

#[test]
fn a_token_ends_with_its_client_key_and_lives_on_over_a_restart() {
    let Scene { live, credentials: of_root, root, mut app, id, key, .. } = begin();
    let made = app.ask_json("CreateLoginToken", json!({})).unwrap();
    drop((root, app));
    let live = live.restart(EngineConfig::default());
    let mut root = Caller::new(&live, &of_root);
    let mut worker = Caller::new(&live, &holding(&made));
    worker.encrypt(key, b"x", &[]).unwrap();
    root.ask_json("DeleteClientKey", json!({ "ClientKeyId": id })).unwrap();
    assert_eq!(code(worker.encrypt(key, b"x", &[])), NOT_ADMITTED);
    assert_eq!(code(Caller::try_new(&live, &holding(&made)).map(drop)), NO_SIGNATURE);
    verified(&live.halt());
}

/// D1, D4: neither the text of a token nor a signature with another secret lets anybody in; of another installation it is nothing.
#[test]
fn a_token_without_its_secret_and_one_of_elsewhere_are_nothing() {
    let mut scene = begin();
    let made = scene.app.ask_json("CreateLoginToken", json!({})).unwrap();
    let second = scene.app.ask_json("CreateLoginToken", json!({})).unwrap();
    let (token, secret) = (made["Token"].as_str().unwrap(), made["Secret"].as_str().unwrap());
    let mut longer = token.to_owned();
    longer.push('A');
    for (token, secret) in [
        (token, second["Secret"].as_str().unwrap()),
        (token, ""),
        (token, token),
        (&longer, secret),
        (&token[..token.len() - 1], secret),
        ("", secret),
        (&scene.id, secret),
    ] {
        let forged = Credentials::of_token(token.into(), secret.into());
        assert_eq!(code(Caller::try_new(&scene.live, &forged).map(drop)), NO_SIGNATURE, "{token}");
    }
    let elsewhere = begin();
    assert_eq!(code(Caller::try_new(&elsewhere.live, &holding(&made)).map(drop)), NO_SIGNATURE);
    verified(&elsewhere.live.halt());
    verified(&scene.live.halt());
}
