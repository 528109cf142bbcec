//! The instances of an installation, and what may become of one: pure rules, which the owner of the records commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BoundVpc, Connection, Instance, InstanceTerms, Stage, instance_not_found, state, too_many};
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::InstanceId;
use crate::limit;

/// The instances, by their ids.
#[derive(Clone, Debug, Default)]
pub struct InstanceBook(BTreeMap<InstanceId, Arc<Instance>>);

/// What is to become of an instance.
#[derive(Clone, Debug)]
pub enum InstanceChange {
    /// A new one.
    Create(Box<Instance>),
    /// Its first access key was made, and is told with the answer.
    Make(InstanceId),
    /// Connects it to its first network.
    Connect(InstanceId, Connection),
    /// Binds it to other further networks than before.
    Bind(InstanceId, Vec<BoundVpc>),
    /// Gives it other terms than those that were looked at.
    Terms {
        /// The instance.
        id: InstanceId,
        /// The terms that these come of.
        of: Box<InstanceTerms>,
        /// What it may take from now on.
        terms: Box<InstanceTerms>,
    },
    /// Protects it against its release, or no longer.
    Protect(InstanceId, Option<String>),
    /// Its records are about to be removed.
    End(InstanceId),
    /// They are not, after all: none was, and it holds what nobody knew of.
    Resume(InstanceId),
    /// They are.
    Remove(InstanceId),
}

/// What is written for a change.
#[derive(Clone, Debug)]
pub enum InstanceEdit {
    /// Writes an instance.
    Put(Box<Instance>),
    /// Removes one.
    Remove(InstanceId),
}

impl InstanceBook {
    /// Makes it of records.
    pub fn of(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self(instances.into_iter().map(|instance| (instance.id.clone(), instance.into())).collect())
    }

    /// Finds an instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.0.get(id)
    }

    /// Finds an instance by what a request calls it.
    ///
    /// # Errors
    /// `ResourceNotFound` where there is none of that id, or it is no id at all.
    pub fn named(&self, id: &str) -> Result<&Arc<Instance>> {
        self.0.get(id).ok_or_else(instance_not_found)
    }

    /// Lists them, in the order of their ids.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.0.values()
    }

    /// Returns the oldest one that is connected.
    pub fn default_instance(&self) -> Option<&Arc<Instance>> {
        let connected = self.0.values().filter(|instance| instance.vpcs().next().is_some());
        connected.min_by_key(|instance| (instance.created_at, &instance.id))
    }

    /// Decides on a change.
    ///
    /// # Errors
    /// `ResourceNotFound` for one that is not there, `InstanceState` and `StateConflict` where it is not as the change needs it,
    /// `LimitExceeded` where there would be too many.
    pub fn plan(&self, change: InstanceChange) -> Result<InstanceEdit> {
        use InstanceChange::*;
        let put = |instance: Instance| Ok(InstanceEdit::Put(Box::new(instance)));
        match change {
            Create(instance) => {
                instance.check_terms()?;
                match self.0.len() < limit::INSTANCES {
                    true if self.0.contains_key(&instance.id) => {
                        Err(Error::new(ErrorKind::Conflict, "there is an instance of this id"))
                    }
                    true => Ok(InstanceEdit::Put(instance)),
                    false => Err(too_many(self.0.len())),
                }
            }
            Make(id) => {
                let instance = self.found(&id)?;
                match instance.stage {
                    Stage::Begun => put(Instance { stage: Stage::Made, ..instance }),
                    Stage::Made | Stage::Ending => Err(state("the instance is past its beginning")),
                }
            }
            Connect(id, connection) => {
                let instance = self.found(&id)?;
                instance.check_made()?;
                match instance.connection {
                    None => put(Instance { connection: Some(connection), ..instance }),
                    Some(_) => Err(state("the instance is connected already: bind further networks to it")),
                }
            }
            Bind(id, bound) => {
                let instance = self.found(&id)?;
                instance.check_made()?;
                if instance.connection.is_none() {
                    return Err(state("the instance is connected to no network yet"));
                }
                let instance = Instance { bound, ..instance };
                check_vpcs(&instance)?;
                put(instance)
            }
            Terms { id, of, terms } => {
                let known = self.found(&id)?;
                if known.terms != *of {
                    let why = "the terms of the instance were changed meanwhile";
                    return Err(Error::new(ErrorKind::Conflict, why));
                }
                let instance = Instance { terms: *terms, ..known };
                instance.check_terms()?;
                instance.check_made()?;
                check_vpcs(&instance)?;
                put(instance)
            }
            Protect(id, protection) => {
                let instance = self.found(&id)?;
                instance.check_made()?;
                put(Instance { protection, ..instance })
            }
            End(id) => {
                let instance = self.found(&id)?;
                instance.check_release()?;
                put(Instance { stage: Stage::Ending, ..instance })
            }
            Resume(id) => {
                let instance = self.found(&id)?;
                match instance.stage {
                    Stage::Ending => put(Instance { stage: Stage::Made, ..instance }),
                    Stage::Begun | Stage::Made => Err(state("the instance is not being released")),
                }
            }
            Remove(id) => match self.found(&id)?.stage {
                Stage::Ending => Ok(InstanceEdit::Remove(id)),
                Stage::Begun | Stage::Made => Err(state("the instance is not being released")),
            },
        }
    }

    /// Makes a change that was decided on.
    pub fn apply(&mut self, edit: InstanceEdit) {
        match edit {
            InstanceEdit::Put(instance) => drop(self.0.insert(instance.id.clone(), Arc::from(instance))),
            InstanceEdit::Remove(id) => drop(self.0.remove(&id)),
        }
    }

    fn found(&self, id: &InstanceId) -> Result<Instance> {
        self.0.get(id).map(|instance| Instance::clone(instance)).ok_or_else(instance_not_found)
    }
}

/// Checks that an instance is bound to no more networks than it may be, and to each once.
fn check_vpcs(instance: &Instance) -> Result<()> {
    let (count, most) = (instance.vpcs().count(), instance.max_vpcs());
    if count > most as usize {
        let why = format!("{count} networks exceed the limit of {most}");
        return Err(Error::new(ErrorKind::LimitExceeded(Limit::InstanceVpcs), why));
    }
    let twice = |(at, vpc): (usize, &BoundVpc)| instance.bound[..at].iter().any(|other| other.vpc == vpc.vpc);
    match instance.bound.iter().enumerate().any(twice) {
        true => Err(Error::new(ErrorKind::InvalidParameter, "BindVpcs names a network twice")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::instance;
    use super::*;
    use crate::time::Timestamp;

    fn change(book: &mut InstanceBook, change: InstanceChange) -> Result<()> {
        let edit = book.plan(change)?;
        book.apply(edit);
        Ok(())
    }

    fn bound(vpc: &str) -> BoundVpc {
        BoundVpc { vpc: vpc.parse().unwrap(), vswitch: None, region: None, owner: None }
    }

    fn id() -> InstanceId {
        "kst-1".parse().unwrap()
    }

    #[test]
    fn an_instance_is_made_connected_bound_and_ended_in_this_order() {
        use InstanceChange::*;
        let mut book = InstanceBook::default();
        let begun = Instance { stage: Stage::Begun, ..instance("kst-1", &[]) };
        let connection =
            || Connection { vpc: "a".parse().unwrap(), vswitches: Vec::new(), zones: Vec::new() };
        let kind = |outcome: Result<()>| outcome.unwrap_err().kind();
        assert_eq!(kind(change(&mut book, Make(id()))), ErrorKind::ResourceNotFound);
        change(&mut book, Create(Box::new(begun.clone()))).unwrap();
        assert_eq!(kind(change(&mut book, Create(Box::new(begun)))), ErrorKind::Conflict);
        assert_eq!(kind(change(&mut book, Connect(id(), connection()))), ErrorKind::InstanceState);
        change(&mut book, Make(id())).unwrap();
        assert_eq!(kind(change(&mut book, Make(id()))), ErrorKind::InstanceState);
        assert_eq!(kind(change(&mut book, Bind(id(), vec![bound("b")]))), ErrorKind::InstanceState);
        assert!(book.default_instance().is_none());
        change(&mut book, Connect(id(), connection())).unwrap();
        assert_eq!(kind(change(&mut book, Connect(id(), connection()))), ErrorKind::InstanceState);
        change(&mut book, Bind(id(), vec![bound("b"), bound("c")])).unwrap();
        assert_eq!(book.default_instance().unwrap().id, id());
        assert_eq!(kind(change(&mut book, Remove(id()))), ErrorKind::InstanceState);
        change(&mut book, Protect(id(), Some("production".into()))).unwrap();
        assert_eq!(kind(change(&mut book, End(id()))), ErrorKind::StateConflict);
        change(&mut book, Protect(id(), None)).unwrap();
        change(&mut book, End(id())).unwrap();
        // One that was cut short is ended again, and one that is not empty goes on.
        change(&mut book, End(id())).unwrap();
        assert!(book.named("kst-1").unwrap().vpcs().next().is_none(), "nobody reaches it");
        change(&mut book, Resume(id())).unwrap();
        assert_eq!(kind(change(&mut book, Resume(id()))), ErrorKind::InstanceState);
        assert_eq!(book.named("kst-1").unwrap().vpcs().count(), 3);
        change(&mut book, End(id())).unwrap();
        assert_eq!(kind(change(&mut book, Bind(id(), Vec::new()))), ErrorKind::InstanceState);
        change(&mut book, Remove(id())).unwrap();
        assert_eq!(book.instances().len(), 0);
    }

    #[test]
    fn networks_are_bound_once_and_not_beyond_the_limit() {
        use InstanceChange::*;
        let mut book = InstanceBook::of([instance("kst-1", &["a"])]);
        let kind = |outcome: Result<()>| outcome.unwrap_err().kind();
        assert_eq!(
            kind(change(&mut book, Bind(id(), vec![bound("b"), bound("b")]))),
            ErrorKind::InvalidParameter
        );
        let many = (0..limit::INSTANCE_VPCS).map(|number| bound(&format!("v{number}"))).collect();
        let full = ErrorKind::LimitExceeded(Limit::InstanceVpcs);
        assert_eq!(kind(change(&mut book, Bind(id(), many))), full);
        change(&mut book, Bind(id(), vec![bound("b"), bound("c")])).unwrap();
        let fewer = InstanceTerms { vpcs: Some(2), ..InstanceTerms::default() };
        let of = Box::default();
        assert_eq!(kind(change(&mut book, Terms { id: id(), of, terms: Box::new(fewer) })), full);
    }

    #[test]
    fn terms_come_of_those_that_are_in_force() {
        let mut book = InstanceBook::of([instance("kst-1", &["a"])]);
        let before = InstanceTerms::default();
        let more = |of: &InstanceTerms| {
            let terms = InstanceTerms { keys: Some(of.keys.unwrap_or(0) + 1), ..of.clone() };
            InstanceChange::Terms { id: id(), of: Box::new(of.clone()), terms: Box::new(terms) }
        };
        change(&mut book, more(&before)).unwrap();
        // Of what another has changed meanwhile nothing comes.
        assert_eq!(change(&mut book, more(&before)).unwrap_err().kind(), ErrorKind::Conflict);
        let now = book.named("kst-1").unwrap().terms.clone();
        change(&mut book, more(&now)).unwrap();
        assert_eq!(book.named("kst-1").unwrap().terms.keys, Some(2));
    }

    #[test]
    fn there_are_so_many_and_the_default_is_the_oldest() {
        let of = |number: usize| {
            let created_at = Timestamp::from_ms(1_000 - number as u64);
            Instance { created_at, ..instance(&format!("kst-{number}"), &["a"]) }
        };
        let mut book = InstanceBook::of((0..limit::INSTANCES).map(of));
        let full = change(&mut book, InstanceChange::Create(Box::new(of(limit::INSTANCES)))).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::LimitExceeded(Limit::Instances));
        let newest = format!("kst-{}", limit::INSTANCES - 1);
        assert_eq!(book.default_instance().unwrap().id.as_str(), newest);
        assert!(book.named(&newest).is_ok());
        for odd in ["", "kst-", "KST-1", "kst-1/../x"] {
            assert_eq!(book.named(odd).unwrap_err().kind(), ErrorKind::ResourceNotFound, "{odd}");
        }
    }
}
