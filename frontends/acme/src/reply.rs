//! What clients are answered: accounts, orders, authorizations and challenges as RFC 8555 §7.1 writes them.

use keymill_core::acme::{
    Account, Authorization, AuthorizationStatus, Challenge, ChallengeStatus, Order, OrderStatus,
};
use keymill_core::certificate::AltName;
use keymill_core::id::AcmeOrderId;
use keymill_core::limit;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::problem;
use crate::route::{Route, Urls};

/// Orders that are listed.
pub const ORDERS_LISTED: usize = 2 * limit::ACME_OPEN_ORDERS;

/// Writes the directory (RFC 8555 §7.1.1).
pub fn directory(urls: &Urls, must_be_bound: bool) -> Value {
    json!({
        "newNonce": urls.of(Route::NewNonce),
        "newAccount": urls.of(Route::NewAccount),
        "newOrder": urls.of(Route::NewOrder),
        "revokeCert": urls.of(Route::RevokeCert),
        "keyChange": urls.of(Route::KeyChange),
        "meta": {"externalAccountRequired": must_be_bound},
    })
}

/// Writes an account.
pub fn account(urls: &Urls, account: &Account) -> Value {
    json!({
        "status": text(account.status),
        "contact": account.contact,
        "orders": urls.of(Route::Orders(account.id)),
    })
}

/// Writes the orders of an account, the newest first (RFC 8555 §7.1.2.1): the most that may wait at one time, and room for what is done. Older ones
/// are valid, and known to who ordered them.
pub fn orders(urls: &Urls, all: &[AcmeOrderId]) -> Value {
    let listed: Vec<_> = all.iter().take(ORDERS_LISTED).map(|id| urls.of(Route::Order(*id))).collect();
    json!({"orders": listed})
}

/// Writes an order.
pub fn order(urls: &Urls, order: &Order) -> Value {
    let mut told = Map::new();
    told.insert("status".into(), text(order.status));
    told.insert("expires".into(), order.expires.to_string().into());
    told.insert("identifiers".into(), order.names().map(identifier).collect());
    if let Some(why) = &order.problem {
        told.insert("error".into(), problem::document(why));
    }
    let authorizations =
        (0..order.authorizations.len()).map(|at| urls.of(Route::Authorization(order.id, at)));
    told.insert("authorizations".into(), authorizations.collect());
    told.insert("finalize".into(), urls.of(Route::Finalize(order.id)).into());
    if order.status == OrderStatus::Valid {
        told.insert("certificate".into(), urls.of(Route::Certificate(order.id)).into());
    }
    Value::Object(told)
}

/// Writes the authorization at a place of an order; nothing where there is none.
pub fn authorization(urls: &Urls, order: &Order, at: usize) -> Option<Value> {
    let of = order.authorizations.get(at)?;
    let (name, is_wildcard) = match &of.name {
        AltName::Dns(name) => match name.strip_prefix("*.") {
            Some(host) => (AltName::Dns(host.into()), true),
            None => (of.name.clone(), false),
        },
        name => (name.clone(), false),
    };
    let shown = of.challenges.iter().filter(|challenge| is_shown(of, challenge));
    let challenges: Vec<_> = shown.map(|one| challenge(urls, order, at, one)).collect();
    let mut told = json!({
        "identifier": identifier(&name),
        "status": text(of.status),
        "expires": order.expires.to_string(),
        "challenges": challenges,
    });
    if is_wildcard {
        told["wildcard"] = true.into();
    }
    Some(told)
}

/// Of an authorization that is settled, the challenge by which it was is shown alone (RFC 8555 §7.1.4).
fn is_shown(of: &Authorization, challenge: &Challenge) -> bool {
    match of.status {
        AuthorizationStatus::Valid => challenge.status == ChallengeStatus::Valid,
        AuthorizationStatus::Invalid => challenge.status == ChallengeStatus::Invalid,
        _ => true,
    }
}

/// Writes a challenge of the authorization at a place of an order.
pub fn challenge(urls: &Urls, order: &Order, at: usize, challenge: &Challenge) -> Value {
    let mut told = Map::new();
    told.insert("type".into(), challenge.kind.name().into());
    told.insert("url".into(), urls.of(Route::Challenge(order.id, at, challenge.kind)).into());
    told.insert("status".into(), text(challenge.status));
    told.insert("token".into(), challenge.token.clone().into());
    if let Some(at) = challenge.validated {
        told.insert("validated".into(), at.to_string().into());
    }
    if let Some(why) = &challenge.problem {
        told.insert("error".into(), problem::document(why));
    }
    Value::Object(told)
}

/// Writes a name as an identifier.
pub(crate) fn identifier(name: &AltName) -> Value {
    match name {
        AltName::Dns(name) => json!({"type": "dns", "value": name}),
        AltName::Ip(address) => json!({"type": "ip", "value": address.to_string()}),
        AltName::Email(value) | AltName::Uri(value) => json!({"type": name.kind(), "value": value}),
    }
}

/// Writes a status as its record does.
fn text(status: impl Serialize) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use keymill_core::Timestamp;
    use keymill_core::acme::{ChallengeKind, Issued, Problem, ProblemKind};
    use keymill_core::id::AcmeAccountId;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    fn urls() -> Urls {
        Urls::new("https://ca.example").unwrap()
    }

    fn placed(names: &[&str]) -> Order {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let (id, account) = (AcmeOrderId::from_random([1; 16]), AcmeAccountId::from_random([2; 16]));
        Order::place(id, account, names, &ChallengeKind::ALL, NOW, &mut || Ok([9; 32])).unwrap()
    }

    #[test]
    fn an_order_tells_where_all_that_belongs_to_it_is() {
        let mut it = placed(&["a.example", "10.0.0.1"]);
        let base = format!("https://ca.example/acme/order/{}", it.id);
        let told = order(&urls(), &it);
        assert_eq!(told["status"], "pending");
        assert_eq!(told["identifiers"][1], json!({"type": "ip", "value": "10.0.0.1"}));
        assert_eq!(told["authorizations"].as_array().unwrap().len(), 2);
        assert_eq!(told["finalize"], format!("{base}/finalize"));
        assert!(
            ["certificate", "error", "notBefore", "notAfter"].iter().all(|name| told.get(name).is_none())
        );
        it.status = OrderStatus::Valid;
        it.issued = Some(Issued {
            certificate: keymill_core::id::CertificateId::from_bytes([3; 16]),
            not_after: NOW,
        });
        assert_eq!(order(&urls(), &it)["certificate"], format!("{base}/certificate"));
    }

    #[test]
    fn a_wildcard_is_told_by_the_name_below_which_it_stands() {
        let told = authorization(&urls(), &placed(&["*.a.example"]), 0).unwrap();
        assert_eq!(told["identifier"], json!({"type": "dns", "value": "a.example"}));
        assert_eq!(told["wildcard"], true);
        assert_eq!(told["challenges"].as_array().unwrap().len(), 1);
        assert!(authorization(&urls(), &placed(&["a.example"]), 1).is_none());
    }

    #[test]
    fn of_a_settled_authorization_the_challenge_that_settled_it_is_shown() {
        for (found, status) in
            [(Ok(()), "valid"), (Err(Problem::new(ProblemKind::Connection, "refused")), "invalid")]
        {
            let mut it = placed(&["a.example"]);
            assert_eq!(authorization(&urls(), &it, 0).unwrap()["challenges"].as_array().unwrap().len(), 2);
            it.begin(0, ChallengeKind::Dns01, NOW).unwrap();
            it.judge(0, ChallengeKind::Dns01, found, true, NOW);
            let told = authorization(&urls(), &it, 0).unwrap();
            assert_eq!(told["status"], status);
            let challenges = told["challenges"].as_array().unwrap();
            assert_eq!((challenges.len(), &challenges[0]["type"]), (1, &json!("dns-01")));
            assert_eq!(challenges[0]["status"], status);
            assert_eq!(challenges[0].get("validated").is_some(), status == "valid");
            assert_eq!(challenges[0].get("error").is_some(), status == "invalid");
            assert_eq!(challenges[0]["token"].as_str().unwrap().len(), 43);
        }
    }

    #[test]
    fn as_many_orders_are_listed_as_may_wait_and_more() {
        let all = vec![AcmeOrderId::from_random([1; 16]); ORDERS_LISTED + 1];
        let listed = |count: usize| orders(&urls(), &all[..count])["orders"].as_array().unwrap().len();
        assert_eq!([0, 1, ORDERS_LISTED + 1].map(listed), [0, 1, ORDERS_LISTED]);
        const { assert!(ORDERS_LISTED >= limit::ACME_OPEN_ORDERS) };
    }

    #[test]
    fn the_directory_has_what_clients_look_for() {
        let told = directory(&urls(), true);
        for name in ["newNonce", "newAccount", "newOrder", "revokeCert", "keyChange"] {
            assert!(told[name].as_str().unwrap().starts_with("https://ca.example/acme/"), "{name}");
        }
        assert_eq!(told["meta"]["externalAccountRequired"], true);
    }
}
