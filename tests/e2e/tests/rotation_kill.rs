//! `kill -9` of the real program at every step of a rotation of a real database login: started again, it ends in a state where the current value logs
//! in. What the server and the database say to each other goes through a proxy that holds a chosen message; between messages, where the server
//! is busy with itself, the moment is random. 16 kills by default, 100 with `KEYMILL_TEST_ALL`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keymill_e2e::{Caller, Rotated, Strategy, ask_to_rotate, rotate, settled, stages};

/// A secret is asked to be rotated 50 times an hour at most.
const KILLS_A_SECRET: usize = 20;

/// How an undisturbed rotation goes.
struct Measured {
    messages: usize,
    lasts: Duration,
}

struct Scene<'r> {
    rotated: &'r Rotated,
    strategy: Strategy,
    measured: Measured,
    /// How far the rotation was when the server was killed, and how often.
    found: BTreeMap<&'static str, usize>,
    /// How often while a message was held.
    held: usize,
}

impl<'r> Scene<'r> {
    fn new(rotated: &'r Rotated, strategy: Strategy) -> Self {
        let server = rotated.start();
        let mut caller = Caller::of(rotated.connect(&server));
        let secret = format!("{strategy:?}Measured").to_lowercase();
        rotated.create(&mut caller, &secret, strategy);
        rotated.proxy.hold_at(None);
        let began = Instant::now();
        rotate(&mut caller, &secret, "v1");
        let measured = Measured { messages: rotated.proxy.passed(), lasts: began.elapsed() };
        // Two that come at once are one to the proxy.
        assert!(measured.messages > 10, "a rotation says more than {} messages", measured.messages);
        rotated.log_in(&mut caller, &secret).unwrap();
        assert!(server.stop().success());
        Self { rotated, strategy, measured, found: BTreeMap::new(), held: 0 }
    }

    /// Checks what the last kill left, has the secret rotated, and kills the server meanwhile.
    fn kill(&mut self, secret: &str, at: usize, moment: Moment) {
        let Self { rotated, strategy, .. } = *self;
        let server = rotated.start();
        let mut caller = Caller::of(rotated.connect(&server));
        let number = at % KILLS_A_SECRET;
        match number {
            0 => rotated.create(&mut caller, secret, strategy),
            _ => self.check(&mut caller, secret, number - 1),
        }
        let mut connection = rotated.connect(&server);
        match moment {
            Moment::Message(message) => {
                rotated.proxy.hold_at(Some(message));
                ask_to_rotate(&mut connection, secret, &format!("v{}", number + 1));
                // Where a handshake is resumed it has fewer messages: the last may not come, and the rotation is over then.
                self.held += usize::from(rotated.proxy.is_held_within(Duration::from_secs(5)));
            }
            Moment::After(time) => {
                rotated.proxy.hold_at(None);
                ask_to_rotate(&mut connection, secret, &format!("v{}", number + 1));
                // The moment of the kill is what is random here; nothing is waited for.
                std::thread::sleep(time);
            }
        }
        server.kill();
        rotated.proxy.cut();
    }

    /// Checks that the rotation ends, with a value that logs in.
    fn check(&mut self, caller: &mut Caller, secret: &str, number: usize) {
        let rotated = self.rotated;
        if self.strategy == Strategy::DoubleUsers {
            // Whoever reads the value before the rotation goes on is let in as well.
            rotated.log_in(caller, secret).unwrap();
        }
        let version = format!("v{}", number + 1);
        let found = match stages(caller, secret, &version).as_deref() {
            None => "before the version was kept",
            Some([stage, ..]) if stage == "ACSPending" => "with the version pending",
            Some(_) => "with the version current",
        };
        *self.found.entry(found).or_default() += 1;
        settled(caller, secret);
        rotated.log_in(caller, secret).unwrap();
        // What was kept became current, and nothing else did.
        let current = caller.value(secret).unwrap().0;
        match found {
            "before the version was kept" => assert_ne!(current, version),
            _ => assert_eq!(current, version),
        }
    }
}

/// When the server is killed.
enum Moment {
    /// While a message to or from the database is held.
    Message(usize),
    /// So long after the rotation was asked for.
    After(Duration),
}

fn kills(rotated: &Rotated, strategy: Strategy) {
    let kills = if std::env::var_os("KEYMILL_TEST_ALL").is_some() { 25 } else { 4 };
    let mut scene = Scene::new(rotated, strategy);
    let Measured { messages, lasts } = scene.measured;
    // A fixed sequence of moments (Lehmer, MINSTD), so that a failure can be repeated.
    let mut seed = 20_261_129u64;
    for at in 0..kills {
        seed = seed * 48_271 % 0x7fff_ffff;
        let secret = format!("{strategy:?}{}", at / KILLS_A_SECRET).to_lowercase();
        let moment = match at % 4 {
            // From the first message to the last, evenly.
            0..3 => Moment::Message(at * (messages - 1) / (kills - 1).max(1)),
            // Up to a bit after its end; and, every other time, at its beginning, before the database hears of it.
            _ => {
                let part = if at % 8 == 3 { 800.0 } else { 8_000.0 };
                Moment::After(lasts.mul_f64((seed % 1_000) as f64 / part))
            }
        };
        if at > 0 && at % KILLS_A_SECRET == 0 {
            scene.end_with(at - 1);
        }
        scene.kill(&secret, at, moment);
    }
    scene.end_with(kills - 1);
    let Scene { found, held, .. } = scene;
    eprintln!(
        "{strategy:?}: {kills} kills, {held} of them at one of {messages} messages in {lasts:?}: {found:?}"
    );
    assert_eq!(found.values().sum::<usize>(), kills);
    assert!(2 * held >= kills, "most of them were at a message");
}

impl Scene<'_> {
    /// Checks what the last kill of a secret left.
    fn end_with(&mut self, at: usize) {
        let server = self.rotated.start();
        let mut caller = Caller::of(self.rotated.connect(&server));
        let secret = format!("{:?}{}", self.strategy, at / KILLS_A_SECRET).to_lowercase();
        self.check(&mut caller, &secret, at % KILLS_A_SECRET);
        assert!(server.stop().success());
    }
}

#[test]
fn a_postgresql_login_is_good_after_a_kill_at_any_step() {
    let rotated = Rotated::postgresql();
    kills(&rotated, Strategy::SingleUser);
    kills(&rotated, Strategy::DoubleUsers);
}

#[test]
fn a_mariadb_login_is_good_after_a_kill_at_any_step() {
    let rotated = Rotated::mariadb();
    kills(&rotated, Strategy::SingleUser);
    kills(&rotated, Strategy::DoubleUsers);
}
