//! Instances (Dedicated KMS): tenants of an installation, each with keys, access and audit of its own. What is here is what the installation
//! knows of them: their names, the networks that they are bound to, what they may take. How one changes is decided here, and which of them a
//! request reaches (`arrival.rs`).

mod arrival;
mod book;

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{DomainName, InstanceId, VpcId};
use crate::limit;
use crate::time::Timestamp;

pub use arrival::{Arrival, Listening, Networks, Vpc};
pub use book::{InstanceBook, InstanceChange, InstanceEdit};

/// An instance as the installation keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Free text.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How far it has come.
    pub stage: Stage,
    /// The domain that its own keys derive from and its keys in tokens are wrapped by; that of the installation if absent. It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// The network that it was connected to first, where it was.
    pub connection: Option<Connection>,
    /// Further networks.
    pub bound: Vec<BoundVpc>,
    /// What it may take.
    pub terms: InstanceTerms,
    /// Why it must not be released, where it is protected.
    pub protection: Option<String>,
}

/// How far an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It was begun, and its first access key was told to nobody yet. One that is found so after a start is of no use, and can be released alone.
    Begun,
    /// Its first access key was told.
    Made,
    /// It is being released: its records go.
    Ending,
}

/// What `ConnectKmsInstance` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The network.
    pub vpc: VpcId,
    /// As they were told; they carry no meaning here.
    pub vswitches: Vec<String>,
    /// The same.
    pub zones: Vec<String>,
}

/// A further network of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundVpc {
    /// The network.
    pub vpc: VpcId,
    /// As it was told; it carries no meaning here.
    pub vswitch: Option<String>,
    /// The same.
    pub region: Option<String>,
    /// The same.
    pub owner: Option<String>,
}

/// What an instance may take; what is absent is as it is for the installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceTerms {
    /// Threads that use software keys where that takes long; one if absent.
    pub software_workers: Option<u32>,
    /// Tokens of the pool that its keys may live in, each with sessions of its own; in software alone if there are none.
    pub tokens: Vec<TokenShare>,
    /// What it weighs beside others where they share tokens or processors: each that has all it can do gets time by its weight; 1 if absent.
    pub weight: Option<u32>,
    /// Requests a second.
    pub requests_per_s: Option<NonZeroU64>,
    /// Items of data requests a second.
    pub items_per_s: Option<NonZeroU64>,
    /// Bytes of these items a second.
    pub bytes_per_s: Option<NonZeroU64>,
    /// Customer master keys.
    pub keys: Option<u64>,
    /// Secrets.
    pub secrets: Option<u64>,
    /// Certificates.
    pub certificates: Option<u64>,
    /// Networks that it can be bound to.
    pub vpcs: Option<u32>,
}

/// What an instance may have of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenShare {
    /// The name that the configuration gives the token.
    pub name: String,
    /// Sessions.
    pub sessions: u32,
}

/// How an instance is, in the cloud's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceStatus {
    /// It was made, and is connected to no network.
    Uninitialized,
    /// It serves its networks.
    Connected,
    /// It is being released.
    Disconnected,
    /// It does not run.
    Error,
}

impl InstanceStatus {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            InstanceStatus::Uninitialized => "Uninitialized",
            InstanceStatus::Connected => "Connected",
            InstanceStatus::Disconnected => "Disconnected",
            InstanceStatus::Error => "Error",
        }
    }
}

impl Instance {
    /// Tells how it is; `is_running` says whether there is an engine for it.
    pub fn status(&self, is_running: bool) -> InstanceStatus {
        match (self.stage, is_running, &self.connection) {
            (Stage::Ending, ..) => InstanceStatus::Disconnected,
            (Stage::Begun, ..) | (Stage::Made, false, _) => InstanceStatus::Error,
            (Stage::Made, true, None) => InstanceStatus::Uninitialized,
            (Stage::Made, true, Some(_)) => InstanceStatus::Connected,
        }
    }

    /// Lists the networks from which it is reached; none before it is connected.
    pub fn vpcs(&self) -> impl Iterator<Item = &VpcId> {
        let first = self.connection.as_ref().filter(|_| self.stage == Stage::Made);
        first.into_iter().flat_map(|first| {
            let others = self.bound.iter().map(|bound| &bound.vpc).filter(|vpc| **vpc != first.vpc);
            std::iter::once(&first.vpc).chain(others)
        })
    }

    /// Returns how many networks it may be bound to.
    pub fn max_vpcs(&self) -> u32 {
        self.terms.vpcs.unwrap_or(limit::INSTANCE_VPCS)
    }

    /// Checks that it serves.
    ///
    /// # Errors
    /// `InstanceState` where it was never made whole, or is being released.
    pub fn check_made(&self) -> Result<()> {
        match self.stage {
            Stage::Made => Ok(()),
            Stage::Begun => Err(state("the instance was never made whole: release it")),
            Stage::Ending => Err(state("the instance is being released")),
        }
    }

    /// Checks what it may take.
    ///
    /// # Errors
    /// As of [`InstanceTerms::check`], and `InvalidParameter` where it has a domain and no token of it: nothing of it could be opened.
    pub fn check_terms(&self) -> Result<()> {
        self.terms.check()?;
        match (&self.domain, self.terms.tokens.is_empty()) {
            (Some(domain), true) => {
                let why = format!("Tokens: an instance of the domain {domain} has a token of it at least");
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            _ => Ok(()),
        }
    }

    /// Checks that it may be released.
    ///
    /// # Errors
    /// `StateConflict` where it is protected.
    pub fn check_release(&self) -> Result<()> {
        match &self.protection {
            Some(_) => {
                Err(Error::new(ErrorKind::StateConflict, "the instance is protected against deletion"))
            }
            None => Ok(()),
        }
    }
}

impl InstanceTerms {
    /// Returns how many sessions it has of the token of this name; 0 for one that is none of its.
    pub fn sessions_of(&self, token: &str) -> usize {
        self.tokens.iter().find(|share| share.name == token).map_or(0, |share| share.sessions as usize)
    }

    /// Returns how many threads use its software keys where that takes long.
    pub fn workers(&self) -> usize {
        self.software_workers.unwrap_or(1) as usize
    }

    /// Checks them.
    ///
    /// # Errors
    /// `InvalidParameter` for more threads, sessions or networks than there may be, and for a token that is named twice.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        for (at, TokenShare { name, sessions }) in self.tokens.iter().enumerate() {
            if self.tokens[..at].iter().any(|other| other.name == *name) {
                return wrong("Tokens names a token twice".into());
            }
            if !(1..=limit::INSTANCE_SESSIONS).contains(sessions) {
                return wrong(format!("Sessions of {sessions} is not in 1 to {}", limit::INSTANCE_SESSIONS));
            }
        }
        match self {
            Self { software_workers: Some(workers), .. }
                if !(1..=limit::INSTANCE_WORKERS).contains(workers) =>
            {
                wrong(format!("SoftwareWorkers of {workers} is not in 1 to {}", limit::INSTANCE_WORKERS))
            }
            Self { weight: Some(weight), .. } if !(1..=limit::INSTANCE_WEIGHT).contains(weight) => {
                wrong(format!("Weight of {weight} is not in 1 to {}", limit::INSTANCE_WEIGHT))
            }
            Self { vpcs: Some(vpcs), .. } if !(1..=limit::INSTANCE_VPCS).contains(vpcs) => {
                wrong(format!("MaxVpcs of {vpcs} is not in 1 to {}", limit::INSTANCE_VPCS))
            }
            _ => Ok(()),
        }
    }
}

/// Says that an instance is not in the state for something.
fn state(why: &'static str) -> Error {
    Error::new(ErrorKind::InstanceState, why)
}

/// Checks what is told of networks and kept as it is.
///
/// # Errors
/// `InvalidParameter` naming the parameter.
pub fn check_label(text: &str, what: &'static str) -> Result<()> {
    let fits = text.len() <= 128
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    match fits {
        true => Ok(()),
        false => {
            let why = format!("{what}: up to 128 letters, digits, _, . or - are taken");
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

/// Says that there is no such instance.
pub fn instance_not_found() -> Error {
    Error::new(ErrorKind::ResourceNotFound, "the specified instance is not found")
}

/// Says that there are as many instances as there may be.
fn too_many(count: usize) -> Error {
    let why = format!("there are {count} instances already, and the limit is {}", limit::INSTANCES);
    Error::new(ErrorKind::LimitExceeded(Limit::Instances), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn instance(id: &str, vpcs: &[&str]) -> Instance {
        let mut vpcs = vpcs.iter().map(|vpc| vpc.parse::<VpcId>().unwrap());
        let connection = vpcs.next().map(|vpc| Connection { vpc, vswitches: Vec::new(), zones: Vec::new() });
        let bound = vpcs.map(|vpc| BoundVpc { vpc, vswitch: None, region: None, owner: None });
        Instance {
            id: id.parse().unwrap(),
            name: String::new(),
            created_at: Timestamp::from_ms(0),
            stage: Stage::Made,
            domain: None,
            connection,
            bound: bound.collect(),
            terms: InstanceTerms::default(),
            protection: None,
        }
    }

    #[test]
    fn an_instance_is_reached_once_it_is_connected_and_not_while_it_ends() {
        let names = |instance: &Instance| instance.vpcs().map(|vpc| vpc.to_string()).collect::<Vec<_>>();
        let mut one = instance("kst-1", &["a", "b", "a"]);
        assert_eq!(names(&one), ["a", "b"]);
        assert_eq!((one.status(true), one.status(false)), (InstanceStatus::Connected, InstanceStatus::Error));
        one.connection = None;
        assert_eq!((names(&one).len(), one.status(true)), (0, InstanceStatus::Uninitialized));
        let mut one = instance("kst-1", &["a"]);
        for (stage, status) in
            [(Stage::Ending, InstanceStatus::Disconnected), (Stage::Begun, InstanceStatus::Error)]
        {
            one.stage = stage;
            assert_eq!((names(&one).len(), one.status(true)), (0, status));
            assert_eq!(one.check_made().unwrap_err().kind(), ErrorKind::InstanceState);
        }
    }

    #[test]
    fn an_instance_of_a_domain_has_a_token_of_it() {
        let mut one = instance("kst-1", &[]);
        one.check_terms().unwrap();
        one.domain = Some("acme".parse().unwrap());
        let told = one.check_terms().unwrap_err();
        assert!(told.message().contains("domain acme"), "{told:?}");
        one.terms.tokens.push(TokenShare { name: "a".into(), sessions: 1 });
        one.check_terms().unwrap();
    }

    #[test]
    fn terms_and_labels_are_bounded() {
        InstanceTerms::default().check().unwrap();
        let share = |sessions| TokenShare { name: "a".into(), sessions };
        InstanceTerms { tokens: vec![share(1)], ..InstanceTerms::default() }.check().unwrap();
        for terms in [
            InstanceTerms { tokens: vec![share(0)], ..InstanceTerms::default() },
            InstanceTerms { tokens: vec![share(1), share(1)], ..InstanceTerms::default() },
            InstanceTerms { software_workers: Some(0), ..InstanceTerms::default() },
            InstanceTerms { software_workers: Some(limit::INSTANCE_WORKERS + 1), ..InstanceTerms::default() },
            InstanceTerms { weight: Some(0), ..InstanceTerms::default() },
            InstanceTerms { weight: Some(limit::INSTANCE_WEIGHT + 1), ..InstanceTerms::default() },
            InstanceTerms { vpcs: Some(limit::INSTANCE_VPCS + 1), ..InstanceTerms::default() },
        ] {
            assert_eq!(terms.check().unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
        check_label("vsw-bp1i", "VSwitchId").unwrap();
        check_label("", "VSwitchId").unwrap();
        assert!(check_label("a b", "VSwitchId").unwrap_err().message().starts_with("VSwitchId"));
        assert!(check_label(&"a".repeat(129), "VSwitchId").is_err());
    }
}
