//! Keeps one load running on a server in this process, for a profiler: `bench/README.md` has the command. The client sends frames
//! made beforehand, so that what shows is the server.

use std::time::{Duration, Instant};

use keymill_bench::premade::Premade;
use keymill_bench::pump::{self, What};
use keymill_bench::{BenchError, Fixture};

fn main() -> Result<(), BenchError> {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (items, depth, seconds, connections) = (number(256), number(4), number(5), number(1));
    let fixture = Fixture::start()?;
    let payloads = vec![vec![0x5a; 1024]; items];
    let what = if items == 1 { What::Encrypt } else { What::BatchEncrypt };
    let request = pump::request(what, &fixture.key(), &payloads);
    let mut clients: Vec<Premade> = (0..connections)
        .map(|_| Premade::connect(fixture.msgpack, fixture.access_key(), &request))
        .collect::<Result<_, _>>()?;
    let start = Instant::now();
    let one = |client: &mut Premade| {
        let mut frames = 0;
        while start.elapsed() < Duration::from_secs(seconds as u64) {
            client.pump(32 * depth, depth)?;
            frames += 32 * depth;
        }
        Ok(frames)
    };
    let frames: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| one(client))).collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client runs to its end"))
            .sum::<Result<_, BenchError>>()
    })?;
    let rate = (frames * items) as f64 / start.elapsed().as_secs_f64();
    drop(std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{rate:.0} items/s\n")));
    Ok(())
}
