//! Which tokens are part of a pool, and with how many sessions, as that is changed while it serves. What is decided in `change.rs` is asked for here;
//! the actors of the tokens carry it out.

use std::sync::Arc;

use keymill_core::error::{Error, ErrorKind, Result};

use super::change::{self, Standing, Waiting};
use super::token::Token;
use super::{Pool, TokenReport};

impl Pool {
    /// Has the pool have so many sessions of each token, by its name, of which none may be a part of it before or after. Actors see to it that it
    /// comes to that; one at a time calls this.
    pub(crate) fn keep_to(&self, wanted: impl Fn(&str) -> usize) {
        let of = |token: &Token| wanted(&token.config.name);
        // First those that come: one that leaves looks whether any remains.
        self.tokens.iter().filter(|token| of(token) > token.wanted()).for_each(|token| token.want(of(token)));
        let is_manned = self.tokens.iter().any(|token| of(token) > 0);
        self.lane.set_manned(is_manned);
        self.control.set_manned(is_manned);
        self.tokens.iter().filter(|token| of(token) < token.wanted()).for_each(|token| token.want(of(token)));
    }

    /// Returns how many sessions a token is to have now, on the way to what is wanted.
    pub(crate) fn due(&self, token: &Token) -> usize {
        let standing = |token: &Token| Standing {
            wanted: token.wanted(),
            allowed: token.sessions(),
            open: token.open_sessions(),
        };
        let own = standing(token);
        // Most of the time, nothing changes.
        if own.wanted > 0 {
            return own.wanted;
        }
        let all: Vec<_> = self.tokens.iter().map(|token| standing(token)).collect();
        let waiting = Waiting {
            for_it: self.lane.has_bound(token.at) || self.control.has_bound(token.at),
            at_all: !self.lane.is_empty() || !self.control.is_empty(),
        };
        change::due(own, &all, waiting)
    }

    /// Lists how the tokens are that are part of the pool, or that yet leave it.
    pub(crate) fn reports(&self) -> Vec<TokenReport> {
        self.tokens.iter().filter(|token| token.is_about()).map(|token| token.report()).collect()
    }

    /// Closes the tokens that are none of those which remain to keys that would stay in them, until what is returned is dropped.
    pub(crate) fn close_to_keys(&self, remains: impl Fn(&str) -> bool) -> Closed {
        let leaves = |token: &&Arc<Token>| !remains(&token.config.name);
        let leaving: Vec<_> = self.members().filter(leaves).cloned().collect();
        leaving.iter().for_each(|token| token.close_to_keys(true));
        let remaining = self.members().filter(|token| !leaves(token)).map(|token| token.serial());
        Closed { remaining: remaining.collect(), leaving }
    }

    /// Checks that keys may stay in the token of this serial number.
    ///
    /// # Errors
    /// `Unavailable` where it leaves the pool.
    pub(crate) fn check_open_to_keys(&self, serial: &str) -> Result<()> {
        match self.tokens.iter().any(|token| token.is_of(serial) && !token.is_open_to_keys()) {
            true => Err(leaving()),
            false => Ok(()),
        }
    }
}

/// Says that a token takes no key any more that would stay in it.
pub(crate) fn leaving() -> Error {
    Error::new(ErrorKind::Unavailable, "the token leaves the crypto pool, and no key is made to stay in it")
        .retry_after_ms(500)
}

/// Tokens that are closed to keys that would stay in them, as long as this is kept.
pub(crate) struct Closed {
    leaving: Vec<Arc<Token>>,
    /// The serial numbers of those that remain, as far as they are known.
    remaining: Vec<Option<String>>,
}

impl Closed {
    /// Lists the names of the tokens that leave.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.leaving.iter().map(|token| &*token.config.name).collect()
    }

    /// Tells whether a key is left behind that stays in the token of this serial number.
    pub(crate) fn leaves_behind(&self, serial: &str) -> bool {
        let leaving: Vec<_> = self.leaving.iter().map(|token| token.serial()).collect();
        change::is_left_behind(serial, &leaving, &self.remaining)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.leaving.iter().for_each(|token| token.close_to_keys(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{ConnectError, PoolConfig, TokenConfig, TokenPart};

    fn pool(tokens: &[(&str, usize)]) -> Pool {
        let part = |(name, sessions): &(&str, usize)| {
            let config = TokenConfig { sessions: *sessions, ..TokenConfig::new(*name) };
            let connect = || Err(ConnectError::Unavailable("nothing is connected here".into()));
            TokenPart::new(config, Box::new(connect))
        };
        Pool::new(PoolConfig::default(), tokens.iter().map(part).collect())
    }

    /// Does what the actors do: has each token have what is due, with as many sessions open.
    fn settle(pool: &Pool) {
        for token in &pool.tokens {
            token.allow(pool.due(token));
            while token.open_sessions() < token.sessions() {
                token.opened();
            }
            while token.open_sessions() > token.sessions() {
                token.closed(None);
            }
        }
    }

    fn sessions(pool: &Pool) -> Vec<usize> {
        pool.tokens.iter().map(|token| token.sessions()).collect()
    }

    #[test]
    fn a_pool_has_those_tokens_of_which_sessions_are_wanted() {
        let pool = pool(&[("a", 2), ("b", 0)]);
        settle(&pool);
        let names = |pool: &Pool| pool.reports().into_iter().map(|report| report.name).collect::<Vec<_>>();
        assert_eq!((names(&pool), sessions(&pool)), (vec!["a".to_owned()], vec![2, 0]));
        pool.keep_to(|name| usize::from(name == "b"));
        // The one that comes has no session yet.
        assert_eq!((pool.due(&pool.tokens[0]), pool.due(&pool.tokens[1])), (2, 1));
        assert_eq!(names(&pool), ["a", "b"]);
        settle(&pool);
        settle(&pool);
        assert_eq!((names(&pool), sessions(&pool)), (vec!["b".to_owned()], vec![0, 1]));
        pool.keep_to(|_| 0);
        settle(&pool);
        assert!(pool.is_empty() && names(&pool).is_empty() && pool.lane.is_down() && pool.control.is_down());
        pool.keep_to(|_| 3);
        assert!(!pool.is_empty() && !pool.lane.is_down() && !pool.control.is_down());
        settle(&pool);
        assert_eq!(sessions(&pool), [3, 3]);
    }

    #[test]
    fn a_token_that_leaves_takes_no_key_that_would_stay_in_it() {
        let pool = pool(&[("a", 1), ("b", 1), ("c", 0)]);
        let is_open =
            |pool: &Pool| pool.tokens.iter().map(|token| token.is_open_to_keys()).collect::<Vec<_>>();
        let closed = pool.close_to_keys(|name| name == "b");
        assert_eq!((closed.names(), is_open(&pool)), (vec!["a"], vec![false, true, false]));
        // Nothing is known of either token: whatever stays in one may stay in that which leaves.
        assert!(closed.leaves_behind("any"));
        drop(closed);
        assert_eq!(is_open(&pool), [true, true, false]);
        assert!(!pool.close_to_keys(|_| true).leaves_behind("any"));
    }

    #[test]
    fn a_token_that_an_operator_drained_is_in_service_when_it_comes_to_the_pool_anew() {
        let pool = pool(&[("a", 1)]);
        pool.tokens[0].drain();
        pool.keep_to(|_| 2);
        assert!(pool.tokens[0].is_drained(), "it was there");
        pool.keep_to(|_| 0);
        pool.keep_to(|_| 1);
        assert!(!pool.tokens[0].is_drained());
    }
}
