//! A client that reads a secret and logs in to the database by it, over and over, while the secret is rotated: where two accounts take turns, no
//! login fails.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keymill_e2e::{Caller, Rotated, Strategy, eventually, rotate};

const CLIENTS: usize = 3;

fn logins_go_on(rotated: &Rotated) {
    let rotations = if std::env::var_os("KEYMILL_TEST_ALL").is_some() { 40 } else { 6 };
    let server = rotated.start();
    let mut caller = Caller::of(rotated.connect(&server));
    rotated.create(&mut caller, "shop", Strategy::DoubleUsers);
    let stop = AtomicBool::new(false);
    let logins: [AtomicUsize; CLIENTS] = Default::default();
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for logins in &logins {
            let mut caller = Caller::of(rotated.connect(&server));
            let (stop, failed) = (&stop, &failed);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(said) = rotated.log_in(&mut caller, "shop") {
                        failed.lock().unwrap().push(said);
                    }
                    logins.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=rotations {
            rotate(&mut caller, "shop", &format!("v{number}"));
            // A value is good until the rotation after the next: each client has read a new one by then.
            let before: Vec<_> = logins.iter().map(|logins| logins.load(Ordering::Relaxed)).collect();
            eventually("every client reads the secret anew", || {
                let mut all = logins.iter().zip(&before);
                all.all(|(now, before)| now.load(Ordering::Relaxed) >= before + 2).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    let logins: usize = logins.iter().map(|logins| logins.load(Ordering::Relaxed)).sum();
    let failed = failed.into_inner().unwrap();
    eprintln!("{rotations} rotations, {logins} logins, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(logins >= 2 * CLIENTS * rotations, "clients logged in all the while");
    assert_eq!(caller.value("shop").unwrap().0, format!("v{rotations}"));
    assert!(server.stop().success());
}

#[test]
fn no_login_fails_while_two_accounts_of_a_postgresql_take_turns() {
    logins_go_on(&Rotated::postgresql());
}

#[test]
fn no_login_fails_while_two_accounts_of_a_mariadb_take_turns() {
    logins_go_on(&Rotated::mariadb());
}
