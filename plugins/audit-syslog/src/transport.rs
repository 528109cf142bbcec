//! The connection to the server: TLS, or plain TCP to this machine alone.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::{Config, Tls, Transport};

/// How connections are made.
pub(crate) struct Way {
    address: String,
    timeout: Duration,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Way {
    /// Reads what connections need; nothing is connected yet.
    pub(crate) fn prepare(config: &Config) -> Result<Self, String> {
        let Config { address, transport, timeout, .. } = config;
        let host =
            address.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let (host, _) = host.ok_or_else(|| format!("the syslog server {address} is not HOST:PORT"))?;
        let tls = match transport {
            Transport::Tcp => None,
            Transport::Tls(tls) => {
                let name = tls.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|_| format!("the name {name} of the syslog server is none of a host"))?;
                Some((Arc::new(client(tls)?), name))
            }
        };
        let way = Self { address: address.clone(), timeout: *timeout, tls };
        // A name that does not resolve yet may do so later; one that leads elsewhere is refused at once.
        if let Ok(mut addresses) = way.address.to_socket_addrs() {
            addresses.try_for_each(|address| way.check(address)).map_err(|error| error.to_string())?;
        }
        Ok(way)
    }

    fn check(&self, address: SocketAddr) -> io::Result<()> {
        match self.tls.is_some() || address.ip().is_loopback() {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{address} is not this machine: audit lines leave it over TLS alone"),
            )),
        }
    }

    /// Connects, and shakes hands.
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            self.check(address)?;
            match self.connect_to(address) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_to(&self, address: SocketAddr) -> io::Result<Connection> {
        let tcp = TcpStream::connect_timeout(&address, self.timeout)?;
        tcp.set_read_timeout(Some(self.timeout))?;
        tcp.set_write_timeout(Some(self.timeout))?;
        tcp.set_nodelay(true)?;
        let Some((config, name)) = &self.tls else { return Ok(Connection::Tcp(tcp)) };
        let mut session = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        let mut tcp = tcp;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Connection::Tls(Box::new(StreamOwned::new(session, tcp))))
    }
}

fn client(tls: &Tls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", tls.ca_file.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match (&tls.cert_file, &tls.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let shown = key.display();
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{shown}: {error}"))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|error| format!("{shown}: {error}"))
        }
        _ => Err("a client certificate of the syslog sink takes both a certificate and a key".into()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))?.collect();
    match all.map_err(|e| failed(&e))? {
        none if none.is_empty() => Err(failed(&"there is no certificate in it")),
        some => Ok(some),
    }
}

/// A connection to the server.
pub(crate) enum Connection {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Writes all of it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Connection::Tcp(tcp) => tcp.write_all(bytes),
            Connection::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Tells whether the server has hung up: the first write after that would seem to go well.
    pub(crate) fn has_ended(&mut self) -> bool {
        let tcp = match self {
            Connection::Tcp(tcp) => &*tcp,
            Connection::Tls(tls) => &tls.sock,
        };
        if tcp.set_nonblocking(true).is_err() {
            return true;
        }
        let has_ended = match self {
            Connection::Tcp(tcp) => match tcp.peek(&mut [0]) {
                Ok(bytes) => bytes == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            },
            Connection::Tls(tls) => {
                let StreamOwned { conn, sock } = &mut **tls;
                loop {
                    match conn.read_tls(sock) {
                        Ok(0) => break true,
                        Ok(_) => match conn.process_new_packets() {
                            Ok(state) if !state.peer_has_closed() => {}
                            _ => break true,
                        },
                        Err(error) => break error.kind() != ErrorKind::WouldBlock,
                    }
                }
            }
        };
        let tcp = match self {
            Connection::Tcp(tcp) => &*tcp,
            Connection::Tls(tls) => &tls.sock,
        };
        tcp.set_nonblocking(false).is_err() || has_ended
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self) {
        if let Connection::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _gone = tls.flush();
        }
    }
}
