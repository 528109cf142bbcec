//! Workers for tests: the example's program, with what it is to serve.

// Each test binary uses its part, and all of it is test.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::key::{KeySpec, KeyUsage};
use keymill_core::seam::provider::{AeadBatch, AeadItem, CryptoProvider, KeyHandle};
use keymill_provider_worker::{Config, WorkerProvider, open};

/// Finds the worker program, which Cargo builds with the tests.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/worker");
    assert!(built.exists(), "cargo build -p keymill-provider-worker --examples");
    built
}

/// Makes the configuration of a worker with these words as its setup.
pub(crate) fn config(words: &[&str]) -> Config {
    Config {
        first_backoff: Duration::ZERO,
        ..Config::new(program(), Sensitive::new(words.join("\n").into_bytes()))
    }
}

pub(crate) fn software() -> WorkerProvider {
    open(config(&["software"])).unwrap()
}

pub(crate) fn key(provider: &dyn CryptoProvider) -> KeyHandle {
    let mut custody = provider.custody().unwrap();
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, None).unwrap();
    custody.load(&stored).unwrap()
}

/// Makes a batch of `count` texts of `bytes` bytes; the nonces of those in `bad` are of one byte.
pub(crate) fn batch(count: usize, bytes: usize, bad: &[(usize, u8)]) -> AeadBatch {
    let mut batch = AeadBatch { aad: vec![7; 16], ..AeadBatch::default() };
    for at in 0..count {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(at as u64).to_be_bytes());
        if let Some((_, byte)) = bad.iter().find(|(bad, _)| *bad == at) {
            nonce = [*byte; 12];
        }
        let start = batch.buffer.len();
        batch.buffer.resize(start + bytes + 16, at as u8);
        batch.items.push(AeadItem { nonce, aad: 0..16, text: start..start + bytes, outcome: None });
    }
    batch
}
