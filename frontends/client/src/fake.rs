//! A server for tests: it speaks the protocol by the wire crate and does what the test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use keymill_core::id::{CmkId, KeyVersionId, RequestId};
use keymill_core::operation::{Operation, Reply, Request};
use keymill_core::{Error, ErrorKind};
use keymill_wire::frame;
use keymill_wire::hello::{
    Auth, Challenge, Welcome, decode_hello, encode_challenge, encode_welcome, signed_bytes,
};
use keymill_wire::response::{encode_error, encode_reply};

use crate::credentials::Credentials;

pub(crate) const SECRET: &str = "test-secret";
pub(crate) const KEY: CmkId = CmkId::from_bytes([7; 16]);
pub(crate) const VERSION: KeyVersionId = KeyVersionId::from_bytes([9; 16]);
pub(crate) const REQUEST: RequestId = RequestId::from_bytes([5; 16]);
const MAX_FRAME: usize = 1024 * 1024;

pub(crate) fn credentials(secret: &str) -> Credentials {
    Credentials::new("AK.12345678".parse().unwrap(), secret.to_owned())
}

/// Runs `handle` on a thread with a listener.
pub(crate) fn serve(handle: impl FnOnce(TcpListener) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), std::thread::spawn(move || handle(listener)))
}

/// A connection that is logged in.
pub(crate) struct Session {
    stream: TcpStream,
}

impl Session {
    /// Accepts a connection whose login must be good.
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        Self::login(listener).expect("the login is good")
    }

    /// Accepts a connection and checks its login; a bad one is refused and closed.
    pub(crate) fn login(listener: &TcpListener) -> Option<Self> {
        Self::on(listener.accept().unwrap().0)
    }

    /// Checks the login of a connection; `None` also where the client went away.
    pub(crate) fn on(stream: TcpStream) -> Option<Self> {
        let mut session = Self { stream };
        let nonce = [3; 32];
        let server = "fake".into();
        let challenge = Challenge { nonce, server, max_frame: MAX_FRAME as u64, max_in_flight: 1024 };
        session.write(|out| encode_challenge(&challenge, out));
        let frame = session.frame()?;
        let Auth::AccessKey { id, signature } = decode_hello(&frame).unwrap().auth else { panic!() };
        if Some(signature) != credentials(SECRET).mac(&signed_bytes(&nonce, &id, &[])) {
            session.refuse(0, Error::new(ErrorKind::SignatureMismatch, "the signature differs"));
            return None;
        }
        let welcome = Welcome { principal: format!("access-key/{id}") };
        session.write(|out| encode_welcome(&welcome, out));
        Some(session)
    }

    /// Reads a request and hands it over; `None` once the client closed.
    pub(crate) fn with_request<T>(&mut self, handle: impl FnOnce(u64, &Request<'_>) -> T) -> Option<T> {
        let frame = self.frame()?;
        let shape = frame::check(&frame).unwrap();
        let request = shape.decode(Operation::by_name(shape.operation).unwrap()).unwrap();
        Some(handle(shape.id, &request))
    }

    /// Reads a request and tells its id and operation; `None` once the client closed.
    pub(crate) fn request(&mut self) -> Option<(u64, Operation)> {
        self.with_request(|id, request| (id, request.operation()))
    }

    pub(crate) fn reply(&mut self, id: u64, reply: &Reply<'_>) {
        self.write(|out| encode_reply(id, reply, out));
    }

    pub(crate) fn refuse(&mut self, id: u64, error: Error) {
        self.write(|out| encode_error(id, &error, REQUEST, out));
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).ok()?;
        let mut frame = vec![0; frame::length(prefix, MAX_FRAME).unwrap()];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame)
    }

    fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        // The client may be gone.
        let _gone = self.stream.write_all(&out);
    }
}
