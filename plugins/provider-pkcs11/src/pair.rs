//! Key pairs: the public half, out of the token and into it, and the proof that a private key belongs to it. It is shown by use, for
//! attributes say what a blob claims, and some modules give a private key none that could be compared.

use cryptoki_sys::*;
use keymill_core::key::{KeySpec, KeyUsage};
use keymill_core::seam::provider::PublicKey;

use crate::der::{self, EXPONENT};
use crate::kind::{self, Kind};
use crate::module::{Attribute, Failure, Object, Session};
use crate::profile::ModuleProfile;

/// What is signed, or encrypted, for a proof; the longest digest is cut to length.
const TEXT: [u8; 48] = *b"a private key of keymill and its public half one";

/// How much is proved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// That the halves belong together, by the first algorithm there is.
    Halves,
    /// That the key does all that it is offered for.
    Everything,
}

/// What a public half does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Verify,
    Encrypt,
    Both,
    Wrap,
}

impl Does {
    /// Returns what the public half of a stored key does.
    fn of(kind: Kind) -> Self {
        match kind.usage() {
            KeyUsage::EncryptDecrypt => Does::Encrypt,
            KeyUsage::SignVerify | KeyUsage::GenerateVerifyMac => Does::Verify,
            KeyUsage::SignDecrypt => Does::Both,
        }
    }
}

/// Reads the public half of what was born.
pub(crate) fn public_half(session: &Session, public: Object, kind: Kind) -> Result<PublicKey, Failure> {
    let mut read = [0; 600];
    let attribute = if kind.spec().modulus_bytes().is_some() { CKA_MODULUS } else { CKA_EC_POINT };
    let bytes = session.attribute(public, attribute, &mut read)?;
    let read = &read[..bytes];
    let bare = match attribute {
        // Some fill it up in front.
        CKA_MODULUS => read.iter().position(|byte| *byte != 0).map(|start| &read[start..]),
        _ => der::point(kind.spec(), read),
    };
    bare.and_then(|bare| der::public_key(kind.spec(), bare))
        .map(PublicKey::from_der)
        .ok_or(Failure::Overlong { call: "C_GetAttributeValue", bytes })
}

/// Reads the public half out of a private key of RSA: what it says of itself, which is yet to be proved.
///
/// # Errors
/// `Mismatch` where it is none of its specification: another length, or another public exponent than 65,537.
pub(crate) fn told_half(session: &Session, private: Object, kind: Kind) -> Result<PublicKey, Failure> {
    let told = |attribute| {
        let mut read = vec![0; 600];
        let bytes = session.attribute(private, attribute, &mut read)?;
        read.truncate(bytes);
        // Some fill it up in front.
        let zeroes = read.iter().take_while(|byte| **byte == 0).count();
        Ok::<_, Failure>(read.split_off(zeroes))
    };
    let (modulus, exponent) = (told(CKA_MODULUS)?, told(CKA_PUBLIC_EXPONENT)?);
    let encoded = der::public_key(kind.spec(), &modulus).filter(|_| exponent == EXPONENT);
    encoded.map(PublicKey::from_der).ok_or(Failure::Mismatch { call: "C_UnwrapKey" })
}

/// Proves that a private key belongs to a public half, and does what it is for; `None` for an encoding that is none of ours. The
/// session must be one that ends with it: what a failure leaves under way there would be in the way of the next.
pub(crate) fn prove(
    session: &Session,
    kind: Kind,
    private: Object,
    public: &PublicKey,
    proof: Proof,
    profile: &ModuleProfile,
) -> Option<Result<(), Failure>> {
    let bare = der::public_of(kind.spec(), public.as_der())?;
    let proved = place(session, kind.spec(), Does::of(kind), &bare).and_then(|public| {
        let proved = used(session, kind, private, public, proof, profile);
        // What is not destroyed goes with the session.
        let _ = session.destroy_object(public);
        proved
    });
    Some(proved)
}

/// Makes an object of a public half.
pub(crate) fn place(session: &Session, spec: KeySpec, does: Does, bare: &[u8]) -> Result<Object, Failure> {
    let mut template = vec![
        Attribute::number(CKA_CLASS, CKO_PUBLIC_KEY),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_VERIFY, matches!(does, Does::Verify | Does::Both)),
        Attribute::flag(CKA_ENCRYPT, matches!(does, Does::Encrypt | Does::Both)),
    ];
    template.extend((does == Does::Wrap).then_some(Attribute::flag(CKA_WRAP, true)));
    let point = der::point_attribute(bare);
    match der::curve(spec) {
        Some(curve) => template.extend([
            Attribute::number(CKA_KEY_TYPE, CKK_EC),
            Attribute::bytes(CKA_EC_PARAMS, curve),
            Attribute::bytes(CKA_EC_POINT, &point),
        ]),
        None => template.extend([
            Attribute::number(CKA_KEY_TYPE, CKK_RSA),
            Attribute::bytes(CKA_MODULUS, bare),
            Attribute::bytes(CKA_PUBLIC_EXPONENT, &EXPONENT),
        ]),
    }
    session.create_object(&template)
}

fn used(
    session: &Session,
    kind: Kind,
    private: Object,
    public: Object,
    proof: Proof,
    profile: &ModuleProfile,
) -> Result<(), Failure> {
    let count = if proof == Proof::Everything { usize::MAX } else { 1 };
    for algorithm in profile.signatures.iter().filter(|algorithm| kind.signs(**algorithm)).take(count) {
        let input = &TEXT[..algorithm.digest_bytes().unwrap_or(TEXT.len())];
        let (mechanism, input) = (kind::signing(*algorithm)?, kind::signed(*algorithm, input));
        let mut signature = [0; 512];
        session.sign_init(mechanism, private)?;
        let bytes = session.sign(&input, &mut signature)?;
        session.verify_init(mechanism, public)?;
        session.verify(&input, &signature[..bytes])?;
    }
    for algorithm in profile.decryptions.iter().filter(|algorithm| kind.opens(**algorithm)).take(count) {
        let mechanism = kind::opening(*algorithm)?;
        let (mut sealed, mut opened) = ([0; 512], [0; 512]);
        session.encrypt_init(mechanism, public)?;
        let bytes = session.encrypt(&TEXT, &mut sealed)?;
        session.decrypt_init(mechanism, private)?;
        let bytes = session.decrypt(&sealed[..bytes], &mut opened)?;
        if opened[..bytes] != TEXT {
            return Err(Failure::Mismatch { call: "C_Decrypt" });
        }
    }
    Ok(())
}
