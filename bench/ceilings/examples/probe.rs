//! Prints what each ceiling reaches on this machine, for a quick look:
//! `cargo run --release -p keymill-ceilings --example probe`.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use keymill_ceilings::{BareLoop, HttpEcho, Load, Mode, RawClient, Request, Run, raw};

const RUN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for threads in [1, 2] {
        for (item_len, items) in [(32, 256), (256, 256), (1024, 256), (4096, 64), (65_536, 4)] {
            let load = Load { items, item_len, aad_len: 26, threads };
            let sealed = median(|| Ok(raw::seal(load, Run::For(RUN / 4))))?;
            let opened = median(|| Ok(raw::open(load, Run::For(RUN / 4))))?;
            writeln!(
                out,
                "raw  {threads} thread(s) {items:>4} x {item_len:>6} B  seal {} open {}",
                m(sealed),
                m(opened)
            )?;
        }
    }
    for mode in [Mode::Seal, Mode::Echo] {
        let server = BareLoop::start(mode)?;
        let item = [0x5a; 1024];
        let blob = sealed_blob(&mut RawClient::connect(server.addr)?, &item)?;
        let shapes: [(&str, Request, u64); 10] = [
            ("Encrypt 1 KiB, 1 in flight", Request::single("Encrypt", "Plaintext", &item), 1),
            ("Encrypt 1 KiB, 64", Request::single("Encrypt", "Plaintext", &item), 64),
            ("Encrypt 1 KiB, 512", Request::single("Encrypt", "Plaintext", &item), 512),
            ("Decrypt 1 KiB, 512", Request::single("Decrypt", "CiphertextBlob", &blob), 512),
            ("BatchEncrypt 1 x 1 KiB, 64", Request::batch("BatchEncrypt", &[item]), 64),
            ("BatchEncrypt 16 x 1 KiB, 32", Request::batch("BatchEncrypt", &[item; 16]), 32),
            ("BatchEncrypt 256 x 1 KiB, 1", Request::batch("BatchEncrypt", &[item; 256]), 1),
            ("BatchEncrypt 256 x 1 KiB, 4", Request::batch("BatchEncrypt", &[item; 256]), 4),
            ("BatchDecrypt 256 x 1 KiB, 4", Request::batch("BatchDecrypt", &vec![&blob; 256]), 4),
            ("BatchEncrypt 4096 x 1 KiB, 1", Request::batch("BatchEncrypt", &vec![item; 4096]), 1),
        ];
        for (name, request, depth) in shapes {
            let rate = median(|| pumped(server.addr, &request, depth))?;
            writeln!(out, "{mode:?} {name:<30} {}", m(rate))?;
        }
    }
    for workers in [1, 2] {
        let echo = HttpEcho::start_answering(workers, "x".repeat(1600))?;
        for connections in [1, 8] {
            let rate = median(|| posted(echo.addr, connections))?;
            writeln!(out, "http {workers} worker(s), {connections} connection(s), 1 KiB  {}", m(rate))?;
        }
    }
    Ok(())
}

fn m(rate: f64) -> String {
    format!("{:>7.3} M/s", rate / 1e6)
}

fn median(mut measure: impl FnMut() -> io::Result<f64>) -> io::Result<f64> {
    let mut rates = (0..ROUNDS).map(|_| measure()).collect::<io::Result<Vec<f64>>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(rates[ROUNDS / 2])
}

fn pumped(addr: SocketAddr, request: &Request, depth: u64) -> io::Result<f64> {
    let mut client = RawClient::connect(addr)?;
    client.pump(request, 2 * depth, depth)?;
    let (start, mut items) = (Instant::now(), 0);
    while start.elapsed() < RUN {
        items += client.pump(request, 64 * depth, depth)?;
    }
    Ok(items as f64 / start.elapsed().as_secs_f64())
}

/// The blob is all of a single answer between its head (27 bytes) and the ids behind it.
fn sealed_blob(client: &mut RawClient, item: &[u8]) -> io::Result<Vec<u8>> {
    let answer = client.call(&Request::single("Encrypt", "Plaintext", item))?;
    let marker = [0xc5, 0x04, 0x3e]; // bin 16 of 1024 + 62 bytes
    let at = answer.windows(3).position(|bytes| bytes == marker).ok_or(io::ErrorKind::InvalidData)?;
    Ok(answer[at + 3..at + 3 + item.len() + raw::OVERHEAD].to_vec())
}

/// Keep-alive requests of a body as long as a JSON `Encrypt` of 1 KiB, one in flight a connection.
fn posted(addr: SocketAddr, connections: usize) -> io::Result<f64> {
    let body =
        format!(r#"{{"KeyId":"6b6d0000-0000-4000-8000-000000000001","Plaintext":"{}"}}"#, "A".repeat(1368));
    let request =
        format!("POST /v1/Encrypt HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let one = || -> io::Result<u64> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let (start, mut answers, mut buffer) = (Instant::now(), 0, vec![0; 8192]);
        while start.elapsed() < RUN {
            stream.write_all(request.as_bytes())?;
            let mut answer = 0;
            while !buffer[..answer].ends_with(b"xx") || answer < 1600 {
                match stream.read(&mut buffer[answer..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => answer += read,
                }
            }
            answers += 1;
        }
        Ok(answers)
    };
    let answers = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client thread ran to its end"))
            .sum::<io::Result<u64>>()
    })?;
    Ok(answers as f64 / RUN.as_secs_f64())
}
