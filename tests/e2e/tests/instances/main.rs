//! Instances (Dedicated KMS) of the real program: made, bound to networks, used from there alone, and released; and nothing of one reaches
//! anything of another.
#![allow(clippy::unwrap_used, reason = "tests")]

mod apart;
mod ends;
mod reach;
mod scene;

use std::process::Command;
use std::time::Duration;

use keymill_client::HttpClient;
use keymill_e2e::{Caller, From, create_secret};
use keymill_harness::program;
use serde_json::{Value, json};

use scene::{ELSEWHERE, NOT_FOUND, STATE, STRANGER, Scene, source_of};

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

#[test]
fn changes_of_terms_that_are_asked_for_at_once_are_all_made() {
    let scene = Scene::start();
    let made = scene.make("shop");
    std::thread::scope(|scope| {
        // Each says another of the terms, and finds it as it has said last.
        for (field, shown) in
            [("MaxKeys", "KeyNum"), ("MaxCertificates", "CertificateNum"), ("Weight", "Weight")]
        {
            let (scene, id) = (&scene, &made.id);
            scope.spawn(move || {
                let mut administrator = scene.administrator();
                for number in 1..=60 {
                    let asked = json!({ "KmsInstanceId": id, field: number });
                    administrator.ask_json("UpdateKmsInstancePool", asked).unwrap();
                    let found =
                        administrator.ask_json("GetKmsInstance", json!({ "KmsInstanceId": id })).unwrap();
                    assert_eq!(found["KmsInstance"][shown], json!(number), "{field}");
                }
            });
        }
    });
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
