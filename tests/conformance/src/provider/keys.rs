//! The life of keys, and what a provider says of itself.

use std::collections::HashSet;

use keymill_core::Sensitive;
use keymill_core::blob::Algorithm;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, ProtectionLevel};
use keymill_core::seam::provider::{KeyMaterial, ProviderError, StoredKey};

use super::{Fixture, Message, Use, derive, open, seal};

const MESSAGES: [[u8; 16]; 2] = [[1; 16], [2; 16]];

/// Names the provider, and offers what every provider of AES-256 keys must.
pub fn a_profile_is_filled_in(fixture: &Fixture) {
    let profile = fixture.provider.profile();
    assert!(
        !profile.name.is_empty() && !profile.name.contains(|c: char| !c.is_ascii_lowercase() && c != '-')
    );
    assert!(profile.specs.contains(&KeySpec::Aes256));
    assert!(profile.derives && profile.algorithms.contains(&Algorithm::Aes256Gcm));
    assert!(profile.max_batch >= 1 && profile.max_sessions >= 1);
}

/// Does what its profile says, and hands material out in the form that its protection calls for.
pub fn every_listed_specification_is_generated_and_loaded(fixture: &Fixture) {
    let mut custody = fixture.custody();
    for spec in &fixture.provider.profile().specs {
        let usages = spec.usages().iter().filter(|usage| fixture.provider.profile().offers(*spec, **usage));
        let uses = match spec {
            KeySpec::Aes256 => vec![fixture.mode(Use::Aead), fixture.mode(Use::Derive)],
            KeySpec::Aes192 | KeySpec::Aes128 => vec![fixture.mode(Use::Aead)],
            _ => vec![None],
        };
        for (usage, mode) in usages.flat_map(|usage| uses.iter().map(move |mode| (*usage, *mode))) {
            let stored = custody.generate(*spec, usage, mode).expect("the profile lists it");
            assert_eq!((stored.spec, stored.usage, stored.bulk_mode), (*spec, usage, mode));
            assert_eq!(stored.public_key.is_some(), spec.is_key_pair());
            match (&stored.material, fixture.provider.profile().protection) {
                (KeyMaterial::Clear(clear), ProtectionLevel::Software) => {
                    assert!(spec.material_bytes().is_none_or(|bytes| bytes == clear.len()));
                }
                (KeyMaterial::Wrapped(_), ProtectionLevel::Hsm) => {}
                _ => panic!("material leaves an HSM wrapped, and this process's memory in clear"),
            }
            let handle = custody.load(&stored).expect("it loads");
            custody.unload(handle).expect("the provider is up");
            custody.destroy(&stored).expect("the provider is up");
        }
    }
}

/// Refuses foreign specifications, usages, modes and material as the fault of the request.
pub fn what_the_profile_does_not_list_is_rejected(fixture: &Fixture) {
    let mut custody = fixture.custody();
    for spec in KeySpec::ALL {
        for usage in [KeyUsage::EncryptDecrypt, KeyUsage::SignVerify, KeyUsage::GenerateVerifyMac] {
            if !fixture.provider.profile().offers(spec, usage) {
                let mode = spec.material_bytes().and_then(|_| fixture.mode(Use::Aead));
                let refused = custody.generate(spec, usage, mode).err();
                assert!(
                    matches!(refused, Some(ProviderError::Rejected(_))),
                    "{spec:?} {usage:?}: {refused:?}"
                );
            }
        }
    }
    let unfit = match fixture.provider.profile().protection {
        ProtectionLevel::Software => [Some(BulkMode::InHsm), Some(BulkMode::HsmDerived)],
        ProtectionLevel::Hsm => [None, None],
    };
    for mode in unfit {
        let refused = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, mode).err();
        assert!(matches!(refused, Some(ProviderError::Rejected(_))), "{mode:?}: {refused:?}");
    }
    // Material of the other kind can come from a store that another provider served.
    let foreign = match fixture.provider.profile().protection {
        ProtectionLevel::Software => KeyMaterial::Wrapped(vec![7; 40]),
        ProtectionLevel::Hsm => KeyMaterial::Clear(Sensitive::copied(&[7; 32])),
    };
    let stored = StoredKey {
        spec: KeySpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        bulk_mode: fixture.mode(Use::Derive),
        material: foreign,
        public_key: None,
    };
    assert!(matches!(custody.load(&stored).err(), Some(ProviderError::Rejected(_))));
}

/// Gives the same outputs after each loading.
pub fn a_stored_key_is_the_same_key_each_time_it_is_loaded(fixture: &Fixture) {
    let mut custody = fixture.custody();
    let stored = fixture.stored(&mut *custody, Use::Derive);
    let outputs = [0; 3].map(|_| {
        let handle = custody.load(&stored).expect("it loads");
        let output = derive(&mut *fixture.session(), &handle, MESSAGES).expect("it derives");
        custody.unload(handle).expect("the provider is up");
        output
    });
    assert_eq!(outputs[0].len(), 32);
    assert!(outputs.iter().all(|output| *output == outputs[0]));
}

/// Keeps a key until its last user is gone.
pub fn an_unloaded_handle_leaves_the_others(fixture: &Fixture) {
    let mut custody = fixture.custody();
    let stored = fixture.stored(&mut *custody, Use::Derive);
    let (gone, kept) = (custody.load(&stored).expect("it loads"), custody.load(&stored).expect("it loads"));
    let in_use = gone.clone();
    let before = derive(&mut *fixture.session(), &gone, MESSAGES).expect("it derives");
    custody.unload(gone).expect("the provider is up");
    drop(custody);
    for handle in [kept, in_use] {
        assert_eq!(derive(&mut *fixture.session(), &handle, MESSAGES).expect("it derives"), before);
    }
}

/// Draws each key anew.
pub fn generated_keys_differ(fixture: &Fixture) {
    let mut session = fixture.session();
    let outputs: HashSet<_> = (0..8)
        .map(|_| derive(&mut *session, &fixture.fresh(Use::Derive), MESSAGES).expect("it derives"))
        .collect();
    assert_eq!(outputs.len(), 8);
}

/// Takes in material of every symmetric key that encrypts, hands it out as it hands out its own, and computes with it as others do.
pub fn an_imported_key_is_the_one_that_was_made_elsewhere(fixture: &Fixture) {
    let mut custody = fixture.custody();
    let mut session = fixture.session();
    let material = std::array::from_fn::<u8, 32, _>(|i| i as u8 * 7);
    let usage = KeyUsage::EncryptDecrypt;
    let mut import = |spec, bytes: &[u8], use_| {
        let mode = fixture.mode(use_);
        let stored = custody.import(spec, usage, mode, &Sensitive::copied(bytes)).expect("it is taken in");
        assert_eq!((stored.spec, stored.usage, stored.bulk_mode), (spec, usage, mode));
        match (&stored.material, fixture.provider.profile().protection) {
            (KeyMaterial::Clear(clear), ProtectionLevel::Software) => assert_eq!(clear.expose(), bytes),
            (KeyMaterial::Wrapped(wrapped), ProtectionLevel::Hsm) => {
                assert!(!wrapped.windows(8).any(|part| bytes.windows(8).any(|own| own == part)));
            }
            _ => panic!("material leaves an HSM wrapped, and this process's memory in clear"),
        }
        // It is the stored form that lasts.
        custody.load(&stored).expect("it loads")
    };
    let derives = import(KeySpec::Aes256, &material, Use::Derive);
    let known = fixture.known(&material, Use::Derive);
    let expected = derive(&mut *session, &known, MESSAGES);
    assert!(expected.is_ok());
    assert_eq!(derive(&mut *session, &derives, MESSAGES), expected);
    let messages =
        vec![Message { nonce: [9; 12], aad: b"aad".to_vec(), text: b"text".to_vec(), tag: [0; 16] }];
    let seals = import(KeySpec::Aes256, &material, Use::Aead);
    let sealed = seal(&mut *session, &seals, &messages);
    assert_eq!(sealed, seal(&mut *session, &fixture.known(&material, Use::Aead), &messages));
    let mut all = vec![sealed[0].clone()];
    for (spec, bytes) in [(KeySpec::Aes192, 24), (KeySpec::Aes128, 16), (KeySpec::Sm4, 16)] {
        if fixture.provider.profile().specs.contains(&spec) {
            let seals = import(spec, &material[..bytes], Use::Aead);
            let sealed = seal(&mut *session, &seals, &messages).remove(0);
            assert!(!all.contains(&sealed), "{}", spec.name());
            let opened = open(&mut *session, &seals, &[sealed.clone().expect("it seals")]).remove(0);
            assert_eq!(opened.expect("it opens").text, b"text", "{}", spec.name());
            all.push(sealed);
        }
    }
}

/// Refuses material of another length, and private keys, as the fault of the request.
pub fn what_is_no_key_of_its_specification_is_not_imported(fixture: &Fixture) {
    let mut custody = fixture.custody();
    let mode = fixture.mode(Use::Aead);
    for (spec, usage, bytes) in [
        (KeySpec::Aes256, KeyUsage::EncryptDecrypt, 0),
        (KeySpec::Aes256, KeyUsage::EncryptDecrypt, 16),
        (KeySpec::Aes256, KeyUsage::EncryptDecrypt, 33),
        (KeySpec::Aes256, KeyUsage::SignVerify, 32),
        (KeySpec::EcP256, KeyUsage::SignVerify, 32),
    ] {
        let refused = custody.import(spec, usage, mode, &Sensitive::zeroed(bytes)).err();
        assert!(matches!(refused, Some(ProviderError::Rejected(_))), "{spec:?} {bytes}: {refused:?}");
    }
}

/// Refuses material that lost or gained bytes, as a reason to stop.
pub fn damaged_material_is_corrupt(fixture: &Fixture) {
    let mut custody = fixture.custody();
    let stored = fixture.stored(&mut *custody, Use::Derive);
    let whole = match &stored.material {
        KeyMaterial::Clear(clear) => clear.expose().to_vec(),
        KeyMaterial::Wrapped(wrapped) => wrapped.clone(),
        KeyMaterial::TokenObject(_) => panic!("what is generated is stored outside the token"),
    };
    let longer = [&whole[..], &[0]].concat();
    for bytes in [&[][..], &whole[..1], &whole[..whole.len() / 2], &whole[..whole.len() - 1], &longer] {
        let material = match &stored.material {
            KeyMaterial::Clear(_) => KeyMaterial::Clear(Sensitive::copied(bytes)),
            KeyMaterial::Wrapped(_) => KeyMaterial::Wrapped(bytes.to_vec()),
            KeyMaterial::TokenObject(_) => panic!("what is generated is stored outside the token"),
        };
        let damaged = StoredKey {
            spec: stored.spec,
            usage: stored.usage,
            bulk_mode: stored.bulk_mode,
            material,
            public_key: None,
        };
        let refused = custody.load(&damaged).err();
        assert!(matches!(refused, Some(ProviderError::Corrupt(_))), "{} bytes: {refused:?}", bytes.len());
    }
    custody.load(&stored).expect("it loads");
}

/// Gives a lane to those that load and another to those that generate, and what one gives up leaves the other's alone.
pub fn lanes_of_control_share_what_is_loaded(fixture: &Fixture) {
    let (mut makes, mut loads) = (fixture.custody(), fixture.custody());
    let stored = fixture.stored(&mut *makes, Use::Derive);
    let handle = loads.load(&stored).expect("it loads");
    let before = derive(&mut *fixture.session(), &handle, MESSAGES).expect("it derives");
    let other = makes.load(&stored).expect("it loads");
    makes.unload(other).expect("the provider is up");
    drop(makes);
    assert_eq!(derive(&mut *fixture.session(), &handle, MESSAGES), Ok(before));
}

/// Gives its sign of life, twice.
pub fn the_canary_lives(fixture: &Fixture) {
    let mut custody = fixture.custody();
    custody.canary().expect("the provider lives");
    custody.canary().expect("the provider lives");
}

/// Fills each length wholly, and never twice alike.
pub fn random_bytes_differ_and_fill_every_length(fixture: &Fixture) {
    let mut session = fixture.session();
    let mut draws = HashSet::new();
    for len in [16, 17, 255, 256, 4096, 65_537] {
        for _ in 0..2 {
            let mut out = vec![0; len];
            session.random(&mut out).expect("its generator works");
            // Sixteen zeroes in a row would be 2^-128 by chance: a part was left out.
            assert!(out.windows(16).all(|window| window != [0; 16]), "{len} bytes");
            assert!(draws.insert(out[..16].to_vec()), "{len} bytes");
        }
    }
    session.random(&mut []).expect("nothing is a draw, too");
}
