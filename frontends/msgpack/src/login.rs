//! The login: challenge, hello, welcome, all within ten seconds of the accept and in frames of at most 16 KiB.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::RequestId;
use keymill_core::seam::auth::{AccessKeyMac, Credential, PeerCertificate};
use keymill_runtime::Gate;
use keymill_wire::frame::{self, Fault, LENGTH_BYTES, MAX_HELLO_BYTES};
use keymill_wire::hello::{self, Auth, Challenge, Welcome};
use keymill_wire::response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a login is made over.
pub(crate) struct Channel {
    /// Where the client is.
    pub(crate) source: Option<IpAddr>,
    /// What ties a login to its TLS channel; nothing without one.
    pub(crate) exporter: Option<[u8; 32]>,
    /// Whom the client's TLS certificate names, where it was shown and verified.
    pub(crate) peer: Option<Arc<PeerCertificate>>,
}

/// Why there is no login.
pub(crate) enum NoLogin {
    /// The client was told: the last bytes to send.
    Refused(Vec<u8>),
    /// The connection is gone.
    Gone,
}

impl From<std::io::Error> for NoLogin {
    fn from(_: std::io::Error) -> Self {
        NoLogin::Gone
    }
}

/// Greets the client and finds out who it is; what it sent after its hello stays in `buffer`.
pub(crate) async fn log_in<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    read: &mut R,
    write: &mut W,
    buffer: &mut BytesMut,
    gate: &Gate,
    channel: &Channel,
) -> Result<Principal, NoLogin> {
    let request_id = gate.request_id();
    let fatal = |error: Error| {
        let mut out = Vec::new();
        response::encode_error(0, &error, request_id, &mut out);
        NoLogin::Refused(out)
    };
    let nonce = gate.challenge().map_err(fatal)?;
    let challenge = Challenge {
        nonce,
        server: concat!("keymill ", env!("CARGO_PKG_VERSION")).into(),
        max_frame: gate.max_frame_bytes() as u64,
        max_in_flight: gate.max_in_flight() as u64,
    };
    let mut out = Vec::with_capacity(256);
    hello::encode_challenge(&challenge, &mut out);
    write.write_all(&out).await?;
    write.flush().await?;

    let length = loop {
        if let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() {
            let length = frame::length(*prefix, MAX_HELLO_BYTES)
                .map_err(|fault| faulty(gate, channel.source, fault, request_id))?;
            if buffer.len() >= LENGTH_BYTES + length {
                break length;
            }
        }
        buffer.reserve(1024);
        if read.read_buf(buffer).await? == 0 {
            return Err(NoLogin::Gone);
        }
    };
    buffer.advance(LENGTH_BYTES);
    let frame = buffer.split_to(length);
    let principal = check(gate, &frame, &nonce, channel).map_err(fatal)?;
    gate.logged_in(principal.access_key.as_str(), channel.source);
    out.clear();
    hello::encode_welcome(&Welcome { principal: principal.to_string() }, &mut out);
    write.write_all(&out).await?;
    write.flush().await?;
    Ok(principal)
}

fn faulty(gate: &Gate, source: Option<IpAddr>, fault: Fault, request_id: RequestId) -> NoLogin {
    gate.refused_stranger(ErrorKind::MalformedRequest, source);
    let mut out = Vec::new();
    response::encode_fault(fault, request_id, &mut out);
    NoLogin::Refused(out)
}

fn check(gate: &Gate, frame: &[u8], nonce: &[u8; 32], channel: &Channel) -> Result<Principal, Error> {
    let source = channel.source;
    let refused = |error: Error| {
        gate.refused_stranger(error.kind(), source);
        error
    };
    let hello = hello::decode_hello(frame).map_err(refused)?;
    // Loopback without TLS has no exporter.
    let exporter = channel.exporter.as_ref().map_or(&[][..], |exported| exported);
    match &hello.auth {
        Auth::AccessKey { id, signature } => {
            let signed = hello::signed_bytes(nonce, id, exporter);
            let offered = Credential::AccessKey { id, mac: AccessKeyMac::HmacSha256, signature };
            gate.authenticate("access-key", &offered, &[&signed], source).map_err(blind)
        }
        Auth::ClientKey { id, signature } => {
            let signed = hello::signed_bytes(nonce, id, exporter);
            let offered = Credential::ClientKey { id, signature };
            gate.authenticate("client-key", &offered, &[&signed], source).map_err(blind)
        }
        Auth::Token { token, signature } => {
            let signed = hello::signed_bytes(nonce, token, exporter);
            gate.authenticate_token(token, signature, &signed, source).map_err(blind)
        }
        Auth::Certificate => match &channel.peer {
            Some(peer) => gate
                .authenticate("certificate", &Credential::Certificate(peer), &[&[]], source)
                .map_err(blind),
            None => {
                let why = "no client certificate was shown on this channel";
                Err(refused(Error::new(ErrorKind::UnsupportedAuthentication, why)))
            }
        },
    }
}

/// Does not tell whoever guesses which half was wrong.
fn blind(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AccessKeyUnknown | ErrorKind::SignatureMismatch => {
            let why = "no access key, client key, token or certificate is known by what was shown";
            Error::new(ErrorKind::SignatureMismatch, why)
        }
        _ => error,
    }
}
