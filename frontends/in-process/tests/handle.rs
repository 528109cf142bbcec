//! Handles before a real engine.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use keymill_core::error::ErrorKind;
use keymill_core::id::{AccessKeyId, CmkId, KeyRef};
use keymill_core::key::{KeySpec, KeyUsage};
use keymill_core::operation::*;
use keymill_core::{EncryptionContext, access};
use keymill_in_process::{Handle, InProcess, Parts};

struct Site {
    engine: Option<InProcess>,
    root: AccessKeyId,
    directory: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let audit = keymill_audit_file::Config::at(directory.path().join("audit"));
        let (engine, bootstrap) = InProcess::start(Parts {
            config: Default::default(),
            clock: Default::default(),
            store: Arc::new(keymill_conformance::MemoryStore::new()),
            provider: Arc::new(keymill_provider_software::open(Default::default()).unwrap()),
            authenticators: vec![Box::new(keymill_auth_credentials::open(Default::default()).unwrap())],
            audit: Arc::new(keymill_audit_file::open(audit).unwrap()),
            tokens: Vec::new(),
            root: keymill_crypto::root::RootKeys::generate().unwrap().into(),
            node: "test".into(),
        })
        .unwrap();
        Self { engine: Some(engine), root: bootstrap.unwrap().id, directory }
    }

    fn engine(&self) -> &InProcess {
        self.engine.as_ref().expect("it runs")
    }

    fn root(&self) -> Handle {
        self.engine().as_principal(self.root.clone())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

fn create_key() -> CreateKeyRequest {
    CreateKeyRequest::default()
}

fn new_key(handle: &Handle) -> CmkId {
    let created = handle.call(create_key()).unwrap();
    let Reply::CreateKey(created) = &*created.reply().unwrap() else { panic!() };
    created.key_metadata.key_id
}

fn encrypt(key: CmkId) -> EncryptRequest<'static> {
    let plaintext = b"plain"[..].into();
    EncryptRequest { key_id: KeyRef::Id(key), plaintext, encryption_context: None, timeout_ms: None }
}

#[test]
fn a_use_that_a_kind_of_key_does_not_have_is_refused() {
    let site = Site::start();
    let all = [KeyUsage::EncryptDecrypt, KeyUsage::SignVerify, KeyUsage::GenerateVerifyMac];
    for spec in KeySpec::ALL {
        for usage in all.into_iter().filter(|usage| !spec.usages().contains(usage)) {
            let request = CreateKeyRequest { key_spec: Some(spec), key_usage: Some(usage), ..create_key() };
            let error = site.root().call(request).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().ends_with(usage.name()), "{}", error.message());
        }
    }
}

#[test]
fn a_batch_comes_back_in_its_order_and_names_what_failed() {
    let site = Site::start();
    let handle = site.root();
    let key = new_key(&handle);
    let context = || Some(EncryptionContext::from_pairs([("table", "people")]).unwrap());
    let frame = Bytes::from((0..100_000).map(|i| i as u8).collect::<Vec<_>>());
    let sealed = handle.batch_encrypt(KeyRef::Id(key), &frame, frame.chunks(1000), context()).unwrap();
    let mut blobs = Vec::new();
    let lens: Vec<_> = sealed
        .sheet
        .items()
        .map(|item| (blobs.extend_from_slice(item.unwrap()), item.unwrap().len()).1)
        .collect();
    assert_eq!(lens, [1062; 100]);
    blobs[5 * 1062 + 500] ^= 1;
    let blobs = Bytes::from(blobs);
    let opened = handle.batch_decrypt(&blobs, blobs.chunks(1062), context()).unwrap();
    for (i, (item, plain)) in opened.sheet.items().zip(frame.chunks(1000)).enumerate() {
        assert_eq!(item, (i != 5).then_some(plain), "item {i}");
    }
    let Reply::BatchDecrypt(reply) = &*opened.reply().unwrap() else { panic!() };
    assert_eq!((reply.errors.len(), reply.errors[0].0, &reply.key_ids[..]), (1, 5, &[key][..]));
    assert!(
        handle.batch_decrypt(&blobs, blobs.chunks(1062), None).unwrap().sheet.items().all(|i| i.is_none())
    );
}

#[test]
fn threads_share_a_handle_and_management_runs_beside() {
    let site = Site::start();
    let handle = site.root();
    let key = new_key(&handle);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| drop(handle.call(encrypt(key)).unwrap())));
            scope.spawn(|| (0..5).map(|_| new_key(&handle)).collect::<Vec<_>>());
        }
    });
    let listed = handle.call(ListKeysRequest::default()).unwrap();
    let Reply::ListKeys(listed) = &*listed.reply().unwrap() else { panic!() };
    assert_eq!(listed.total_count, 21);
}

#[test]
fn a_refusal_is_the_error_of_the_call() {
    let site = Site::start();
    let handle = site.root();
    let key = new_key(&handle);
    handle.call(DisableKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None }).unwrap();
    assert_eq!(handle.call(encrypt(key)).err().unwrap().kind(), ErrorKind::KeyDisabled);
    let again = CreateAliasRequest {
        alias_name: "alias/a".parse().unwrap(),
        key_id: KeyRef::Unknown,
        timeout_ms: None,
    };
    assert_eq!(handle.call(again).err().unwrap().kind(), ErrorKind::KeyNotFound);
}

#[test]
fn a_handle_has_the_rights_of_its_access_key_and_ends_with_it() {
    let site = Site::start();
    let root = site.root();
    let key = new_key(&root);
    let nobody = site.engine().as_principal("nobody-knows-me".parse().unwrap());
    assert_eq!(nobody.call(encrypt(key)).err().unwrap().kind(), ErrorKind::AccessKeyInactive);
    let grant = access::Grant {
        effect: access::Effect::Allow,
        role: access::Role::Root.into(),
        resources: vec![access::ResourcePattern::Key(key)],
    };
    let made = root
        .call(CreateAccessKeyRequest { grants: vec![grant], description: None, timeout_ms: None })
        .unwrap();
    let Reply::CreateAccessKey(made) = &*made.reply().unwrap() else { panic!() };
    let handle = site.engine().as_principal(made.access_key_id.clone());
    handle.call(encrypt(key)).unwrap();
    assert_eq!(handle.call(encrypt(new_key(&root))).err().unwrap().kind(), ErrorKind::KeyNotFound);
    root.call(DeleteAccessKeyRequest { access_key_id: made.access_key_id.clone(), timeout_ms: None })
        .unwrap();
    assert_eq!(handle.call(encrypt(key)).err().unwrap().kind(), ErrorKind::AccessKeyInactive);
}

#[test]
fn every_call_is_in_the_audit() {
    let mut site = Site::start();
    let handle = site.root();
    let key = new_key(&handle);
    handle.call(encrypt(key)).unwrap();
    site.engine.take().unwrap().stop();
    let audit = site.directory.path().join("audit");
    let text: String = std::fs::read_dir(audit)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for operation in ["CreateKey", "Encrypt"] {
        let is_record =
            |line: &&str| line.contains("\"in-process\"") && line.contains(&format!("\"{operation}\""));
        assert_eq!(text.lines().filter(is_record).count(), 1, "{operation}");
    }
}
