//! What the token keeps to itself: no key comes out of it, by whatever attributes it is asked for with the service's own login.

use cryptoki_sys::*;
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{CryptoProvider, KeyMaterial};
use keymill_provider_pkcs11::module::{Attribute, Mechanism, User};
use keymill_provider_pkcs11::{DOMAIN_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, open_on};

use crate::support;
use crate::{key, provider_with, stored};

/// Clulow's attacks, with the service's own login: each must fail by the attributes of the objects.
#[test]
fn what_is_loaded_cannot_be_taken_out() {
    let (provider, label) = provider_with(|_| {});
    let held = [key(&provider, BulkMode::InHsm), key(&provider, BulkMode::HsmDerived)];
    let session = support::module().open_session(support::slot(&label), false).unwrap();
    let secrets = [Attribute::number(CKA_CLASS, CKO_SECRET_KEY)];
    let found = session.find_objects(&secrets).unwrap();
    // Two loaded, the canary, the domain's three keys.
    assert_eq!(found.len(), 6);
    let domain = support::domain_key(&session);
    let wrap = provider.module_profile().wrap.mechanism();
    let chosen = session
        .generate_key(
            Mechanism::Plain(CKM_AES_KEY_GEN),
            &[
                Attribute::number(CKA_VALUE_LEN, 32),
                Attribute::flag(CKA_TOKEN, false),
                Attribute::flag(CKA_WRAP, true),
            ],
        )
        .unwrap();
    for object in found {
        let mut out = [0; 256];
        session.attribute(object, CKA_VALUE, &mut out).unwrap_err();
        session.wrap_key(wrap, domain, object, &mut out).unwrap_err();
        session.wrap_key(wrap, chosen, object, &mut out).unwrap_err();
        assert!(session.flag(object, CKA_SENSITIVE).unwrap());
        assert!(!session.flag(object, CKA_EXTRACTABLE).unwrap());
    }
    // Nor is a stored key unwrapped as anything that brings it or another out.
    let KeyMaterial::Wrapped(blob) = stored(&mut *provider.custody().unwrap(), BulkMode::InHsm).material
    else {
        panic!("an HSM key is wrapped")
    };
    for (kind, value) in [
        (CKA_SENSITIVE, false),
        (CKA_EXTRACTABLE, true),
        (CKA_TOKEN, true),
        (CKA_WRAP, true),
        (CKA_UNWRAP, true),
        (CKA_DERIVE, true),
    ] {
        let mut template =
            vec![Attribute::number(CKA_CLASS, CKO_SECRET_KEY), Attribute::number(CKA_KEY_TYPE, CKK_AES)];
        for (kept, usual) in [
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_TOKEN, false),
            (CKA_WRAP, false),
            (CKA_UNWRAP, false),
            (CKA_DERIVE, false),
        ] {
            template.push(Attribute::flag(kept, if kept == kind { value } else { usual }));
        }
        session.unwrap_key(wrap, domain, &blob, &template).unwrap_err();
    }
    // The domain key opens no wrapped key as if it were data.
    session.decrypt_init(Mechanism::Gcm { nonce: &[0; 12], aad: &[] }, domain).unwrap_err();
    drop(held);
}

#[test]
fn a_domain_key_that_could_leave_or_is_not_the_only_one_is_refused() {
    let label = support::new_token();
    let session = support::module().open_session(support::slot(&label), true).unwrap();
    session.login(User::User, &Sensitive::copied(support::PIN)).unwrap();
    let generate = |extractable| {
        let template = [
            Attribute::number(CKA_VALUE_LEN, 32),
            Attribute::flag(CKA_TOKEN, true),
            Attribute::flag(CKA_EXTRACTABLE, extractable),
            Attribute::flag(CKA_SENSITIVE, true),
            Attribute::bytes(CKA_LABEL, DOMAIN_KEY_LABEL.as_bytes()),
        ];
        session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).unwrap()
    };
    let refusal = || open_on(support::module(), support::config(&label)).err().unwrap().to_string();
    let second = generate(false);
    assert!(refusal().contains("2 keys have the label"), "{}", refusal());
    session.destroy_object(second).unwrap();
    session.destroy_object(support::domain_key(&session)).unwrap();
    assert!(refusal().contains("has no key keymill-domain"), "{}", refusal());
    generate(true);
    assert!(refusal().contains("could be taken out"), "{}", refusal());
}

/// The same of private keys, which have a domain key of their own.
#[test]
fn what_is_private_cannot_be_taken_out() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let signs = custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None).unwrap();
    let opens = custody.generate(KeySpec::Rsa2048, KeyUsage::EncryptDecrypt, None).unwrap();
    let held = [custody.load(&signs).unwrap(), custody.load(&opens).unwrap()];
    let session = support::module().open_session(support::slot(&label), false).unwrap();
    let privates = session.find_objects(&[Attribute::number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
    assert_eq!(privates.len(), 2, "what was born, and what was proved, is gone");
    assert_eq!(support::objects(&session, CKO_PUBLIC_KEY), 0);
    let [secret, private] =
        [DOMAIN_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL].map(|label| support::token_key(&session, label));
    let wrap = provider.module_profile().wrap.mechanism();
    for object in &privates {
        let mut out = [0; 4096];
        for value in [CKA_VALUE, CKA_PRIVATE_EXPONENT, CKA_PRIME_1] {
            session.attribute(*object, value, &mut out).unwrap_err();
        }
        for domain in [secret, private] {
            session.wrap_key(wrap, domain, *object, &mut out).unwrap_err();
        }
        assert!(
            session.flag(*object, CKA_SENSITIVE).unwrap() && !session.flag(*object, CKA_EXTRACTABLE).unwrap()
        );
    }
    for (stored, kind) in [(&signs, CKK_EC), (&opens, CKK_RSA)] {
        let KeyMaterial::Wrapped(blob) = &stored.material else { panic!("an HSM key is wrapped") };
        let usual = [
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_TOKEN, false),
            (CKA_UNWRAP, false),
            (CKA_DERIVE, false),
        ];
        let template = |forbidden: Option<CK_ATTRIBUTE_TYPE>| {
            let mut template =
                vec![Attribute::number(CKA_CLASS, CKO_PRIVATE_KEY), Attribute::number(CKA_KEY_TYPE, kind)];
            template
                .extend(usual.map(|(kind, value)| Attribute::flag(kind, value != (forbidden == Some(kind)))));
            template
        };
        let unwrapped = session.unwrap_key(wrap, private, blob, &template(None)).unwrap();
        session.destroy_object(unwrapped).unwrap();
        for (forbidden, _) in usual {
            session.unwrap_key(wrap, private, blob, &template(Some(forbidden))).unwrap_err();
        }
        // As a secret key its bytes would be what a MAC or a cipher works with; and the other domain key is another key.
        for secret_kind in [CKK_GENERIC_SECRET, CKK_AES] {
            let secret = [
                Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
                Attribute::number(CKA_KEY_TYPE, secret_kind),
                Attribute::flag(CKA_SENSITIVE, true),
                Attribute::flag(CKA_EXTRACTABLE, false),
                Attribute::flag(CKA_TOKEN, false),
            ];
            session.unwrap_key(wrap, private, blob, &secret).unwrap_err();
        }
        session.unwrap_key(wrap, secret, blob, &template(None)).unwrap_err();
    }
    drop(held);
}
