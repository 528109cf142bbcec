//! Lists of what was revoked (RFC 5280 §5), of version 2, whole and of one authority.

use der::Sequence;
use der::asn1::{AnyRef, Uint};
use keymill_core::Result;
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;
use x509_cert::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber, CrlReason};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use crate::alt_name::octets;
use crate::build::{ToBeSigned, any, extension, time, unwritable};
use crate::{algorithm, invalid};

/// The most certificates of a list: some 40 bytes each.
pub const MAX_REVOKED: usize = 100_000;
/// The most bytes of what is signed.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A certificate that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, the most significant byte first.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: Timestamp,
    /// Why, where that is told.
    pub reason: Option<Reason>,
}

/// Why a certificate was revoked (RFC 5280 §5.3.1). That it is not told is no reason, and hides in no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 1: the key is in other hands.
    KeyCompromise,
    /// 2: the key of the authority is in other hands.
    CaCompromise,
    /// 3: what the name says changed.
    AffiliationChanged,
    /// 4: another certificate stands in its place.
    Superseded,
    /// 5: what it was for is no more.
    CessationOfOperation,
    /// 6: on hold, perhaps for a time.
    CertificateHold,
    /// 9: what the holder was allowed was withdrawn.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 7] = [
        Reason::KeyCompromise,
        Reason::CaCompromise,
        Reason::AffiliationChanged,
        Reason::Superseded,
        Reason::CessationOfOperation,
        Reason::CertificateHold,
        Reason::PrivilegeWithdrawn,
    ];

    /// Returns its number, which ACME uses, too (RFC 8555 §7.6).
    pub fn number(self) -> u8 {
        self.encoded() as u8
    }

    /// Returns the reason of a number; `None` for 0, which is none, and for those that no list here has.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }

    /// Returns its name, as RFC 5280 has it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::KeyCompromise => "keyCompromise",
            Reason::CaCompromise => "cACompromise",
            Reason::AffiliationChanged => "affiliationChanged",
            Reason::Superseded => "superseded",
            Reason::CessationOfOperation => "cessationOfOperation",
            Reason::CertificateHold => "certificateHold",
            Reason::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    pub(crate) fn encoded(self) -> CrlReason {
        match self {
            Reason::KeyCompromise => CrlReason::KeyCompromise,
            Reason::CaCompromise => CrlReason::CaCompromise,
            Reason::AffiliationChanged => CrlReason::AffiliationChanged,
            Reason::Superseded => CrlReason::Superseded,
            Reason::CessationOfOperation => CrlReason::CessationOfOperation,
            Reason::CertificateHold => CrlReason::CertificateHold,
            Reason::PrivilegeWithdrawn => CrlReason::PrivilegeWithdrawn,
        }
    }
}

/// TBSCertList (RFC 5280 §5.1).
#[derive(Sequence)]
struct TbsCertList<'a> {
    version: Version,
    signature: AlgorithmIdentifierOwned,
    issuer: AnyRef<'a>,
    this_update: Time,
    next_update: Time,
    revoked: Option<Vec<Entry>>,
    #[asn1(context_specific = "0")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Entry {
    serial: Uint,
    at: Time,
    extensions: Option<Vec<Extension>>,
}

/// Builds a list: of an authority's name in DER and the identifier of its key, with the number of the list, which grows from one to the next.
///
/// # Errors
/// `InvalidParameter` for more than [`MAX_REVOKED`] certificates, a serial number that is zero or too long, one that is there twice, and an update that is due
/// before it is made.
pub fn list(
    issuer_der: &[u8],
    issuer_key_id: &[u8],
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    revoked: &[Revoked],
    algorithm: SignAlgorithm,
) -> Result<ToBeSigned> {
    if revoked.len() > MAX_REVOKED {
        return Err(invalid(format!(
            "a list of {} certificates exceeds the limit of {MAX_REVOKED}",
            revoked.len()
        )));
    }
    if next_update <= this_update {
        return Err(invalid("a list whose next update is not after it"));
    }
    let mut serials: Vec<_> = revoked.iter().map(|one| natural(&one.serial)).collect();
    serials.sort_unstable();
    if serials.first().is_some_and(|serial| serial.is_empty()) {
        return Err(invalid("a serial number that is zero"));
    }
    if serials.iter().any(|serial| serial.len() > 20) {
        return Err(invalid("a serial number of more than 20 bytes"));
    }
    if serials.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(invalid("a serial number that is there twice"));
    }
    let entries = revoked.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let id = AuthorityKeyIdentifier { key_identifier: Some(octets(issuer_key_id)?), ..Default::default() };
    let number = CrlNumber::try_from(number).map_err(unwritable)?;
    let list = TbsCertList {
        version: Version::V2,
        signature: algorithm::identifier(algorithm)?,
        issuer: any(issuer_der)?,
        this_update: time(this_update)?,
        next_update: time(next_update)?,
        // RFC 5280 §5.1.2.6: absent, not empty.
        revoked: (!entries.is_empty()).then_some(entries),
        extensions: vec![extension(false, &id)?, extension(false, &number)?],
    };
    ToBeSigned::new(&list, algorithm, MAX_BYTES)
}

fn entry(revoked: &Revoked) -> Result<Entry> {
    let reason = revoked.reason.map(|reason| extension(false, &reason.encoded())).transpose()?;
    Ok(Entry {
        serial: Uint::new(natural(&revoked.serial)).map_err(unwritable)?,
        at: time(revoked.at)?,
        extensions: reason.map(|reason| vec![reason]),
    })
}

/// Returns the bytes of a number without zeros in front.
fn natural(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
