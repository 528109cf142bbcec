//! One chain with the queue beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::seam::audit::{AuditError, AuditSink, AuditSync, Shed};

use crate::queue::{Batch, Queue};
use crate::{Config, NAME, Policy};

/// While the queue stays full the chain says so this often: each time is a line that is not sent either.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// One chain, in its log and on its way to the server.
pub(crate) struct SyslogSink {
    chain: Arc<str>,
    log: Box<dyn AuditSink>,
    queue: Arc<Queue>,
    policy: Policy,
    block_timeout: Duration,
    /// What was not sent and not told yet, and when that was told last.
    shed: Option<Shed>,
    told: Instant,
}

impl SyslogSink {
    pub(crate) fn new(chain: &str, log: Box<dyn AuditSink>, queue: Arc<Queue>, config: &Config) -> Self {
        let Config { policy, block_timeout, .. } = *config;
        let told = Instant::now();
        Self { chain: chain.into(), log, queue, policy, block_timeout, shed: None, told }
    }

    fn count_shed(&mut self, lines: &[u8]) {
        let each = || lines.split_inclusive(|byte| *byte == b'\n');
        let (Some(first), Some(last)) = (each().next().and_then(number), each().next_back().and_then(number))
        else {
            return;
        };
        let lines = each().count() as u64;
        self.queue.count_shed(lines);
        let shed = self.shed.get_or_insert(Shed { sink: NAME, lines: 0, first, last });
        shed.lines += lines;
        shed.last = last;
    }
}

impl AuditSink for SyslogSink {
    fn append(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        let wait = match self.policy {
            Policy::Block => self.block_timeout,
            Policy::Shed => Duration::ZERO,
        };
        let has_room = self.queue.reserve(lines.len(), wait);
        if !has_room && self.policy == Policy::Block {
            return Err(AuditError::Blocked("the queue to the syslog server is full".into()));
        }
        // The log first: nobody is told of what it does not have.
        if let Err(error) = self.log.append(lines) {
            if has_room {
                self.queue.release(lines.len());
            }
            return Err(error);
        }
        match has_room {
            true => {
                let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.queue.push(Batch { chain: self.chain.clone(), lines: lines.into(), count });
            }
            false => self.count_shed(lines),
        }
        Ok(())
    }

    fn syncer(&self) -> Result<Box<dyn AuditSync>, AuditError> {
        self.log.syncer()
    }

    fn release_reserve(&mut self) {
        self.log.release_reserve();
    }

    fn restore_reserve(&mut self) -> bool {
        // While whoever writes would have to wait, nothing new is taken.
        self.log.restore_reserve() && (self.policy == Policy::Shed || self.queue.has_room())
    }

    fn take_shed(&mut self, is_end: bool) -> Option<Shed> {
        self.shed.as_ref()?;
        if !is_end && !self.queue.has_room() && self.told.elapsed() < TELL_EVERY {
            return None;
        }
        self.told = Instant::now();
        self.shed.take()
    }
}

/// Reads the number that a line begins with.
fn number(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = &rest[..rest.iter().position(|byte| *byte == b',')?];
    std::str::from_utf8(digits).ok()?.parse().ok()
}
