//! The TLS handshake in front of a connection. Until it is over, a stranger holds a socket and some kilobytes.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keymill_core::error::ErrorKind;
use keymill_core::seam::auth::PeerCertificate;
use keymill_runtime::Gate;
use keymill_runtime::metrics::Handshake;
use keymill_tls::{ServerTls, read_peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::came::Came;
use crate::line::Line;

/// How long an alert may wait to be read: unread bytes would make the system reset the connection, and the alert be lost.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that may be spoken on.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub line: Line,
    /// Who is at its other end, where a certificate was shown and verified.
    pub peer: Option<Arc<PeerCertificate>>,
    /// How it came in.
    pub came: Came,
}

impl Secured {
    /// Returns the 32 bytes that the channel exports under `label`; nothing without TLS.
    ///
    /// # Errors
    /// Where rustls has none.
    pub fn exporter(&self, label: &[u8]) -> io::Result<Option<[u8; 32]>> {
        match &self.line {
            Line::Plain(_) => Ok(None),
            Line::Tls(stream) => {
                let exported = stream.get_ref().1.export_keying_material([0; 32], label, None);
                exported.map(Some).map_err(io::Error::other)
            }
        }
    }
}

/// Shakes hands, where there is TLS; `None` where that fails, which is counted and told to the other side.
pub async fn secure(
    stream: TcpStream,
    tls: Option<&ServerTls>,
    frontend: &'static str,
    gate: &Gate,
    source: Option<IpAddr>,
) -> Option<Secured> {
    let came = Came { local: stream.local_addr().ok(), server_name: None, source };
    let Some(tls) = tls else { return Some(Secured { line: Line::Plain(stream), peer: None, came }) };
    let counted = |outcome| gate.metrics().tls.shaken(frontend, outcome);
    let Some(config) = tls.config() else {
        counted(Handshake::Gone);
        return None;
    };
    let shaking = TlsAcceptor::from(config).accept(stream).into_fallible();
    let refused = match tokio::time::timeout(tls.options().handshake_timeout, shaking).await {
        Err(_late) => {
            counted(Handshake::Timeout);
            return None;
        }
        Ok(Ok(stream)) => match peer_of(&stream) {
            Ok(peer) => {
                counted(Handshake::Ok);
                let server_name = stream.get_ref().1.server_name().map(Into::into);
                let came = Came { server_name, ..came };
                return Some(Secured { line: Line::Tls(Box::new(stream)), peer, came });
            }
            Err(why) => {
                tracing::warn!(frontend, %why, "a client certificate was refused");
                gate.refused_stranger(ErrorKind::UnsupportedAuthentication, source);
                stream.into_inner().0
            }
        },
        Ok(Err((error, stream))) => {
            tracing::debug!(frontend, %error, "a TLS handshake failed");
            match judge(&error) {
                Failed::Gone => {
                    counted(Handshake::Gone);
                    return None;
                }
                Failed::Refused(kind) => gate.refused_stranger(kind, source),
            }
            stream
        }
    };
    counted(Handshake::Refused);
    linger(refused).await;
    None
}

fn peer_of(
    stream: &tokio_rustls::server::TlsStream<TcpStream>,
) -> Result<Option<Arc<PeerCertificate>>, keymill_tls::TlsError> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    shown.map(|certificate| read_peer(certificate).map(Arc::new)).transpose()
}

/// Why there is no channel.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// The other side went away.
    Gone,
    /// We refused, or were refused.
    Refused(ErrorKind),
}

fn judge(error: &io::Error) -> Failed {
    use rustls::Error::*;
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        None => Failed::Gone,
        // Whoever does not like our certificate says so, and is no stranger who was refused.
        Some(AlertReceived(_)) => Failed::Gone,
        Some(InvalidCertificate(_) | NoCertificatesPresented | InvalidCertRevocationList(_)) => {
            Failed::Refused(ErrorKind::UnsupportedAuthentication)
        }
        Some(_) => Failed::Refused(ErrorKind::MalformedRequest),
    }
}

/// Closes so that the other side can read the alert.
async fn linger(mut stream: TcpStream) {
    let _gone = stream.shutdown().await;
    let mut waste = [0; 4096];
    let _late = tokio::time::timeout(LINGER, async {
        while matches!(stream.read(&mut waste).await, Ok(n) if n > 0) {}
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError, InvalidMessage};

    #[test]
    fn who_went_away_is_told_from_who_was_refused() {
        let of = |error: rustls::Error| judge(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(judge(&io::ErrorKind::UnexpectedEof.into()), Failed::Gone);
        assert_eq!(of(rustls::Error::AlertReceived(AlertDescription::UnknownCA)), Failed::Gone);
        let certificate = Failed::Refused(ErrorKind::UnsupportedAuthentication);
        assert_eq!(of(CertificateError::Revoked.into()), certificate);
        assert_eq!(of(rustls::Error::NoCertificatesPresented), certificate);
        let plain = Failed::Refused(ErrorKind::MalformedRequest);
        assert_eq!(of(InvalidMessage::InvalidContentType.into()), plain);
    }
}
