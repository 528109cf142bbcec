//! Ceilings *bare loop* and *echo*: a MessagePack TCP server of few lines, a blocking thread a connection. It
//! handles every complete frame of a read and answers them with one write. No policy, audit, limits or error
//! answers: what it does not know ends the connection. The protocol is version 1 of keymill's.

use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ::aws_lc_rs::aead::LessSafeKey;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::answer::{self, Answerer};
use crate::pack::Output;
use crate::raw;

/// The protocol as ALPN names it.
const ALPN: &[u8] = b"keymill/1";

/// Whether the items of a request are sealed or only copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The bare loop: AES-256-GCM with one cached key.
    Seal,
    /// Echo: the same frames of the same length, no cryptography.
    Echo,
}

/// A running bare loop on a loopback port; dropping it closes its connections and joins its threads.
pub struct BareLoop {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl BareLoop {
    /// Starts a bare loop on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If the port cannot be bound or the thread not be started.
    pub fn start(mode: Mode) -> io::Result<Self> {
        Self::start_over(mode, Transport::Plain)
    }

    /// Starts a bare loop over TLS 1.3, with a certificate and its key in DER (PKCS #8).
    ///
    /// # Errors
    /// As [`start`](Self::start), and for what is no certificate with its key.
    pub fn start_tls(mode: Mode, certificate: &[u8], key: &[u8]) -> io::Result<Self> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Self::start_over(mode, Transport::Tls(Arc::new(config)))
    }

    fn start_over(mode: Mode, transport: Transport) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let acceptor = std::thread::Builder::new()
            .name("bare-loop".into())
            .spawn(move || accept(&listener, mode, &transport, &stopping))?;
        Ok(Self { addr, stop, acceptor: Some(acceptor) })
    }
}

impl Drop for BareLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the acceptor, which closes the connections it handed out and joins their threads.
        let woken = TcpStream::connect(self.addr);
        if let (Ok(_), Some(acceptor)) = (woken, self.acceptor.take()) {
            drop(acceptor.join());
        }
    }
}

/// What carries the frames.
#[derive(Clone)]
enum Transport {
    Plain,
    Tls(Arc<ServerConfig>),
}

fn accept(listener: &TcpListener, mode: Mode, transport: &Transport, stop: &AtomicBool) {
    let key = Arc::new(raw::fresh_key());
    let mut connections: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    for lane in 0.. {
        let Ok((stream, _)) = listener.accept() else { break };
        if stop.load(Ordering::Acquire) {
            break;
        }
        connections.retain(|(_, thread)| !thread.is_finished());
        let Ok(handle) = stream.try_clone() else { break };
        let (key, transport) = (Arc::clone(&key), transport.clone());
        let thread = std::thread::spawn(move || {
            // An error ends its connection and nobody else's.
            drop(match transport {
                Transport::Plain => stream.set_nodelay(true).and_then(|()| serve(&stream, mode, key, lane)),
                Transport::Tls(config) => serve_tls(&stream, config, mode, key, lane),
            });
            drop(stream.shutdown(Shutdown::Both));
        });
        connections.push((handle, thread));
    }
    for (stream, thread) in connections {
        drop(stream.shutdown(Shutdown::Both));
        drop(thread.join());
    }
}

fn serve_tls(
    stream: &TcpStream,
    config: Arc<ServerConfig>,
    mode: Mode,
    key: Arc<LessSafeKey>,
    lane: u32,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
    // All of a write is sealed before the first record goes out, rather than 64 KiB at a time.
    session.set_buffer_limit(None);
    let wide = Wide { from: BufReader::with_capacity(Input::LEN, stream), to: stream };
    serve(StreamOwned::new(session, wide), mode, key, lane)
}

/// A socket that is read as much at a time as the plain loop reads: the library asks for a record at a time.
struct Wide<'s> {
    from: BufReader<&'s TcpStream>,
    to: &'s TcpStream,
}

impl Read for Wide<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.from.read(into)
    }
}

impl Write for Wide<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.to.write(from)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.to.write_vectored(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serve(mut stream: impl Read + Write, mode: Mode, key: Arc<LessSafeKey>, lane: u32) -> io::Result<()> {
    let mut out = Output::default();
    answer::challenge(&mut out);
    stream.write_all(out.filled())?;
    out.clear();

    let mut input = Input::new();
    let mut answerer = Answerer::new(mode, key, lane);
    let mut welcomed = false;
    while input.fill(&mut stream)? {
        while let Some(frame) = input.frame() {
            if welcomed {
                answerer.answer(frame, &mut out).ok_or(ErrorKind::InvalidData)?;
            } else {
                answer::welcome(&mut out);
                welcomed = true;
            }
        }
        stream.write_all(out.filled())?;
        out.clear();
    }
    Ok(())
}

/// What was read and not yet handled; grows only where one frame does not fit.
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Three frames of 256 × 1 KiB. Less and a read often ends inside a frame; more measured no better.
    const LEN: usize = 1 << 20;

    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; Self::LEN], start: 0, end: 0 }
    }

    /// Reads once, as much as there is and fits; false at the end of the stream.
    pub(crate) fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(2 * self.end, 0);
        }
        let read = stream.read(&mut self.bytes[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }

    /// Takes the next frame that is complete, without its length.
    pub(crate) fn frame(&mut self) -> Option<&[u8]> {
        let (length, rest) = self.bytes[self.start..self.end].split_first_chunk()?;
        let frame = rest.get(..u32::from_be_bytes(*length) as usize)?;
        self.start += 4 + frame.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::Reader;
    use crate::{RawClient, Request};

    /// The `Items` of an answer to a batch operation.
    fn items(frame: &[u8]) -> Vec<Vec<u8>> {
        let mut answer = Reader::new(frame);
        assert_eq!(answer.array(), Some(3));
        answer.uint().unwrap();
        assert_eq!(answer.uint(), Some(0));
        assert_eq!(answer.map(), Some(4));
        assert_eq!(answer.str(), Some(b"Items".as_slice()));
        (0..answer.array().unwrap()).map(|_| answer.bin().unwrap().to_vec()).collect()
    }

    #[test]
    fn a_batch_is_sealed_and_opened_again() {
        let server = BareLoop::start(Mode::Seal).unwrap();
        let mut client = RawClient::connect(server.addr).unwrap();
        let plaintexts: Vec<Vec<u8>> = (0..300).map(|i| vec![i as u8; i]).collect();
        let sealed = items(&client.call(&Request::batch("BatchEncrypt", &plaintexts)).unwrap());
        assert_eq!(sealed.len(), 300);
        assert!(sealed.iter().zip(&plaintexts).all(|(blob, item)| blob.len() == item.len() + raw::OVERHEAD));
        let opened = items(&client.call(&Request::batch("BatchDecrypt", &sealed)).unwrap());
        assert_eq!(opened, plaintexts);
    }

    #[test]
    fn echo_answers_frames_of_the_length_that_seal_answers() {
        let (seal, echo) = (BareLoop::start(Mode::Seal).unwrap(), BareLoop::start(Mode::Echo).unwrap());
        let mut sealing = RawClient::connect(seal.addr).unwrap();
        let mut echoing = RawClient::connect(echo.addr).unwrap();
        for (count, length) in [(0, 0), (1, 32), (16, 100), (256, 1024), (3, 65_536)] {
            let plaintexts = vec![vec![7; length]; count];
            let request = Request::batch("BatchEncrypt", &plaintexts);
            let (sealed, copied) = (sealing.call(&request).unwrap(), echoing.call(&request).unwrap());
            assert_eq!(sealed.len(), copied.len());
            let (sealed, copied) = (items(&sealed), items(&copied));
            let opened = sealing.call(&Request::batch("BatchDecrypt", &sealed)).unwrap();
            let returned = echoing.call(&Request::batch("BatchDecrypt", &copied)).unwrap();
            assert_eq!(opened.len(), returned.len());
            assert_eq!((items(&opened), items(&returned)), (plaintexts.clone(), plaintexts));
        }
        let single = Request::single("Encrypt", "Plaintext", &[1; 1024]);
        assert_eq!(sealing.call(&single).unwrap().len(), echoing.call(&single).unwrap().len());
    }

    #[test]
    fn many_in_flight_and_frames_longer_than_the_buffer_are_all_answered() {
        let server = BareLoop::start(Mode::Seal).unwrap();
        let mut client = RawClient::connect(server.addr).unwrap();
        let single = Request::single("Encrypt", "Plaintext", &[1; 100]);
        assert_eq!(client.pump(&single, 10_000, 512).unwrap(), 10_000);
        let large = Request::batch("BatchEncrypt", &vec![[2; 1024]; 2000]);
        assert_eq!(client.pump(&large, 3, 1).unwrap(), 6000);
    }

    #[test]
    fn what_the_loop_does_not_know_ends_that_connection_only() {
        let server = BareLoop::start(Mode::Seal).unwrap();
        let mut stranger = RawClient::connect(server.addr).unwrap();
        let mut client = RawClient::connect(server.addr).unwrap();
        assert!(stranger.call(&Request::single("DescribeKey", "Items", &[])).is_err());
        assert!(client.call(&Request::single("Encrypt", "Plaintext", &[1])).is_ok());
    }

    #[test]
    fn a_dropped_loop_closes_its_connections_and_its_port() {
        let server = BareLoop::start(Mode::Echo).unwrap();
        let addr = server.addr;
        let mut client = RawClient::connect(addr).unwrap();
        drop(server);
        assert!(client.call(&Request::single("Encrypt", "Plaintext", &[1])).is_err());
        assert!(TcpStream::connect(addr).is_err());
    }
}
