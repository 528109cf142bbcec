//! The rotator against a real MariaDB: what it sets is tried by its own client. MySQL is not among Debian's packages: what differs there is in
//! tests/scripted.rs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use keymill_core::seam::rotator::RotationFaultKind::{Misconfigured, NotValid, Refused, Unreachable};
use keymill_core::seam::rotator::RotationStrategy::{AlternatingUsers, SingleUser};
use keymill_databases::{Database, MariaDb, Pair, shared};
use keymill_rotate_mysql::{Config, Place, Tls, open};

static MARIADB: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());

fn mariadb() -> Arc<MariaDb> {
    shared(&MARIADB, MariaDb::start)
}

fn over_tls(mariadb: &MariaDb) -> Config {
    let place = Place::Tcp { host: "localhost".into(), port: mariadb.port() };
    let tls = Tls { ca_file: mariadb.ca_file(), server_name: None };

    Config { tls: Some(tls), ..Config::new(place, ["app*"]) }
}

type Rotation<'a> = keymill_databases::Rotation<'a, Config>;

fn of_one<'a>(mariadb: &MariaDb, current: Pair<'a>, pending: Pair<'a>) -> Rotation<'a> {
    Rotation {
        config: over_tls(mariadb),
        open: |config| Box::new(open(config, "%").unwrap()),
        strategy: SingleUser,
        current,
        previous: None,
        pending,
        admin: None,
    }
}

#[test]
fn an_account_gets_another_password_which_no_log_shows() {
    let mariadb = mariadb();
    mariadb.sql("CREATE USER app_one IDENTIFIED BY 'first-password'");
    let rotation = of_one(&mariadb, ("app_one", "first-password"), ("app_one", "second-password"));
    assert_eq!(rotation.test().unwrap_err().kind, NotValid, "it is not valid yet");
    for _ in 0..3 {
        rotation.set().unwrap();
        rotation.test().unwrap();
    }
    mariadb.log_in("app_one", "second-password").unwrap();
    mariadb.log_in("app_one", "first-password").unwrap_err();
    // As the server itself would keep it.
    let hash = mariadb.sql("SELECT PASSWORD('second-password')");
    let log = mariadb
        .log_with(&format!("SET PASSWORD = '{hash}'"))
        .replace("SELECT PASSWORD('second-password')", "");
    assert!(!log.contains("second-password"));
    rotation.turn(Duration::from_secs(60), |rotator, turn| rotator.finish(turn)).unwrap();
}

#[test]
fn two_accounts_take_turns_and_the_current_one_is_let_in_throughout() {
    let mariadb = mariadb();
    mariadb.sql("CREATE USER app_a IDENTIFIED BY 'a1'; CREATE USER app_b IDENTIFIED BY 'b1'");
    let values = [("app_a", "a1"), ("app_b", "b1"), ("app_b", "b2"), ("app_a", "a2"), ("app_b", "b3")];
    for at in 0..3 {
        // The value before the first one is that of the other account, too.
        let (current, previous) = match at {
            0 => (values[0], values[1]),
            _ => (values[at + 1], if at == 1 { values[0] } else { values[2] }),
        };
        let rotation = Rotation {
            strategy: AlternatingUsers,
            previous: Some(previous),
            ..of_one(&mariadb, current, values[at + 2])
        };
        for _ in 0..2 {
            rotation.set().unwrap();
            mariadb.log_in(current.0, current.1).unwrap();
            rotation.test().unwrap();
        }
        mariadb.log_in(values[at + 2].0, values[at + 2].1).unwrap();
    }
}

#[test]
fn every_character_that_prints_may_be_in_a_password() {
    let mariadb = mariadb();
    let all: String = (' '..='~').collect();
    let reversed: String = all.chars().rev().collect();
    let quoted = all.replace('\\', r"\\").replace('\'', "''");
    mariadb.sql(&format!("CREATE USER app_chars IDENTIFIED BY '{quoted}'"));
    let rotation = of_one(&mariadb, ("app_chars", &all), ("app_chars", &reversed));
    rotation.set().unwrap();
    rotation.test().unwrap();
    mariadb.log_in("app_chars", &reversed).unwrap();
}

#[test]
fn the_admin_sets_what_the_account_cannot() {
    let mariadb = mariadb();
    mariadb.sql(
        "CREATE USER `app_drift.$1` IDENTIFIED BY 'by hand'; CREATE USER boss IDENTIFIED BY 'boss';
         GRANT UPDATE ON mysql.* TO boss; CREATE USER weak IDENTIFIED BY 'weak'",
    );
    let name = "app_drift.$1";
    let rotation = of_one(&mariadb, (name, "old"), (name, "new"));
    assert_eq!(rotation.set().unwrap_err().kind, Refused, "nobody is left who could");
    let with = |admin, pending: Pair<'static>| Rotation {
        admin: Some(admin),
        ..of_one(&mariadb, (pending.0, "old"), pending)
    };
    let fault = with(("weak", "weak"), (name, "new")).set().unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("error 1044")), (Refused, true), "{fault}");
    assert_eq!(with(("boss", "wrong"), (name, "new")).set().unwrap_err().kind, Misconfigured);
    let fault = with(("boss", "boss"), ("app_missing", "new")).set().unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("error 1133")), (Refused, true), "{fault}");
    with(("boss", "boss"), (name, "new")).set().unwrap();
    rotation.test().unwrap();
    // What was done already needs no admin.
    with(("boss", "wrong"), (name, "new")).set().unwrap();
}

#[test]
fn a_server_that_is_not_the_one_that_is_trusted_gets_nothing() {
    let mariadb = mariadb();
    mariadb.sql("CREATE USER app_tls IDENTIFIED BY 'old'");
    let rotation = |tls| Rotation {
        config: Config { tls: Some(tls), ..over_tls(&mariadb) },
        ..of_one(&mariadb, ("app_tls", "old"), ("app_tls", "new"))
    };
    let before = mariadb.log().matches("app_tls@").count();
    let other = Tls { ca_file: mariadb.other_ca_file(), server_name: None };
    let fault = rotation(other).set().unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("certificate")), (Unreachable, true), "{fault}");
    let named = Tls { ca_file: mariadb.ca_file(), server_name: Some("elsewhere.example".into()) };
    assert_eq!(rotation(named).set().unwrap_err().kind, Unreachable);
    assert_eq!(mariadb.log().matches("app_tls@").count(), before, "not even a name was told");
    rotation(Tls { ca_file: mariadb.ca_file(), server_name: Some("localhost".into()) }).set().unwrap();
}

#[test]
fn on_this_machine_there_are_sockets_and_loopback_too() {
    let mariadb = mariadb();
    mariadb.sql("CREATE USER app_near IDENTIFIED BY 'a'");
    let socket = Config { tls: None, place: Place::Socket(mariadb.socket()), ..over_tls(&mariadb) };
    let loopback = Config { tls: None, ..over_tls(&mariadb) };
    for (config, current, pending) in [(socket, "a", "b"), (loopback, "b", "c")] {
        let rotation = Rotation { config, ..of_one(&mariadb, ("app_near", current), ("app_near", pending)) };
        rotation.set().unwrap();
        rotation.test().unwrap();
    }
    mariadb.log_in("app_near", "c").unwrap();
}

#[test]
fn an_account_that_logs_in_in_another_way_is_told_so() {
    let mariadb = mariadb();
    mariadb.sql("CREATE USER app_ed IDENTIFIED VIA ed25519 USING PASSWORD('old')");
    let fault = of_one(&mariadb, ("app_ed", "old"), ("app_ed", "new")).set().unwrap_err();
    assert_eq!(fault.kind, Misconfigured, "{fault}");
    mariadb.log_in("app_ed", "old").unwrap();
}

#[test]
fn an_account_without_a_name_is_not_taken_for_the_one_that_is_rotated() {
    let mut mariadb = MariaDb::start();
    mariadb.sql("CREATE USER ''@'%' IDENTIFIED BY 'anybody'");
    let rotation = of_one(&mariadb, ("app", "anybody"), ("app", "anybody"));
    assert_eq!(rotation.test().unwrap_err().kind, NotValid);
    // On the same server: one that goes, and comes again.
    mariadb.sql("DROP USER ''@'%'; CREATE USER app IDENTIFIED BY 'old'");
    let rotation = of_one(&mariadb, ("app", "old"), ("app", "new"));
    let late = rotation.turn(Duration::ZERO, |rotator, turn| rotator.set(turn)).unwrap_err();
    assert_eq!(late.kind, Unreachable);
    mariadb.stop();
    assert_eq!(rotation.set().unwrap_err().kind, Unreachable);
    assert_eq!(rotation.test().unwrap_err().kind, Unreachable);
    mariadb.start_again();
    rotation.set().unwrap();
    rotation.test().unwrap();
}

#[test]
fn an_account_that_was_not_listed_is_never_named_to_the_server() {
    let mariadb = mariadb();
    for name in ["root", "mysql", "app\\\" --", "app_ü", "app' --"] {
        let rotation = Rotation {
            admin: Some(("boss", "boss")),
            ..of_one(&mariadb, (name, "old"), (name, "never-to-be-set"))
        };
        assert_eq!(rotation.set().unwrap_err().kind, Misconfigured, "{name}");
        assert_eq!(rotation.test().unwrap_err().kind, Misconfigured, "{name}");
    }
}

#[test]
fn an_account_that_is_locked_and_a_database_that_is_not_there_are_told_apart() {
    let mariadb = mariadb();
    mariadb
        .sql("CREATE USER app_no IDENTIFIED BY 'old' ACCOUNT LOCK; CREATE USER app_db IDENTIFIED BY 'old'");
    assert_eq!(of_one(&mariadb, ("app_no", "old"), ("app_no", "new")).set().unwrap_err().kind, Refused);
    let rotation = Rotation {
        config: Config { database: Some("nowhere".into()), ..over_tls(&mariadb) },
        ..of_one(&mariadb, ("app_db", "old"), ("app_db", "new"))
    };
    assert_eq!(rotation.set().unwrap_err().kind, Misconfigured);
}

#[test]
fn what_waits_for_a_lock_ends_with_its_turn() {
    let mariadb = mariadb();
    mariadb.sql("CREATE USER app_lock IDENTIFIED BY 'old'");
    let rotation = of_one(&mariadb, ("app_lock", "old"), ("app_lock", "new"));
    let held = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            mariadb.sql("LOCK TABLES mysql.global_priv WRITE; SELECT SLEEP(4); UNLOCK TABLES");
        });
        mariadb.log_with("SELECT SLEEP(4)");
        let fault = rotation.turn(Duration::from_secs(2), |rotator, turn| rotator.set(turn));
        holder.join().unwrap();
        fault
    });
    // The server gave up itself: what comes late is not carried out.
    let fault = held.unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("error")), (Unreachable, true), "{fault}");
    mariadb.log_in("app_lock", "old").unwrap();
    rotation.set().unwrap();
}
