//! Key material of a caller's own in keys of the tokens: it is unwrapped in a token, by a pair that was made there for it and is destroyed
//! there, and nobody outside sees it. The module is SoftHSM, which has OAEP with SHA-1 alone, or Kryoptic where
//! `KEYMILL_KRYOPTIC_MODULE` names it, which has all that is offered.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256};
use aws_lc_rs::signature::RsaKeyPair;
use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_core::key::{
    BulkMode, DecryptAlgorithm, Fallback, KeySpec, KeyState, KeyStorageMechanism, KeyUsage, Origin,
    ProtectionLevel, SignAlgorithm, WrappingAlgorithm,
};
use keymill_core::operation::CreateKeyRequest;
use keymill_crypto::digest;
use keymill_e2e::{Answered, Caller, Parameters, Rows, audit_lines, eventually, external, verified};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::EngineConfig;

const DAY_MS: i64 = 86_400_000;
const MODES: [BulkMode; 2] = [BulkMode::InHsm, BulkMode::HsmDerived];
const MATERIAL: [u8; 32] = *b"material of our own, 32 bytes!!!";
const OTHER: [u8; 32] = *b"material of another, 32 bytes!!!";
/// What the pairs are called in their token that material is wrapped by.
const PAIR: &str = "keymill import";

const INVALID_MATERIAL: &str = "InvalidKeyMaterial";
const INVALID_TOKEN: &str = "InvalidImportToken";
const EXPIRED_TOKEN: &str = "ExpiredImportToken";
const UNSUPPORTED: &str = "UnsupportedOperation";

fn config() -> EngineConfig {
    EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() }
}

fn setup(farm: &Farm) -> Setup {
    Setup::new(config()).with_tokens(farm.parts(2))
}

fn await_tokens(caller: &mut Caller) {
    eventually("the tokens are up", || {
        caller.tokens().unwrap().iter().all(|token| token.state == "up").then_some(())
    });
}

fn start(setup: Setup) -> (Live, Credentials, Caller) {
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    (live, credentials, caller)
}

fn begin(farm: &Farm) -> (Live, Credentials, Caller) {
    start(setup(farm))
}

fn again(live: Live, setup: Setup, credentials: &Credentials) -> (Live, Caller) {
    let live = live.halt().start(setup);
    let mut caller = Caller::new(&live, credentials);
    await_tokens(&mut caller);
    (live, caller)
}

/// How material comes into a token of the module under test.
fn offered() -> &'static [WrappingAlgorithm] {
    const ALL: [WrappingAlgorithm; 3] = [
        WrappingAlgorithm::RsaesOaepSha1,
        WrappingAlgorithm::RsaesOaepSha256,
        WrappingAlgorithm::RsaAesKeyWrapSha256,
    ];
    match std::env::var_os("KEYMILL_KRYOPTIC_MODULE") {
        Some(_) => &ALL,
        None => &ALL[..1],
    }
}

fn parameters(caller: &mut Caller, key: CmkId) -> Answered<Parameters> {
    caller.import_parameters(key, KeySpec::Rsa2048, offered()[0])
}

fn import(caller: &mut Caller, key: CmkId, material: &[u8]) -> Answered<()> {
    let by = parameters(caller, key)?;
    caller.import_by(key, &by, material)
}

fn awaiting(caller: &mut Caller, mode: BulkMode) -> CmkId {
    caller.create_external_in_hsm(KeySpec::Aes256, Some(mode)).unwrap().key
}

fn state(caller: &mut Caller, key: CmkId) -> KeyState {
    caller.describe(key).unwrap().key_state
}

/// Checks that a request is refused with a code.
fn refused<T: std::fmt::Debug>(answered: Answered<T>, code: &str) -> String {
    let error = answered.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    error.message
}

fn pairs(farm: &Farm) -> usize {
    farm.hsms.iter().map(|hsm| hsm.count_private_keys(PAIR)).sum()
}

fn pairs_go(farm: &Farm, left: usize) {
    eventually("the pairs are destroyed", || (pairs(farm) == left).then_some(()));
}

/// Calls of a function, at all HSMs.
fn calls(farm: &Farm, function: &str) -> u64 {
    farm.hsms.iter().map(|hsm| hsm.calls(function)).sum()
}

#[test]
fn material_is_brought_in_every_wrapping_and_is_what_the_key_computes_with() {
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm);
    let mut kept = Vec::new();
    for (spec, algorithm) in [KeySpec::Rsa2048, KeySpec::Rsa3072]
        .into_iter()
        .flat_map(|spec| offered().iter().map(move |algorithm| (spec, *algorithm)))
    {
        let key = caller.create_external_in_hsm(KeySpec::HmacSha256, None).unwrap().key;
        let shown = caller.describe(key).unwrap();
        assert_eq!(
            (shown.origin, shown.key_state, shown.protection_level, shown.key_storage_mechanism),
            (
                Origin::External,
                KeyState::PendingImport,
                ProtectionLevel::Hsm,
                Some(KeyStorageMechanism::HsmEncryptedDatabase)
            )
        );
        let by = caller.import_parameters(key, spec, algorithm).unwrap();
        caller.import_by(key, &by, &MATERIAL).unwrap();
        let mac = caller.mac(key, SignAlgorithm::HmacSha256, b"message").unwrap();
        assert_eq!(mac, digest::hmac_sha256(&MATERIAL, b"message"), "{spec:?} {algorithm:?}");
        kept.push(key);
    }
    for mode in MODES {
        let key = awaiting(&mut caller, mode);
        assert_eq!(caller.describe(key).unwrap().bulk_mode, Some(mode));
        import(&mut caller, key, &MATERIAL).unwrap();
        let items: Vec<_> = (0..700).map(|n| format!("record {n}").into_bytes()).collect();
        let blobs = caller.batch_encrypt(key, &items).unwrap();
        let opened = caller.batch_decrypt(&blobs).unwrap();
        assert_eq!(opened.errors, []);
        assert!(opened.items.iter().zip(&items).all(|(got, item)| got.as_ref() == Some(item)));
        refused(caller.rotate(key), UNSUPPORTED);
    }
    let short = caller.create_external_in_hsm(KeySpec::Aes128, Some(BulkMode::InHsm)).unwrap().key;
    import(&mut caller, short, &MATERIAL[..16]).unwrap();
    let blob = caller.encrypt(short, b"kept", &[("a", "b")]).unwrap();
    pairs_go(&farm, 0);
    drop(caller);
    let (live, mut caller) = again(live, setup(&farm), &credentials);
    assert_eq!(caller.decrypt(&blob, &[("a", "b")]).unwrap(), b"kept");
    for key in kept {
        let mac = caller.mac(key, SignAlgorithm::HmacSha256, b"message").unwrap();
        assert_eq!(mac, digest::hmac_sha256(&MATERIAL, b"message"));
    }
    drop(caller);
    verified(&live.halt());
}

/// What comes by `C_UnwrapKey` leaves by `C_WrapKey`, and no other call has seen it in clear.
#[test]
fn no_call_of_the_module_carries_material_in_clear() {
    let farm = Farm::new(1);
    let (live, _, mut caller) = begin(&farm);
    for mode in MODES {
        let key = awaiting(&mut caller, mode);
        let by = parameters(&mut caller, key).unwrap();
        let carry = ["C_CreateObject", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptMessage"];
        let wraps = ["C_UnwrapKey", "C_WrapKey"];
        let count = |names: &[&str]| names.iter().map(|name| calls(&farm, name)).collect::<Vec<_>>();
        let before = (count(&carry), count(&wraps));
        caller.import_by(key, &by, &MATERIAL).unwrap();
        let after = (count(&carry), count(&wraps));
        assert_eq!(before.0, after.0, "{mode:?}");
        assert!(before.1.iter().zip(&after.1).all(|(before, after)| after > before), "{before:?} {after:?}");
        assert!(caller.encrypt(key, b"x", &[]).is_ok());
    }
    drop(caller);
    // Nor is it in the store: what stands there is wrapped, and sealed.
    let site = live.halt();
    for row in Rows::of(&site).paths("material/") {
        let sealed = Rows::of(&site).get(&row).unwrap();
        let opened = site.sealer().open(&row, 2, &sealed).unwrap();
        assert!(!opened.payload.expose().windows(16).any(|window| window == &MATERIAL[..16]), "{row}");
    }
    verified(&site);
}

#[test]
fn what_no_token_takes_is_refused_plainly_and_before_there_is_a_pair() {
    let farm = Farm::new(1);
    let mut allowing = config();
    allowing.pool.fallback = Fallback::Saturated;
    let (_live, _, mut caller) = start(Setup::new(allowing).with_tokens(farm.parts(2)));
    let asked = |change: &dyn Fn(&mut CreateKeyRequest)| {
        let mut request = external(KeySpec::Aes256, ProtectionLevel::Hsm, Some(BulkMode::InHsm));
        change(&mut request);
        request
    };
    for (request, told) in [
        (
            asked(&|request| request.key_storage_mechanism = Some(KeyStorageMechanism::HsmInternal)),
            "HsmInternal",
        ),
        (asked(&|request| request.fallback = Some(Fallback::Unavailable)), "no copy to fall back to"),
        (external(KeySpec::EcP256, ProtectionLevel::Hsm, None), "EC_P256"),
    ] {
        let message = refused(caller.create_external_of(request), UNSUPPORTED);
        assert!(message.contains(told), "{message}");
    }
    let key = awaiting(&mut caller, BulkMode::InHsm);
    for algorithm in [
        WrappingAlgorithm::RsaesOaepSha1,
        WrappingAlgorithm::RsaesOaepSha256,
        WrappingAlgorithm::RsaAesKeyWrapSha256,
        WrappingAlgorithm::RsaesPkcs1V15,
    ] {
        if !offered().contains(&algorithm) {
            let message = refused(caller.import_parameters(key, KeySpec::Rsa2048, algorithm), UNSUPPORTED);
            assert!(message.contains(algorithm.name()), "{message}");
        }
    }
    assert_eq!(pairs(&farm), 0);
    // A private key comes under AES alone, where the token has OAEP with SHA-256 for the key of that.
    let rsa = caller.create_external_in_hsm(KeySpec::Rsa2048, None);
    match offered().contains(&WrappingAlgorithm::RsaAesKeyWrapSha256) {
        true => drop(refused(parameters(&mut caller, rsa.unwrap().key), UNSUPPORTED)),
        false => drop(refused(rsa, UNSUPPORTED)),
    }
    assert_eq!(pairs(&farm), 0);
}

#[test]
fn key_pairs_of_rsa_come_as_pkcs_8() {
    let hybrid = WrappingAlgorithm::RsaAesKeyWrapSha256;
    if !offered().contains(&hybrid) {
        // Which the test before this one sees refused.
        return;
    }
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm);
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let other = RsaKeyPair::generate(KeySize::Rsa3072).unwrap();
    let other: Pkcs8V1Der<'_> = other.as_der().unwrap();
    let request = CreateKeyRequest {
        key_usage: Some(KeyUsage::EncryptDecrypt),
        ..external(KeySpec::Rsa2048, ProtectionLevel::Hsm, None)
    };
    let opener = caller.create_external_of(request).unwrap();
    let by = caller.import_parameters(opener.key, KeySpec::Rsa2048, hybrid).unwrap();
    for wrong in [other.as_ref(), &MATERIAL, &private.as_ref()[1..]] {
        refused(caller.import_by(opener.key, &by, wrong), INVALID_MATERIAL);
    }
    caller.import_by(opener.key, &by, private.as_ref()).unwrap();
    pairs_go(&farm, 0);
    // Its public half is the caller's own: whoever has that encrypts for it.
    let oaep = DecryptAlgorithm::RsaesOaepSha256;
    let pem = caller.public_key(opener).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_der().unwrap();
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = public;
    assert_eq!(pem, keymill_core::seam::provider::PublicKey::from_der(public.as_ref().to_vec()).to_pem());
    let mine = Parameters { public: public.as_ref().to_vec(), ..by };
    let sealed = mine.encrypt(&OAEP_SHA256_MGF1SHA256, b"x");
    assert_eq!(caller.decrypt_by(opener, oaep, &sealed).unwrap(), b"x");
    drop(caller);
    let (live, mut caller) = again(live, setup(&farm), &credentials);
    assert_eq!(caller.decrypt_by(opener, oaep, &sealed).unwrap(), b"x");
    caller.delete_material(opener.key).unwrap();
    refused(caller.decrypt_by(opener, oaep, &sealed), "Rejected.PendingImport");
    let twin = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let twin: Pkcs8V1Der<'_> = twin.as_der().unwrap();
    let by = caller.import_parameters(opener.key, KeySpec::Rsa2048, hybrid).unwrap();
    refused(caller.import_by(opener.key, &by, twin.as_ref()), INVALID_MATERIAL);
    caller.import_by(opener.key, &by, private.as_ref()).unwrap();
    assert_eq!(caller.decrypt_by(opener, oaep, &sealed).unwrap(), b"x");
    drop(caller);
    verified(&live.halt());
}

#[test]
fn whatever_does_not_unwrap_is_refused_alike_and_the_fifth_try_destroys_the_pair() {
    let farm = Farm::new(1);
    let (live, _, mut caller) = begin(&farm);
    for (mode, algorithm) in
        MODES.into_iter().flat_map(|mode| offered().iter().map(move |algorithm| (mode, *algorithm)))
    {
        let (key, other) = (awaiting(&mut caller, mode), awaiting(&mut caller, mode));
        let by = caller.import_parameters(key, KeySpec::Rsa2048, algorithm).unwrap();
        let of_other = caller.import_parameters(other, KeySpec::Rsa2048, algorithm).unwrap();
        assert_eq!(pairs(&farm), 2);
        let good = by.wrap(&MATERIAL);
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let spoilt = [
            flipped,
            by.wrap(&MATERIAL[1..]),
            by.wrap(&MATERIAL[..16]),
            good[1..].to_vec(),
            of_other.wrap(&MATERIAL),
        ];
        let mut told = Vec::new();
        for wrapped in spoilt {
            let error = caller.import_wrapped(key, &by.token, &wrapped, None).unwrap_err();
            assert_eq!(
                (&*error.code, error.status, error.retryable),
                (INVALID_MATERIAL, 400, false),
                "{error}"
            );
            told.push(error.message);
        }
        assert!(told.iter().all(|message| *message == told[0]), "{told:?}");
        refused(caller.import_wrapped(key, &by.token, &good, None), INVALID_TOKEN);
        pairs_go(&farm, 1);
        assert_eq!(state(&mut caller, key), KeyState::PendingImport);
        // A fifth try that is good is one.
        for _ in 0..4 {
            refused(caller.import_by(other, &of_other, &MATERIAL[..24]), INVALID_MATERIAL);
        }
        caller.import_by(other, &of_other, &MATERIAL).unwrap();
        assert!(caller.encrypt(other, b"x", &[]).is_ok());
        pairs_go(&farm, 0);
    }
    drop(caller);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), Vec::<String>::new());
    let lines = audit_lines(&site);
    let count = |operation: &str| lines.iter().filter(|line| line["operation"] == operation).count();
    let runs = MODES.len() * offered().len();
    assert_eq!((count("TryImport"), count("DestroyWrappingKey")), (10 * runs, 2 * runs));
    verified(&site);
}

#[test]
fn c9_other_material_is_refused_for_ever_and_the_same_opens_old_blobs() {
    let farm = Farm::new(1);
    for mode in MODES {
        let (live, credentials, mut caller) = begin(&farm);
        let key = awaiting(&mut caller, mode);
        import(&mut caller, key, &MATERIAL).unwrap();
        let blob = caller.encrypt(key, b"old", &[]).unwrap();
        refused(import(&mut caller, key, &OTHER), INVALID_MATERIAL);
        // Brought while it is there, it stays what it is.
        import(&mut caller, key, &MATERIAL).unwrap();
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
        caller.delete_material(key).unwrap();
        assert_eq!(state(&mut caller, key), KeyState::PendingImport);
        refused(caller.decrypt(&blob, &[]), "Rejected.PendingImport");
        refused(caller.encrypt(key, b"x", &[]), "Rejected.PendingImport");
        refused(import(&mut caller, key, &OTHER), INVALID_MATERIAL);
        drop(caller);
        let site = live.halt();
        assert_eq!(Rows::of(&site).paths(&format!("material/{key}")), Vec::<String>::new());

        let live = site.start(setup(&farm));
        let mut caller = Caller::new(&live, &credentials);
        await_tokens(&mut caller);
        refused(caller.decrypt(&blob, &[]), "Rejected.PendingImport");
        refused(import(&mut caller, key, &OTHER), INVALID_MATERIAL);
        import(&mut caller, key, &MATERIAL).unwrap();
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
        // One that is disabled stays so, and is used by nobody.
        caller.disable(key).unwrap();
        refused(caller.decrypt(&blob, &[]), "Rejected.Disabled");
        import(&mut caller, key, &MATERIAL).unwrap();
        assert_eq!(state(&mut caller, key), KeyState::Disabled);
        refused(caller.decrypt(&blob, &[]), "Rejected.Disabled");
        caller.enable(key).unwrap();
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
        drop(caller);
        verified(&live.halt());
    }
}

#[test]
fn c10_a_token_is_of_one_key_and_dies_with_its_use_and_with_the_next_one() {
    let farm = Farm::new(1);
    let (live, _, mut caller) = begin(&farm);
    let (key, other) = (awaiting(&mut caller, MODES[0]), awaiting(&mut caller, MODES[1]));
    let first = parameters(&mut caller, key).unwrap();
    let of_other = parameters(&mut caller, other).unwrap();
    refused(caller.import_by(key, &of_other, &MATERIAL), INVALID_TOKEN);
    refused(caller.import_by(other, &first, &MATERIAL), INVALID_TOKEN);
    let second = parameters(&mut caller, key).unwrap();
    assert_ne!(second.public, first.public);
    // The pair that was made before is worth nothing any more, and goes.
    pairs_go(&farm, 2);
    refused(caller.import_by(key, &first, &MATERIAL), INVALID_TOKEN);
    let mixed = Parameters { token: second.token.clone(), ..first };
    refused(caller.import_by(key, &mixed, &MATERIAL), INVALID_MATERIAL);
    caller.import_by(key, &second, &MATERIAL).unwrap();
    for material in [MATERIAL, OTHER] {
        refused(caller.import_by(key, &second, &material), INVALID_TOKEN);
    }
    pairs_go(&farm, 1);
    caller.import_by(other, &of_other, &OTHER).unwrap();
    pairs_go(&farm, 0);
    drop(caller);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), Vec::<String>::new());
    verified(&site);
}

#[test]
fn c10_a_pair_outlives_a_restart_and_its_day_ends_it() {
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm);
    let [used, late] = MODES.map(|mode| awaiting(&mut caller, mode));
    let by_used = parameters(&mut caller, used).unwrap();
    let by_late = parameters(&mut caller, late).unwrap();
    refused(caller.import_by(used, &by_used, &MATERIAL[1..]), INVALID_MATERIAL);
    drop(caller);
    let hour = DAY_MS / 24;
    let (live, mut caller) = again(live, setup(&farm).at_offset_ms(DAY_MS - hour), &credentials);
    assert_eq!(pairs(&farm), 2);
    caller.import_by(used, &by_used, &MATERIAL).unwrap();
    assert!(caller.encrypt(used, b"x", &[]).is_ok());
    pairs_go(&farm, 1);
    drop(caller);
    let (live, mut caller) = again(live, setup(&farm).at_offset_ms(DAY_MS + 1_000), &credentials);
    refused(caller.import_by(late, &by_late, &MATERIAL), EXPIRED_TOKEN);
    pairs_go(&farm, 0);
    drop(caller);
    let (live, mut caller) = again(live, setup(&farm).at_offset_ms(DAY_MS + 2_000), &credentials);
    refused(caller.import_by(late, &by_late, &MATERIAL), EXPIRED_TOKEN);
    import(&mut caller, late, &MATERIAL).unwrap();
    assert_eq!(state(&mut caller, late), KeyState::Enabled);
    drop(caller);
    verified(&live.halt());
}

#[test]
fn without_the_token_of_its_pair_nothing_is_tried_and_with_it_all_goes_on() {
    let farm = Farm::new(2);
    let (live, _, mut caller) = begin(&farm);
    let key = awaiting(&mut caller, BulkMode::HsmDerived);
    let by = parameters(&mut caller, key).unwrap();
    let at = farm.hsms.iter().position(|hsm| hsm.count_private_keys(PAIR) == 1).unwrap();
    farm.hsms[at].control("removed = true");
    for _ in 0..8 {
        let error = caller.import_by(key, &by, &MATERIAL).unwrap_err();
        assert_eq!((&*error.code, error.retryable), ("ServiceUnavailableTemporary", true), "{error}");
    }
    assert_eq!(state(&mut caller, key), KeyState::PendingImport);
    farm.hsms[at].control("");
    await_tokens(&mut caller);
    caller.import_by(key, &by, &MATERIAL).unwrap();
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    // Any token of the domain serves what one has taken in.
    farm.hsms[at].control("removed = true");
    let opened = eventually("the other serves it", || caller.decrypt(&blob, &[]).ok());
    assert_eq!(opened, b"x");
    farm.hsms[at].control("");
    await_tokens(&mut caller);
    pairs_go(&farm, 0);
    drop(caller);
    verified(&live.halt());
}

#[test]
fn a_pair_goes_with_its_key_however_long_its_token_is_away() {
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm);
    let key = awaiting(&mut caller, BulkMode::InHsm);
    let week = 7 * DAY_MS + 60_000;
    caller.schedule_deletion(key).unwrap();
    drop(caller);
    // It is asked for when the key has but an hour left, so that it does not expire before.
    let late = week - DAY_MS / 24;
    let (live, mut caller) = again(live, setup(&farm).at_offset_ms(late), &credentials);
    let by = parameters(&mut caller, key).unwrap();
    refused(caller.import_by(key, &by, &MATERIAL), "Rejected.StateModifiedFailed");
    assert_eq!(pairs(&farm), 1);
    drop(caller);
    let site = live.halt();
    farm.hsms[0].control("removed = true");
    let live = site.start(setup(&farm).at_offset_ms(week));
    let mut caller = Caller::new(&live, &credentials);
    eventually("the key is deleted", || caller.describe(key).is_err().then_some(()));
    drop(caller);
    // What is left of it is remembered over a restart, until the token is back.
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), [format!("import/{key}")]);
    farm.hsms[0].control("");
    assert_eq!(pairs(&farm), 1);
    let live = site.start(setup(&farm).at_offset_ms(week + 1_000));
    pairs_go(&farm, 0);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), Vec::<String>::new());
    verified(&site);
}

#[test]
fn a_module_in_a_process_of_its_own_takes_material_in_as_well() {
    let farm = Farm::new(1);
    let isolated = || Setup::new(config()).with_tokens(farm.isolated_parts_with(|token| token.sessions = 2));
    let (live, credentials, mut caller) = start(isolated());
    let keys = MODES.map(|mode| awaiting(&mut caller, mode));
    let by = keys.map(|key| parameters(&mut caller, key).unwrap());
    for (key, by) in keys.into_iter().zip(&by) {
        refused(caller.import_by(key, by, &MATERIAL[1..]), INVALID_MATERIAL);
    }
    drop(caller);
    // Its process ends with the engine's.
    let (live, mut caller) = again(live, isolated(), &credentials);
    for (key, by) in keys.into_iter().zip(&by) {
        caller.import_by(key, by, &MATERIAL).unwrap();
        let blob = caller.encrypt(key, b"old", &[]).unwrap();
        caller.delete_material(key).unwrap();
        refused(import(&mut caller, key, &OTHER), INVALID_MATERIAL);
        import(&mut caller, key, &MATERIAL).unwrap();
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
    }
    pairs_go(&farm, 0);
    drop(caller);
    verified(&live.halt());
}
