//! A connection whose every read and write ends by one moment, whatever the other side does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use keymill_core::seam::rotator::{RotationFault, RotationFaultKind};
use rustls::{ClientConnection, StreamOwned};

/// A connection to a server.
pub struct Wire {
    stream: Stream,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Wire {
    pub(crate) fn plain(socket: Socket, until: Instant) -> Self {
        Self { stream: Stream::Plain(Timed { socket, until }) }
    }

    /// Shakes hands over a connection that is plain so far.
    pub(crate) fn secured(self, mut session: ClientConnection) -> io::Result<Self> {
        let Stream::Plain(mut timed) = self.stream else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "TLS within TLS"));
        };
        while session.is_handshaking() {
            session.complete_io(&mut timed)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(session, timed))) })
    }

    /// Tells whether what goes over it is hidden from all but the server: by TLS, or since it does not leave this machine's kernel.
    pub fn is_hidden(&self) -> bool {
        match &self.stream {
            Stream::Plain(timed) => matches!(timed.socket, Socket::Unix(_)),
            Stream::Tls(_) => true,
        }
    }

    /// Reads as many bytes as there is room for, and none beyond: what comes before TLS must not be taken for what comes within.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<(), RotationFault> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.read_exact(bytes),
            Stream::Tls(tls) => tls.read_exact(bytes),
        }
        .map_err(|error| lost(&error))
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RotationFault> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
        .map_err(|error| lost(&error))
    }

    /// Returns how much time is left.
    pub fn left(&self) -> Duration {
        let timed = match &self.stream {
            Stream::Plain(timed) => timed,
            Stream::Tls(tls) => &tls.sock,
        };
        timed.until.saturating_duration_since(Instant::now())
    }
}

pub(crate) fn lost(error: &io::Error) -> RotationFault {
    let why = match error.kind() {
        ErrorKind::TimedOut => "the server did not answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "the server hung up".to_owned(),
        // What the system or TLS says of a connection: it holds nothing that went over it.
        _ => format!("connection to the server: {error}"),
    };
    RotationFault::new(RotationFaultKind::Unreachable, why)
}

pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket that is waited for until a moment.
struct Timed {
    socket: Socket,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        // The system takes zero for forever.
        (left > Duration::from_millis(1)).then_some(left).ok_or_else(|| ErrorKind::TimedOut.into())
    }
}

fn told(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        match &mut self.socket {
            Socket::Tcp(tcp) => tcp.set_read_timeout(Some(left)).and_then(|()| tcp.read(bytes)),
            Socket::Unix(unix) => unix.set_read_timeout(Some(left)).and_then(|()| unix.read(bytes)),
        }
        .map_err(told)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        match &mut self.socket {
            Socket::Tcp(tcp) => tcp.set_write_timeout(Some(left)).and_then(|()| tcp.write(bytes)),
            Socket::Unix(unix) => unix.set_write_timeout(Some(left)).and_then(|()| unix.write(bytes)),
        }
        .map_err(told)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
