//! SubjectPublicKeyInfo (RFC 5280, 4.1) of keys that always have the same length: all but RSA. What stands before such a key is always
//! the same, so that there is one encoding of each, and nothing to be parsed.

use keymill_core::key::KeySpec;
use keymill_core::seam::provider::PublicKey;

/// Takes the bare key out of an encoding; `None` for any other than [`encode`] gives.
pub(crate) fn key_of(spec: KeySpec, der: &[u8]) -> Option<&[u8]> {
    let (header, bytes) = form(spec)?;
    let key = der.strip_prefix(header).filter(|key| key.len() == bytes)?;
    // Of a point it is the uncompressed form.
    (!is_point(spec) || key[0] == 4).then_some(key)
}

/// Puts a bare key into its encoding; `None` for one of another length than keys of `spec` have.
pub(crate) fn encode(spec: KeySpec, key: &[u8]) -> Option<PublicKey> {
    let (header, bytes) = form(spec)?;
    (key.len() == bytes).then(|| PublicKey::from_der([header, key].concat()))
}

fn is_point(spec: KeySpec) -> bool {
    matches!(spec, KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcP256K | KeySpec::EcSm2)
}

/// Returns what stands before a key, up to the count of unused bits, and the length of the key.
fn form(spec: KeySpec) -> Option<(&'static [u8], usize)> {
    match spec {
        // RFC 5480, 2.1.1: id-ecPublicKey and the name of the curve; RFC 5915 has no other.
        KeySpec::EcP256 => Some((
            &[
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
                0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
            ],
            65,
        )),
        KeySpec::EcP384 => Some((
            &[
                0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
                0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
            ],
            97,
        )),
        KeySpec::EcP256K => Some((
            &[
                0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
                0x2b, 0x81, 0x04, 0x00, 0x0a, 0x03, 0x42, 0x00,
            ],
            65,
        )),
        // GM/T 0006: the name of the SM2 curve, 1.2.156.10197.1.301.
        KeySpec::EcSm2 => Some((
            &[
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
                0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00,
            ],
            65,
        )),
        // RFC 8410, 4: id-Ed25519, without parameters.
        KeySpec::Ed25519 => {
            Some((&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], 32))
        }
        // RFC 9881, 4: id-ml-dsa-65, 2.16.840.1.101.3.4.3.18, without parameters.
        KeySpec::MlDsa65 => Some((
            &[
                0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
                0x03, 0x12, 0x03, 0x82, 0x07, 0xa1, 0x00,
            ],
            1952,
        )),
        _ => None,
    }
}
