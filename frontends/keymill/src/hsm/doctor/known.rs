//! Known answers: keys of known bytes are brought into the token as session objects, and what it computes with them is compared with
//! what the standards print. A wrong answer here would be ciphertexts that nothing else ever opens.

use super::check::{Looked, Seen};
use crate::plugins::pkcs11::WrapMechanism;
use crate::plugins::pkcs11::module::number::*;
use crate::plugins::pkcs11::module::{Attribute, Class, Failure, Mechanism, Object, Session};

const TAG_BYTES: usize = 16;

/// The GCM specification (McGrew, Viega), test case 16.
const GCM_KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
const GCM_NONCE: &str = "cafebabefacedbaddecaf888";
const GCM_AAD: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
const GCM_TEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
                        b16aedf5aa0de657ba637b39";
const GCM_SEALED: &str = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
                          c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b";

/// The same, test case 4: a key of 128 bits.
const GCM_128_KEY: &str = "feffe9928665731c6d6a8f9467308308";
const GCM_128_SEALED: &str = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b39\
                              6a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47";

/// RFC 4231, case 1; its 20 bytes are filled up with zeroes, as HMAC itself does it, for modules that refuse short keys.
const HMAC_KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b000000000000000000000000";
const HMAC_TEXT: &[u8] = b"Hi There";
const HMAC: &str = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";

/// SP 800-38B, AES-256: one block.
const MAC_KEY: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
const MAC_TEXT: &str = "6bc1bee22e409f96e93d7e117393172a";
const MAC: &str = "28a7023f452e8f82bd4bf28d8c37c35c";

/// The key of GCM, wrapped under the other by RFC 5649.
const WRAPPED: &str = "ef7cc7bbc3ff761b0549a3e7ea3a219b50e9afe1c820922676cd9e7ba2fda1df741819a948049b78";

/// AES-256-GCM with a nonce of ours and a tag of 128 bits, both ways; and forged tags.
pub(super) fn gcm(session: &Session) -> Looked {
    let key = import(session, GCM_KEY, &[CKA_ENCRYPT, CKA_DECRYPT])?;
    gcm_under(session, key, GCM_SEALED)?;
    Ok(Seen::ok("seals and opens the vector of the GCM specification, with a tag of 128 bits"))
}

/// The same with a key of 128 bits, which keymill can do without.
pub(super) fn gcm_128(session: &Session) -> Looked {
    let key = import(session, GCM_128_KEY, &[CKA_ENCRYPT, CKA_DECRYPT]).map_err(Seen::optional)?;
    gcm_under(session, key, GCM_128_SEALED)?;
    Ok(Seen::ok("seals and opens the vector of the GCM specification for keys of 128 bits").optional())
}

/// HMAC-SHA-256, which keymill can do without.
pub(super) fn hmac(session: &Session) -> Looked {
    let key = import_as(session, CKK_GENERIC_SECRET, HMAC_KEY, &[CKA_SIGN]).map_err(Seen::optional)?;
    let signed = session.sign_init(Mechanism::Plain(CKM_SHA256_HMAC), key).and_then(|()| {
        let mut mac = [0; 32];
        session.sign(HMAC_TEXT, &mut mac).map(|len| mac[..len].to_vec())
    });
    match signed {
        Ok(mac) if mac == hex(HMAC) => Ok(Seen::ok("computes the vector of RFC 4231").optional()),
        Ok(_) => Err(Seen::wrong("HMAC-SHA-256: other bytes than the standard's")),
        Err(failure) => Err(Seen::refused(
            format!("{failure}: no keys of HMAC_SHA_256"),
            "ask the vendor for CKM_SHA256_HMAC, if you need it",
        )
        .optional()),
    }
}

fn gcm_under(session: &Session, key: Object, sealed: &str) -> Result<(), Seen> {
    let (text, expected) = (hex(GCM_TEXT), hex(sealed));
    let (nonce, aad) = (nonce(), hex(GCM_AAD));
    let mechanism = Mechanism::Gcm { nonce: &nonce, aad: &aad };
    session.encrypt_init(mechanism, key)?;
    let mut sealed = vec![0; expected.len()];
    let len = session.encrypt(&text, &mut sealed)?;
    if len != expected.len() || sealed != expected {
        return Err(Seen::wrong("AES-GCM: it seals to other bytes than the standard's"));
    }
    match open(session, key, &expected)? {
        opened if opened == text => Ok(()),
        _ => Err(Seen::wrong("AES-GCM: the standard's ciphertext opens to other bytes")),
    }
}

/// A tag with a bit changed, and a tag of another text, must not open.
pub(super) fn forged_tag(session: &Session) -> Looked {
    let key = import(session, GCM_KEY, &[CKA_ENCRYPT, CKA_DECRYPT])?;
    let sealed = hex(GCM_SEALED);
    let mut answer = None;
    for at in [0, sealed.len() - TAG_BYTES, sealed.len() - 1] {
        let mut forged = sealed.clone();
        forged[at] ^= 1;
        match open(session, key, &forged) {
            Ok(_) => return Err(Seen::wrong(format!("a ciphertext with byte {at} changed opens"))),
            Err(failure) => match failure.class() {
                Class::Data | Class::Ambiguous | Class::Other => answer = Some(failure),
                _ => {
                    return Err(Seen::wrong(format!(
                        "a forged ciphertext is answered as a fault of the device: {failure}"
                    )));
                }
            },
        }
    }
    let answer = answer.map_or_else(String::new, |failure| failure.to_string());
    Ok(Seen::ok(format!("ciphertexts with one bit changed do not open: {answer}")))
}

/// AES-CMAC, which derived keys and the keys of the store come from.
pub(super) fn cmac(session: &Session) -> Looked {
    let key = import(session, MAC_KEY, &[CKA_SIGN])?;
    let signed = session.sign_init(Mechanism::Plain(CKM_AES_CMAC), key).and_then(|()| {
        let mut mac = [0; TAG_BYTES];
        session.sign(&hex(MAC_TEXT), &mut mac).map(|len| mac[..len].to_vec())
    });
    match signed {
        Ok(mac) if mac == hex(MAC) => Ok(Seen::ok("computes the vector of SP 800-38B")),
        Ok(_) => Err(Seen::wrong("AES-CMAC: other bytes than the standard's")),
        Err(failure) => Err(Seen::refused(
            format!("{failure}: no keys in bulk mode HsmDerived, and no root MAC key"),
            "ask the vendor for CKM_AES_CMAC",
        )),
    }
}

/// RFC 5649 both ways, so that what this token wraps, any other opens; by the first of `mechanisms` that the token has.
pub(super) fn wrap(session: &Session, mechanisms: &[WrapMechanism]) -> Looked {
    let wrapping = import(session, MAC_KEY, &[CKA_WRAP, CKA_UNWRAP])?;
    let wrapped = import(session, GCM_KEY, &[CKA_EXTRACTABLE, CKA_ENCRYPT, CKA_DECRYPT])?;
    let mut lacking = None;
    for mechanism in mechanisms.iter().map(|wrap| wrap.mechanism()) {
        let mut blob = [0; 128];
        match session.wrap_key(mechanism, wrapping, wrapped, &mut blob) {
            Ok(len) => return unwrap(session, mechanism, wrapping, &blob[..len]),
            Err(failure) => lacking = Some(failure),
        }
    }
    let why = lacking.map_or_else(|| "no mechanism".to_owned(), |failure| failure.to_string());
    Err(Seen::refused(why, "ask the vendor for AES key wrap with padding (RFC 5649, CKM_AES_KEY_WRAP_KWP)"))
}

fn unwrap(session: &Session, mechanism: Mechanism<'_>, wrapping: Object, blob: &[u8]) -> Looked {
    let expected = hex(WRAPPED);
    if blob != expected {
        return Err(Seen::wrong("it wraps to other bytes than RFC 5649: no other token would open its keys"));
    }
    let mut template = template(&[CKA_ENCRYPT, CKA_DECRYPT]);
    let unwrapped = session.unwrap_key(mechanism, wrapping, &expected, &template).or_else(|_| {
        // Some modules want the length said, others refuse it.
        template.push(Attribute::number(CKA_VALUE_LEN, 32));
        session.unwrap_key(mechanism, wrapping, &expected, &template)
    })?;
    gcm_under(session, unwrapped, GCM_SEALED)?;
    Ok(Seen::ok("wraps to the bytes of RFC 5649, and unwraps them to the same key"))
}

/// Brings a key of known bytes into the session, with the flags that are to be set.
fn import(session: &Session, value: &str, set: &[CK_ATTRIBUTE_TYPE]) -> Result<Object, Seen> {
    import_as(session, CKK_AES, value, set)
}

fn import_as(
    session: &Session,
    kind: CK_KEY_TYPE,
    value: &str,
    set: &[CK_ATTRIBUTE_TYPE],
) -> Result<Object, Seen> {
    let value = hex(value);
    let mut template = template_as(kind, set);
    template.push(Attribute::bytes(CKA_VALUE, &value));
    session.create_object(&template).map_err(|failure| {
        Seen::not_tried(format!(
            "the module takes no key of known bytes ({failure}), and keymill brings it none"
        ))
    })
}

/// A session key of AES with nothing allowed but what is said.
fn template(set: &[CK_ATTRIBUTE_TYPE]) -> Vec<Attribute<'static>> {
    template_as(CKK_AES, set)
}

fn template_as(kind: CK_KEY_TYPE, set: &[CK_ATTRIBUTE_TYPE]) -> Vec<Attribute<'static>> {
    let flags = [CKA_EXTRACTABLE, CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_WRAP, CKA_UNWRAP];
    let mut template = vec![
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, kind),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
    ];
    template.extend(flags.map(|flag| Attribute::flag(flag, set.contains(&flag))));
    template
}

fn open(session: &Session, key: Object, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    let (nonce, aad) = (nonce(), hex(GCM_AAD));
    session.decrypt_init(Mechanism::Gcm { nonce: &nonce, aad: &aad }, key)?;
    let mut text = vec![0; sealed.len()];
    let len = session.decrypt(sealed, &mut text)?;
    text.truncate(len);
    Ok(text)
}

fn nonce() -> [u8; 12] {
    hex(GCM_NONCE).try_into().expect("a nonce has 12 bytes")
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("the vectors are hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use aws_lc_rs::hmac;
    use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
    use keymill_core::Sensitive;

    #[test]
    fn the_vectors_are_what_another_implementation_computes() {
        for (algorithm, key, sealed) in
            [(&AES_256_GCM, GCM_KEY, GCM_SEALED), (&AES_128_GCM, GCM_128_KEY, GCM_128_SEALED)]
        {
            let key = LessSafeKey::new(UnboundKey::new(algorithm, &hex(key)).unwrap());
            let mut text = hex(GCM_TEXT);
            key.seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce()),
                Aad::from(hex(GCM_AAD)),
                &mut text,
            )
            .unwrap();
            assert_eq!(text, hex(sealed));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &hex(HMAC_KEY));
        assert_eq!(hmac::sign(&key, HMAC_TEXT).as_ref(), hex(HMAC));

        let block: [u8; 16] = hex(MAC_TEXT).try_into().unwrap();
        let macs = keymill_crypto::derived::cmac_pair(&Sensitive::new(hex(MAC_KEY)), [block, block]);
        assert_eq!(macs.expose()[..TAG_BYTES], hex(MAC));

        let kek = AesKek::new(&AES_256, &hex(MAC_KEY)).unwrap();
        let mut blob = [0; 64];
        let wrapped = kek.wrap_with_padding(&hex(GCM_KEY), &mut blob).unwrap();
        let shown: String = wrapped.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, WRAPPED);
    }
}
