//! Certificates and requests with any part as one likes it.

use super::{Key, hex, sequence, tlv};

/// A certificate, part by part; with none changed, a good one.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) inner: Vec<u8>,
    pub(crate) outer: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) extensions: Option<Vec<Vec<u8>>>,
}

impl Raw {
    pub(crate) fn of(key: &Key) -> Self {
        let ecdsa = hex("300a06082a8648ce3d040302");
        Self {
            version: vec![0xa0, 3, 2, 1, 2],
            serial: vec![2, 1, 7],
            inner: ecdsa.clone(),
            outer: ecdsa,
            issuer: common_name(0x0c, b"issuer"),
            validity: sequence(&[&tlv(0x17, &[b"250101000000Z"]), &tlv(0x17, &[b"491231235959Z"])]),
            subject: common_name(0x0c, b"subject"),
            public_key: key.spki(),
            extensions: None,
        }
    }

    pub(crate) fn with(mut self, extension: Vec<u8>) -> Self {
        self.extensions.get_or_insert_default().push(extension);
        self
    }

    /// Signs it by a key of P-256.
    pub(crate) fn sign(&self, key: &Key) -> Vec<u8> {
        let extensions = self.extensions.as_ref().map(|all| tlv(0xa3, &[&sequence(&[&all.concat()])]));
        let signed = sequence(&[
            &self.version,
            &self.serial,
            &self.inner,
            &self.issuer,
            &self.validity,
            &self.subject,
            &self.public_key,
            &extensions.unwrap_or_default(),
        ]);
        whole(key, &signed, &self.outer)
    }
}

/// Puts a signature to what is signed.
pub(crate) fn whole(key: &Key, signed: &[u8], algorithm: &[u8]) -> Vec<u8> {
    let signature = key.sign(key.algorithm(), signed);
    sequence(&[signed, algorithm, &tlv(3, &[&[0], &signature])])
}

/// A name of one common name, of a kind of string.
pub(crate) fn common_name(tag: u8, value: &[u8]) -> Vec<u8> {
    sequence(&[&attribute("550403", &tlv(tag, &[value]))])
}

/// A relative name of one attribute.
pub(crate) fn attribute(oid: &str, value: &[u8]) -> Vec<u8> {
    tlv(0x31, &[&sequence(&[&tlv(6, &[&hex(oid)]), value])])
}

/// An extension of `2.5.29.x`.
pub(crate) fn extension(last: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&[6, 3, 0x55, 0x1d, last], critical, &tlv(4, &[value])])
}

/// A request, of a subject, a key and attributes.
pub(crate) fn request(key: &Key, subject: &[u8], public_key: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let info = sequence(&[&[2, 1, 0], subject, public_key, &tlv(0xa0, &[&attributes.concat()])]);
    whole(key, &info, &hex("300a06082a8648ce3d040302"))
}

/// An attribute of a request, `1.2.840.113549.1.9.x`.
pub(crate) fn request_attribute(last: u8, values: &[&[u8]]) -> Vec<u8> {
    sequence(&[&tlv(6, &[&hex("2a864886f70d0109"), &[last]]), &tlv(0x31, values)])
}

/// A SubjectPublicKeyInfo of RSA.
pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = sequence(&[&tlv(2, &[modulus]), &tlv(2, &[exponent])]);
    sequence(&[&hex("300d06092a864886f70d0101010500"), &tlv(3, &[&[0], &key])])
}

/// A modulus of some bits, which are all set.
pub(crate) fn modulus(bits: usize) -> Vec<u8> {
    [&[0][..], &vec![0xff; bits / 8]].concat()
}
