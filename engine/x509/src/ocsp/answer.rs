//! Answers about revocation (RFC 6960 §4.2): built, to be signed.

use der::asn1::{AnyRef, BitString, GeneralizedTime, Null, ObjectIdentifier, OctetString};
use der::{Choice, Enumerated, Sequence};
use keymill_core::Result;
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{CertId, MAX_IDS, NONCE};
use crate::alt_name::octets;
use crate::build::{ToBeSigned, any, encode, extension_of, time};
use crate::crl::Reason;
use crate::{MAX_DER_BYTES, invalid};

/// RFC 6960 §4.2.1.
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");

/// What is answered of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Which.
    pub id: &'a CertId,
    /// How it stands.
    pub status: Status,
    /// As of when.
    pub this_update: Timestamp,
    /// Until when that is good.
    pub next_update: Timestamp,
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Issued, and not revoked.
    Good,
    /// Revoked, since when and why.
    Revoked(Timestamp, Option<Reason>),
    /// Not of an authority that is known here, or not issued by it.
    Unknown,
}

/// What is answered where there is no answer (RFC 6960 §4.2.1); nobody signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 1: the question cannot be read.
    MalformedRequest = 1,
    /// 2: a fault of ours.
    InternalError = 2,
    /// 3: the same question may be answered later.
    TryLater = 3,
    /// 6: no authority here is asked about.
    Unauthorized = 6,
}

/// Returns an answer that is none, in DER.
pub fn failure(why: Failure) -> Vec<u8> {
    vec![0x30, 3, 0x0a, 1, why as u8]
}

/// OCSPResponse (RFC 6960 §4.2.1).
#[derive(Sequence)]
struct OcspResponse {
    status: Successful,
    #[asn1(context_specific = "0")]
    bytes: ResponseBytes,
}

#[derive(Clone, Copy, Enumerated)]
#[repr(u8)]
enum Successful {
    Yes = 0,
}

#[derive(Sequence)]
struct ResponseBytes {
    kind: ObjectIdentifier,
    response: OctetString,
}

#[derive(Sequence)]
struct BasicResponse<'a> {
    data: AnyRef<'a>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
    #[asn1(context_specific = "0", optional = "true")]
    certificates: Option<Vec<AnyRef<'a>>>,
}

/// The version has its default.
#[derive(Sequence)]
struct ResponseData<'a> {
    /// By its name; the other way is a hash of its key, which is SHA-1.
    #[asn1(context_specific = "1")]
    responder: AnyRef<'a>,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse<'a>>,
    #[asn1(context_specific = "1", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct SingleResponse<'a> {
    id: AnyRef<'a>,
    status: CertStatus,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0")]
    next_update: GeneralizedTime,
}

#[derive(Choice)]
enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Clone, Sequence)]
struct RevokedInfo {
    at: GeneralizedTime,
    #[asn1(context_specific = "0", optional = "true")]
    reason: Option<CrlReason>,
}

/// Builds an answer: by whose certificate it is signed, as the subject of that in DER, when, what is answered, the nonce of the question, and the
/// certificates that verify the answer, where the authority's own key does not sign it. Finished, it is a whole OCSPResponse.
///
/// # Errors
/// `InvalidParameter` for an answer about no certificate, and one that is too long.
pub fn answer(
    responder_der: &[u8],
    produced_at: Timestamp,
    answers: &[Answer<'_>],
    nonce: Option<&[u8]>,
    certificates: &[&[u8]],
    algorithm: SignAlgorithm,
) -> Result<ToBeSigned> {
    if answers.is_empty() || answers.len() > MAX_IDS {
        return Err(invalid(format!("an answer about 1 to {MAX_IDS} certificates")));
    }
    let extensions = match nonce {
        Some(nonce) => Some(vec![extension_of(NONCE, false, &octets(nonce)?)?]),
        None => None,
    };
    let data = ResponseData {
        responder: any(responder_der)?,
        produced_at: moment(produced_at)?,
        responses: answers.iter().map(single).collect::<Result<_>>()?,
        extensions,
    };
    Ok(ToBeSigned::new(&data, algorithm, MAX_DER_BYTES)?.answering(certificates))
}

fn single<'a>(answer: &Answer<'a>) -> Result<SingleResponse<'a>> {
    let status = match answer.status {
        Status::Good => CertStatus::Good(Null),
        Status::Unknown => CertStatus::Unknown(Null),
        Status::Revoked(at, reason) => {
            CertStatus::Revoked(RevokedInfo { at: moment(at)?, reason: reason.map(Reason::encoded) })
        }
    };
    Ok(SingleResponse {
        id: any(&answer.id.der)?,
        status,
        this_update: moment(answer.this_update)?,
        next_update: moment(answer.next_update)?,
    })
}

fn moment(at: Timestamp) -> Result<GeneralizedTime> {
    Ok(GeneralizedTime::from_date_time(time(at)?.to_date_time()))
}

/// Returns the whole answer.
pub(crate) fn successful(
    data: AnyRef<'_>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
    certificates: &[Vec<u8>],
) -> Result<Vec<u8>> {
    let certificates = certificates.iter().map(|der| any(der)).collect::<Result<Vec<_>>>()?;
    let certificates = (!certificates.is_empty()).then_some(certificates);
    let basic = encode(&BasicResponse { data, algorithm, signature, certificates })?;
    let bytes = ResponseBytes { kind: BASIC, response: octets(basic)? };
    encode(&OcspResponse { status: Successful::Yes, bytes })
}
