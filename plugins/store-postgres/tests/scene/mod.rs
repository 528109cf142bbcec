//! What the tests share: a server, stores on schemas of their own, and a way in between that loses things on demand.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::seam::store::{Path, Revision, Write};
use keymill_databases::{Database, Postgres, shared};
use keymill_store_postgres::{Config, Place, PostgresStore, open};

static POSTGRES: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
static SCHEMAS: AtomicUsize = AtomicUsize::new(0);

/// A server that keeps what it acknowledges, with a role and a database.
pub fn server() -> Postgres {
    server_with(&["fsync=on", "log_statement=none", "log_min_messages=warning"])
}

/// The same with options.
pub fn server_with(options: &[&str]) -> Postgres {
    let postgres = Postgres::start_with(options);
    postgres.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
    postgres.sql("GRANT CREATE ON DATABASE postgres TO keymill");
    postgres
}

/// The server that the tests of a program share.
pub fn shared_server() -> Arc<Postgres> {
    shared(&POSTGRES, server)
}

/// A name for a schema that no other test has.
pub fn fresh_schema() -> String {
    format!("test_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed))
}

/// A store's options at a port of this machine.
pub fn at(port: u16, schema: &str) -> Config {
    Config {
        password: Some(Sensitive::copied(b"a password")),
        // Where the superuser's own statements go, too.
        database: "postgres".into(),
        schema: schema.into(),
        timeout: Duration::from_secs(20),
        ..Config::new([Place::Tcp { host: "127.0.0.1".into(), port }])
    }
}

/// A store on a new schema.
pub fn fresh(postgres: &Postgres) -> (PostgresStore, String) {
    let schema = fresh_schema();
    (open(at(postgres.port(), &schema)).expect("the store opens"), schema)
}

pub fn path(text: &str) -> Path {
    Path::new(text).expect("the tests name paths")
}

pub fn put(at: &str, expected: Option<Revision>, value: &[u8]) -> Write {
    Write { path: path(at), expected, value: Some(value.to_vec()) }
}

pub fn removal(at: &str, expected: Revision) -> Write {
    Write { path: path(at), expected: Some(expected), value: None }
}

/// What becomes of what comes through the way in between.
pub const PASSES: u8 = 0;
/// The answer to the next COMMIT is lost, and the connection with it.
pub const LOSES_ANSWER: u8 = 1;
/// The next COMMIT does not arrive, and the connection is lost.
pub const LOSES_COMMIT: u8 = 2;
/// The next COMMIT does not arrive, and the connection stays, as with a node that is paused there.
pub const STALLS_COMMIT: u8 = 3;
/// Nothing arrives, in silence.
pub const SILENT: u8 = 4;
/// What listens is something that the server does not know.
pub const HAS_NO_LISTEN: u8 = 5;

/// A way to the server that loses things on demand.
pub struct Between {
    pub port: u16,
    server: Arc<AtomicU16>,
    mode: Arc<AtomicU8>,
    /// What was lost.
    pub losses: Arc<AtomicUsize>,
}

impl Between {
    /// Listens on a port of its own.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let port = listener.local_addr().expect("it is bound").port();
        let (mode, losses) = (Arc::new(AtomicU8::new(PASSES)), Arc::new(AtomicUsize::new(0)));
        let (its_mode, its_losses) = (mode.clone(), losses.clone());
        let server = Arc::new(AtomicU16::new(server));
        let its_server = server.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let port = its_server.load(Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                lead(client, server, &its_mode, &its_losses);
            }
        });
        Self { port, server, mode, losses }
    }

    /// Leads those who connect from here on to another server; who is connected stays where it is.
    pub fn lead_to(&self, server: u16) {
        self.server.store(server, Ordering::SeqCst);
    }

    /// Says what is to become of what comes from here on.
    pub fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    pub fn losses(&self) -> usize {
        self.losses.load(Ordering::SeqCst)
    }
}

fn lead(client: TcpStream, server: TcpStream, mode: &Arc<AtomicU8>, losses: &Arc<AtomicUsize>) {
    let _slower = client.set_nodelay(true).and(server.set_nodelay(true));
    let is_lost = Arc::new(AtomicBool::new(false));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket can be cloned");
    let (mut from, mut to) = (clone(&client), clone(&server));
    let (its_mode, its_losses, loses) = (mode.clone(), losses.clone(), is_lost.clone());
    thread::spawn(move || {
        let mut bytes = [0; 64 << 10];
        let mut stalls = false;
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mode = its_mode.load(Ordering::SeqCst);
            let commits = bytes[..count].windows(7).any(|window| window == b"COMMIT\0");
            match mode {
                _ if stalls => continue,
                SILENT => continue,
                LOSES_ANSWER if commits => {
                    loses.store(true, Ordering::SeqCst);
                    its_losses.fetch_add(1, Ordering::SeqCst);
                    its_mode.store(PASSES, Ordering::SeqCst);
                }
                LOSES_COMMIT if commits => {
                    its_losses.fetch_add(1, Ordering::SeqCst);
                    its_mode.store(PASSES, Ordering::SeqCst);
                    break;
                }
                STALLS_COMMIT if commits => {
                    its_losses.fetch_add(1, Ordering::SeqCst);
                    its_mode.store(PASSES, Ordering::SeqCst);
                    stalls = true;
                    continue;
                }
                HAS_NO_LISTEN => {
                    if let Some(at) = bytes[..count].windows(7).position(|window| window == b"LISTEN ") {
                        bytes[at..at + 6].copy_from_slice(b"LISTED");
                        its_losses.fetch_add(1, Ordering::SeqCst);
                    }
                }
                _ => {}
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // A node that is paused does not hang up, either.
        if !stalls {
            let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    });
    let (mut from, mut to) = (server, client);
    let its_mode = mode.clone();
    thread::spawn(move || {
        let mut bytes = [0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if its_mode.load(Ordering::SeqCst) == SILENT {
                continue;
            }
            if is_lost.load(Ordering::SeqCst) {
                // The answer to the last statement comes last, and is what says that the commit is durable.
                if bytes[..count].windows(7).any(|window| window == b"COMMIT\0") {
                    break;
                }
                continue;
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
