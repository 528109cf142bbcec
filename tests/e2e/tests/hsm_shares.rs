//! What engines get of a token that they share. Rates: the program has the machine alone. How exact the shares are is tested where they are decided,
//! without clocks: `keymill-runtime`, `pool::turns`. The module behind the simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE`
//! names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::key::BulkMode;
use keymill_e2e::{Caller, eventually, metric};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::pool::Turns;
use keymill_runtime::{EngineConfig, InFlight, TokenPart};

const SESSIONS: usize = 8;

/// Says that it is over once it is dropped.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two engines at one token, as instances are, which have all they can do.
#[test]
fn engines_that_share_a_token_get_time_there_by_their_weight() {
    // So slow that the machine is not the limit, however busy it is: a session that has a turn takes it up in less time than a call takes.
    let farm = Farm::with(1, "latency_us = 20000\nengines = 2\nfree = [\"C_*Init\"]");
    let part = farm.parts_with(|config| config.sessions = SESSIONS).remove(0);
    let provider = (part.connect)().unwrap();
    let turns = Turns::new(InFlight::Feedback);
    let start = |weight: u32| {
        let (provider, config) = (provider.clone(), part.config.clone());
        let seat = turns.sit(weight, SESSIONS);
        let token = TokenPart { config, connect: Box::new(move || Ok(provider.clone())), seat };
        Live::start_with(Setup::new(EngineConfig::default()).with_tokens(vec![token]).with_workers(1))
    };
    let engines = [start(4), start(1)];
    let series = format!("keymill_hsm_items_total{{token=\"{}\"}}", farm.hsms[0].name);
    let items = || engines.each_ref().map(|started| metric(&started.live, &series) as u64);
    let stop = AtomicBool::new(false);
    let told = Told(&stop);
    std::thread::scope(|scope| {
        // Dropped however this ends: the scope waits for those who saturate the token.
        let _told = told;
        for Started { live, credentials } in engines.iter().flat_map(|engine| [engine; 3]) {
            let stop = &stop;
            scope.spawn(move || {
                let mut caller = Caller::new(live, credentials);
                let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
                let texts = vec![vec![7; 100]; 16];
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(caller.batch_encrypt(key, &texts).unwrap().len(), texts.len());
                }
            });
        }
        let is_loaded = |live: &Live| metric(live, "keymill_hsm_lane_chunks") > 8.0;
        eventually("both have all they can do", || {
            engines.iter().all(|started| is_loaded(&started.live)).then_some(())
        });
        // Until then each has a turn for every session, and there is nothing to share out.
        eventually("it is found how many turns do most", || {
            let at_work = "keymill_hsm_sessions_at_work{token=\"".to_owned() + &farm.hsms[0].name + "\"}";
            (metric(&engines[0].live, &at_work) <= 6.0).then_some(())
        });
        // Who finds no time on a busy machine to ask for its share does not get it: one that has all it can do does, at some time.
        let mut seen = items();
        eventually("each gets what it is due", || {
            let now = items();
            if now[0] < seen[0] + 150 {
                return None;
            }
            let [heavy, light] = [0, 1].map(|of| (now[of] - seen[of]) as f64);
            println!("{heavy} and {light} items");
            seen = now;
            (2.5..6.0).contains(&(heavy / light)).then_some(())
        });
    });
}
