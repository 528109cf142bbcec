//! The one thread that sends: it connects, frames, writes, and begins again with back-off where the connection breaks.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Config;
use crate::message::Header;
use crate::queue::{Batch, Queue};
use crate::transport::{Connection, Way};

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);

/// The thread.
pub(crate) struct Sender(JoinHandle<()>);

impl Sender {
    pub(crate) fn start(config: &Config, way: Way, header: Header, queue: Arc<Queue>) -> io::Result<Self> {
        let max_back_off = config.max_back_off;
        let run = move || {
            let mut work = Work { way, header, queue, max_back_off, connection: None, had_one: false };
            while let Some(batch) = work.queue.next() {
                if !work.deliver(&batch) {
                    return;
                }
            }
            if let Some(connection) = &mut work.connection {
                connection.close();
            }
        };
        std::thread::Builder::new().name("km-syslog".into()).spawn(run).map(Self)
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        let _panicked = self.0.join();
    }
}

struct Work {
    way: Way,
    header: Header,
    queue: Arc<Queue>,
    max_back_off: Duration,
    connection: Option<Connection>,
    had_one: bool,
}

impl Work {
    /// Sends lines until they are sent; false where nothing is sent any more.
    fn deliver(&mut self, batch: &Batch) -> bool {
        let mut framed = Vec::with_capacity(2 * batch.lines.len());
        for line in batch.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.header.frame(&batch.chain, line, &mut framed);
        }
        let mut pause = FIRST_BACK_OFF;
        loop {
            match self.send(&framed) {
                Ok(()) => {
                    self.queue.sent(batch);
                    return true;
                }
                Err(error) => {
                    self.connection = None;
                    self.queue.disconnected(error.to_string());
                }
            }
            if !self.queue.rest(pause) {
                return false;
            }
            pause = (2 * pause).min(self.max_back_off);
        }
    }

    fn send(&mut self, framed: &[u8]) -> io::Result<()> {
        if self.connection.as_mut().is_some_and(Connection::has_ended) {
            self.connection = None;
            self.queue.disconnected("the server hung up".into());
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connection = self.way.connect()?;
                self.queue.connected(self.had_one);
                self.had_one = true;
                none.insert(connection)
            }
        };
        connection.send(framed)
    }
}
