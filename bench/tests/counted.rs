//! The batch path is counted: a batch allocates a fixed handful of times, and too few bytes to hold a copy of its items.
//! Alone in its program, since what other tests allocate would count as well.

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
