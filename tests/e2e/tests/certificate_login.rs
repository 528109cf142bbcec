//! Logins by a TLS client certificate: whom it stands for is registered, what that may do is asked of each request, and nothing else comes of
//! a certificate.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{ClientError, Connection, Credentials, HttpClient};
use keymill_core::operation::DescribeKeyRequest;
use keymill_core::time::Timestamp;
use keymill_e2e::{Answered, Authority, Caller, Issued, Named, Place, Web, audit_lines, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use keymill_tls::{ClientCertificates, Options, ServerTls, read_peer};
use serde_json::{Value, json};

const LOADER: &str = "spiffe://example/loader";
const NO_KEY: &str = "Forbidden.KeyNotFound";
const NOT_ADMITTED: &str = "InvalidAccessKeyId.Inactive";

struct Scene {
    live: Live,
    root: Caller,
    place: Place,
    servers: Authority,
    clients: Authority,
}

fn begin() -> Scene {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let place = Place::with(&servers.server(&["127.0.0.1"]));
    let client_ca = vec![place.put("clients.crt", &clients.pem())];
    let options = place.options(keymill_msgpack::ALPN);
    let optional = ClientCertificates::Optional;
    let tls = ServerTls::open(Options { client_certificates: optional, client_ca, ..options }).unwrap();
    let setup = Setup::new(EngineConfig::default()).with_tls(tls);
    let Started { live, credentials } = Live::start_with(setup);
    let over = place.to_here(&servers, None);
    let root = Caller::of(Connection::open(live.address, &credentials, &over).unwrap());
    Scene { live, root, place, servers, clients }
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

impl Scene {
    /// Makes an access point that may use every key.
    fn app(&mut self, name: &str) {
        let permissions = ["RbacPermission/Template/CryptoServiceKeyUser"];
        let policy = json!({ "Name": name, "Permissions": permissions, "Resources": ["key/*"] });
        self.root.ask_json("CreatePolicy", policy).unwrap();
        let aap = json!({ "Name": name, "Policies": [name] });
        self.root.ask_json("CreateApplicationAccessPoint", aap).unwrap();
    }

    fn register(&mut self, parameters: Value) -> Answered<String> {
        let made = self.root.ask_json("RegisterClientCertificate", parameters)?;
        Ok(made["ClientKeyId"].as_str().unwrap().to_owned())
    }

    fn log_in(&self, identity: Option<&Issued>) -> Result<Caller, ClientError> {
        let over = self.place.to_here(&self.servers, identity);
        Connection::open(self.live.address, &Credentials::of_certificate(), &over).map(Caller::of)
    }

    /// Expects that a login is refused, and returns the code.
    fn refused(&self, identity: Option<&Issued>) -> String {
        match self.log_in(identity).err().expect("it is refused") {
            ClientError::Refused(error) => error.code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_shows_a_registered_certificate_is_of_its_access_point_until_it_is_revoked() {
    let mut scene = begin();
    let key = scene.root.create_key();
    scene.app("loader");
    let (issued, renewed) = (scene.clients.client(LOADER), scene.clients.client(LOADER));
    assert_eq!(scene.refused(Some(&issued)), "SignatureDoesNotMatch");
    assert_eq!(scene.refused(None), "UnsupportedAuthentication");
    let id = scene.register(json!({ "AapName": "loader", "Uri": LOADER })).unwrap();
    let mut loader = scene.log_in(Some(&issued)).unwrap();
    assert_eq!(loader.connection.principal(), format!("aap/loader/{id}"));
    let blob = loader.encrypt(key, b"x", &[]).unwrap();
    // A renewal of it, with another key, is the same to us.
    assert_eq!(scene.log_in(Some(&renewed)).unwrap().decrypt(&blob, &[]).unwrap(), b"x");
    // No token is made of it: that would live on when the certificate is revoked.
    assert_eq!(code(loader.ask_json("CreateLoginToken", json!({}))), "UnsupportedOperation");
    // Others of the same authority are nobody.
    for other in ["spiffe://example/loader2", "spiffe://example", "urn:x"] {
        assert_eq!(scene.refused(Some(&scene.clients.client(other))), "SignatureDoesNotMatch", "{other}");
    }
    assert_eq!(scene.refused(None), "UnsupportedAuthentication");
    // What it may do is asked of each request.
    scene.root.ask_json("UpdatePolicy", json!({ "Name": "loader", "Resources": ["secret/*"] })).unwrap();
    assert_eq!(code(loader.encrypt(key, b"x", &[])), NO_KEY);
    scene.root.ask_json("UpdatePolicy", json!({ "Name": "loader", "Resources": ["key/*"] })).unwrap();
    loader.encrypt(key, b"x", &[]).unwrap();
    let row = scene.root.ask_json("GetClientKey", json!({ "ClientKeyId": id })).unwrap();
    assert_eq!((&row["KeyAlgorithm"], &row["PublicKeyData"]), (&json!("X509_CERTIFICATE"), &json!(LOADER)));
    scene.root.ask_json("DeleteClientKey", json!({ "ClientKeyId": id })).unwrap();
    assert_eq!(code(loader.encrypt(key, b"x", &[])), NOT_ADMITTED);
    assert_eq!(scene.refused(Some(&issued)), "SignatureDoesNotMatch");
    let site = scene.live.halt();
    let of_loader = |line: &&Value| line["principal"] == id.as_str() && line["outcome"] == "ok";
    assert!(audit_lines(&site).iter().any(|line| of_loader(&line) && line["rule"] == "policy loader"));
    verified(&site);
}

#[test]
fn a_fingerprint_is_of_one_certificate_and_comes_before_its_uris() {
    let mut scene = begin();
    let key = scene.root.create_key();
    scene.app("loader");
    scene.app("pinned");
    let (issued, renewed) = (scene.clients.client(LOADER), scene.clients.client(LOADER));
    let digits = |issued: &Issued| {
        let peer = read_peer(&issued.der).unwrap();
        peer.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    };
    scene.register(json!({ "AapName": "loader", "Uri": LOADER })).unwrap();
    scene.register(json!({ "AapName": "pinned", "Fingerprint": digits(&issued) })).unwrap();
    let of = |caller: Caller| caller.connection.principal().split('/').nth(1).unwrap().to_owned();
    assert_eq!(of(scene.log_in(Some(&issued)).unwrap()), "pinned");
    assert_eq!(of(scene.log_in(Some(&renewed)).unwrap()), "loader");
    scene.log_in(Some(&issued)).unwrap().encrypt(key, b"x", &[]).unwrap();
    for (parameters, told) in [
        (json!({ "AapName": "pinned", "Uri": LOADER }), "Rejected.ResourceExist"),
        (json!({ "AapName": "loader", "Fingerprint": digits(&issued) }), "Rejected.ResourceExist"),
        (json!({ "AapName": "none", "Uri": "urn:a" }), "Forbidden.ResourceNotFound"),
        (json!({ "AapName": "loader" }), "InvalidParameter"),
        (json!({ "AapName": "loader", "Uri": "urn:a", "Fingerprint": digits(&renewed) }), "InvalidParameter"),
        (json!({ "AapName": "loader", "Fingerprint": "00" }), "InvalidParameter"),
        (json!({ "AapName": "loader", "Uri": "loader" }), "InvalidParameter"),
    ] {
        assert_eq!(code(scene.register(parameters.clone())), told, "{parameters}");
    }
    // A name that is free again may be another's.
    let listed = scene.root.ask_json("ListClientKeys", json!({ "AapName": "loader" })).unwrap();
    let id = listed["ClientKeys"][0]["ClientKeyId"].clone();
    scene.root.ask_json("DeleteClientKey", json!({ "ClientKeyId": id })).unwrap();
    scene.register(json!({ "AapName": "pinned", "Uri": LOADER })).unwrap();
    assert_eq!(of(scene.log_in(Some(&renewed)).unwrap()), "pinned");
    verified(&scene.live.halt());
}

#[test]
fn a_certificate_whose_time_as_a_client_key_is_to_come_is_not_taken() {
    let mut scene = begin();
    scene.app("loader");
    let hour = std::time::Duration::from_secs(3_600);
    let now = Timestamp::from_ms(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64,
    );
    let (from, until) = (now.plus(hour).to_string(), now.plus(2 * hour).to_string());
    let early = json!({ "AapName": "loader", "Uri": LOADER, "NotBefore": from, "NotAfter": until });
    scene.register(early).unwrap();
    let issued = scene.clients.client(LOADER);
    assert_eq!(scene.refused(Some(&issued)), NOT_ADMITTED);
    // It is known after a restart as before, and its access point takes it along when it goes.
    scene.root.ask_json("DeleteApplicationAccessPoint", json!({ "Name": "loader" })).unwrap();
    assert_eq!(scene.refused(Some(&issued)), "SignatureDoesNotMatch");
    verified(&scene.live.halt());
}

#[test]
fn over_http_a_certificate_stands_for_a_request_that_is_not_signed() {
    let mut scene = begin();
    let key = scene.root.create_key();
    scene.app("loader");
    let issued = scene.clients.client(LOADER);
    let id = scene.register(json!({ "AapName": "loader", "Uri": LOADER })).unwrap();
    let client_ca = vec![scene.place.put("clients.crt", &scene.clients.pem())];
    let options = scene.place.options(keymill_http::ALPN);
    let optional = ClientCertificates::Optional;
    let tls = ServerTls::open(Options { client_certificates: optional, client_ca, ..options }).unwrap();
    let web = Web::with(&scene.live, Some(tls));
    let url = format!("https://{}", web.address);
    let ask = |identity: Option<&Issued>, credentials: &Credentials| {
        let tls = scene.place.client(&scene.servers, identity);
        let client = HttpClient::over_tls(&url, std::time::Duration::from_secs(20), &tls).unwrap();
        let request = DescribeKeyRequest { key_id: key.key_ref(), timeout_ms: None };
        match client.call(request, credentials) {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other:?}"),
        }
    };
    let by_certificate = Credentials::of_certificate();
    assert_eq!(ask(Some(&issued), &by_certificate), Ok(()));
    // Without one, from a stranger, and with a signature that is wrong, whatever certificate is shown.
    assert_eq!(ask(None, &by_certificate), Err("IncompleteSignature".to_owned()));
    let stranger = scene.clients.client("spiffe://example/other");
    assert_eq!(ask(Some(&stranger), &by_certificate), Err("InvalidAccessKeyId.NotFound".to_owned()));
    let wrong = Credentials::new("KMAK00000001".parse().unwrap(), "wrong".into());
    assert_eq!(ask(Some(&issued), &wrong), Err("InvalidAccessKeyId.NotFound".to_owned()));
    scene.root.ask_json("DeleteClientKey", json!({ "ClientKeyId": id })).unwrap();
    assert_eq!(ask(Some(&issued), &by_certificate), Err("InvalidAccessKeyId.NotFound".to_owned()));
    drop(web);
    let site = scene.live.halt();
    let of_loader = |line: &Value| line["principal"] == id.as_str() && line["frontend"] == "http";
    assert!(audit_lines(&site).iter().any(of_loader));
    verified(&site);
}
