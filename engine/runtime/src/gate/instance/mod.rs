//! Instances at the gate of their installation: which one a request reaches, and what becomes of them.

mod carry;
mod plan;
mod read;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::InstanceId;
use keymill_core::instance::{Arrival, Instance, InstanceChange, InstanceTerms};
use keymill_core::operation::*;

use plan::TermsAsked;

use crate::actor::PoolChanged;
use crate::gate::{Gate, Inner};

/// What is to become of an instance.
pub(in crate::gate) enum InstancePlan {
    Create(Box<Instance>),
    /// Other terms, which come of those that are in force by then.
    Terms(InstanceId, Box<TermsAsked>),
    /// The reply is made once it is done.
    Change(InstanceChange, fn(keymill_core::id::RequestId) -> Reply<'static>),
    Release {
        id: InstanceId,
        /// Also where it holds keys.
        is_forced: bool,
    },
}
impl Gate {
    /// Finds the way into the instance that a request reaches; `None` for one that reaches the installation itself.
    ///
    /// # Errors
    /// `Unavailable` where that instance does not run here: nobody in a network of its reaches another.
    pub fn reached(&self, arrival: &Arrival<'_>) -> Result<Option<Gate>> {
        let shared = &self.0.shared;
        let Some(host) = shared.hosting.host() else { return Ok(None) };
        let book = shared.instances.read();
        if book.instances().len() == 0 {
            return Ok(None);
        }
        let Some(id) = host.networks().reached(&book, arrival) else { return Ok(None) };
        let gate = host.gate(&id).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the instance does not run").retry_after_ms(1_000)
        })?;
        Ok(Some(gate))
    }

    /// Returns a number that changes whenever requests may reach another instance than before.
    pub fn reach_version(&self) -> u64 {
        self.0.shared.hosting.version()
    }

    /// Tells whether both lead into the same engine.
    pub fn is(&self, other: &Gate) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Tells whether nothing is taken here any more.
    pub fn is_closed(&self) -> bool {
        self.0.shared.is_closed()
    }

    /// Has an instance keep to other ceilings from now on; where it has several nodes, they agree on the parts of each at once.
    pub fn keep_to(&self, terms: &crate::config::Ceilings) {
        let shared = &self.0.shared;
        shared.quotas.set_instance(terms.quota);
        shared.max_records.publish(terms.max_records);
        shared.weight.store(terms.weight, Ordering::Relaxed);
        shared.pool.tokens.iter().for_each(|token| token.seat.set_weight(terms.weight));
        if let Some(cluster) = &shared.cluster {
            cluster.wake();
        }
    }

    /// Has an instance have the tokens and workers of these terms from now on: what is new serves within moments, and what is no longer wanted ends
    /// when it has done what it holds.
    pub fn keep_pool(&self, terms: &InstanceTerms) {
        let Inner { shared, actors, .. } = &*self.0;
        shared.pool.keep_to(|name| terms.sessions_of(name));
        // Those of tokens that leave as well: they see to it.
        actors.tokens.iter().for_each(|token| token.do_send(PoolChanged));
        if let Err(why) = shared.crew.keep_to(shared, terms.workers()) {
            tracing::error!(why, "there are fewer software workers than wanted");
        }
    }

    /// Checks that an instance that a request names, to place something in it, is the one that it has reached.
    ///
    /// # Errors
    /// `ResourceNotFound` for any other, and for each at the gate of an installation: whoever is here is in none.
    pub(in crate::gate) fn check_placed(&self, asked: Option<&str>) -> Result<()> {
        let own = self.own_instance();
        match asked {
            None | Some("") => Ok(()),
            Some(asked) if own.is_some_and(|own| own.as_str() == asked) => Ok(()),
            Some(_) => Err(keymill_core::instance::instance_not_found()),
        }
    }

    /// Returns the instance that this is the gate of; an installation has none.
    pub(in crate::gate) fn own_instance(&self) -> Option<&InstanceId> {
        let config = &self.0.shared.config;
        config.is_dedicated.then_some(&config.instance)
    }
}
