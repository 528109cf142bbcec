//! The requests, and how many of them are on their way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keymill_bench::pump::{self, What};
use keymill_client::{Connection, Credentials, Options};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{DescribeKeyRequest, ListKeysRequest, Reply, Request};

use super::Result;

const ITEMS: usize = 256;
const ITEM_BYTES: usize = 1024;
/// Batches in flight on a connection.
const DEPTH: usize = 4;
const CONNECTIONS: usize = 2;

/// Chooses at random, the same in each run (xorshift64, Marsaglia 2003).
pub(crate) struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Dice {
    pub(crate) fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        &of[(self.0 % of.len() as u64) as usize]
    }
}

/// Returns a request for a page of ten keys.
pub(crate) fn list(page: u32) -> Request<'static> {
    ListKeysRequest { page_number: Some(page), page_size: Some(10), filters: None, timeout_ms: None }.into()
}

/// Returns a request for what is known of a key.
pub(crate) fn describe(id: CmkId) -> Request<'static> {
    DescribeKeyRequest { key_id: KeyRef::Id(id), timeout_ms: None }.into()
}

/// One connection with so many requests in flight.
pub(crate) struct Asking {
    connection: Connection,
    depth: usize,
}

impl Asking {
    pub(crate) fn open(address: SocketAddr, credentials: &Credentials, depth: usize) -> Result<Self> {
        Ok(Self { connection: Connection::open(address, credentials, &Options::default())?, depth })
    }

    /// Asks for so long, and returns answers a second.
    pub(crate) fn run(&mut self, time: Duration, mut make: impl FnMut() -> Request<'static>) -> Result<f64> {
        let (began, mut answers) = (Instant::now(), 0);
        let half = self.depth.div_ceil(2);
        self.send(self.depth, &mut make)?;
        loop {
            let last = began.elapsed() >= time;
            for _ in 0..if last { self.depth } else { half } {
                self.connection.receive()?.result()?;
                answers += 1;
            }
            if last {
                return Ok(f64::from(answers) / began.elapsed().as_secs_f64());
            }
            self.send(half, &mut make)?;
        }
    }

    fn send(&mut self, count: usize, make: &mut dyn FnMut() -> Request<'static>) -> Result<()> {
        for _ in 0..count {
            self.connection.send(&make())?;
        }
        Ok(self.connection.flush()?)
    }
}

/// Connections with batches in flight: each is sealed under another key of many, or holds items of them to be opened.
pub(crate) struct Batches(Vec<Line>);

struct Line {
    connection: Connection,
    keys: Vec<KeyRef>,
    /// Plaintexts, or a blob of each key.
    pool: Vec<Vec<u8>>,
    opens: bool,
    dice: Dice,
}

impl Batches {
    /// Connects, and has each key used once: what is measured is keys in use.
    pub(crate) fn open(
        address: SocketAddr,
        credentials: &Credentials,
        ids: &[CmkId],
        opens: bool,
    ) -> Result<Self> {
        let line = |number: u64| -> Result<Line> {
            let mut connection = Connection::open(address, credentials, &Options::default())?;
            let keys: Vec<_> = ids.iter().copied().map(KeyRef::Id).collect();
            let payloads = vec![vec![0x5a; ITEM_BYTES]; ITEMS];
            let mut blobs = Vec::new();
            for chunk in keys.chunks(64) {
                for key in chunk {
                    connection.send(&pump::request(What::Encrypt, key, &payloads))?;
                }
                connection.flush()?;
                for _ in chunk {
                    let answer = connection.receive()?;
                    let Reply::Encrypt(sealed) = answer.result()? else { return Err("no blob".into()) };
                    blobs.push(sealed.ciphertext_blob.into_vec());
                }
            }
            let pool = if opens { blobs } else { payloads };
            Ok(Line { connection, keys, pool, opens, dice: Dice(Dice::default().0 ^ number) })
        };
        Ok(Self((0..CONNECTIONS as u64).map(line).collect::<Result<_>>()?))
    }

    /// Keeps the batches in flight for so long, and returns items a second.
    pub(crate) fn run(&mut self, time: Duration) -> Result<f64> {
        let began = Instant::now();
        let batches: u32 = std::thread::scope(|scope| {
            let run = |line| scope.spawn(move || Line::run(line, time).map_err(|error| error.to_string()));
            let threads: Vec<_> = self.0.iter_mut().map(run).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it runs to its end"))
                .sum::<std::result::Result<_, _>>()
        })?;
        Ok(f64::from(batches) * ITEMS as f64 / began.elapsed().as_secs_f64())
    }
}

impl Line {
    fn run(&mut self, time: Duration) -> Result<u32> {
        let (began, mut batches) = (Instant::now(), 0);
        for _ in 0..DEPTH {
            self.send()?;
        }
        self.connection.flush()?;
        loop {
            let last = began.elapsed() >= time;
            for _ in 0..if last { DEPTH } else { DEPTH / 2 } {
                let answer = self.connection.receive()?;
                let errors = match answer.result()? {
                    Reply::BatchEncrypt(reply) => reply.errors.len(),
                    Reply::BatchDecrypt(reply) => reply.errors.len(),
                    other => return Err(format!("unexpected {:?}", other.operation()).into()),
                };
                if errors > 0 {
                    return Err(format!("{errors} items failed").into());
                }
                batches += 1;
            }
            if last {
                return Ok(batches);
            }
            for _ in 0..DEPTH / 2 {
                self.send()?;
            }
            self.connection.flush()?;
        }
    }

    fn send(&mut self) -> Result<()> {
        if self.opens {
            let blobs: Vec<Vec<u8>> = (0..ITEMS).map(|_| self.dice.choose(&self.pool).clone()).collect();
            self.connection.send(&pump::request(What::BatchDecrypt, &KeyRef::Unknown, &blobs))?;
        } else {
            let key = self.dice.choose(&self.keys);
            self.connection.send(&pump::request(What::BatchEncrypt, key, &self.pool))?;
        }
        Ok(())
    }
}
