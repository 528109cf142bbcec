//! Orders with their authorizations and challenges (RFC 8555 §7.1.3 to §7.1.5). All of an order is one record: what is shown for it is shown for
//! it alone, and each change of it is one write. How they change is in `settle`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{AltName, ChallengeKind, Outcome, Problem, ProblemKind, offered};
use crate::error::Result;
use crate::id::{AcmeAccountId, AcmeOrderId, CertificateId};
use crate::limit;
use crate::time::Timestamp;

/// How long an order waits for its proofs, and for its request.
const OPEN_FOR: Duration = Duration::from_secs(24 * 3_600);
/// How long an order is kept once nothing more comes of it.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where an order stands (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderStatus {
    /// Proofs are missing.
    #[serde(rename = "pending")]
    Pending,
    /// All names are shown held; the request may come.
    #[serde(rename = "ready")]
    Ready,
    /// The certificate is being issued.
    #[serde(rename = "processing")]
    Processing,
    /// The certificate is there.
    #[serde(rename = "valid")]
    Valid,
    /// Nothing comes of it.
    #[serde(rename = "invalid")]
    Invalid,
}

/// Where an authorization stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorizationStatus {
    /// A proof is missing.
    #[serde(rename = "pending")]
    Pending,
    /// The name is shown held.
    #[serde(rename = "valid")]
    Valid,
    /// It was not shown.
    #[serde(rename = "invalid")]
    Invalid,
    /// Its holder has given it up.
    #[serde(rename = "deactivated")]
    Deactivated,
    /// Its time is over.
    #[serde(rename = "expired")]
    Expired,
}

/// Where a challenge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeStatus {
    /// Its holder has not said that the proof is there.
    #[serde(rename = "pending")]
    Pending,
    /// The proof is looked for.
    #[serde(rename = "processing")]
    Processing,
    /// It was found.
    #[serde(rename = "valid")]
    Valid,
    /// It was not.
    #[serde(rename = "invalid")]
    Invalid,
}

/// One way to show that a name is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Which.
    pub kind: ChallengeKind,
    /// Where it stands.
    pub status: ChallengeStatus,
    /// What the proof names: random, of this challenge alone.
    pub token: String,
    /// When the proof was found.
    pub validated: Option<Timestamp>,
    /// How often it was looked for.
    pub attempts: u32,
    /// Why it was not found, the last time.
    pub problem: Option<Problem>,
}

/// A name, and what is shown of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// The name.
    pub name: AltName,
    /// Where it stands.
    pub status: AuthorizationStatus,
    /// The ways; one is enough.
    pub challenges: Vec<Challenge>,
}

/// The certificate of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Which.
    pub certificate: CertificateId,
    /// Until when it is good.
    pub not_after: Timestamp,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The id.
    pub id: AcmeOrderId,
    /// Whose it is.
    pub account: AcmeAccountId,
    /// Where it stands.
    pub status: OrderStatus,
    /// When it was placed.
    pub created: Timestamp,
    /// Until when it waits; its authorizations, too.
    pub expires: Timestamp,
    /// Its names, each once, in their order.
    pub authorizations: Vec<Authorization>,
    /// Why nothing comes of it.
    pub problem: Option<Problem>,
    /// The certificate.
    pub issued: Option<Issued>,
}

/// Makes a token of random bytes: 256 bits, in the alphabet that a file's name has (RFC 8555 §8.3).
pub fn token(random: [u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

impl Order {
    /// Places an order; `draw` gives random bytes, for a token each.
    ///
    /// # Errors
    /// `Malformed` for no names, a name twice, or too many; `RejectedIdentifier` for a name that none of the challenges
    /// shows. What `draw` says.
    pub fn place(
        id: AcmeOrderId,
        account: AcmeAccountId,
        mut names: Vec<AltName>,
        can: &[ChallengeKind],
        now: Timestamp,
        draw: &mut dyn FnMut() -> Result<[u8; 32]>,
    ) -> Outcome<Self> {
        let malformed = |why: String| Err(Problem::new(ProblemKind::Malformed, why));
        if names.is_empty() || names.len() > limit::ACME_IDENTIFIERS {
            let most = limit::ACME_IDENTIFIERS;
            return malformed(format!("an order has 1 to {most} identifiers, not {}", names.len()));
        }
        names.sort();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            return malformed(format!("{} is named twice", twice[0]));
        }
        let none = |name: &&AltName| offered(name, can).is_empty();
        let unshown = names.iter().filter(none).map(|name| {
            let why = format!("this server has no challenge by which {name} could be shown held");
            Problem::new(ProblemKind::RejectedIdentifier, why).of(name)
        });
        if let Some(problem) = Problem::all(unshown.collect()) {
            return Err(problem);
        }
        let mut authorizations = Vec::with_capacity(names.len());
        for name in names {
            let mut challenges = Vec::new();
            for kind in offered(&name, can) {
                challenges.push(Challenge::new(kind, token(draw()?)));
            }
            authorizations.push(Authorization { name, status: AuthorizationStatus::Pending, challenges });
        }
        Ok(Self {
            id,
            account,
            status: OrderStatus::Pending,
            created: now,
            expires: now.plus(OPEN_FOR),
            authorizations,
            problem: None,
            issued: None,
        })
    }

    /// Tells whether something may still come of it.
    pub fn is_open(&self) -> bool {
        matches!(self.status, OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing)
    }

    /// Returns its names.
    pub fn names(&self) -> impl Iterator<Item = &AltName> {
        self.authorizations.iter().map(|authorization| &authorization.name)
    }

    /// Returns until when it is kept: while it is open, and a while more; where there is a certificate, until that is over as well, since its
    /// account may revoke it.
    pub fn kept_until(&self) -> Timestamp {
        let closed = self.expires.plus(KEPT_FOR);
        self.issued.as_ref().map_or(closed, |issued| closed.max(issued.not_after))
    }
}

impl Challenge {
    fn new(kind: ChallengeKind, token: String) -> Self {
        Self { kind, status: ChallengeStatus::Pending, token, validated: None, attempts: 0, problem: None }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::acme) const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    pub(in crate::acme) fn placed(names: &[&str]) -> Outcome<Order> {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut next = 0u8;
        let mut draw = || {
            next += 1;
            Ok([next; 32])
        };
        let (id, account) = (AcmeOrderId::from_random([1; 16]), AcmeAccountId::from_random([2; 16]));
        Order::place(id, account, names, &ChallengeKind::ALL, NOW, &mut draw)
    }

    #[test]
    fn an_order_has_each_name_once_and_a_token_for_each_challenge() {
        let order = placed(&["b.example", "a.example", "*.a.example", "10.0.0.1"]).unwrap();
        let names: Vec<_> = order.names().map(ToString::to_string).collect();
        assert_eq!(names, ["DNS:*.a.example", "DNS:a.example", "DNS:b.example", "IP:10.0.0.1"]);
        let tokens: Vec<_> =
            order.authorizations.iter().flat_map(|a| &a.challenges).map(|c| &c.token).collect();
        assert_eq!(tokens.len(), 1 + 2 + 2 + 1);
        assert!(tokens.iter().all(|token| token.len() == 43 && !token.contains(['+', '/', '='])));
        assert!(tokens.windows(2).all(|two| two[0] != two[1]));
        assert_eq!((order.status, order.expires), (OrderStatus::Pending, NOW.plus(OPEN_FOR)));
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let order = placed(&["a.example", "10.0.0.1"]).unwrap();
        let written = rmp_serde::to_vec_named(&order).unwrap();
        assert_eq!(rmp_serde::from_slice::<Order>(&written).unwrap(), order);
    }

    #[test]
    fn odd_orders_are_refused_with_what_is_wrong() {
        let many: Vec<_> = (0..101).map(|n| format!("a{n}.example")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for (names, told) in [
            (&[][..], "1 to 100"),
            (&["a.example", "A.example"], "twice"),
            (&many, "1 to 100"),
            (&["email:a@b.example"], "no challenge"),
        ] {
            let problem = placed(names).unwrap_err();
            assert!(problem.detail.contains(told), "{problem}");
        }
        let problem = placed(&["email:a@b.example", "URI:urn:x", "a.example"]).unwrap_err();
        assert_eq!((problem.kind, problem.each.len()), (ProblemKind::RejectedIdentifier, 2));
    }

    #[test]
    fn an_order_is_kept_for_as_long_as_its_certificate_may_be_revoked() {
        let mut order = placed(&["a.example"]).unwrap();
        assert_eq!(order.kept_until(), order.expires.plus(KEPT_FOR));
        let year = NOW.plus(Duration::from_secs(365 * 86_400));
        order.issued = Some(Issued { certificate: CertificateId::from_bytes([3; 16]), not_after: year });
        assert_eq!(order.kept_until(), year);
        order.issued = Some(Issued { certificate: CertificateId::from_bytes([3; 16]), not_after: NOW });
        assert_eq!(order.kept_until(), order.expires.plus(KEPT_FOR));
    }
}
