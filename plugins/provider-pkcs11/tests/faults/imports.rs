//! Material that comes wrapped, on a token that stumbles, goes, or loses its answers: nothing is left behind, a device's fault is not the
//! material's, and the material's is not the device's.

use cryptoki_sys::*;
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{
    CryptoProvider, KeyCustody, ProviderError, StoredKey, Unwrapped, WrappedImport,
};
use keymill_provider_pkcs11::module::{Attribute, Session, User};

use crate::support::{self, faults};
use crate::{provider, provider_with};

const MATERIAL: [u8; 32] = [0x42; 32];
const ALGORITHM: WrappingAlgorithm = WrappingAlgorithm::RsaesOaepSha1;

fn pair(custody: &mut dyn KeyCustody) -> Result<StoredKey, ProviderError> {
    custody.generate_wrapping_key(KeySpec::Rsa2048, ALGORITHM)
}

/// An import of `material`, and of another where `flips` says so.
fn import(wrapping: StoredKey, flips: bool) -> WrappedImport {
    let mut wrapped = support::wrapped(&wrapping, &MATERIAL);
    wrapped[9] ^= u8::from(flips);
    WrappedImport {
        spec: KeySpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        bulk_mode: Some(BulkMode::InHsm),
        wrapping,
        algorithm: ALGORITHM,
        wrapped,
        check: None,
    }
}

fn pairs(label: &str) -> usize {
    let session: Session = support::module().open_session(support::slot(label), false).unwrap();
    let _already = session.login(User::User, &Sensitive::copied(support::PIN));
    let found = session
        .find_objects(&[Attribute::number(CKA_CLASS, CKO_PRIVATE_KEY), Attribute::flag(CKA_TOKEN, true)]);
    found.unwrap().len()
}

fn is_unavailable<T>(done: Result<T, ProviderError>) {
    match done {
        Err(ProviderError::Unavailable(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

fn is_rejected(done: Result<Unwrapped, ProviderError>) {
    match done {
        Err(ProviderError::Rejected(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[test]
fn a_pair_that_cannot_be_tried_is_not_left_behind() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    for (function, rv) in [
        ("C_GenerateKeyPair", CKR_DEVICE_ERROR),
        ("C_WrapKey", CKR_DEVICE_ERROR),
        ("C_UnwrapKey", CKR_DEVICE_MEMORY),
        ("C_GetAttributeValue", CKR_DEVICE_ERROR),
    ] {
        faults::plan(function, 0, 1, rv);
        is_unavailable(pair(&mut *custody));
        faults::clear();
        assert_eq!(pairs(&label), 0, "{function}");
    }
    // What the token will never do is told apart from what it does not do just now.
    faults::plan("C_WrapKey", 0, 1, CKR_KEY_UNEXTRACTABLE);
    assert!(matches!(pair(&mut *custody), Err(ProviderError::Rejected(_))));
    faults::clear();
    assert_eq!(pairs(&label), 0);
    // A connection that is lost over it is made anew, and one pair comes of it.
    faults::plan("C_UnwrapKey", 0, 2, CKR_SESSION_HANDLE_INVALID);
    let wrapping = pair(&mut *custody).unwrap();
    assert_eq!(pairs(&label), 1);
    custody.import_wrapped(&import(wrapping, false)).unwrap();
}

#[test]
fn a_device_that_stumbles_costs_no_material_and_what_is_forged_costs_no_device() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let good = import(pair(&mut *custody).unwrap(), false);
    let taken = custody.import_wrapped(&good).unwrap();
    let generation = custody.load(&taken.key).unwrap().generation;
    for function in ["C_UnwrapKey", "C_WrapKey", "C_EncryptInit"] {
        for rv in [CKR_DEVICE_ERROR, CKR_GENERAL_ERROR] {
            faults::plan(function, 0, 1, rv);
            assert_eq!(custody.import_wrapped(&good).unwrap().check, taken.check, "{function}");
            faults::clear();
        }
    }
    let forged = import(good.wrapping, true);
    is_rejected(custody.import_wrapped(&forged));
    assert_eq!(custody.load(&taken.key).unwrap().generation, generation, "the token is not given up for it");
    // A token that unwraps nothing at all says nothing of the material.
    faults::plan("C_UnwrapKey", 0, usize::MAX, CKR_DEVICE_ERROR);
    is_unavailable(custody.import_wrapped(&forged));
    faults::clear();
    custody.canary().unwrap();
    is_rejected(custody.import_wrapped(&forged));
}

#[test]
fn a_connection_that_is_lost_in_the_middle_is_made_anew_and_nothing_readable_stays() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let good = import(pair(&mut *custody).unwrap(), false);
    for function in ["C_UnwrapKey", "C_WrapKey"] {
        for rv in [CKR_SESSION_HANDLE_INVALID, CKR_DEVICE_REMOVED, CKR_USER_NOT_LOGGED_IN] {
            // The canary is to fail after it, for the connection to be given up.
            faults::plan(function, 0, 1, rv);
            let passes = usize::from(function == "C_WrapKey");
            faults::plan("C_UnwrapKey", passes, 2 - passes, rv);
            custody.import_wrapped(&good).unwrap();
            faults::clear();
            custody.canary().unwrap();
            assert_eq!(support::session_objects(&label), 1, "{function}: the canary alone is left");
        }
    }
    custody.destroy_wrapping_key(&good.wrapping).unwrap();
    assert_eq!(pairs(&label), 0);
    assert!(matches!(custody.import_wrapped(&good), Err(ProviderError::Corrupt(_))));
}

#[test]
fn a_pair_that_a_session_does_not_see_is_not_a_pair_that_is_gone() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let good = import(pair(&mut *custody).unwrap(), false);
    // As after a token that was away for a moment: it takes calls again, and nobody is logged in.
    let log_out = || support::module().open_session(support::slot(&label), false).unwrap().logout().unwrap();
    log_out();
    custody.import_wrapped(&good).unwrap();
    log_out();
    custody.destroy_wrapping_key(&good.wrapping).unwrap();
    assert_eq!(pairs(&label), 0);
    custody.destroy_wrapping_key(&good.wrapping).unwrap();
}
