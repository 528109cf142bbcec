//! A client that sends any bytes: for frames that the real one cannot make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use aws_lc_rs::hmac;
use keymill_core::id::AccessKeyId;
use keymill_wire::hello::{Auth, Hello, decode_challenge, encode_hello, signed_bytes};
use rmpv::Value;

/// A connection, before or after its login.
pub struct Raw {
    stream: TcpStream,
    /// The nonce of the challenge.
    pub nonce: [u8; 32],
}

/// What a frame says: id, status, and the map of the result or error.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The id.
    pub id: u64,
    /// Zero, or the status of the error.
    pub status: u64,
    /// The result or error.
    pub body: Value,
}

impl Told {
    /// Returns a text field of the body.
    pub fn text(&self, field: &str) -> &str {
        self.body
            .as_map()
            .and_then(|map| map.iter().find(|(key, _)| key.as_str() == Some(field)))
            .and_then(|(_, value)| value.as_str())
            .unwrap_or_else(|| panic!("{field} in {}", self.body))
    }

    /// Returns status, code and message of an error: all that could tell one from another.
    pub fn face(&self) -> (u64, String, String) {
        (self.status, self.text("Code").to_owned(), self.text("Message").to_owned())
    }
}

/// Signs a hello.
pub fn sign(secret: &str, nonce: &[u8; 32], id: &str) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, &signed_bytes(nonce, id, &[])).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

impl Raw {
    /// Connects and reads the challenge.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
        let mut raw = Self { stream, nonce: [0; 32] };
        let challenge = raw.frame().expect("a server greets");
        raw.nonce = decode_challenge(&challenge).expect("a challenge").nonce;
        raw
    }

    /// Connects and logs in.
    pub fn log_in(address: SocketAddr, id: &AccessKeyId, secret: &str) -> Self {
        let mut raw = Self::connect(address);
        let signature = sign(secret, &raw.nonce, id.as_str());
        let welcome = raw.hello(id.as_str(), signature).expect("an answer to the hello");
        assert_eq!((welcome.id, welcome.status), (0, 0), "{welcome:?}");
        raw
    }

    /// Sends a hello of an access key; returns the answer.
    pub fn hello(&mut self, id: &str, signature: [u8; 32]) -> Option<Told> {
        let mut out = Vec::new();
        let auth = Auth::AccessKey { id: id.into(), signature };
        encode_hello(&Hello { client: "raw".into(), auth }, &mut out);
        self.send(&out);
        self.told()
    }

    /// Sends bytes as they are; a connection that is closed already takes them, too.
    pub fn send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    /// Sends a payload as a frame.
    pub fn send_frame(&mut self, payload: &[u8]) {
        self.send(&[&(payload.len() as u32).to_be_bytes(), payload].concat());
    }

    /// Sends a value as a frame.
    pub fn send_value(&mut self, value: &Value) {
        let mut payload = Vec::new();
        rmpv::encode::write_value(&mut payload, value).expect("a vector takes everything");
        self.send_frame(&payload);
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, operation: &str, parameters: Vec<(&str, Value)>) -> Told {
        let map = parameters.into_iter().map(|(name, value)| (name.into(), value)).collect();
        self.send_value(&Value::Array(vec![1.into(), operation.into(), Value::Map(map)]));
        let told = self.told().expect("the connection lives");
        assert_eq!(told.id, 1, "{told:?}");
        told
    }

    /// Reads the next frame; `None` where the server has closed.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame)
    }

    /// Reads the next answer; `None` where the server has closed.
    pub fn told(&mut self) -> Option<Told> {
        let frame = self.frame()?;
        let mut rest = &frame[..];
        let value = rmpv::decode::read_value(&mut rest).expect("a server sends MessagePack");
        assert!(rest.is_empty(), "one value a frame");
        let [id, status, body] = &value.as_array().expect("an array")[..] else { panic!("{value}") };
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} in {frame:?}"));
        Some(Told { id: number(id), status: number(status), body: body.clone() })
    }

    /// Expects one error of id 0 and the end of the connection; returns the error.
    pub fn last_words(&mut self) -> Told {
        let told = self.told().expect("an error before the close");
        assert_eq!(told.id, 0, "{told:?}");
        assert_ne!(told.status, 0, "{told:?}");
        assert!(self.frame().is_none(), "the connection is closed");
        told
    }

    /// Breaks the connection off: the server finds a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("the option can be set");
    }
}
