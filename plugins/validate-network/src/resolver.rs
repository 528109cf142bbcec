//! Whom names are asked of: resolvers that the operator names, over TCP, or the system.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use keymill_core::acme::{Outcome, Problem, ProblemKind};

use crate::dns::{self, Fault, Kind};

/// How long one of several resolvers may take.
const EACH_TAKES: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;

/// Asks for names.
#[derive(Clone)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// Tells whether it asks the DNS itself.
    pub(crate) fn asks_dns(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Returns addresses of a name: of IPv6 first, as RFC 6724 has it where both are there.
    pub(crate) fn addresses(&self, name: &str, deadline: Instant) -> Outcome<Vec<IpAddr>> {
        let mut addresses = match self.asks_dns() {
            true => self.by_dns(name, deadline)?,
            false => by_system(name)?,
        };
        addresses.truncate(ADDRESSES);
        match addresses.is_empty() {
            true => Err(told(format!("{name} has no address"))),
            false => Ok(addresses),
        }
    }

    fn by_dns(&self, name: &str, deadline: Instant) -> Outcome<Vec<IpAddr>> {
        let six = self.ask(name, Kind::Aaaa, deadline)?;
        let four = self.ask(name, Kind::A, deadline)?;
        let six = six.iter().filter_map(|data| <[u8; 16]>::try_from(&data[..]).ok());
        let four = four.iter().filter_map(|data| <[u8; 4]>::try_from(&data[..]).ok());
        Ok(six
            .map(|six| Ipv6Addr::from(six).into())
            .chain(four.map(|four| Ipv4Addr::from(four).into()))
            .collect())
    }

    /// Returns the texts of a name.
    pub(crate) fn texts(&self, name: &str, deadline: Instant) -> Outcome<Vec<Vec<u8>>> {
        let texts = self.ask(name, Kind::Txt, deadline)?;
        Ok(texts.iter().filter_map(|data| dns::text(data)).collect())
    }

    /// Asks one server after the other, until one answers.
    fn ask(&self, name: &str, kind: Kind, deadline: Instant) -> Outcome<Vec<Vec<u8>>> {
        let mut failed = told("there is no resolver");
        for server in &self.servers {
            match exchange(*server, name, kind, deadline.min(Instant::now() + EACH_TAKES)) {
                Ok(records) => return Ok(records),
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }
}

/// Asks the system, for the name as it is: a point behind it keeps the search list away. How long that takes is the system's to say.
fn by_system(name: &str) -> Outcome<Vec<IpAddr>> {
    let found = (format!("{name}."), 0).to_socket_addrs();
    let found = found.map_err(|_| told(format!("{name} is not known to the system's resolver")))?;
    Ok(found.map(|address| address.ip()).collect())
}

fn exchange(server: SocketAddr, name: &str, kind: Kind, deadline: Instant) -> Outcome<Vec<Vec<u8>>> {
    let mut id = [0; 2];
    rand::fill(&mut id).map_err(|_| told("the system gives no random bytes"))?;
    let id = u16::from_be_bytes(id);
    let question =
        dns::question(id, name, kind).ok_or_else(|| told("the name is too long to be asked for"))?;
    let message = over_tcp(server, &question, deadline).map_err(|error| {
        told(match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "the resolver did not answer in time".to_owned(),
            kind => format!("the resolver is not reached: {kind}"),
        })
    })?;
    match dns::answer(&message, id, name, kind) {
        Ok(records) => Ok(records.into_iter().map(<[u8]>::to_vec).collect()),
        Err(Fault::Refused(code)) => Err(told(format!("the resolver answered {name} with code {code}"))),
        Err(Fault::Malformed) => Err(told("the resolver's answer is none to what was asked")),
    }
}

/// Sends a message and receives one, a length before each (RFC 1035 §4.2.2).
fn over_tcp(server: SocketAddr, message: &[u8], deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let length = (message.len() as u16).to_be_bytes();
    stream.write_all(&[&length, message].concat())?;
    let mut length = [0; 2];
    read_by(&mut stream, &mut length, deadline)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    read_by(&mut stream, &mut answer, deadline)?;
    Ok(answer)
}

/// Fills a buffer; a server that sends a byte now and then does not put the deadline off.
fn read_by(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> std::io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = &mut buffer[read..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn told(why: impl AsRef<str>) -> Problem {
    Problem::new(ProblemKind::Dns, why)
}
