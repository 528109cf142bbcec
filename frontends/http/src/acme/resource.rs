//! What each place of the dialect does with a request whose signer is known.

use keymill_acme::request::{
    AccountRequest, Asks, KeyChange, NewAccount, Revoke, authorization, challenge, finalize, new_order,
};
use keymill_acme::{Jwk, Route, Verified, reply};
use keymill_core::acme::{
    AuthorizationStatus, ChallengeKind, ChallengeStatus, Order, OrderStatus, Problem, ProblemKind,
};
use keymill_core::id::{AcmeAccountId, AcmeOrderId};
use keymill_runtime::gate::{AccountChange, Revoker};

use super::answer::{Answer, Refused};
use super::{Exchange, Requester, Who};

/// Seconds after which a client that waits is to ask again.
const ASK_AGAIN_S: u32 = 1;

impl Exchange<'_> {
    pub(super) async fn answer(&self, who: Who, said: Verified) -> Result<Answer, Refused> {
        match (who, self.route) {
            (Who::Key(key), Route::NewAccount) => self.new_account(key, &said).await,
            (Who::Key(key), Route::RevokeCert) => {
                let spki = key.spki();
                self.revoke(Revoker::Key(&spki, self.source, self.received), &said).await
            }
            (Who::Key(_), _) => Err(Refused::method()),
            (Who::Account(by), Route::RevokeCert) => {
                let Requester { account, call, .. } = *by;
                self.revoke(Revoker::Account(&account, call), &said).await
            }
            (Who::Account(by), route) => self.of_account(*by, route, &said).await,
        }
    }

    async fn of_account(&self, by: Requester, route: Route, said: &Verified) -> Result<Answer, Refused> {
        match route {
            // RFC 8555 §6.3: these may be asked for with a signature, too.
            Route::Directory | Route::NewNonce => {
                said.check_get()?;
                self.open_to_all(true)
            }
            Route::Account(id) => self.account(by, id, said).await,
            Route::Orders(id) => self.orders(&by, id, said),
            Route::KeyChange => self.key_change(by, said).await,
            Route::NewOrder => {
                let names = new_order(said)?;
                let order = self.gate.place_acme_order(by.call, &by.account, names).await?;
                Ok(self.told(&order).status(201))
            }
            Route::Order(id) => {
                said.check_get()?;
                Ok(self.told(&self.order(&by, &id)?))
            }
            Route::Finalize(id) => {
                let order = self.order(&by, &id)?;
                let csr = finalize(said)?;
                let order = self.gate.finalize_acme_order(by.call, &order, csr, &by.key.spki()).await?;
                Ok(self.told(&order))
            }
            Route::Certificate(id) => {
                said.check_get()?;
                Ok(Answer::chain(self.gate.acme_certificate(&self.order(&by, &id)?)?))
            }
            Route::Authorization(id, at) => self.authorization(by, (id, at), said).await,
            Route::Challenge(id, at, kind) => self.challenge(by, (id, at, kind), said).await,
            Route::NewAccount | Route::RevokeCert => Err(Refused::method()),
        }
    }

    async fn new_account(&self, key: Jwk, said: &Verified) -> Result<Answer, Refused> {
        let asked = NewAccount::read(said, &key)?;
        let account_key = key.account_key();
        if let Some(known) = self.gate.acme_account_of_key(&account_key.thumbprint) {
            self.gate.acme_call(&known, self.source, self.received)?;
            return Ok(self.told_account(&known));
        }
        if asked.only_existing {
            let why = "no account has this key";
            return Err(Problem::new(ProblemKind::AccountDoesNotExist, why).into());
        }
        let claim = asked.binding.ok_or_else(|| {
            let why = "an account is bound to an access point: an administrator makes what binds it (`keymill aap key acme`)";
            Problem::new(ProblemKind::ExternalAccountRequired, why)
        })?;
        let binding_key = self.gate.acme_binding_key(&claim.id);
        claim.verify(binding_key.as_ref()).inspect_err(|_| self.gate.refused_by_acme(self.source))?;
        let from = (self.source, self.received);
        let (account, is_new) =
            self.gate.register_acme(from, account_key, asked.contact, claim.id.clone()).await?;
        Ok(self.told_account(&account).status(if is_new { 201 } else { 200 }))
    }

    async fn account(&self, by: Requester, id: AcmeAccountId, said: &Verified) -> Result<Answer, Refused> {
        is_own(&by, id)?;
        let change = match AccountRequest::read(said)? {
            AccountRequest::Show => return Ok(self.told_account(&by.account)),
            AccountRequest::Contact(contact) => AccountChange::Contact(contact),
            AccountRequest::Deactivate => AccountChange::Deactivate,
        };
        Ok(self.told_account(&*self.gate.change_acme_account(by.call, id, change).await?))
    }

    fn orders(&self, by: &Requester, id: AcmeAccountId, said: &Verified) -> Result<Answer, Refused> {
        is_own(by, id)?;
        said.check_get()?;
        let told = reply::orders(&self.acme.urls, &self.gate.acme_orders(&by.account));
        Ok(Answer::json(told))
    }

    async fn key_change(&self, by: Requester, said: &Verified) -> Result<Answer, Refused> {
        let Requester { account, call, .. } = by;
        let change = KeyChange::read(said, &self.acme.urls.of(Route::Account(account.id)))?;
        let new = change.new.account_key();
        if let Some(other) = self.gate.acme_account_of_key(&new.thumbprint) {
            // RFC 8555 §7.3.5.
            let problem = Problem::new(ProblemKind::Malformed, "the new key is that of an account already");
            return Err(Refused::conflict(problem, self.acme.urls.of(Route::Account(other.id))));
        }
        let change = AccountChange::Key { old: change.old.account_key(), new };
        Ok(self.told_account(&*self.gate.change_acme_account(call, account.id, change).await?))
    }

    async fn authorization(
        &self,
        by: Requester,
        (id, at): (AcmeOrderId, usize),
        said: &Verified,
    ) -> Result<Answer, Refused> {
        let mut order = self.order(&by, &id)?;
        let asks = authorization(said)?;
        if asks == Asks::Act {
            let given_up = self.gate.give_up_acme_authorization(by.call, id, at).await?;
            order = Order::clone(&given_up);
        }
        let told = reply::authorization(&self.acme.urls, &order, at).ok_or_else(Refused::not_found)?;
        let waits =
            order.authorizations.get(at).is_some_and(|one| one.status == AuthorizationStatus::Pending);
        Ok(Answer::json(told).retry_after(waits.then_some(ASK_AGAIN_S)))
    }

    async fn challenge(
        &self,
        by: Requester,
        (id, at, kind): (AcmeOrderId, usize, ChallengeKind),
        said: &Verified,
    ) -> Result<Answer, Refused> {
        let mut order = self.order(&by, &id)?;
        let asks = challenge(said)?;
        let is_there = |order: &Order| {
            let of = order.authorizations.get(at)?;
            of.challenges.iter().find(|challenge| challenge.kind == kind).cloned()
        };
        is_there(&order).ok_or_else(Refused::not_found)?;
        if asks == Asks::Act {
            order = Order::clone(&*self.gate.begin_acme_challenge(by.call, id, (at, kind)).await?);
        }
        let one = is_there(&order).ok_or_else(Refused::not_found)?;
        let waits = one.status == ChallengeStatus::Processing;
        Ok(Answer::json(reply::challenge(&self.acme.urls, &order, at, &one))
            .up(self.acme.urls.of(Route::Authorization(id, at)))
            .retry_after(waits.then_some(ASK_AGAIN_S)))
    }

    async fn revoke(&self, by: Revoker<'_>, said: &Verified) -> Result<Answer, Refused> {
        let asked = Revoke::read(said)?;
        self.gate.revoke_by_acme(by, &asked.certificate, asked.reason).await?;
        Ok(Answer::empty(200))
    }

    /// Finds an order of the account; another's is as none.
    fn order(&self, by: &Requester, id: &AcmeOrderId) -> Result<Order, Refused> {
        self.gate.acme_order(&by.account, id).ok_or_else(Refused::not_found)
    }

    fn told(&self, order: &Order) -> Answer {
        let waits = order.status == OrderStatus::Processing;
        Answer::json(reply::order(&self.acme.urls, order))
            .location(self.acme.urls.of(Route::Order(order.id)))
            .retry_after(waits.then_some(ASK_AGAIN_S))
    }

    fn told_account(&self, account: &keymill_core::acme::Account) -> Answer {
        Answer::json(reply::account(&self.acme.urls, account))
            .location(self.acme.urls.of(Route::Account(account.id)))
    }
}

fn is_own(by: &Requester, id: AcmeAccountId) -> Result<(), Refused> {
    match by.account.id == id {
        true => Ok(()),
        false => Err(Problem::new(ProblemKind::Unauthorized, "the account is another's").into()),
    }
}
