//! A TLS connection of a client in two halves, for one thread each. The session is locked while it computes and never while a half
//! waits for its socket, so that one can wait for bytes as the other sends.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConnection;

/// Bytes that one read takes from the socket: some records at a time.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of plaintext that are encrypted in one go.
const WRITE_BYTES: usize = 64 * 1024;

/// The half that receives.
pub struct ReadHalf {
    socket: TcpStream,
    session: Arc<Mutex<ClientConnection>>,
    /// Bytes of the socket; those before `taken` are with the session.
    buffer: Vec<u8>,
    taken: usize,
    filled: usize,
}

/// The half that sends.
pub struct WriteHalf {
    socket: TcpStream,
    session: Arc<Mutex<ClientConnection>>,
    records: Vec<u8>,
}

pub(crate) fn halves(socket: TcpStream, mut session: ClientConnection) -> io::Result<(ReadHalf, WriteHalf)> {
    // Bounded by what is encrypted in one go, which is written out before anything else is.
    session.set_buffer_limit(None);
    let session = Arc::new(Mutex::new(session));
    let read = ReadHalf {
        socket: socket.try_clone()?,
        session: session.clone(),
        buffer: vec![0; READ_BYTES],
        taken: 0,
        filled: 0,
    };
    Ok((read, WriteHalf { socket, session, records: Vec::new() }))
}

impl ReadHalf {
    /// Returns the socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl Read for ReadHalf {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            {
                let mut session = self.session.lock();
                loop {
                    match session.reader().read(into) {
                        // The end that was said, and not one that somebody on the way made up.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        done => return done,
                    }
                    if self.taken == self.filled {
                        break;
                    }
                    self.taken += session.read_tls(&mut &self.buffer[self.taken..self.filled])?;
                    session
                        .process_new_packets()
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
            }
            (self.taken, self.filled) = (0, self.socket.read(&mut self.buffer)?);
            if self.filled == 0 {
                // The session learns of it, and its reader tells a cut from an end.
                let _nothing = self.session.lock().read_tls(&mut io::empty())?;
            }
        }
    }
}

impl WriteHalf {
    /// Returns the socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Tells the server that nothing follows.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.session.lock().send_close_notify();
        self.send_records()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Writes out what the session has to send. There is one half that sends, so records leave in their order.
    fn send_records(&mut self) -> io::Result<()> {
        self.records.clear();
        let mut session = self.session.lock();
        while session.wants_write() {
            session.write_tls(&mut self.records)?;
        }
        drop(session);
        self.socket.write_all(&self.records)
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES)];
        let taken = self.session.lock().writer().write(bytes)?;
        self.send_records()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl fmt::Debug for ReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadHalf")
    }
}

impl fmt::Debug for WriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteHalf")
    }
}
