//! Prints blobs that a real engine made, each with the key material it is under, so that an independent implementation can open
//! them: one JSON object a line. The material comes out of the store with the root that sealed it; no API gives it.

use std::sync::Arc;
use std::time::Instant;

use keymill_conformance::MemoryStore;
use keymill_core::EncryptionContext;
use keymill_core::access::Principal;
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_core::seam::provider::KeyMaterial;
use keymill_core::seam::store::Store;
use keymill_crypto::derived::{DerivedKeys, cmac_pair};
use keymill_crypto::digest::hex;
use keymill_crypto::record::RecordSealer;
use keymill_crypto::root::RootKeys;
use keymill_runtime::clock::Clock;
use keymill_runtime::gate::Ask;
use keymill_runtime::{Call, Engine, EngineConfig, Gate, Opened, Parts, Sheet, records};

fn main() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let store = Arc::new(MemoryStore::new());
    let root = RootKeys::generate().expect("random numbers");
    let mac = keymill_core::Sensitive::copied(root.mac.expose());
    let config = EngineConfig::default();
    let instance = config.instance.clone();
    let parts = Parts {
        config,
        clock: Clock::default(),
        store: store.clone(),
        provider: Arc::new(
            keymill_provider_software::open(keymill_provider_software::Config {}).expect("it opens"),
        ),
        authenticators: Vec::new(),
        audit: Arc::new(
            keymill_audit_file::open(keymill_audit_file::Config::at(directory.path().join("audit")))
                .expect("it opens"),
        ),
        tokens: Vec::new(),
        root: root.into(),
        node: "known-blobs".into(),
    };
    let (engine, bootstrap) = Engine::start(parts).expect("the engine starts");
    let gate = engine.gate();
    let principal = Principal::of_access_key(bootstrap.expect("a first start").id);
    let key = create_key(&gate, &principal);
    let mut lines = Vec::new();
    for (i, len) in [0usize, 1, 15, 16, 17, 32, 1_000, 6_144].into_iter().enumerate() {
        let plaintext: Vec<u8> = (0..len).map(|b| (b * 7 + i) as u8).collect();
        let pairs: Vec<(String, String)> =
            (0..i % 4).map(|n| (format!("schlüssel {n}"), "Wert\n\"".repeat(n))).collect();
        let blob = encrypt(&gate, &principal, key, &plaintext, &pairs);
        lines.push((blob, pairs, plaintext));
    }
    engine.stop();

    let derived =
        DerivedKeys::derive(1, &instance, &mut |m| Ok::<_, std::convert::Infallible>(cmac_pair(&mac, m)))
            .expect("the derivation cannot fail");
    let sealer = RecordSealer::new(&derived.storage).expect("32 bytes");
    let entry = store.get(&records::material_path(&key, 1)).expect("memory").expect("the key has material");
    let material = records::open_material(&sealer, &key, 1, &entry.value).expect("our own record");
    let KeyMaterial::Clear(material) = &material.key.material else {
        panic!("a software key is stored sealed")
    };
    for (blob, pairs, plaintext) in lines {
        let context: serde_json::Map<String, serde_json::Value> =
            pairs.into_iter().map(|(k, v)| (k, v.into())).collect();
        let line = serde_json::json!({
            "key": hex(material.expose()),
            "blob": hex(&blob),
            "context": context,
            "plaintext": hex(&plaintext),
        });
        #[allow(clippy::print_stdout, reason = "printing is what this is for")]
        {
            println!("{line}");
        }
    }
}

fn ask<'a>(gate: &Gate, principal: &Principal, request: Request<'a>) -> Opened {
    gate.open(Ask {
        call: Call {
            request_id: gate.request_id(),
            principal: principal.clone(),
            source: None,
            frontend: "in-process",
            received: Instant::now(),
            nonce: None,
        },
        request,
        is_text: false,
        is_dry_run: false,
        frame: None,
        sheet: Sheet::plain(None),
        reply_to: None,
        cancel: Default::default(),
        ticket: 0,
    })
}

fn create_key(gate: &Gate, principal: &Principal) -> CmkId {
    let request = CreateKeyRequest::default();
    let Opened::Managed(managed) = ask(gate, principal, request.into()) else { panic!("it is a change") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    match runtime.block_on(gate.manage(*managed)) {
        Ok(Reply::CreateKey(reply)) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    }
}

fn encrypt(
    gate: &Gate,
    principal: &Principal,
    key: CmkId,
    plaintext: &[u8],
    pairs: &[(String, String)],
) -> Vec<u8> {
    let context = EncryptionContext::from_pairs(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let request = EncryptRequest {
        key_id: KeyRef::Id(key),
        plaintext: Bin::from(plaintext),
        encryption_context: Some(context.expect("a sound context")),
        timeout_ms: None,
    };
    let Opened::Job(job) = ask(gate, principal, request.into()) else { panic!("it is work") };
    let finished = gate.perform(job).expect("a desk");
    let blob = finished.sheet.item(0).expect("it was sealed").to_vec();
    assert!(finished.result.is_ok());
    blob
}
