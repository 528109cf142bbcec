//! Many connections with one request in flight on each, driven by few threads: as many callers of an installation behave together.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keymill_client::{Connection, Credentials, Options};
use keymill_core::id::KeyRef;

use crate::error::Result;
use crate::machine::cores;
use crate::pump::{self, Shape};

/// Connections to one server.
pub(crate) struct Crowd {
    /// Those that one thread drives.
    groups: Vec<Vec<Connection>>,
    key: KeyRef,
    payloads: Vec<Vec<u8>>,
    shape: Shape,
}

impl Crowd {
    /// Connects as `callers` by turns.
    ///
    /// # Errors
    /// [`BenchError`](crate::BenchError) where the server does not let one in.
    pub(crate) fn open(
        address: SocketAddr,
        callers: &[Credentials],
        key: &KeyRef,
        shape: Shape,
    ) -> Result<Self> {
        let threads = shape.connections.min(2 * cores());
        let mut groups: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
        for (at, caller) in (0..shape.connections).zip(callers.iter().cycle()) {
            groups[at % threads].push(Connection::open(address, caller, &Options::default())?);
        }
        let payloads = (0..shape.items).map(|i| vec![i as u8; shape.item_len]).collect();
        Ok(Self { groups, key: key.clone(), payloads, shape })
    }

    /// Asks and asks again on every connection for `time`, and returns items answered a second.
    ///
    /// # Errors
    /// [`BenchError`](crate::BenchError) where an answer is not a success.
    pub(crate) fn run(&mut self, time: Duration) -> Result<f64> {
        let Self { groups, key, payloads, shape } = self;
        let request = || pump::request(shape.what, key, payloads);
        let start = Instant::now();
        let drive = |group: &mut Vec<Connection>| -> Result<usize> {
            let mut items = 0;
            for connection in &mut *group {
                connection.send(&request())?;
                connection.flush()?;
            }
            let mut last = false;
            while !last {
                last = start.elapsed() >= time;
                for connection in &mut *group {
                    items += pump::answered(&connection.receive()?.result()?)?;
                    if !last {
                        connection.send(&request())?;
                        connection.flush()?;
                    }
                }
            }
            Ok(items)
        };
        let answered: Result<usize> = std::thread::scope(|scope| {
            let drive = &drive;
            let threads: Vec<_> = groups.iter_mut().map(|group| scope.spawn(move || drive(group))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client thread runs to its end")).sum()
        });
        Ok(answered? as f64 / start.elapsed().as_secs_f64())
    }
}
