//! Keys and chains under a password: PKCS #12 (RFC 7292). Written by `p12-keystore`, and read by our own reader: what others send is opened
//! only after the work that it asks for was counted, in all and not for each of its parts.

mod password;

use der::Tag;
use der::asn1::ObjectIdentifier;
use keymill_core::{Error, ErrorKind, Result, Sensitive};
use p12_keystore::{
    Certificate as Contained, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};

use self::password::Password;
use crate::parts::{Part, Parts, context};
use crate::{Certificate, MAX_CHAIN, MAX_DER_BYTES, invalid};

/// What errors call it.
const WHAT: &str = "PKCS #12";
/// The most bytes of a file.
pub const MAX_BYTES: usize = 256 * 1024;
/// The most safes of a file, and bags of a safe.
const MAX_SAFES: usize = 16;
const MAX_BAGS: usize = 32;
/// Iterations by which a password becomes a key in what is written here; passwords are the caller's own choice.
const ITERATIONS: u32 = 100_000;

/// RFC 5652 §4 and §8.
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
/// RFC 7292 §4.2.
const KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
const SHROUDED_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");

/// What was found.
#[derive(Default)]
struct Found {
    key: Option<Sensitive>,
    certificates: Vec<Vec<u8>>,
}

/// Opens a file: the private key, as PKCS #8 in DER, and the certificates, the first that of the key where one stands alone at the end of the chain.
///
/// # Errors
/// `InvalidParameter`, naming what is wrong: it is none, is encrypted in an old way, asks for too much work, holds no key or several. A wrong
/// password and a file that was altered are one error.
pub fn open(bytes: &[u8], password: &str) -> Result<(Sensitive, Vec<Vec<u8>>)> {
    let mut file = Parts::only(WHAT, bytes, Tag::Sequence, MAX_BYTES)?;
    if file.natural("the version")? != [3] {
        return Err(file.wrong("it is of another version than 3"));
    }
    let authenticated = file.take("the content", Tag::Sequence)?;
    let mut authenticated = file.open(authenticated)?;
    if authenticated.oid("the kind of the content")? != DATA {
        return Err(file.wrong("it is protected by a signature, not by a password"));
    }
    let content = octets(&mut authenticated)?;
    authenticated.end()?;
    let Some(mac) = file.optional("the MAC", Tag::Sequence)? else {
        return Err(file.wrong("it has no MAC"));
    };
    file.end()?;

    let mut password = Password::new(password)?;
    // What stands in clear asks for its work first: a file that asks for too much is refused before any is done.
    password.verify(mac, content, || plan(content))?;
    let mut found = Found::default();
    let mut safes = Parts::only(WHAT, content, Tag::Sequence, MAX_BYTES)?;
    while !safes.is_finished() {
        let safe = safes.take("a safe", Tag::Sequence)?;
        let mut safe = safes.open(safe)?;
        match safe.oid("the kind of a safe")? {
            DATA => bags(octets(&mut safe)?, &mut password, &mut found)?,
            _ => {
                let (algorithm, sealed) = encrypted(&mut safe)?;
                let opened = password.decrypt(algorithm, sealed)?;
                bags(opened.expose(), &mut password, &mut found)?;
            }
        }
    }
    let key = found.key.ok_or_else(|| invalid(format!("{WHAT}: it holds no private key")))?;
    if found.certificates.is_empty() {
        return Err(invalid(format!("{WHAT}: it holds no certificate")));
    }
    Ok((key, in_order(found.certificates)?))
}

/// Returns what encrypts each safe, and each key that stands in the open.
fn plan(content: &[u8]) -> Result<Vec<Part<'_>>> {
    let mut all = Vec::new();
    let mut safes = Parts::only(WHAT, content, Tag::Sequence, MAX_BYTES)?;
    let mut count = 0;
    while !safes.is_finished() {
        count += 1;
        if count > MAX_SAFES {
            return Err(safes.wrong(format!("more than {MAX_SAFES} safes")));
        }
        let safe = safes.take("a safe", Tag::Sequence)?;
        let mut safe = safes.open(safe)?;
        match safe.oid("the kind of a safe")? {
            DATA => each_bag(octets(&mut safe)?, |oid, part| {
                if oid == SHROUDED_KEY {
                    all.push(shrouded(part)?.0);
                }
                Ok(())
            })?,
            ENCRYPTED_DATA => all.push(encrypted(&mut safe)?.0),
            _ => return Err(safes.wrong("a safe that is locked in another way than by a password")),
        }
    }
    Ok(all)
}

/// Reads the `[0]` that holds an OCTET STRING.
fn octets<'a>(parts: &mut Parts<'a>) -> Result<&'a [u8]> {
    let content = parts.take("the content", context(0, true))?;
    let mut content = parts.open(content)?;
    let octets = content.take("the content", Tag::OctetString)?;
    content.end()?;
    Ok(octets.value)
}

/// Reads EncryptedData (RFC 5652 §8): what encrypts it, and the encrypted content.
fn encrypted<'a>(safe: &mut Parts<'a>) -> Result<(Part<'a>, &'a [u8])> {
    let content = safe.take("the content", context(0, true))?;
    let mut content = safe.open(content)?;
    let data = content.take("encrypted data", Tag::Sequence)?;
    let mut data = content.open(data)?;
    content.end()?;
    data.natural("the version")?;
    let info = data.take("encrypted content", Tag::Sequence)?;
    let mut info = data.open(info)?;
    info.oid("the kind of the content")?;
    let algorithm = info.take("the encryption", Tag::Sequence)?;
    let sealed = info.take("the encrypted content", context(0, false))?;
    info.end()?;
    data.end()?;
    Ok((algorithm, sealed.value))
}

/// Reads EncryptedPrivateKeyInfo (RFC 5958 §3).
fn shrouded(part: Part<'_>) -> Result<(Part<'_>, &[u8])> {
    let mut parts = Parts::only(WHAT, part.whole, Tag::Sequence, MAX_BYTES)?;
    let algorithm = parts.take("the encryption", Tag::Sequence)?;
    let sealed = parts.take("the encrypted key", Tag::OctetString)?;
    parts.end()?;
    Ok((algorithm, sealed.value))
}

/// Calls `each` with the kind and the value of every bag of a safe.
fn each_bag<'a>(
    safe: &'a [u8],
    mut each: impl FnMut(ObjectIdentifier, Part<'a>) -> Result<()>,
) -> Result<()> {
    let mut list = Parts::only(WHAT, safe, Tag::Sequence, MAX_BYTES)?;
    let mut count = 0;
    while !list.is_finished() {
        count += 1;
        if count > MAX_BAGS {
            return Err(list.wrong(format!("more than {MAX_BAGS} bags in a safe")));
        }
        let bag = list.take("a bag", Tag::Sequence)?;
        let mut bag = list.open(bag)?;
        let oid = bag.oid("the kind of a bag")?;
        let value = bag.take("the value of a bag", context(0, true))?;
        bag.optional("attributes of a bag", Tag::Set)?;
        let mut value = bag.open(value)?;
        bag.end()?;
        let inner = value.next("the value of a bag")?;
        value.end()?;
        each(oid, inner)?;
    }
    Ok(())
}

fn bags(safe: &[u8], password: &mut Password<'_>, found: &mut Found) -> Result<()> {
    let key = |found: &mut Found, key: Sensitive| match found.key.replace(key) {
        None => Ok(()),
        Some(_) => Err(invalid(format!("{WHAT}: it holds several private keys"))),
    };
    each_bag(safe, |oid, part| match oid {
        KEY => key(found, Sensitive::copied(part.whole)),
        SHROUDED_KEY => {
            let (algorithm, sealed) = shrouded(part)?;
            key(found, password.decrypt(algorithm, sealed)?)
        }
        CERTIFICATE => {
            let mut parts = Parts::new(WHAT, part.value)?;
            if parts.oid("the kind of a certificate")? != X509 {
                return Err(parts.wrong("a certificate that is none of X.509"));
            }
            if found.certificates.len() == MAX_CHAIN {
                return Err(parts.wrong(format!("more than {MAX_CHAIN} certificates")));
            }
            let der = octets(&mut parts)?;
            if der.len() > MAX_DER_BYTES {
                return Err(parts.wrong(format!("a certificate exceeds the limit of {MAX_DER_BYTES} bytes")));
            }
            found.certificates.push(der.to_vec());
            Ok(())
        }
        _ => Err(invalid(format!("{WHAT}: a bag of kind {oid} is not taken"))),
    })
}

/// Puts certificates in the order of a chain, where they are one: programs write the leaf first or last. Those that belong to none stay at the end.
fn in_order(mut left: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let mut read: Vec<Certificate> = Vec::with_capacity(left.len());
    for der in left.drain(..) {
        read.push(Certificate::read(&der).map_err(|error| invalid(format!("{WHAT}: {error}")))?);
    }
    let is_issuer = |one: &Certificate| {
        read.iter()
            .any(|other| other.der != one.der && crate::name::is_same(&other.issuer_der, &one.subject_der))
    };
    let mut next = read.iter().position(|one| !is_issuer(one)).or((!read.is_empty()).then_some(0));
    let mut ordered = Vec::with_capacity(read.len());
    while let Some(at) = next {
        let one = read.remove(at);
        next = read.iter().position(|other| crate::name::is_same(&one.issuer_der, &other.subject_der));
        ordered.push(one.der);
    }
    ordered.extend(read.into_iter().map(|one| one.der));
    Ok(ordered)
}

/// Writes a file: the key, as PKCS #8 in DER, and its chain, the leaf first; PBES2 with AES-256-CBC and HMAC-SHA-256, under the password.
///
/// # Errors
/// `InvalidParameter` for what is no key, or no certificate, and a password with characters that the format has not: those past U+FFFF.
pub fn seal(name: &str, key: &Sensitive, chain: &[&[u8]], password: &str) -> Result<Vec<u8>> {
    let failed = |what: &'static str| {
        // What the library says may show parts of what it read.
        move |_: p12_keystore::error::Error| Error::new(ErrorKind::InvalidParameter, what)
    };
    if password.chars().any(|c| u32::from(c) > 0xffff) {
        return Err(invalid(format!("{WHAT}: a password with characters past U+FFFF, which it has not")));
    }
    let chain: Result<Vec<_>> = chain
        .iter()
        .map(|der| Contained::from_der(der).map_err(failed("PKCS #12: a certificate that cannot be read")))
        .collect();
    let key = PrivateKey::from_der(key.expose()).map_err(failed("PKCS #12: a key that cannot be read"))?;
    let mut store = KeyStore::new();
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(name, key, chain?)));
    store
        .writer(password)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS)
        .write()
        .map_err(failed("PKCS #12: it could not be written"))
}
