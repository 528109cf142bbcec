//! The strategies against a database in memory: whose login gives whom a password, in which order, and what is found done already.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keymill_core::seam::rotator::{
    RotationFault, RotationFaultKind, RotationSettings, RotationStrategy, Rotator, Turn,
};
use keymill_core::{ErrorKind, Sensitive};
use keymill_rotate_database::{Config, Database, DatabaseRotator, Login, Place, Session};

#[derive(Default)]
struct Server {
    passwords: BTreeMap<String, String>,
    /// What was asked of it: `login NAME`, `refused NAME`, `NAME changes NAME`.
    seen: Vec<String>,
    /// Accounts that may not change passwords.
    tied: Vec<String>,
    is_down: bool,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Server>>);

struct In(Memory, String);

impl Database for Memory {
    type Session = In;
    const KIND: &'static str = "memory";
    const MAX_NAME_BYTES: usize = 32;
    const RESERVED: &'static [&'static str] = &["root"];

    fn log_in(&self, login: &Login, _: Instant) -> Result<In, RotationFault> {
        let mut server = self.0.lock().unwrap();
        if server.is_down {
            return Err(RotationFault::new(RotationFaultKind::Unreachable, "down"));
        }
        let is_right = server.passwords.get(&login.name).is_some_and(|known| known == login.password());
        server.seen.push(format!("{} {}", if is_right { "login" } else { "refused" }, login.name));
        match is_right {
            true => Ok(In(self.clone(), login.name.clone())),
            false => Err(RotationFault::new(RotationFaultKind::NotValid, "no")),
        }
    }
}

impl Session for In {
    fn change_own(&mut self, password: &Sensitive) -> Result<(), RotationFault> {
        let own = self.1.clone();
        self.change(&own, password)
    }

    fn change(&mut self, account: &str, password: &Sensitive) -> Result<(), RotationFault> {
        let mut server = self.0.0.lock().unwrap();
        server.seen.push(format!("{} changes {account}", self.1));
        if server.tied.contains(&self.1) || !server.passwords.contains_key(account) {
            return Err(RotationFault::new(RotationFaultKind::Refused, "no right"));
        }
        let password = String::from_utf8(password.expose().to_vec()).unwrap();
        server.passwords.insert(account.into(), password);
        Ok(())
    }

    fn show(&mut self, account: &str) -> Result<(), RotationFault> {
        match self.1 == account {
            true => Ok(()),
            false => Err(RotationFault::new(RotationFaultKind::NotValid, "another")),
        }
    }
}

fn value(name: &str, password: &str) -> Sensitive {
    Login { name: name.into(), password: Sensitive::copied(password.as_bytes()) }.write()
}

fn settings(strategy: RotationStrategy) -> RotationSettings {
    RotationSettings { strategy: Some(strategy), ..RotationSettings::default() }
}

struct Stage {
    memory: Memory,
    rotator: DatabaseRotator<Memory>,
}

impl Stage {
    fn new(passwords: &[(&str, &str)]) -> Self {
        let memory = Memory::default();
        memory.0.lock().unwrap().passwords =
            passwords.iter().map(|(name, password)| (name.to_string(), password.to_string())).collect();
        let config = Config::new(Place::Socket("/nowhere".into()), ["app*"]);
        Self { rotator: DatabaseRotator::new(memory.clone(), &config).unwrap(), memory }
    }

    fn set(
        &self,
        strategy: RotationStrategy,
        values: [Option<(&str, &str)>; 4],
    ) -> Result<(), RotationFault> {
        let [current, previous, pending, admin] =
            values.map(|of| of.map(|(name, password)| value(name, password)));
        self.rotator.set(&Turn {
            secret: &"app".parse().unwrap(),
            version: &"v2".parse().unwrap(),
            settings: &settings(strategy),
            current: current.as_ref().unwrap(),
            previous: previous.as_ref(),
            pending: pending.as_ref().unwrap(),
            admin: admin.as_ref(),
            deadline: Instant::now() + Duration::from_secs(5),
        })
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.memory.0.lock().unwrap().seen)
    }

    fn password(&self, name: &str) -> String {
        self.memory.0.lock().unwrap().passwords[name].clone()
    }
}

use RotationFaultKind::{Misconfigured, Refused, Unreachable};
use RotationStrategy::{AlternatingUsers, SingleUser};

#[test]
fn an_account_changes_its_own_password_and_no_login_fails() {
    let stage = Stage::new(&[("app", "old")]);
    let values = [Some(("app", "old")), None, Some(("app", "new")), None];
    stage.set(SingleUser, values).unwrap();
    assert_eq!(stage.seen(), ["login app", "app changes app"]);
    stage.set(SingleUser, values).unwrap();
    assert_eq!(stage.seen(), ["refused app", "login app"], "it was done already");
    assert_eq!(stage.password("app"), "new");
}

#[test]
fn the_account_whose_turn_it_is_changes_and_the_current_one_is_left_alone() {
    let stage = Stage::new(&[("app_a", "a"), ("app_b", "b")]);
    let values = [Some(("app_a", "a")), Some(("app_b", "b")), Some(("app_b", "b2")), None];
    for _ in 0..2 {
        stage.set(AlternatingUsers, values).unwrap();
        assert!(stage.seen().iter().all(|seen| !seen.contains("app_a")));
    }
    assert_eq!((&*stage.password("app_a"), &*stage.password("app_b")), ("a", "b2"));
}

#[test]
fn the_admin_comes_in_where_the_account_cannot() {
    let stage = Stage::new(&[("app", "by hand"), ("boss", "b")]);
    let values = [Some(("app", "old")), None, Some(("app", "new")), Some(("boss", "b"))];
    stage.set(SingleUser, values).unwrap();
    assert_eq!(stage.seen(), ["refused app", "refused app", "login boss", "boss changes app"]);

    let stage = Stage::new(&[("app", "old"), ("boss", "b")]);
    stage.memory.0.lock().unwrap().tied = vec!["app".into()];
    stage.set(SingleUser, values).unwrap();
    assert_eq!(stage.password("app"), "new", "the account may not, the admin may");
}

/// An admin whose own account a list of accounts takes in is not shut out by it.
#[test]
fn the_account_of_the_admin_is_rotated_by_no_other() {
    let stage = Stage::new(&[("app_boss", "b")]);
    let values = [Some(("app_boss", "x")), None, Some(("app_boss", "new")), Some(("app_boss", "b"))];
    assert_eq!(stage.set(SingleUser, values).unwrap_err().kind, Misconfigured);
    assert_eq!(stage.password("app_boss"), "b");
}

#[test]
fn what_cannot_be_done_says_whose_fault_it_is() {
    let kind = |stage: &Stage, strategy, values| stage.set(strategy, values).unwrap_err().kind;
    let stage = Stage::new(&[("app", "by hand"), ("app_b", "b"), ("boss", "b")]);
    let pending = Some(("app", "new"));
    let current = Some(("app", "old"));
    assert_eq!(kind(&stage, SingleUser, [current, None, pending, None]), Refused);
    assert_eq!(kind(&stage, SingleUser, [current, None, pending, Some(("boss", "wrong"))]), Misconfigured);
    assert_eq!(kind(&stage, SingleUser, [current, None, Some(("app_b", "new")), None]), Misconfigured);
    assert_eq!(kind(&stage, AlternatingUsers, [current, None, pending, None]), Misconfigured);
    assert_eq!(kind(&stage, AlternatingUsers, [current, Some(("app_b", "b")), pending, None]), Misconfigured);
    assert_eq!(kind(&stage, AlternatingUsers, [current, current, pending, None]), Misconfigured);
    // Nobody has the server change an account that was not listed, whatever a value says.
    let root = Some(("root", "r"));
    assert_eq!(kind(&stage, SingleUser, [root, None, root, Some(("boss", "b"))]), Misconfigured);
    stage.seen();
    stage.memory.0.lock().unwrap().tied = vec!["app".into(), "boss".into()];
    assert_eq!(kind(&stage, SingleUser, [current, None, pending, Some(("boss", "b"))]), Refused);
    stage.memory.0.lock().unwrap().is_down = true;
    assert_eq!(kind(&stage, SingleUser, [current, None, pending, Some(("boss", "b"))]), Unreachable);
    assert_eq!(stage.password("app"), "by hand");
}

#[test]
fn a_first_value_is_of_as_many_accounts_as_take_turns_and_of_listed_ones() {
    let stage = Stage::new(&[]);
    let admit = |strategy, text: &str| {
        stage.rotator.admit(&settings(strategy), &Sensitive::copied(text.as_bytes())).map(|first| {
            let text = |value: &Sensitive| String::from_utf8(value.expose().to_vec()).unwrap();
            (text(&first.current), first.previous.as_ref().map(text))
        })
    };
    let [a, b] =
        ["app_a", "app_b"].map(|name| format!(r#"{{"AccountName":"{name}","AccountPassword":"p"}}"#));
    let one = format!(r#"{{"Accounts":[{a}]}}"#);
    let two = format!(r#"{{"Accounts":[{a},{b}]}}"#);
    assert_eq!(admit(SingleUser, &one).unwrap(), (a.clone(), None));
    assert_eq!(admit(AlternatingUsers, &two).unwrap(), (a.clone(), Some(b)));
    let same = format!(r#"{{"Accounts":[{a},{a}]}}"#);
    let other = one.replace("app_a", "root");
    for (strategy, odd) in [
        (SingleUser, &*two),
        (AlternatingUsers, &one),
        (AlternatingUsers, &same),
        (SingleUser, &other),
        (SingleUser, &a),
        (SingleUser, "{}"),
    ] {
        let error = admit(strategy, odd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(!error.message().contains("app_a") && !error.message().contains("root"), "{error}");
    }
}

#[test]
fn what_comes_next_is_a_new_password_of_the_account_whose_turn_it_is() {
    let stage = Stage::new(&[]);
    let mut state = 7u32;
    let mut below = |bound: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Ok((state >> 8) % bound)
    };
    let (current, previous) = (value("app_a", "a"), value("app_b", "b"));
    let mut draft = |strategy, previous| {
        stage.rotator.draft(&settings(strategy), &current, previous, &mut below).map(|value| {
            let login = Login::read(value.expose()).unwrap();
            let password = login.password().to_owned();
            (login.name, password)
        })
    };
    let (name, first) = draft(SingleUser, None).unwrap();
    assert_eq!((&*name, first.len()), ("app_a", 32));
    assert!(first.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c)), "{first}");
    let (name, second) = draft(AlternatingUsers, Some(&previous)).unwrap();
    assert_eq!(name, "app_b");
    assert_ne!(first, second);
    for none in [None, Some(&current)] {
        assert_eq!(draft(AlternatingUsers, none).unwrap_err().kind(), ErrorKind::InvalidParameter);
    }
}

#[test]
fn passwords_that_could_be_guessed_are_not_made() {
    for length in [0, 15, 129] {
        let config = Config { password_length: length, ..Config::new(Place::Socket("/s".into()), ["app"]) };
        assert!(DatabaseRotator::new(Memory::default(), &config).is_err(), "{length}");
    }
}
