//! What an operator's word makes of a store that was put back while nobody ran: nothing that is whole is lost by it, nothing gives more than it should,
//! and one that was cut short is done again as a whole.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use keymill_client::Credentials;
use keymill_core::access::{Effect, Grant, ResourcePattern, Role};
use keymill_core::id::AccessKeyId;
use keymill_core::key::KeyState;
use keymill_core::seam::store::Store;
use keymill_databases::{Etcd, EtcdOptions};
use keymill_e2e::{Caller, Elsewhere, Logs, audit_lines, eventually, metric, text, verified};
use keymill_harness::{Fuse, Live, Point, Setup, Site, Started};
use keymill_runtime::{ClusterConfig, EngineConfig};
use serde_json::{Value, json};

fn node(name: &str, etcd: &Etcd) -> Setup {
    with(name, etcd, false, |store| store)
}

fn by_word(name: &str, etcd: &Etcd) -> Setup {
    with(name, etcd, true, |store| store)
}

/// A node with a way of its own to the store: nodes are processes of their own.
fn with(
    name: &str,
    etcd: &Etcd,
    accept_history: bool,
    wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Setup {
    let cluster = ClusterConfig { accept_history, lease: Duration::from_secs(2), ..ClusterConfig::default() };
    let store: Arc<dyn Store> =
        Arc::new(keymill_store_etcd::open(keymill_store_etcd::Config::new(etcd.endpoints())).unwrap());
    let store = wrap(store);
    Setup::new(EngineConfig::default()).as_node(name, cluster).with_store(move |_| store)
}

/// A store that was put back, and the place of the node that knows what is lost.
struct PutBack<T> {
    etcd: Etcd,
    site: Site,
    root: Credentials,
    made: T,
}

/// Has what `make` makes saved, and what `change` makes of it lost.
fn put_back<T>(make: impl FnOnce(&mut Caller) -> T, change: impl FnOnce(&mut Caller, &T)) -> PutBack<T> {
    let mut etcd = Etcd::start_with(EtcdOptions::default());
    let Started { live, credentials: root } = Live::start_with(node("a", &etcd));
    let made = make(&mut Caller::new(&live, &root));
    let site = live.halt();
    etcd.save();
    let live = site.start(node("a", &etcd));
    change(&mut Caller::new(&live, &root), &made);
    let site = live.halt();
    etcd.put_back();
    PutBack { etcd, site, root, made }
}

impl<T> PutBack<T> {
    fn accept(self) -> (Live, Caller, T, Etcd) {
        let Self { etcd, site, root, made } = self;
        let live = site.start(by_word("a", &etcd));
        let caller = Caller::new(&live, &root);
        (live, caller, made, etcd)
    }
}

/// Says of which records an audit says that they were accepted.
fn accepted(site: &Site) -> Vec<String> {
    let lines = audit_lines(site);
    let lines = lines.iter().filter(|line| line["operation"] == "AcceptHistory");
    let writes = lines.flat_map(|line| line["writes"].as_array().unwrap().clone());
    writes.map(|write| write["path"].as_str().unwrap().to_owned()).collect()
}

/// Reads a secret that comes back closed, once it was brought back.
fn restored(caller: &mut Caller, secret: &str) -> String {
    assert!(caller.value(secret).is_err(), "{secret} is read before anybody has looked");
    caller.restore_secret(secret).unwrap();
    caller.value(secret).unwrap().1
}

#[test]
fn a_secret_comes_back_closed_with_the_values_that_it_names_and_is_whole_once_it_is_restored() {
    let put_back = put_back(
        |caller| {
            for secret in ["removed", "again", "moved", "ending"] {
                caller.create_secret(secret, "v1", "the first").unwrap();
            }
            caller.create_secret("untouched", "v1", "the first").unwrap();
            caller.delete_secret("ending", Some(7)).unwrap();
        },
        |caller, ()| {
            // The value of the first version goes with it.
            for version in 2..=11 {
                caller.put_value("removed", &format!("v{version}"), "another", &[]).unwrap();
            }
            assert!(caller.value_of("removed", Some("v1"), None).is_err());
            // Another value stands where the first one stood.
            caller.delete_secret("again", None).unwrap();
            caller.create_secret("again", "v1", "another").unwrap();
            caller.put_value("moved", "v2", "another", &[]).unwrap();
            caller.restore_secret("ending").unwrap();
            caller.create_secret("lost", "v1", "another").unwrap();
        },
    );
    let (live, mut caller, (), etcd) = put_back.accept();
    assert_eq!(caller.value("untouched").unwrap().1, "the first");
    for secret in ["removed", "again", "moved", "ending"] {
        assert_eq!(restored(&mut caller, secret), "the first", "{secret}");
    }
    assert!(caller.value("lost").is_err());
    // It goes on from there, over values that were lost as well.
    caller.put_value("removed", "v2", "the second", &[]).unwrap();
    assert_eq!(metric(&live, "keymill_quarantined_records"), 0.0);
    drop(caller);
    verified(&live.halt());
    drop(etcd);
}

fn named(id: &str) -> Value {
    json!({ "CertificateId": id })
}

fn upload(caller: &mut Caller, elsewhere: &Elsewhere, (id, csr): &(String, String)) {
    let certificate = elsewhere.certify(csr, keymill_runtime::clock::Clock::default().now(), (-1, 30));
    let asked = json!({
        "CertificateId": id, "Certificate": certificate, "CertificateChain": elsewhere.pem(),
    });
    caller.ask_json("UploadCertificate", asked).unwrap();
}

#[test]
fn a_certificate_comes_back_inactive_and_with_the_bytes_that_it_names() {
    let elsewhere = Elsewhere::new("elsewhere", keymill_runtime::clock::Clock::default().now());
    let put_back = put_back(
        |caller| {
            let mut create = || {
                let asked =
                    json!({ "KeySpec": "EC_P256", "Subject": "CN=orders,OU=payments,O=Example,C=CN" });
                let reply = caller.ask_json("CreateCertificate", asked).unwrap();
                (text(&reply, "CertificateId"), text(&reply, "Csr"))
            };
            let (pending, active) = (create(), create());
            upload(caller, &elsewhere, &active);
            (pending, active)
        },
        |caller, (pending, active)| {
            upload(caller, &elsewhere, pending);
            let asked = json!({ "CertificateId": active.0, "Status": "REVOKED" });
            caller.ask_json("UpdateCertificateStatus", asked).unwrap();
        },
    );
    let (live, mut caller, (pending, active), _etcd) = put_back.accept();
    let got = caller.ask_json("GetCertificate", named(&pending.0)).unwrap();
    assert_eq!((got["Csr"].as_str(), got.get("Certificate")), (Some(&*pending.1), None));
    assert!(caller.ask_json("GetCertificate", named(&active.0)).unwrap()["Certificate"].is_string());
    let sign = json!({
        "CertificateId": active.0, "Algorithm": "ECDSA_SHA_256", "Message": "aGVsbG8=", "MessageType": "RAW",
    });
    let told = caller.ask_json("DescribeCertificate", named(&active.0)).unwrap();
    assert_eq!(told["Status"], json!("INACTIVE"));
    assert!(caller.ask_json("CertificatePrivateKeySign", sign.clone()).is_err());
    caller
        .ask_json("UpdateCertificateStatus", json!({ "CertificateId": active.0, "Status": "ACTIVE" }))
        .unwrap();
    caller.ask_json("CertificatePrivateKeySign", sign).unwrap();
    assert_eq!(metric(&live, "keymill_quarantined_records"), 0.0);
}

#[test]
fn an_authority_comes_back_disabled_and_who_was_denied_by_a_role_that_ends_does_not_come_in() {
    let put_back = put_back(
        |caller| {
            for (name, parent) in [("root", None), ("issuing", Some("root"))] {
                let asked =
                    json!({ "AuthorityName": name, "Subject": format!("CN={name}"), "Parent": parent });
                caller.ask_json("CreateCertificateAuthority", asked).unwrap();
            }
            let role = json!({ "Name": "writer", "Actions": ["kms:Decrypt"] });
            caller.ask_json("CreateRole", role).unwrap();
            let grant = |effect, role| Grant { effect, role, resources: vec![ResourcePattern::All] };
            caller.credentials(vec![
                grant(Effect::Allow, Role::CryptoServiceKeyUser.into()),
                grant(Effect::Deny, "role/writer".parse().unwrap()),
            ])
        },
        |caller, _| {
            let disable = json!({ "AuthorityName": "issuing", "Status": "Disabled" });
            caller.ask_json("UpdateCertificateAuthority", disable).unwrap();
            let role = json!({ "Name": "writer", "Actions": ["kms:Decrypt", "kms:Encrypt"] });
            caller.ask_json("UpdateRole", role).unwrap();
        },
    );
    let (live, mut caller, denied, _etcd) = put_back.accept();
    let mut state = |name: &str| {
        let asked = json!({ "AuthorityName": name });
        let told = caller.ask_json("DescribeCertificateAuthority", asked).unwrap();
        text(&told, "Status")
    };
    assert_eq!((state("issuing"), state("root")), ("Disabled".to_owned(), "Enabled".to_owned()));
    assert!(Caller::try_new(&live, &denied).is_err(), "what denied it something has ended");
}

#[test]
fn an_access_key_stays_active_without_which_nobody_could_administer_and_the_log_names_it() {
    let logs = Logs::keep();
    let all = || {
        vec![Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] }]
    };
    let put_back = put_back(
        |caller| {
            let known = caller.ask_json("ListAccessKeys", json!({})).unwrap();
            text(&known["AccessKeys"][0], "AccessKeyId").parse::<AccessKeyId>().unwrap()
        },
        |caller, id| {
            caller.create_access_key(all()).unwrap();
            caller.set_grants(id, all()).unwrap();
        },
    );
    // It logs in by it.
    let (_live, _caller, id, _etcd) = put_back.accept();
    let told = logs.lines_with(&format!("access-key/k{id}"));
    assert!(told.iter().any(|line| line.contains("stays active")), "{told:?}");
}

#[test]
fn one_that_remembers_more_than_was_accepted_does_not_start_without_the_word() {
    let mut etcd = Etcd::start_with(EtcdOptions::default());
    let Started { live: first, credentials: root } = Live::start_with(node("a", &etcd));
    let second = first.beside(node("b", &etcd)).unwrap();
    let (mut a, mut b) = (Caller::new(&first, &root), Caller::new(&second, &root));
    let key = a.create_key();
    eventually("the other knows", || b.describe(key).ok());
    drop(b);
    let other = second.halt();
    etcd.save();
    a.disable(key).unwrap();
    drop(a);
    let site = first.halt();
    etcd.put_back();
    // It finds out, and has the others know.
    site.refused(node("a", &etcd));
    other.refused(node("b", &etcd));
    let second = other.start(by_word("b", &etcd));
    let mut b = Caller::new(&second, &root);
    assert_eq!(b.describe(key).unwrap().key_state, KeyState::Enabled, "who accepted it knew no better");

    let why = site.refused(node("a", &etcd)).to_string();
    assert!(why.contains(&format!("cmk/{key}")) && why.contains("--accept-history"), "{why}");
    let first = site.start(by_word("a", &etcd));
    assert_eq!(Caller::new(&first, &root).describe(key).unwrap().key_state, KeyState::Disabled);
    eventually("the other follows", || (b.describe(key).ok()?.key_state == KeyState::Disabled).then_some(()));
    assert_eq!(metric(&second, "keymill_cluster_other_history"), 0.0, "nobody else has to stop for it");
    drop(b);
    // Once is enough, for both.
    let (site, other) = (first.halt(), second.halt());
    let first = site.start(node("a", &etcd));
    let second = other.start(node("b", &etcd));
    for live in [&first, &second] {
        assert_eq!(metric(live, "keymill_quarantined_records"), 0.0);
    }
}

#[test]
fn what_was_accepted_in_part_is_named_as_a_whole_once_it_is_done_again() {
    let points = [Point::BeforeCommit("witness/"), Point::BeforeRecord("AcceptHistory")];
    for point in points {
        let PutBack { etcd, site, root, made: key } =
            put_back(|caller| caller.create_key(), |caller, key| caller.disable(*key).unwrap());
        let fuse = Fuse::new();
        fuse.arm(point);
        let (store, log) = (fuse.clone(), fuse.clone());
        let cut_short =
            with("a", &etcd, true, |inner| store.store(inner)).with_audit(move |inner| log.log(inner));
        let why = site.refused(cut_short).to_string();
        assert!(fuse.is_blown(), "{why}");
        let why = site.refused(node("a", &etcd)).to_string();
        assert!(why.contains("--accept-history"), "{why}");
        let live = site.start(by_word("a", &etcd));
        assert_eq!(Caller::new(&live, &root).describe(key).unwrap().key_state, KeyState::Disabled);
        let site = live.halt();
        let paths = accepted(&site);
        assert!(paths.contains(&format!("cmk/{key}")), "{point:?}: {paths:?}");
        // It is done.
        let live = site.start(node("a", &etcd));
        eventually("it serves", || Caller::new(&live, &root).keys().ok());
        drop(live);
    }
}
