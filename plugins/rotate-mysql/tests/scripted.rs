//! The rotator against a server that plays a part: what MySQL does and MariaDB does not, and what no server should do. The packets are written
//! here by the manual, apart from those that the plugin writes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::seam::rotator::RotationFaultKind::{Misconfigured, NotValid, Unreachable};
use keymill_core::seam::rotator::{RotationFault, RotationSettings, Rotator, Turn};
use keymill_rotate_mysql::{Config, Place, open};

const CURRENT: &[u8] = br#"{"AccountName":"app","AccountPassword":"old"}"#;
const PENDING: &[u8] = br#"{"AccountName":"app","AccountPassword":"a'\\b"}"#;
const OK: &[u8] = b"\0\0\0\x02\0\0\0";

fn turn<T>(place: Place, step: impl FnOnce(&dyn Rotator, &Turn<'_>) -> T) -> T {
    step(
        &open(&Config::new(place, ["app"]), "%").unwrap(),
        &Turn {
            secret: &"app".parse().unwrap(),
            version: &"v2".parse().unwrap(),
            settings: &RotationSettings::default(),
            current: &Sensitive::copied(CURRENT),
            previous: None,
            pending: &Sensitive::copied(PENDING),
            admin: None,
            deadline: Instant::now() + Duration::from_secs(30),
        },
    )
}

/// One side of a conversation.
struct Part<S>(S, u8);

impl<S: Read + Write> Part<S> {
    fn say(&mut self, body: &[u8]) {
        let [a, b, c, _] = (body.len() as u32).to_le_bytes();
        self.0.write_all(&[&[a, b, c, self.1], body].concat()).unwrap();
        self.1 += 1;
    }

    fn hear(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        self.1 = head[3] + 1;
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// Greets as MySQL 8.4 does, without TLS.
    fn greet(&mut self) {
        let mut body = b"\x0a8.4.3\0\x07\0\0\0abcdefgh\0".to_vec();
        body.extend_from_slice(&[0xff, 0xf7, 255, 2, 0, 0xff, 0xdf, 21]);
        body.extend_from_slice(&[0; 10]);
        body.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
        self.say(&body);
    }
}

fn over_tcp<T: Send>(
    play: impl FnOnce(Part<TcpStream>) -> T + Send,
    step: impl FnOnce(&dyn Rotator, &Turn<'_>) -> Result<(), RotationFault>,
) -> (Result<(), RotationFault>, T) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        let playing = scope.spawn(move || play(Part(listener.accept().unwrap().0, 0)));
        let done = turn(Place::Tcp { host: "127.0.0.1".into(), port }, step);
        (done, playing.join().unwrap())
    })
}

#[test]
fn mysql_is_shown_the_password_over_a_socket_and_told_the_next_one_in_quotes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (done, heard) = std::thread::scope(|scope| {
        let playing = scope.spawn(move || {
            let mut part = Part(listener.accept().unwrap().0, 0);
            part.greet();
            let hello = part.hear();
            assert!(hello.ends_with(b"caching_sha2_password\0"));
            // The server does not know the password yet: it is to be shown in full.
            part.say(&[1, 4]);
            let shown = part.hear();
            part.say(OK);
            let limit = part.hear();
            part.say(OK);
            let sql = part.hear();
            part.say(OK);
            (shown, limit, sql)
        });
        (turn(Place::Socket(path), |rotator, turn| rotator.set(turn)), playing.join().unwrap())
    });
    done.unwrap();
    let (shown, limit, sql) = heard;
    assert_eq!(shown, b"old\0");
    assert!(limit.starts_with(b"\x03SET SESSION lock_wait_timeout = "));
    assert_eq!(sql, b"\x03ALTER USER USER() IDENTIFIED BY 'a''\\\\b'");
}

#[test]
fn a_password_is_not_shown_in_full_where_others_can_read_it() {
    let (done, after) = over_tcp(
        |mut part| {
            part.greet();
            part.hear();
            part.say(&[1, 4]);
            let mut rest = Vec::new();
            part.0.read_to_end(&mut rest).unwrap();
            rest
        },
        |rotator, turn| rotator.set(turn),
    );
    assert_eq!(done.unwrap_err().kind, Misconfigured);
    assert!(!after.windows(3).any(|bytes| bytes == b"old"), "{after:?}");
}

/// Whoever took the port first would be told the next password, and could say that it is set.
#[test]
fn mysql_is_told_no_password_over_a_port_without_tls() {
    let (done, after) = over_tcp(
        |mut part| {
            part.greet();
            part.hear();
            part.say(OK);
            let mut rest = Vec::new();
            part.0.read_to_end(&mut rest).unwrap();
            rest
        },
        |rotator, turn| rotator.set(turn),
    );
    assert_eq!(done.unwrap_err().kind, Misconfigured);
    assert!(!after.windows(5).any(|bytes| bytes == b"ALTER"), "{after:?}");
}

#[test]
fn a_login_that_the_server_knows_is_short_and_is_shown_to_be_the_account() {
    let table = |user: &'static [u8]| {
        move |mut part: Part<TcpStream>| {
            part.greet();
            part.hear();
            part.say(&[1, 3]);
            part.say(OK);
            part.hear();
            part.say(&[2]);
            part.say(b"\x03def first column");
            part.say(b"\x03def second column");
            part.say(b"\xfe\0\0\x02\0");
            part.say(&[&b"\x011"[..], &[user.len() as u8], user].concat());
            part.say(b"\xfe\0\0\x02\0");
        }
    };
    over_tcp(table(b"app@10.0.0.%"), |rotator, turn| rotator.test(turn)).0.unwrap();
    for other in [&b"@%"[..], b"app2@%", b"app", b"app@x@%"] {
        let fault = over_tcp(table(other), |rotator, turn| rotator.test(turn)).0.unwrap_err();
        assert_eq!(fault.kind, NotValid);
    }
}

#[test]
fn a_server_that_is_full_or_speaks_another_language_may_be_tried_again() {
    let said: [(&[u8], &str); 4] = [
        (b"\xff\x10\x04Too many connections of app with old", "1040"),
        (b"\x09an older protocol", "protocol"),
        (b"HTTP/1.1 400 Bad Request", "protocol"),
        (&[0; 70_000], "protocol"),
    ];
    for (said, why) in said {
        let (done, ()) = over_tcp(
            |mut part| {
                part.say(said);
                let _ended = part.0.read(&mut [0]);
            },
            |rotator, turn| rotator.set(turn),
        );
        let fault = done.unwrap_err();
        assert_eq!(fault.kind, Unreachable, "{fault}");
        assert!(fault.why.contains(why) && !fault.why.contains("app"), "{fault}");
    }
}

#[test]
fn packets_without_an_end_are_not_followed() {
    for step in ["login", "table"] {
        let (done, ()) = over_tcp(
            |mut part| {
                part.greet();
                part.hear();
                if step == "table" {
                    part.say(OK);
                    part.hear();
                    part.say(&[2]);
                }
                let endless: &[u8] = if step == "table" { b"\x03def" } else { b"\x01\x03" };
                for _ in 0..64 {
                    part.say(endless);
                }
                let _ended = part.0.read(&mut [0]);
            },
            |rotator, turn| rotator.test(turn),
        );
        assert_eq!(done.unwrap_err().kind, Unreachable, "{step}");
    }
}
