//! A syslog server beside the audit files, as the engine drives it: what arrives is what the files have, a full queue refuses requests or is
//! told in the chain, and the server goes on when the other is there again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use keymill_audit_syslog::{Config, Policy, Transport, open};
use keymill_core::seam::audit::AuditLog;
use keymill_e2e::{Caller, audit_lines, eventually, metric, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::Value;

fn start(address: SocketAddr, policy: Policy, queue_bytes: usize) -> Started {
    let config = Config {
        policy,
        queue_bytes,
        block_timeout: Duration::from_millis(20),
        max_back_off: Duration::from_millis(100),
        drain_timeout: Duration::from_secs(20),
        ..Config::new(address.to_string(), Transport::Tcp)
    };
    let beside =
        move |inner: Arc<dyn AuditLog>| -> Arc<dyn AuditLog> { Arc::new(open(config, inner).unwrap()) };
    Live::start_with(Setup::new(EngineConfig::default()).with_workers(1).with_audit(beside))
}

/// Takes messages of one connection until it ends, and returns the lines in them.
fn taken(listener: TcpListener) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut server = BufReader::new(listener.accept().unwrap().0);
        let mut lines = Vec::new();
        let mut count = Vec::new();
        while server.read_until(b' ', &mut count).unwrap() > 0 {
            let length: usize =
                std::str::from_utf8(count.strip_suffix(b" ").unwrap()).unwrap().parse().unwrap();
            let mut message = vec![0; length];
            server.read_exact(&mut message).unwrap();
            let message = String::from_utf8(message).unwrap();
            lines.push(message.split_once("] {").unwrap().1.to_owned());
            count.clear();
        }
        lines
    })
}

#[test]
fn what_arrives_is_what_the_files_have_line_for_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = taken(listener);
    let Started { live, credentials } = start(address, Policy::Block, 1 << 20);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    for _ in 0..50 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    eventually("lines are sent", || {
        (metric(&live, "keymill_audit_sink_sent_total{sink=\"syslog\"}") > 50.0).then_some(())
    });
    assert_eq!(metric(&live, "keymill_audit_sink_connected{sink=\"syslog\"}"), 1.0);
    drop(caller);
    let site = live.halt();
    let arrived: BTreeSet<String> = server
        .join()
        .unwrap()
        .iter()
        .map(|line| serde_json::from_str::<Value>(&format!("{{{line}")).unwrap().to_string())
        .collect();
    let kept: BTreeSet<String> = audit_lines(&site).iter().map(Value::to_string).collect();
    assert_eq!(arrived, kept);
    verified(&site);
}

#[test]
fn a_full_queue_refuses_requests_until_the_server_is_there() {
    // A port that nobody listens on yet.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let Started { live, credentials } = start(address, Policy::Block, 16 << 10);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let refused = (0..1_000).find_map(|_| caller.encrypt(key, b"x", &[]).err());
    assert!(refused.is_some(), "the queue is not endless");
    assert_eq!(metric(&live, "keymill_audit_healthy"), 0.0);
    let server = taken(TcpListener::bind(address).unwrap());
    eventually("requests are taken again", || caller.encrypt(key, b"x", &[]).ok());
    drop(caller);
    let site = live.halt();
    verified(&site);
    assert!(audit_lines(&site).iter().any(|line| line["note"] == "gap"), "the time without is noted");
    assert!(!server.join().unwrap().is_empty());
}

#[test]
fn a_full_queue_that_sheds_refuses_nothing_and_the_chain_says_what_was_not_sent() {
    // A port that nobody listens on yet.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let Started { live, credentials } = start(address, Policy::Shed, 16 << 10);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    for _ in 0..200 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    let dropped = metric(&live, "keymill_audit_sink_dropped_total{sink=\"syslog\"}");
    assert!(dropped > 50.0, "{dropped}");
    let server = taken(TcpListener::bind(address).unwrap());
    eventually("the queue is sent", || {
        (metric(&live, "keymill_audit_sink_queue_lines{sink=\"syslog\"}") == 0.0).then_some(())
    });
    caller.encrypt(key, b"x", &[]).unwrap();
    drop(caller);
    let site = live.halt();
    let shed: Vec<_> = verified(&site).into_iter().flat_map(|report| report.shed).collect();
    let lines = audit_lines(&site).len() as u64;
    let arrived = server.join().unwrap().len() as u64;
    // Every line arrived, or is counted as one that did not.
    assert_eq!(shed.iter().map(|shed| shed.lines).sum::<u64>(), lines - arrived);
    assert!(shed.iter().all(|shed| shed.sink == "syslog" && shed.last >= shed.first), "{shed:?}");
}
