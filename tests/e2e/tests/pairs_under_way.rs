//! Batches of key pairs that are under way, in software and in a token, when their key is disabled (case C2), or a call hangs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_core::id::CmkId;
use keymill_core::key::{BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm};
use keymill_core::operation::{Bin, ItemError, MessageType, Reply};
use keymill_e2e::{Answered, Caller, Items, eventually};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::EngineConfig;

const SOFTWARE: Option<ProtectionLevel> = Some(ProtectionLevel::Software);
const HSM: Option<ProtectionLevel> = Some(ProtectionLevel::Hsm);

/// Case C2: from the answer of a disable on nothing is signed, in whatever batch.
#[test]
fn a_batch_that_is_under_way_gives_nothing_out_once_its_key_is_disabled() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let pair = caller.create_pair(KeySpec::Rsa4096, None, SOFTWARE).unwrap();
    let mut busy = Caller::new(&live, &credentials);
    let digests = vec![vec![7; 32]; 2_000];
    let signing = std::thread::spawn(move || {
        busy.batch_sign(pair, SignAlgorithm::RsaPssSha256, MessageType::Digest, &digests)
    });
    std::thread::sleep(Duration::from_millis(300));
    caller.disable(pair.key).unwrap();
    assert_eq!(signing.join().unwrap().unwrap_err().code, "Rejected.Disabled");
}

/// Case C2 in a token, where a batch is on its way for long: none of what it gives out is of a key that was disabled meanwhile.
#[test]
fn a_batch_that_is_under_way_in_a_token_gives_nothing_out_once_its_key_is_disabled() {
    const ITEMS: usize = 600;
    const ECDSA: SignAlgorithm = SignAlgorithm::EcdsaSha256;
    const OAEP: DecryptAlgorithm = DecryptAlgorithm::RsaesOaepSha1;
    type Run = Box<dyn FnOnce(&mut Caller) -> Answered<(Items, Vec<ItemError>)> + Send>;
    let farm = Farm::new(1);
    // However busy the machine is: no call is given up, and none but those of the batch is made.
    let setup = Setup::new(EngineConfig::default()).with_tokens(farm.parts_with(|config| {
        config.sessions = 2;
        config.call_timeout = Duration::from_secs(60);
        config.probe_interval = Duration::from_secs(3600);
    }));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    eventually("a token is up", || (caller.tokens().unwrap()[0].state == "up").then_some(()));
    let items = vec![b"x".to_vec(); ITEMS];
    let signs = caller.create_pair(KeySpec::EcP256, None, HSM).unwrap();
    let opens = caller.create_pair(KeySpec::Rsa2048, Some(KeyUsage::EncryptDecrypt), HSM).unwrap();
    let seals = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let ciphertexts = vec![caller.encrypt_for(opens, OAEP, b"x").unwrap(); ITEMS];
    let blobs = vec![caller.encrypt(seals, b"x", &[]).unwrap(); ITEMS];
    let runs: [(&str, CmkId, Run); 4] = [
        ("C_Sign", signs.key, {
            let items = items.clone();
            Box::new(move |caller| caller.batch_sign(signs, ECDSA, MessageType::Raw, &items))
        }),
        ("C_Decrypt", opens.key, Box::new(move |caller| caller.batch_decrypt_by(opens, OAEP, &ciphertexts))),
        (
            "C_Decrypt",
            seals,
            Box::new(move |caller| caller.batch_decrypt(&blobs).map(|opened| (opened.items, opened.errors))),
        ),
        (
            "C_Encrypt",
            seals,
            Box::new(move |caller| {
                caller.ask(keymill_e2e::batch_encrypt(seals, &items), |reply| match reply {
                    Reply::BatchEncrypt(reply) => {
                        (reply.items.into_iter().map(|item| item.map(Bin::into_vec)).collect(), reply.errors)
                    }
                    other => panic!("{other:?}"),
                })
            }),
        ),
    ];
    farm.control("latency_us_of = { C_Sign = 3000, C_Decrypt = 3000, C_Encrypt = 3000 }");
    for (function, key, run) in runs {
        let hsm = &farm.hsms[0];
        let before = hsm.calls(function);
        let mut busy = Caller::new(&live, &credentials);
        let running = std::thread::spawn(move || run(&mut busy));
        eventually("it is under way", || (hsm.calls(function) >= before + 20).then_some(()));
        caller.disable(key).unwrap();
        let done = hsm.calls(function) - before;
        assert!(done < ITEMS as u64, "{function}: it was over before the key was disabled");
        match running.join().unwrap() {
            Err(refused) => assert_eq!(refused.code, "Rejected.Disabled", "{function}"),
            Ok((items, errors)) => {
                let given = items.iter().flatten().count();
                assert_eq!(
                    given,
                    0,
                    "{function}: {done} calls; {} errors, as {:?}",
                    errors.len(),
                    errors.first()
                );
                assert_eq!(errors.len(), ITEMS);
                assert!(errors.iter().all(|error| error.1 == "Rejected.Disabled"), "{function}");
            }
        }
        caller.enable(key).unwrap();
    }
}

/// A call that does not return costs its thread: what it held is signed by another session.
#[test]
fn a_signature_that_hangs_in_a_token_is_made_elsewhere() {
    let farm = Farm::new(1);
    let setup = Setup::new(EngineConfig::default()).with_tokens(farm.parts_with(|config| {
        config.sessions = 2;
        config.call_timeout = Duration::from_millis(300);
        config.probe_interval = Duration::from_secs(3600);
    }));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    eventually("every session is open", || {
        let tokens = caller.tokens().unwrap();
        tokens.iter().all(|token| token.state == "up" && token.sessions == 2).then_some(())
    });
    let pair = caller.create_pair(KeySpec::EcP256, None, HSM).unwrap();
    let ecdsa = SignAlgorithm::EcdsaSha256;
    caller.sign_digest(pair, ecdsa, &[7; 32]).unwrap();
    farm.control("faults = [{ functions = [\"C_Sign\"], next = 1, hang_ms = 2500 }]");
    let digests: Vec<Vec<u8>> = (0..40).map(|i| vec![i; 32]).collect();
    let (made, errors) = caller.batch_sign(pair, ecdsa, MessageType::Digest, &digests).unwrap();
    assert_eq!(errors, []);
    let made: Vec<_> = made.into_iter().flatten().collect();
    let (valid, _) = caller.batch_verify(pair, ecdsa, MessageType::Digest, &digests, &made).unwrap();
    assert_eq!(valid, [Some(true); 40]);
    drop(live);
}
