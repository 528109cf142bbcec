//! The published accounts and orders of ACME; read by all and written by the ACME actor alone. How they change is `keymill_core::acme`'s to say.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keymill_core::acme::{Account, AccountStatus, ChallengeKind, ChallengeStatus, Order, OrderStatus};
use keymill_core::id::{AcmeAccountId, AcmeOrderId, AuthorityName, CertificateId, ClientKeyId, ProfileName};
use keymill_core::seam::validator::Validator;
use keymill_core::time::Timestamp;
use parking_lot::RwLock;

use crate::validation::Look;

/// How ACME is offered.
#[derive(Clone)]
pub struct AcmeConfig {
    /// Where clients reach the server: scheme, host and port.
    pub url: String,
    /// The authority that issues.
    pub authority: AuthorityName,
    /// By which of its profiles.
    pub profile: ProfileName,
    /// Who looks for proofs, one a kind of challenge.
    pub validators: Vec<Arc<dyn Validator>>,
    /// Looks at once, each on a thread.
    pub threads: usize,
    /// Looks that wait for a thread; beyond them they are come upon again.
    pub queue: usize,
    /// How long a look may take.
    pub look_timeout: Duration,
    /// How often a proof is looked for before it counts as not there.
    pub looks: u32,
    /// How long a challenge rests between two looks.
    pub rest: Duration,
    /// How often it is looked for what is left to do, and what is over.
    pub check: Duration,
}

impl AcmeConfig {
    /// Returns the defaults of all but who issues, and who looks.
    pub fn new(
        url: String,
        authority: AuthorityName,
        profile: ProfileName,
        validators: Vec<Arc<dyn Validator>>,
    ) -> Self {
        Self {
            url,
            authority,
            profile,
            validators,
            threads: 4,
            queue: 1_024,
            look_timeout: Duration::from_secs(10),
            looks: 3,
            rest: Duration::from_secs(3),
            check: Duration::from_secs(30),
        }
    }

    /// Returns the kinds of challenges that somebody looks for.
    pub(crate) fn kinds(&self) -> Vec<ChallengeKind> {
        self.validators.iter().map(|validator| validator.kind()).collect()
    }
}

impl fmt::Debug for AcmeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AcmeConfig({}, {}, {})", self.url, self.authority, self.profile)
    }
}

/// The accounts and orders.
#[derive(Default)]
pub(crate) struct AcmeBook(RwLock<Held>);

#[derive(Default)]
struct Held {
    accounts: HashMap<AcmeAccountId, Arc<Account>>,
    /// By the thumbprints of their keys; an account that has ended keeps its own.
    by_key: HashMap<String, AcmeAccountId>,
    orders: HashMap<AcmeOrderId, Arc<Order>>,
    /// The newest last.
    of_account: HashMap<AcmeAccountId, BTreeSet<(Timestamp, AcmeOrderId)>>,
    by_certificate: HashMap<CertificateId, AcmeOrderId>,
}

impl AcmeBook {
    /// Makes it of records.
    pub(crate) fn of(accounts: Vec<Account>, orders: Vec<Order>) -> Self {
        let book = Self::default();
        accounts.into_iter().for_each(|account| drop(book.put_account(account)));
        orders.into_iter().for_each(|order| drop(book.put_order(order)));
        book
    }

    pub(crate) fn account(&self, id: &AcmeAccountId) -> Option<Arc<Account>> {
        self.0.read().accounts.get(id).cloned()
    }

    /// Finds the account that a key signs for.
    pub(crate) fn account_of_key(&self, thumbprint: &str) -> Option<Arc<Account>> {
        let held = self.0.read();
        held.accounts.get(held.by_key.get(thumbprint)?).cloned()
    }

    pub(crate) fn order(&self, id: &AcmeOrderId) -> Option<Arc<Order>> {
        self.0.read().orders.get(id).cloned()
    }

    /// Finds the order that a certificate came of.
    pub(crate) fn order_of_certificate(&self, id: &CertificateId) -> Option<Arc<Order>> {
        let held = self.0.read();
        held.orders.get(held.by_certificate.get(id)?).cloned()
    }

    /// Returns the orders of an account, the newest last.
    pub(crate) fn orders_of(&self, account: &AcmeAccountId) -> Vec<Arc<Order>> {
        let held = self.0.read();
        let own = held.of_account.get(account).into_iter().flatten();
        own.filter_map(|(_, id)| held.orders.get(id).cloned()).collect()
    }

    /// Returns how many accounts there are, and how many of them a client key has bound that have not ended.
    pub(crate) fn counts(&self, binding: &ClientKeyId) -> (usize, usize) {
        let held = self.0.read();
        let is_bound =
            |account: &&Arc<Account>| account.binding == *binding && account.status == AccountStatus::Valid;
        (held.accounts.len(), held.accounts.values().filter(is_bound).count())
    }

    /// Returns how many accounts and orders there are.
    pub(crate) fn len(&self) -> (usize, usize) {
        let held = self.0.read();
        (held.accounts.len(), held.orders.len())
    }

    /// Returns the proofs that are to be looked for, and the orders whose issuing was cut short.
    pub(crate) fn unfinished(&self) -> (Vec<Look>, Vec<AcmeOrderId>) {
        let held = self.0.read();
        let (mut looks, mut cut) = (Vec::new(), Vec::new());
        for order in held.orders.values() {
            match order.status {
                OrderStatus::Processing => cut.push(order.id),
                OrderStatus::Pending => looks.extend(looks_of(order)),
                _ => {}
            }
        }
        (looks, cut)
    }

    /// Returns orders that are kept no longer, and accounts that have ended and have none any more; some at a time.
    pub(crate) fn over(&self, now: Timestamp) -> (Vec<AcmeOrderId>, Vec<AcmeAccountId>) {
        const AT_ONCE: usize = 256;
        let held = self.0.read();
        let orders = held.orders.values().filter(|order| order.kept_until() <= now);
        let is_idle = |account: &&Arc<Account>| {
            let orders = held.of_account.get(&account.id);
            account.status != AccountStatus::Valid && orders.is_none_or(BTreeSet::is_empty)
        };
        let accounts = held.accounts.values().filter(is_idle);
        (
            orders.take(AT_ONCE).map(|order| order.id).collect(),
            accounts.take(AT_ONCE).map(|account| account.id).collect(),
        )
    }

    pub(crate) fn put_account(&self, account: Account) -> Arc<Account> {
        let mut held = self.0.write();
        let account = Arc::new(account);
        if let Some(before) = held.accounts.insert(account.id, account.clone()) {
            held.by_key.remove(&before.key.thumbprint);
        }
        held.by_key.insert(account.key.thumbprint.clone(), account.id);
        account
    }

    pub(crate) fn put_order(&self, order: Order) -> Arc<Order> {
        let mut held = self.0.write();
        let order = Arc::new(order);
        held.of_account.entry(order.account).or_default().insert((order.created, order.id));
        if let Some(issued) = &order.issued {
            held.by_certificate.insert(issued.certificate, order.id);
        }
        held.orders.insert(order.id, order.clone());
        order
    }

    pub(crate) fn remove_order(&self, id: &AcmeOrderId) {
        let mut held = self.0.write();
        let Some(order) = held.orders.remove(id) else { return };
        if let Some(own) = held.of_account.get_mut(&order.account) {
            own.remove(&(order.created, *id));
        }
        if let Some(issued) = &order.issued {
            held.by_certificate.remove(&issued.certificate);
        }
    }

    pub(crate) fn remove_account(&self, id: &AcmeAccountId) {
        let mut held = self.0.write();
        held.of_account.remove(id);
        if let Some(account) = held.accounts.remove(id) {
            held.by_key.remove(&account.key.thumbprint);
        }
    }
}

/// Returns the proofs of an order that are to be looked for.
fn looks_of(order: &Order) -> impl Iterator<Item = Look> + '_ {
    order.authorizations.iter().enumerate().flat_map(move |(index, authorization)| {
        let begun = authorization.challenges.iter().filter(|one| one.status == ChallengeStatus::Processing);
        begun.map(move |one| Look { order: order.id, index, kind: one.kind })
    })
}

#[cfg(test)]
mod tests {
    use keymill_core::acme::{AccountKey, Issued};

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    fn account(n: u8, key: &str) -> Account {
        Account {
            id: AcmeAccountId::from_random([n; 16]),
            key: AccountKey { jwk: "{}".into(), thumbprint: key.into() },
            contact: vec![],
            status: AccountStatus::Valid,
            aap: "web".parse().unwrap(),
            binding: "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".parse().unwrap(),
            created: NOW,
        }
    }

    fn order(n: u8, of: &Account) -> Order {
        let id = AcmeOrderId::from_random([n; 16]);
        let names = vec!["a.example".parse().unwrap()];
        Order::place(id, of.id, names, &ChallengeKind::ALL, NOW, &mut || Ok([n; 32])).unwrap()
    }

    #[test]
    fn an_account_is_found_by_the_key_that_it_has_now() {
        let book = AcmeBook::of(vec![account(1, "a"), account(2, "b")], vec![]);
        assert_eq!(book.account_of_key("a").unwrap().id, account(1, "a").id);
        book.put_account(account(1, "c"));
        assert!(book.account_of_key("a").is_none());
        assert_eq!(book.account_of_key("c").unwrap().id, account(1, "c").id);
        assert_eq!(book.counts(&account(1, "a").binding), (2, 2));
        book.put_account(Account { status: AccountStatus::Deactivated, ..account(2, "b") });
        assert_eq!(book.counts(&account(1, "a").binding), (2, 1));
        assert!(book.account_of_key("b").is_some(), "its key makes no other account");
    }

    #[test]
    fn what_is_left_to_do_is_come_upon() {
        let own = account(1, "a");
        let (mut begun, mut cut) = (order(1, &own), order(2, &own));
        begun.begin(0, ChallengeKind::Dns01, NOW).unwrap();
        cut.begin(0, ChallengeKind::Http01, NOW).unwrap();
        cut.judge(0, ChallengeKind::Http01, Ok(()), true, NOW);
        cut.finalize(NOW).unwrap();
        let book = AcmeBook::of(vec![own.clone()], vec![begun.clone(), cut.clone(), order(3, &own)]);
        let look = Look { order: begun.id, index: 0, kind: ChallengeKind::Dns01 };
        assert_eq!(book.unfinished(), (vec![look], vec![cut.id]));
        assert_eq!(book.orders_of(&own.id).len(), 3);
    }

    #[test]
    fn what_is_over_goes_and_an_account_that_has_ended_goes_last() {
        let own = Account { status: AccountStatus::Deactivated, ..account(1, "a") };
        let mut issued = order(1, &own);
        let certificate = CertificateId::from_bytes([7; 16]);
        issued.issued = Some(Issued { certificate, not_after: NOW.plus(Duration::from_secs(90 * 86_400)) });
        let book = AcmeBook::of(vec![own.clone()], vec![issued.clone()]);
        assert_eq!(book.order_of_certificate(&certificate).unwrap().id, issued.id);
        assert_eq!(book.over(NOW.plus(Duration::from_secs(60 * 86_400))), (vec![], vec![]));
        let late = NOW.plus(Duration::from_secs(90 * 86_400));
        assert_eq!(book.over(late), (vec![issued.id], vec![]));
        book.remove_order(&issued.id);
        assert!(book.order_of_certificate(&certificate).is_none());
        assert_eq!(book.over(late), (vec![], vec![own.id]));
        book.remove_account(&own.id);
        assert_eq!(book.len(), (0, 0));
    }
}
