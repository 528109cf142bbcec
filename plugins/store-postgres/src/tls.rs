//! TLS to the servers, by rustls: trust in the CA that was named for them, and in no other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;

use crate::config::Tls;
use crate::error::OpenError;

/// Makes connections secure.
#[derive(Clone)]
pub(crate) struct Security {
    config: Arc<ClientConfig>,
    /// The name in every certificate, where it is not that of the host.
    name: Option<ServerName<'static>>,
}

impl Security {
    /// Reads the certificates.
    pub(crate) fn prepare(tls: &Tls) -> Result<Self, OpenError> {
        let shown = tls.ca_file.display();
        let odd = |why: String| OpenError::Options(format!("{shown}: {why}"));
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(&tls.ca_file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| odd(error.to_string()))?;
        for certificate in certificates {
            roots.add(certificate).map_err(|error| odd(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(odd("there is no certificate in it".into()));
        }
        let name = tls.server_name.as_deref().map(name).transpose()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| OpenError::Options(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), name })
    }
}

/// Reads a name of a host.
pub(crate) fn name(text: &str) -> Result<ServerName<'static>, OpenError> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| OpenError::Options(format!("{text:?} is no name of a host")))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Security {
    type Stream = Secured<S>;
    type TlsConnect = Handshake;
    type Error = OpenError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, OpenError> {
        let name = self.name.clone().map_or_else(|| name(host), Ok)?;
        Ok(Handshake { connector: self.config.clone().into(), name })
    }
}

/// A handshake that is to be made.
pub(crate) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Secured) })
    }
}

/// A secured connection.
pub(crate) struct Secured<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Secured<S> {
    /// The CA was named for these servers alone, which says as much.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_takes_certificates_that_are_there_and_a_name() {
        let absent = Tls { ca_file: "/nowhere/ca.pem".into(), server_name: None };
        assert!(Security::prepare(&absent).is_err());
        assert!(name("db.example.com").is_ok() && name("192.0.2.1").is_ok() && name("no host").is_err());
    }
}
