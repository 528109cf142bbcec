//! Group F of the security cases where it is about what may appear nowhere: F6, marked strings through every operation with the
//! log at its most talkative; F8, key material in the memory of this process after it was given up.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keymill_client::Credentials;
use keymill_core::Sensitive;
use keymill_core::id::CmkId;
use keymill_core::key::KeyVersionMaterial;
use keymill_core::operation::*;
use keymill_core::seam::provider::{KeyMaterial, PublicKey};
use keymill_crypto::payload;
use keymill_e2e::{Caller, Logs, Raw, Rows, find_in_files};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use memchr::memmem;
use rmpv::Value;
use serde_json::json;

/// A string that is found nowhere by chance.
fn marked(n: usize) -> Vec<u8> {
    format!(
        "MARKED-{n:04}-{:032x}",
        0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834_u128.wrapping_mul(n as u128 + 1)
    )
    .into_bytes()
}

/// The forms in which a secret could turn up: as it is, in hexadecimal, in base64, as the numbers of a `Debug`.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string(&Bin::from(secret)).expect("bytes have a JSON form");
    let base64 = json.trim_matches('"').trim_end_matches('=').as_bytes().to_vec();
    let base64 = base64[..base64.len() - 1].to_vec();
    let numbers = format!("{secret:?}");
    let numbers = numbers.trim_matches(['[', ']']).as_bytes().to_vec();
    vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), base64, numbers]
}

/// Makes an application that may read one secret, by a key pair of its own.
fn application(live: &Live, root: &mut Caller, secret: &str) -> Caller {
    let permissions = ["RbacPermission/Template/CryptoServiceSecretUser"];
    let policy =
        json!({ "Name": "app", "Permissions": permissions, "Resources": [format!("secret/{secret}")] });
    root.ask_json("CreatePolicy", policy).unwrap();
    root.ask_json("CreateApplicationAccessPoint", json!({ "Name": "app", "Policies": ["app"] })).unwrap();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = PublicKey::from_der(public.as_ref().to_vec()).to_pem();
    let made = root.ask_json("RegisterClientKey", json!({ "AapName": "app", "PublicKey": pem })).unwrap();
    let id = made["ClientKeyId"].as_str().unwrap().parse().unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    Caller::new(live, &Credentials::of_client_key(&id, &Sensitive::copied(pkcs8.as_ref())).unwrap())
}

/// Errors as callers see them.
fn tell(errors: &mut Vec<String>, answered: Result<impl Sized, keymill_client::ServerError>) {
    errors.push(answered.err().expect("it is refused").to_string());
}

#[test]
fn f6_marked_secrets_are_found_in_no_log_audit_line_metric_error_or_file() {
    let logs = Logs::keep();
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let (key, other) = (caller.create_key(), caller.create_key());
    let mut secrets: Vec<Vec<u8>> = (0..8).map(marked).collect();
    let mut errors = Vec::new();

    // Everything that works.
    let blob = caller.encrypt(key, &secrets[0], &[]).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), secrets[0]);
    let moved = caller.re_encrypt(&blob, other).unwrap();
    let blobs = caller.batch_encrypt(key, &secrets[1..4]).unwrap();
    assert_eq!(caller.batch_decrypt(&blobs).unwrap().errors, []);
    caller.batch_re_encrypt(&blobs, other).unwrap();
    let (clear, edk) = caller.data_key(key, &[]).unwrap();
    secrets.push(clear);
    secrets.extend(caller.data_keys(key, 3).unwrap().into_iter().map(|(clear, _)| clear));
    let root = serde_json::from_value(json!([{ "Role": "Root" }])).unwrap();
    let (id, secret) = caller.create_access_key(root).unwrap();
    secrets.push(secret.clone().into_bytes());
    secrets.push(live.bootstrap_secret().unwrap().as_bytes().to_vec());
    // Contexts may name persons: their text is nobody's business either.
    let context_text = String::from_utf8(secrets[7].clone()).unwrap();
    let bound = caller.encrypt(key, &secrets[4], &[(&context_text, &context_text)]).unwrap();

    // Material of the caller's own, and what goes with it; wrapped, it is nobody's secret.
    let external = caller.create_external(keymill_core::key::KeySpec::Aes256, None).unwrap().key;
    let material = marked(8)[12..44].to_vec();
    let by = caller.usual_parameters(external).unwrap();
    secrets.extend([material.clone(), by.token.0.clone().into_bytes()]);
    tell(&mut errors, caller.import_by(external, &by, &material[1..]));
    caller.import_by(external, &by, &material).unwrap();
    tell(&mut errors, caller.import_by(external, &by, &material));
    let by = caller.usual_parameters(external).unwrap();
    secrets.push(by.token.0.clone().into_bytes());
    tell(&mut errors, caller.import_by(key, &by, &material));
    tell(&mut errors, caller.import_by(external, &by, &secrets[1][12..44]));
    caller.encrypt(external, &secrets[0], &[]).unwrap();
    caller.delete_material(external).unwrap();

    // Secrets by every way in and out, a password, and a login token with what is signed by.
    let value = |n: usize| String::from_utf8(marked(n)).unwrap();
    let values: Vec<String> = (20..24).map(value).collect();
    caller.create_secret_under(key, "shop/db", "v1", &values[0]).unwrap();
    caller.put_value("shop/db", "v2", &values[1], &[]).unwrap();
    caller.create_secret("shop/other", "v1", &values[2]).unwrap();
    assert_eq!(caller.value("shop/db").unwrap().1, values[1]);
    assert_eq!(caller.value_of("shop/db", Some("v1"), None).unwrap().1, values[0]);
    for operation in ["BatchGetSecretValue", "ExportSecrets"] {
        let list =
            json!([{ "SecretName": "shop/db" }, { "SecretName": "shop/other" }, { "SecretName": "none" }]);
        let told = caller.ask_json(operation, json!({ "SecretsList": list })).unwrap();
        assert_eq!(told["SecretValues"][1]["SecretData"], *values[2]);
        errors.push(told["Errors"].to_string());
    }
    tell(&mut errors, caller.put_value("shop/db", "v2", &values[3], &[]));
    tell(&mut errors, caller.create_secret("shop/db", "v1", &values[3]));
    tell(&mut errors, caller.create_secret("shop/long", "v1", &values[3].repeat(1_000)));
    tell(&mut errors, caller.value_of("shop/db", Some("v9"), None));
    secrets.extend(values.into_iter().map(String::into_bytes));
    let made = caller.ask_json("GetRandomPassword", json!({ "PasswordLength": 40 })).unwrap();
    secrets.push(made["RandomPassword"].as_str().unwrap().as_bytes().to_vec());
    let mut reader = application(&live, &mut caller, "shop/other");
    let token = reader.ask_json("CreateLoginToken", json!({})).unwrap();
    for part in ["Token", "Secret"] {
        secrets.push(token[part].as_str().unwrap().as_bytes().to_vec());
    }
    let text = |part: &str| token[part].as_str().unwrap().to_owned();
    let mut by_token = Caller::new(&live, &Credentials::of_token(text("Token"), text("Secret")));
    assert_eq!(by_token.value("shop/other").unwrap().0, "v1");
    tell(&mut errors, by_token.put_value("shop/db", "v3", "x", &[]));

    // Everything that fails.
    tell(&mut errors, caller.decrypt(&bound, &[("wrong", &context_text)]));
    tell(&mut errors, caller.encrypt(key, &secrets[5].repeat(200), &[]));
    tell(&mut errors, caller.decrypt(&secrets[5], &[]));
    tell(&mut errors, caller.decrypt_under(other, &blob));
    let too_long = [secrets[6].repeat(2_000), secrets[6].clone()];
    let request = keymill_e2e::batch_encrypt(key, &too_long);
    let failed = caller.ask(request, |reply| format!("{reply:?}")).unwrap();
    errors.push(failed);
    let mut raw = Raw::log_in(live.address, &id, &secret);
    let text = || Value::from(&context_text[..]);
    let bytes = || Value::Binary(secrets[5].clone());
    for (operation, parameters) in [
        ("Encrypt", vec![("KeyId", key.to_string().into()), ("Plaintext", text())]),
        ("Encrypt", vec![("KeyId", bytes()), ("Plaintext", bytes())]),
        ("Encrypt", vec![("KeyId", text()), ("Plaintext", bytes())]),
        ("Encrypt", vec![("Plaintext", bytes()), ("Plaintext", bytes())]),
        (
            "Encrypt",
            vec![("KeyId", key.to_string().into()), ("Plaintext", bytes()), ("EncryptionContext", bytes())],
        ),
        ("BatchEncrypt", vec![("KeyId", key.to_string().into()), ("Items", bytes())]),
        (
            "BatchEncrypt",
            vec![("KeyId", key.to_string().into()), ("Items", Value::Array(vec![text(), bytes()]))],
        ),
        ("Decrypt", vec![("CiphertextBlob", text())]),
        ("CreateAlias", vec![("AliasName", text()), ("KeyId", bytes())]),
        (
            "PutSecretValue",
            vec![("SecretName", "shop/db".into()), ("VersionId", "v3".into()), ("SecretData", bytes())],
        ),
        ("BatchGetSecretValue", vec![("SecretsList", text())]),
    ] {
        let told = raw.ask(operation, parameters);
        assert_ne!(told.status, 0, "{told:?}");
        errors.push(told.text("Message").to_owned());
    }
    let mut stranger = Raw::connect(live.address);
    stranger.send_value(&Value::Array(vec![0.into(), "Hello".into(), text()]));
    errors.push(stranger.last_words().text("Message").to_owned());
    caller.disable(key).unwrap();
    tell(&mut errors, caller.encrypt(key, &secrets[0], &[]));
    tell(&mut errors, caller.decrypt(&blob, &[]));
    caller.schedule_deletion(other).unwrap();
    tell(&mut errors, caller.decrypt(&moved, &[]));
    tell(&mut errors, caller.update_description(other, &context_text));
    caller.set_status(&id, keymill_core::access::AccessKeyStatus::Inactive).unwrap();
    let told = raw.ask("Encrypt", vec![("KeyId", text()), ("Plaintext", bytes())]);
    errors.push(told.text("Message").to_owned());
    caller.enable(key).unwrap();
    assert_eq!(caller.decrypt(&edk, &[]).unwrap().len(), 32);

    let metrics = live.gate().expose_metrics();
    drop((caller, raw));
    let while_running: Vec<_> = secrets.iter().flat_map(|s| forms(s)).collect();
    for form in &while_running {
        assert_eq!(find_in_files(live.directory(), form), Vec::<std::path::PathBuf>::new());
    }
    let site = live.halt();
    let (log, errors) = (logs.text(), errors.join("\n"));
    assert!(log.contains("refused") && log.contains("UpdateKeyDescription"), "the log is kept: {log}");
    for secret in &secrets {
        for form in forms(secret) {
            for (place, text) in [("log", &log), ("metrics", &metrics), ("errors", &errors)] {
                assert!(memmem::find(text.as_bytes(), &form).is_none(), "{place} holds a marked secret");
            }
            assert_eq!(find_in_files(site.path(), &form), Vec::<std::path::PathBuf>::new());
        }
    }
    // The search would find them: aliases and ids are there in clear.
    assert!(!find_in_files(site.path(), key.to_string().as_bytes()).is_empty());
}

/// The material of a key's first version, masked, so that memory holds it no more often for our knowing it; `None` for a key in a token,
/// whose material nobody here knows.
fn masked_material(site: &keymill_harness::Site, key: CmkId) -> Option<[u8; 32]> {
    let path = format!("material/{key}/1");
    let record = Rows::of(site).get(&path).expect("the material is there");
    let opened = site.sealer().open(&path, 2, &record).expect("the record opens");
    let stored: KeyVersionMaterial = payload::decode(&opened.payload).expect("it is material");
    let KeyMaterial::Clear(material) = &stored.key.material else { return None };
    let mut masked: [u8; 32] = material.expose().try_into().expect("32 bytes");
    masked.iter_mut().for_each(|byte| *byte ^= MASK);
    Some(masked)
}

const MASK: u8 = 0x5a;

/// Counts the places in this process's memory that hold the material.
fn count_in_memory(masked: &[u8; 32]) -> usize {
    const CHUNK: usize = 1 << 20;
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let mut memory = File::open("/proc/self/mem").expect("one's own memory");
    let mut buffer = Sensitive::zeroed(CHUNK + 32);
    let mut needle = Sensitive::zeroed(32);
    for (byte, masked) in needle.expose_mut().iter_mut().zip(masked) {
        *byte = masked ^ MASK;
    }
    let ours = [needle.expose().as_ptr_range(), buffer.expose().as_ptr_range()]
        .map(|range| range.start as usize..range.end as usize);
    let finder = memmem::Finder::new(needle.expose());
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| usize::from_str_radix(text, 16).expect("an address");
        let (mut at, end) = (number(start), number(end));
        while at < end {
            let len = (end - at).min(CHUNK + 32);
            let piece = &mut buffer.expose_mut()[..len];
            let read = memory.seek(SeekFrom::Start(at as u64)).and_then(|_| memory.read_exact(piece));
            if read.is_ok() {
                let hits = finder.find_iter(piece).map(|offset| at + offset);
                // A hit in the overlap is counted with the next piece.
                let last = len <= CHUNK;
                found += hits
                    .filter(|hit| last || hit - at < CHUNK)
                    .filter(|hit| !ours.iter().any(|range| range.contains(hit)))
                    .count();
            }
            at += CHUNK;
        }
    }
    found
}

#[test]
fn f8_material_leaves_memory_within_a_second_of_a_disable() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let key = Caller::new(&live, &credentials).create_key();
    let site = live.halt();
    // A module in software has it in this process's memory, too, and is no business of ours.
    let Some(masked) = masked_material(&site, key) else { return };
    assert_eq!(count_in_memory(&masked), 0, "what was generated and stored was wiped");
    let live = site.start(Setup::new(EngineConfig::default()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(count_in_memory(&masked), 0, "nothing is loaded before its first use");
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"x");
    assert!(count_in_memory(&masked) > 0, "the search finds a loaded key");
    for round in 0..2 {
        match round {
            0 => caller.disable(key).unwrap(),
            _ => caller.schedule_deletion(key).unwrap(),
        }
        let answered = Instant::now();
        let mut left = count_in_memory(&masked);
        while left > 0 && answered.elapsed() < Duration::from_secs(1) {
            left = count_in_memory(&masked);
        }
        assert_eq!(left, 0, "copies after a second, round {round}");
        if round == 0 {
            caller.enable(key).unwrap();
            caller.encrypt(key, b"x", &[]).unwrap();
            assert!(count_in_memory(&masked) > 0);
        }
    }
}
