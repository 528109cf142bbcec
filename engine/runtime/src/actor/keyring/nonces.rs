//! The nonces of signed requests that the store keeps: looked up before a request is carried out, kept where it changed nothing, and
//! forgotten by the clock.

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use keymill_core::error::Result;
use keymill_core::seam::store::{Page, Path, StoreError, Write};

use super::KeyringActor;
use crate::actor::follow;
use crate::actor::signed::{Claims, Signed};
use crate::nonces::{Claim, bucket};
use crate::records;

/// Nonces that are forgotten in one go; it keeps whoever changes keys waiting.
const FORGOTTEN: usize = 512;
/// How long others have their turn where more are to be forgotten.
const PAUSE: Duration = Duration::from_millis(100);

/// Checks that a request was not carried out before, and that there is room for its nonce.
pub(crate) struct CheckNonce(pub(crate) Arc<Claim>);

/// Keeps the nonce of a request that changed nothing.
pub(crate) struct KeepNonce(pub(crate) Arc<Claim>);

impl Message for CheckNonce {
    type Result = Result<()>;
}

impl Message for KeepNonce {
    type Result = Result<()>;
}

impl KeyringActor {
    /// Forgets the nonces of requests that can no longer pass, now and from now on.
    pub(super) fn forget_nonces(&mut self, ctx: &mut Context<Self>) {
        let are_more = self.forget_some().unwrap_or_else(|error| {
            tracing::error!(?error, "nonces that have run out could not be forgotten");
            false
        });
        let pause = if are_more { PAUSE } else { self.shared.config.usage_flush };
        ctx.run_later(pause, |actor, ctx| actor.forget_nonces(ctx));
    }

    /// Forgets some of the nonces that have run out; tells whether there may be more. None has while what the clock says may be wrong, nor
    /// within what it may be wrong by without being noticed: once it is right again, a request could pass that had run out.
    fn forget_some(&mut self) -> Result<bool, StoreError> {
        let now = bucket(self.trusted_time().minus(self.shared.config.clock_jump));
        if !self.shared.keeps_time() {
            self.shared.nonces.forget(now);
            return Ok(false);
        }
        let page = Page { after: None, limit: FORGOTTEN };
        let first = self.shared.store.list(&records::prefix("nonce/"), page)?;
        // A path that is none of ours would stand before the others for ever.
        let has_run_out = |path: &Path| records::nonce_at(path).is_none_or(|(bucket, _)| bucket < now);
        let removals: Vec<Write> = first
            .into_iter()
            .filter(|entry| has_run_out(&entry.path))
            .map(|entry| Write { path: entry.path, expected: Some(entry.revision), value: None })
            .collect();
        match self.shared.store.commit(&removals) {
            Ok(_) if removals.len() == FORGOTTEN => Ok(true),
            Ok(_) => {
                self.shared.nonces.forget(now);
                Ok(false)
            }
            // Another node was faster.
            Err(StoreError::Conflict(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Handler<CheckNonce> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, CheckNonce(claim): CheckNonce, _: &mut Context<Self>) -> Self::Result {
        self.shared.check_claim(&claim)
    }
}

impl Handler<KeepNonce> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, KeepNonce(claim): KeepNonce, _: &mut Context<Self>) -> Self::Result {
        self.shared.commit(Some(&claim), Vec::new()).map(drop)
    }
}

impl Claims for KeyringActor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>> {
        &mut self.claim
    }

    fn catch_up(&mut self) {
        let shared = self.shared.clone();
        follow::catch_up(self, &shared);
    }
}

impl<T: 'static> Handler<Signed<Self, T>> for KeyringActor {
    type Result = Result<T>;

    fn handle(&mut self, signed: Signed<Self, T>, ctx: &mut Context<Self>) -> Self::Result {
        signed.handle(self, ctx)
    }
}
