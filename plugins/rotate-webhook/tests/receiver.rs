//! A receiver in this process: it checks what it is sent as the README says, and answers as a test wants it to.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use keymill_core::Sensitive;
use keymill_core::seam::rotator::{RotationFault, RotationFaultKind, RotationSettings, Rotator, Turn};
use keymill_rotate_webhook::{Config, Webhook, open};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A request as it came.
struct Came {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Came {
    fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(known, _)| known == name).unwrap().1
    }

    fn is_signed(&self) -> bool {
        let (at, nonce) = (self.header("x-keymill-timestamp"), self.header("x-keymill-nonce"));
        let lines = format!("POST\n{}\n{at}\n{nonce}\n", self.path);
        mac(KEY, &[lines.as_bytes(), &self.body]) == self.header("x-keymill-signature")
    }

    /// An answer that whoever has that key gives.
    fn answer(&self, key: &[u8], status: u16, body: &str) -> String {
        let lines = format!("ANSWER\n{}\n{status}\n", self.header("x-keymill-nonce"));
        let signature = mac(key, &[lines.as_bytes(), body.as_bytes()]);
        format!(
            "HTTP/1.1 {status} Said\r\nx-keymill-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> String {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
    mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(stream: &mut impl Read) -> Option<Came> {
    let mut bytes = Vec::new();
    let mut one = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one).ok()?;
        bytes.push(one[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Came { path, headers, body })
}

/// Answers one request, and returns it.
fn receiver(answer: impl FnOnce(&Came, &mut TcpStream) + Send + 'static) -> (String, JoinHandle<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keymill?of=shop", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let came = read(&mut stream).unwrap();
        answer(&came, &mut stream);
        came
    });
    (url, thread)
}

fn says(status: u16, body: &'static str) -> impl FnOnce(&Came, &mut TcpStream) + Send {
    move |came, stream| stream.write_all(came.answer(KEY, status, body).as_bytes()).unwrap()
}

fn webhook(url: &str) -> Webhook {
    let timeout = Duration::from_secs(5);
    open(Config {
        timeout,
        max_answer_bytes: 1_000,
        ..Config::new(url, Sensitive::copied(KEY), vec!["a*".into()])
    })
    .unwrap()
}

fn ask(webhook: &Webhook, step: &str, deadline: Instant) -> Result<(), RotationFault> {
    let (secret, version) = ("apps/orders".parse().unwrap(), "v2".parse().unwrap());
    let settings =
        RotationSettings { custom: [("team".to_owned(), "shop".to_owned())].into(), ..Default::default() };
    let (current, pending) = (Sensitive::copied("old \"ж\n".as_bytes()), Sensitive::copied(b"marked-new"));
    let turn = Turn {
        secret: &secret,
        version: &version,
        settings: &settings,
        current: &current,
        previous: None,
        pending: &pending,
        admin: None,
        deadline,
    };
    match step {
        "set" => webhook.set(&turn),
        "test" => webhook.test(&turn),
        _ => webhook.finish(&turn),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn each_step_is_a_signed_request_that_says_what_is_to_be_done() {
    let mut nonces = Vec::new();
    for step in ["set", "test", "finish"] {
        let (url, came) = receiver(says(200, "whatever"));
        ask(&webhook(&url), step, soon()).unwrap();
        let came = came.join().unwrap();
        assert!(came.is_signed() && came.path == "/keymill?of=shop");
        assert_eq!(came.header("content-type"), "application/json");
        let said = format!(
            r#"{{"Step":"{step}","Secret":"apps/orders","Version":"v2","Settings":{{"team":"shop"}},"Current":"old \"ж\n","Previous":null,"Pending":"marked-new"}}"#
        );
        assert_eq!(String::from_utf8(came.body.clone()).unwrap(), said);
        nonces.push(came.header("x-keymill-nonce").to_owned());
    }
    nonces.dedup();
    assert_eq!(nonces.len(), 3, "each has its own");
}

#[test]
fn a_status_says_what_is_to_be_made_of_it() {
    for (status, kind) in [
        (422, RotationFaultKind::NotValid),
        (403, RotationFaultKind::Refused),
        (404, RotationFaultKind::Refused),
        (201, RotationFaultKind::Unreachable),
        (307, RotationFaultKind::Unreachable),
        (500, RotationFaultKind::Unreachable),
    ] {
        let (url, came) = receiver(says(status, ""));
        let fault = ask(&webhook(&url), "test", soon()).unwrap_err();
        came.join().unwrap();
        assert_eq!(fault.kind, kind, "{status}");
        assert!(fault.why.contains(&status.to_string()), "{fault}");
    }
}

type Answering = Box<dyn FnOnce(&Came, &mut TcpStream) + Send>;

/// Whoever took the port, or stands between: an answer that the key did not sign is none, however it looks.
#[test]
fn a_forged_an_oversize_and_a_slow_answer_are_none() {
    let write =
        |text: String| move |_: &Came, stream: &mut TcpStream| drop(stream.write_all(text.as_bytes()));
    let cases: [(&str, Answering); 8] = [
        ("not signed", Box::new(write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()))),
        (
            "not signed",
            Box::new(|came, stream| drop(stream.write_all(came.answer(&[7; 32], 200, "").as_bytes()))),
        ),
        // What was signed for another status, or another body.
        (
            "not signed",
            Box::new(|came, stream| {
                let text = came.answer(KEY, 422, "").replace("1.1 422", "1.1 200");
                drop(stream.write_all(text.as_bytes()));
            }),
        ),
        (
            "not signed",
            Box::new(|came, stream| {
                let text = came.answer(KEY, 200, "yes").replace("\r\n\r\nyes", "\r\n\r\nno!");
                drop(stream.write_all(text.as_bytes()));
            }),
        ),
        (
            "more than 1000",
            Box::new(|came, stream| {
                let text = came.answer(KEY, 200, &"x".repeat(100_000));
                drop(stream.write_all(text.as_bytes()));
            }),
        ),
        ("HTTP", Box::new(write("220 mail.example.com ESMTP\r\n".into()))),
        ("not reached", Box::new(|_, _| {})),
        (
            "in time",
            Box::new(|_, stream| {
                // Until the other side gives up.
                let _gone = stream.read(&mut [0]);
            }),
        ),
    ];
    for (told, answering) in cases {
        let (url, came) = receiver(answering);
        let deadline = if told == "in time" { Instant::now() + Duration::from_millis(300) } else { soon() };
        let fault = ask(&webhook(&url), "set", deadline).unwrap_err();
        came.join().unwrap();
        assert_eq!(fault.kind, RotationFaultKind::Unreachable, "{fault}");
        assert!(fault.why.contains(told) && !fault.why.contains("marked"), "{told}: {fault}");
    }
}

#[test]
fn a_redirection_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let to = elsewhere.local_addr().unwrap();
    let (url, came) = receiver(move |came, stream| {
        let text = came
            .answer(KEY, 307, "")
            .replace("\r\ncontent", &format!("\r\nlocation: http://{to}/\r\ncontent"));
        stream.write_all(text.as_bytes()).unwrap();
    });
    ask(&webhook(&url), "set", soon()).unwrap_err();
    came.join().unwrap();
    assert!(elsewhere.accept().is_err(), "nobody came");
}

#[test]
fn nobody_there_is_told() {
    let url = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let fault = ask(&webhook(&url), "set", soon()).unwrap_err();
    assert_eq!(fault.kind, RotationFaultKind::Unreachable);
    assert!(fault.why.contains("not reached"), "{fault}");
}

/// A receiver with a certificate for 127.0.0.1, and the file of who signed it.
fn over_tls(directory: &std::path::Path) -> (String, std::path::PathBuf, JoinHandle<Option<Came>>) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut of_authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    of_authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signed = of_authority.self_signed(&authority).unwrap();
    let ca_file = directory.join("ca.pem");
    std::fs::write(&ca_file, signed.pem()).unwrap();
    let issuer = rcgen::Issuer::new(of_authority, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        let came = read(&mut stream)?;
        stream.write_all(came.answer(KEY, 200, "").as_bytes()).unwrap();
        Some(came)
    });
    (url, ca_file, thread)
}

#[test]
fn over_tls_the_receiver_is_one_whom_the_configuration_trusts() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trusting = |url: &str, ca_file: &std::path::Path| {
        open(Config {
            ca_file: Some(ca_file.to_owned()),
            ..Config::new(url, Sensitive::copied(KEY), vec!["a*".into()])
        })
        .unwrap()
    };
    let (url, ca_file, came) = over_tls(directory.path());
    ask(&trusting(&url, &ca_file), "set", soon()).unwrap();
    assert!(came.join().unwrap().unwrap().is_signed());
    let (url, _, came) = over_tls(other.path());
    let fault = ask(&trusting(&url, &ca_file), "set", soon()).unwrap_err();
    assert!(came.join().unwrap().is_none(), "nothing was said to a stranger");
    assert_eq!((fault.kind, fault.why.contains("TLS")), (RotationFaultKind::Unreachable, true), "{fault}");
}
