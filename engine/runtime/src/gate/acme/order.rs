//! Orders of ACME: placed for names that the access point may ask for, shown held, and issued by the internal CA like any other certificate.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::Resource;
use keymill_core::acme::{
    Account, ChallengeKind, Issued, Order, OrderStatus, Outcome, Problem, ProblemKind, asked_for,
};
use keymill_core::certificate::{AltName, AttributeKind};
use keymill_core::error::{Error, ErrorClass, ErrorKind, Result};
use keymill_core::id::{AcmeOrderId, AuthorityName};
use keymill_core::operation::{IssueCertificateRequest, Operation, Reply, Request};
use keymill_crypto::random;
use keymill_x509::{SigningRequest, pem};

use super::super::{Ask, Call, Gate, Opened};
use crate::acme::AcmeConfig;
use crate::actor::acme::{AfterChange, ChangeOrder, Forget, OrderChange, Place};
use crate::validation::Look;
use crate::work::{Cancel, Sheet};

impl Gate {
    /// Returns an order of an account as it stands now.
    pub fn acme_order(&self, account: &Account, id: &AcmeOrderId) -> Option<Order> {
        let order = self.0.shared.acme.order(id).filter(|order| order.account == account.id)?;
        let mut order = Order::clone(&order);
        order.expire(self.now());
        Some(order)
    }

    /// Lists the orders of an account of which something came or may come, the newest first.
    pub fn acme_orders(&self, account: &Account) -> Vec<AcmeOrderId> {
        let now = self.now();
        let is_told = |order: &&Arc<Order>| match order.status {
            OrderStatus::Invalid => false,
            OrderStatus::Pending | OrderStatus::Ready => now < order.expires,
            OrderStatus::Processing | OrderStatus::Valid => true,
        };
        self.0.shared.acme.orders_of(&account.id).iter().rev().filter(is_told).map(|order| order.id).collect()
    }

    /// Places an order.
    ///
    /// # Errors
    /// `Unauthorized` where the access point may have nothing issued, `RejectedIdentifier` for names that it may not ask for, and those of
    /// [`Order::place`].
    pub async fn place_acme_order(
        &self,
        call: Call,
        account: &Account,
        names: Vec<AltName>,
    ) -> Outcome<Arc<Order>> {
        let config = self.offered()?;
        self.check_names(&call, config, &names)?;
        let id = AcmeOrderId::from_random(random::array().map_err(Error::from)?);
        let mut draw = || random::array().map_err(Error::from);
        let order = Order::place(id, account.id, names, &config.kinds(), self.now(), &mut draw)?;
        let gate = self.clone();
        self.to_the_end(async move {
            let came = gate.0.actors.acme(Place(order)).await;
            gate.kept(&call, "AcmeNewOrder", "the access point may ask for its names", came).await
        })
        .await
    }

    /// Takes the word of an account that a proof is there, and has it looked for.
    ///
    /// # Errors
    /// Those of [`Order::begin`].
    pub async fn begin_acme_challenge(
        &self,
        call: Call,
        order: AcmeOrderId,
        (index, kind): (usize, ChallengeKind),
    ) -> Outcome<Arc<Order>> {
        let change = OrderChange::Begin(index, kind);
        let after = self.change_order(call, order, change, "AcmeAnswerChallenge").await?;
        if after.has_changed {
            self.0.shared.validations.submit(Look { order, index, kind });
        }
        Ok(after.order)
    }

    /// Gives an authorization up.
    ///
    /// # Errors
    /// Those of [`Order::give_up`].
    pub async fn give_up_acme_authorization(
        &self,
        call: Call,
        order: AcmeOrderId,
        index: usize,
    ) -> Outcome<Arc<Order>> {
        let after = self.change_order(call, order, OrderChange::GiveUp(index), "AcmeGiveUp").await?;
        Ok(after.order)
    }

    /// Has the certificate of an order issued for a request (PKCS #10, in DER); `account_key` is the key of the account, which is not to be that
    /// of the certificate as well (RFC 8555 §11.1).
    ///
    /// # Errors
    /// `OrderNotReady`; `BadCsr` for a request that is none, or is not of the order, or that the profile refuses; `Unauthorized` where the authority
    /// does not issue for the access point.
    pub async fn finalize_acme_order(
        &self,
        call: Call,
        order: &Order,
        csr: Vec<u8>,
        account_key: &[u8],
    ) -> Outcome<Arc<Order>> {
        let config = self.offered()?;
        // Before anything of the request is looked at: it is not to be told of an order that waits for proofs.
        if order.status != OrderStatus::Ready {
            order.clone().finalize(self.now())?;
        }
        check_request(order, &csr, account_key)?;
        let request = IssueCertificateRequest {
            authority_name: config.authority.clone(),
            profile: config.profile.clone(),
            csr: Some(pem("CERTIFICATE REQUEST", &csr)),
            subject: None,
            alt_names: Some(order.names().cloned().collect()),
            validity_days: None,
            key_spec: None,
            protection_level: None,
            exportable_private_key: None,
            auto_renew: Some(false),
            tags: None,
            timeout_ms: None,
        };
        let (gate, id) = (self.clone(), order.id);
        self.to_the_end(async move {
            let change = |change| gate.0.actors.acme(ChangeOrder { id, change });
            let came = change(OrderChange::Finalize).await;
            gate.kept(&call, "AcmeFinalize", "its names are shown held", came).await?;
            match gate.issue_for(&call, request).await {
                Ok(issued) => {
                    let came = change(OrderChange::Issue(issued)).await;
                    Ok(gate.kept(&call, "AcmeIssue", "issued", came).await?.order)
                }
                Err(error) => {
                    // Another request may come: this one changes nothing of what was shown.
                    let came = change(OrderChange::Resume).await;
                    gate.kept(&call, "AcmeResume", "not issued", came).await?;
                    Err(not_issued(error))
                }
            }
        })
        .await
    }

    /// Returns the certificate of an order in PEM, with those above it but the root.
    ///
    /// # Errors
    /// Where the order has none, or its bytes are not there.
    pub fn acme_certificate(&self, order: &Order) -> Outcome<String> {
        let none = || Problem::new(ProblemKind::Malformed, "the order has no certificate");
        let issued = order.issued.as_ref().ok_or_else(none)?;
        let entry = self.0.shared.keyring.certificates.find(&issued.certificate)?;
        let body = self.body_of(&entry)?;
        let leaf = body.certificate.ok_or_else(none)?;
        let all = std::iter::once(&leaf).chain(&body.chain);
        Ok(all.map(|der| pem("CERTIFICATE", &der.0)).collect())
    }

    /// Has what a validator found kept.
    pub(crate) async fn keep_found(&self, look: Look, found: Outcome<()>, is_last: bool) -> Outcome<()> {
        let Look { order: id, index, kind } = look;
        let rule = match &found {
            Ok(()) => "the proof was found",
            Err(_) if is_last => "the proof was not found",
            Err(_) => "the proof was not found yet",
        };
        let order = self.0.shared.acme.order(&id);
        let account = order.and_then(|order| self.0.shared.acme.account(&order.account));
        // What went meanwhile is judged no more.
        let Some(account) = account else { return Ok(()) };
        let call = self.call_of(&account.binding, &account.aap, None, Instant::now());
        let change = OrderChange::Judge { index, kind, found, is_last };
        let came = self.0.actors.acme(ChangeOrder { id, change }).await;
        self.kept(&call, "AcmeValidate", rule, came).await.map(drop)
    }

    /// Takes up what a start found unfinished.
    async fn resume_acme(&self, cut: Vec<AcmeOrderId>) {
        for id in cut {
            let Ok(call) = self.call_by_itself() else { return };
            let came = self.0.actors.acme(ChangeOrder { id, change: OrderChange::Resume }).await;
            let kept = self.kept(&call, "AcmeResume", "issuing was cut short", came).await;
            if let Err(problem) = kept {
                tracing::warn!(order = %id, %problem, "an order whose issuing was cut short could not be resumed");
            }
        }
    }

    /// Has looked for what is left to be looked for, and removes what is over.
    pub(crate) async fn look_after_acme(&self, seen: &mut Vec<AcmeOrderId>) {
        let shared = &self.0.shared;
        if !shared.keeps_time() {
            return;
        }
        let (looks, processing) = shared.acme.unfinished();
        looks.into_iter().for_each(|look| shared.validations.submit(look));
        // One that another node is at is not cut short: it is done with by the next look.
        let cut = processing.iter().filter(|id| seen.contains(id)).copied().collect::<Vec<_>>();
        *seen = processing;
        self.resume_acme(cut).await;
        let (orders, accounts) = shared.acme.over(self.now());
        if orders.is_empty() && accounts.is_empty() {
            return;
        }
        let Ok(call) = self.call_by_itself() else { return };
        let came = self.0.actors.acme(Forget(orders, accounts)).await;
        if let Err(problem) = self.kept(&call, "AcmeForget", "their time is over", came).await {
            tracing::warn!(%problem, "orders of ACME that are over could not be removed");
        }
    }

    async fn change_order(
        &self,
        call: Call,
        id: AcmeOrderId,
        change: OrderChange,
        name: &'static str,
    ) -> Outcome<AfterChange> {
        let gate = self.clone();
        self.to_the_end(async move {
            let came = gate.0.actors.acme(ChangeOrder { id, change }).await;
            gate.kept(&call, name, "signed by the account", came).await
        })
        .await
    }

    fn offered(&self) -> Outcome<&AcmeConfig> {
        self.acme().ok_or_else(|| Problem::new(ProblemKind::ServerInternal, "ACME is not offered here"))
    }

    /// Checks that an access point may have a certificate for names, as far as that can be told before there is a request: so that nobody shows
    /// what is then for nothing. Issuing decides anew.
    fn check_names(&self, call: &Call, config: &AcmeConfig, names: &[AltName]) -> Outcome<()> {
        let AcmeConfig { authority, profile, .. } = config;
        let shared = &self.0.shared;
        let (operation, resource) = (Operation::IssueCertificate, Resource::Authority(authority));
        let denied = || {
            let why =
                format!("the access point may not have certificates issued by the authority {authority}");
            Problem::new(ProblemKind::Unauthorized, why)
        };
        if !shared.decide(&call.principal, call.source, operation, resource).allowed {
            return Err(denied());
        }
        let entry = self.authority_of_acme(authority)?;
        let aap = call.principal.aap.as_ref();
        let own = entry.authority.access_points.iter().find(|own| Some(&own.access_point) == aap);
        let own = own.filter(|own| own.profiles.contains(profile)).ok_or_else(denied)?;
        let covers = |name: &&AltName| own.allowed_names.iter().any(|pattern| pattern.covers(name));
        let refused = names.iter().filter(|name| !covers(name)).map(|name| {
            let why = format!("the access point may not ask the authority {authority} for {name}");
            Problem::new(ProblemKind::RejectedIdentifier, why).of(name)
        });
        Problem::all(refused.collect()).map_or(Ok(()), Err)
    }

    fn authority_of_acme(&self, name: &AuthorityName) -> Outcome<Arc<crate::authorities::AuthorityEntry>> {
        let entry = self.0.shared.keyring.certificates.authorities.find(name);
        entry.map_err(|error| {
            tracing::error!(authority = %name, ?error, "the authority that ACME issues by is not there");
            Problem::new(ProblemKind::ServerInternal, "the authority of this server is not there")
        })
    }

    /// Has a certificate issued like any other, under the rights of the access point; the audit has it as such.
    async fn issue_for(&self, call: &Call, request: IssueCertificateRequest) -> Result<Issued> {
        let call = Call { request_id: self.request_id(), received: Instant::now(), ..call.clone() };
        let opened = self.open(Ask {
            call,
            request: Request::IssueCertificate(request),
            is_text: false,
            is_dry_run: false,
            frame: None,
            sheet: Sheet::default(),
            reply_to: None,
            cancel: Cancel::default(),
            ticket: 0,
        });
        let reply = match opened {
            Opened::Managed(managed) => self.manage(*managed).await?,
            // It was refused, and that is recorded where it is performed.
            Opened::Job(job) => {
                let error = self.perform(job)?.result.err();
                return Err(error.unwrap_or_else(|| Error::internal("issuing is a change")));
            }
        };
        match reply {
            Reply::IssueCertificate(reply) => {
                Ok(Issued { certificate: reply.certificate_id, not_after: reply.not_after })
            }
            other => Err(Error::internal(format!("{} is no issuing", other.operation().name()))),
        }
    }
}

/// Checks a request for the certificate of an order.
fn check_request(order: &Order, csr: &[u8], account_key: &[u8]) -> Outcome<()> {
    let bad = |why: &str| Problem::new(ProblemKind::BadCsr, why);
    // RFC 8555 §7.4: DER, and nothing else that the reader would take.
    if csr.first() != Some(&0x30) {
        return Err(bad("csr is a request (PKCS #10) in DER"));
    }
    let read = SigningRequest::read(csr).map_err(|error| bad(error.message()))?;
    let common_name = read.subject.as_ref().and_then(|subject| subject.first(AttributeKind::CommonName));
    asked_for(order, common_name, &read.alt_names)?;
    match read.public_key == account_key {
        true => Err(bad("the key of the account is not to be that of a certificate")),
        false => Ok(()),
    }
}

/// Tells a client why nothing was issued.
fn not_issued(error: Error) -> Problem {
    match error.kind().class() {
        ErrorClass::Invalid | ErrorClass::Unsupported => Problem::new(ProblemKind::BadCsr, error.message()),
        ErrorClass::Denied | ErrorClass::NotFound | ErrorClass::State => {
            Problem::new(ProblemKind::Unauthorized, error.message())
        }
        _ if error.kind() == ErrorKind::ApprovalNeeded => {
            Problem::new(ProblemKind::Unauthorized, error.message())
        }
        _ => error.into(),
    }
}
