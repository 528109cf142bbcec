//! The gate without a network: a batch on the caller's thread, beside raw AES-256-GCM of the same batch; and the same with quotas, which are
//! counted and exceeded by nobody.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keymill_bench::Fixture;
use keymill_bench::in_process::Caller;
use keymill_ceilings::RawSealer;

fn gate(c: &mut Criterion) {
    let fixture = Fixture::start().expect("keymill starts");
    let mut group = c.benchmark_group("gate");
    for (items, item_len) in [(1, 1024), (256, 32), (256, 1024), (64, 65_536)] {
        group.throughput(Throughput::Elements(items as u64));
        let name = |what: &str| BenchmarkId::new(what, format!("{items}x{item_len}"));
        let mut sealing = Caller::sealing(&fixture, items, item_len);
        group.bench_function(name("seal"), |b| b.iter(|| sealing.batch()));
        let mut opening = Caller::opening(&fixture, items, item_len).expect("a batch is sealed");
        group.bench_function(name("open"), |b| b.iter(|| opening.batch()));
        let (mut raw, plaintexts, mut out) = (RawSealer::new(26), vec![0x5a; items * item_len], Vec::new());
        group.bench_function(name("raw seal"), |b| {
            b.iter(|| raw.batch(black_box(&plaintexts), item_len, &mut out));
        });
    }
    group.finish();
}

fn quotas(c: &mut Criterion) {
    let (off, on) = (Fixture::start(), Fixture::start_with_quotas());
    let (off, on) = (off.expect("keymill starts"), on.expect("keymill starts"));
    let mut group = c.benchmark_group("quota");
    for (items, item_len) in [(1, 32), (256, 32)] {
        for (what, fixture) in [("off", &off), ("on", &on)] {
            let mut sealing = Caller::sealing(fixture, items, item_len);
            let name = BenchmarkId::new(what, format!("{items}x{item_len}"));
            group.bench_function(name, |b| b.iter(|| sealing.batch()));
        }
    }
    group.finish();
}

criterion_group!(benches, gate, quotas);
criterion_main!(benches);
