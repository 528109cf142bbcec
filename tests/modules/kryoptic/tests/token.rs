//! The built module, loaded as a server loads it: a token is made, a key generated, data sealed and authenticated.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

/// What `tests/modules/build` prints, or else what Cargo built beside this test.
fn module() -> std::path::PathBuf {
    if let Some(path) = std::env::var_os("KEYMILL_KRYOPTIC") {
        return path.into();
    }
    std::env::current_exe().unwrap().with_file_name("libkryoptic.so")
}

#[test]
fn a_fresh_token_seals_and_authenticates_with_a_generated_key() {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("token.conf");
    std::fs::write(
        &config,
        format!(
            "[[slots]]\nslot = 7\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            scratch.path().join("token.sql").display()
        ),
    )
    .unwrap();
    // SAFETY: the only test of this program, before it starts any thread.
    unsafe { std::env::set_var("KRYOPTIC_CONF", &config) };

    let kryoptic = Pkcs11::new(module()).unwrap();
    kryoptic.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    for function in [Function::EncryptMessage, Function::SessionCancel] {
        assert!(kryoptic.is_fn_supported(function), "{function:?}: PKCS#11 3.0 is offered");
    }
    let slot = kryoptic.get_all_slots().unwrap()[0];
    assert_eq!(slot.id(), 7);
    let (officer, user) = (AuthPin::new("officer-pin".into()), AuthPin::new("user-pin".into()));
    kryoptic.init_token(slot, &officer, "built").unwrap();
    let session = kryoptic.open_rw_session(slot).unwrap();
    session.login(UserType::So, Some(&officer)).unwrap();
    session.init_pin(&user).unwrap();
    session.logout().unwrap();
    session.login(UserType::User, Some(&user)).unwrap();

    let key = session
        .generate_key(
            &Mechanism::AesKeyGen,
            &[
                Attribute::ValueLen(32.into()),
                Attribute::Token(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Sign(true),
                Attribute::Verify(true),
            ],
        )
        .unwrap();

    let mut iv = [7; 12];
    let mut gcm = |data: &[u8], seal: bool| {
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut iv, b"context", 128.into()).unwrap());
        if seal { session.encrypt(&mechanism, key, data) } else { session.decrypt(&mechanism, key, data) }
    };
    let mut sealed = gcm(b"a record", true).unwrap();
    assert_eq!(sealed.len(), 8 + 16);
    assert_eq!(gcm(&sealed, false).unwrap(), b"a record");
    sealed[0] ^= 1;
    gcm(&sealed, false).unwrap_err();

    let tag = session.sign(&Mechanism::AesCMac, key, b"a record").unwrap();
    assert_eq!(tag.len(), 16);
    session.verify(&Mechanism::AesCMac, key, b"a record", &tag).unwrap();
    session.verify(&Mechanism::AesCMac, key, b"another", &tag).unwrap_err();
}
