//! The change of a PIN on real tokens, on one that is being served and on one that is not.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{CryptoProvider, ProviderError};
use keymill_provider_pkcs11::module::number::CKR_PIN_LEN_RANGE;
use keymill_provider_pkcs11::{Config, OpenErrorKind, Party, change_pin, open_on};
use std::sync::{Arc, Mutex};
use support::faults;

const NEW: &[u8] = b"1147-changed";

fn pin(bytes: &[u8]) -> Sensitive {
    Sensitive::copied(bytes)
}

fn party(label: &str, old: &[u8]) -> Party {
    Party {
        module: faults::interpose(&support::module()),
        token_label: label.into(),
        token_serial: None,
        domain: None,
        pin: pin(old),
    }
}

fn opens(label: &str, with: &[u8]) -> bool {
    open_on(support::module(), Config::new(support::module_path(), label, pin(with))).is_ok()
}

#[test]
fn a_changed_pin_opens_the_token_and_the_old_one_does_not() {
    let label = support::new_token();
    let changed = change_pin(&party(&label, support::PIN), &pin(NEW)).unwrap();
    assert_eq!(changed.token, label);
    assert!(opens(&label, NEW));
    assert!(!opens(&label, support::PIN));
    let same = change_pin(&party(&label, NEW), &pin(NEW)).unwrap_err();
    assert_eq!(same.kind(), OpenErrorKind::Input);
}

#[test]
fn a_wrong_old_pin_is_tried_once_and_changes_nothing() {
    let label = support::new_token();
    let tries = || faults::calls("C_Login") + faults::calls("C_SetPIN");
    let before = tries();
    let error = change_pin(&party(&label, b"9999-wrong"), &pin(NEW)).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Pin, "{error}");
    assert_eq!(tries() - before, 1);
    assert!(opens(&label, support::PIN));
}

#[test]
fn a_pin_that_the_token_does_not_take_leaves_the_old_one() {
    let label = support::new_token();
    let refuse = || {
        // Kryoptic takes any.
        if support::is_kryoptic() {
            faults::plan("C_SetPIN", 0, 1, CKR_PIN_LEN_RANGE);
        }
    };
    refuse();
    let short = change_pin(&party(&label, support::PIN), &pin(b"1")).unwrap_err();
    assert_eq!(short.kind(), OpenErrorKind::Pin, "{short}");
    assert!(short.to_string().contains("the old one holds"), "{short}");
    assert!(opens(&label, support::PIN));
    let provider = open_on(faults::interpose(&support::module()), support::config(&label)).unwrap();
    refuse();
    assert!(matches!(provider.change_pin(&pin(b"1")), Err(ProviderError::Rejected(_))));
    provider.custody().unwrap().canary().unwrap();
    drop(provider);
    assert!(opens(&label, support::PIN));
}

#[test]
fn a_pin_on_its_final_try_is_not_tried() {
    let label = support::new_token();
    let module = faults::interpose(&support::module())
        .with_table(|table| table.base.C_GetTokenInfo = Some(faults::final_try));
    let tries = || faults::calls("C_Login") + faults::calls("C_SetPIN");
    let before = tries();
    let refused = change_pin(&Party { module, ..party(&label, support::PIN) }, &pin(NEW)).unwrap_err();
    assert!(refused.kind() == OpenErrorKind::Pin && refused.to_string().contains("locks it"), "{refused}");
    assert_eq!(tries(), before);
}

#[test]
fn a_served_token_goes_on_and_reconnects_with_the_new_pin() {
    let label = support::new_token();
    let mut config = support::config(&label);
    config.restart_module = false;
    let provider = open_on(faults::interpose(&support::module()), config).unwrap();
    let mut custody = provider.custody().unwrap();
    let key = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)).unwrap();
    let handle = custody.load(&key).unwrap();
    provider.change_pin(&pin(NEW)).unwrap();
    // Nothing was lost by it.
    assert_eq!(custody.load(&key).unwrap().generation, handle.generation);
    custody.canary().unwrap();
    // Somebody else logs everybody out: the next login is by the new PIN, at once.
    let session = support::module().open_session(support::slot(&label), false).unwrap();
    session.logout().unwrap();
    let before = faults::calls("C_Login");
    custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)).unwrap();
    let again = custody.load(&key).unwrap();
    assert_ne!(again.generation, handle.generation);
    assert_eq!(faults::calls("C_Login") - before, 1);
    custody.canary().unwrap();
    drop((custody, provider, session));
    assert!(opens(&label, NEW));
}

#[test]
fn a_pin_that_was_changed_elsewhere_is_read_again_and_a_refused_one_is_not_tried_twice() {
    let label = support::new_token();
    let set = Arc::new(Mutex::new(pin(support::PIN)));
    let read = Arc::clone(&set);
    let config = Config {
        pin_again: Some(Box::new(move || Some(pin(read.lock().unwrap().expose())))),
        ..support::config(&label)
    };
    let provider = open_on(faults::interpose(&support::module()), config).unwrap();
    let reconnected = || {
        // Somebody else logs everybody out.
        let session = support::module().open_session(support::slot(&label), false).unwrap();
        session.logout().unwrap();
        provider.custody().unwrap().canary()
    };
    // Which logs everybody out, too.
    change_pin(&party(&label, support::PIN), &pin(NEW)).unwrap();
    *set.lock().unwrap() = pin(NEW);
    provider.custody().unwrap().canary().unwrap();
    assert!(!provider.pin_refused());
    // One that is wrong is tried once, and another once it is set.
    *set.lock().unwrap() = pin(b"9999-wrong");
    let logins = faults::calls("C_Login");
    assert!(reconnected().is_err());
    assert!((0..5).all(|_| provider.custody().unwrap().canary().is_err()));
    assert_eq!(faults::calls("C_Login") - logins, 1);
    assert!(provider.pin_refused());
    *set.lock().unwrap() = pin(NEW);
    provider.custody().unwrap().canary().unwrap();
    assert!(!provider.pin_refused());
}
