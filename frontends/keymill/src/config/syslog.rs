//! The section of the configuration that tells of the syslog server beside the audit files.

use std::path::PathBuf;
use std::time::Duration;

use keymill_audit_syslog::{Config, Facility, Policy, Tls, Transport};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// A syslog server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SyslogConfig {
    /// HOST:PORT.
    pub(crate) address: String,
    /// How it is reached.
    pub(crate) transport: SyslogTransport,
    /// Certificates of those who may have signed the server's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The name in the server's certificate, where it is not that of the address.
    pub(crate) server_name: Option<String>,
    /// Our certificate chain.
    pub(crate) cert_file: Option<PathBuf>,
    /// The key of it.
    pub(crate) key_file: Option<PathBuf>,
    /// What happens when the queue is full.
    pub(crate) policy: SyslogPolicy,
    /// Bytes of lines that wait to be sent, at most.
    pub(crate) queue_bytes: usize,
    /// Milliseconds that a request waits for room in the queue before it is refused.
    pub(crate) block_timeout_ms: u64,
    /// Bytes of a message's text, at most.
    pub(crate) max_message_bytes: usize,
    /// The number of the facility.
    pub(crate) facility: u8,
    /// The private enterprise number of the structured data.
    pub(crate) enterprise: u32,
    /// The name of this node in messages; without it, that of the engine.
    pub(crate) host: Option<String>,
    /// Milliseconds that a connection may take to be made, and a write to be taken.
    pub(crate) timeout_ms: u64,
    /// Milliseconds between two tries to connect, at most.
    pub(crate) max_back_off_ms: u64,
    /// Milliseconds that what waits is still sent for at an orderly end.
    pub(crate) drain_timeout_ms: u64,
}

/// How a syslog server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyslogTransport {
    /// TLS.
    #[default]
    Tls,
    /// Plain TCP, to this machine alone.
    Tcp,
}

/// What happens when the queue to a syslog server is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyslogPolicy {
    /// Requests wait, and are refused then.
    #[default]
    Block,
    /// Lines are not sent, and their chain says so.
    Shed,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        let theirs = Config::new("", Transport::Tcp);
        let ms = |duration: Duration| duration.as_millis() as u64;
        Self {
            address: String::new(),
            transport: SyslogTransport::Tls,
            ca_file: None,
            server_name: None,
            cert_file: None,
            key_file: None,
            policy: SyslogPolicy::Block,
            queue_bytes: theirs.queue_bytes,
            block_timeout_ms: ms(theirs.block_timeout),
            max_message_bytes: theirs.max_message_bytes,
            facility: theirs.facility.number(),
            enterprise: theirs.enterprise,
            host: None,
            timeout_ms: ms(theirs.timeout),
            max_back_off_ms: ms(theirs.max_back_off),
            drain_timeout_ms: ms(theirs.drain_timeout),
        }
    }
}

impl SyslogConfig {
    /// Returns the plugin's own options.
    pub(crate) fn options(&self, node: &str) -> Result<Config> {
        let transport = match (self.transport, &self.ca_file) {
            (SyslogTransport::Tcp, _) => Transport::Tcp,
            (SyslogTransport::Tls, None) => {
                return Err(Failure::new("audit.syslog.ca_file is not set")
                    .next("name the certificates that the syslog server's is checked against"));
            }
            (SyslogTransport::Tls, Some(ca_file)) => Transport::Tls(Tls {
                ca_file: ca_file.clone(),
                server_name: self.server_name.clone(),
                cert_file: self.cert_file.clone(),
                key_file: self.key_file.clone(),
            }),
        };
        let facility = Facility::new(self.facility)
            .ok_or_else(|| Failure::new("audit.syslog.facility is none of 0 to 23"))?;
        Ok(Config {
            policy: match self.policy {
                SyslogPolicy::Block => Policy::Block,
                SyslogPolicy::Shed => Policy::Shed,
            },
            queue_bytes: self.queue_bytes,
            block_timeout: Duration::from_millis(self.block_timeout_ms),
            max_message_bytes: self.max_message_bytes,
            facility,
            enterprise: self.enterprise,
            host: self.host.clone().unwrap_or_else(|| node.to_owned()),
            timeout: Duration::from_millis(self.timeout_ms),
            max_back_off: Duration::from_millis(self.max_back_off_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            ..Config::new(self.address.clone(), transport)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_over_tls_needs_somebody_to_trust() {
        let config = SyslogConfig { address: "h:6514".into(), ..SyslogConfig::default() };
        assert!(config.options("n").unwrap_err().to_string().contains("ca_file"));
        let config = SyslogConfig { ca_file: Some("c".into()), ..config };
        let options = config.options("n").unwrap();
        assert_eq!((&*options.host, options.policy), ("n", Policy::Block));
        assert!(SyslogConfig { facility: 24, ..config }.options("n").is_err());
    }
}
