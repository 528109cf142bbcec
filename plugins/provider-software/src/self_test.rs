//! What the libraries compute of what is known, before anything is entrusted to them.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};
use aws_lc_rs::{digest, hmac};
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::key::KeySpec;
use keymill_core::seam::provider::ProviderError;

use crate::sm2::{PrivateHalf, PublicSm2};
use crate::symmetric::SymmetricKey;

/// Computes a known answer of each family: CMAC, GCM of AES and of SM4, HMAC, Ed25519, ML-DSA and SM2.
pub(crate) fn run() -> Result<(), ProviderError> {
    match PARTS.into_iter().find(|(_, part)| part() != Some(true)) {
        None => Ok(()),
        Some((what, _)) => Err(ProviderError::unavailable(format!("the self-test of {what} failed"))),
    }
}

/// What is known, and whether it is computed so; `None` where nothing is.
type Part = (&'static str, fn() -> Option<bool>);

const PARTS: [Part; 7] = [
    ("CMAC", cmac),
    ("AES-GCM", aes),
    ("SM4-GCM", sm4),
    ("HMAC", macs),
    ("Ed25519", edwards),
    ("ML-DSA", lattice),
    ("SM2", sm2),
];

/// The one-block example of SP 800-38B for AES-256.
fn cmac() -> Option<bool> {
    const KEY: [u8; 32] = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    const BLOCK: [u8; 16] = hex("6bc1bee22e409f96e93d7e117393172a");
    const CMAC: [u8; 16] = hex("28a7023f452e8f82bd4bf28d8c37c35c");
    let derived = SymmetricKey::new(KeySpec::Aes256, &Sensitive::copied(&KEY))?.derive(&[BLOCK; 2]).ok()?;
    Some(derived.expose() == [CMAC; 2].as_flattened())
}

/// One block of zeroes under keys of zeroes: test cases 2, 8 and 14 of the GCM submission to NIST.
fn aes() -> Option<bool> {
    const CASES: [(KeySpec, usize, [u8; 32]); 3] = [
        (KeySpec::Aes128, 16, hex("0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf")),
        (KeySpec::Aes192, 24, hex("98e7247c07f0fe411c267e4384b0f6002ff58d80033927ab8ef4d4587514f0fb")),
        (KeySpec::Aes256, 32, hex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")),
    ];
    let works = |(spec, bytes, sealed): (KeySpec, usize, [u8; 32])| {
        let key = SymmetricKey::new(spec, &Sensitive::zeroed(bytes))?;
        seals(&key, [0; 12], &[], &[0; 16], &sealed)
    };
    Some(CASES.into_iter().all(|case| works(case) == Some(true)))
}

/// RFC 8998, A.1.
fn sm4() -> Option<bool> {
    const KEY: [u8; 16] = hex("0123456789abcdeffedcba9876543210");
    const TEXT: [u8; 64] = hex(concat!(
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd",
        "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
    ));
    const SEALED: [u8; 80] = hex(concat!(
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735",
        "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
        "83de3541e4c2b58177e065a9bf7b62ec"
    ));
    let key = SymmetricKey::new(KeySpec::Sm4, &Sensitive::copied(&KEY))?;
    let aad: [u8; 20] = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    seals(&key, hex("00001234567800000000abcd"), &aad, &TEXT, &SEALED)
}

/// Tells whether a text is sealed as is known, and opens again, but not with a tag of another bit.
fn seals(key: &SymmetricKey, nonce: [u8; 12], aad: &[u8], plain: &[u8], sealed: &[u8]) -> Option<bool> {
    let (mut text, mut tag) = (plain.to_vec(), [0; TAG_BYTES]);
    key.seal(nonce, aad, &mut text, &mut tag).ok()?;
    let as_known = [&text[..], &tag].concat() == sealed;
    let mut forged = tag;
    forged[15] ^= 1;
    let refuses = key.open(nonce, aad, &mut text.clone(), &forged).is_err();
    key.open(nonce, aad, &mut text, &tag).ok()?;
    Some(as_known && refuses && text == plain)
}

/// RFC 4231, case 1.
fn macs() -> Option<bool> {
    const SHA256: [u8; 32] = hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    const SHA384: [u8; 48] = hex(concat!(
        "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c",
        "faea9ea9076ede7f4af152e8b2fa9cb6"
    ));
    const SHA512: [u8; 64] = hex(concat!(
        "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde",
        "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
    ));
    let mac = |algorithm| hmac::sign(&hmac::Key::new(algorithm, &[0x0b; 20]), b"Hi There");
    Some(
        mac(hmac::HMAC_SHA256).as_ref() == SHA256
            && mac(hmac::HMAC_SHA384).as_ref() == SHA384
            && mac(hmac::HMAC_SHA512).as_ref() == SHA512,
    )
}

/// RFC 8032, 7.1, test 1: the message of no bytes.
fn edwards() -> Option<bool> {
    const SEED: [u8; 32] = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    const PUBLIC: [u8; 32] = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    const SIGNATURE: [u8; 64] = hex(concat!(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555",
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    ));
    let pair = Ed25519KeyPair::from_seed_and_public_key(&SEED, &PUBLIC).ok()?;
    Some(pair.try_sign(b"").ok()?.as_ref() == SIGNATURE)
}

/// The key of Wycheproof's mldsa_65_sign_seed_test.json, by the SHA-256 of its public half; signatures are not the same twice.
fn lattice() -> Option<bool> {
    const PUBLIC: [u8; 32] = hex("b7acce2ddb11f8cc1aa46e2bafac6eacfa2b732ef192bd636ad8d3a56d649c66");
    let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &[0x2a; 32]).ok()?;
    Some(digest::digest(&digest::SHA256, pair.public_key().as_ref()).as_ref() == PUBLIC)
}

/// The examples of GM/T 0003.5 on the recommended curve, A.2 for the signature and C.2 for the ciphertext.
fn sm2() -> Option<bool> {
    const PRIVATE: [u8; 32] = hex("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8");
    const POINT: [u8; 65] = hex(concat!(
        "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f350",
        "20ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
    ));
    const DIGEST: [u8; 32] = hex("f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
    const SIGNATURE: [u8; 72] = hex(concat!(
        "3046022100f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3",
        "022100b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
    ));
    const CIPHERTEXT: [u8; 126] = hex(concat!(
        "307c022004ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73",
        "022100e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0",
        "042059983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766",
        "041321886ca989ca9c7d58087307ca93092d651efa"
    ));
    let (private, public) = (PrivateHalf::from_scalar(&PRIVATE)?, PublicSm2::new(&POINT)?);
    let belongs = private.public()?.as_der().ends_with(&POINT);
    let hashes = public.digest(b"message digest") == DIGEST;
    let verifies = public.verifies(&DIGEST, &SIGNATURE) && !public.verifies(&[1; 32], &SIGNATURE);
    let signs = public.verifies(&DIGEST, &private.sign(&DIGEST).ok()?);
    let opens = private.decrypt(&CIPHERTEXT).ok()?.expose() == b"encryption standard";
    Some(belongs && hashes && verifies && signs && opens)
}

/// Reads hexadecimal digits while this is compiled.
const fn hex<const N: usize>(text: &str) -> [u8; N] {
    const fn digit(letter: u8) -> u8 {
        match letter {
            b'0'..=b'9' => letter - b'0',
            b'a'..=b'f' => letter - b'a' + 10,
            _ => panic!("a digit"),
        }
    }
    let text = text.as_bytes();
    assert!(text.len() == 2 * N, "two digits a byte");
    let (mut bytes, mut i) = ([0; N], 0);
    while i < N {
        bytes[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_knows_its_answer() {
        for (name, part) in PARTS {
            assert_eq!(part(), Some(true), "{name}");
        }
    }
}
