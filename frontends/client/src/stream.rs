//! The bytes of a connection in two halves, in clear or under TLS. An enum, so that the plain one costs no more than a socket does.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use keymill_tls::{ReadHalf, WriteHalf};

/// The half that receives.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// In clear.
    Plain(TcpStream),
    /// Under TLS.
    Tls(ReadHalf),
}

/// The half that sends.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// In clear.
    Plain(TcpStream),
    /// Under TLS.
    Tls(WriteHalf),
}

impl Incoming {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Incoming::Plain(socket) => socket,
            Incoming::Tls(half) => half.socket(),
        }
    }

    /// Reads once.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Incoming::Plain(socket) => socket.read(into),
            Incoming::Tls(half) => half.read(into),
        }
    }
}

impl Outgoing {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Outgoing::Plain(socket) => socket,
            Outgoing::Tls(half) => half.socket(),
        }
    }

    /// Sends all bytes.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Outgoing::Plain(socket) => socket.write_all(bytes),
            Outgoing::Tls(half) => half.write_all(bytes),
        }
    }

    /// Tells the server that nothing follows.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self {
            Outgoing::Plain(socket) => socket.shutdown(Shutdown::Write),
            Outgoing::Tls(half) => half.shutdown(),
        }
    }
}
