//! What a worker is told and asked.

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeyCheck, KeySpec, KeyUsage, SignAlgorithm, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, AeadItem, KeyMaterial, PublicKey, StoredKey, TokenObject, WrappedImport,
};
use keymill_provider_worker::wire::{
    AeadRequest, ControlRequest, HEADER_BYTES, Hello, Job, JobsRequest, KeyRef, Kind, Released,
    StoredMessage, begin, finish,
};

use super::received;
use crate::memory::{room, within};
use crate::target::Seed;

/// The first byte says in which reads the rest arrives.
pub(crate) fn check(bytes: &[u8]) {
    let Some((read, message)) = bytes.split_first() else { return };
    let Some((header, body)) = received(message, *read) else { return };
    let again = match header.kind {
        Kind::Start => hello(&body),
        Kind::Encrypt | Kind::Decrypt => batch(message),
        Kind::Derive | Kind::Sign | Kind::DecryptAsymmetric => jobs(&body),
        kind => {
            control(kind, &body);
            None
        }
    };
    if let Some(again) = again {
        assert_eq!(again, body);
    }
}

fn hello(body: &[u8]) -> Option<Vec<u8>> {
    let Hello { generation, max_keys, setup } = within(room(body.len()), || Hello::decode(body)).ok()?;
    let mut again = Vec::new();
    Hello::encode(generation, max_keys, &setup, &mut again);
    Some(again)
}

fn batch(message: &[u8]) -> Option<Vec<u8>> {
    let request =
        within(room(message.len()), || AeadRequest::decode(message.to_vec(), message.len())).ok()?;
    let mut again = Vec::new();
    AeadRequest::encode(request.key, &request.batch.aad, request.batch.items.iter(), &mut again);
    let mut at = request.texts.start;
    for item in &request.batch.items {
        assert_eq!(item.text.start, at, "texts follow each other");
        at = item.text.end + 16;
        again.extend(&request.batch.buffer[item.text.start..at]);
    }
    assert_eq!((at, request.texts.end), (message.len(), message.len()));
    Some(again)
}

fn jobs(body: &[u8]) -> Option<Vec<u8>> {
    let request = within(room(body.len()), || JobsRequest::decode(body)).ok()?;
    let mut again = Vec::new();
    JobsRequest::encode(request.key, request.jobs.len(), &mut again);
    request.jobs.iter().for_each(|job| JobsRequest::encode_job(*job, &mut again));
    Some(again)
}

/// Values in MessagePack have more than one form, so that what is written again has to read alike.
fn control(kind: Kind, body: &[u8]) {
    let read = |body: &[u8]| within(room(body.len()), || ControlRequest::decode(kind, body)).ok();
    let Some((mut released, request)) = read(body) else { return };
    let again = written(&mut released.0, &request);
    let (mut released, request) = read(&again).expect("it was written here");
    assert_eq!(written(&mut released.0, &request), again);
}

fn written(released: &mut Vec<u64>, request: &ControlRequest) -> Vec<u8> {
    let mut out = Vec::new();
    Released::encode(released, &mut out);
    match request {
        ControlRequest::Generate(spec, usage, bulk_mode)
        | ControlRequest::GenerateToStay(spec, usage, bulk_mode) => {
            ControlRequest::encode_generate(*spec, *usage, *bulk_mode, &mut out);
        }
        ControlRequest::Adopt(wanted) => ControlRequest::encode_adopt(wanted, &mut out),
        ControlRequest::Import(spec, usage, bulk_mode, material) => {
            ControlRequest::encode_import(*spec, *usage, *bulk_mode, material, &mut out);
        }
        ControlRequest::GenerateWrappingKey(spec, algorithm) => {
            ControlRequest::encode_wrapping_key(*spec, *algorithm, &mut out);
        }
        ControlRequest::ImportWrapped(import) => ControlRequest::encode_import_wrapped(import, &mut out),
        ControlRequest::Load(key)
        | ControlRequest::Destroy(key)
        | ControlRequest::DestroyWrappingKey(key) => StoredMessage::encode(key, &mut out),
        ControlRequest::Unload(key) => key.put(&mut out),
        ControlRequest::Canary => {}
    }
    out
}

/// Returns a request of each kind.
pub(crate) fn seeds() -> Vec<Seed> {
    const KEY: KeyRef = KeyRef { generation: 2, number: 9 };
    let seed = |kind, write: &dyn Fn(&mut Vec<u8>)| {
        let mut message = Vec::new();
        begin(&mut message);
        write(&mut message);
        finish(&mut message, kind, 7, 0);
        [&[3], &message[..]].concat()
    };
    let item = |n, aad, text| AeadItem { nonce: [n; 12], aad, text, outcome: None };
    let items = [item(1, 0..4, 0..3), item(2, 0..0, 0..0)];
    let pair = StoredKey {
        spec: KeySpec::EcP256,
        usage: KeyUsage::SignVerify,
        bulk_mode: None,
        material: KeyMaterial::Wrapped(vec![5; 9]),
        public_key: Some(PublicKey::from_der(vec![0x30, 0])),
    };
    let import = WrappedImport {
        spec: KeySpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        bulk_mode: Some(BulkMode::InHsm),
        wrapping: StoredKey {
            spec: KeySpec::Rsa2048,
            usage: KeyUsage::EncryptDecrypt,
            bulk_mode: None,
            material: KeyMaterial::TokenObject(TokenObject {
                adopted: false,
                serial: "0123".into(),
                label: "keymill import".into(),
                id: vec![1, 2],
                check: Vec::new(),
            }),
            public_key: Some(PublicKey::from_der(vec![0x30, 0])),
        },
        algorithm: WrappingAlgorithm::RsaesOaepSha256,
        wrapped: vec![9; 24],
        check: Some(KeyCheck::from_bytes(vec![3; 8])),
    };
    let sign = rmp_packed(SignAlgorithm::EcdsaSha256.name());
    vec![
        ("start", seed(Kind::Start, &|out| Hello::encode(1, 100, &Sensitive::copied(b"setup"), out))),
        (
            "encrypt",
            seed(Kind::Encrypt, &|out| {
                AeadRequest::encode(KEY, b"data", items.iter(), out);
                out.extend([8; 3 + 16 + 16]);
            }),
        ),
        (
            "derive",
            seed(Kind::Derive, &|out| {
                JobsRequest::encode(KEY, 1, out);
                JobsRequest::encode_job(Job { algorithm: b"", input: &[4; 32] }, out);
            }),
        ),
        (
            "sign",
            seed(Kind::Sign, &|out| {
                JobsRequest::encode(KEY, 1, out);
                JobsRequest::encode_job(Job { algorithm: &sign, input: &[4; 32] }, out);
            }),
        ),
        (
            "generate",
            seed(Kind::Generate, &|out| {
                Released::encode(&mut vec![1, 2], out);
                let mode = Some(BulkMode::HsmDerived);
                ControlRequest::encode_generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, mode, out);
            }),
        ),
        (
            "adopt",
            seed(Kind::Adopt, &|out| {
                Released::encode(&mut Vec::new(), out);
                let wanted = Adopt {
                    spec: KeySpec::Aes256,
                    usage: KeyUsage::EncryptDecrypt,
                    bulk_mode: Some(BulkMode::InHsm),
                    label: Some("payments".into()),
                    id: Some(vec![1, 2]),
                };
                ControlRequest::encode_adopt(&wanted, out);
            }),
        ),
        (
            "import",
            seed(Kind::Import, &|out| {
                Released::encode(&mut Vec::new(), out);
                let (mode, material) = (Some(BulkMode::InHsm), Sensitive::copied(&[6; 32]));
                let usage = KeyUsage::EncryptDecrypt;
                ControlRequest::encode_import(KeySpec::Aes256, usage, mode, &material, out);
            }),
        ),
        (
            "wrapping-key",
            seed(Kind::GenerateWrappingKey, &|out| {
                Released::encode(&mut Vec::new(), out);
                let algorithm = WrappingAlgorithm::RsaesOaepSha1;
                ControlRequest::encode_wrapping_key(KeySpec::Rsa2048, algorithm, out);
            }),
        ),
        (
            "import-wrapped",
            seed(Kind::ImportWrapped, &|out| {
                Released::encode(&mut Vec::new(), out);
                ControlRequest::encode_import_wrapped(&import, out);
            }),
        ),
        (
            "load",
            seed(Kind::Load, &|out| {
                Released::encode(&mut Vec::new(), out);
                StoredMessage::encode(&pair, out);
            }),
        ),
        (
            "unload",
            seed(Kind::Unload, &|out| {
                Released::encode(&mut Vec::new(), out);
                KEY.put(out);
            }),
        ),
        (
            "long",
            [&[1], &[10, 0, 0, 0, 3, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; HEADER_BYTES]].concat(),
        ),
    ]
}

/// A short text in MessagePack: how algorithms travel.
fn rmp_packed(name: &str) -> Vec<u8> {
    [&[0xa0 | name.len() as u8], name.as_bytes()].concat()
}
