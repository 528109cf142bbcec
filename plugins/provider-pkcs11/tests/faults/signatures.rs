//! Signatures, MACs, and decryptions by private keys: the session lost among them, the key gone, the device failing, the ciphertexts
//! forged; and pairs whose birth or loading fails half-way.

use cryptoki_sys::*;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    CryptoProvider, CryptoSession, DecryptJob, JobError, KeyHandle, KeyMaterial, ProviderError, SignJob,
    StoredKey,
};
use keymill_provider_pkcs11::Pkcs11Provider;

use crate::support::{self, faults};
use crate::{provider, provider_with};

fn made(provider: &Pkcs11Provider, spec: KeySpec, usage: KeyUsage) -> StoredKey {
    provider.custody().unwrap().generate(spec, usage, None).unwrap()
}

fn mac_key(provider: &Pkcs11Provider) -> KeyHandle {
    let stored = made(provider, KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac);
    provider.custody().unwrap().load(&stored).unwrap()
}

/// Makes jobs whose outcome is known by making it twice.
fn jobs(count: usize) -> Vec<SignJob> {
    (0..count).map(|i| SignJob::new(SignAlgorithm::HmacSha256, vec![i as u8; 40])).collect()
}

fn macs(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    count: usize,
) -> Vec<Option<Result<Vec<u8>, JobError>>> {
    let mut jobs = jobs(count);
    session.sign(key, &mut jobs).unwrap();
    assert!(jobs.iter().all(|job| matches!(job.output, Some(Ok(_)))));
    outputs(jobs)
}

fn outputs(jobs: Vec<SignJob>) -> Vec<Option<Result<Vec<u8>, JobError>>> {
    jobs.into_iter().map(|job| job.output).collect()
}

#[test]
fn a_session_lost_among_signatures_leaves_the_rest_undone() {
    let provider = provider();
    let key = mac_key(&provider);
    let mut session = provider.open_session().unwrap();
    let known = macs(&mut *session, &key, 8);
    for rv in [CKR_SESSION_HANDLE_INVALID, CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT, CKR_USER_NOT_LOGGED_IN]
    {
        for function in ["C_SignInit", "C_Sign"] {
            let mut work = jobs(8);
            faults::plan(function, 3, 1, rv);
            let lost = session.sign(&key, &mut work).unwrap_err();
            assert!(lost.reason.contains(function), "{}", lost.reason);
            assert!(work[..3].iter().all(|job| job.output.is_some()));
            assert!(work[3..].iter().all(|job| job.output.is_none()));
            // Another session does the rest, and nothing twice.
            session = provider.open_session().unwrap();
            let calls = faults::calls("C_Sign");
            session.sign(&key, &mut work).unwrap();
            assert_eq!(faults::calls("C_Sign") - calls, 5);
            assert_eq!(outputs(work), known);
        }
    }
}

/// The planned code comes without the real call, so that the operation stays active in the module.
#[test]
fn a_device_that_fails_now_and_then_signs_all_the_same() {
    let provider = provider();
    let key = mac_key(&provider);
    let mut session = provider.open_session().unwrap();
    let known = macs(&mut *session, &key, 8);
    for (function, rv) in
        [("C_Sign", CKR_GENERAL_ERROR), ("C_SignInit", CKR_DEVICE_ERROR), ("C_Sign", CKR_FUNCTION_FAILED)]
    {
        faults::plan(function, 4, 1, rv);
        assert_eq!(macs(&mut *session, &key, 8), known, "{function}");
    }
}

#[test]
fn a_device_that_dies_blames_no_digest() {
    let provider = provider();
    let key = mac_key(&provider);
    for rv in [CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, CKR_FUNCTION_FAILED] {
        let mut session = provider.open_session().unwrap();
        let mut work = jobs(40);
        let calls = faults::calls("C_Sign");
        faults::plan("C_Sign", 0, usize::MAX, rv);
        // The canary's song does not open either.
        faults::plan("C_Decrypt", 0, usize::MAX, rv);
        session.sign(&key, &mut work).unwrap_err();
        faults::clear();
        assert!(work.iter().all(|job| job.output.is_none()));
        assert_eq!(faults::calls("C_Sign") - calls, 1, "a dead device is not asked for each");
    }
    let mut session = provider.open_session().unwrap();
    macs(&mut *session, &key, 3);
}

#[test]
fn a_mechanism_that_is_refused_while_the_token_lives_is_the_jobs_fault() {
    let provider = provider();
    let key = mac_key(&provider);
    let mut session = provider.open_session().unwrap();
    let known = macs(&mut *session, &key, 3);
    for rv in [CKR_MECHANISM_PARAM_INVALID, CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_MECHANISM_INVALID] {
        let mut work = jobs(3);
        faults::plan("C_SignInit", 0, usize::MAX, rv);
        session.sign(&key, &mut work).unwrap();
        faults::clear();
        assert_eq!(outputs(work), [const { Some(Err(JobError::Rejected)) }; 3]);
    }
    assert_eq!(macs(&mut *session, &key, 3), known);
}

#[test]
fn a_signing_key_that_the_token_has_lost_is_stale_and_loads_again() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = made(&provider, KeySpec::EcP256, KeyUsage::SignVerify);
    let mut session = provider.open_session().unwrap();
    let digests =
        || (0..5).map(|i| SignJob::new(SignAlgorithm::EcdsaSha256, vec![i; 32])).collect::<Vec<_>>();
    for rv in [CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID] {
        let handle = custody.load(&stored).unwrap();
        let mut work = digests();
        faults::plan("C_SignInit", 2, 1, rv);
        session.sign(&handle, &mut work).unwrap();
        for (i, job) in work.iter().enumerate() {
            match &job.output {
                Some(Ok(_)) => assert!(i < 2),
                Some(Err(error)) => assert!(i >= 2 && *error == JobError::StaleHandle),
                None => panic!("job {i} has no outcome"),
            }
        }
    }
    let unwrapped = faults::calls("C_UnwrapKey");
    let handle = custody.load(&stored).unwrap();
    assert_eq!(faults::calls("C_UnwrapKey"), unwrapped + 1, "the lost object is not handed out again");
    let mut work = digests();
    session.sign(&handle, &mut work).unwrap();
    assert!(work.iter().all(|job| matches!(job.output, Some(Ok(_)))));
}

#[test]
fn forged_ciphertexts_for_a_private_key_lose_no_session_and_make_the_same_calls() {
    let provider = provider();
    let stored = made(&provider, KeySpec::Rsa2048, KeyUsage::EncryptDecrypt);
    let mut custody = provider.custody().unwrap();
    let key = custody.load(&stored).unwrap();
    let mut session = provider.open_session().unwrap();
    let before = ["C_OpenSession", "C_Login", "C_UnwrapKey"].map(faults::calls);
    let mut opened = |ciphertext: &[u8]| {
        let calls = || ["C_DecryptInit", "C_Decrypt"].map(faults::calls);
        let before = calls();
        let mut jobs = [DecryptJob::new(DecryptAlgorithm::RsaesOaepSha1, ciphertext.to_vec())];
        session.decrypt_asymmetric(&key, &mut jobs).unwrap();
        let [job] = jobs;
        let outcome = job.output.unwrap().map(|text| text.expose().to_vec());
        let after = calls();
        (outcome, [after[0] - before[0], after[1] - before[1]])
    };
    // Three tries, and the canary once, whatever is wrong and whatever the module says of it.
    let alike = (Err(JobError::InvalidCiphertext), [4, 4]);
    for i in 0..100u8 {
        let mut forged = vec![i; 256];
        forged[255] ^= 0x5a;
        assert_eq!(opened(&forged), alike, "{i}");
    }
    for rv in
        [CKR_ENCRYPTED_DATA_INVALID, CKR_DATA_LEN_RANGE, CKR_GENERAL_ERROR, CKR_ENCRYPTED_DATA_LEN_RANGE]
    {
        // The first try is answered so, the others by the module itself.
        faults::plan("C_Decrypt", 0, 1, rv);
        let (outcome, calls) = opened(&[9; 256]);
        assert_eq!((outcome, calls[1]), (alike.0.clone(), 4));
    }
    if support::is_kryoptic() {
        assert_eq!(before, ["C_OpenSession", "C_Login", "C_UnwrapKey"].map(faults::calls));
    } else {
        // What was planned left four operations active, and that module can end none.
        let [sessions, logins, unwraps] = before;
        let after = ["C_OpenSession", "C_Login", "C_UnwrapKey"].map(faults::calls);
        assert_eq!(after, [sessions + 4, logins, unwraps]);
    }
    custody.canary().unwrap();
}

#[test]
fn a_pair_whose_birth_fails_half_way_leaves_nothing_behind() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let watch = support::module().open_session(support::slot(&label), false).unwrap();
    let objects = || [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY].map(|class| support::objects(&watch, class));
    for function in [
        "C_GenerateKeyPair",
        "C_WrapKey",
        "C_UnwrapKey",
        "C_CreateObject",
        "C_SignInit",
        "C_Sign",
        "C_VerifyInit",
        "C_Verify",
    ] {
        faults::plan(function, 0, 1, CKR_FUNCTION_FAILED);
        let refused = custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None).err();
        faults::clear();
        assert!(matches!(refused, Some(ProviderError::Unavailable(_))), "{function}: {refused:?}");
        assert_eq!(objects(), [0, 0], "{function}");
    }
    // A private key that does not come back as itself is never stored.
    faults::plan("C_Verify", 0, 1, CKR_SIGNATURE_INVALID);
    let refused = custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None).err();
    assert!(matches!(refused, Some(ProviderError::Unavailable(_))), "{refused:?}");
    // One that is hard to destroy is destroyed at last, as what can leave the token must be.
    faults::plan("C_DestroyObject", 0, 2, CKR_FUNCTION_FAILED);
    let stored = custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None).unwrap();
    custody.canary().unwrap();
    assert_eq!(objects(), [0, 0]);
    custody.load(&stored).unwrap();
    custody.canary().unwrap();
    assert_eq!(objects(), [1, 0]);
}

#[test]
fn a_device_that_fails_while_a_pair_is_proved_damages_nothing() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = made(&provider, KeySpec::EcP256, KeyUsage::SignVerify);
    for function in ["C_UnwrapKey", "C_CreateObject", "C_Sign", "C_Verify"] {
        faults::plan(function, 0, 1, CKR_DEVICE_ERROR);
        let handle = custody.load(&stored).unwrap();
        custody.unload(handle).unwrap();
        custody.destroy(&stored).unwrap();
    }
    // One that proves nothing at all is away, as long as its canary is silent, too.
    faults::plan("C_Verify", 0, usize::MAX, CKR_DEVICE_ERROR);
    faults::plan("C_Decrypt", 0, usize::MAX, CKR_DEVICE_ERROR);
    assert!(matches!(custody.load(&stored).err(), Some(ProviderError::Unavailable(_))));
    faults::clear();
    custody.load(&stored).unwrap();
}

#[test]
fn a_swapped_private_key_is_corrupt_and_casts_no_doubt_on_the_token() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = made(&provider, KeySpec::EcP256, KeyUsage::SignVerify);
    let other = made(&provider, KeySpec::EcP256, KeyUsage::SignVerify);
    let KeyMaterial::Wrapped(material) = &other.material else { panic!("an HSM key is wrapped") };
    let swapped = StoredKey {
        spec: stored.spec,
        usage: stored.usage,
        bulk_mode: None,
        material: KeyMaterial::Wrapped(material.clone()),
        public_key: stored.public_key.clone(),
    };
    let generation = custody.load(&other).unwrap().generation;
    assert!(matches!(custody.load(&swapped).err(), Some(ProviderError::Corrupt(_))));
    assert_eq!(custody.load(&other).unwrap().generation, generation);
}
