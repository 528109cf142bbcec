//! Batching: the same lane with more and more jobs in flight, which its worker takes in batches.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keymill_bench::hop::{ChannelHop, LaneHop};

fn lane(c: &mut Criterion) {
    let (lane, channel) =
        (LaneHop::start().expect("a thread starts"), ChannelHop::start().expect("a thread starts"));
    let mut group = c.benchmark_group("lane");
    for in_flight in [4, 16, 64, 256, 1024] {
        group.throughput(Throughput::Elements(in_flight as u64));
        let lane_id = BenchmarkId::new("lane", in_flight);
        group.bench_function(lane_id, |b| b.iter(|| lane.rounds(1, in_flight)));
        let channel_id = BenchmarkId::new("channel", in_flight);
        group.bench_function(channel_id, |b| b.iter(|| channel.rounds(1, in_flight)));
    }
    group.finish();
}

criterion_group!(benches, lane);
criterion_main!(benches);
