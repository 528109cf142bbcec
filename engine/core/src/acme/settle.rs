//! The legal changes of an order and of what is in it (RFC 8555 §7.1.6), each a function of the record and of what happened. A change that is
//! not legal leaves all as it was.

use super::{
    AltName, Authorization, AuthorizationStatus, Challenge, ChallengeKind, ChallengeStatus, Issued, Order,
    OrderStatus, Outcome, Problem, ProblemKind,
};
use crate::time::Timestamp;

/// What came of the word that a proof is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is to be looked for.
    Look,
    /// It is being looked for, or was found.
    Already,
}

impl Order {
    /// Ends what has expired; tells whether anything changed. An order whose certificate is being issued does not expire.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        if now < self.expires {
            return false;
        }
        let mut changed = false;
        for authorization in &mut self.authorizations {
            let is_live = match authorization.status {
                AuthorizationStatus::Pending => !matches!(self.status, OrderStatus::Processing),
                AuthorizationStatus::Valid => true,
                _ => false,
            };
            if is_live {
                authorization.status = AuthorizationStatus::Expired;
                changed = true;
            }
        }
        if matches!(self.status, OrderStatus::Pending | OrderStatus::Ready) {
            self.fail(Problem::new(ProblemKind::Malformed, "the order expired"));
            changed = true;
        }
        changed
    }

    /// Takes the word of its holder that a proof is there.
    ///
    /// # Errors
    /// `Malformed` where there is no such challenge, or its authorization waits for none.
    pub fn begin(&mut self, index: usize, kind: ChallengeKind, now: Timestamp) -> Outcome<Begun> {
        self.expire(now);
        let (authorization, challenge) = self.find(index, kind)?;
        match (authorization, challenge.status) {
            (_, ChallengeStatus::Valid | ChallengeStatus::Processing) => Ok(Begun::Already),
            (AuthorizationStatus::Pending, ChallengeStatus::Pending) => {
                challenge.status = ChallengeStatus::Processing;
                Ok(Begun::Look)
            }
            _ => Err(Problem::new(ProblemKind::Malformed, "the authorization waits for no proof")),
        }
    }

    /// Takes what came of a look for a proof: found, or not and `is_last`, or to be looked for again. Tells whether anything changed: what came
    /// after the authorization was settled otherwise changes nothing.
    pub fn judge(
        &mut self,
        index: usize,
        kind: ChallengeKind,
        found: Outcome<()>,
        is_last: bool,
        now: Timestamp,
    ) -> bool {
        self.expire(now);
        let Ok((AuthorizationStatus::Pending, challenge)) = self.find(index, kind) else { return false };
        if challenge.status != ChallengeStatus::Processing {
            return false;
        }
        challenge.attempts += 1;
        let settled = match found {
            Ok(()) => {
                challenge.status = ChallengeStatus::Valid;
                challenge.validated = Some(now);
                challenge.problem = None;
                AuthorizationStatus::Valid
            }
            Err(problem) => {
                challenge.problem = Some(problem);
                if !is_last {
                    return true;
                }
                challenge.status = ChallengeStatus::Invalid;
                AuthorizationStatus::Invalid
            }
        };
        self.authorizations[index].status = settled;
        self.settle();
        true
    }

    /// Gives an authorization up (RFC 8555 §7.5.2).
    ///
    /// # Errors
    /// `Malformed` where there is none, or it is settled otherwise.
    pub fn give_up(&mut self, index: usize, now: Timestamp) -> Outcome<()> {
        self.expire(now);
        let malformed = |why: &str| Problem::new(ProblemKind::Malformed, why);
        let authorization =
            self.authorizations.get_mut(index).ok_or_else(|| malformed("no authorization"))?;
        match authorization.status {
            AuthorizationStatus::Pending | AuthorizationStatus::Valid => {
                authorization.status = AuthorizationStatus::Deactivated;
                self.settle();
                Ok(())
            }
            AuthorizationStatus::Deactivated => Ok(()),
            AuthorizationStatus::Invalid | AuthorizationStatus::Expired => {
                Err(malformed("the authorization is over"))
            }
        }
    }

    /// Has the certificate issued: from now on nothing but that settles the order.
    ///
    /// # Errors
    /// `OrderNotReady` unless every name is shown held and nothing was issued yet.
    pub fn finalize(&mut self, now: Timestamp) -> Outcome<()> {
        self.expire(now);
        let why = match self.status {
            OrderStatus::Ready => {
                self.status = OrderStatus::Processing;
                return Ok(());
            }
            OrderStatus::Pending => "names of the order are not yet shown held",
            OrderStatus::Processing => "the certificate is being issued",
            OrderStatus::Valid => "the certificate is issued",
            OrderStatus::Invalid => "nothing comes of the order any more",
        };
        Err(Problem::new(ProblemKind::OrderNotReady, why))
    }

    /// Takes the certificate that was issued. Tells whether the order waited for it.
    pub fn issue(&mut self, issued: Issued) -> bool {
        let is_waiting = self.status == OrderStatus::Processing;
        if is_waiting {
            self.status = OrderStatus::Valid;
            self.issued = Some(issued);
        }
        is_waiting
    }

    /// Has an order whose issuing failed, or was cut short, take another request (RFC 8555 §7.4: what is wrong with one leaves it ready). Tells
    /// whether it was one.
    pub fn resume(&mut self) -> bool {
        let is_cut = self.status == OrderStatus::Processing;
        if is_cut {
            self.status = OrderStatus::Ready;
        }
        is_cut
    }

    fn find(&mut self, index: usize, kind: ChallengeKind) -> Outcome<(AuthorizationStatus, &mut Challenge)> {
        let none = || Problem::new(ProblemKind::Malformed, "there is no such challenge");
        let Authorization { status, challenges, .. } = self.authorizations.get_mut(index).ok_or_else(none)?;
        let challenge = challenges.iter_mut().find(|challenge| challenge.kind == kind);
        Ok((*status, challenge.ok_or_else(none)?))
    }

    /// Has the order follow its authorizations.
    fn settle(&mut self) {
        if !matches!(self.status, OrderStatus::Pending | OrderStatus::Ready) {
            return;
        }
        let is = |status| move |authorization: &Authorization| authorization.status == status;
        let all = &self.authorizations;
        if all.iter().all(is(AuthorizationStatus::Valid)) {
            self.status = OrderStatus::Ready;
            return;
        }
        let waits =
            |a: &Authorization| matches!(a.status, AuthorizationStatus::Pending | AuthorizationStatus::Valid);
        if all.iter().all(waits) {
            return;
        }
        let failed = all.iter().filter(|authorization| !waits(authorization)).map(|authorization| {
            let found = authorization.challenges.iter().find_map(|challenge| challenge.problem.clone());
            let given_up = || Problem::new(ProblemKind::Unauthorized, "the authorization was given up");
            found.unwrap_or_else(given_up).of(&authorization.name)
        });
        if let Some(problem) = Problem::all(failed.collect()) {
            self.fail(problem);
        }
    }

    fn fail(&mut self, problem: Problem) {
        self.status = OrderStatus::Invalid;
        self.problem = Some(problem);
    }
}

/// Checks that a request for a certificate asks for the names of the order, all of them and no others (RFC 8555 §7.4). The subject's common name,
/// where there is one, is one of them.
///
/// # Errors
/// `BadCsr` with what is missing or too much.
pub fn asked_for(order: &Order, common_name: Option<&str>, alt_names: &[AltName]) -> Outcome<()> {
    let bad = |why: String| Err(Problem::new(ProblemKind::BadCsr, why));
    let common = match common_name {
        None => None,
        Some(text) => match text.parse::<AltName>() {
            Ok(name @ (AltName::Dns(_) | AltName::Ip(_))) => Some(name),
            _ => return bad("the common name is no name of the order".into()),
        },
    };
    let mut asked: Vec<_> = alt_names.iter().chain(&common).collect();
    asked.sort();
    asked.dedup();
    if let Some(more) = asked.iter().find(|name| !order.names().any(|ordered| ordered == **name)) {
        return bad(format!("{more} is not in the order"));
    }
    match order.names().find(|name| !asked.contains(name)) {
        Some(missing) => bad(format!("{missing} is in the order and not in the request")),
        None => Ok(()),
    }
}

/// Tells whether all of some names are shown held, now, by the orders of one account (RFC 8555 §7.6: who holds all names of a certificate may
/// revoke it).
pub fn holds_all<'o>(
    orders: impl Iterator<Item = &'o Order> + Clone,
    names: &[AltName],
    now: Timestamp,
) -> bool {
    let holds = |name: &AltName| {
        orders.clone().filter(|order| now < order.expires).any(|order| {
            let shown = |authorization: &Authorization| {
                authorization.name == *name && authorization.status == AuthorizationStatus::Valid
            };
            order.authorizations.iter().any(shown)
        })
    };
    !names.is_empty() && names.iter().all(holds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::order::tests::{NOW, placed};
    use super::*;

    const HTTP: ChallengeKind = ChallengeKind::Http01;
    const DNS: ChallengeKind = ChallengeKind::Dns01;

    fn late() -> Timestamp {
        NOW.plus(Duration::from_secs(90_000))
    }

    fn wrong() -> Outcome<()> {
        Err(Problem::new(ProblemKind::IncorrectResponse, "not it"))
    }

    fn ready(names: &[&str]) -> Order {
        let mut order = placed(names).unwrap();
        for index in 0..names.len() {
            let kind = order.authorizations[index].challenges[0].kind;
            assert_eq!(order.begin(index, kind, NOW).unwrap(), Begun::Look);
            assert!(order.judge(index, kind, Ok(()), true, NOW));
        }
        assert_eq!(order.status, OrderStatus::Ready);
        order
    }

    fn issued() -> Issued {
        Issued { certificate: crate::id::CertificateId::from_bytes([3; 16]), not_after: late() }
    }

    #[test]
    fn an_order_is_ready_once_every_name_is_shown_and_not_before() {
        let mut order = placed(&["a.example", "b.example"]).unwrap();
        assert_eq!(order.finalize(NOW).unwrap_err().kind, ProblemKind::OrderNotReady);
        order.begin(0, HTTP, NOW).unwrap();
        assert_eq!(order.begin(0, HTTP, NOW).unwrap(), Begun::Already);
        assert!(order.judge(0, HTTP, Ok(()), true, NOW));
        assert_eq!((order.status, order.finalize(NOW).is_err()), (OrderStatus::Pending, true));
        order.begin(1, DNS, NOW).unwrap();
        assert!(order.judge(1, DNS, Ok(()), true, NOW));
        assert_eq!(order.authorizations[1].challenges[1].validated, Some(NOW));
        order.finalize(NOW).unwrap();
        assert_eq!(order.status, OrderStatus::Processing);
        assert!(order.finalize(NOW).is_err(), "twice");
        assert!(order.issue(issued()));
        assert_eq!((order.status, order.is_open()), (OrderStatus::Valid, false));
        assert!(!order.issue(issued()) && order.finalize(NOW).is_err(), "one order, one certificate");
    }

    #[test]
    fn a_proof_that_was_not_found_the_last_time_ends_the_order() {
        let mut order = placed(&["a.example", "b.example"]).unwrap();
        order.begin(0, HTTP, NOW).unwrap();
        assert!(order.judge(0, HTTP, wrong(), false, NOW));
        assert_eq!(order.status, OrderStatus::Pending);
        assert_eq!(order.authorizations[0].challenges[0].attempts, 1);
        assert!(order.judge(0, HTTP, wrong(), true, NOW));
        assert_eq!(order.authorizations[0].status, AuthorizationStatus::Invalid);
        assert_eq!(order.status, OrderStatus::Invalid);
        let problem = order.problem.clone().unwrap();
        assert_eq!(problem.kind, ProblemKind::IncorrectResponse);
        assert_eq!(problem.name, Some(order.authorizations[0].name.clone()));
        assert!(order.begin(0, DNS, NOW).is_err(), "nor another way");
        assert!(!order.judge(0, HTTP, Ok(()), true, NOW), "nor later");
    }

    #[test]
    fn what_nobody_asked_to_look_for_is_not_found() {
        let mut order = placed(&["a.example"]).unwrap();
        assert!(!order.judge(0, HTTP, Ok(()), true, NOW));
        order.begin(0, HTTP, NOW).unwrap();
        assert!(!order.judge(0, DNS, Ok(()), true, NOW), "another way than the one begun");
        assert!(!order.judge(1, HTTP, Ok(()), true, NOW));
        assert_eq!(order.authorizations[0].status, AuthorizationStatus::Pending);
        assert!(
            order.begin(1, HTTP, NOW).is_err()
                && placed(&["*.a.example"]).unwrap().begin(0, HTTP, NOW).is_err()
        );
    }

    #[test]
    fn what_expires_is_over_but_what_is_being_issued_comes() {
        let mut waiting = placed(&["a.example"]).unwrap();
        assert!(!waiting.expire(NOW));
        assert!(waiting.begin(0, HTTP, late()).is_err());
        assert_eq!(waiting.status, OrderStatus::Invalid);
        assert_eq!(waiting.authorizations[0].status, AuthorizationStatus::Expired);
        assert!(!waiting.expire(late()), "once");

        let mut shown = ready(&["a.example"]);
        assert!(shown.finalize(late()).is_err());
        assert_eq!(shown.status, OrderStatus::Invalid);

        let mut coming = ready(&["a.example"]);
        coming.finalize(NOW).unwrap();
        coming.expire(late());
        assert!(coming.issue(issued()));
        assert_eq!(coming.status, OrderStatus::Valid);
    }

    #[test]
    fn a_proof_that_is_found_when_it_is_too_late_changes_nothing() {
        let mut order = placed(&["a.example"]).unwrap();
        order.begin(0, HTTP, NOW).unwrap();
        assert!(!order.judge(0, HTTP, Ok(()), true, late()));
        assert_eq!(order.status, OrderStatus::Invalid);
    }

    #[test]
    fn who_gives_an_authorization_up_gives_the_order_up() {
        let mut order = ready(&["a.example", "b.example"]);
        order.give_up(1, NOW).unwrap();
        assert_eq!(order.status, OrderStatus::Invalid);
        order.give_up(1, NOW).unwrap();
        assert!(order.give_up(2, NOW).is_err());
        let mut issued_one = ready(&["a.example"]);
        issued_one.finalize(NOW).unwrap();
        issued_one.issue(issued());
        issued_one.give_up(0, NOW).unwrap();
        assert_eq!(issued_one.status, OrderStatus::Valid, "the certificate stands");
        let mut over = placed(&["a.example"]).unwrap();
        assert!(over.give_up(0, late()).is_err());
    }

    #[test]
    fn issuing_that_failed_or_was_cut_short_is_asked_for_again() {
        let mut order = ready(&["a.example"]);
        assert!(!order.resume() && !order.issue(issued()));
        order.finalize(NOW).unwrap();
        assert!(order.resume());
        assert_eq!(order.status, OrderStatus::Ready);
        order.finalize(NOW).unwrap();
        assert!(order.issue(issued()));
        assert!(!order.resume());
    }

    #[test]
    fn a_request_asks_for_the_names_of_the_order_and_no_others() {
        let order = placed(&["a.example", "*.a.example", "10.0.0.1"]).unwrap();
        let names = |list: &[&str]| list.iter().map(|name| name.parse().unwrap()).collect::<Vec<AltName>>();
        let all = ["*.a.example", "10.0.0.1", "a.example"];
        asked_for(&order, None, &names(&all)).unwrap();
        asked_for(&order, Some("A.example"), &names(&all)).unwrap();
        asked_for(&order, Some("10.0.0.1"), &names(&["a.example", "*.a.example"])).unwrap();
        for (common, list, told) in [
            (None, &all[..2], "not in the request"),
            (None, &[][..], "not in the request"),
            (None, &["a.example", "*.a.example", "10.0.0.1", "b.example"], "not in the order"),
            (Some("b.example"), &all[..], "not in the order"),
            (Some("Acme Web Server"), &all[..], "common name"),
            (Some("email:a@a.example"), &all[..], "common name"),
            (None, &["a.example", "*.a.example", "10.0.0.1", "email:a@a.example"], "not in the order"),
        ] {
            let problem = asked_for(&order, common, &names(list)).unwrap_err();
            assert!(problem.kind == ProblemKind::BadCsr && problem.detail.contains(told), "{problem}");
        }
    }

    #[test]
    fn who_holds_all_names_now_may_revoke_and_who_held_them_may_not() {
        let orders = [ready(&["a.example"]), ready(&["b.example"]), placed(&["c.example"]).unwrap()];
        let name = |text: &str| text.parse::<AltName>().unwrap();
        let holds = |names: &[AltName], now| holds_all(orders.iter(), names, now);
        assert!(holds(&[name("a.example"), name("b.example")], NOW));
        assert!(!holds(&[name("a.example"), name("c.example")], NOW));
        assert!(!holds(&[name("*.a.example")], NOW) && !holds(&[], NOW));
        assert!(!holds(&[name("a.example")], late()));
    }
}
