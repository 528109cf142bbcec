//! The frontends with the least client: frames and requests are made beforehand, so that what is timed is the server and the kernel.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keymill_bench::Fixture;
use keymill_bench::premade::Premade;
use keymill_bench::pump::{self, What};
use keymill_bench::web::{Signer, Web};

const PAYLOAD_BYTES: usize = 1024;

fn msgpack(c: &mut Criterion) {
    let fixture = Fixture::start().expect("keymill starts");
    let mut group = c.benchmark_group("msgpack");
    for (items, depth) in [(1, 1), (1, 64), (1, 512), (16, 16), (256, 4)] {
        let payloads = vec![vec![0x5a; PAYLOAD_BYTES]; items];
        let what = if items == 1 { What::Encrypt } else { What::BatchEncrypt };
        let request = pump::request(what, &fixture.key(), &payloads);
        let mut client = Premade::connect(fixture.msgpack, fixture.access_key(), &request).expect("a login");
        group.throughput(Throughput::Elements((items * depth) as u64));
        group.bench_function(format!("{what:?} {items} x 1 KiB, {depth} in flight"), |b| {
            b.iter(|| client.pump(depth, depth));
        });
    }
    group.finish();
}

fn http(c: &mut Criterion) {
    let fixture = Fixture::start().expect("keymill starts");
    let signer = Signer::new(&fixture, &[0x5a; PAYLOAD_BYTES]).expect("a request has an encoding");
    let mut web = Web::connect(fixture.http, 2).expect("a connection");
    let mut group = c.benchmark_group("http");
    group.throughput(Throughput::Elements(1));
    group.bench_function("Encrypt 1 KiB, JSON, signed", |b| {
        b.iter_batched(
            || signer.sign().expect("there is randomness"),
            |request| web.call(&request),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, msgpack, http);
criterion_main!(benches);
