//! What goes wrong with a session, a key, a token or its login, on a real module whose calls fail as planned: who is blamed, what is
//! left undone, and that it works again without anything being restarted. Here stands what the parts share.

// All of it is test.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod batches;
mod connection;
mod imports;
mod keys;
mod profile;
mod signatures;

use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, JobError, KeyCustody, KeyHandle, KeyMaterial,
    StoredKey,
};
use keymill_provider_pkcs11::{Config, GcmMethod, Pkcs11Provider, open_on};

use support::faults;

/// A provider whose calls can fail as planned, and the label of its token.
fn provider_with(edit: impl FnOnce(&mut Config)) -> (Pkcs11Provider, String) {
    let label = support::new_token();
    let mut config = support::config(&label);
    // The faults are planned for the classic calls.
    config.overrides.gcm = Some(GcmMethod::Classic);
    // It would drop the tokens of the tests beside.
    config.restart_module = false;
    edit(&mut config);
    let provider = open_on(faults::interpose(&support::module()), config).unwrap();
    faults::clear();
    (provider, label)
}

fn provider() -> Pkcs11Provider {
    provider_with(|_| {}).0
}

fn stored(custody: &mut dyn KeyCustody, mode: BulkMode) -> StoredKey {
    custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(mode)).unwrap()
}

fn key(provider: &Pkcs11Provider, mode: BulkMode) -> KeyHandle {
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, mode);
    custody.load(&stored).unwrap()
}

/// Makes a batch of texts of 40 bytes, each its number.
fn batch(count: usize) -> AeadBatch {
    let mut batch = AeadBatch { buffer: Vec::new(), aad: b"context".to_vec(), items: Vec::new() };
    for i in 0..count {
        let start = batch.buffer.len();
        batch.buffer.extend([i as u8; 40]);
        batch.buffer.extend([0; 16]);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(i as u64).to_be_bytes());
        batch.items.push(AeadItem { nonce, aad: 0..7, text: start..start + 40, outcome: None });
    }
    batch
}

fn sealed(session: &mut dyn CryptoSession, key: &KeyHandle, count: usize) -> AeadBatch {
    let mut batch = batch(count);
    session.encrypt(key, &mut batch).unwrap();
    assert!(batch.items.iter().all(|item| item.outcome == Some(Ok(()))));
    fresh(&mut batch);
    batch
}

fn fresh(batch: &mut AeadBatch) {
    batch.items.iter_mut().for_each(|item| item.outcome = None);
}

fn outcomes(batch: &AeadBatch) -> Vec<Option<Result<(), JobError>>> {
    batch.items.iter().map(|item| item.outcome).collect()
}

fn assert_plain(batch: &AeadBatch) {
    for (i, item) in batch.items.iter().enumerate() {
        assert_eq!(item.outcome, Some(Ok(())), "item {i}");
        assert_eq!(batch.buffer[item.text.clone()], [i as u8; 40], "item {i}");
    }
}

fn assert_plain_after(session: &mut dyn CryptoSession, key: &KeyHandle, mut work: AeadBatch) {
    fresh(&mut work);
    session.decrypt(key, &mut work).unwrap();
    assert_plain(&work);
}

fn good_copy(stored: &StoredKey) -> StoredKey {
    StoredKey {
        spec: stored.spec,
        usage: stored.usage,
        bulk_mode: stored.bulk_mode,
        material: KeyMaterial::Wrapped(Vec::new()),
        public_key: stored.public_key.clone(),
    }
}
