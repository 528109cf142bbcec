//! What a worker answers: a parent must not come to harm by a worker whose memory a module has spoilt.

use keymill_core::Sensitive;
use keymill_core::blob::Algorithm;
use keymill_core::key::{KeyCheck, KeySpec, KeyUsage, ProtectionLevel, WrappingAlgorithm};
use keymill_core::seam::provider::{
    AeadItem, FailureCode, JobError, KeyMaterial, ProviderError, ProviderProfile, SessionLost, StoredKey,
    Unwrapped,
};
use keymill_provider_worker::wire::{
    AeadAnswer, Failed, JobsAnswer, KeyRef, Kind, Output, ReadyProfile, StoredMessage, UnwrappedMessage,
    begin, finish,
};

use super::received;
use crate::memory::{room, within};
use crate::target::Seed;

/// The first bytes say in which reads the answer arrives, how many items were asked for, and how many bytes of texts.
pub(crate) fn check(bytes: &[u8]) {
    let Some(([read, items, texts], message)) = bytes.split_first_chunk() else { return };
    let Some((header, body)) = received(message, *read) else { return };
    let (items, texts) = (usize::from(*items), usize::from(*texts));
    match header.kind {
        Kind::Ready => ready(&body),
        Kind::Failed => failed(&body),
        Kind::Stored => stored(&body),
        Kind::Unwrapped => unwrapped(&body),
        Kind::Loaded => assert_eq!(KeyRef::decode_number(&body).is_ok(), body.len() == 8),
        Kind::Outcomes => outcomes(&body, items, texts),
        Kind::Outputs => outputs(&body, items),
        _ => {}
    }
}

fn ready(body: &[u8]) {
    let Ok(profile) = within(room(body.len()), || ReadyProfile::decode(body)) else { return };
    assert!(!profile.name.is_empty() && profile.name.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'));
    assert!(profile.max_batch >= 1 && profile.max_sessions >= 1);
    assert!(profile.specs.len() + profile.algorithms.len() <= body.len());
}

fn failed(body: &[u8]) {
    let Ok(failed) = within(room(body.len()), || Failed::decode(body)) else { return };
    match &failed.error {
        ProviderError::Rejected(why) | ProviderError::Corrupt(why) => fits_a_log_line(why),
        ProviderError::Unavailable(cause) => fits_a_log_line(&cause.reason),
    }
    let mut again = Vec::new();
    failed.encode(&mut again);
    let read = Failed::decode(&again).expect("it was written here");
    assert_eq!(format!("{read:?}"), format!("{failed:?}"));
}

fn stored(body: &[u8]) {
    let written = |key: &StoredKey| {
        let mut out = Vec::new();
        StoredMessage::encode(key, &mut out);
        out
    };
    let Ok(key) = within(room(body.len()), || StoredMessage::decode(body)) else { return };
    let again = written(&key);
    assert_eq!(written(&StoredMessage::decode(&again).expect("it was written here")), again);
}

fn unwrapped(body: &[u8]) {
    let written = |unwrapped: &Unwrapped| {
        let mut out = Vec::new();
        UnwrappedMessage::encode(unwrapped, &mut out);
        out
    };
    let Ok(read) = within(room(body.len()), || UnwrappedMessage::decode(body)) else { return };
    let again = written(&read);
    assert_eq!(written(&UnwrappedMessage::decode(&again).expect("it was written here")), again);
}

fn outcomes(body: &[u8], items: usize, texts: usize) {
    let Ok(answer) = within(room(body.len()), || AeadAnswer::decode(body, items, texts)) else { return };
    assert_eq!((answer.outcomes().count(), answer.texts.len()), (items, texts));
    alive_or_lost(answer.lost.as_ref(), answer.outcomes().all(|outcome| outcome.is_some()));
    let done: Vec<_> = answer
        .outcomes()
        .map(|outcome| AeadItem { nonce: [0; 12], aad: 0..0, text: 0..0, outcome })
        .collect();
    let mut again = Vec::new();
    AeadAnswer::encode(answer.lost.as_ref(), &done, &mut again);
    again.extend(answer.texts);
    let read = AeadAnswer::decode(&again, items, texts).expect("it was written here");
    assert!(read.outcomes().eq(answer.outcomes()) && read.texts == answer.texts);
}

fn outputs(body: &[u8], jobs: usize) {
    let Ok(answer) = within(room(body.len()), || JobsAnswer::decode(body, jobs, None)) else { return };
    assert_eq!(answer.outputs.len(), jobs);
    alive_or_lost(answer.lost.as_ref(), answer.outputs.iter().all(Option::is_some));
    let mut again = Vec::new();
    JobsAnswer::encode(answer.lost.as_ref(), answer.outputs.iter().map(exposed), &mut again);
    let read = JobsAnswer::decode(&again, jobs, None).expect("it was written here");
    assert!(read.outputs.iter().map(exposed).eq(answer.outputs.iter().map(exposed)));
}

fn exposed(output: &Output<Sensitive>) -> Output<&[u8]> {
    output.as_ref().map(|output| output.as_ref().map(Sensitive::expose).map_err(|error| *error))
}

/// What a session that lives was given to do is done.
fn alive_or_lost(lost: Option<&SessionLost>, all_done: bool) {
    match lost {
        None => assert!(all_done),
        Some(lost) => fits_a_log_line(&lost.reason),
    }
}

fn fits_a_log_line(text: &str) {
    assert!(text.len() <= 2048 && !text.chars().any(char::is_control), "{text:?}");
}

/// Returns an answer of each kind.
pub(crate) fn seeds() -> Vec<Seed> {
    let seed = |items: u8, texts: u8, kind, write: &dyn Fn(&mut Vec<u8>)| {
        let mut message = Vec::new();
        begin(&mut message);
        write(&mut message);
        finish(&mut message, kind, 7, 0);
        [&[5, items, texts], &message[..]].concat()
    };
    let profile = ProviderProfile {
        name: "hsm",
        protection: ProtectionLevel::Hsm,
        token_serial: Some("0123".into()),
        specs: vec![KeySpec::Aes256, KeySpec::Rsa2048],
        algorithms: vec![Algorithm::Aes256Gcm],
        signatures: KeySpec::Rsa2048.signatures().to_vec(),
        decryptions: KeySpec::Rsa2048.decryptions().to_vec(),
        imports: vec![WrappingAlgorithm::RsaesOaepSha1],
        derives: true,
        inline: false,
        max_batch: 256,
        max_item_bytes: 65_536,
        max_sessions: 16,
    };
    let failed = Failed { error: ProviderError::unavailable("no PIN"), needs_operator: true };
    let stored = StoredKey {
        spec: KeySpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        bulk_mode: None,
        material: KeyMaterial::Clear(Sensitive::copied(&[7; 32])),
        public_key: None,
    };
    let unwrapped = Unwrapped {
        key: StoredKey {
            spec: KeySpec::Aes256,
            usage: KeyUsage::EncryptDecrypt,
            bulk_mode: None,
            material: KeyMaterial::Wrapped(vec![7; 40]),
            public_key: None,
        },
        check: KeyCheck::from_bytes(vec![3; 80]),
    };
    let item = |outcome| AeadItem { nonce: [0; 12], aad: 0..0, text: 0..0, outcome };
    let items = [item(Some(Ok(()))), item(Some(Err(JobError::InvalidCiphertext))), item(None)];
    let lost = SessionLost { reason: "gone".into(), code: Some(FailureCode::OTHER) };
    let outputs: [Output<&[u8]>; 2] = [Some(Ok(&[1; 32])), Some(Err(JobError::Rejected))];
    vec![
        ("ready", seed(0, 0, Kind::Ready, &|out| ReadyProfile::encode(&profile, out))),
        ("failed", seed(0, 0, Kind::Failed, &|out| failed.encode(out))),
        ("stored", seed(0, 0, Kind::Stored, &|out| StoredMessage::encode(&stored, out))),
        ("unwrapped", seed(0, 0, Kind::Unwrapped, &|out| UnwrappedMessage::encode(&unwrapped, out))),
        ("loaded", seed(0, 0, Kind::Loaded, &|out| out.extend([9; 8]))),
        (
            "outcomes",
            seed(2, 40, Kind::Outcomes, &|out| {
                AeadAnswer::encode(None, &items[..2], out);
                out.extend([6; 40]);
            }),
        ),
        (
            "lost",
            seed(3, 48, Kind::Outcomes, &|out| {
                AeadAnswer::encode(Some(&lost), &items, out);
                out.extend([6; 48]);
            }),
        ),
        ("outputs", seed(2, 0, Kind::Outputs, &|out| JobsAnswer::encode(None, outputs.iter().copied(), out))),
    ]
}
