//! The proof over HTTP (RFC 8555 §8.3).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use keymill_core::acme::{ChallengeKind, Outcome, Problem, ProblemKind};
use keymill_core::certificate::AltName;
use keymill_core::seam::validator::{Proof, Validator};

use crate::reach::Reach;
use crate::resolver::Resolver;

/// Bytes of an answer: a key authorization has 87, and white space may follow.
const ANSWER_BYTES: u64 = 1_024;
/// Bytes of the head of an answer.
const HEAD_BYTES: usize = 16 << 10;

/// Looks for a file.
pub(crate) struct Http01 {
    resolver: Resolver,
    reach: Reach,
    port: u16,
    agent: ureq::Agent,
}

impl Http01 {
    pub(crate) fn new(resolver: Resolver, reach: Reach, port: u16) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Where it goes is said by whoever orders, but for the path and the port.
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(0)
            .max_response_header_size(HEAD_BYTES)
            .user_agent("keymill")
            .build()
            .new_agent();
        Self { resolver, reach, port, agent }
    }

    /// Returns where to go, and the host that is asked for.
    fn addresses(&self, proof: &Proof<'_>) -> Outcome<(Vec<IpAddr>, String)> {
        let (found, host) = match proof.name {
            AltName::Dns(name) if !name.starts_with("*.") => {
                (self.resolver.addresses(name, proof.deadline)?, name.clone())
            }
            // RFC 8738 §4, with the brackets of RFC 9110 §7.2.
            AltName::Ip(IpAddr::V4(v4)) => (vec![(*v4).into()], v4.to_string()),
            AltName::Ip(IpAddr::V6(v6)) => (vec![(*v6).into()], format!("[{v6}]")),
            _ => return Err(Problem::new(ProblemKind::Malformed, "HTTP shows no such name held")),
        };
        let count = found.len();
        let within: Vec<_> = found.into_iter().filter(|address| self.reach.has(*address)).collect();
        match within.is_empty() {
            false => Ok((within, host)),
            true => {
                let why = format!("none of the {count} addresses of {host} may be reached from here");
                Err(Problem::new(ProblemKind::Connection, why))
            }
        }
    }

    /// Asks at an address; `None` where nobody is there.
    fn ask(&self, at: SocketAddr, host: &str, proof: &Proof<'_>) -> Option<Outcome<()>> {
        let left = proof.deadline.saturating_duration_since(Instant::now());
        let answer = self
            .agent
            .get(format!("http://{at}/.well-known/acme-challenge/{}", proof.token))
            .config()
            // None would be for ever.
            .timeout_global(Some(left.max(Duration::from_millis(1))))
            .build()
            .header("host", host)
            .call();
        let incorrect = |why: String| Some(Err(Problem::new(ProblemKind::IncorrectResponse, why)));
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::Timeout(_)) => return None,
            Err(_) => return incorrect(format!("{host} does not speak HTTP")),
        };
        match answer.status().as_u16() {
            200 => {}
            status @ 300..=399 => {
                return incorrect(format!("{host} answered {status}, and redirects are not followed"));
            }
            status => return incorrect(format!("{host} answered {status}")),
        }
        match answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec() {
            // RFC 8555 §8.3: white space at the end does not count.
            Ok(body) if body.trim_ascii_end() == proof.key_authorization().as_bytes() => Some(Ok(())),
            Ok(_) => incorrect(format!("{host} answered another text than the key authorization")),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                incorrect(format!("{host} answered more than {ANSWER_BYTES} bytes"))
            }
            Err(_) => None,
        }
    }
}

impl Validator for Http01 {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    fn check(&self, proof: &Proof<'_>) -> Outcome<()> {
        let (addresses, host) = self.addresses(proof)?;
        for address in addresses {
            if let Some(found) = self.ask(SocketAddr::new(address, self.port), &host, proof) {
                return found;
            }
        }
        let why = format!("{host} is not reached on port {}, or does not answer in time", self.port);
        Err(Problem::new(ProblemKind::Connection, why))
    }
}
