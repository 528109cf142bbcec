//! Memory that a decoder may take: an allocator that fails past a limit, so that a length announced in a few bytes cannot
//! take gigabytes unnoticed. libFuzzer's own limit needs a sanitizer's allocator, which stable Rust has not.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Returns what decoding `length` bytes may take. An item of one byte (nil in MessagePack) becomes 16 bytes in a vector that
/// doubles as it grows, and both copies stand for a moment; the rest is room for error messages.
pub(crate) fn room(length: usize) -> usize {
    16 * 1024 + 64 * length
}

/// Does `work` with at most `bytes` of memory; past them the process aborts, which libFuzzer reports with the input.
pub(crate) fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let limit = ALLOCATOR.allocated() + bytes;
    ALLOCATOR.set_limit(limit).expect("the limit is above what is in use");
    let result = work();
    ALLOCATOR.set_limit(usize::MAX).expect("the limit only rises");
    result
}
