//! With nothing asked of it, the simulator is the module behind it.
#![allow(dead_code, reason = "the support serves several programs")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod support;

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::mechanism::aead::{GcmMessageParams, GcmParams, GeneratorFunction};
use cryptoki::mechanism::{Mechanism, MechanismType, MessageParam};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use support::*;

#[test]
fn aes_gcm_and_cmac_give_the_known_answers() {
    let hsm = Hsm::new("known-answers", "");
    let session = hsm.user();
    let import = |value: &[u8]| {
        let mut template = aes_template();
        template.extend([
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Value(value.to_vec()),
        ]);
        session.create_object(&template).unwrap()
    };

    // RFC 4493 §4, example 2.
    let key = import(&hex("2b7e151628aed2a6abf7158809cf4f3c"));
    let message = hex("6bc1bee22e409f96e93d7e117393172a");
    let tag = session.sign(&Mechanism::AesCMac, key, &message).unwrap();
    assert_eq!(tag, hex("070a16b46b4d4144f79bdd9dd04a287c"));
    session.verify(&Mechanism::AesCMac, key, &message, &tag).unwrap();
    assert_eq!(code(session.verify(&Mechanism::AesCMac, key, b"another", &tag)), RvError::SignatureInvalid);

    // The GCM specification (McGrew and Viega), test case 14.
    let key = import(&[0; 32]);
    let mut iv = [0; 12];
    let sealed = session
        .encrypt(&Mechanism::AesGcm(GcmParams::new(&mut iv, b"", 128.into()).unwrap()), key, &[0; 16])
        .unwrap();
    assert_eq!(sealed, hex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"));
    let mut iv = [0; 12];
    let opened =
        session.decrypt(&Mechanism::AesGcm(GcmParams::new(&mut iv, b"", 128.into()).unwrap()), key, &sealed);
    assert_eq!(opened.unwrap(), [0; 16]);
}

#[test]
fn token_objects_and_every_other_kind_of_call_pass_through() {
    let hsm = Hsm::new("other-calls", "");
    let session = hsm.user();
    let token = hsm.pkcs11.get_token_info(hsm.slot).unwrap();
    assert_eq!(token.label(), "other-calls");
    assert_eq!(session.get_session_info().unwrap().slot_id(), hsm.slot);
    assert!(hsm.pkcs11.get_mechanism_list(hsm.slot).unwrap().contains(&MechanismType::AES_GCM));

    let mut template = aes_template();
    template[0] = Attribute::Token(true);
    template.extend([Attribute::ValueLen(32.into()), Attribute::Label(b"kept".to_vec())]);
    let key = session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    assert_eq!(session.find_objects(&[Attribute::Label(b"kept".to_vec())]).unwrap(), [key]);
    assert_eq!(session.digest(&Mechanism::Sha256, b"abc").unwrap()[..4], [0xba, 0x78, 0x16, 0xbf]);

    let wrapped = session.wrap_key(&Mechanism::AesKeyWrapPad, key, aes_key(&session)).unwrap();
    let unwrapping = session.unwrap_key(
        &Mechanism::AesKeyWrapPad,
        key,
        &wrapped,
        &[
            &aes_template()[..],
            &[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)],
        ]
        .concat(),
    );
    encrypt(&session, unwrapping.unwrap()).unwrap();
    let random = session.generate_random_vec(32).unwrap();
    assert_ne!(random, [0; 32]);

    let stats = hsm.control_and_stats("");
    assert_eq!(stats["objects"], 2, "the wrapped key and the unwrapped one: {stats}");
    assert_eq!(stats["sessions"], 1);
    assert_eq!(stats["calls"]["C_UnwrapKey"]["CKR_OK"], 1);
    assert_eq!(stats["panics"], 0);
}

#[test]
fn copies_are_independent_of_each_other() {
    let (a, b) = (Hsm::new("one-of-two", ""), Hsm::new("two-of-two", ""));
    let (of_a, of_b) = (a.user(), b.user());
    let key = aes_key(&of_a);
    a.pkcs11.clone().finalize().unwrap();
    let key_of_b = aes_key(&of_b);
    encrypt(&of_b, key_of_b).unwrap();
    assert_eq!(code(encrypt(&of_a, key)), RvError::CryptokiNotInitialized);
}

#[test]
fn softhsm_has_no_interface_of_3_0_and_neither_has_its_simulator() {
    let hsm = Hsm::new("only-2-40", "");
    assert!(!hsm.pkcs11.is_fn_supported(Function::EncryptMessage));
    assert!(hsm.pkcs11.is_fn_supported(Function::Encrypt));
}

#[test]
fn the_message_interface_passes_through() {
    let Some(kryoptic) = std::env::var_os("KEYMILL_KRYOPTIC") else {
        eprintln!("skipped: KEYMILL_KRYOPTIC is not set; tests/modules/build --test sets it");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("kryoptic.conf");
    let database = scratch.path().join("token.sql");
    let slot = format!("[[slots]]\nslot = 3\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display());
    std::fs::write(&config, slot).unwrap();
    let hsm = Hsm::over(
        kryoptic.as_ref(),
        "messages",
        &format!("init_reserved = \"kryoptic_conf={}\"", config.display()),
    );
    assert!(hsm.pkcs11.is_fn_supported(Function::EncryptMessage));
    let session = hsm.user();
    let key = aes_key(&session);

    let (mut iv, mut tag) = ([9; 12], [0; 16]);
    let parameters = GcmMessageParams::new(&mut iv, 64.into(), GeneratorFunction::GenerateCounter, &mut tag);
    let parameters = parameters.unwrap();
    session.message_encrypt_init(&Mechanism::AesGcmMessage(parameters), key).unwrap();
    let sealed = session.encrypt_message(&MessageParam::AesGcmMessage(parameters), b"context", b"a record");
    let sealed = sealed.unwrap();
    session.message_encrypt_final().unwrap();
    let whole = [&sealed[..], &tag].concat();
    let opened = session.decrypt(
        &Mechanism::AesGcm(GcmParams::new(&mut iv, b"context", 128.into()).unwrap()),
        key,
        &whole,
    );
    assert_eq!(opened.unwrap(), b"a record");
}

#[test]
fn without_a_control_file_nothing_starts() {
    let scratch = tempfile::tempdir().unwrap();
    let library = scratch.path().join("alone.so");
    std::fs::copy(built(), &library).unwrap();
    let pkcs11 = Pkcs11::new(&library).unwrap();
    assert_eq!(code(pkcs11.initialize(arguments())), RvError::GeneralError);
    // Once the file is there, it does.
    let text = format!("[default]\nmodule = \"{}\"\n", softhsm().display());
    std::fs::write(library.with_extension("toml"), text).unwrap();
    start(&pkcs11, scratch.path());
    assert_eq!(code(pkcs11.initialize(arguments())), RvError::CryptokiAlreadyInitialized);
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
