//! Changes that signed requests ask for: each goes to the owning actor with the claim of its request, and the actor's commit holds both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Handler, Message};
use keymill_core::error::Result;

use super::Actors;
use super::instances::InstancesActor;
use super::keyring::{KeepNonce, KeyringActor};
use super::policy::PolicyActor;
use crate::nonces::Claim;
use crate::work::Served;

/// A message to an actor, and the claim of the request that it was sent for. It is erased down to how it is handled: a handler of whatever
/// has a handler would ask for itself without end.
pub(crate) struct Signed<A: Actor, T> {
    claim: Option<Arc<Claim>>,
    handle: Box<Handle<A, T>>,
}

type Handle<A, T> = dyn FnOnce(&mut A, &mut <A as Actor>::Context) -> Result<T> + Send;

impl<A: Actor, T: 'static> Message for Signed<A, T> {
    type Result = Result<T>;
}

/// An actor whose commits keep the claim of the message that it handles.
pub(crate) trait Claims: Actor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>>;

    /// Takes over what other nodes wrote.
    fn catch_up(&mut self);
}

impl<A: Claims, T> Signed<A, T> {
    fn new<M>(claim: Option<Arc<Claim>>, message: M) -> Self
    where
        M: Message<Result = Result<T>> + Send + 'static,
        A: Handler<M, Result = Result<T>>,
    {
        Self { claim, handle: Box::new(|actor, ctx| actor.handle(message, ctx)) }
    }

    pub(super) fn handle(self, actor: &mut A, ctx: &mut A::Context) -> Result<T> {
        actor.catch_up();
        *actor.claim() = self.claim;
        let outcome = (self.handle)(actor, ctx);
        *actor.claim() = None;
        outcome
    }
}

/// The owners of state, as one request reaches them.
pub(crate) struct Owners<'a> {
    pub(crate) actors: &'a Actors,
    pub(crate) claim: Option<&'a Arc<Claim>>,
    /// Who made what is to be kept, by [`Served::bits`].
    pub(crate) served: &'a AtomicU64,
}

impl Owners<'_> {
    pub(crate) async fn keyring<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        KeyringActor: Handler<M, Result = Result<T>>,
    {
        let signed = Signed::<_, T>::new(self.claim.cloned(), message);
        self.actors.keyring::<Signed<_, T>, T>(signed).await
    }

    pub(crate) async fn policy<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        PolicyActor: Handler<M, Result = Result<T>>,
    {
        let signed = Signed::<_, T>::new(self.claim.cloned(), message);
        self.actors.policy::<Signed<_, T>, T>(signed).await
    }

    pub(crate) async fn instances<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        InstancesActor: Handler<M, Result = Result<T>>,
    {
        let signed = Signed::<_, T>::new(self.claim.cloned(), message);
        self.actors.instances::<Signed<_, T>, T>(signed).await
    }

    /// Remembers who made what is to be kept.
    pub(crate) fn served_by(&self, by: Served) {
        self.served.fetch_or(by.bits(), Ordering::Relaxed);
    }

    /// Has the nonce kept by a commit of its own, unless one of the request's has it.
    pub(crate) async fn keep_nonce(&self) -> Result<()> {
        match self.claim.filter(|claim| !claim.is_kept()) {
            Some(claim) => self.actors.keyring(KeepNonce(claim.clone())).await,
            None => Ok(()),
        }
    }
}
