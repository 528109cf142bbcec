//! Callers of two servers who ask for more than both may give together, and what of it is let in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_core::id::CmkId;

use crate::Caller;

/// How long is counted at a time.
const WINDOW: Duration = Duration::from_secs(4);
/// How much more than its part each server has to be asked for, so that what is counted is the limit and not the callers.
const ENOUGH: f64 = 1.25;
/// Times that are counted, on a machine that is too busy to ask for enough.
const TRIES: usize = 12;

/// Callers of a server, who ask for as much as they can while they are let.
#[derive(Default)]
pub struct Load {
    asks: AtomicBool,
    is_over: AtomicBool,
    asked: AtomicU64,
    within: AtomicU64,
}

impl Load {
    /// Asks until it is over.
    pub fn run(&self, mut caller: Caller, key: CmkId) {
        const PAUSE: Duration = Duration::from_millis(1);
        while !self.is_over.load(Ordering::Relaxed) {
            if !self.asks.load(Ordering::Relaxed) {
                std::thread::sleep(10 * PAUSE);
                continue;
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            match caller.encrypt(key, b"text", &[]) {
                Ok(_) => drop(self.within.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    assert_eq!(&*error.code, "Throttling.User", "{error:?}");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Has them ask, or stop.
    pub fn ask(&self, asks: bool) {
        self.asks.store(asks, Ordering::Relaxed);
    }

    fn counted(&self) -> [u64; 2] {
        [&self.asked, &self.within].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Ends callers, also where a test fails.
pub struct Ends<'a>(pub &'a [Load]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|load| load.is_over.store(true, Ordering::Relaxed));
    }
}

/// Counts what each lets in, as parts of a limit, once all that ask have asked for enough for a while.
///
/// # Panics
/// Where they never do.
pub fn let_in(loads: &[Load; 2], limit: u64) -> [f64; 2] {
    let asking = loads.iter().filter(|load| load.asks.load(Ordering::Relaxed)).count().max(1);
    let (mut was_enough, mut counted) = (false, Vec::new());
    for _ in 0..TRIES {
        let (before, began) = (loads.each_ref().map(Load::counted), Instant::now());
        std::thread::sleep(WINDOW);
        let (after, time) = (loads.each_ref().map(Load::counted), began.elapsed().as_secs_f64());
        let part = |of: usize, at: usize| (after[at][of] - before[at][of]) as f64 / time / limit as f64;
        let [asked, within] = [0, 1].map(|of| [0, 1].map(|at| part(of, at)));
        let is_enough =
            |at: usize| !loads[at].asks.load(Ordering::Relaxed) || asked[at] >= ENOUGH / asking as f64;
        let is_now = is_enough(0) && is_enough(1);
        if is_now && was_enough {
            return within;
        }
        was_enough = is_now;
        counted.push((asked, within));
    }
    panic!("the machine is too busy to ask for {limit} a second: asked for and let in were {counted:.2?}");
}
