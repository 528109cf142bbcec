#![doc = include_str!("../README.md")]

mod message;
mod queue;
mod sender;
mod sink;
mod transport;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keymill_core::seam::audit::{AuditError, AuditLog, AuditReader, AuditSink, Beside};
use parking_lot::Mutex;

pub use message::Facility;

use message::Header;
use queue::Queue;
use sender::Sender;
use sink::SyslogSink;
use transport::Way;

/// The name of the sink in notes, metrics and logs.
pub const NAME: &str = "syslog";

/// The options of this plugin.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server, HOST:PORT.
    pub address: String,
    /// How it is reached.
    pub transport: Transport,
    /// What happens when the queue is full.
    pub policy: Policy,
    /// Bytes of lines that wait to be sent, at most.
    pub queue_bytes: usize,
    /// How long a line waits for room in the queue under [`Policy::Block`].
    pub block_timeout: Duration,
    /// Bytes of a message's text, at most.
    pub max_message_bytes: usize,
    /// The facility of the messages.
    pub facility: Facility,
    /// The private enterprise number behind `keymill@`.
    pub enterprise: u32,
    /// The name of this node.
    pub host: String,
    /// How long a connection may take to be made, and a write to be taken.
    pub timeout: Duration,
    /// The longest pause between two tries to connect.
    pub max_back_off: Duration,
    /// How long what waits is still sent for at an orderly end.
    pub drain_timeout: Duration,
}

impl Config {
    /// Returns the defaults for a server.
    pub fn new(address: impl Into<String>, transport: Transport) -> Self {
        Self {
            address: address.into(),
            transport,
            policy: Policy::Block,
            queue_bytes: 16 << 20,
            block_timeout: Duration::from_secs(1),
            max_message_bytes: 64 << 10,
            facility: Facility::default(),
            enterprise: 32_473,
            host: "-".into(),
            timeout: Duration::from_secs(10),
            max_back_off: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// How the server is reached.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TLS 1.3 or 1.2.
    Tls(Tls),
    /// Plain TCP, to this machine alone.
    Tcp,
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificates of those who may have signed the server's, in PEM.
    pub ca_file: PathBuf,
    /// The name in the server's certificate, where it is not that of the address.
    pub server_name: Option<String>,
    /// Our certificate chain, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of it, in PEM.
    pub key_file: Option<PathBuf>,
}

/// What happens when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Whoever writes waits, and is refused then.
    #[default]
    Block,
    /// Lines are not sent, which the chain says.
    Shed,
}

/// Why the sink cannot be had.
#[derive(Debug)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Puts the sink beside a log. The server need not be there yet.
///
/// # Errors
/// [`OpenError`] where the options do not make sense, or a certificate cannot be read.
pub fn open(config: Config, log: Arc<dyn AuditLog>) -> Result<SyslogLog, OpenError> {
    let way = Way::prepare(&config).map_err(OpenError)?;
    let header = Header::new(&config).map_err(OpenError)?;
    let queue = Arc::new(Queue::new(config.queue_bytes));
    let sender = Sender::start(&config, way, header, queue.clone())
        .map_err(|error| OpenError(format!("thread of the syslog sink: {error}")))?;
    Ok(SyslogLog { log, queue, config, sender: Mutex::new(Some(sender)) })
}

/// A log with a syslog server beside it.
pub struct SyslogLog {
    log: Arc<dyn AuditLog>,
    queue: Arc<Queue>,
    config: Config,
    sender: Mutex<Option<Sender>>,
}

impl AuditLog for SyslogLog {
    fn open_chain(&self, name: &str) -> Result<Box<dyn AuditSink>, AuditError> {
        let log = self.log.open_chain(name)?;
        Ok(Box::new(SyslogSink::new(name, log, self.queue.clone(), &self.config)))
    }

    fn chains(&self) -> Result<Vec<String>, AuditError> {
        self.log.chains()
    }

    fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
        self.log.reader(name)
    }

    fn bytes(&self, name: &str) -> Result<u64, AuditError> {
        self.log.bytes(name)
    }

    fn remove(&self, name: &str) -> Result<(), AuditError> {
        self.log.remove(name)
    }

    fn beside(&self) -> Option<Beside> {
        Some(self.queue.report())
    }

    fn close(&self) -> Result<(), AuditError> {
        self.log.close()?;
        let Some(sender) = self.sender.lock().take() else { return Ok(()) };
        match self.queue.drain(self.config.drain_timeout) {
            0 => sender.join(),
            lines => {
                return Err(AuditError::Failed(format!(
                    "{lines} lines were not sent to the syslog server before the end; the files have them"
                )));
            }
        }
        Ok(())
    }
}

impl Drop for SyslogLog {
    fn drop(&mut self) {
        self.queue.give_up();
    }
}
