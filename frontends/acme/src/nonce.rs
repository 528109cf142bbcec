//! Replay nonces (RFC 8555 §6.5). A nonce is its number and a MAC of it, so that one which is given out takes no memory; that a nonce was used is
//! one bit in a ring, and one that the ring has left behind counts as used. The client of a nonce that does not pass gets another and asks
//! again, which is also what happens behind a restart and at another node.

use aws_lc_rs::hmac;
use keymill_core::acme::{Outcome, Problem, ProblemKind};

use crate::base64url;

/// Nonces that are good at one time: 128 KiB of bits. At a thousand a second, a nonce is good for a quarter of an hour.
const RING: u64 = 1 << 20;
/// Bytes of the MAC that a nonce carries.
const TAG: usize = 16;

/// Gives nonces out, and takes each once.
pub struct Nonces {
    key: hmac::Key,
    next: u64,
    /// Bit `n` tells whether the nonce of the number `n` modulo the ring is good.
    good: Vec<u64>,
}

impl Nonces {
    /// Makes the nonces of a key, which nobody else has and which no other nonces were made by.
    pub fn new(key: &[u8; 32]) -> Self {
        let good = vec![0; (RING / 64) as usize];
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), next: 0, good }
    }

    /// Gives a nonce out; what was given out a ring before it is good no longer.
    pub fn give(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        let (word, bit) = place(number);
        self.good[word] |= bit;
        let number = number.to_be_bytes();
        let tag = hmac::sign(&self.key, &number);
        base64url::encode([&number[..], &tag.as_ref()[..TAG]].concat())
    }

    /// Takes a nonce.
    ///
    /// # Errors
    /// `BadNonce` where it is none that was given out here, or was taken, or is too old.
    pub fn take(&mut self, nonce: &str) -> Outcome<()> {
        let is_good = self.number(nonce).is_some_and(|number| {
            let (word, bit) = place(number);
            let is_in_ring = number < self.next && self.next - number <= RING;
            let is_good = is_in_ring && self.good[word] & bit != 0;
            if is_good {
                self.good[word] &= !bit;
            }
            is_good
        });
        match is_good {
            true => Ok(()),
            false => Err(Problem::new(ProblemKind::BadNonce, "the nonce was used, or is not known here")),
        }
    }

    /// Reads the number of a nonce that was made here.
    fn number(&self, nonce: &str) -> Option<u64> {
        let bytes = base64url::decode(nonce, "nonce").ok().filter(|bytes| bytes.len() == 8 + TAG)?;
        let (number, tag) = bytes.split_first_chunk::<8>()?;
        let expected = hmac::sign(&self.key, number);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG], tag).ok()?;
        Some(u64::from_be_bytes(*number))
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % RING;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_once_in_any_order() {
        let mut nonces = Nonces::new(&[1; 32]);
        let given: Vec<_> = (0..200).map(|_| nonces.give()).collect();
        for nonce in given.iter().rev() {
            assert_eq!(nonce.len(), 32);
            nonces.take(nonce).unwrap();
            assert_eq!(nonces.take(nonce).unwrap_err().kind, ProblemKind::BadNonce);
        }
    }

    #[test]
    fn what_was_not_given_out_is_not_taken() {
        let mut nonces = Nonces::new(&[1; 32]);
        let mine = nonces.give();
        let other = Nonces::new(&[2; 32]).give();
        assert_ne!(mine, other, "another key, other nonces");
        let mut ahead = Nonces::new(&[1; 32]);
        ahead.give();
        let not_yet = ahead.give();
        let changed = mine.replacen('A', "B", 1);
        let longer = format!("{mine}AAAA");
        let padded = format!("{mine}=");
        for odd in [&*other, &not_yet, &changed, &longer, &padded, &mine[..31], "", "\0", "n"] {
            assert_eq!(nonces.take(odd).unwrap_err().kind, ProblemKind::BadNonce, "{odd:?}");
        }
        nonces.take(&mine).unwrap();
    }

    #[test]
    fn who_asks_for_many_pushes_old_ones_out_and_no_memory_is_taken() {
        let mut nonces = Nonces::new(&[1; 32]);
        let (first, second) = (nonces.give(), nonces.give());
        nonces.take(&second).unwrap();
        for _ in 0..RING {
            nonces.give();
        }
        // Their bits are others' by now.
        for old in [&first, &second] {
            assert!(nonces.take(old).is_err());
        }
        let last = nonces.give();
        nonces.take(&last).unwrap();
        assert_eq!(nonces.good.len() * 64, RING as usize);
    }
}
