//! The way to a server: TLS, or plain to this machine alone.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use keymill_core::seam::rotator::RotationFault;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{Domain, SockAddr, Type};

use crate::wire::{Socket, Wire, lost};
use crate::{Config, OpenError, Place, Tls};

/// How connections are made.
pub struct Way {
    place: Place,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Way {
    /// Reads what connections need; nothing is connected yet.
    ///
    /// # Errors
    /// [`OpenError`] for a certificate that cannot be read, a name that is none, and a server elsewhere without TLS.
    pub fn prepare(config: &Config) -> Result<Self, OpenError> {
        let tls = match (&config.tls, &config.place) {
            (None, _) => None,
            (Some(_), Place::Socket(_)) => {
                return Err(OpenError::new("TLS is for a host: a socket does not leave this machine"));
            }
            (Some(tls), Place::Tcp { host, .. }) => {
                let name = tls.server_name.as_deref().unwrap_or(host);
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|_| OpenError::new(format!("{name:?} is no name of a host")))?;
                Some((Arc::new(client(tls)?), name))
            }
        };
        let way = Self { place: config.place.clone(), tls };
        // Where a name leads is looked at each time that it is followed.
        match &way.place {
            Place::Tcp { host, .. } => match host.parse() {
                Ok(address) => way.check(address).map_err(|error| OpenError::new(error.to_string()))?,
                Err(_) if way.tls.is_some() || host == "localhost" => {}
                Err(_) => {
                    return Err(OpenError::new(format!(
                        "{host:?} may be another machine: passwords go there over TLS alone"
                    )));
                }
            },
            Place::Socket(_) => {}
        }
        Ok(way)
    }

    fn check(&self, address: IpAddr) -> io::Result<()> {
        match self.tls.is_some() || address.is_loopback() {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{address} is not this machine: passwords leave it over TLS alone"),
            )),
        }
    }

    /// Tells whether a connection is to be secured.
    pub fn wants_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects; nothing is secured yet, since databases talk before they do so.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn connect(&self, until: Instant) -> Result<Wire, RotationFault> {
        let socket = match &self.place {
            Place::Tcp { host, port } => self.connect_to(host, *port, until).map(Socket::Tcp),
            Place::Socket(path) => connect_at(path, until).map(Socket::Unix),
        };
        socket.map(|socket| Wire::plain(socket, until)).map_err(|error| lost(&error))
    }

    fn connect_to(&self, host: &str, port: u16, until: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        let all = addresses(host, port, until)?;
        for (i, address) in all.iter().enumerate() {
            self.check(address.ip())?;
            // One that does not answer leaves time for the others.
            let share = left(until)? / (all.len() - i).try_into().unwrap_or(u32::MAX);
            match TcpStream::connect_timeout(address, share) {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return Ok(tcp);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Secures a connection, where that is wanted.
    ///
    /// # Errors
    /// `Unreachable`, also where whoever answers is not the server.
    pub fn secure(&self, wire: Wire) -> Result<Wire, RotationFault> {
        let Some((config, name)) = &self.tls else { return Ok(wire) };
        ClientConnection::new(config.clone(), name.clone())
            .map_err(io::Error::other)
            .and_then(|session| wire.secured(session))
            .map_err(|error| lost(&error))
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left).ok_or_else(|| ErrorKind::TimedOut.into())
}

/// Looks a name up. The system's resolver has time-outs of its own, so that it is left to itself where it takes longer than we have.
fn addresses(host: &str, port: u16, until: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (found, finding) = sync_channel(1);
    let host = host.to_owned();
    std::thread::Builder::new().name("km-resolve".into()).spawn(move || {
        let _nobody_waits = found.send((host.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    })?;
    finding.recv_timeout(left(until)?).map_err(|_| io::Error::from(ErrorKind::TimedOut))?
}

/// Connects to a socket. Unlike std's way it does not wait for a server that takes nobody in.
fn connect_at(path: &Path, until: Instant) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, left(until)?)?;
    Ok(OwnedFd::from(socket).into())
}

fn client(tls: &Tls) -> Result<ClientConfig, OpenError> {
    let shown = tls.ca_file.display();
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&tls.ca_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| OpenError::new(format!("{shown}: {error}")))?;
    for certificate in certificates {
        roots.add(certificate).map_err(|error| OpenError::new(format!("{shown}: {error}")))?;
    }
    if roots.is_empty() {
        return Err(OpenError::new(format!("{shown}: there is no certificate in it")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| OpenError::new(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use keymill_core::seam::rotator::RotationFaultKind;

    use super::*;

    fn at(host: &str, port: u16) -> Config {
        Config::new(Place::Tcp { host: host.into(), port }, ["app"])
    }

    #[test]
    fn a_server_elsewhere_takes_tls() {
        for elsewhere in ["192.0.2.1", "db.example.com", "localhost.example.com", ""] {
            let why = Way::prepare(&at(elsewhere, 5432)).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains("TLS"), "{why}");
        }
        assert!(Way::prepare(&at("127.0.0.1", 5432)).is_ok() && Way::prepare(&at("::1", 5432)).is_ok());
    }

    #[test]
    fn tls_takes_certificates_that_are_there_and_a_name() {
        let tls = Some(Tls { ca_file: "/nowhere/ca.pem".into(), server_name: None });
        assert!(Way::prepare(&Config { tls: tls.clone(), ..at("localhost", 1) }).is_err());
        assert!(Way::prepare(&Config { tls: tls.clone(), ..at("no host", 1) }).is_err());
        let socket = Config::new(Place::Socket("/run/s".into()), ["app"]);
        assert!(Way::prepare(&Config { tls, ..socket }).is_err());
    }

    #[test]
    fn a_server_that_says_nothing_is_left_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way::prepare(&at("localhost", listener.local_addr().unwrap().port())).unwrap();
        let mut wire = way.connect(Instant::now() + Duration::from_millis(50)).unwrap();
        let fault = wire.read(&mut [0; 1]).unwrap_err();
        assert_eq!(fault.kind, RotationFaultKind::Unreachable);
        assert!(fault.why.contains("in time"), "{fault}");
        assert!(wire.write(b"late").is_err() && !wire.is_hidden() && wire.left().is_zero());
        // Nothing was sent that nobody asked for.
        drop(wire);
        let mut sent = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut sent).unwrap();
        assert!(sent.is_empty());
    }

    #[test]
    fn a_server_that_is_not_there_is_unreachable() {
        let folder = std::env::temp_dir().join("keymill-no-such-socket");
        let way = Way::prepare(&Config::new(Place::Socket(folder), ["app"])).unwrap();
        let fault = way.connect(Instant::now() + Duration::from_secs(5)).map(|_| ()).unwrap_err();
        assert_eq!(fault.kind, RotationFaultKind::Unreachable);
    }
}
