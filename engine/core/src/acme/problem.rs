//! What can be wrong with a request or a challenge, as RFC 8555 §6.7 names it. Statuses of HTTP are the dialect's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AltName;
use crate::error::{Error, ErrorClass, ErrorKind};

/// A result whose error is a [`Problem`].
pub type Outcome<T> = std::result::Result<T, Problem>;

/// Characters of a detail, at most.
const DETAIL_CHARACTERS: usize = 512;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Each type of problem behind `urn:ietf:params:acme:error:`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ProblemKind {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ProblemKind {
            /// Every kind.
            pub const ALL: &'static [ProblemKind] = &[$(ProblemKind::$name),*];

            /// Returns its name behind `urn:ietf:params:acme:error:`.
            pub fn name(self) -> &'static str {
                match self { $(ProblemKind::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// The account does not exist.
    AccountDoesNotExist = "accountDoesNotExist",
    /// The certificate is revoked already.
    AlreadyRevoked = "alreadyRevoked",
    /// The request for the certificate is not acceptable.
    BadCsr = "badCSR",
    /// The nonce is none of ours, or was used.
    BadNonce = "badNonce",
    /// The key is none that is taken.
    BadPublicKey = "badPublicKey",
    /// The reason of a revocation is none that may be given.
    BadRevocationReason = "badRevocationReason",
    /// The algorithm is none that is taken.
    BadSignatureAlgorithm = "badSignatureAlgorithm",
    /// Several things are wrong, each told below.
    Compound = "compound",
    /// The place to be validated was not reached.
    Connection = "connection",
    /// A name was not looked up.
    Dns = "dns",
    /// The account must be bound to an access point.
    ExternalAccountRequired = "externalAccountRequired",
    /// What was found is not what the challenge asks for.
    IncorrectResponse = "incorrectResponse",
    /// A contact is malformed.
    InvalidContact = "invalidContact",
    /// The request is malformed.
    Malformed = "malformed",
    /// The order cannot be finalized as it stands.
    OrderNotReady = "orderNotReady",
    /// Too much is asked for.
    RateLimited = "rateLimited",
    /// No certificate is issued for the name.
    RejectedIdentifier = "rejectedIdentifier",
    /// A fault of ours.
    ServerInternal = "serverInternal",
    /// The caller may not.
    Unauthorized = "unauthorized",
    /// Contacts of that kind are not taken.
    UnsupportedContact = "unsupportedContact",
    /// Names of that kind are not taken.
    UnsupportedIdentifier = "unsupportedIdentifier",
}

/// What is wrong, for the caller to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The type.
    pub kind: ProblemKind,
    /// What it is, in one line.
    pub detail: String,
    /// The name that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<AltName>,
    /// What is wrong with each of several names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<Problem>,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// Makes a problem. Control characters are left out, and what is too long is cut.
    pub fn new(kind: ProblemKind, detail: impl AsRef<str>) -> Self {
        let detail = detail.as_ref().chars().filter(|c| !c.is_control()).take(DETAIL_CHARACTERS).collect();
        Self { kind, detail, name: None, each: Vec::new(), retry_after_s: None }
    }

    /// Says which name it is about.
    pub fn of(mut self, name: &AltName) -> Self {
        self.name = Some(name.clone());
        self
    }

    /// Says after how many seconds a retry makes sense.
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Makes one of several; of one alone that one.
    pub fn all(mut each: Vec<Problem>) -> Option<Self> {
        if each.len() < 2 {
            return each.pop();
        }
        let same = each.iter().all(|problem| problem.kind == each[0].kind);
        let kind = if same { each[0].kind } else { ProblemKind::Compound };
        let detail = format!("{} names are not acceptable", each.len());
        Some(Self { each, ..Self::new(kind, detail) })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match error.kind().class() {
            _ if error.kind() == ErrorKind::InvalidParameter => ProblemKind::Malformed,
            ErrorClass::Invalid | ErrorClass::NotFound | ErrorClass::Exists | ErrorClass::State => {
                ProblemKind::Malformed
            }
            ErrorClass::Unsupported => ProblemKind::Malformed,
            ErrorClass::Unauthenticated | ErrorClass::Denied => ProblemKind::Unauthorized,
            ErrorClass::Busy => ProblemKind::RateLimited,
            ErrorClass::Unavailable | ErrorClass::Deadline | ErrorClass::Internal => {
                ProblemKind::ServerInternal
            }
        };
        let after = error.retry_after().map(|ms| ms.div_ceil(1_000).max(1));
        Problem { retry_after_s: after, ..Problem::new(kind, error.message()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_registry_and_serde_writes_the_same() {
        for kind in ProblemKind::ALL {
            let json = serde_json::to_string(kind).unwrap();
            assert_eq!(json, format!("{:?}", kind.name()));
            assert_eq!(serde_json::from_str::<ProblemKind>(&json).unwrap(), *kind);
        }
    }

    #[test]
    fn a_detail_is_one_bounded_line() {
        let told = Problem::new(ProblemKind::Malformed, format!("a\nb\u{1b}{}", "c".repeat(9_000)));
        assert_eq!(told.detail.len(), DETAIL_CHARACTERS);
        assert!(told.detail.starts_with("abcc"));
    }

    #[test]
    fn several_problems_are_one_with_what_each_is_below() {
        let of = |kind| Problem::new(kind, "x");
        assert_eq!(Problem::all(vec![]), None);
        assert_eq!(Problem::all(vec![of(ProblemKind::Dns)]), Some(of(ProblemKind::Dns)));
        let same = Problem::all(vec![of(ProblemKind::Dns), of(ProblemKind::Dns)]).unwrap();
        assert_eq!((same.kind, same.each.len()), (ProblemKind::Dns, 2));
        let mixed = Problem::all(vec![of(ProblemKind::Dns), of(ProblemKind::Malformed)]).unwrap();
        assert_eq!(mixed.kind, ProblemKind::Compound);
    }

    #[test]
    fn errors_of_the_engine_become_problems_that_say_who_is_to_act() {
        for (kind, becomes) in [
            (ErrorKind::InvalidParameter, ProblemKind::Malformed),
            (ErrorKind::Denied, ProblemKind::Unauthorized),
            (ErrorKind::OverQuota, ProblemKind::RateLimited),
            (ErrorKind::StoreUnavailable, ProblemKind::ServerInternal),
            (ErrorKind::Internal, ProblemKind::ServerInternal),
        ] {
            assert_eq!(Problem::from(Error::new(kind, "why")).kind, becomes, "{kind:?}");
        }
        let after = Problem::from(Error::new(ErrorKind::Busy, "full").retry_after_ms(1_200));
        assert_eq!(after.retry_after_s, Some(2));
    }
}
