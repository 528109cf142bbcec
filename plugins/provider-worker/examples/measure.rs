//! Measures what the way to a worker costs: 1 KiB items sealed through a worker, beside the same provider in this process. Rounds of
//! both take turns, and what counts is the median of each.
//!
//! Without arguments it measures the software provider, with `MODULE LABEL PIN` a token.

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, ProtectionLevel};
use keymill_core::seam::provider::{AeadBatch, AeadItem, CryptoProvider, CryptoSession, KeyHandle};
use keymill_provider_worker::Config;

const ITEM_BYTES: usize = 1024;
const ROUNDS: usize = 41;
const ROUND: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (setup, here): (_, Box<dyn CryptoProvider>) = match &args[..] {
        [] => {
            let provider = keymill_provider_software::open(keymill_provider_software::Config {})?;
            ("software".to_owned(), Box::new(provider))
        }
        [module, label, pin] => {
            let config =
                keymill_provider_pkcs11::Config::new(module, label, Sensitive::copied(pin.as_bytes()));
            (format!("token\n{module}\n{label}\n{pin}"), Box::new(keymill_provider_pkcs11::open(config)?))
        }
        _ => return Err("no arguments, or MODULE LABEL PIN".into()),
    };
    let program = std::env::current_exe()?.with_file_name("worker");
    let there = keymill_provider_worker::open(Config::new(program, Sensitive::new(setup.into_bytes())))?;
    let mut out = io::stdout();
    writeln!(out, "{:>6} {:>16} {:>16} {:>7}", "batch", "here ns/item", "worker ns/item", "ratio")?;
    for items in [256, 16, 1] {
        let mut runs = [Run::new(&*here, items)?, Run::new(&there, items)?];
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (run, figures) in runs.iter_mut().zip(&mut figures) {
                figures.push(run.round()?);
            }
        }
        let [here, there] = figures.map(median);
        writeln!(out, "{items:>6} {here:>16.0} {there:>16.0} {:>7.2}", here / there)?;
    }
    Ok(())
}

struct Run {
    session: Box<dyn CryptoSession>,
    key: KeyHandle,
    batch: AeadBatch,
}

impl Run {
    fn new(provider: &dyn CryptoProvider, items: usize) -> Result<Self, Box<dyn Error>> {
        let bulk_mode = match provider.profile().protection {
            ProtectionLevel::Software => None,
            ProtectionLevel::Hsm => Some(BulkMode::InHsm),
        };
        let mut custody = provider.custody()?;
        let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, bulk_mode)?;
        let mut batch = AeadBatch { aad: vec![7; 32], ..AeadBatch::default() };
        for at in 0..items {
            let start = batch.buffer.len();
            batch.buffer.resize(start + ITEM_BYTES + 16, at as u8);
            let text = start..start + ITEM_BYTES;
            let nonce = (at as u128).to_be_bytes();
            let nonce = *nonce.last_chunk().expect("twelve of sixteen");
            batch.items.push(AeadItem { nonce, aad: 0..32, text, outcome: None });
        }
        Ok(Self { session: provider.open_session()?, key: custody.load(&stored)?, batch })
    }

    /// Seals for a while, and returns the nanoseconds of an item.
    fn round(&mut self) -> Result<f64, Box<dyn Error>> {
        let begun = Instant::now();
        let mut items = 0;
        while begun.elapsed() < ROUND {
            self.batch.items.iter_mut().for_each(|item| item.outcome = None);
            self.session.encrypt(&self.key, &mut self.batch).map_err(|lost| lost.reason)?;
            items += self.batch.items.len();
        }
        if self.batch.items.iter().any(|item| item.outcome != Some(Ok(()))) {
            return Err("an item was not sealed".into());
        }
        Ok(begun.elapsed().as_nanos() as f64 / items as f64)
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
