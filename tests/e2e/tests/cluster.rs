//! Several nodes on one store: what one does is in force on the others, what each does by itself is done once, and who cannot see uses no key.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::access::{AccessKeyStatus, Effect, Grant, ResourcePattern, Role};
use keymill_core::id::CmkId;
use keymill_core::key::{KeyState, RotationInterval};
use keymill_core::operation::*;
use keymill_core::seam::store::{Path, Write};
use keymill_e2e::{Answered, Caller, audit_lines, eventually, metric, verified};
use keymill_harness::{Live, Setup, Site, Started, Wire};
use keymill_runtime::{ClusterConfig, EngineConfig, records};

const VIEW: Duration = Duration::from_millis(1_500);
const LEASE: Duration = Duration::from_secs(2);
/// What a change may take to be in force elsewhere: far more than it does, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(1);

fn config() -> EngineConfig {
    let quick = Duration::from_millis(50);
    EngineConfig { usage_flush: quick, deletion_check: quick, ..EngineConfig::default() }
}

fn node(name: &str) -> Setup {
    let cluster = ClusterConfig { view: VIEW, lease: LEASE, ..ClusterConfig::default() };
    Setup::new(config()).as_node(name, cluster)
}

/// Two nodes, and their bootstrap administrator.
struct Pair {
    nodes: [Live; 2],
    root: Credentials,
}

impl Pair {
    fn start() -> Self {
        let Started { live, credentials } = Live::start_with(node("a"));
        let other = live.beside(node("b")).unwrap();
        assert!(other.bootstrap().is_none(), "there is one first access key");
        Self { nodes: [live, other], root: credentials }
    }

    fn callers(&self) -> [Caller; 2] {
        [0, 1].map(|n| Caller::new(&self.nodes[n], &self.root))
    }

    /// Stops both; returns their places, and the administrator.
    fn halt(self) -> ([Site; 2], Credentials) {
        (self.nodes.map(Live::halt), self.root)
    }
}

/// Waits until something is so, and returns how long that took.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn code<T>(answered: Answered<T>) -> Option<String> {
    answered.err().map(|error| error.code.to_string())
}

#[test]
fn what_one_node_does_to_keys_is_in_force_on_the_other() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    soon("the key is there", || b.describe(key).ok());
    let blob = b.encrypt(key, b"text", &[]).unwrap();
    assert_eq!(a.decrypt(&blob, &[]).unwrap(), b"text");

    a.disable(key).unwrap();
    soon("it is disabled", || (code(b.encrypt(key, b"text", &[]))? == "Rejected.Disabled").then_some(()));
    assert_eq!(code(b.decrypt(&blob, &[])).as_deref(), Some("Rejected.Disabled"));
    b.enable(key).unwrap();
    soon("it is enabled", || a.decrypt(&blob, &[]).ok());

    b.create_alias("alias/both/of-us", key).unwrap();
    soon("the alias is there", || a.encrypt("alias/both/of-us", b"text", &[]).ok());
    let other = a.create_key();
    soon("the other key is there", || b.describe(other).ok());
    a.move_alias("alias/both/of-us", other).unwrap();
    soon("it was moved", || (b.describe("alias/both/of-us").ok()?.key_id == other).then_some(()));
    b.delete_alias("alias/both/of-us").unwrap();
    soon("it is gone", || a.describe("alias/both/of-us").err());
    // Made anew where it ended, by the other one.
    a.create_alias("alias/both/of-us", key).unwrap();
    soon("it is there again", || b.describe("alias/both/of-us").ok());
    b.delete_alias("alias/both/of-us").unwrap();
    soon("it is gone again", || a.describe("alias/both/of-us").err());

    a.update_description(key, "of both").unwrap();
    soon("it is described", || (b.describe(key).ok()?.description == "of both").then_some(()));
    b.schedule_deletion(key).unwrap();
    soon("it waits", || (a.describe(key).ok()?.key_state == KeyState::PendingDeletion).then_some(()));
    a.cancel_deletion(key).unwrap();
    soon("it is back", || (b.describe(key).ok()?.key_state != KeyState::PendingDeletion).then_some(()));
    drop((a, b));
    pair.halt().0.iter().for_each(|site| drop(verified(site)));
}

#[test]
fn rights_that_one_takes_away_are_gone_on_the_other_also_on_open_connections() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    let grant =
        Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
    let (id, secret) = a.create_access_key(vec![grant]).unwrap();
    let theirs = Credentials::new(id.clone(), secret);
    let mut there = soon("the access key is there", || Caller::try_new(&pair.nodes[1], &theirs).ok());
    there.encrypt(key, b"text", &[]).unwrap();
    a.set_status(&id, AccessKeyStatus::Inactive).unwrap();
    soon("it is out", || there.encrypt(key, b"text", &[]).err());
    assert!(Caller::try_new(&pair.nodes[1], &theirs).is_err());
    a.delete_access_key(&id).unwrap();
    soon("it is gone", || {
        let keys =
            b.ask(ListAccessKeysRequest { page_number: None, page_size: None, timeout_ms: None }, |reply| {
                match reply {
                    Reply::ListAccessKeys(reply) => reply.access_keys.len(),
                    other => panic!("{other:?}"),
                }
            });
        (keys.unwrap() == 1).then_some(())
    });
}

#[test]
fn secrets_are_followed_in_all_their_life() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    a.create_secret("db/password", "v1", "one").unwrap();
    soon("it is there", || b.value("db/password").ok());
    b.put_value("db/password", "v2", "two", &[]).unwrap();
    soon("the value is there", || (a.value("db/password").ok()?.1 == "two").then_some(()));
    assert_eq!(a.value_of("db/password", Some("v1"), None).unwrap().1, "one");
    a.delete_secret("db/password", Some(7)).unwrap();
    soon("it waits", || b.value("db/password").err());
    b.restore_secret("db/password").unwrap();
    soon("it is back", || a.value("db/password").ok());
    // Both are sealed under the one key that the installation has for secrets.
    b.create_secret("db/other", "v1", "three").unwrap();
    assert_eq!(a.key_of_secret("db/password"), b.key_of_secret("db/other"));
}

#[test]
fn of_two_who_change_a_key_at_once_one_is_told_that_it_came_second_and_both_see_the_same() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    soon("the key is there", || b.describe(key).ok());
    let change = |caller: &mut Caller, name: &str| {
        let mut done = 0;
        for round in 0..100 {
            match caller.update_description(key, &format!("{name}{round}")) {
                Ok(()) => done += 1,
                Err(error) => {
                    assert_eq!(error.code.to_string(), "Rejected.ConcurrentModification", "{error:?}")
                }
            }
        }
        done
    };
    let (by_a, by_b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| change(&mut b, "b"));
        (change(&mut a, "a"), other.join().unwrap())
    });
    assert!(by_a > 0 && by_b > 0, "{by_a} and {by_b}");
    soon("both see the same", || {
        (a.describe(key).unwrap().description == b.describe(key).unwrap().description).then_some(())
    });
    let in_peace = |caller: &mut Caller, other: &mut Caller, said: &str| {
        caller.update_description(key, said).unwrap();
        soon("the other sees it", || (other.describe(key).unwrap().description == said).then_some(()));
    };
    in_peace(&mut a, &mut b, "in peace");
    in_peace(&mut b, &mut a, "in peace, too");
}

#[test]
fn a_node_that_is_cut_off_uses_no_key_and_says_why_and_comes_back() {
    let wire = Wire::default();
    let Started { live: first, credentials: root } = Live::start_with(node("a"));
    let cut_off = wire.clone();
    let second = first.beside(node("b").with_store(move |store| cut_off.to(store))).unwrap();
    let (mut a, mut b) = (Caller::new(&first, &root), Caller::new(&second, &root));
    let key = a.create_key();
    soon("the key is there", || b.describe(key).ok());
    b.encrypt(key, b"text", &[]).unwrap();

    wire.cut();
    a.disable(key).unwrap();
    let disabled = Instant::now();
    let refusal = loop {
        match b.encrypt(key, b"text", &[]) {
            // It does not know yet: for as long as is said, and no longer.
            Ok(_) => assert!(disabled.elapsed() < VIEW + SOON / 2, "used {:?} after", disabled.elapsed()),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(refusal.code.to_string(), "ServiceUnavailableTemporary", "{refusal:?}");
    assert!(refusal.message.contains("not confirmed"), "{}", refusal.message);
    // What is told to everybody is told on; nothing else is, since rights may have been taken away, and nothing is changed.
    b.ask(DescribeLimitsRequest { timeout_ms: None }, |_| ()).unwrap();
    assert!(b.describe(key).is_err() && b.keys().is_err() && b.disable(key).is_err());
    assert!(second.gate().troubles().iter().any(|trouble| trouble.contains("not confirmed")));
    // Those who can see go on.
    a.enable(key).unwrap();
    a.encrypt(key, b"text", &[]).unwrap();
    a.disable(key).unwrap();

    wire.mend();
    eventually("it sees again", || {
        (code(b.encrypt(key, b"text", &[]))? == "Rejected.Disabled").then_some(())
    });
    eventually("nothing is the matter", || second.gate().troubles().is_empty().then_some(()));
    a.enable(key).unwrap();
    soon("it is used again", || b.encrypt(key, b"text", &[]).ok());
}

#[test]
fn what_changes_nothing_by_an_older_view_is_not_said_to_be_done() {
    let wire = Wire::default();
    let Started { live: first, credentials: root } = Live::start_with(node("a"));
    let behind = wire.clone();
    let second = first.beside(node("b").with_store(move |store| behind.to(store))).unwrap();
    let (mut a, mut b) = (Caller::new(&first, &root), Caller::new(&second, &root));
    let key = a.create_key();
    a.disable(key).unwrap();
    soon("it is disabled", || (b.describe(key).ok()?.key_state == KeyState::Disabled).then_some(()));
    wire.deafen();
    a.enable(key).unwrap();
    // For all that it knows there is nothing to do.
    assert_eq!(b.disable(key).unwrap_err().code.to_string(), "Rejected.ConcurrentModification");
    b.disable(key).unwrap();
    soon("it is disabled", || (code(a.encrypt(key, b"text", &[]))? == "Rejected.Disabled").then_some(()));
}

#[test]
fn two_nodes_of_one_name_are_not_and_one_that_ended_at_once_is_waited_for() {
    let Started { live: first, credentials: root } = Live::start_with(node("a"));
    let why = first.beside(node("a")).err().unwrap().to_string();
    assert!(why.contains("named a") && why.contains("engine.node"), "{why}");
    let odd = first.beside(node("a/b")).err().unwrap().to_string();
    assert!(odd.contains("engine.node") && odd.contains("letters"), "{odd}");
    // The lease of one that was killed runs out.
    let wire = Wire::default();
    let behind = wire.clone();
    let mut second = first.beside(node("b").with_store(move |store| behind.to(store))).unwrap();
    wire.cut();
    second.stop();
    let again = first.beside(node("b")).unwrap();
    Caller::new(&again, &root).create_key();
}

#[test]
fn a_node_whose_name_was_taken_uses_no_key_when_it_wakes() {
    let Started { live: first, credentials: root } = Live::start_with(node("a"));
    let wire = Wire::default();
    let behind = wire.clone();
    let sleeper = first.beside(node("b").with_store(move |store| behind.to(store))).unwrap();
    let mut there = Caller::new(&sleeper, &root);
    let key = there.create_key();
    wire.cut();
    let taker = first.beside(node("b")).unwrap();
    wire.mend();
    eventually("it finds out", || {
        there.encrypt(key, b"text", &[]).err().filter(|e| e.message.contains("engine.node"))
    });
    Caller::new(&taker, &root).encrypt(key, b"text", &[]).unwrap();
    drop(taker);
    eventually("it has its name again", || there.encrypt(key, b"text", &[]).ok());
}

fn rotated(caller: &mut Caller) -> CmkId {
    let request = CreateKeyRequest {
        enable_automatic_rotation: Some(true),
        rotation_interval: Some(RotationInterval::parse("7d").unwrap()),
        ..Default::default()
    };
    let take = |reply: Reply<'_>| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    };
    caller.ask(request, take).unwrap()
}

#[test]
fn what_is_due_is_done_once_and_by_another_when_the_one_that_kept_the_time_is_gone() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let keys: Vec<CmkId> = (0..20).map(|_| rotated(&mut a)).collect();
    let old = a.encrypt(keys[0], b"old", &[]).unwrap();
    let doomed = a.create_key();
    a.schedule_deletion(doomed).unwrap();
    soon("all are there", || keys.iter().all(|key| b.describe(*key).is_ok()).then_some(()));
    drop((a, b));
    let (sites, root) = pair.halt();

    // Eight days on; deletions wait for seven.
    let days = 8 * 86_400_000;
    let [one, other] = sites;
    let first = one.start(node("a").at_offset_ms(days));
    let second = first.join(other, node("b").at_offset_ms(days)).unwrap();
    let (mut a, mut b) = (Caller::new(&first, &root), Caller::new(&second, &root));
    eventually("all are rotated", || {
        keys.iter().all(|key| a.versions(*key).unwrap().len() == 2).then_some(())
    });
    eventually("both know", || keys.iter().all(|key| b.versions(*key).unwrap().len() == 2).then_some(()));
    eventually("it is deleted", || {
        (a.describe(doomed).is_err() && b.describe(doomed).is_err()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(keys.iter().all(|key| b.versions(*key).unwrap().len() == 2), "once");
    // Each seals under what one of them made, and opens what the other has sealed.
    let sealed = [&mut a, &mut b].map(|caller| caller.encrypt(keys[0], b"new", &[]).unwrap());
    for caller in [&mut a, &mut b] {
        assert_eq!(caller.decrypt(&old, &[]).unwrap(), b"old");
        assert!(sealed.iter().all(|blob| caller.decrypt(blob, &[]).unwrap() == b"new"));
    }
    // The one that keeps the time goes without a word, and comes back in time for nothing.
    drop((a, b));
    let holds = |live: &Live| metric(live, "keymill_cluster_timers") == 1.0;
    eventually("one keeps the time", || (holds(&first) != holds(&second)).then_some(()));
    let is_first = holds(&first);
    let (site, left) = match is_first {
        true => (first.halt(), second),
        false => (second.halt(), first),
    };
    eventually("the other keeps it", || holds(&left).then_some(()));
    let sites = [site, left.halt()];
    let lines = |operation: &str| {
        let of = |site: &Site| audit_lines(site).iter().filter(|line| line["operation"] == operation).count();
        sites.iter().map(of).sum::<usize>()
    };
    assert_eq!((lines("RotateKey"), lines("DeleteKey")), (20, 1));
    sites.iter().for_each(|site| drop(verified(site)));
}

#[test]
fn a_node_that_was_away_comes_back_to_what_others_did_and_takes_nothing_for_lost() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let (kept, gone) = (a.create_key(), a.create_key());
    soon("both are there", || b.describe(gone).ok());
    b.create_alias("alias/goes", kept).unwrap();
    b.create_secret("goes", "v1", "value").unwrap();
    soon("both are known", || (a.describe("alias/goes").is_ok() && a.value("goes").is_ok()).then_some(()));
    drop((a, b));
    let Pair { nodes: [first, second], root } = pair;
    let away = second.halt();
    let mut a = Caller::new(&first, &root);
    a.delete_alias("alias/goes").unwrap();
    a.delete_secret("goes", None).unwrap();
    a.create_alias("alias/new", gone).unwrap();
    let back = first.join(away, node("b")).unwrap();
    assert_eq!(metric(&back, "keymill_quarantined_records"), 0.0);
    let mut b = Caller::new(&back, &root);
    assert!(b.describe("alias/goes").is_err() && b.value("goes").is_err());
    assert_eq!(b.describe("alias/new").unwrap().key_id, gone);
    // And makes anew what had ended while it was away.
    b.create_alias("alias/goes", gone).unwrap();
    soon("it is there", || a.describe("alias/goes").ok());
    drop((a, b));
    let witnessed = |site: &Site| audit_lines(site).iter().filter(|line| line["note"] == "followed").count();
    let sites = [first.halt(), back.halt()];
    assert!(sites.iter().all(|site| witnessed(site) > 0), "each has seen what the other did");
    sites.iter().for_each(|site| drop(verified(site)));
}

#[test]
fn what_somebody_else_puts_into_the_store_is_refused_by_all() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    let path = Path::new(format!("cmk/{key}")).unwrap();
    let store = pair.nodes[0].store();
    let enabled = store.get(&path).unwrap().unwrap();
    a.disable(key).unwrap();
    soon("it is disabled", || (b.describe(key).ok()?.key_state == KeyState::Disabled).then_some(()));
    // The record as it was, when the key was enabled.
    let put = |value: Option<Vec<u8>>| {
        let revision = store.get(&path).unwrap().unwrap().revision;
        store.commit(&[Write { path: path.clone(), expected: Some(revision), value }]).unwrap();
    };
    let mut garbage = enabled.value.clone();
    *garbage.last_mut().unwrap() ^= 1;
    for (refused, value) in [(1.0, Some(enabled.value)), (2.0, Some(garbage))] {
        put(value);
        for live in &pair.nodes {
            eventually("it is refused", || {
                (metric(live, "keymill_cluster_rejected_records_total") == refused).then_some(())
            });
        }
    }
    // Something newer may be hidden by it: the key is not used by anybody.
    let is_quarantined = |caller: &mut Caller| {
        let refused = caller.encrypt(key, b"text", &[]).err().unwrap();
        assert!(refused.message.contains("another record was put in the place"), "{refused:?}");
    };
    [&mut a, &mut b].into_iter().for_each(is_quarantined);
    put(None);
    // A right goes as well.
    let grant =
        Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
    let (id, secret) = a.create_access_key(vec![grant]).unwrap();
    let theirs = Credentials::new(id.clone(), secret);
    soon("the access key is there", || Caller::try_new(&pair.nodes[1], &theirs).ok());
    let path = Path::new(format!("access-key/k{id}")).unwrap();
    let active = store.get(&path).unwrap().unwrap();
    a.set_status(&id, AccessKeyStatus::Inactive).unwrap();
    soon("it is out", || Caller::try_new(&pair.nodes[1], &theirs).err());
    let revision = store.get(&path).unwrap().unwrap().revision;
    store.commit(&[Write { path, expected: Some(revision), value: Some(active.value) }]).unwrap();
    for live in &pair.nodes {
        eventually("it is refused", || {
            (metric(live, "keymill_cluster_rejected_records_total") == 3.0).then_some(())
        });
        assert!(Caller::try_new(live, &theirs).is_err());
    }
}

#[test]
fn names_in_whose_place_garbage_was_put_lead_nowhere_any_more() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    a.create_alias("alias/both/of-us", key).unwrap();
    a.create_secret("db/password", "v1", "one").unwrap();
    soon("both are there", || {
        (b.describe("alias/both/of-us").is_ok() && b.value("db/password").is_ok()).then_some(())
    });
    let store = pair.nodes[0].store();
    let paths = [
        records::alias_path(&"alias/both/of-us".parse().unwrap()),
        records::secret_path(&"db/password".parse().unwrap()),
    ];
    for path in paths {
        let stored = store.get(&path).unwrap().unwrap();
        let write = Write { path, expected: Some(stored.revision), value: Some(b"garbage".to_vec()) };
        store.commit(&[write]).unwrap();
    }
    for live in &pair.nodes {
        eventually("both are refused", || {
            (metric(live, "keymill_cluster_rejected_records_total") == 2.0).then_some(())
        });
    }
    for caller in [&mut a, &mut b] {
        assert!(caller.describe("alias/both/of-us").is_err() && caller.value("db/password").is_err());
        caller.describe(key).unwrap();
    }
}

#[test]
fn a_record_that_is_written_once_more_as_it_is_can_be_changed_all_the_same() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    soon("the key is there", || b.describe(key).ok());
    let path = Path::new(format!("cmk/{key}")).unwrap();
    let store = pair.nodes[0].store();
    let stored = store.get(&path).unwrap().unwrap();
    let touch = Write { path, expected: Some(stored.revision), value: Some(stored.value) };
    store.commit(&[touch]).unwrap();
    soon("it is disabled", || a.disable(key).ok());
    soon("so it is there", || (code(b.encrypt(key, b"text", &[]))? == "Rejected.Disabled").then_some(()));
}

#[test]
fn of_two_who_take_the_last_root_keys_away_at_once_one_is_refused() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let grant =
        Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
    let (second, secret) = a.create_access_key(vec![grant]).unwrap();
    let theirs = Credentials::new(second.clone(), secret);
    soon("it is there", || Caller::try_new(&pair.nodes[1], &theirs).ok());
    let first = pair.nodes[0].bootstrap_id().unwrap().parse().unwrap();
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| b.set_status(&second, AccessKeyStatus::Inactive).is_ok());
        (a.set_status(&first, AccessKeyStatus::Inactive).is_ok(), other.join().unwrap())
    });
    assert!(one != other, "one of them is the last");
}

#[test]
fn messages_under_random_nonces_are_counted_over_all_nodes() {
    if std::env::var("KEYMILL_TEST_HSM").as_deref() != Ok("InHsm") {
        return;
    }
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    soon("the key is there", || b.describe(key).ok());
    std::thread::scope(|scope| {
        for caller in [&mut a, &mut b] {
            scope.spawn(move || (0..50).for_each(|_| drop(caller.encrypt(key, b"text", &[]).unwrap())));
        }
    });
    let reserved = |site: &Site| {
        audit_lines(site).iter().filter(|line| line["operation"] == "ReserveInvocations").count()
    };
    drop((a, b));
    let (sites, _) = pair.halt();
    assert!(sites.iter().all(|site| reserved(site) == 1), "each has reserved its own");
}

#[test]
fn uses_are_counted_by_each_and_told_of_all() {
    let pair = Pair::start();
    let [mut a, mut b] = pair.callers();
    let key = a.create_key();
    soon("the key is there", || b.describe(key).ok());
    (0..3).for_each(|_| drop(a.encrypt(key, b"text", &[]).unwrap()));
    (0..4).for_each(|_| drop(b.encrypt(key, b"text", &[]).unwrap()));
    eventually("both tell of all", || {
        let of = |caller: &mut Caller| caller.uses(key).unwrap();
        (of(&mut a) == [(7, 0)] && of(&mut b) == [(7, 0)]).then_some(())
    });
    drop((a, b));
    let ([site, other], root) = pair.halt();
    let again = site.start(node("a"));
    assert_eq!(Caller::new(&again, &root).uses(key).unwrap(), [(7, 0)]);
    drop((again, other));
}
