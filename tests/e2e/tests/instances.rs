//! Instances (Dedicated KMS) of the real program: made, bound to networks, used from there alone, and released; and nothing of one reaches
//! anything of another.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keymill_client::{ClientError, Connection, Credentials, HttpClient, Options};
use keymill_core::operation::*;
use keymill_e2e::{Answered, Authority, Caller, From, Place, create_secret};
use keymill_harness::program::{self, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The networks of every scene: their names, and where their requests come from.
const NETWORKS: [(&str, &str); 3] = [("one", "127.0.0.2"), ("two", "127.0.0.3"), ("three", "127.0.0.4")];
/// An address of no network.
const ELSEWHERE: &str = "127.0.0.9";

const NOT_FOUND: &str = "Forbidden.ResourceNotFound";
const STATE: &str = "Forbidden.DKMSInstanceStateInvalid";
const STRANGER: &str = "SignatureDoesNotMatch";

struct Scene {
    place: TempDir,
    server: Option<Server>,
}

/// An instance, and its first access key.
struct Made {
    id: String,
    credentials: Credentials,
}

impl Scene {
    fn start() -> Self {
        let place = TempDir::new().unwrap();
        let sections =
            NETWORKS.map(|(name, source)| format!("[networks.{name}]\nsources = [\"{source}\"]\n"));
        std::fs::write(place.path().join("keymill.toml"), sections.concat()).unwrap();
        let mut scene = Self { place, server: None };
        scene.serve();
        scene
    }

    fn serve(&mut self) {
        let config = self.place.path().join("keymill.toml");
        self.server = Some(Server::start_with(self.place.path(), &["--config", config.to_str().unwrap()]));
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn root(&self) -> Credentials {
        program::credentials(self.place.path())
    }

    /// Logs in from an address.
    fn try_caller(&self, source: &str, credentials: &Credentials) -> Result<Caller, String> {
        let way = From::address(source, self.server().msgpack);
        match Connection::open(way.address, credentials, &Options::default()) {
            Ok(connection) => Ok(Caller::of(connection)),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other}"),
        }
    }

    #[track_caller]
    fn caller(&self, source: &str, credentials: &Credentials) -> Caller {
        self.try_caller(source, credentials).unwrap()
    }

    fn administrator(&self) -> Caller {
        self.caller(ELSEWHERE, &self.root())
    }

    /// Asks over HTTP from an address.
    fn web(&self, source: &str, credentials: &Credentials) -> Result<(), String> {
        let way = From::address(source, self.server().http);
        let client = HttpClient::new(&format!("http://{}", way.address), Duration::from_secs(20)).unwrap();
        match client.call(ListKeysRequest::default(), credentials) {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other}"),
        }
    }

    fn make(&self, name: &str) -> Made {
        let made =
            self.administrator().ask_json("CreateKmsInstance", json!({ "InstanceName": name })).unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let credentials = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
        Made { id: text("KmsInstanceId"), credentials }
    }

    fn connected(&self, name: &str, vpc: &str) -> Made {
        let made = self.make(name);
        self.asked("ConnectKmsInstance", json!({ "KmsInstanceId": made.id, "VpcId": vpc })).unwrap();
        made
    }

    /// Has the administrator of the installation ask for something; the code of a refusal.
    fn asked(&self, operation: &str, parameters: Value) -> Result<Value, String> {
        self.administrator().ask_json(operation, parameters).map_err(|error| error.code)
    }

    fn shown(&self, id: &str) -> Value {
        self.asked("GetKmsInstance", json!({ "KmsInstanceId": id })).unwrap()["KmsInstance"].clone()
    }

    fn release(&self, id: &str, force: &str) -> Result<Value, String> {
        self.asked("ReleaseKmsInstance", json!({ "KmsInstanceId": id, "ForceDeleteWithoutBackup": force }))
    }

    fn bind(&self, id: &str, vpcs: &[&str]) -> Result<Value, String> {
        let rows: Vec<_> = vpcs.iter().map(|vpc| json!({ "VpcId": vpc })).collect();
        self.asked("UpdateKmsInstanceBindVpc", json!({ "KmsInstanceId": id, "BindVpcs": rows }))
    }

    /// Has the audit checked against the store, of the installation or of an instance; the server is stopped.
    #[track_caller]
    fn verify(&self, whose: &[&str]) {
        let mut command = Command::new(program::program());
        command
            .args(["audit", "verify", "--store", "--data-dir"])
            .arg(self.place.path().join("data"))
            .args(whose);
        let verified = command.output().unwrap();
        let told = String::from_utf8_lossy(&verified.stdout);
        assert!(verified.status.success(), "{told}{}", String::from_utf8_lossy(&verified.stderr));
        assert!(told.contains(" 0 bad") && told.contains(" 0 wrong"), "{told}");
    }

    fn audit_of(&self, id: &str) -> PathBuf {
        self.place.path().join("data/audit/instances").join(id)
    }
}

/// Returns what a refusal says.
fn told<T>(answered: Answered<T>) -> String {
    let error = answered.map(drop).unwrap_err();
    format!("{} {} {}", error.code, error.status, error.message)
}

fn source_of(vpc: &str) -> &'static str {
    NETWORKS.iter().find(|(name, _)| *name == vpc).unwrap().1
}

#[test]
fn an_instance_is_made_connected_used_and_kept_over_a_restart() {
    let mut scene = Scene::start();
    let made = scene.make("shop");
    let shown = scene.shown(&made.id);
    assert_eq!((&shown["Status"], &shown["InstanceName"]), (&json!("Uninitialized"), &json!("shop")));
    // Connected to nothing, it is reached from nowhere.
    for source in [ELSEWHERE, source_of("one")] {
        assert_eq!(scene.try_caller(source, &made.credentials).err().unwrap(), STRANGER);
    }
    let connect = |vpc: &str| json!({ "KmsInstanceId": made.id, "VpcId": vpc, "KMProvider": "Aliyun", "VSwitchIds": "vsw-1,vsw-2", "ZoneIds": "a" });
    assert_eq!(scene.asked("ConnectKmsInstance", connect("four")).unwrap_err(), NOT_FOUND);
    scene.asked("ConnectKmsInstance", connect("one")).unwrap();
    assert_eq!(scene.asked("ConnectKmsInstance", connect("two")).unwrap_err(), STATE);
    let shown = scene.shown(&made.id);
    assert_eq!((&shown["Status"], &shown["VpcId"]), (&json!("Connected"), &json!("one")));
    assert_eq!(shown["VswitchIds"], json!(["vsw-1", "vsw-2"]));

    let mut inside = scene.caller(source_of("one"), &made.credentials);
    let created = inside.ask_json("CreateKey", json!({ "DKMSInstanceId": made.id })).unwrap();
    assert_eq!(created["KeyMetadata"]["DKMSInstanceId"], json!(made.id));
    let key = created["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let blob = inside.encrypt(&*key, b"a tenant's", &[]).unwrap();
    let found = |caller: &mut Caller, instance: &str| {
        let filters = json!([{ "Key": "DKMSInstanceId", "Values": [instance] }]);
        caller.ask_json("ListKeys", json!({ "Filters": filters })).unwrap()["TotalCount"].clone()
    };
    assert_eq!((found(&mut inside, &made.id), found(&mut inside, "kst-other")), (json!(1), json!(0)));
    drop(inside);

    // Killed, too, it is there again, by what the store holds.
    scene.server.take().unwrap().kill();
    scene.serve();
    let mut inside = scene.caller(source_of("one"), &made.credentials);
    assert_eq!(inside.decrypt(&blob, &[]).unwrap(), b"a tenant's");
    scene.web(source_of("one"), &made.credentials).unwrap();
    assert_eq!(
        scene.asked("GetDefaultKmsInstance", json!({})).unwrap()["DefaultKmsInstanceId"],
        json!(made.id)
    );
    let listed = scene.asked("ListKmsInstances", json!({})).unwrap();
    assert_eq!(listed["TotalCount"], json!(1));
    assert_eq!(listed["KmsInstances"]["KmsInstance"][0]["KmsInstanceId"], json!(made.id));
    assert!(scene.audit_of(&made.id).is_dir());
    // Its series are told where it is reached, and name it; nowhere else is there a word of it.
    let metrics = |source: &str| {
        let way = From::address(source, scene.server().http);
        let client = HttpClient::new(&format!("http://{}", way.address), Duration::from_secs(20)).unwrap();
        client.get("/metrics").unwrap().1
    };
    let label = format!("instance=\"{}\"", made.id);
    let own = metrics(source_of("one"));
    assert!(own.lines().filter(|line| !line.starts_with('#')).all(|line| line.contains(&label)), "{own}");
    assert!(!metrics(ELSEWHERE).contains(&made.id));
    let told = scene.server.take().unwrap().stop_and_read();
    assert!(!told.contains("panicked"), "{told}");
    // Each has an audit of its own, which is checked against its own records.
    scene.verify(&[]);
    scene.verify(&["--instance", &made.id]);
}

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
fn the_command_line_makes_binds_shows_and_releases_instances() {
    let scene = Scene::start();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program::program());
        command.arg("instance").args(arguments).args([
            "--tcp",
            &scene.server().msgpack.to_string(),
            "--credentials",
        ]);
        let output = command.arg(scene.place.path().join("credentials.json")).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.code() {
            Some(0) => Ok(text(&output.stdout)),
            code => Err((code, text(&output.stderr))),
        }
    };
    assert!(run(&["list"]).unwrap().contains("keymill instance create"));
    let file = scene.place.path().join("first.json");
    let made =
        run(&["create", "--name", "shop", "--max-keys", "5", "--out", file.to_str().unwrap(), "--json"])
            .unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["KmsInstanceId"].as_str().unwrap();
    assert!(made.get("AccessKeySecret").is_none() && file.is_file());
    let (code, told) = run(&["bind", id]).unwrap_err();
    assert!(code == Some(2) && told.contains("--vpc"), "{told}");
    run(&["bind", id, "--vpc", "one", "--vpc", "two"]).unwrap();
    run(&["pool", id, "--requests-per-s", "1000000", "--max-secrets", "7"]).unwrap();
    let shown = run(&["show", id]).unwrap();
    for word in [id, "shop", "Connected", "one", "two", "1,000,000", "keys at most"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(run(&["list"]).unwrap().contains("Connected"));
    let quota = run(&["quota", id]).unwrap();
    assert!(quota.contains("secret") && quota.contains('7'), "{quota}");
    // Whoever has the file administers it, from its networks.
    let way = From::address(source_of("two"), scene.server().msgpack);
    let mut inside = Command::new(program::program());
    inside.args(["key", "create", "--tcp", &way.address.to_string(), "--credentials"]).arg(&file);
    assert!(inside.output().unwrap().status.success());
    run(&["protect", id, "--reason", "production"]).unwrap();
    assert!(run(&["release", id, "--force"]).unwrap_err().1.contains("protected"));
    run(&["unprotect", id]).unwrap();
    assert!(run(&["release", id]).unwrap_err().1.contains("holds 1 keys"));
    run(&["release", id, "--force"]).unwrap();
    assert!(run(&["show", id]).unwrap_err().1.contains("not found"));
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

#[test]
fn ceilings_hold_are_told_and_change_as_the_instance_runs() {
    let scene = Scene::start();
    let made = scene.connected("shop", "one");
    let pool = |terms: Value| {
        let mut parameters = json!({ "KmsInstanceId": made.id });
        parameters.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        scene.asked("UpdateKmsInstancePool", parameters)
    };
    pool(json!({ "MaxKeys": 2, "MaxSecrets": 1, "MaxVpcs": 2, "RequestsPerSecond": 100_000 })).unwrap();
    let mut inside = scene.caller(source_of("one"), &made.credentials);
    inside.create_key();
    inside.ask(create_secret("a", "v1", "x"), |_| ()).unwrap();
    let full = |answered: Result<(), keymill_client::ServerError>| answered.unwrap_err().code;
    assert_eq!(full(inside.create_described("").map(drop)), "Rejected.LimitExceeded.Keys");
    assert_eq!(full(inside.ask(create_secret("b", "v1", "x"), |_| ())), "Rejected.LimitExceeded.Secrets");
    assert_eq!(scene.bind(&made.id, &["two", "three"]).unwrap_err(), "Rejected.LimitExceeded.InstanceVpcs");
    let infos = |kind: Option<&str>| {
        let reply = scene
            .asked("GetKmsInstanceQuotaInfos", json!({ "KmsInstanceId": made.id, "ResourceType": kind }));
        reply.map(|reply| reply["KmsInstanceQuotaInfos"].clone())
    };
    // The key that secrets are sealed under is one, too.
    let row = |kind: &str, quota: u64, used: u64| json!({ "ResourceType": kind, "ResourceQuota": quota, "UsedQuantity": used });
    assert_eq!(infos(Some("key")).unwrap(), json!([row("key", 2, 2)]));
    assert_eq!(infos(Some("secret")).unwrap(), json!([row("secret", 1, 1)]));
    assert_eq!(infos(Some("vpc")).unwrap(), json!([row("vpc", 2, 1)]));
    let all = infos(None).unwrap();
    assert_eq!((all.as_array().unwrap().len(), &all[2]["ResourceQuota"]), (6, &json!(100_000)));
    assert_eq!(infos(Some("cpu")).unwrap_err(), "InvalidParameter");
    pool(json!({ "MaxKeys": 3 })).unwrap();
    inside.create_key();
    assert_eq!(scene.shown(&made.id)["KeyNum"], json!(3));
    assert_eq!(pool(json!({ "Tokens": [{ "TokenName": "a", "Sessions": 1 }] })).unwrap_err(), NOT_FOUND);
    assert_eq!(pool(json!({ "SoftwareWorkers": 0 })).unwrap_err(), "InvalidParameter");
    assert_eq!(scene.shown(&made.id)["Weight"], json!(1));
    assert_eq!(pool(json!({ "Weight": 0 })).unwrap_err(), "InvalidParameter");
    pool(json!({ "Weight": 30 })).unwrap();
    assert_eq!(scene.shown(&made.id)["Weight"], json!(30));
}

#[test]
fn an_instance_is_released_where_it_is_empty_or_by_force_and_not_while_it_is_protected() {
    let scene = Scene::start();
    let (first, second) = (scene.connected("a", "one"), scene.connected("b", "two"));
    let protect = |is_protected: bool| {
        let parameters = json!({ "KmsInstanceId": first.id, "EnableDeletionProtection": is_protected, "DeletionProtectionDescription": "production" });
        scene.asked("SetDeletionProtection", parameters).unwrap();
    };
    protect(true);
    let shown = scene.shown(&first.id);
    assert_eq!(
        (&shown["DeletionProtection"], &shown["DeletionProtectionDescription"]),
        (&json!(true), &json!("production"))
    );
    assert_eq!(scene.release(&first.id, "true").unwrap_err(), "Rejected.StateModifiedFailed");
    protect(false);
    let mut inside = scene.caller(source_of("one"), &first.credentials);
    let key = inside.create_key();
    for force in ["", "false"] {
        assert_eq!(scene.release(&first.id, force).unwrap_err(), STATE);
    }
    assert_eq!(scene.release(&first.id, "perhaps").unwrap_err(), "InvalidParameter");
    // What was refused has changed nothing.
    inside.encrypt(key, b"x", &[]).unwrap();
    inside.create_key();
    scene.release(&first.id, "true").unwrap();
    assert_eq!(scene.release(&first.id, "true").unwrap_err(), NOT_FOUND);
    assert_eq!(scene.try_caller(source_of("one"), &first.credentials).err().unwrap(), STRANGER);
    // One that holds nothing needs no force, and the network is free for another.
    scene.release(&second.id, "").unwrap();
    let third = scene.connected("c", "one");
    let mut inside = scene.caller(source_of("one"), &third.credentials);
    assert_eq!(inside.ask_json("ListKeys", json!({})).unwrap()["TotalCount"], json!(0));
    // The audit of what is gone stays.
    assert!(scene.audit_of(&first.id).is_dir());
}

/// Callers that are at work while their instance goes are answered or refused, each request once; the neighbour notices nothing.
#[test]
fn an_instance_ends_under_load_without_harm_to_its_neighbour() {
    let mut scene = Scene::start();
    let (ending, staying) = (Arc::new(scene.connected("a", "one")), scene.connected("b", "two"));
    let is_over = Arc::new(AtomicBool::new(false));
    let load = |made: &Made, vpc: &str| {
        let mut caller = scene.caller(source_of(vpc), &made.credentials);
        let key = caller.create_key();
        let (is_over, done) = (is_over.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = done.clone();
        let thread = std::thread::spawn(move || {
            let mut refused = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                match caller.encrypt(key, b"0123456789abcdef", &[]) {
                    Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        refused.push(error.code);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
            refused
        });
        (done, thread)
    };
    let ends: Vec<_> = (0..3).map(|_| load(&ending, "one")).collect();
    let (stays_done, stays) = load(&staying, "two");
    let web = {
        let (address, ending) = (scene.server().http, ending.clone());
        let is_over = is_over.clone();
        std::thread::spawn(move || asks_on(address, &ending.credentials, &is_over))
    };
    let all = |least: usize| {
        while ends
            .iter()
            .map(|(done, _)| done)
            .chain([&stays_done])
            .any(|done| done.load(Ordering::Relaxed) < least)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    all(200);
    scene.release(&ending.id, "true").unwrap();
    let before = stays_done.load(Ordering::Relaxed);
    while stays_done.load(Ordering::Relaxed) < before + 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
    is_over.store(true, Ordering::Relaxed);
    for (_, thread) in ends {
        let refused = thread.join().unwrap();
        assert!(!refused.is_empty(), "it went on behind its end");
        for code in refused {
            assert!(
                ["ServiceUnavailableTemporary", "InvalidAccessKeyId.Inactive"].contains(&&*code),
                "{code}"
            );
        }
    }
    assert_eq!(stays.join().unwrap(), Vec::<String>::new());
    let refused = web.join().unwrap();
    assert_eq!(refused.last().map(String::as_str), Some("InvalidAccessKeyId.NotFound"));
    let told = scene.server.take().unwrap().stop_and_read();
    assert!(!told.contains("panicked"), "{told}");
    scene.serve();
    assert_eq!(scene.asked("ListKmsInstances", json!({})).unwrap()["TotalCount"], json!(1));
    scene.caller(source_of("two"), &staying.credentials);
}

/// Lists keys until it is over, and returns the codes of what was refused.
fn asks_on(server: SocketAddr, credentials: &Credentials, is_over: &AtomicBool) -> Vec<String> {
    let way = From::address(source_of("one"), server);
    let client = HttpClient::new(&format!("http://{}", way.address), Duration::from_secs(20)).unwrap();
    let mut refused = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        match client.call(ListKeysRequest::default(), credentials) {
            Ok(_) => {}
            Err(ClientError::Refused(error)) => {
                refused.push(error.code);
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(other) => panic!("{other}"),
        }
    }
    refused
}
