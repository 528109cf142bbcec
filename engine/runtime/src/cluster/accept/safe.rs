//! What a record that went back comes to. It may give what was taken away since: so whatever can be switched off comes back switched off, for somebody to
//! look at and switch on again, and nothing is destroyed for it.
//!
//! What has no such state comes back as it stands, which the README tells: an alias, a managed data key, an import, a list of what was revoked, the terms
//! of an instance, and the policy of a key or a secret.

use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::access::{AccessKey, AccessKeyStatus};
use keymill_core::acme::{Account, AccountStatus};
use keymill_core::certificate::{Authority, AuthorityState, CertificateStatus, ManagedCertificate};
use keymill_core::instance::Instance;
use keymill_core::key::{Cmk, KeyState};
use keymill_core::limit;
use keymill_core::seam::store::Path;
use keymill_core::secret::Secret;
use keymill_core::time::Timestamp;
use keymill_crypto::payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::records::{self, EndedRecord, InvocationsRecord, Kind};

/// Reservations that other nodes may have made which this one had not heard of.
const UNHEARD: u64 = 16;
/// How long a secret waits at least for somebody to bring it back: nobody is to lose one by not looking.
const WAITS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a record comes to.
pub(super) struct Anew {
    pub(super) kind: u8,
    pub(super) payload: Sensitive,
}

impl Anew {
    /// Encodes it.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub(super) fn of<T: Serialize>(kind: Kind, record: &T) -> Result<Self, String> {
        let payload = payload::encode(record).map_err(|error| error.to_string())?;
        Ok(Self { kind: kind as u8, payload })
    }

    /// Says that a record has ended.
    ///
    /// # Errors
    /// As of [`of`](Self::of).
    pub(super) fn end(at: Timestamp, name: Option<Box<str>>) -> Result<Self, String> {
        Self::of(Kind::Ended, &EndedRecord { at, name })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.kind == Kind::Ended as u8
    }

    /// Returns what the payload of a record comes to that names no others. Of a count, `writes` are lost; an access key that `is_spared` stays active.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn safe(kind: u8, payload: Sensitive, writes: u64, is_spared: bool) -> Result<Self, String> {
        let kinds = [
            Kind::Cmk,
            Kind::AccessKey,
            Kind::Invocations,
            Kind::Authority,
            Kind::Instance,
            Kind::AcmeAccount,
        ];
        match kinds.into_iter().find(|one| *one as u8 == kind) {
            Some(Kind::Cmk) => Self::of(Kind::Cmk, &key(decoded(&payload)?)),
            Some(Kind::AccessKey) if !is_spared => {
                let key: AccessKey = decoded(&payload)?;
                Self::of(Kind::AccessKey, &AccessKey { status: AccessKeyStatus::Inactive, ..key })
            }
            Some(Kind::Invocations) => Self::of(Kind::Invocations, &counts(decoded(&payload)?, writes)),
            Some(Kind::Authority) => Self::of(Kind::Authority, &authority(decoded(&payload)?)),
            Some(Kind::Instance) => Self::of(Kind::Instance, &instance(decoded(&payload)?)),
            Some(Kind::AcmeAccount) => Self::of(Kind::AcmeAccount, &account(decoded(&payload)?)),
            _ => Ok(Self { kind, payload }),
        }
    }

    /// Returns what stands where the counts of a key are missing: the most that can have been counted in so many writes.
    ///
    /// # Errors
    /// As of [`of`](Self::of).
    pub(super) fn most(cmk: &Cmk, writes: u64) -> Result<Self, String> {
        let most = raise(0, reserved_in(writes));
        let rows = cmk.versions.iter().map(|version| (version.number, most)).collect();
        Self::of(Kind::Invocations, &InvocationsRecord(rows))
    }
}

fn decoded<T: DeserializeOwned>(payload: &Sensitive) -> Result<T, String> {
    payload::decode(payload).map_err(|error| error.to_string())
}

/// Tells whether a record ends that went back: it says who may do what, which may have been narrowed, and is none of an access key itself.
pub(super) fn gives_rights(path: &Path) -> bool {
    let kind = path.as_str().split('/').next().unwrap_or_default();
    records::is_of_access(path.as_str()) && !["access-key", "access-epoch"].contains(&kind)
}

/// Returns a key as it comes back: it is used again, or deleted, by somebody's word alone.
fn key(cmk: Cmk) -> Cmk {
    match cmk.state {
        // That of a certificate is led to by the certificate alone, and has no state of its own.
        _ if cmk.certificate.is_some() => cmk,
        KeyState::PendingImport => cmk,
        _ => Cmk { state: KeyState::Disabled, delete_at: None, ..cmk },
    }
}

/// Returns a secret as it comes back: nobody reads or changes it until it is restored, as one that waits for its deletion; and that is far away.
pub(super) fn secret(secret: Secret, now: Timestamp) -> Secret {
    Secret { delete_at: secret.delete_at.max(Some(now.plus(WAITS))), ..secret }
}

/// Returns a certificate as it comes back: what was not revoked may have been since.
pub(super) fn certificate(certificate: ManagedCertificate) -> ManagedCertificate {
    match certificate.status {
        CertificateStatus::Active => {
            ManagedCertificate { status: CertificateStatus::Inactive, ..certificate }
        }
        CertificateStatus::Pending | CertificateStatus::Inactive | CertificateStatus::Revoked => certificate,
    }
}

fn authority(authority: Authority) -> Authority {
    match authority.state {
        AuthorityState::Enabled => Authority { state: AuthorityState::Disabled, ..authority },
        AuthorityState::Pending | AuthorityState::Disabled | AuthorityState::Revoked => authority,
    }
}

/// Returns an instance as it comes back: reached from no network until it is bound again.
fn instance(instance: Instance) -> Instance {
    Instance { connection: None, bound: Vec::new(), ..instance }
}

/// Returns an account of ACME as it comes back: its holder may have ended it, or given it another key; another is made by the same binding.
fn account(account: Account) -> Account {
    match account.status {
        AccountStatus::Valid => Account { status: AccountStatus::Revoked, ..account },
        AccountStatus::Deactivated | AccountStatus::Revoked => account,
    }
}

fn counts(InvocationsRecord(rows): InvocationsRecord, writes: u64) -> InvocationsRecord {
    let more = reserved_in(writes);
    InvocationsRecord(rows.into_iter().map(|(version, count)| (version, raise(count, more))).collect())
}

/// Returns how many messages so many writes of a count can have reserved, with what was not heard of.
fn reserved_in(writes: u64) -> u64 {
    writes.saturating_add(UNHEARD).saturating_mul(limit::RESERVED_INVOCATIONS)
}

fn raise(count: u64, more: u64) -> u64 {
    count.saturating_add(more).min(limit::MAX_INVOCATIONS)
}

#[cfg(test)]
mod tests;
