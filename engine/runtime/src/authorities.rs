//! The published authorities, and what each has issued; read by all and written by the keyring actor alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keymill_core::certificate::{
    Authority, AuthorityState, DistinguishedName, Issuance, IssuedSerial, Listed, ManagedCertificate,
    RenewalBackOff, RevocationReason, Serial, is_listed, renewal_due,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AuthorityName, CertificateId};
use keymill_core::time::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::answers::Answers;
use crate::gate::Gate;
use crate::keyring::Stamp;
use crate::records::{self, CrlRecord};

/// An authority as it was published.
#[derive(Debug)]
pub struct AuthorityEntry {
    /// The authority.
    pub authority: Authority,
    /// Where its record stands.
    pub stamp: Stamp,
}

/// A list of what an authority revoked, as it was published.
#[derive(Debug)]
pub struct CrlEntry {
    /// Its number and times.
    pub listed: Listed,
    /// What it names.
    pub named: HashMap<Serial, IssuedSerial>,
    /// The whole in DER.
    pub der: Bytes,
    /// Where its record stands.
    pub stamp: Stamp,
    /// How many changes of what is revoked it has seen.
    pub seen: u64,
}

impl CrlEntry {
    /// Takes a list as it was read. How much of what was revoked it names is not known: the next one is made soon.
    pub(crate) fn of(record: CrlRecord, stamp: Stamp) -> (AuthorityName, Self) {
        let CrlRecord { authority, number, this_update, next_update, named, der } = record;
        let listed = Listed { number, this_update, next_update };
        let named = named.into_iter().map(|issued| (issued.serial, issued)).collect();
        (authority, Self { listed, named, der: der.0.into_vec().into(), stamp, seen: 0 })
    }
}

/// What an authority signs by, as its certificate says.
#[derive(Debug)]
pub struct Signer {
    /// The tag of the record that it was read from.
    pub body_tag: [u8; 16],
    /// Its certificate.
    pub certificate: keymill_x509::Certificate,
    /// The subject of it.
    pub subject: DistinguishedName,
    /// The identifier of its key.
    pub key_id: Vec<u8>,
    /// Those above it in DER, the root last where it is known.
    pub chain: Vec<Vec<u8>>,
}

/// A certificate that an authority issued.
#[derive(Clone, Copy, Debug)]
pub struct Issued {
    /// The certificate.
    pub id: CertificateId,
    /// Its number, times and revocation.
    pub serial: IssuedSerial,
}

/// What one authority has issued.
#[derive(Default)]
struct Register {
    by_serial: HashMap<Serial, Issued>,
    revoked: HashSet<Serial>,
    /// Grows with each change of what is revoked.
    changes: u64,
}

/// All authorities, in the order of their names.
#[derive(Default)]
pub struct Authorities {
    all: RwLock<BTreeMap<AuthorityName, Arc<AuthorityEntry>>>,
    /// By the certificates that they sign by.
    by_certificate: RwLock<HashMap<CertificateId, AuthorityName>>,
    registers: RwLock<HashMap<AuthorityName, Register>>,
    /// When certificates are renewed by themselves, the soonest first.
    renewals: RwLock<BTreeSet<(Timestamp, CertificateId)>>,
    signers: RwLock<HashMap<AuthorityName, Arc<Signer>>>,
    crls: RwLock<HashMap<AuthorityName, Arc<CrlEntry>>>,
    /// One at a time makes the list of an authority.
    turns: Mutex<HashMap<AuthorityName, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) answers: Answers,
    /// Those whose renewal failed, and when it is tried again.
    tries: Mutex<HashMap<CertificateId, RenewalBackOff>>,
    /// The identifiers of keys that somebody else has, or may have: what was issued for them is revoked for that.
    compromised: RwLock<HashSet<Vec<u8>>>,
    /// Where the records stand of those that failed their check.
    quarantined: RwLock<HashSet<String>>,
}

impl Authorities {
    /// Returns an authority.
    pub fn authority(&self, name: &AuthorityName) -> Option<Arc<AuthorityEntry>> {
        self.all.read().get(name).cloned()
    }

    /// Returns an authority, or why there is none.
    ///
    /// # Errors
    /// `ResourceNotFound`, or `Quarantined` where its record failed its check.
    pub fn find(&self, name: &AuthorityName) -> Result<Arc<AuthorityEntry>> {
        self.authority(name).ok_or_else(|| {
            match self.quarantined.read().contains(records::authority_path(name).as_str()) {
                true => {
                    let why = "the stored record of the authority failed its check";
                    Error::new(ErrorKind::Quarantined, why)
                }
                false => Error::authority_not_found(),
            }
        })
    }

    /// Returns all of them.
    pub fn all(&self) -> Vec<Arc<AuthorityEntry>> {
        self.all.read().values().cloned().collect()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.read().is_empty()
    }

    /// Returns the authority that signs by a certificate.
    pub fn signing_by(&self, id: &CertificateId) -> Option<Arc<AuthorityEntry>> {
        let name = self.by_certificate.read().get(id).cloned()?;
        self.authority(&name)
    }

    /// Returns what was issued under a number.
    pub fn issued(&self, name: &AuthorityName, serial: &Serial) -> Option<Issued> {
        self.registers.read().get(name)?.by_serial.get(serial).copied()
    }

    /// Returns what is told of a number: what the newest list says is revoked is so, whatever has become of its record.
    pub fn told(&self, name: &AuthorityName, serial: &Serial) -> Option<IssuedSerial> {
        let issued = self.issued(name, serial).map(|issued| issued.serial);
        if issued.is_some_and(|issued| issued.revocation.is_some()) {
            return issued;
        }
        self.crl(name).and_then(|crl| crl.named.get(serial).copied()).or(issued)
    }

    /// Tells whether something that an authority revoked has not ended, so that its list is still to name it.
    pub fn has_to_tell(&self, name: &AuthorityName, now: Timestamp) -> bool {
        let is_alive = |issued: &IssuedSerial| issued.validity.not_after >= now;
        self.counts(name, now).1 > 0 || self.crl(name).is_some_and(|crl| crl.named.values().any(is_alive))
    }

    /// Checks that an authority issues, and that what stands above it was not revoked: nobody would believe what it signs. One above that is
    /// disabled issues nothing itself, and leaves those below it as they are.
    ///
    /// # Errors
    /// `StateConflict`, naming the one that does not; those of a record that failed its check.
    pub fn check_issuing(&self, name: &AuthorityName) -> Result<()> {
        let entry = self.find(name)?;
        entry.authority.check_issuing()?;
        let mut parent = entry.authority.parent.clone();
        for _ in 0..=keymill_x509::MAX_CHAIN {
            let Some(above) = parent.take() else { return Ok(()) };
            let above = self.find(&above)?;
            if above.authority.state == AuthorityState::Revoked {
                let why = format!("the authority {} above {name} is Revoked", above.authority.name);
                return Err(Error::new(ErrorKind::StateConflict, why));
            }
            parent = above.authority.parent.clone();
        }
        Err(Error::internal("authorities stand above each other without end"))
    }

    /// Checks that a key may be certified: one whose certificate was revoked because somebody else has it is not certified again.
    ///
    /// # Errors
    /// `InvalidParameter` where it was.
    pub fn check_key(&self, public_key: &[u8]) -> Result<()> {
        match self.compromised.read().contains(&keymill_x509::key_id(public_key)?[..]) {
            true => {
                let why = "the key was revoked as compromised, and is not certified again: make another";
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            false => Ok(()),
        }
    }

    /// Returns how many certificates of an authority have not ended, and how many of those are revoked.
    pub fn counts(&self, name: &AuthorityName, now: Timestamp) -> (u64, u64) {
        let registers = self.registers.read();
        let Some(register) = registers.get(name) else { return (0, 0) };
        let alive = register.by_serial.values().filter(|issued| issued.serial.validity.not_after >= now);
        alive.fold((0, 0), |(all, revoked), issued| {
            (all + 1, revoked + u64::from(issued.serial.revocation.is_some()))
        })
    }

    /// Returns what the list that follows `before` names, and how many changes it has seen: what is revoked by the records, and what the list before
    /// names that they do not, since one of them may be lost, or be older than it was.
    pub fn listed(
        &self,
        name: &AuthorityName,
        before: Option<&CrlEntry>,
        now: Timestamp,
    ) -> (Vec<IssuedSerial>, u64) {
        let mut named = before.map(|before| before.named.clone()).unwrap_or_default();
        let mut changes = 0;
        if let Some(register) = self.registers.read().get(name) {
            let revoked = register.revoked.iter().filter_map(|serial| register.by_serial.get(serial));
            named.extend(revoked.map(|issued| (issued.serial.serial, issued.serial)));
            changes = register.changes;
        }
        let before = before.map(|before| &before.listed);
        let named = named.into_values().filter(|issued| is_listed(issued, before, now));
        let mut named: Vec<IssuedSerial> = named.collect();
        named.sort_unstable_by_key(|issued| issued.serial);
        (named, changes)
    }

    /// Returns how often what an authority revoked has changed.
    pub fn changes(&self, name: &AuthorityName) -> u64 {
        self.registers.read().get(name).map_or(0, |register| register.changes)
    }

    /// Returns the newest list of what an authority revoked.
    pub fn crl(&self, name: &AuthorityName) -> Option<Arc<CrlEntry>> {
        self.crls.read().get(name).cloned()
    }

    /// Returns the certificates that are to be renewed by now.
    pub fn due(&self, now: Timestamp) -> Vec<CertificateId> {
        let renewals = self.renewals.read();
        renewals.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }

    /// Tells whether a renewal is tried now, where it failed before.
    pub(crate) fn may_try(&self, id: &CertificateId, now: Timestamp) -> bool {
        self.tries.lock().get(id).is_none_or(|back_off| back_off.next_at <= now)
    }

    /// Returns how the last try ended, where it failed.
    pub(crate) fn last_try(&self, id: &CertificateId) -> Option<RenewalBackOff> {
        self.tries.lock().get(id).copied()
    }

    /// Notes how a try ended.
    pub(crate) fn note_try(&self, id: CertificateId, failed: Option<RenewalBackOff>) {
        let mut tries = self.tries.lock();
        match failed {
            Some(back_off) => drop(tries.insert(id, back_off)),
            None => drop(tries.remove(&id)),
        }
    }

    /// Returns how many renewals failed and are not made yet.
    pub fn failing(&self) -> usize {
        self.tries.lock().len()
    }

    /// Returns the turn to make the list of an authority.
    pub(crate) fn turn(&self, name: &AuthorityName) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.lock().entry(name.clone()).or_default().clone()
    }

    /// Returns what an authority signs by, where it was read from that record.
    pub(crate) fn signer(&self, name: &AuthorityName, body_tag: [u8; 16]) -> Option<Arc<Signer>> {
        self.signers.read().get(name).filter(|signer| signer.body_tag == body_tag).cloned()
    }

    pub(crate) fn put_signer(&self, name: &AuthorityName, signer: Signer) -> Arc<Signer> {
        let signer = Arc::new(signer);
        self.signers.write().insert(name.clone(), signer.clone());
        signer
    }

    /// Keeps the name of an authority from being found and from being made anew.
    pub(crate) fn quarantine(&self, path: &str) {
        self.quarantined.write().insert(path.to_owned());
    }

    pub(crate) fn put(&self, entry: AuthorityEntry) -> Arc<AuthorityEntry> {
        let (name, entry) = (entry.authority.name.clone(), Arc::new(entry));
        self.by_certificate.write().insert(entry.authority.certificate, name.clone());
        self.all.write().insert(name, entry.clone());
        entry
    }

    pub(crate) fn remove(&self, name: &AuthorityName) {
        if let Some(entry) = self.all.write().remove(name) {
            self.by_certificate.write().remove(&entry.authority.certificate);
        }
        self.signers.write().remove(name);
        self.crls.write().remove(name);
        self.turns.lock().remove(name);
        self.answers.forget(name);
    }

    pub(crate) fn put_crl(&self, name: AuthorityName, crl: CrlEntry) -> Arc<CrlEntry> {
        let crl = Arc::new(crl);
        self.crls.write().insert(name, crl.clone());
        crl
    }

    /// Notes what became of a certificate: of what was issued it is known by its numbers.
    pub(crate) fn note(&self, before: Option<&ManagedCertificate>, after: Option<&ManagedCertificate>) {
        fn issuance(certificate: &ManagedCertificate) -> Option<(CertificateId, &Issuance)> {
            certificate.issuance.as_deref().map(|issuance| (certificate.id, issuance))
        }
        let noted = after;
        let (before, after) = (before.and_then(issuance), after.and_then(issuance));
        if let Some((id, issuance)) = before {
            let kept = |serial: &Serial| {
                after.is_some_and(|(_, after)| after.serials.iter().any(|issued| issued.serial == *serial))
            };
            let mut registers = self.registers.write();
            if let Some(register) = registers.get_mut(&issuance.authority) {
                for issued in issuance.serials.iter().filter(|issued| !kept(&issued.serial)) {
                    register.by_serial.remove(&issued.serial);
                    register.revoked.remove(&issued.serial);
                }
            }
            drop(registers);
            if let Some(at) = due(id, issuance) {
                self.renewals.write().remove(&(at, id));
            }
            // It was renewed, revoked or ended: what failed before is of no account.
            if after.is_none_or(|(_, after)| after.newest() != issuance.newest()) {
                self.tries.lock().remove(&id);
            }
        }
        self.compromised.write().extend(noted.and_then(compromised_key));
        if let Some((id, issuance)) = after {
            let mut registers = self.registers.write();
            let register = registers.entry(issuance.authority.clone()).or_default();
            for serial in &issuance.serials {
                register.by_serial.insert(serial.serial, Issued { id, serial: *serial });
                if serial.revocation.is_some() && register.revoked.insert(serial.serial) {
                    register.changes += 1;
                    self.answers.forget_serial(&issuance.authority, &serial.serial);
                }
            }
            drop(registers);
            if let Some(at) = due(id, issuance) {
                self.renewals.write().insert((at, id));
            }
        }
    }
}

/// Has it looked from time to time at what authorities owe: lists, and certificates that are to be renewed.
pub(crate) struct AuthorityTimer {
    stop: tokio::sync::oneshot::Sender<()>,
    ended: flume::Receiver<()>,
}

/// How long a look that is under way may take when the engine stops.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

impl AuthorityTimer {
    /// Starts it; the first look is at once, since much may have become due meanwhile.
    pub(crate) fn start(gate: &Gate) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let (ending, ended) = flume::bounded::<()>(1);
        let gate = gate.clone();
        let every = gate.inner().shared.config.authorities.check;
        gate.clone().inner().actors.control.spawn(async move {
            let _ending = ending;
            let mut times = tokio::time::interval(every);
            times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = times.tick() => gate.look_after_authorities().await,
                    _ = &mut stopped => break,
                }
            }
        });
        Self { stop, ended }
    }

    /// Ends it, after the look that is under way.
    pub(crate) fn stop(self) {
        let _ended = self.stop.send(());
        if let Err(flume::RecvTimeoutError::Timeout) = self.ended.recv_timeout(ENDS_WITHIN) {
            tracing::warn!("what authorities owe is still being made, and is left behind");
        }
    }
}

/// Returns the identifier of a certificate's key where it was revoked because somebody else has it.
fn compromised_key(certificate: &ManagedCertificate) -> Option<Vec<u8>> {
    let revocation = certificate.issuance.as_deref()?.revocation()?;
    let is_known =
        matches!(revocation.reason, RevocationReason::KeyCompromise | RevocationReason::CaCompromise);
    certificate.facts.as_ref().filter(|_| is_known)?.subject_key_id.clone()
}

/// Returns when a certificate is renewed by itself, where it is; spread by what its id is made of, which is random.
fn due(id: CertificateId, issuance: &Issuance) -> Option<Timestamp> {
    let newest = issuance.newest().filter(|newest| issuance.auto_renew && newest.revocation.is_none())?;
    let bytes = id.as_bytes();
    Some(renewal_due(newest.validity, u16::from_be_bytes([bytes[0], bytes[1]])))
}

#[cfg(test)]
mod tests {
    use keymill_core::certificate::Validity;

    use super::*;
    use crate::certificates::tests::certificate;

    const DAY_MS: u64 = 86_400_000;

    fn issued(n: u8, days: u64) -> ManagedCertificate {
        let at = |day: u64| Timestamp::from_ms(day * DAY_MS);
        let serial = IssuedSerial {
            serial: Serial::from_random([n; 16]),
            validity: Validity { not_before: at(100), not_after: at(100 + days) },
            revocation: None,
        };
        let issuance = Issuance {
            authority: "issuing".parse().unwrap(),
            profile: Some("server".parse().unwrap()),
            subject: DistinguishedName::parse("CN=a.example").unwrap(),
            alt_names: Vec::new(),
            validity_days: days as u32,
            auto_renew: true,
            asked_by: "KMAK00000001".parse().unwrap(),
            access_point: None,
            serials: vec![serial],
        };
        ManagedCertificate { issuance: Some(Box::new(issuance)), ..certificate(n) }
    }

    #[test]
    fn what_was_issued_is_found_by_number_counted_and_listed_once_revoked() {
        let authorities = Authorities::default();
        let name: AuthorityName = "issuing".parse().unwrap();
        let now = Timestamp::from_ms(110 * DAY_MS);
        let (first, second) = (issued(1, 90), issued(2, 5));
        authorities.note(None, Some(&first));
        authorities.note(None, Some(&second));
        assert_eq!(authorities.counts(&name, now), (1, 0));
        let serial = Serial::from_random([1; 16]);
        assert_eq!(authorities.issued(&name, &serial).unwrap().id, first.id);
        assert_eq!(authorities.issued(&name, &Serial::from_random([3; 16])).map(|issued| issued.id), None);
        let mut revoked = first.clone();
        revoked.issuance.as_mut().unwrap().revoke(RevocationReason::KeyCompromise, now).unwrap();
        authorities.note(Some(&first), Some(&revoked));
        assert_eq!(authorities.counts(&name, now), (1, 1));
        let (listed, seen) = authorities.listed(&name, None, now);
        assert_eq!((listed.len(), listed[0].serial, seen), (1, serial, 1));
        let stamp = Stamp { revision: keymill_core::seam::store::Revision(1), sequence: 1 };
        let named = listed.iter().map(|issued| (issued.serial, *issued)).collect();
        let crl = CrlEntry { listed: Listed::next(None, now, 24), named, der: Bytes::new(), stamp, seen };
        authorities.note(Some(&revoked), None);
        assert_eq!(authorities.listed(&name, None, now).0, []);
        assert!(authorities.told(&name, &serial).is_none() && !authorities.has_to_tell(&name, now));
        // What the list before names is named until it has ended, whatever became of the record.
        assert_eq!(authorities.listed(&name, Some(&crl), now).0, listed);
        authorities.note(None, Some(&first));
        authorities.put_crl(name.clone(), crl);
        assert_eq!(authorities.told(&name, &serial), Some(listed[0]));
        assert!(authorities.has_to_tell(&name, now));
        let ended = Timestamp::from_ms(191 * DAY_MS);
        let late = CrlEntry { listed: Listed::next(None, ended, 24), ..entry_of(&authorities, &name) };
        assert_eq!(authorities.listed(&name, Some(&late), ended).0, []);
        assert!(!authorities.has_to_tell(&name, ended));
    }

    fn entry_of(authorities: &Authorities, name: &AuthorityName) -> CrlEntry {
        let CrlEntry { listed, named, der, stamp, seen } = &*authorities.crl(name).unwrap();
        CrlEntry { listed: *listed, named: named.clone(), der: der.clone(), stamp: *stamp, seen: *seen }
    }

    #[test]
    fn renewals_are_due_by_time_until_they_are_made_or_revoked() {
        let authorities = Authorities::default();
        let first = issued(0, 90);
        authorities.note(None, Some(&first));
        let at = |day: u64| Timestamp::from_ms(day * DAY_MS);
        assert!(authorities.due(at(159)).is_empty());
        assert_eq!(authorities.due(at(160)), [first.id]);
        let mut renewed = first.clone();
        let validity = Validity { not_before: at(160), not_after: at(250) };
        renewed.issuance.as_mut().unwrap().renew(Serial::from_random([9; 16]), validity, at(160)).unwrap();
        authorities.note(Some(&first), Some(&renewed));
        assert!(authorities.due(at(219)).is_empty() && authorities.due(at(220)).len() == 1);
        let mut revoked = renewed.clone();
        revoked.issuance.as_mut().unwrap().revoke(RevocationReason::Unspecified, at(170)).unwrap();
        authorities.note(Some(&renewed), Some(&revoked));
        assert!(authorities.due(at(999)).is_empty());
        let unattended = ManagedCertificate {
            issuance: first.issuance.clone().map(|own| Box::new(Issuance { auto_renew: false, ..*own })),
            ..first
        };
        authorities.note(None, Some(&unattended));
        assert!(authorities.due(at(999)).is_empty());
    }
}
