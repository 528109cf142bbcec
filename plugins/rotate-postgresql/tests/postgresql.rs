//! The rotator against a real PostgreSQL: what it sets is tried by psql.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use keymill_core::seam::rotator::RotationFaultKind::{Misconfigured, NotValid, Refused, Unreachable};
use keymill_core::seam::rotator::RotationStrategy::{AlternatingUsers, SingleUser};
use keymill_databases::{Database, Pair, Postgres, shared};
use keymill_rotate_postgresql::{Config, Place, Tls, open};

static POSTGRES: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

fn postgres() -> Arc<Postgres> {
    shared(&POSTGRES, Postgres::start)
}

fn over_tls(postgres: &Postgres) -> Config {
    let place = Place::Tcp { host: "localhost".into(), port: postgres.port() };
    let tls = Tls { ca_file: postgres.ca_file(), server_name: None };
    let accounts = ["app*", "trusted", "plain", "md5er"];
    Config { tls: Some(tls), database: Some("postgres".into()), ..Config::new(place, accounts) }
}

type Rotation<'a> = keymill_databases::Rotation<'a, Config>;

fn of_one<'a>(postgres: &Postgres, current: Pair<'a>, pending: Pair<'a>) -> Rotation<'a> {
    Rotation {
        config: over_tls(postgres),
        open: |config| Box::new(open(config).unwrap()),
        strategy: SingleUser,
        current,
        previous: None,
        pending,
        admin: None,
    }
}

#[test]
fn an_account_gets_another_password_which_no_log_shows() {
    let postgres = postgres();
    postgres.sql("CREATE ROLE app_one LOGIN PASSWORD 'first-password'");
    let rotation = of_one(&postgres, ("app_one", "first-password"), ("app_one", "second-password"));
    assert_eq!(rotation.test().unwrap_err().kind, NotValid, "it is not valid yet");
    for _ in 0..3 {
        rotation.set().unwrap();
        rotation.test().unwrap();
    }
    postgres.log_in("app_one", "second-password").unwrap();
    postgres.log_in("app_one", "first-password").unwrap_err();
    let log = postgres.log_with("ALTER ROLE SESSION_USER PASSWORD 'SCRAM-SHA-256$4096:");
    assert!(!log.contains("second-password"));
    rotation.turn(Duration::from_secs(60), |rotator, turn| rotator.finish(turn)).unwrap();
}

#[test]
fn two_accounts_take_turns_and_the_current_one_is_let_in_throughout() {
    let postgres = postgres();
    postgres.sql("CREATE ROLE app_a LOGIN PASSWORD 'a1'; CREATE ROLE app_b LOGIN PASSWORD 'b1'");
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
            ..of_one(&postgres, current, values[at + 2])
        };
        for _ in 0..2 {
            rotation.set().unwrap();
            postgres.log_in(current.0, current.1).unwrap();
            rotation.test().unwrap();
        }
        postgres.log_in(values[at + 2].0, values[at + 2].1).unwrap();
    }
}

#[test]
fn every_character_that_prints_may_be_in_a_password() {
    let postgres = postgres();
    let all: String = (' '..='~').collect();
    let reversed: String = all.chars().rev().collect();
    postgres.sql(&format!("CREATE ROLE app_chars LOGIN PASSWORD '{}'", all.replace('\'', "''")));
    let rotation = of_one(&postgres, ("app_chars", &all), ("app_chars", &reversed));
    rotation.set().unwrap();
    rotation.test().unwrap();
    postgres.log_in("app_chars", &reversed).unwrap();
}

#[test]
fn the_admin_sets_what_the_account_cannot() {
    let postgres = postgres();
    postgres.sql(
        "CREATE ROLE \"app_drift.$1\" LOGIN PASSWORD 'by hand';
         CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'boss'; CREATE ROLE weak LOGIN PASSWORD 'weak';
         DO $$ BEGIN IF current_setting('server_version_num')::int >= 160000 THEN
           EXECUTE 'GRANT \"app_drift.$1\" TO boss WITH ADMIN OPTION'; END IF; END $$",
    );
    let name = "app_drift.$1";
    let rotation = of_one(&postgres, (name, "old"), (name, "new"));
    assert_eq!(rotation.set().unwrap_err().kind, Refused, "nobody is left who could");
    let with = |admin, pending: Pair<'static>| Rotation {
        admin: Some(admin),
        ..of_one(&postgres, (pending.0, "old"), pending)
    };
    let fault = with(("weak", "weak"), (name, "new")).set().unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("42501")), (Refused, true), "{fault}");
    assert_eq!(with(("boss", "wrong"), (name, "new")).set().unwrap_err().kind, Misconfigured);
    let fault = with(("boss", "boss"), ("app_missing", "new")).set().unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("42704")), (Refused, true), "{fault}");
    with(("boss", "boss"), (name, "new")).set().unwrap();
    rotation.test().unwrap();
    // What was done already needs no admin.
    with(("boss", "wrong"), (name, "new")).set().unwrap();
}

#[test]
fn a_role_that_acts_as_another_at_every_login_changes_its_own_password() {
    let postgres = postgres();
    postgres.sql(
        "CREATE ROLE owner_of_all NOLOGIN; CREATE ROLE app_acts LOGIN PASSWORD 'old' IN ROLE owner_of_all;
         ALTER ROLE app_acts SET role = 'owner_of_all'",
    );
    let rotation = of_one(&postgres, ("app_acts", "old"), ("app_acts", "new"));
    rotation.set().unwrap();
    rotation.test().unwrap();
}

#[test]
fn a_server_that_is_not_the_one_that_is_trusted_gets_nothing() {
    let postgres = postgres();
    postgres.sql("CREATE ROLE app_tls LOGIN PASSWORD 'old'");
    let rotation = |tls| Rotation {
        config: Config { tls: Some(tls), ..over_tls(&postgres) },
        ..of_one(&postgres, ("app_tls", "old"), ("app_tls", "new"))
    };
    let before = postgres.log().matches("user=app_tls").count();
    let other = Tls { ca_file: postgres.other_ca_file(), server_name: None };
    let fault = rotation(other).set().unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("certificate")), (Unreachable, true), "{fault}");
    let named = Tls { ca_file: postgres.ca_file(), server_name: Some("elsewhere.example".into()) };
    assert_eq!(rotation(named).set().unwrap_err().kind, Unreachable);
    assert_eq!(postgres.log().matches("user=app_tls").count(), before, "not even a name was told");
    rotation(Tls { ca_file: postgres.ca_file(), server_name: Some("localhost".into()) }).set().unwrap();
}

#[test]
fn on_this_machine_there_are_sockets_and_loopback_too() {
    let postgres = postgres();
    postgres.sql("CREATE ROLE app_near LOGIN PASSWORD 'a'");
    let socket = Config { tls: None, place: Place::Socket(postgres.socket()), ..over_tls(&postgres) };
    let loopback = Config { tls: None, ..over_tls(&postgres) };
    for (config, current, pending) in [(socket, "a", "b"), (loopback, "b", "c")] {
        let rotation = Rotation { config, ..of_one(&postgres, ("app_near", current), ("app_near", pending)) };
        rotation.set().unwrap();
        rotation.test().unwrap();
    }
    postgres.log_in("app_near", "c").unwrap();
}

#[test]
fn a_login_that_shows_nothing_or_that_others_can_read_is_none() {
    let postgres = postgres();
    postgres.sql(
        "CREATE ROLE trusted LOGIN PASSWORD 'old'; CREATE ROLE plain LOGIN PASSWORD 'old';
         SET password_encryption = 'md5'; CREATE ROLE md5er LOGIN PASSWORD 'old'",
    );
    for name in ["trusted", "plain", "md5er"] {
        let rotation = of_one(&postgres, (name, "old"), (name, "new"));
        assert_eq!(rotation.set().unwrap_err().kind, Misconfigured, "{name}");
        assert_eq!(rotation.test().unwrap_err().kind, Misconfigured, "{name}");
    }
}

#[test]
fn an_account_that_was_not_listed_is_never_named_to_the_server() {
    let postgres = postgres();
    for name in ["postgres", "app\\\" SUPERUSER --", "app_ü", "app' --"] {
        let rotation = Rotation {
            admin: Some(("boss", "boss")),
            ..of_one(&postgres, (name, "old"), (name, "never-to-be-set"))
        };
        assert_eq!(rotation.set().unwrap_err().kind, Misconfigured, "{name}");
        assert_eq!(rotation.test().unwrap_err().kind, Misconfigured, "{name}");
    }
}

#[test]
fn a_role_that_may_not_log_in_and_a_database_that_is_not_there_are_told_apart() {
    let postgres = postgres();
    postgres.sql("CREATE ROLE app_no NOLOGIN PASSWORD 'old'; CREATE ROLE app_db LOGIN PASSWORD 'old'");
    assert_eq!(of_one(&postgres, ("app_no", "old"), ("app_no", "new")).set().unwrap_err().kind, Refused);
    let rotation = Rotation {
        config: Config { database: Some("nowhere".into()), ..over_tls(&postgres) },
        ..of_one(&postgres, ("app_db", "old"), ("app_db", "new"))
    };
    assert_eq!(rotation.set().unwrap_err().kind, Misconfigured);
}

#[test]
fn a_server_that_is_down_is_tried_again() {
    let mut postgres = Postgres::start();
    postgres.sql("CREATE ROLE app LOGIN PASSWORD 'old'");
    let rotation = of_one(&postgres, ("app", "old"), ("app", "new"));
    let late = rotation.turn(Duration::ZERO, |rotator, turn| rotator.set(turn)).unwrap_err();
    assert_eq!(late.kind, Unreachable);
    postgres.stop();
    assert_eq!(rotation.set().unwrap_err().kind, Unreachable);
    assert_eq!(rotation.test().unwrap_err().kind, Unreachable);
    postgres.start_again();
    rotation.set().unwrap();
    rotation.test().unwrap();
}

#[test]
fn a_server_without_tls_is_told_no_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut server, _) = listener.accept().unwrap();
        let mut asked = vec![0; 8];
        server.read_exact(&mut asked).unwrap();
        server.write_all(b"N").unwrap();
        server.read_to_end(&mut asked).unwrap();
        asked
    });
    let postgres = postgres();
    let place = Place::Tcp { host: "localhost".into(), port };
    let rotation = Rotation {
        config: Config { place, ..over_tls(&postgres) },
        ..of_one(&postgres, ("app", "old"), ("app", "new"))
    };
    assert_eq!(rotation.set().unwrap_err().kind, Misconfigured);
    assert_eq!(
        heard.join().unwrap(),
        [0, 0, 0, 8, 4, 210, 22, 47],
        "the question for TLS, and nothing after it"
    );
}

#[test]
fn what_waits_for_a_lock_ends_with_its_turn() {
    let postgres = postgres();
    postgres.sql("CREATE ROLE app_lock LOGIN PASSWORD 'old'");
    let rotation = of_one(&postgres, ("app_lock", "old"), ("app_lock", "new"));
    let held = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            postgres.sql("BEGIN; ALTER ROLE app_lock CONNECTION LIMIT 9; SELECT pg_sleep(4); ROLLBACK");
        });
        postgres.log_with("SELECT pg_sleep(4)");
        let fault = rotation.turn(Duration::from_secs(1), |rotator, turn| rotator.set(turn));
        holder.join().unwrap();
        fault
    });
    // The server gave up itself: what comes late is not carried out.
    let fault = held.unwrap_err();
    assert_eq!((fault.kind, fault.why.contains("57014")), (Unreachable, true), "{fault}");
    postgres.log_in("app_lock", "old").unwrap();
    rotation.set().unwrap();
}
