//! The ACME actor: owns accounts and orders, and publishes them. What may become of one is decided by pure rules; here it is committed, and then
//! published.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use keymill_core::acme::{
    Account, AccountKey, AccountStatus, Begun, ChallengeKind, Issued, Order, Outcome, Problem, ProblemKind,
};
use keymill_core::audit::RecordStamp;
use keymill_core::error::{Error, Result};
use keymill_core::id::{AapName, AcmeAccountId, AcmeOrderId, ClientKeyId};
use keymill_core::limit;
use keymill_core::seam::store::Path;
use keymill_core::time::Timestamp;
use keymill_crypto::digest;

use super::follow::{self, Follows, catches_up};
use super::ledger::{Draft, Ledger};
use super::{Changed, MAILBOX};
use crate::cluster::{Owner, Written};
use crate::keyring::{Ended, Stamp};
use crate::records::{self, EndedRecord, Kind};
use crate::scan::What;
use crate::shared::Shared;

/// Owns accounts and orders.
pub struct AcmeActor {
    shared: Arc<Shared>,
    ledger: Ledger,
}

/// Keeps a new account, unless its key has one. Its id comes of that.
#[derive(Clone)]
pub(crate) struct Register {
    pub(crate) key: AccountKey,
    pub(crate) contact: Vec<String>,
    pub(crate) aap: AapName,
    pub(crate) binding: ClientKeyId,
}

/// Changes an account.
pub(crate) struct ChangeAccount {
    pub(crate) id: AcmeAccountId,
    pub(crate) change: AccountChange,
}

/// What is changed of an account.
#[derive(Debug)]
pub enum AccountChange {
    /// Where its holder is reached.
    Contact(Vec<String>),
    /// Its holder ends it.
    Deactivate,
    /// Its key, by who holds both.
    Key {
        /// The key that it is said to have.
        old: AccountKey,
        /// The one from now on.
        new: AccountKey,
    },
}

/// Keeps a new order.
pub(crate) struct Place(pub(crate) Order);

/// Changes an order.
pub(crate) struct ChangeOrder {
    pub(crate) id: AcmeOrderId,
    pub(crate) change: OrderChange,
}

/// What happened to an order.
#[derive(Debug)]
pub(crate) enum OrderChange {
    Begin(usize, ChallengeKind),
    GiveUp(usize),
    Judge { index: usize, kind: ChallengeKind, found: Outcome<()>, is_last: bool },
    Finalize,
    Issue(Issued),
    Resume,
}

/// An order after a change, and whether that changed it.
pub(crate) struct AfterChange {
    pub(crate) order: Arc<Order>,
    pub(crate) has_changed: bool,
}

/// Removes orders and accounts that are over.
pub(crate) struct Forget(pub(crate) Vec<AcmeOrderId>, pub(crate) Vec<AcmeAccountId>);

macro_rules! messages {
    ($($message:ty => $value:ty;)*) => {
        $(impl Message for $message { type Result = Outcome<Changed<$value>>; })*
    };
}

messages! {
    Register => (Arc<Account>, bool);
    ChangeAccount => Arc<Account>;
    Place => Arc<Order>;
    ChangeOrder => AfterChange;
    Forget => ();
}

impl AcmeActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<String, Stamp>,
        ended: HashMap<String, Ended>,
    ) -> Self {
        Self { ledger: Ledger::new(shared.clone(), stamps, ended), shared }
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn keep_account(&mut self, account: Account) -> Outcome<Changed<Arc<Account>>> {
        self.keep_account_with(account, None)
    }

    fn keep_account_with(
        &mut self,
        account: Account,
        claim: Option<Draft>,
    ) -> Outcome<Changed<Arc<Account>>> {
        let path = records::acme_account_path(&account.id);
        let mut drafts = vec![self.ledger.put(path, Kind::AcmeAccount, &account)?];
        drafts.extend(claim);
        let writes = self.ledger.commit(None, drafts)?;
        Ok(Changed { value: self.shared.acme.put_account(account), keys: Vec::new(), writes })
    }

    fn keep_order(&mut self, order: Order) -> Outcome<Changed<Arc<Order>>> {
        let path = records::acme_order_path(&order.id);
        let writes = self.ledger.commit(None, vec![self.ledger.put(path, Kind::AcmeOrder, &order)?])?;
        Ok(Changed { value: self.shared.acme.put_order(order), keys: Vec::new(), writes })
    }

    /// Returns the id that the next account of a key has: the same on every node, so that two who make one at once write to one path.
    fn next_id(&self, thumbprint: &str) -> AcmeAccountId {
        let ids = (0_u32..).map(|number| account_id(thumbprint, number));
        ids.into_iter().find(|id| self.shared.acme.account(id).is_none()).expect("accounts are bounded")
    }

    /// Finds the account of a key; what is answered without a commit must not be of an older view.
    fn known(&mut self, thumbprint: &str) -> Outcome<Option<Arc<Account>>> {
        let Some(known) = self.shared.acme.account_of_key(thumbprint) else { return Ok(None) };
        if self.shared.cluster.is_none() {
            return Ok(Some(known));
        }
        let path = records::acme_account_path(&known.id);
        let stands = self.shared.store.get(&path).map_err(Error::from)?.map(|stored| stored.revision);
        if stands != self.ledger.stamp(&path).map(|stamp| stamp.revision) {
            self.refresh(&path)?;
        }
        Ok(self.shared.acme.account_of_key(thumbprint))
    }

    /// Takes over what stands at a path; where that is the word of another account's that has come to the key, that account.
    fn refresh(&mut self, path: &Path) -> Result<()> {
        let shared = self.shared.clone();
        follow::refresh(self, &shared, path.as_str())?;
        let stored = shared.store.get(path)?.filter(|stored| records::says_ended(&stored.value));
        let opened = stored.and_then(|stored| {
            records::open::<EndedRecord>(&shared.sealer, path, Kind::Ended, &stored.value).ok()
        });
        let holder = opened.and_then(|(record, ..)| record.name).and_then(|name| AcmeAccountId::parse(&name));
        holder.map_or(Ok(()), |id| follow::refresh(self, &shared, records::acme_account_path(&id).as_str()))
    }

    /// Drafts that a key is an account's from now on: whoever makes another one for it at the same time is told so by the store.
    fn claim_key(&self, thumbprint: &str, holder: &AcmeAccountId) -> Result<Option<Draft>> {
        if self.shared.cluster.is_none() {
            return Ok(None);
        }
        let path = records::acme_account_path(&self.next_id(thumbprint));
        let record = EndedRecord { at: self.now(), name: Some(holder.to_string().into()) };
        self.ledger.put_end(path, &record).map(Some)
    }

    fn register(&mut self, asked: Register) -> Outcome<Changed<(Arc<Account>, bool)>> {
        // Two requests at once with one key make one account.
        let Register { key, contact, aap, binding } = asked;
        if let Some(known) = self.known(&key.thumbprint)? {
            known.check()?;
            return Ok(Changed { value: (known, false), keys: Vec::new(), writes: Vec::new() });
        }
        let (all, bound) = self.shared.acme.counts(&binding);
        let why = match () {
            () if all >= limit::ACME_ACCOUNTS => format!("there are {all} accounts, which is the limit"),
            () if bound >= limit::ACME_BOUND_ACCOUNTS => {
                format!("the binding has bound {bound} accounts, which is the limit")
            }
            () => {
                let id = self.next_id(&key.thumbprint);
                let path = records::acme_account_path(&id);
                let (status, created) = (AccountStatus::Valid, self.now());
                let kept = self.keep_account(Account { id, key, contact, status, aap, binding, created });
                let Changed { value, keys, writes } = match kept {
                    Err(problem) if self.shared.cluster.is_some() => {
                        // Where another node came first, whoever asks once more finds what that made.
                        self.refresh(&path)?;
                        return Err(problem);
                    }
                    kept => kept?,
                };
                return Ok(Changed { value: (value, true), keys, writes });
            }
        };
        Err(Problem::new(ProblemKind::RateLimited, why))
    }

    /// Checks that an account may have another order.
    fn check_room(&self, order: &Order) -> Outcome<()> {
        let own = self.shared.acme.orders_of(&order.account);
        let open = own.iter().filter(|own| own.is_open() && self.now() < own.expires).count();
        let (_, all) = self.shared.acme.len();
        let why = match () {
            () if open >= limit::ACME_OPEN_ORDERS => {
                format!("the account has {open} orders that wait, which is the limit")
            }
            () if own.len() >= limit::ACME_KEPT_ORDERS => {
                format!("the account has {} orders, which is the limit", own.len())
            }
            () if all >= limit::ACME_ORDERS => format!("there are {all} orders, which is the limit"),
            () => return Ok(()),
        };
        Err(Problem::new(ProblemKind::RateLimited, why).retry_after_s(3_600))
    }
}

impl OrderChange {
    /// Returns whether it changes an order.
    fn apply(self, order: &mut Order, now: Timestamp) -> Outcome<bool> {
        Ok(match self {
            OrderChange::Begin(index, kind) => order.begin(index, kind, now)? == Begun::Look,
            OrderChange::GiveUp(index) => {
                let before = order.clone();
                order.give_up(index, now)?;
                *order != before
            }
            OrderChange::Judge { index, kind, found, is_last } => {
                order.judge(index, kind, found, is_last, now)
            }
            OrderChange::Finalize => order.finalize(now).map(|()| true)?,
            OrderChange::Issue(issued) => order.issue(issued),
            OrderChange::Resume => order.resume(),
        })
    }
}

impl Handler<Register> for AcmeActor {
    type Result = Outcome<Changed<(Arc<Account>, bool)>>;

    fn handle(&mut self, asked: Register, _: &mut Context<Self>) -> Self::Result {
        let thumbprint = asked.key.thumbprint.clone();
        match self.register(asked.clone()) {
            // Another node made it at the same time.
            Err(_) if self.shared.acme.account_of_key(&thumbprint).is_some() => self.register(asked),
            registered => registered,
        }
    }
}

/// Returns the id of an account by the key that it is made with: the first, or a later one where an account of that id has come to another key.
fn account_id(thumbprint: &str, number: u32) -> AcmeAccountId {
    let digest = digest::sha256(format!("keymill acme account\0{number}\0{thumbprint}").as_bytes());
    AcmeAccountId::from_random(*digest.first_chunk().expect("a digest has 32 bytes"))
}

impl Handler<ChangeAccount> for AcmeActor {
    type Result = Outcome<Changed<Arc<Account>>>;

    fn handle(&mut self, message: ChangeAccount, _: &mut Context<Self>) -> Self::Result {
        let ChangeAccount { id, change } = message;
        let gone = || Problem::new(ProblemKind::AccountDoesNotExist, "the account does not exist");
        let mut account = Account::clone(&*self.shared.acme.account(&id).ok_or_else(gone)?);
        account.check()?;
        match change {
            AccountChange::Contact(contact) => account.contact = contact,
            AccountChange::Deactivate => account.end(AccountStatus::Deactivated)?,
            AccountChange::Key { old, new } => {
                if self.shared.acme.account_of_key(&new.thumbprint).is_some_and(|other| other.id != id) {
                    let why = "the new key is that of another account";
                    return Err(Problem::new(ProblemKind::Malformed, why));
                }
                let claim = self.claim_key(&new.thumbprint, &id)?;
                account.change_key(&old, new)?;
                return self.keep_account_with(account, claim);
            }
        }
        self.keep_account(account)
    }
}

impl Handler<Place> for AcmeActor {
    type Result = Outcome<Changed<Arc<Order>>>;

    fn handle(&mut self, Place(order): Place, _: &mut Context<Self>) -> Self::Result {
        self.check_room(&order)?;
        self.keep_order(order)
    }
}

impl Handler<ChangeOrder> for AcmeActor {
    type Result = Outcome<Changed<AfterChange>>;

    fn handle(&mut self, message: ChangeOrder, _: &mut Context<Self>) -> Self::Result {
        let ChangeOrder { id, change } = message;
        let gone = || Problem::new(ProblemKind::Malformed, "the order does not exist");
        let before = self.shared.acme.order(&id).ok_or_else(gone)?;
        let mut order = Order::clone(&before);
        let now = self.now();
        if !change.apply(&mut order, now)? {
            let value = AfterChange { order: before, has_changed: false };
            return Ok(Changed { value, keys: Vec::new(), writes: Vec::new() });
        }
        let Changed { value: order, keys, writes } = self.keep_order(order)?;
        Ok(Changed { value: AfterChange { order, has_changed: true }, keys, writes })
    }
}

impl Handler<Forget> for AcmeActor {
    type Result = Outcome<Changed<()>>;

    fn handle(&mut self, Forget(orders, accounts): Forget, _: &mut Context<Self>) -> Self::Result {
        let of_orders = orders.iter().map(|id| self.ledger.remove(records::acme_order_path(id)));
        let of_accounts = accounts.iter().map(|id| self.ledger.remove(records::acme_account_path(id)));
        let pending = of_orders.chain(of_accounts).collect::<Result<Vec<_>>>()?;
        let writes = self.ledger.commit(None, pending)?;
        orders.iter().for_each(|id| self.shared.acme.remove_order(id));
        accounts.iter().for_each(|id| self.shared.acme.remove_account(id));
        Ok(Changed { value: (), keys: Vec::new(), writes })
    }
}

catches_up!(AcmeActor);

/// What other nodes did to an account or an order.
enum Followed {
    Account(Account),
    Order(Order),
    EndOfAccount(AcmeAccountId),
    EndOfOrder(AcmeOrderId),
}

/// Returns what a record comes to, with its sequence number; why it cannot be used, else.
fn followed(path: &str, what: What) -> std::result::Result<(Followed, u64), String> {
    match what {
        What::AcmeAccount(opened) => opened.map(|(account, at)| (Followed::Account(account), at)),
        What::AcmeOrder(opened) => opened.map(|(order, at)| (Followed::Order(order), at)),
        What::Ended(opened) => {
            let (_, at) = opened?;
            end_of(path).map(|ended| (ended, at)).ok_or_else(|| "nobody's record".to_owned())
        }
        _ => Err("it is of no kind that stands there".to_owned()),
    }
}

/// Returns what the end of the record at a path comes to.
fn end_of(path: &str) -> Option<Followed> {
    let account = || path.strip_prefix("acme-account/").and_then(AcmeAccountId::parse);
    let order = || path.strip_prefix("acme-order/").and_then(AcmeOrderId::parse);
    order().map(Followed::EndOfOrder).or_else(|| account().map(Followed::EndOfAccount))
}

impl Follows for AcmeActor {
    const OWNER: Owner = Owner::Acme;

    fn follow(&mut self, commit: Vec<Written>) -> Vec<RecordStamp> {
        let (taken, changes) = self.ledger.follow(commit, followed, end_of);
        for change in changes {
            match change {
                Followed::Account(account) => drop(self.shared.acme.put_account(account)),
                Followed::Order(order) => drop(self.shared.acme.put_order(order)),
                Followed::EndOfAccount(id) => self.shared.acme.remove_account(&id),
                Followed::EndOfOrder(id) => self.shared.acme.remove_order(&id),
            }
        }
        taken
    }
}

impl Actor for AcmeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(self.shared.config.deletion_check, |actor, _| actor.ledger.purge());
    }
}
