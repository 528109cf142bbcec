//! Accounts of ACME on several nodes: one key has one account, whichever node is asked first, and whatever it has heard of the others.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::acme::{Account, AccountKey, Outcome};
use keymill_core::id::ClientKeyId;
use keymill_e2e::{Caller, eventually};
use keymill_harness::{Live, Setup, Started, Wire};
use keymill_runtime::gate::AccountChange;
use keymill_runtime::{ClusterConfig, EngineConfig};
use serde_json::json;

fn node(name: &str) -> Setup {
    // A node that hears nothing answers all the same for as long as a test takes.
    let cluster = ClusterConfig { view: Duration::from_secs(600), ..ClusterConfig::default() };
    Setup::new(EngineConfig::default()).as_node(name, cluster)
}

struct Scene {
    nodes: [Live; 2],
    /// What the second node hears through.
    wire: Wire,
    binding: ClientKeyId,
}

impl Scene {
    fn start() -> Self {
        let Started { live: first, credentials } = Live::start_with(node("a"));
        let wire = Wire::default();
        let behind = wire.clone();
        let second = first.beside(node("b").with_store(move |store| behind.to(store))).unwrap();
        let binding = bind(&first, &credentials);
        let scene = Self { nodes: [first, second], wire, binding };
        eventually("the other node knows the binding", || scene.register(1, &key("first")).ok());
        scene
    }

    fn register(&self, node: usize, key: &AccountKey) -> Outcome<(Arc<Account>, bool)> {
        let gate = self.nodes[node].gate();
        let (key, binding) = (key.clone(), self.binding.clone());
        run(async move { gate.register_acme((None, Instant::now()), key, Vec::new(), binding).await })
    }

    fn change_key(&self, node: usize, account: &Account, new: AccountKey) -> Outcome<Arc<Account>> {
        let gate = self.nodes[node].gate();
        let call = gate.acme_call(account, None, Instant::now())?;
        let change = AccountChange::Key { old: account.key.clone(), new };
        let id = account.id;
        run(async move { gate.change_acme_account(call, id, change).await })
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(work)
}

/// Makes an access point, and a client key that binds accounts to it.
fn bind(live: &Live, credentials: &Credentials) -> ClientKeyId {
    let mut root = Caller::new(live, credentials);
    let mut ask = |operation: &str, parameters| root.ask_json(operation, parameters).unwrap();
    ask(
        "CreateNetworkRule",
        json!({ "Name": "here", "Type": "Private", "SourcePrivateIp": ["127.0.0.0/8"] }),
    );
    ask(
        "CreatePolicy",
        json!({
            "Name": "web", "KmsInstance": "shared",
            "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"],
            "Resources": ["key/*"],
            "AccessControlRules": r#"{"NetworkRules":["here"]}"#,
        }),
    );
    ask("CreateApplicationAccessPoint", json!({ "Name": "web", "Policies": ["web"] }));
    let made = ask("CreateAcmeBinding", json!({ "AapName": "web" }));
    made["ClientKeyId"].as_str().unwrap().parse().unwrap()
}

fn key(name: &str) -> AccountKey {
    AccountKey { jwk: format!(r#"{{"kty":"{name}"}}"#), thumbprint: format!("thumbprint-of-{name}") }
}

#[test]
fn a_key_that_has_an_account_on_one_node_makes_none_on_another_that_has_not_heard_of_it() {
    let scene = Scene::start();
    scene.wire.deafen();
    let (made, is_new) = scene.register(0, &key("x")).unwrap();
    assert!(is_new);
    let (found, is_new) = scene.register(1, &key("x")).unwrap();
    assert_eq!((found.id, is_new), (made.id, false));
}

#[test]
fn one_key_at_two_nodes_at_once_makes_one_account() {
    let scene = Scene::start();
    for round in 0..20 {
        let key = key(&format!("of-round-{round}"));
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| scene.register(1, &key).unwrap());
            (scene.register(0, &key).unwrap(), other.join().unwrap())
        });
        assert_eq!(one.0.id, other.0.id);
        assert!(one.1 != other.1, "one of them made it: {} {}", one.1, other.1);
    }
}

#[test]
fn a_key_that_came_to_an_account_on_one_node_makes_none_on_another_that_has_not_heard_of_it() {
    let scene = Scene::start();
    let (account, _) = scene.register(0, &key("old")).unwrap();
    scene.wire.deafen();
    scene.change_key(0, &account, key("new")).unwrap();
    let (found, is_new) = scene.register(1, &key("new")).unwrap();
    assert_eq!((found.id, is_new), (account.id, false));
    // The key of before is free, and makes another account.
    let (other, is_new) = scene.register(0, &key("old")).unwrap();
    assert!(is_new && other.id != account.id);
}

#[test]
fn what_is_answered_without_a_change_is_not_of_an_older_view() {
    let scene = Scene::start();
    let (account, _) = scene.register(0, &key("x")).unwrap();
    eventually("the other node knows it", || scene.register(1, &key("x")).ok());
    scene.wire.deafen();
    let gate = scene.nodes[0].gate();
    let call = gate.acme_call(&account, None, Instant::now()).unwrap();
    let id = account.id;
    run(async move { gate.change_acme_account(call, id, AccountChange::Deactivate).await }).unwrap();
    let refused = scene.register(1, &key("x")).unwrap_err();
    assert!(refused.detail.contains("deactivated"), "{refused:?}");
}
