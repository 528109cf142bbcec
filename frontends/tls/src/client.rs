//! The TLS of a client: 1.3 alone, a server that a named CA vouches for by its name (RFC 9525), and by choice a certificate of its own.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use keymill_core::Sensitive;
use rustls::crypto::CryptoProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::channel::{ReadHalf, WriteHalf, halves};
use crate::error::TlsError;
use crate::provider::provider;
use crate::server::ReadKey;
use crate::{files, pem};

/// Options of the TLS of a client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The CAs that vouch for servers, in PEM.
    pub ca: PathBuf,
    /// A chain of one's own, in PEM, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How the file of that key is read.
    pub read_key: ReadKey,
}

/// The TLS of a client; clones share it.
#[derive(Clone)]
pub struct ClientTls(Arc<Shared>);

struct Shared {
    config: Arc<ClientConfig>,
    roots: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

/// A chain, and the text of its private key in PEM.
type Identity = (Vec<CertificateDer<'static>>, Sensitive);

impl ClientTls {
    /// Reads the files; `alpn` names the protocol that is spoken inside.
    ///
    /// # Errors
    /// [`TlsError`] with the file that is wrong.
    pub fn open(options: &ClientOptions, alpn: &[u8]) -> Result<Self, TlsError> {
        let at = || TlsError::because(options.ca.display());
        let text = files::read(&options.ca)?;
        let mut roots = RootCertStore::empty();
        pem::trust(&text, &mut roots).map_err(at())?;
        let identity = match &options.identity {
            None => None,
            Some((certificate, key)) => {
                let chain = pem::chain(&files::read(certificate)?)
                    .map_err(TlsError::because(certificate.display()))?;
                let text = (options.read_key)(key).map_err(TlsError::new)?;
                let text = text.ok_or_else(|| TlsError::new(format!("{} does not exist", key.display())))?;
                Some((chain, text))
            }
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::because("TLS"))?
            .with_root_certificates(roots);
        const IDENTITY: &str = "the client's certificate and key";
        let mut config = match &identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(
                    chain.clone(),
                    pem::key(key.expose()).map_err(TlsError::because(IDENTITY))?,
                )
                .map_err(TlsError::because(IDENTITY))?,
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let roots = pem::certificates(&text).map_err(at())?;
        Ok(Self(Arc::new(Shared { config: Arc::new(config), roots, identity })))
    }

    /// Shakes hands over a connection that was just made, and returns its halves and the 32 bytes that the channel exports under `label`.
    ///
    /// # Errors
    /// For a host that is no name, and where the server is not the one that is asked for, or does not take us.
    pub fn connect(
        &self,
        socket: TcpStream,
        host: &str,
        label: &[u8],
    ) -> io::Result<(ReadHalf, WriteHalf, [u8; 32])> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no name of a host"))
        })?;
        let mut session = ClientConnection::new(self.0.config.clone(), name).map_err(io::Error::other)?;
        let mut shaken = &socket;
        while session.is_handshaking() {
            session.complete_io(&mut shaken)?;
        }
        let exported = session.export_keying_material([0; 32], label, None).map_err(io::Error::other)?;
        let (read, write) = halves(socket, session)?;
        Ok((read, write, exported))
    }

    /// Returns the CAs, for another user of rustls.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.0.roots
    }

    /// Returns the chain of one's own and its key in PEM, for another user of rustls.
    pub fn identity(&self) -> Option<(&[CertificateDer<'static>], &Sensitive)> {
        self.0.identity.as_ref().map(|(chain, key)| (&chain[..], key))
    }

    /// Returns what rustls computes with, for another user of it.
    pub fn provider(&self) -> Arc<CryptoProvider> {
        self.0.config.crypto_provider().clone()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.0.identity.is_some() { ", with a certificate" } else { "" };
        write!(f, "ClientTls({} CAs{with})", self.0.roots.len())
    }
}
