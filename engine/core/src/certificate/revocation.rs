//! Revocation: for what reason, what a list of it holds, and how a question about one certificate is answered. Revocation is for good here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::issue::BACK;
use super::{AltName, DistinguishedName, Serial, Validity};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AapName, AccessKeyId, AuthorityName, ProfileName};
use crate::time::Timestamp;

/// Why a certificate was revoked (RFC 5280 §5.3.1). A hold is none of them: it could be lifted, and what was signed meanwhile would be valid again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RevocationReason {
    /// It is not said why.
    #[default]
    Unspecified,
    /// Somebody else has, or may have, its key.
    KeyCompromise,
    /// The same of an authority's.
    CaCompromise,
    /// What it says of whose it is is not so any more.
    AffiliationChanged,
    /// Another has taken its place.
    Superseded,
    /// What it was for is no more.
    CessationOfOperation,
    /// What it allowed is not allowed any more.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [RevocationReason; 7] = [
        RevocationReason::Unspecified,
        RevocationReason::KeyCompromise,
        RevocationReason::CaCompromise,
        RevocationReason::AffiliationChanged,
        RevocationReason::Superseded,
        RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn,
    ];

    /// Returns the number of `CRLReason`.
    pub fn code(self) -> u8 {
        match self {
            RevocationReason::Unspecified => 0,
            RevocationReason::KeyCompromise => 1,
            RevocationReason::CaCompromise => 2,
            RevocationReason::AffiliationChanged => 3,
            RevocationReason::Superseded => 4,
            RevocationReason::CessationOfOperation => 5,
            RevocationReason::PrivilegeWithdrawn => 9,
        }
    }

    /// Returns the reason of a number, as ACME names it (RFC 8555 §7.6).
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// That a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
}

impl Revocation {
    /// Returns one that is made now; whole seconds are what a list can say.
    pub fn new(reason: RevocationReason, now: Timestamp) -> Self {
        Self { at: Timestamp::from_ms(now.as_s() * 1_000), reason }
    }
}

/// A certificate that an authority issued, by its serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedSerial {
    /// The number.
    pub serial: Serial,
    /// From when to when it is valid.
    pub validity: Validity,
    /// That it was revoked, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

/// How a certificate came to be that an authority of this server's issued, and what became of it. It is renewed in its place: the record stays, and
/// what was issued before is told by its serial number as long as it could be taken for valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuance {
    /// The authority.
    pub authority: AuthorityName,
    /// The profile; none of the certificate of an authority that was made as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Whose it is.
    pub subject: DistinguishedName,
    /// What it is for.
    pub alt_names: Vec<AltName>,
    /// How long it was asked for to be valid.
    pub validity_days: u32,
    /// Whether it is renewed ahead of its end by itself.
    pub auto_renew: bool,
    /// Who asked for it.
    pub asked_by: AccessKeyId,
    /// The access point of that, where it was of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_point: Option<AapName>,
    /// What was issued, the newest last; there is one at least.
    pub serials: Vec<IssuedSerial>,
}

/// The most certificates of one record that are valid at a time.
const SERIALS: usize = 16;
/// How long what has ended is still told of: the list after its end names it once more (RFC 5280 §3.3).
const AFTER: Duration = Duration::from_secs(7 * 86_400);

impl Issuance {
    /// Returns the newest.
    pub fn newest(&self) -> Option<&IssuedSerial> {
        self.serials.last()
    }

    /// Returns until when its authority answers for it, and for those before it.
    pub fn told_until(&self) -> Option<Timestamp> {
        self.serials.iter().map(|issued| issued.validity.not_after.plus(AFTER)).max()
    }

    /// Tells when it was revoked, and why, where it was: as the whole. One before the newest may be revoked alone.
    pub fn revocation(&self) -> Option<Revocation> {
        self.newest().and_then(|newest| newest.revocation)
    }

    /// Puts a newer one in its place.
    ///
    /// # Errors
    /// `StateConflict` where it is revoked, or so many are valid already that another would be for nothing.
    pub fn renew(&mut self, serial: Serial, validity: Validity, now: Timestamp) -> Result<()> {
        if self.revocation().is_some() {
            return Err(Error::new(ErrorKind::StateConflict, "the certificate is revoked"));
        }
        self.serials.retain(|issued| issued.validity.not_after.plus(AFTER) >= now);
        if self.serials.len() >= SERIALS {
            let why = format!("{SERIALS} certificates of it are valid already, or were until a few days ago");
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        self.serials.push(IssuedSerial { serial, validity, revocation: None });
        Ok(())
    }

    /// Revokes it, with all that were issued before it and have not ended. Where it is revoked already it stays as it is.
    ///
    /// # Errors
    /// `StateConflict` where all of it has ended: no list would name it.
    pub fn revoke(&mut self, reason: RevocationReason, now: Timestamp) -> Result<()> {
        if self.revocation().is_some() {
            return Ok(());
        }
        if self.serials.iter().all(|issued| issued.validity.not_after < now) {
            return Err(has_ended());
        }
        let revocation = Revocation::new(reason, now);
        for issued in self.serials.iter_mut().filter(|issued| issued.validity.not_after >= now) {
            issued.revocation.get_or_insert(revocation);
        }
        // The newest says so for the whole, also where a shorter one ended before the one that it took the place of.
        if let Some(newest) = self.serials.last_mut() {
            newest.revocation.get_or_insert(revocation);
        }
        Ok(())
    }

    /// Revokes what was issued under one number: of the newest, the whole; of one before it, that one alone. Returns how it is revoked now.
    ///
    /// # Errors
    /// `ResourceNotFound` where it is none of it, `StateConflict` where it has ended: no list would name it.
    pub fn revoke_serial(
        &mut self,
        serial: &Serial,
        reason: RevocationReason,
        now: Timestamp,
    ) -> Result<Revocation> {
        if self.is_newest(serial) {
            self.revoke(reason, now)?;
        }
        let mut all = self.serials.iter_mut();
        let issued = all.find(|issued| issued.serial == *serial).ok_or_else(Error::certificate_not_found)?;
        if issued.revocation.is_none() && issued.validity.not_after < now {
            return Err(has_ended());
        }
        Ok(*issued.revocation.get_or_insert(Revocation::new(reason, now)))
    }

    /// Tells whether a number is of the newest.
    pub fn is_newest(&self, serial: &Serial) -> bool {
        self.newest().is_some_and(|newest| newest.serial == *serial)
    }

    /// Tells how a number of it was revoked, where it was.
    pub fn revocation_of(&self, serial: &Serial) -> Option<Revocation> {
        self.serials.iter().find(|issued| issued.serial == *serial)?.revocation
    }
}

fn has_ended() -> Error {
    Error::new(ErrorKind::StateConflict, "the certificate has ended, and no list would name it")
}

/// Returns when what is signed now begins: a little back, for clocks that are behind, and in whole seconds.
pub fn begins(now: Timestamp) -> Timestamp {
    Timestamp::from_ms(now.minus(BACK).as_s() * 1_000)
}

/// A list of what was revoked, as it is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number: strictly greater than of any before.
    pub number: u64,
    /// When it was made, a little back for clocks that are behind.
    pub this_update: Timestamp,
    /// When the next one is there at the latest.
    pub next_update: Timestamp,
}

impl Listed {
    /// Returns what comes after a list. Its number is of the clock where that is greater, in milliseconds, in which more than one is not signed:
    /// where the list before is not known any more, it grows all the same (RFC 5280 §5.2.3).
    pub fn next(before: Option<&Listed>, now: Timestamp, hours: u32) -> Self {
        let after = before.map_or(1, |before| before.number.saturating_add(1));
        Self {
            number: after.max(now.as_ms()),
            this_update: begins(now),
            next_update: Timestamp::from_ms(now.as_s() * 1_000)
                .plus(Duration::from_secs(u64::from(hours) * 3_600)),
        }
    }

    /// Tells whether another is due: where half of its time is over, so that a failure or two leave time for more.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now.since(self.this_update) * 2 >= self.next_update.since(self.this_update)
    }
}

/// Tells whether the list made now names a certificate: it was revoked, and had not ended when the list before this was made.
pub fn is_listed(issued: &IssuedSerial, before: Option<&Listed>, now: Timestamp) -> bool {
    let since = before.map_or(now, |before| before.this_update.min(now));
    issued.revocation.is_some() && issued.validity.not_after >= since
}

/// How a question about a certificate is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was issued here, and not revoked.
    Good,
    /// It was revoked.
    Revoked(Revocation),
    /// Nothing is known of it: nothing is signed for that, so that strangers with made-up numbers cost nothing (RFC 5019 §2.2.3).
    Unknown,
}

impl Answer {
    /// Returns the answer about what is known of a serial number.
    pub fn of(issued: Option<&IssuedSerial>) -> Self {
        match issued {
            None => Answer::Unknown,
            Some(IssuedSerial { revocation: None, .. }) => Answer::Good,
            Some(IssuedSerial { revocation: Some(revocation), .. }) => Answer::Revoked(*revocation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn day(n: u32) -> Timestamp {
        Timestamp::from_ms(1_000_000_000_000).plus(DAY * n)
    }

    fn serial(n: u8) -> Serial {
        Serial::from_random([n; 16])
    }

    fn issuance() -> Issuance {
        Issuance {
            authority: "issuing".parse().unwrap(),
            profile: Some("server".parse().unwrap()),
            subject: DistinguishedName::parse("CN=a.example").unwrap(),
            alt_names: vec!["a.example".parse().unwrap()],
            validity_days: 90,
            auto_renew: true,
            asked_by: "KMAK00000001".parse().unwrap(),
            access_point: None,
            serials: vec![IssuedSerial { serial: serial(1), validity: valid(0), revocation: None }],
        }
    }

    fn valid(from: u32) -> Validity {
        Validity { not_before: day(from), not_after: day(from + 90) }
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::of_code(reason.code()), Some(reason));
        }
        // Hold, none, removal from a list.
        assert!([6, 7, 8, 10, 11].iter().all(|code| RevocationReason::of_code(*code).is_none()));
    }

    #[test]
    fn revoking_takes_all_that_are_valid_and_is_for_good() {
        let mut own = issuance();
        own.renew(serial(2), valid(60), day(60)).unwrap();
        own.revoke(RevocationReason::KeyCompromise, day(70)).unwrap();
        let first = Revocation { at: day(70), reason: RevocationReason::KeyCompromise };
        assert!(own.serials.iter().all(|issued| issued.revocation == Some(first)));
        own.revoke(RevocationReason::Superseded, day(71)).unwrap();
        assert_eq!(own.revocation(), Some(first));
        assert!(own.renew(serial(3), valid(80), day(80)).is_err());
    }

    #[test]
    fn what_has_ended_is_not_revoked_and_leaves_the_record_in_time() {
        let mut own = issuance();
        assert_eq!(
            own.revoke(RevocationReason::Unspecified, day(91)).unwrap_err().kind(),
            ErrorKind::StateConflict
        );
        own.renew(serial(2), valid(60), day(60)).unwrap();
        own.revoke(RevocationReason::Unspecified, day(100)).unwrap();
        assert_eq!(own.serials[0].revocation, None);
        assert!(own.revoke_serial(&serial(1), RevocationReason::Unspecified, day(100)).is_err());
        assert!(own.revoke_serial(&serial(9), RevocationReason::Unspecified, day(100)).is_err());
        let mut own = issuance();
        own.renew(serial(2), valid(98), day(98)).unwrap();
        assert_eq!(own.serials.len(), 1);
        assert_eq!(own.newest().unwrap().serial, serial(2));
        for n in 3..=17 {
            own.renew(serial(n), valid(98), day(98)).unwrap();
        }
        assert!(own.renew(serial(18), valid(98), day(98)).unwrap_err().message().contains("16 certificates"));
    }

    #[test]
    fn one_whose_shorter_renewal_has_ended_is_revoked_still() {
        let mut own = issuance();
        own.renew(serial(2), Validity { not_before: day(10), not_after: day(20) }, day(10)).unwrap();
        own.revoke(RevocationReason::KeyCompromise, day(30)).unwrap();
        let told = Some(Revocation { at: day(30), reason: RevocationReason::KeyCompromise });
        assert_eq!((own.revocation_of(&serial(1)), own.revocation()), (told, told));
        assert!(own.renew(serial(3), valid(30), day(30)).is_err());
        let mut own = issuance();
        own.renew(serial(2), Validity { not_before: day(10), not_after: day(20) }, day(10)).unwrap();
        assert!(own.revoke(RevocationReason::KeyCompromise, day(91)).is_err());
        assert_eq!(own.revocation(), None);
    }

    #[test]
    fn one_before_the_newest_is_revoked_alone_and_the_newest_with_all() {
        let mut own = issuance();
        own.renew(serial(2), valid(60), day(60)).unwrap();
        let first = own.revoke_serial(&serial(1), RevocationReason::Superseded, day(70)).unwrap();
        assert_eq!(first, Revocation { at: day(70), reason: RevocationReason::Superseded });
        assert_eq!((own.revocation(), own.revocation_of(&serial(2))), (None, None));
        // Once more it stays as it is.
        let again = own.revoke_serial(&serial(1), RevocationReason::KeyCompromise, day(71)).unwrap();
        assert_eq!(again, first);
        own.renew(serial(3), valid(72), day(72)).unwrap();
        own.revoke_serial(&serial(3), RevocationReason::KeyCompromise, day(73)).unwrap();
        assert_eq!(own.revocation_of(&serial(1)), Some(first));
        assert_eq!(own.revocation_of(&serial(2)), own.revocation());
        assert!(own.revocation().is_some());
    }

    #[test]
    fn a_list_names_what_was_revoked_until_one_after_its_end_did() {
        let revoked = IssuedSerial {
            revocation: Some(Revocation { at: day(10), reason: RevocationReason::Unspecified }),
            ..issuance().serials[0]
        };
        let list = |at| Listed { number: 7, this_update: at, next_update: at.plus(DAY) };
        assert!(is_listed(&revoked, None, day(20)));
        assert!(is_listed(&revoked, Some(&list(day(89))), day(91)));
        assert!(!is_listed(&revoked, Some(&list(day(91))), day(92)));
        assert!(!is_listed(&revoked, None, day(91)));
        assert!(!is_listed(&issuance().serials[0], None, day(20)));
    }

    #[test]
    fn numbers_of_lists_grow_and_the_next_is_due_at_half_time() {
        let first = Listed::next(None, day(1).plus(Duration::from_millis(1)), 24);
        let number = day(1).as_ms() + 1;
        assert_eq!(first, Listed { number, this_update: day(1).minus(BACK), next_update: day(2) });
        assert!(!first.is_due(day(1)) && !first.is_due(day(1).plus(DAY / 2 - BACK)));
        assert!(first.is_due(day(1).plus(DAY / 2)) && first.is_due(day(9)));
        // Also where a clock was set back, and where the one before is not known any more.
        assert_eq!(Listed::next(Some(&first), day(1), 24).number, number + 1);
        assert!(Listed::next(None, day(2), 24).number > number + 1);
    }

    #[test]
    fn a_question_is_answered_by_what_is_known_of_the_number() {
        let mut own = issuance();
        assert_eq!(Answer::of(None), Answer::Unknown);
        assert_eq!(Answer::of(own.newest()), Answer::Good);
        own.revoke(RevocationReason::Superseded, day(1)).unwrap();
        let told = Revocation { at: day(1), reason: RevocationReason::Superseded };
        assert_eq!(Answer::of(own.newest()), Answer::Revoked(told));
    }
}
