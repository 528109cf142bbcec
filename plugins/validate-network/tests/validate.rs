//! Validators against servers of a few lines, over loopback.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use keymill_core::acme::{ChallengeKind, Outcome, ProblemKind};
use keymill_core::seam::validator::{Proof, Validator};
use keymill_validate_network::{Config, open};

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

/// Serves one connection after the other.
fn serve(mut each: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| each(stream.unwrap())));
    address
}

/// Serves HTTP: what is answered is made of the head of the request.
fn http(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    serve(move |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let _gone = stream.write_all(answer(&String::from_utf8(head).unwrap()).as_bytes());
    })
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Serves the DNS over TCP: each name has the same records, by type.
fn dns(records: Vec<(u16, Vec<u8>)>) -> SocketAddr {
    serve(move |mut stream| {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).unwrap();
        let asked = u16::from_be_bytes([message[message.len() - 4], message[message.len() - 3]]);
        let found: Vec<_> = records.iter().filter(|(kind, _)| *kind == asked).collect();
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[7] = found.len() as u8;
        for (kind, data) in found {
            message.extend_from_slice(&[0xc0, 12]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(data);
        }
        let length = (message.len() as u16).to_be_bytes();
        // In two parts, as TCP may have it.
        stream.write_all(&[&length[..], &message[..5]].concat()).unwrap();
        stream.write_all(&message[5..]).unwrap();
    })
}

fn loopback(resolvers: Vec<SocketAddr>, http_port: u16) -> Config {
    Config { resolvers, reach: Some(vec!["127.0.0.0/8".parse().unwrap()]), http_port }
}

fn validator(config: Config, kind: ChallengeKind) -> Arc<dyn Validator> {
    open(config).into_iter().find(|validator| validator.kind() == kind).unwrap()
}

fn look(validator: &dyn Validator, name: &str, within: Duration) -> Outcome<()> {
    let name = name.parse().unwrap();
    let deadline = Instant::now() + within;
    validator.check(&Proof { name: &name, token: TOKEN, thumbprint: THUMBPRINT, deadline })
}

fn by_http(at: SocketAddr, name: &str) -> Outcome<()> {
    let resolver = dns(vec![(1, vec![127, 0, 0, 1])]);
    let validator = validator(loopback(vec![resolver], at.port()), ChallengeKind::Http01);
    look(&*validator, name, Duration::from_secs(10))
}

#[test]
fn the_file_is_asked_for_by_the_name_and_found() {
    let at = http(|head| {
        let asked = format!("GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\n");
        let is_asked = head.starts_with(&asked) && head.to_lowercase().contains("\r\nhost: web.example\r\n");
        if is_asked { ok(&format!("{TOKEN}.{THUMBPRINT}\r\n")) } else { ok(head) }
    });
    by_http(at, "web.example").unwrap();
}

#[test]
fn an_answer_in_chunks_counts_as_well() {
    let at = http(|_| {
        let (one, two) = (format!("{TOKEN}."), THUMBPRINT);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        format!("{head}{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len())
    });
    by_http(at, "web.example").unwrap();
}

#[test]
fn an_address_is_asked_at_itself() {
    let at = http(|head| {
        let is_asked = head.to_lowercase().contains("\r\nhost: 127.0.0.1\r\n");
        if is_asked { ok(&format!("{TOKEN}.{THUMBPRINT}")) } else { ok(head) }
    });
    by_http(at, "127.0.0.1").unwrap();
}

#[test]
fn other_answers_are_none_and_are_not_quoted() {
    let right = format!("{TOKEN}.{THUMBPRINT}");
    let elsewhere = http({
        let right = right.clone();
        move |_| ok(&right)
    });
    let moved = format!("HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n");
    for (answer, told) in [
        (ok("private-text"), "another text"),
        (ok(&format!("{right}x")), "another text"),
        (ok(&format!(" {right}")), "another text"),
        (ok(&right.to_uppercase()), "another text"),
        (ok(&format!("{right}{}", " ".repeat(2_000))), "more than 1024"),
        (ok(&right).replace("200 OK", "404 private-text"), "404"),
        (moved, "redirects are not followed"),
        ("private-text\r\n\r\n".into(), "HTTP"),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "private-text".repeat(5_000)), "HTTP"),
    ] {
        let problem = by_http(http(move |_| answer.clone()), "web.example").unwrap_err();
        assert_eq!(problem.kind, ProblemKind::IncorrectResponse, "{problem}");
        assert!(problem.detail.contains(told) && !problem.detail.contains("private-text"), "{problem}");
    }
}

#[test]
fn nobody_there_and_nobody_in_time_are_told() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(by_http(gone, "web.example").unwrap_err().kind, ProblemKind::Connection);
    // The connection stays open until its client ends it.
    let silent = serve(|mut stream| {
        let _end = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let config = loopback(vec![], silent.port());
    let validator = validator(config, ChallengeKind::Http01);
    let began = Instant::now();
    let problem = look(&*validator, "127.0.0.1", Duration::from_millis(200)).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Connection);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn addresses_that_may_not_be_reached_are_not() {
    let at = http(|_| panic!("nobody may come here"));
    let resolver = dns(vec![(1, vec![127, 0, 0, 1]), (28, [&[0; 15][..], &[1]].concat())]);
    let closed = Config { reach: None, ..loopback(vec![resolver], at.port()) };
    let validator = validator(closed, ChallengeKind::Http01);
    for name in ["web.example", "127.0.0.1", "::1"] {
        let problem = look(&*validator, name, Duration::from_secs(5)).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Connection);
        assert!(problem.detail.contains("may be reached"), "{problem}");
    }
    for name in ["*.web.example", "email:a@b.example"] {
        assert_eq!(look(&*validator, name, Duration::from_secs(5)).unwrap_err().kind, ProblemKind::Malformed);
    }
}

/// SHA-256 of the key authorization in base64url, computed by Python's `hashlib`.
const DIGEST: &str = "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM";

fn by_dns(records: Vec<(u16, Vec<u8>)>, name: &str) -> Outcome<()> {
    let validator = validator(loopback(vec![dns(records)], 80), ChallengeKind::Dns01);
    look(&*validator, name, Duration::from_secs(10))
}

#[test]
fn the_record_is_found_among_others() {
    let text = |text: &str| (16, [&[text.len() as u8], text.as_bytes()].concat());
    for name in ["web.example", "*.web.example"] {
        by_dns(vec![text("v=spf1"), text(DIGEST)], name).unwrap();
    }
    let (one, two) = DIGEST.split_at(20);
    let split = [text(one).1, text(two).1].concat();
    by_dns(vec![(16, split)], "web.example").unwrap();
    let problem = by_dns(vec![], "web.example").unwrap_err();
    assert!(problem.detail.contains("_acme-challenge.web.example has no TXT record"), "{problem}");
    let other = by_dns(vec![text("private-text"), text(&DIGEST.to_lowercase())], "web.example").unwrap_err();
    assert_eq!(other.kind, ProblemKind::IncorrectResponse);
    assert!(other.detail.contains("none of the 2") && !other.detail.contains("private-text"), "{other}");
    assert!(by_dns(vec![], "127.0.0.1").is_err());
}

#[test]
fn another_resolver_is_asked_where_the_first_is_gone() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = (16, [&[DIGEST.len() as u8], DIGEST.as_bytes()].concat());
    let both = loopback(vec![gone, dns(vec![text])], 80);
    let found = validator(both, ChallengeKind::Dns01);
    look(&*found, "web.example", Duration::from_secs(10)).unwrap();
    let none = validator(loopback(vec![gone], 80), ChallengeKind::Dns01);
    assert_eq!(look(&*none, "web.example", Duration::from_secs(10)).unwrap_err().kind, ProblemKind::Dns);
}

#[test]
fn without_a_resolver_the_dns_is_no_proof() {
    let kinds: Vec<_> = open(Config::default()).iter().map(|validator| validator.kind()).collect();
    assert_eq!(kinds, [ChallengeKind::Http01]);
}
