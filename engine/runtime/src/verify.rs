//! What `audit verify --store` compares: the heads that the store remembers of the audit chains, and each stored record against
//! its seal and against what the audit says of it. It changes nothing, and no engine may run on the store meanwhile.

use std::collections::BTreeSet;

use keymill_core::id::NodeName;
use keymill_core::seam::store::{Entry, Store, StoreError};
use keymill_crypto::audit::{ChainHead, Stamps};
use keymill_crypto::record::RecordSealer;

use crate::load::{Judgement, all, judge, judge_end};
use crate::records::{self, Kind};

/// The kinds of records by the prefix of their paths, and whether the audit remembers each write of them.
const KINDS: [(&str, Kind, bool); 30] = [
    ("aap/", Kind::Aap, true),
    ("access-epoch/", Kind::AccessEpoch, true),
    ("access-key/", Kind::AccessKey, true),
    ("acme-account/", Kind::AcmeAccount, true),
    ("acme-order/", Kind::AcmeOrder, true),
    ("alias/", Kind::Alias, true),
    ("approval/", Kind::Approval, true),
    ("audit-head/", Kind::AuditHead, false),
    ("authority/", Kind::Authority, true),
    ("certificate/", Kind::Certificate, true),
    ("certificate-body/", Kind::CertificateBody, true),
    ("client-key/", Kind::ClientKey, true),
    ("cmk/", Kind::Cmk, true),
    ("crl/", Kind::Crl, true),
    ("data-key/", Kind::DataKey, true),
    ("history", Kind::History, false),
    ("import/", Kind::Import, true),
    ("instance/", Kind::Instance, true),
    ("installation", Kind::Installation, false),
    ("invocations/", Kind::Invocations, true),
    ("material/", Kind::Material, true),
    ("network-rule/", Kind::NetworkRule, true),
    // Written anew all the time, and of use to those alone who are there.
    ("node/", Kind::Node, false),
    // Gone within hours: the lines that remembered them would outlive them for ever.
    ("nonce/", Kind::Nonce, false),
    ("policy/", Kind::Policy, true),
    ("role/", Kind::Role, true),
    ("secret/", Kind::Secret, true),
    ("secret-value/", Kind::SecretValue, true),
    ("usage/", Kind::Usage, false),
    // Each is for its own node's next start.
    ("witness/", Kind::Witness, false),
];

/// What is to be said of a stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its path.
    pub path: String,
    /// What is the matter.
    pub why: String,
    /// Whether it is wrong; else it is newer than the audit, which a crash before its acknowledgement explains.
    pub is_wrong: bool,
}

/// Reads the heads of audit chains that the store remembers: of one node's, in a cluster. One that does not open is left out: [`compare`] names it.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub fn heads(
    store: &dyn Store,
    sealer: &RecordSealer,
    node: Option<&NodeName>,
) -> Result<Vec<ChainHead>, StoreError> {
    let entries = all(store, records::audit_heads(node).as_str())?;
    let open = |entry: &Entry| records::open(sealer, &entry.path, Kind::AuditHead, &entry.value).ok();
    Ok(entries.iter().filter_map(open).map(|(head, ..)| head).collect())
}

/// Compares every stored record with its seal and with what the audit remembers of it, in the order of their paths. Returns how
/// many there are, and the findings.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub fn compare(
    store: &dyn Store,
    sealer: &RecordSealer,
    remembered: &Stamps,
) -> Result<(u64, Vec<Finding>), StoreError> {
    let (mut records, mut findings) = (0, Vec::new());
    let written = remembered.iter().filter(|stamp| !stamp.tag.is_empty());
    let mut missing: BTreeSet<String> = written.map(|stamp| stamp.path).collect();
    for (prefix, kind, is_remembered) in KINDS {
        for entry in all(store, prefix)? {
            records += 1;
            missing.remove(entry.path.as_str());
            let has_ended = records::says_ended(&entry.value);
            let kind = if has_ended { Kind::Ended } else { kind };
            let opened = match sealer.open(entry.path.as_str(), kind as u8, &entry.value) {
                Ok(opened) => opened,
                Err(error) => {
                    findings.push(wrong(&entry, error.to_string()));
                    continue;
                }
            };
            if !is_remembered {
                continue;
            }
            let stamp = remembered.get(entry.path.as_str());
            let judged = match has_ended {
                true => judge_end(stamp, opened.sequence),
                false => judge(stamp, opened.sequence, &opened.tag),
            };
            match judged {
                Judgement::Fine => {}
                Judgement::Unrecorded => findings.push(Finding {
                    path: entry.path.to_string(),
                    why: "newer than the audit log says: a crash came between the two, and nobody was told that it was done; \
                          or another node wrote it"
                        .to_owned(),
                    is_wrong: false,
                }),
                Judgement::Rejected(why) => findings.push(wrong(&entry, why.to_owned())),
            }
        }
    }
    findings.extend(missing.into_iter().map(|path| Finding {
        path,
        why: "the record is missing, though the audit log says that it was written".to_owned(),
        is_wrong: true,
    }));
    findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((records, findings))
}

fn wrong(entry: &Entry, why: String) -> Finding {
    Finding { path: entry.path.to_string(), why, is_wrong: true }
}
