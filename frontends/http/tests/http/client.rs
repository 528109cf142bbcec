//! A client that signs as it is told to, right or wrong, and reads answers byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac};
use keymill_core::Timestamp;
use keymill_wire::acs3::{self, Authorization, Signable};
use serde_json::Value;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MSGPACK: &str = "application/msgpack";

#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// A signed request, each part of which a test may change before or after the signature.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, &'static str)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Signed {
    pub(crate) fn new(operation: &str, body: impl Into<Vec<u8>>) -> Self {
        static NONCES: AtomicU64 = AtomicU64::new(0);
        let body = body.into();
        let hash = acs3::hex(digest::digest(&digest::SHA256, &body).as_ref());
        let nonce = format!("nonce-{}", NONCES.fetch_add(1, Ordering::Relaxed));
        let headers = [
            ("host", "a".to_owned()),
            ("content-type", JSON.to_owned()),
            (acs3::ACTION, operation.to_owned()),
            (acs3::ACS_VERSION, acs3::API_VERSION.to_owned()),
            (acs3::DATE, now().to_string()),
            (acs3::NONCE, nonce),
            (acs3::CONTENT_SHA256, hash),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
        Self { path: format!("/v1/{operation}"), query: Vec::new(), headers, body }
    }

    pub(crate) fn json(operation: &str, body: &Value) -> Self {
        Self::new(operation, serde_json::to_vec(body).unwrap())
    }

    /// Sets a header; before [`Self::sign`] it is signed so, behind it is tampered with.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    pub(crate) fn dated(self, ms: u64) -> Self {
        self.with(acs3::DATE, Timestamp::from_ms(ms).to_string())
    }

    pub(crate) fn sign(self, credentials: &Credentials) -> Self {
        let shown: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let signable = Signable { method: "POST", path: &self.path, query: &self.query, headers: &shown };
        let signed_headers = signable.all_headers();
        let sha256 = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap();
        let to_sign = signable.string_to_sign(acs3::SCHEME, &signed_headers, &sha256).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.secret.as_bytes());
        let authorization = Authorization {
            credential: &credentials.id,
            scope: None,
            signed_headers: signed_headers.into(),
            signature: hmac::sign(&key, &to_sign).as_ref().try_into().unwrap(),
        }
        .format();
        self.with("authorization", authorization)
    }

    /// Returns the head without `content-length` and the empty line.
    pub(crate) fn head(&self) -> String {
        let query: Vec<_> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let target = match query.is_empty() {
            true => self.path.clone(),
            false => format!("{}?{}", self.path, query.join("&")),
        };
        let headers: String = self.headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        format!("POST {target} HTTP/1.1\r\n{headers}")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let head = format!("{}content-length: {}\r\n\r\n", self.head(), self.body.len());
        [head.as_bytes(), &self.body].concat()
    }
}

pub(crate) fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_ms(now.as_millis() as u64)
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json;charset=utf-8"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns status and code of an error after checking its form.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let error = self.json();
        let text = |name: &str| error[name].as_str().filter(|text| !text.is_empty()).unwrap().to_owned();
        assert_eq!(self.header("x-acs-request-id"), Some(&*text("RequestId")));
        assert!(error["Retryable"].is_boolean() && !text("Message").is_empty(), "{error}");
        (self.status, text("Code"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) credentials: Credentials,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, credentials: Credentials) -> Self {
        Self { address, credentials, stream: open(address) }
    }

    /// Opens another connection for the same caller.
    pub(crate) fn again(&self) -> Self {
        Self::connect(self.address, self.credentials.clone())
    }

    /// Sends a signed request on the kept connection, or on a new one where the server has closed it.
    pub(crate) fn send(&mut self, request: &Signed) -> Answer {
        self.send_raw(&request.bytes());
        let answer = self.read().expect("an answer");
        if answer.header("connection") == Some("close") {
            self.stream = open(self.address);
        }
        answer
    }

    pub(crate) fn post(&mut self, operation: &str, body: &Value) -> Answer {
        let request = Signed::json(operation, body).sign(&self.credentials);
        self.send(&request)
    }

    pub(crate) fn call(&mut self, operation: &str, body: &Value) -> Value {
        let answer = self.post(operation, body);
        assert_eq!(answer.status, 200, "{operation}: {}", answer.text());
        answer.json()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send_raw(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
        self.read().unwrap()
    }

    /// Makes a key and returns its id.
    pub(crate) fn key(&mut self) -> String {
        self.call("CreateKey", &serde_json::json!({}))["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        // The server may have refused and closed before all was sent; the answer tells.
        let _refused = self.stream.get_mut().write_all(bytes);
    }

    /// Reads one answer, or `None` where the connection has ended.
    pub(crate) fn read(&mut self) -> Option<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        answer.body = vec![0; answer.header("content-length").map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut answer.body).unwrap();
        Some(answer)
    }

    /// Tells whether the server closes the connection, without a further byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn open(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}
