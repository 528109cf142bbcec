//! The batch path is counted: a batch allocates a fixed handful of times, and too few bytes to hold a copy of its items.

use keymill_bench::{Allocator, BenchArgs};

#[global_allocator]
static ALLOCATOR: Allocator<std::alloc::System> = Allocator::system();

#[test]
fn a_batch_in_process_allocates_too_little_to_copy_its_items() {
    let args = BenchArgs { only: Some("count in-process".into()), quick: true, ..BenchArgs::default() };
    let report = keymill_bench::run(&args).unwrap();
    assert_eq!(report.counts.len(), 2);
    for counts in &report.counts {
        let (allocations, bytes) = (counts.allocations.unwrap(), counts.allocated_bytes.unwrap());
        assert!(allocations < 0.5, "{}: {allocations} allocations an item", counts.name);
        // Items have 1,024 bytes.
        assert!(bytes < 256.0, "{}: {bytes} bytes allocated an item", counts.name);
    }
}

#[test]
fn a_row_of_each_kind_is_measured_beside_its_ceiling_and_prints() {
    for only in [
        "in-process BatchDecrypt 256 x 1 KiB",
        "tcp BatchEncrypt 16",
        "lane hop, 16",
        "http",
        "single",
        "audit on, tcp Batch",
    ] {
        let args = BenchArgs { only: Some(only.into()), quick: true, ..BenchArgs::default() };
        let report = keymill_bench::run(&args).unwrap();
        assert!(!report.rows.is_empty(), "no row is called {only}");
        for row in &report.rows {
            assert!(row.ours > 0.0 && row.ceiling > 0.0 && row.ratio.median.is_finite(), "{row:?}");
            assert_eq!(row.pairs, 3);
        }
        report.print(true).unwrap();
    }
}
