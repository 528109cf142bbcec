//! Certificates that are managed here: their states, what may be done in which, and what is known of them. Their bytes are kept apart, since
//! few of many are read at a time.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{AltName, Issuance, RevocationReason, Serial, Validity};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AccessKeyId, CertificateId, CmkId, Text};
use crate::key::{KeySpec, Tags};
use crate::time::Timestamp;

/// The state of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum CertificateStatus {
    /// Its key is there, and an authority is yet to sign it.
    #[serde(rename = "PENDING")]
    Pending,
    /// May be used.
    #[serde(rename = "ACTIVE")]
    Active,
    /// May not be used until it is active again.
    #[serde(rename = "INACTIVE")]
    Inactive,
    /// Checks what was signed before, and nothing else; for good.
    #[serde(rename = "REVOKED")]
    Revoked,
}

impl CertificateStatus {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            CertificateStatus::Pending => "PENDING",
            CertificateStatus::Active => "ACTIVE",
            CertificateStatus::Inactive => "INACTIVE",
            CertificateStatus::Revoked => "REVOKED",
        }
    }

    /// Returns the state that a caller asks for.
    ///
    /// # Errors
    /// `StateConflict` where it cannot be had in this state, `InvalidParameter` for one that nobody asks for.
    pub fn changed_to(self, to: Self) -> Result<Self> {
        use CertificateStatus::*;
        let refused = |why: &'static str| Err(Error::new(ErrorKind::StateConflict, why));
        match (self, to) {
            (_, Pending) => {
                let why = "Status is one of ACTIVE, INACTIVE and REVOKED";
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            (Pending, _) => refused("the certificate is PENDING: UploadCertificate makes it ACTIVE"),
            (Revoked, Active | Inactive) => refused("the certificate is REVOKED, which is for good"),
            (Active | Inactive | Revoked, _) => Ok(to),
        }
    }
}

impl<'de> Deserialize<'de> for CertificateStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*Text::deserialize(deserializer)?.0 {
            "PENDING" => Ok(CertificateStatus::Pending),
            "ACTIVE" => Ok(CertificateStatus::Active),
            // Older documents of the cloud spell it otherwise.
            "INACTIVE" | "DISABLED" | "DISABLE" => Ok(CertificateStatus::Inactive),
            "REVOKED" => Ok(CertificateStatus::Revoked),
            _ => Err(de::Error::custom("Status is one of ACTIVE, INACTIVE and REVOKED")),
        }
    }
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CertificateOrigin {
    /// Its key was made here, and its signing request signed by an authority elsewhere.
    #[serde(rename = "CREATED")]
    Created,
    /// It came with its key.
    #[serde(rename = "IMPORTED")]
    Imported,
    /// An authority of ours signed it.
    #[serde(rename = "ISSUED")]
    Issued,
}

impl CertificateOrigin {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            CertificateOrigin::Created => "CREATED",
            CertificateOrigin::Imported => "IMPORTED",
            CertificateOrigin::Issued => "ISSUED",
        }
    }
}

/// What is done with the key of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUse {
    /// Signs.
    Sign,
    /// Checks a signature.
    Verify,
    /// Encrypts for the private half.
    Encrypt,
    /// Decrypts.
    Decrypt,
}

/// What a signed certificate says, as far as it is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// Whose it is (RFC 4514).
    pub subject: Box<str>,
    /// Who signed it (RFC 4514).
    pub issuer: Box<str>,
    /// The serial number, in lower-case hexadecimal digits.
    pub serial: Box<str>,
    /// From when to when.
    pub validity: Validity,
    /// The other names.
    pub alt_names: Vec<AltName>,
    /// How it was signed: `RSA2048-SHA256`, `ECDSA-SHA256`, `SM2-SM3`, as the cloud writes it.
    pub signature_algorithm: Box<str>,
    /// The key identifier, where it has one.
    pub subject_key_id: Option<Vec<u8>>,
}

/// A certificate that is managed here, without its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManagedCertificate {
    /// Its id.
    pub id: CertificateId,
    /// The CMK that is its private key; none where that is elsewhere.
    pub cmk: Option<CmkId>,
    /// What kind of key it has; none where it is of no kind that is made here.
    pub spec: Option<KeySpec>,
    /// Where it comes from.
    pub origin: CertificateOrigin,
    /// The state.
    pub status: CertificateStatus,
    /// Whether its private key may leave.
    pub exportable: bool,
    /// Whether an authority of this installation signs by it: its key signs what that issues, and nothing else, whatever becomes of the authority's
    /// own record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_authority: bool,
    /// Whose it is to be, where it is not signed yet; whose it is, else.
    pub subject: Box<str>,
    /// The other names that were asked for.
    pub alt_names: Vec<AltName>,
    /// What it says, once it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<CertificateFacts>,
    /// How an authority of ours came to sign it, where one did, and what became of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuance: Option<Box<Issuance>>,
    /// Text of the caller's own.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// The access key that made it.
    pub creator: AccessKeyId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// The tag of the record of its bytes: no other is taken for it.
    pub body_tag: [u8; 16],
}

impl ManagedCertificate {
    /// Checks that something may be done with it now. What was signed or encrypted before it ended is still checked and opened after; what
    /// nobody would take is not made.
    ///
    /// # Errors
    /// `KeyDisabled` where its state does not allow it, `StateConflict` where it is not signed yet or not valid now.
    pub fn check_use(&self, what: CertificateUse, now: Timestamp) -> Result<()> {
        use CertificateStatus::*;
        match (self.status, what) {
            (Pending, _) => {
                let why = "the certificate is PENDING: nobody has signed it yet";
                return Err(Error::new(ErrorKind::StateConflict, why));
            }
            (Active, _) | (Revoked, CertificateUse::Verify) => {}
            (Inactive | Revoked, _) => {
                let why = format!("the certificate is {}", self.status.name());
                return Err(Error::new(ErrorKind::KeyDisabled, why));
            }
        }
        let makes = matches!(what, CertificateUse::Sign | CertificateUse::Encrypt);
        match &self.facts {
            Some(facts) if makes && !facts.validity.covers(now) => {
                let Validity { not_before, not_after } = facts.validity;
                let why = format!("the certificate is valid from {not_before} to {not_after}");
                Err(Error::new(ErrorKind::StateConflict, why))
            }
            _ => Ok(()),
        }
    }

    /// Revokes it: what an authority of ours signed, with the reason that its list gives.
    ///
    /// # Errors
    /// `StateConflict` where it is not signed, or has ended.
    pub fn revoke(&mut self, reason: RevocationReason, now: Timestamp) -> Result<()> {
        self.status = self.status.changed_to(CertificateStatus::Revoked)?;
        match &mut self.issuance {
            Some(issuance) => issuance.revoke(reason, now),
            None => Ok(()),
        }
    }

    /// Revokes what was issued under one number: of the newest, the whole; of one before it, that one alone, and the rest stays as it is.
    ///
    /// # Errors
    /// `StateConflict` where it is not signed, or has ended; `ResourceNotFound` where the number is none of it.
    pub fn revoke_serial(&mut self, serial: &Serial, reason: RevocationReason, now: Timestamp) -> Result<()> {
        match &mut self.issuance {
            Some(issuance) if !issuance.is_newest(serial) => {
                issuance.revoke_serial(serial, reason, now).map(drop)
            }
            _ => self.revoke(reason, now),
        }
    }

    /// Checks that it may be deleted: of what an authority of ours signed somebody can still ask whether it was revoked.
    ///
    /// # Errors
    /// `StateConflict` where that is so.
    pub fn check_end(&self, now: Timestamp) -> Result<()> {
        match self.issuance.as_ref().and_then(|issuance| issuance.told_until()) {
            Some(until) if until >= now => {
                let why = format!(
                    "an authority of this installation signed the certificate, and answers for it until {until}: RevokeCertificate ends its use"
                );
                Err(Error::new(ErrorKind::StateConflict, why))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a signed certificate may be put to it: the first one, or one that takes the place of another.
    ///
    /// # Errors
    /// `StateConflict` where it is revoked, or an authority of ours signed it.
    pub fn check_upload(&self) -> Result<()> {
        let refused = |why: &'static str| Err(Error::new(ErrorKind::StateConflict, why));
        match (self.status, self.origin) {
            (CertificateStatus::Revoked, _) => refused("the certificate is REVOKED, which is for good"),
            (_, CertificateOrigin::Issued) => {
                refused("an authority of this installation signed the certificate, and renews it")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use CertificateStatus::*;

    fn certificate(status: CertificateStatus) -> ManagedCertificate {
        let at = Timestamp::from_ms;
        ManagedCertificate {
            id: CertificateId::from_bytes([1; 16]),
            cmk: None,
            spec: Some(KeySpec::EcP256),
            origin: CertificateOrigin::Created,
            status,
            exportable: false,
            is_authority: false,
            subject: "CN=a".into(),
            alt_names: Vec::new(),
            facts: Some(CertificateFacts {
                subject: "CN=a".into(),
                issuer: "CN=b".into(),
                serial: "01".into(),
                validity: Validity { not_before: at(10), not_after: at(20) },
                alt_names: Vec::new(),
                signature_algorithm: "ECDSA-SHA256".into(),
                subject_key_id: None,
            }),
            issuance: None,
            tags: Tags::new(),
            creator: "KMAK00000001".parse().unwrap(),
            created_at: at(0),
            updated_at: at(0),
            body_tag: [0; 16],
        }
    }

    #[test]
    fn every_change_of_state_is_as_documented_and_none_leads_back_from_revoked() {
        for (from, to, expected) in [
            (Pending, Active, None),
            (Pending, Inactive, None),
            (Pending, Revoked, None),
            (Active, Active, Some(Active)),
            (Active, Inactive, Some(Inactive)),
            (Active, Revoked, Some(Revoked)),
            (Inactive, Active, Some(Active)),
            (Inactive, Inactive, Some(Inactive)),
            (Inactive, Revoked, Some(Revoked)),
            (Revoked, Active, None),
            (Revoked, Inactive, None),
            (Revoked, Revoked, Some(Revoked)),
        ] {
            match expected {
                Some(state) => assert_eq!(from.changed_to(to).unwrap(), state),
                None => assert_eq!(from.changed_to(to).unwrap_err().kind(), ErrorKind::StateConflict),
            }
        }
        for from in [Pending, Active, Inactive, Revoked] {
            assert_eq!(from.changed_to(Pending).unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
    }

    #[test]
    fn only_an_active_one_is_used_and_a_revoked_one_checks_signatures() {
        use CertificateUse::*;
        let at = Timestamp::from_ms(15);
        let kinds = |status| {
            [Sign, Verify, Encrypt, Decrypt]
                .map(|what| certificate(status).check_use(what, at).err().map(|error| error.kind()))
        };
        assert_eq!(kinds(Active), [None; 4]);
        assert_eq!(kinds(Pending), [Some(ErrorKind::StateConflict); 4]);
        let disabled = Some(ErrorKind::KeyDisabled);
        assert_eq!(kinds(Inactive), [disabled; 4]);
        assert_eq!(kinds(Revoked), [disabled, None, disabled, disabled]);
    }

    #[test]
    fn before_and_after_its_time_nothing_is_made_and_what_was_made_is_still_read() {
        use CertificateUse::*;
        for at in [9, 21].map(Timestamp::from_ms) {
            let said = |what| certificate(Active).check_use(what, at).map_err(|error| error.kind());
            assert_eq!([Sign, Encrypt].map(said), [Err(ErrorKind::StateConflict); 2]);
            assert_eq!([Verify, Decrypt].map(said), [Ok(()); 2]);
        }
    }

    #[test]
    fn a_status_is_read_under_its_older_names_and_written_under_one() {
        for (text, status) in
            [("INACTIVE", Inactive), ("DISABLED", Inactive), ("DISABLE", Inactive), ("REVOKED", Revoked)]
        {
            let read: CertificateStatus = serde_json::from_str(&format!("{text:?}")).unwrap();
            assert_eq!(read, status);
        }
        assert_eq!(serde_json::to_string(&Inactive).unwrap(), "\"INACTIVE\"");
        for odd in ["active", "", "EXPIRED"] {
            assert!(serde_json::from_str::<CertificateStatus>(&format!("{odd:?}")).is_err());
        }
    }

    #[test]
    fn what_is_revoked_or_issued_here_takes_no_certificate() {
        certificate(Pending).check_upload().unwrap();
        certificate(Active).check_upload().unwrap();
        assert!(certificate(Revoked).check_upload().is_err());
        let issued = ManagedCertificate { origin: CertificateOrigin::Issued, ..certificate(Active) };
        assert!(issued.check_upload().is_err());
    }
}
