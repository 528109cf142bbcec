//! Audit chains, as the verifier reads them and as texts of strangers get into them.

pub(crate) mod chain;
pub(crate) mod text;

use std::sync::LazyLock;

use keymill_core::Sensitive;
use keymill_core::Timestamp;
use keymill_core::audit::{AuditRecord, Outcome};
use keymill_core::id::RequestId;
use keymill_crypto::audit::{ChainKeys, ChainVerifier};

const CHAIN: &str = "20261124T053017Z-a3f91c02-03";

static KEYS: LazyLock<ChainKeys> = LazyLock::new(|| {
    ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).expect("both have 32 bytes")
});

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(1_795_521_617_042 + ms)
}

fn record(ms: u64) -> AuditRecord<'static> {
    AuditRecord {
        time: at(ms),
        request: RequestId::from_bytes([0xab; 16]),
        principal: None,
        source: None,
        frontend: "msgpack",
        operation: "BatchEncrypt",
        outcome: Outcome::Done,
        rule: "default".into(),
        keys: &[],
        secrets: &[],
        certificates: &[],
        providers: &[],
        items: 256,
        failed: 1,
        context: None,
        fallback: None,
        recipient: None,
        approved_by: None,
        micros: 88,
        alike: &[],
        writes: &[],
    }
}

/// Gives the verifier every line of `log`, the last one as torn where its end is missing.
fn feed(mut verifier: ChainVerifier, log: &[u8]) -> ChainVerifier {
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(whole) => verifier.line(whole, false),
            None => verifier.line(line, true),
        };
    }
    verifier
}
