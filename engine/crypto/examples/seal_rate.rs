//! Nanoseconds an item of sealing and opening by this crate, beside the raw library: same associated data, output into
//! another buffer. `cargo run --release -p keymill-crypto --example seal_rate`

use std::io::Write;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keymill_core::Sensitive;
use keymill_core::blob::Blob;
use keymill_crypto::derived::cmac_pair;
use keymill_crypto::epoch::{EpochLimits, EpochSlot};
use keymill_crypto::xaes::{Subkey, SubkeyCipher, subkey_messages};

const BATCH: usize = 256;

/// Runs `each` over whole batches and returns the best of many short samples, in nanoseconds an item: what is left when no
/// other program took the core meanwhile.
fn best(bytes: usize, mut each: impl FnMut()) -> f64 {
    let rounds = (1_000_000 / (BATCH * (100 + bytes / 8))).max(1);
    (0..300)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(|_| each());
            start.elapsed().as_nanos() as f64 / (rounds * BATCH) as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let root = Sensitive::copied(&[7; 32]);
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, root.expose()).expect("32 bytes"));
    let slot = EpochSlot::new();
    let limits = EpochLimits::default();
    // header ‖ no context
    let aad = [&[1, 1][..], &[0xc4; 16], &[0, 0, 0, 1], &[0; 4]].concat();
    writeln!(
        stdout,
        "{:>6}  {:>8} {:>8} {:>6} {:>8} {:>6}  {:>8} {:>8} {:>6}",
        "bytes", "raw seal", "append", "", "in place", "", "raw open", "open", ""
    )?;
    for bytes in [0, 32, 256, 1024, 4096, 65_536] {
        let plaintexts: Vec<u8> = vec![0x5a; BATCH * bytes];
        let item = |i: usize| &plaintexts[i * bytes..(i + 1) * bytes];
        let mut out = vec![0; BATCH * (bytes + 62)];
        let raw_seal = best(bytes, || {
            for (i, out) in out.chunks_exact_mut(bytes + 62).enumerate() {
                let nonce =
                    Nonce::assume_unique_for_key((i as u128).to_be_bytes()[4..].try_into().expect("12"));
                let (text, rest) = out.split_at_mut(bytes);
                raw.seal_out_of_place_scatter(nonce, Aad::from(&aad), item(i), text, &[], &mut rest[..16])
                    .expect("it seals");
            }
        });
        let raw_texts = out.clone();
        let mut plain = vec![0; BATCH * bytes];
        let raw_open = best(bytes, || {
            for (i, sealed) in raw_texts.chunks_exact(bytes + 62).enumerate() {
                let nonce =
                    Nonce::assume_unique_for_key((i as u128).to_be_bytes()[4..].try_into().expect("12"));
                let (text, tag) = (&sealed[..bytes], &sealed[bytes..bytes + 16]);
                raw.open_separate_gather(
                    nonce,
                    Aad::from(&aad),
                    text,
                    tag,
                    &mut plain[i * bytes..(i + 1) * bytes],
                )
                .expect("it opens");
            }
        });
        let mut derive = |messages| Ok::<_, std::convert::Infallible>(cmac_pair(&root, messages));
        let seal = best(bytes, || {
            out.clear();
            let mut run =
                slot.begin(BATCH as u32, Instant::now(), &limits, &mut derive).expect("an epoch begins");
            for i in 0..BATCH {
                run.seal_with_aad(&aad, item(i), &mut out).expect("the run holds the batch");
            }
        });
        let seal_to = best(bytes, || {
            let mut run =
                slot.begin(BATCH as u32, Instant::now(), &limits, &mut derive).expect("an epoch begins");
            for (i, out) in out.chunks_exact_mut(bytes + 62).enumerate() {
                run.seal_to(&aad, item(i), out).expect("the run holds the batch");
            }
        });
        let mut plain = Vec::with_capacity(BATCH * bytes);
        let open = best(bytes, || {
            plain.clear();
            let mut cipher: Option<([u8; 12], SubkeyCipher)> = None;
            for blob in out.chunks_exact(bytes + 62) {
                let blob = Blob::parse(blob).expect("a blob");
                let prefix = blob.nonce.first_chunk().expect("12");
                let (_, cipher) = match &cipher {
                    Some(kept) if kept.0 == *prefix => kept,
                    _ => cipher.insert((
                        *prefix,
                        SubkeyCipher::new(
                            &Subkey::from_sensitive(cmac_pair(&root, subkey_messages(prefix))).expect("32"),
                        ),
                    )),
                };
                let nonce = blob.nonce.last_chunk().expect("12");
                cipher.open_into(nonce, &aad, blob.ciphertext, blob.tag, &mut plain).expect("it opens");
            }
        });
        assert_eq!(plain, plaintexts);
        writeln!(
            stdout,
            "{bytes:>6}  {raw_seal:>8.1} {seal:>8.1} {:>6.2} {seal_to:>8.1} {:>6.2}  {raw_open:>8.1} {open:>8.1} {:>6.2}",
            raw_seal / seal,
            raw_seal / seal_to,
            raw_open / open
        )?;
    }
    Ok(())
}
