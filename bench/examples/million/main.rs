//! One million CMKs: `keymill serve` on a store that holds them beside one that holds ten, both programs running at the same time. How long
//! until it serves, how much memory a CMK takes that nobody uses, what a page of keys and a look at one cost, and what it costs to
//! work under many keys in place of one. `cargo run --release -p keymill-bench --example million [CMKS [DIR]]`, after
//! `cargo build --release -p keymill`; the stores are made first, which takes a minute, and kept where a directory is named.

#![allow(clippy::print_stdout, reason = "its table")]

mod fill;
mod load;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_core::operation::CreateKeyRequest;
use keymill_harness::program::{self, Server};

use load::{Asking, Batches, Dice};
use report::Row;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// CMKs of the store that the other is measured against.
const FEW: usize = 10;
/// CMKs that are worked under at the same time.
const IN_USE: usize = 10_000;
/// Starts of each server that are timed.
const STARTS: usize = 3;
const PAIRS: usize = 9;
const LEG: Duration = Duration::from_millis(500);
/// How long a server is left alone before its memory is looked at: its timers have run once.
const SETTLES: Duration = Duration::from_secs(3);
/// Seconds, bytes of memory, and shares that are asked for.
const READY_WITHIN: f64 = 5.0;
const BYTES_A_CMK: f64 = 600.0;
const READS: f64 = 0.5;
const MANY_KEYS: f64 = 0.8;

fn main() -> Result<()> {
    let many = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let (scratch, kept) = (tempfile::tempdir()?, std::env::args().nth(2).map(PathBuf::from));
    let directory = kept.as_deref().unwrap_or(scratch.path());
    let places = [FEW, many].map(|cmks| directory.join(cmks.to_string()));
    for (place, cmks) in places.iter().zip([FEW, many]) {
        // What an earlier run has made is used again.
        if !place.exists() {
            std::fs::create_dir_all(place)?;
            make(place)?;
            let began = Instant::now();
            fill::fill(place, cmks)?;
            println!("{cmks} CMKs stored in {:.1} s", began.elapsed().as_secs_f64());
        }
    }
    let [few_ids, many_ids] = [fill::ids(&places[0])?, fill::ids(&places[1])?];

    let mut ready = [Vec::new(), Vec::new()];
    for _ in 0..STARTS {
        for (place, times) in places.iter().zip(&mut ready) {
            let began = Instant::now();
            let server = Server::start(place);
            times.push(began.elapsed().as_secs_f64());
            server.stop();
        }
    }
    let servers = [Server::start(&places[0]), Server::start(&places[1])];
    std::thread::sleep(SETTLES);
    let memory = [memory(&servers[0])?, memory(&servers[1])?];
    let per_cmk = (memory[1].resident - memory[0].resident) / (many - FEW) as f64;

    println!();
    report::figure("ready after", "s", report::median(&ready[1]), report::median(&ready[0]), READY_WITHIN);
    report::figure("resident, a CMK", "B", per_cmk, f64::NAN, BYTES_A_CMK);
    println!(
        "  resident {:.0} MiB, at most {:.0} MiB at the start",
        memory[1].resident / MIB,
        memory[1].peak / MIB
    );

    let credentials = places.each_ref().map(|place| program::credentials(place));
    reads([&servers[0], &servers[1]], &credentials, [&few_ids, &many_ids])?;
    batches(&servers[1], &credentials[1], &many_ids)?;
    for server in servers {
        server.stop();
    }
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;

/// Starts a server for the first time, and has it make the keys that the others are made like.
fn make(place: &Path) -> Result<()> {
    let server = Server::start(place);
    let mut connection =
        Server::connect(server.msgpack, &program::credentials(place)).ok_or("the server is not there")?;
    for number in 0..FEW {
        let description = Some(fill::description(number));
        let request = CreateKeyRequest { description, ..Default::default() };
        connection.send(&request.into())?;
        connection.receive()?.result()?;
    }
    server.stop();
    Ok(())
}

/// Bytes of memory of a process.
struct Memory {
    resident: f64,
    peak: f64,
}

fn memory(server: &Server) -> Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok::<_, Box<dyn Error>>(kib * 1024.0)
    };
    Ok(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// Pages of keys, and single keys, of the many beside the few.
fn reads(servers: [&Server; 2], credentials: &[Credentials; 2], ids: [&[CmkId]; 2]) -> Result<()> {
    let middle = |ids: &[CmkId]| (ids.len() / 20).max(1) as u32;
    type Make = fn(&[CmkId], &mut Dice, u32) -> keymill_core::operation::Request<'static>;
    let rows: [(&str, Make); 3] = [
        ("ListKeys, the first page", |_, _, _| load::list(1)),
        ("ListKeys, a page of the middle", |_, _, middle| load::list(middle)),
        ("DescribeKey", |ids, dice, _| load::describe(*dice.choose(ids))),
    ];
    for (name, make) in rows {
        for depth in [1, 64] {
            let mut asking =
                [0, 1].map(|side| Asking::open(servers[side].msgpack, &credentials[side], depth));
            let mut dice = Dice::default();
            let mut row = Row::default();
            for pair in 0..=PAIRS {
                let mut rates = [0.0; 2];
                for (side, rate) in rates.iter_mut().enumerate() {
                    let asking = asking[side].as_mut().map_err(|error| error.to_string())?;
                    *rate = asking.run(LEG, || make(ids[side], &mut dice, middle(ids[side])))?;
                }
                // The first is a warm-up.
                if pair > 0 {
                    row.push(rates[1], rates[0]);
                }
            }
            row.print(&format!("{name}, {depth} in flight"), "requests/s", Some(READS));
        }
    }
    Ok(())
}

/// Batches under keys at random beside batches under one, on the same server.
fn batches(server: &Server, credentials: &Credentials, ids: &[CmkId]) -> Result<()> {
    let in_use = &ids[..IN_USE.min(ids.len())];
    for (name, target, open) in [
        ("BatchEncrypt 256 x 1 KiB, a random CMK each", Some(MANY_KEYS), false),
        ("BatchDecrypt 256 x 1 KiB, a random CMK each item", None, true),
    ] {
        let mut ours = Batches::open(server.msgpack, credentials, in_use, open)?;
        let mut one = Batches::open(server.msgpack, credentials, &in_use[..1], open)?;
        let mut row = Row::default();
        for pair in 0..=PAIRS {
            let (ours, one) = (ours.run(LEG)?, one.run(LEG)?);
            if pair > 0 {
                row.push(ours, one);
            }
        }
        row.print(name, "items/s", target);
    }
    Ok(())
}
