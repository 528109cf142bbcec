//! The published certificates, read by all and written by the keyring actor alone. Their bytes stay in the store until they are read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use keymill_core::certificate::{CertificateStatus, ManagedCertificate};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CertificateId, CmkId};
use keymill_core::time::Timestamp;
use parking_lot::RwLock;

use crate::authorities::Authorities;
use crate::keyring::Stamp;

/// A certificate as it was published.
#[derive(Debug)]
pub struct CertificateEntry {
    /// The certificate, without its bytes.
    pub certificate: ManagedCertificate,
    /// Where its record stands.
    pub stamp: Stamp,
}

/// All certificates.
#[derive(Default)]
pub struct Certificates {
    all: RwLock<HashMap<CertificateId, Arc<CertificateEntry>>>,
    /// In the order of their making.
    order: RwLock<BTreeSet<(Timestamp, CertificateId)>>,
    /// When those end that are in use, the soonest first.
    ends: RwLock<BTreeSet<(Timestamp, CertificateId)>>,
    /// The CMKs that are keys of certificates, and lead to nothing else.
    keys: RwLock<HashSet<CmkId>>,
    /// Those whose record failed its check.
    quarantined: RwLock<HashSet<CertificateId>>,
    /// The authorities that sign them, and what each has issued.
    pub(crate) authorities: Authorities,
}

impl Certificates {
    /// Returns a certificate, or why there is none.
    ///
    /// # Errors
    /// `CertificateNotFound`, or `Quarantined` where its record failed its check.
    pub fn find(&self, id: &CertificateId) -> Result<Arc<CertificateEntry>> {
        self.certificate(id).ok_or_else(|| match self.quarantined.read().contains(id) {
            true => {
                Error::new(ErrorKind::Quarantined, "the stored record of the certificate failed its check")
            }
            false => Error::certificate_not_found(),
        })
    }

    /// Returns a certificate.
    pub fn certificate(&self, id: &CertificateId) -> Option<Arc<CertificateEntry>> {
        self.all.read().get(id).cloned()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.read().is_empty()
    }

    /// Returns those of which `keep` is true, the oldest first. Whoever changes one waits for a part of them alone, so that what is changed
    /// meanwhile may be seen as it was or as it is.
    pub fn matching(&self, keep: impl Fn(&ManagedCertificate) -> bool) -> Vec<Arc<CertificateEntry>> {
        const AT_ONCE: usize = 4_096;
        let mut kept = Vec::new();
        let mut after = Bound::Unbounded;
        loop {
            let order = self.order.read();
            let part: Vec<_> = order.range((after, Bound::Unbounded)).take(AT_ONCE).copied().collect();
            drop(order);
            let entries = part.iter().filter_map(|(_, id)| self.certificate(id));
            kept.extend(entries.filter(|entry| keep(&entry.certificate)));
            match part.last() {
                Some(last) if part.len() == AT_ONCE => after = Bound::Excluded(*last),
                _ => return kept,
            }
        }
    }

    /// Returns those in use that end before a moment, the soonest first.
    pub fn ending_before(&self, before: Timestamp) -> Vec<Arc<CertificateEntry>> {
        let ends = self.ends.read();
        let due = ends.range(..(before, CertificateId::from_bytes([0; 16])));
        let ids: Vec<CertificateId> = due.map(|(_, id)| *id).collect();
        drop(ends);
        ids.iter().filter_map(|id| self.certificate(id)).collect()
    }

    /// Returns when the first of those in use ends that has not ended by `now`, how many have, and how many end from then on before each moment.
    pub fn ends<const N: usize>(
        &self,
        now: Timestamp,
        before: [Timestamp; N],
    ) -> (Option<Timestamp>, usize, [usize; N]) {
        let ends = self.ends.read();
        let at = |moment| (moment, CertificateId::from_bytes([0; 16]));
        let first = ends.range(at(now)..).next().map(|(at, _)| *at);
        let count = |moment: Timestamp| ends.range(at(now)..at(moment.max(now))).count();
        (first, ends.range(..at(now)).count(), before.map(count))
    }

    /// Returns the CMKs that are keys of certificates.
    pub(crate) fn keys(&self) -> Vec<CmkId> {
        self.keys.read().iter().copied().collect()
    }

    pub(crate) fn put_key(&self, cmk: CmkId) {
        self.keys.write().insert(cmk);
    }

    pub(crate) fn remove_key(&self, cmk: &CmkId) {
        self.keys.write().remove(cmk);
    }

    /// Keeps a certificate from being found.
    pub(crate) fn quarantine(&self, id: CertificateId) {
        self.quarantined.write().insert(id);
    }

    pub(crate) fn is_quarantined(&self, id: &CertificateId) -> bool {
        self.quarantined.read().contains(id)
    }

    pub(crate) fn put(&self, entry: CertificateEntry) -> Arc<CertificateEntry> {
        let entry = Arc::new(entry);
        let certificate = &entry.certificate;
        let (id, made) = (certificate.id, certificate.created_at);
        let before = self.all.write().insert(id, entry.clone());
        self.order.write().insert((made, id));
        self.authorities.note(before.as_ref().map(|before| &before.certificate), Some(certificate));
        let (was, is) = (before.and_then(|before| end(&before.certificate)), end(certificate));
        if was != is {
            let mut ends = self.ends.write();
            if let Some(at) = was {
                ends.remove(&(at, id));
            }
            ends.extend(is.map(|at| (at, id)));
        }
        entry
    }

    pub(crate) fn remove(&self, id: &CertificateId) {
        let Some(entry) = self.all.write().remove(id) else { return };
        self.authorities.note(Some(&entry.certificate), None);
        self.order.write().remove(&(entry.certificate.created_at, *id));
        if let Some(at) = end(&entry.certificate) {
            self.ends.write().remove(&(at, *id));
        }
    }
}

/// Returns when a certificate ends that somebody may count on.
fn end(certificate: &ManagedCertificate) -> Option<Timestamp> {
    let is_in_use = certificate.status == CertificateStatus::Active;
    certificate.facts.as_ref().filter(|_| is_in_use).map(|facts| facts.validity.not_after)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use keymill_core::certificate::{CertificateFacts, CertificateOrigin, Validity};
    use keymill_core::key::Tags;
    use keymill_core::seam::store::Revision;

    pub(crate) fn certificate(n: u8) -> ManagedCertificate {
        entry(n, CertificateStatus::Active, 30).certificate
    }

    fn entry(n: u8, status: CertificateStatus, not_after: u64) -> CertificateEntry {
        let at = Timestamp::from_ms;
        let certificate = ManagedCertificate {
            id: CertificateId::from_bytes([n; 16]),
            cmk: None,
            spec: None,
            origin: CertificateOrigin::Issued,
            status,
            exportable: false,
            is_authority: false,
            subject: format!("CN={n}").into(),
            alt_names: Vec::new(),
            facts: Some(CertificateFacts {
                subject: format!("CN={n}").into(),
                issuer: "CN=ca".into(),
                serial: "01".into(),
                validity: Validity { not_before: at(0), not_after: at(not_after) },
                alt_names: Vec::new(),
                signature_algorithm: "ECDSA-SHA256".into(),
                subject_key_id: None,
            }),
            issuance: None,
            tags: Tags::new(),
            creator: "KMAK00000001".parse().unwrap(),
            created_at: at(100 - u64::from(n)),
            updated_at: at(0),
            body_tag: [0; 16],
        };
        CertificateEntry { certificate, stamp: Stamp { revision: Revision(1), sequence: 1 } }
    }

    fn ids(entries: Vec<Arc<CertificateEntry>>) -> Vec<u8> {
        entries.iter().map(|entry| entry.certificate.id.as_bytes()[0]).collect()
    }

    #[test]
    fn lists_are_by_age_and_ends_by_time_and_of_those_in_use_alone() {
        use CertificateStatus::{Active, Revoked};
        let all = Certificates::default();
        for (n, status, not_after) in [(1, Active, 30), (2, Active, 20), (3, Revoked, 5)] {
            all.put(entry(n, status, not_after));
        }
        assert_eq!(ids(all.matching(|_| true)), [3, 2, 1]);
        let at = Timestamp::from_ms;
        assert_eq!(ids(all.ending_before(at(31))), [2, 1]);
        assert_eq!(ids(all.ending_before(at(30))), [2]);
        assert_eq!(all.ends(at(0), [at(20), at(21), at(40)]), (Some(at(20)), 0, [0, 1, 2]));
        // One that has ended is counted apart, and hides no other.
        assert_eq!(all.ends(at(25), [at(20), at(26), at(40)]), (Some(at(30)), 1, [0, 0, 1]));
        // It is renewed.
        all.put(entry(2, Active, 90));
        assert_eq!(all.ends(at(0), [at(40)]), (Some(at(30)), 0, [1]));
        all.remove(&CertificateId::from_bytes([1; 16]));
        assert_eq!((all.ends(at(0), [at(100)]), all.len()), ((Some(at(90)), 0, [1]), 2));
        assert_eq!(ids(all.matching(|certificate| certificate.status == Revoked)), [3]);
    }

    #[test]
    fn one_that_failed_its_check_is_told_apart_from_one_that_is_not_there() {
        let all = Certificates::default();
        let id = CertificateId::from_bytes([7; 16]);
        assert_eq!(all.find(&id).unwrap_err().kind(), ErrorKind::CertificateNotFound);
        all.quarantine(id);
        assert_eq!(all.find(&id).unwrap_err().kind(), ErrorKind::Quarantined);
    }
}
