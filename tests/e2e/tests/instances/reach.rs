//! From where an instance is reached: by its networks, and by the name that a client asks for.

use std::time::Duration;

use keymill_client::{ClientError, Credentials, HttpClient};
use keymill_core::operation::*;
use keymill_e2e::{Authority, Place};
use keymill_harness::program::{self, Server};
use serde_json::{Value, json};

use super::scene::{NOT_FOUND, STRANGER, Scene, source_of};

#[test]
fn an_instance_is_bound_and_unbound_without_a_restart_and_open_connections_follow() {
    let scene = Scene::start();
    let made = scene.connected("shop", "one");
    scene.bind(&made.id, &["two"]).unwrap();
    let mut from_two = scene.caller(source_of("two"), &made.credentials);
    from_two.create_key();
    let mut from_one = scene.caller(source_of("one"), &made.credentials);
    assert!(scene.web(source_of("two"), &made.credentials).is_ok());
    scene.bind(&made.id, &["three"]).unwrap();
    // The connection is there, and reaches nothing any more; that of the first network goes on.
    assert_eq!(from_two.ask_json("ListKeys", json!({})).unwrap_err().code, "InvalidAccessKeyId.Inactive");
    from_one.create_key();
    assert_eq!(scene.try_caller(source_of("two"), &made.credentials).err().unwrap(), STRANGER);
    assert_eq!(scene.web(source_of("two"), &made.credentials).unwrap_err(), "InvalidAccessKeyId.NotFound");
    scene.caller(source_of("three"), &made.credentials).create_key();
    assert_eq!(scene.bind(&made.id, &["two", "four"]).unwrap_err(), NOT_FOUND);
    assert_eq!(scene.bind(&made.id, &["two", "two"]).unwrap_err(), "InvalidParameter");
}

/// Under TLS, the name that a client asks for says which instance is meant; it is a matter of the configuration alone what names there are.
#[test]
fn an_instance_is_reached_by_the_name_that_a_client_asks_the_tls_server_for() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(&["127.0.0.1", "localhost"]));
    let files = [("certificate", "server.crt"), ("key", "server.key")]
        .map(|(name, file)| format!("{name} = {:?}\n", place.path(file)));
    let tls = files.concat();
    let config =
        format!("[http.tls]\n{tls}[msgpack.tls]\n{tls}[networks.named]\nserver_names = [\"LOCALHOST\"]\n");
    let config = place.put("keymill.toml", &config);
    let server = Server::start_with(&place.path(""), &["--config", config.to_str().unwrap()]);
    let root = program::credentials(&place.path(""));
    let client = place.client(&authority, None);
    let ask = |host: &str, credentials: &Credentials, request: Request<'_>| {
        let url = format!("https://{host}:{}", server.http.port());
        let client = HttpClient::over_tls(&url, Duration::from_secs(20), &client).unwrap();
        match client.call(request, credentials) {
            Ok(reply) => Ok(serde_json::from_slice::<Value>(reply.body()).unwrap_or_default()),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other}"),
        }
    };
    let asked = |host: &str, credentials: &Credentials| {
        ask(host, credentials, ListKeysRequest::default().into()).err()
    };
    // Nobody is bound to the network yet.
    assert_eq!(asked("localhost", &root), None);
    let made = ask("127.0.0.1", &root, CreateKmsInstanceRequest::default().into()).unwrap();
    let text = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("{field} of {made}")).to_owned();
    let first = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
    let connect = ConnectKmsInstanceRequest {
        kms_instance_id: text("KmsInstanceId"),
        km_provider: None,
        vpc_id: "named".into(),
        v_switch_ids: None,
        zone_ids: None,
        timeout_ms: None,
    };
    ask("127.0.0.1", &root, connect.into()).unwrap();
    let stranger = Some("InvalidAccessKeyId.NotFound".to_owned());
    assert_eq!((asked("localhost", &first), asked("127.0.0.1", &first)), (None, stranger.clone()));
    assert_eq!((asked("localhost", &root), asked("127.0.0.1", &root)), (stranger, None));
    let shown = GetKmsInstanceRequest { kms_instance_id: text("KmsInstanceId"), timeout_ms: None };
    let shown = ask("127.0.0.1", &root, shown.into()).unwrap();
    let pem = shown["KmsInstance"]["CaCertificateChainPem"].as_str().unwrap();
    assert!(
        pem.starts_with("-----BEGIN CERTIFICATE-----") && pem.ends_with("-----END CERTIFICATE-----\n"),
        "{pem}"
    );
}
