//! The sink against a syslog server in this process: framing, TLS, a server that goes and comes back, a queue that is full.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keymill_audit_syslog::{Config, Policy, SyslogLog, Tls, Transport, open};
use keymill_core::seam::audit::{AuditError, AuditLog, AuditReader, AuditSink, AuditSync};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A log that keeps lines in memory, and takes none where it is told to.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(Vec<u8>, bool)>>);

impl Kept {
    fn lines(&self) -> usize {
        self.0.lock().unwrap().0.iter().filter(|byte| **byte == b'\n').count()
    }
}

impl AuditLog for Kept {
    fn open_chain(&self, _: &str) -> Result<Box<dyn AuditSink>, AuditError> {
        Ok(Box::new(self.clone()))
    }
    fn chains(&self) -> Result<Vec<String>, AuditError> {
        Ok(Vec::new())
    }
    fn reader(&self, _: &str) -> Result<Box<dyn AuditReader>, AuditError> {
        Err(AuditError::Failed("nobody reads here".into()))
    }
    fn bytes(&self, _: &str) -> Result<u64, AuditError> {
        Ok(0)
    }
    fn remove(&self, _: &str) -> Result<(), AuditError> {
        Ok(())
    }
}

impl AuditSink for Kept {
    fn append(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        let mut kept = self.0.lock().unwrap();
        if kept.1 {
            return Err(AuditError::Full("the test says so".into()));
        }
        kept.0.extend_from_slice(lines);
        Ok(())
    }
    fn syncer(&self) -> Result<Box<dyn AuditSync>, AuditError> {
        Err(AuditError::Failed("nobody syncs here".into()))
    }
    fn release_reserve(&mut self) {}
    fn restore_reserve(&mut self) -> bool {
        true
    }
}

fn line(seq: u64) -> Vec<u8> {
    format!(
        "{{\"seq\":{seq},\"time\":\"2026-11-24T05:30:17.012Z\",\"type\":\"request\",\"outcome\":\"ok\"}}\n"
    )
    .into_bytes()
}

/// Reads one message, by its octet count.
fn receive(from: &mut impl BufRead) -> io::Result<String> {
    let mut count = Vec::new();
    from.read_until(b' ', &mut count)?;
    let digits = count.strip_suffix(b" ").ok_or(io::ErrorKind::UnexpectedEof)?;
    let length: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(String::from_utf8(message).unwrap())
}

fn seq_of(message: &str) -> u64 {
    message.split_once(" seq=\"").unwrap().1.split_once('"').unwrap().0.parse().unwrap()
}

fn plain(address: SocketAddr) -> Config {
    Config {
        host: "node-1".into(),
        block_timeout: Duration::from_millis(20),
        timeout: Duration::from_secs(20),
        max_back_off: Duration::from_millis(100),
        drain_timeout: Duration::from_secs(20),
        ..Config::new(address.to_string(), Transport::Tcp)
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    BufReader::new(listener.accept().unwrap().0)
}

#[test]
fn every_line_of_every_chain_arrives_in_its_order_and_the_log_has_it() {
    let (listener, address) = listener();
    let kept = Kept::default();
    let log = open(plain(address), Arc::new(kept.clone())).unwrap();
    let mut sink = log.open_chain("chain-1").unwrap();
    sink.append(&[line(1), line(2)].concat()).unwrap();
    sink.append(&line(3)).unwrap();
    let mut server = accept(&listener);
    for seq in 1..=3 {
        let message = receive(&mut server).unwrap();
        assert!(message.starts_with("<110>1 2026-11-24T05:30:17.012Z node-1 keymill "), "{message}");
        assert!(message.contains(" request [keymill@32473 chain=\"chain-1\" "), "{message}");
        assert_eq!(seq_of(&message), seq);
    }
    log.close().unwrap();
    assert_eq!((kept.lines(), log.beside().unwrap().sent), (3, 3));
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "it hangs up at the end");
}

#[test]
fn a_server_that_goes_and_comes_back_gets_what_waited() {
    let (first, address) = listener();
    let log = open(plain(address), Arc::new(Kept::default())).unwrap();
    let mut sink = log.open_chain("c").unwrap();
    sink.append(&line(1)).unwrap();
    let mut server = accept(&first);
    assert_eq!(seq_of(&receive(&mut server).unwrap()), 1);
    eventually("it is counted", || log.beside().unwrap().sent == 1);
    drop((server, first));
    sink.append(&line(2)).unwrap();
    eventually("the loss is seen", || log.beside().unwrap().trouble.is_some());
    sink.append(&line(3)).unwrap();
    assert_eq!(log.beside().unwrap().queued_lines, 2);
    let again = TcpListener::bind(address).unwrap();
    let mut server = accept(&again);
    for seq in [2, 3] {
        assert_eq!(seq_of(&receive(&mut server).unwrap()), seq);
    }
    log.close().unwrap();
    let report = log.beside().unwrap();
    assert_eq!((report.sent, report.shed, report.reconnects, report.queued_bytes), (3, 0, 1, 0));
}

/// A server that never reads, so that the queue fills.
fn stuck(policy: Policy) -> (TcpListener, Kept, SyslogLog) {
    let (listener, address) = listener();
    drop(listener);
    // Nobody listens: nothing is ever sent.
    let kept = Kept::default();
    let config = Config {
        policy,
        queue_bytes: 4 * line(1).len(),
        drain_timeout: Duration::from_millis(1),
        ..plain(address)
    };
    let log = open(config, Arc::new(kept.clone())).unwrap();
    (TcpListener::bind("127.0.0.1:0").unwrap(), kept, log)
}

#[test]
fn a_full_queue_blocks_and_keeps_nothing_of_what_it_refused() {
    let (_listener, kept, log) = stuck(Policy::Block);
    let mut sink = log.open_chain("c").unwrap();
    for seq in 1..=4 {
        sink.append(&line(seq)).unwrap();
    }
    assert!(matches!(sink.append(&line(5)), Err(AuditError::Blocked(_))));
    assert!(!sink.restore_reserve(), "nothing new is to be taken");
    assert_eq!((kept.lines(), sink.take_shed(true)), (4, None));
    let left = log.close().unwrap_err().to_string();
    assert!(left.contains("4 lines"), "{left}");
}

#[test]
fn a_full_queue_sheds_and_says_how_many_and_which() {
    let (_listener, kept, log) = stuck(Policy::Shed);
    let mut sink = log.open_chain("c").unwrap();
    for seq in 1..=4 {
        sink.append(&line(seq)).unwrap();
    }
    assert_eq!(sink.take_shed(true), None);
    sink.append(&[line(5), line(6)].concat()).unwrap();
    sink.append(&line(7)).unwrap();
    assert_eq!(sink.take_shed(false), None, "not while it stays full");
    let shed = sink.take_shed(true).unwrap();
    assert_eq!((shed.sink, shed.lines, shed.first, shed.last), ("syslog", 3, 5, 7));
    assert_eq!((sink.take_shed(true), kept.lines(), log.beside().unwrap().shed), (None, 7, 3));
}

#[test]
fn what_the_log_does_not_take_is_not_sent_and_takes_no_room() {
    let (_listener, kept, log) = stuck(Policy::Block);
    let mut sink = log.open_chain("c").unwrap();
    kept.0.lock().unwrap().1 = true;
    for seq in 1..=20 {
        assert!(matches!(sink.append(&line(seq)), Err(AuditError::Full(_))));
    }
    let report = log.beside().unwrap();
    assert_eq!((report.queued_lines, report.queued_bytes), (0, 0));
}

struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("keymill-syslog-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns a server's configuration for `localhost`, and its certificate in PEM.
fn certified() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}

fn over_tls(address: SocketAddr, ca_file: PathBuf) -> Config {
    let tls = Tls { ca_file, server_name: Some("localhost".into()), ..Tls::default() };
    Config { transport: Transport::Tls(tls), ..plain(address) }
}

#[test]
fn lines_go_over_tls_to_a_server_that_is_trusted_and_to_no_other() {
    let files = Files::new("trusted");
    let (server, ours) = certified();
    let (_, other) = certified();
    let (trusted, another) = (files.write("ca.pem", &ours), files.write("other.pem", &other));

    let (listener, address) = listener();
    let log = open(over_tls(address, another), Arc::new(Kept::default())).unwrap();
    log.open_chain("c").unwrap().append(&line(1)).unwrap();
    let tcp = listener.accept().unwrap().0;
    let mut stream = StreamOwned::new(ServerConnection::new(server.clone()).unwrap(), tcp);
    assert!(stream.read(&mut [0; 64]).is_err(), "it does not shake hands");
    eventually("it says why", || {
        log.beside().unwrap().trouble.is_some_and(|why| why.contains("certificate"))
    });
    assert_eq!(log.beside().unwrap().sent, 0);
    drop((log, stream, listener));

    let (listener, address) = self::listener();
    let log = open(over_tls(address, trusted), Arc::new(Kept::default())).unwrap();
    log.open_chain("c").unwrap().append(&[line(1), line(2)].concat()).unwrap();
    let tcp = listener.accept().unwrap().0;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(server).unwrap(), tcp));
    assert_eq!(seq_of(&receive(&mut stream).unwrap()), 1);
    assert_eq!(seq_of(&receive(&mut stream).unwrap()), 2);
    log.close().unwrap();
    assert_eq!(log.beside().unwrap().sent, 2);
}

#[test]
fn plain_tcp_leaves_this_machine_never_and_half_a_configuration_is_refused() {
    let refused = |config: Config| open(config, Arc::new(Kept::default())).err().unwrap().to_string();
    let away = refused(Config::new("192.0.2.1:514", Transport::Tcp));
    assert!(away.contains("not this machine"), "{away}");
    for address in ["", "localhost", "localhost:", ":514", "localhost:99999"] {
        assert!(refused(Config::new(address, Transport::Tcp)).contains("HOST:PORT"), "{address}");
    }
    let files = Files::new("refused");
    let (_, pem) = certified();
    let ca_file = files.write("ca.pem", &pem);
    let tls = |tls: Tls| Config::new("localhost:6514", Transport::Tls(tls));
    let absent = Tls { ca_file: "/nowhere/ca.pem".into(), ..Tls::default() };
    assert!(refused(tls(absent)).contains("/nowhere/ca.pem"));
    let empty = Tls { ca_file: files.write("empty.pem", "nothing"), ..Tls::default() };
    assert!(refused(tls(empty)).contains("no certificate"));
    let half = Tls { cert_file: Some(ca_file.clone()), ca_file, ..Tls::default() };
    assert!(refused(tls(half)).contains("both"));
}
