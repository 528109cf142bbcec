//! What the frontend withstands: E5 to E7 of the security cases, and a shutdown under way.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{MSGPACK, Signed};
use crate::site::Site;

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_before_it_is_sent() {
    let site = Site::start();
    let mut client = site.client();
    for (content_type, limit) in
        [("application/json", (16 << 20) / 3 * 4 + (64 << 10) + 16), (MSGPACK, 16 << 20)]
    {
        let request = Signed::new("Encrypt", "").with("content-type", content_type).sign(&site.root);
        client.send_raw(format!("{}content-length: {}\r\n\r\n", request.head(), limit + 1).as_bytes());
        let answer = client.read().unwrap();
        assert_eq!(answer.refusal(), (413, "Rejected.BodyTooLarge".into()));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed());
        client = site.client();
    }
}

#[test]
fn chunks_without_end_are_refused_and_the_connection_closes_though_they_go_on() {
    let site = Site::start_with(|_, engine| engine.max_frame_bytes = 1 << 20);
    let mut client = site.client();
    let request = Signed::new("Encrypt", "").sign(&site.root);
    client.send_raw(format!("{}transfer-encoding: chunked\r\n\r\n", request.head()).as_bytes());
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..(3 << 20) / 0x10000 {
        client.send_raw(&chunk);
    }
    if let Some(answer) = client.read() {
        assert_eq!(answer.refusal(), (413, "Rejected.BodyTooLarge".into()));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert!(client.is_closed());
}

#[test]
fn a_chunked_request_is_served_and_its_connection_closes() {
    let site = Site::start();
    let mut client = site.client();
    let request = Signed::new("DescribeLimits", "{}").sign(&site.root);
    let head = format!("{}transfer-encoding: chunked\r\n\r\n", request.head());
    client.send_raw(format!("{head}1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n").as_bytes());
    let answer = client.read().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_body_in_many_pieces_is_put_together() {
    let site = Site::start();
    let mut client = site.client();
    let key = client.key();
    let items = vec!["A".repeat(4096); 300];
    let sealed = client.call("BatchEncrypt", &json!({"KeyId": key, "Items": items}));
    let opened = client.call("BatchDecrypt", &json!({"Items": sealed["Items"]}));
    assert_eq!(opened["Items"], json!(items));
    let metrics = client.get("/metrics").text();
    assert!(metrics.contains("\nkeymill_buffered_bytes 0\n"), "the room was given back");
}

#[test]
fn large_bodies_are_throttled_where_no_room_is_left() {
    let site = Site::start_with(|_, engine| engine.max_buffered_bytes = 1 << 20);
    let request = Signed::new("DescribeLimits", vec![b' '; 800_000]).sign(&site.root);
    let mut first = site.client();
    // One that is alone is let in whatever its size; while its body is under way, the next one is not.
    first.send_raw(&request.bytes()[..100_000]);
    let mut prober = site.client();
    let started = Instant::now();
    while prober.get("/metrics").text().contains("\nkeymill_buffered_bytes 0\n") {
        assert!(started.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    let other = Signed::new("DescribeLimits", vec![b' '; 800_000]).sign(&site.root);
    assert_eq!(site.client().send(&other).refusal(), (429, "Rejected.Throttling".into()));
    first.send_raw(&request.bytes()[100_000..]);
    assert_eq!(first.read().unwrap().refusal(), (400, "ParseRequestParameterException".into()));
}

// E6
#[test]
fn a_slow_body_and_a_slow_head_are_cut_off() {
    let short = Duration::from_secs(1);
    let site = Site::start_with(|config, _| {
        config.body_timeout = short;
        config.head_timeout = short;
    });
    let request = Signed::new("DescribeLimits", "{}").sign(&site.root);
    let bytes = request.bytes();
    let mut client = site.client();
    client.send_raw(&bytes[..bytes.len() - 1]);
    let answer = client.read().unwrap();
    assert_eq!(answer.refusal(), (408, "RequestTimeout".into()));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed());

    let mut client = site.client();
    client.send_raw(&bytes[..20]);
    assert_eq!(client.read().unwrap().status, 408);
    assert!(client.is_closed());

    // The head of a later request has the same time, though its answer is the close alone.
    let mut client = site.client();
    assert_eq!(client.send(&request).status, 200);
    client.send_raw(&bytes[..20]);
    assert!(client.is_closed());
}

#[test]
fn a_connection_without_requests_ends_after_its_time() {
    let site = Site::start_with(|config, _| config.keep_alive = Duration::from_millis(200));
    let mut client = site.client();
    assert_eq!(client.get("/healthz").status, 200);
    assert!(client.is_closed());
}

// E7
#[test]
fn requests_that_two_parsers_could_read_differently_are_refused_once_and_closed() {
    let site = Site::start();
    for head in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2\r\ncontent-length: 2",
        "content-length: +2",
        "content-length: 2, 3",
        "transfer-encoding : chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: identity",
        "transfer-encoding: gzip, chunked",
        "x: a\r\n b: c",
        "x: a\rb",
        "x: a\nb: c",
        "x: a\0",
    ] {
        let mut client = site.client();
        client.send_raw(
            format!("POST /v1/DescribeLimits HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n{{}}GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(client.read().unwrap().status, 400, "{head:?}");
        assert!(client.is_closed(), "{head:?}");
    }
    // Behind a sound request, too.
    let mut client = site.client();
    client
        .send_raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\nx: y\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 200);
    assert_eq!(client.read().unwrap().status, 400);
    assert!(client.is_closed());
}

// E5
#[test]
fn heads_over_the_limit_are_refused() {
    let site = Site::start();
    for more in ["x: ".to_owned() + &"a".repeat(1 << 20), "x: a\r\n".repeat(100_000)] {
        let mut client = site.client();
        client.send_raw(format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{more}\r\n\r\n").as_bytes());
        // The close may overtake the answer while the head is still on its way.
        assert!(client.read().is_none_or(|answer| [400, 413, 431].contains(&answer.status)));
        assert!(client.is_closed());
    }
    assert_eq!(site.client().get("/healthz").status, 200);
}

#[test]
fn connections_over_the_limit_are_closed_and_come_in_again_as_others_leave() {
    let site = Site::start_with(|config, _| config.max_connections = 2);
    let (mut a, mut b) = (site.client(), site.client());
    assert_eq!((a.get("/healthz").status, b.get("/healthz").status), (200, 200));
    assert!(site.client().is_closed());
    drop(a);
    let started = Instant::now();
    loop {
        let mut client = site.client();
        client.send_raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
        if client.read().is_some_and(|answer| answer.status == 200) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_stop_lets_what_was_begun_be_answered_and_closes_the_audit_chains() {
    let site = Site::start();
    let mut idle = site.client();
    let mut busy = site.client();
    let key = idle.key();
    let request = Signed::json("Encrypt", &json!({"KeyId": key, "Plaintext": "YQ=="})).sign(&site.root);
    let bytes = request.bytes();
    busy.send_raw(&bytes[..bytes.len() - 1]);
    // Its head has been taken once a later request of another connection to the same worker is answered.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..workers {
        site.client().get("/healthz");
    }
    site.tell_to_stop();
    assert!(idle.is_closed(), "an idle connection ends at once");
    busy.send_raw(&bytes[bytes.len() - 1..]);
    let answer = busy.read().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let records = site.stop();
    let is_close = |line: &&String| line.contains("\"closed\":true");
    assert!(records.iter().filter(is_close).count() > workers, "{records:#?}");
}
