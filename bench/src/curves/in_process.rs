//! Curves of batches in this process, on as many threads as cores, against raw AES-256-GCM on as many.

use keymill_ceilings::{Load, Run, raw};
use keymill_core::id::KeyRef;

use super::{Curve, Draft, curve};
use crate::error::Result;
use crate::in_process::{self, Caller};
use crate::machine::cores;
use crate::plan::{Leg, Plan};
use crate::report::Unit;

/// Bytes of our header with an empty encryption context, which is what the cipher authenticates.
pub(super) const AAD_BYTES: usize = 26;
/// Items of a batch, unless it would have more bytes than the next figure.
const ITEMS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Of the curve of keys.
const KEY_ITEMS: usize = 64;
const ITEM_BYTES: usize = 1024;
const MIB: f64 = (1 << 20) as f64;

/// Bytes a second by the bytes of an item.
pub(super) fn item_size(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "item-size",
        title: "In process, BatchEncrypt, all cores: MiB/s by item size".into(),
        x: "bytes of an item",
        unit: Unit::Mebibytes,
        against: "raw",
        xs: vec![32, 128, 512, 2048, 8192, 65_536],
    };
    curve(plan, draft, |plan, item_len| {
        let (fixture, threads, items) = (plan.fixture()?, cores(), items(item_len));
        let mib = move |items: f64| items * item_len as f64 / MIB;
        let ours: Leg<'_> = Box::new(move |time| {
            in_process::rate(threads, time, || Ok(Caller::sealing(&fixture, items, item_len))).map(mib)
        });
        let load = Load { items, item_len, aad_len: AAD_BYTES, threads };
        Ok([ours, Box::new(move |time| Ok(mib(raw::seal(load, Run::For(time)))))])
    })
}

/// Returns how many items of a length a batch has.
fn items(item_len: usize) -> usize {
    (BATCH_BYTES / item_len).min(ITEMS)
}

/// Items a second by the number of CMKs that batches come in under, each under another.
pub(super) fn keys(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "keys",
        title: format!(
            "In process, BatchEncrypt {KEY_ITEMS} x 1 KiB, all cores: rate by CMKs in use at random"
        ),
        x: "CMKs",
        unit: Unit::Items,
        against: "raw, one key",
        xs: vec![1, 10, 100, 1000, 10_000],
    };
    let mut made: Vec<KeyRef> = Vec::new();
    curve(plan, draft, |plan, count| {
        let (fixture, threads) = (plan.fixture()?, cores());
        made.extend(fixture.keys(count - made.len())?);
        let keys = made.clone();
        let ours: Leg<'_> = Box::new(move |time| {
            in_process::rate(threads, time, || {
                Ok(Caller::sealing_under(&fixture, keys.clone(), KEY_ITEMS, ITEM_BYTES))
            })
        });
        let load = Load { items: KEY_ITEMS, item_len: ITEM_BYTES, aad_len: AAD_BYTES, threads };
        Ok([ours, Box::new(move |time| Ok(raw::seal(load, Run::For(time))))])
    })
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn a_batch_of_large_items_has_fewer_of_them() {
        assert_eq!([32, 1024, 8192, 65_536].map(items), [256, 256, 256, 64]);
    }
}
