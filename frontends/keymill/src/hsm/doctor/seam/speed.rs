//! How fast texts of 1 KiB are sealed by one session and by two: a hint for whoever sets the number of sessions.

use std::thread;
use std::time::{Duration, Instant};

use keymill_core::seam::provider::{AeadBatch, CryptoSession, KeyHandle};
use serde::Serialize;

use super::{Trial, all_done};
use crate::hsm::doctor::check::Seen;

/// How long each number of sessions is measured.
const MEASURED: Duration = Duration::from_millis(400);

/// Items a second by a number of sessions.
#[derive(Clone, Copy, Debug, Serialize)]
pub(in crate::hsm::doctor) struct Rate {
    pub(in crate::hsm::doctor) sessions: usize,
    pub(in crate::hsm::doctor) items_per_s: u64,
}

impl Trial<'_> {
    /// Measures how fast texts of 1 KiB are sealed by one and by two sessions.
    pub(in crate::hsm::doctor) fn rates(&mut self) -> Result<Vec<Rate>, Seen> {
        let limit = self.provider.profile().max_sessions;
        let mut rates = Vec::new();
        for sessions in [1, 2].into_iter().filter(|sessions| *sessions <= limit) {
            let mut lanes = Vec::new();
            for lane in 0..sessions {
                // The nonces of a lane are its own: the ends of the 96 bits tell lanes and passes apart.
                lanes.push((self.provider.open_session()?, self.batch(256), (10 * sessions + lane) as u8));
            }
            let key = &self.key;
            let began = Instant::now();
            let done = thread::scope(|scope| {
                let threads: Vec<_> = lanes
                    .iter_mut()
                    .map(|(session, batch, lane)| {
                        scope.spawn(move || pass(session.as_mut(), key, batch, *lane, began))
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().expect("a measurement does not panic"))
                    .sum::<Result<u64, Seen>>()
            })?;
            let items_per_s = (done as f64 / began.elapsed().as_secs_f64()) as u64;
            rates.push(Rate { sessions, items_per_s });
        }
        Ok(rates)
    }
}

/// Seals a batch over and over until the time is up, and returns how many items that were.
fn pass(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    batch: &mut AeadBatch,
    lane: u8,
    began: Instant,
) -> Result<u64, Seen> {
    let mut done = 0;
    let mut round = 0u16;
    while began.elapsed() < MEASURED {
        round += 1;
        for item in &mut batch.items {
            item.outcome = None;
            item.nonce[0] = lane;
            item.nonce[1..3].copy_from_slice(&round.to_be_bytes());
        }
        session.encrypt(key, batch)?;
        all_done(batch, "does not seal")?;
        done += batch.items.len() as u64;
    }
    Ok(done)
}
