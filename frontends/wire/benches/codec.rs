//! What a frame costs an item, without a network: the structural check, the decoding, and both ways of encoding an answer.
//! Divide by the items of a frame; `limits.md` §5.2 holds what rmp-serde alone takes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keymill_core::id::{CmkId, KeyRef, KeyVersionId};
use keymill_core::operation::{BatchEncryptReply, BatchEncryptRequest, Bin, Operation, Reply, Request};
use keymill_wire::{answer, batch, frame, request, response};

const KEY: CmkId = CmkId::from_bytes([7; 16]);
const VERSION: KeyVersionId = KeyVersionId::from_bytes([9; 16]);

fn codec(c: &mut Criterion) {
    for (items, item_bytes) in [(1, 1024), (256, 100), (256, 1024), (4096, 1024)] {
        let item = vec![0xa5; item_bytes];
        let batch = Request::from(BatchEncryptRequest {
            key_id: KeyRef::Id(KEY),
            items: vec![Bin::from(&item[..]); items],
            encryption_context: None,
            encryption_contexts: None,
            timeout_ms: None,
        });
        let reply = Reply::BatchEncrypt(BatchEncryptReply {
            items: vec![Some(Bin::from(&item[..])); items],
            errors: vec![],
            key_id: KEY,
            key_version_id: VERSION,
        });
        let (mut request_frame, mut answer_frame) = (Vec::new(), Vec::new());
        request::encode_request(1, &batch, &mut request_frame).expect("the request is sound");
        response::encode_reply(1, &reply, &mut answer_frame);
        let (request_frame, answer_frame) = (&request_frame[4..], &answer_frame[4..]);
        let mut out = Vec::with_capacity(2 * request_frame.len());

        let mut group = c.benchmark_group("codec");
        group.throughput(Throughput::Elements(items as u64));
        let name = |what: &str| BenchmarkId::new(what, format!("{items}x{item_bytes}"));
        group.bench_function(name("check"), |b| b.iter(|| frame::check(black_box(request_frame))));
        group.bench_function(name("check_and_decode"), |b| {
            b.iter(|| {
                let shape = frame::check(black_box(request_frame)).expect("the frame is sound");
                drop(black_box(shape.decode(Operation::BatchEncrypt).expect("the request is sound")));
            });
        });
        group.bench_function(name("encode_request"), |b| {
            b.iter(|| {
                out.clear();
                request::encode_request(1, black_box(&batch), &mut out).expect("the request is sound");
            });
        });
        group.bench_function(name("encode_reply"), |b| {
            b.iter(|| {
                out.clear();
                response::encode_reply(1, black_box(&reply), &mut out);
            });
        });
        group.bench_function(name("encode_batch_fast"), |b| {
            b.iter(|| {
                out.clear();
                let start = batch::begin_batch(1, items, &mut out);
                for _ in 0..items {
                    batch::write_bin_header(item_bytes, &mut out);
                    out.extend_from_slice(black_box(&item));
                }
                batch::finish_batch(start, &[], KEY, VERSION, &mut out);
            });
        });
        group.bench_function(name("decode_answer"), |b| {
            b.iter(|| {
                let shape = answer::check_answer(black_box(answer_frame)).expect("the frame is sound");
                let reply = answer::decode_reply(Operation::BatchEncrypt, shape.body);
                drop(black_box(reply.expect("the reply is sound")));
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots().measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(300));
    targets = codec
}
criterion_main!(benches);
