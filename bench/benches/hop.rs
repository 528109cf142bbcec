//! One message: what it costs to hand one job to another thread and back, beside a plain channel.

use criterion::{Criterion, criterion_group, criterion_main};
use keymill_bench::hop::{ChannelHop, LaneHop};

fn hop(c: &mut Criterion) {
    let (lane, channel) =
        (LaneHop::start().expect("a thread starts"), ChannelHop::start().expect("a thread starts"));
    let mut group = c.benchmark_group("hop");
    group.bench_function("lane", |b| b.iter(|| lane.rounds(1, 1)));
    group.bench_function("channel", |b| b.iter(|| channel.rounds(1, 1)));
    group.finish();
}

criterion_group!(benches, hop);
criterion_main!(benches);
