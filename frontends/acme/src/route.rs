//! Where things are: the paths of the dialect, read and written, and the URLs that clients are told.

use std::fmt;

use keymill_core::acme::ChallengeKind;
use keymill_core::id::{AcmeAccountId, AcmeOrderId};

/// A place of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// What else there is (RFC 8555 §7.1.1).
    Directory,
    /// A nonce (§7.2).
    NewNonce,
    /// Makes an account, or finds one (§7.3).
    NewAccount,
    /// Places an order (§7.4).
    NewOrder,
    /// Revokes a certificate (§7.6).
    RevokeCert,
    /// Gives an account another key (§7.3.5).
    KeyChange,
    /// An account.
    Account(AcmeAccountId),
    /// The orders of one.
    Orders(AcmeAccountId),
    /// An order.
    Order(AcmeOrderId),
    /// Has its certificate issued.
    Finalize(AcmeOrderId),
    /// Its certificate, with the chain.
    Certificate(AcmeOrderId),
    /// The authorization of one of its names.
    Authorization(AcmeOrderId, usize),
    /// A challenge of that.
    Challenge(AcmeOrderId, usize, ChallengeKind),
}

impl Route {
    /// Reads a path; `None` for what is none, or is spelled in another way than it is written.
    pub fn parse(path: &str) -> Option<Self> {
        let account = |id: &str| AcmeAccountId::parse(id);
        let order = |id: &str| AcmeOrderId::parse(id);
        let mut parts = path.strip_prefix("/acme/")?.splitn(5, '/');
        let parts: [Option<&str>; 5] = std::array::from_fn(|_| parts.next());
        Some(match parts {
            [Some("directory"), None, ..] => Route::Directory,
            [Some("new-nonce"), None, ..] => Route::NewNonce,
            [Some("new-account"), None, ..] => Route::NewAccount,
            [Some("new-order"), None, ..] => Route::NewOrder,
            [Some("revoke-cert"), None, ..] => Route::RevokeCert,
            [Some("key-change"), None, ..] => Route::KeyChange,
            [Some("account"), Some(id), None, ..] => Route::Account(account(id)?),
            [Some("account"), Some(id), Some("orders"), None, _] => Route::Orders(account(id)?),
            [Some("order"), Some(id), None, ..] => Route::Order(order(id)?),
            [Some("order"), Some(id), Some("finalize"), None, _] => Route::Finalize(order(id)?),
            [Some("order"), Some(id), Some("certificate"), None, _] => Route::Certificate(order(id)?),
            [Some("authorization"), Some(id), Some(at), None, _] => {
                Route::Authorization(order(id)?, index(at)?)
            }
            [Some("challenge"), Some(id), Some(at), Some(kind), None] => {
                let kind = ChallengeKind::ALL.into_iter().find(|known| known.name() == kind)?;
                Route::Challenge(order(id)?, index(at)?, kind)
            }
            _ => return None,
        })
    }
}

/// Reads a place in a list: three digits at most, no sign, no leading zero.
fn index(text: &str) -> Option<usize> {
    let is_plain = text == "0" || !text.starts_with('0') && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain && text.len() <= 3)
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/acme/")?;
        match self {
            Route::Directory => f.write_str("directory"),
            Route::NewNonce => f.write_str("new-nonce"),
            Route::NewAccount => f.write_str("new-account"),
            Route::NewOrder => f.write_str("new-order"),
            Route::RevokeCert => f.write_str("revoke-cert"),
            Route::KeyChange => f.write_str("key-change"),
            Route::Account(id) => write!(f, "account/{id}"),
            Route::Orders(id) => write!(f, "account/{id}/orders"),
            Route::Order(id) => write!(f, "order/{id}"),
            Route::Finalize(id) => write!(f, "order/{id}/finalize"),
            Route::Certificate(id) => write!(f, "order/{id}/certificate"),
            Route::Authorization(id, at) => write!(f, "authorization/{id}/{at}"),
            Route::Challenge(id, at, kind) => write!(f, "challenge/{id}/{at}/{}", kind.name()),
        }
    }
}

/// The URLs of a server, as the configuration says where clients reach it: what a `Host` header says is for its client to choose.
#[derive(Clone, Debug)]
pub struct Urls {
    base: String,
}

impl Urls {
    /// Takes where the server is reached, without a path: `https://ca.example.com:8470`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(base: &str) -> Result<Self, &'static str> {
        let host = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
        let host = host.ok_or("it begins with https://, or http:// on a loopback address")?;
        let is_plain = !host.is_empty()
            && host.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-:[]".contains(&c));
        match is_plain {
            true => Ok(Self { base: base.to_owned() }),
            false => Err("behind its scheme stand a host in lower case and a port, and no path, not even /"),
        }
    }

    /// Returns the URL of a place.
    pub fn of(&self, route: Route) -> String {
        format!("{}{route}", self.base)
    }

    /// Reads a URL that [`Self::of`] wrote.
    pub fn read(&self, url: &str) -> Option<Route> {
        url.strip_prefix(&self.base).and_then(Route::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_reads_back_and_has_one_spelling() {
        let (account, order) = (AcmeAccountId::from_random([1; 16]), AcmeOrderId::from_random([2; 16]));
        let urls = Urls::new("https://ca.example:8470").unwrap();
        for route in [
            Route::Directory,
            Route::NewNonce,
            Route::NewAccount,
            Route::NewOrder,
            Route::RevokeCert,
            Route::KeyChange,
            Route::Account(account),
            Route::Orders(account),
            Route::Order(order),
            Route::Finalize(order),
            Route::Certificate(order),
            Route::Authorization(order, 0),
            Route::Challenge(order, 99, ChallengeKind::Dns01),
        ] {
            let path = route.to_string();
            assert_eq!(Route::parse(&path), Some(route));
            assert_eq!(urls.read(&urls.of(route)), Some(route));
            for odd in [format!("{path}/"), format!("{path}/x"), format!("/{path}"), path.to_uppercase()] {
                assert_eq!(Route::parse(&odd), None, "{odd}");
            }
        }
        for odd in
            ["", "/acme", "/acme/", "/acme/order", "/acme/order/1", "/acme/authorization//0", "/v1/acme"]
        {
            assert_eq!(Route::parse(odd), None, "{odd}");
        }
        for at in ["", "00", "+1", "-1", "1000", "a", "0x1", "\u{661}"] {
            assert_eq!(Route::parse(&format!("/acme/authorization/{order}/{at}")), None, "{at}");
        }
        assert_eq!(Route::parse(&format!("/acme/challenge/{order}/0/tls-alpn-01")), None);
        assert_eq!(urls.read("https://ca.example/acme/directory"), None, "another port");
    }

    #[test]
    fn a_base_is_a_scheme_a_host_and_a_port() {
        for good in ["https://ca.example", "http://127.0.0.1:8470", "https://[::1]:8470"] {
            Urls::new(good).unwrap();
        }
        for odd in [
            "",
            "ca.example",
            "ftp://ca.example",
            "https://",
            "https://ca.example/",
            "https://a@b",
            "https://CA.example",
        ] {
            assert!(Urls::new(odd).is_err(), "{odd}");
        }
    }
}
