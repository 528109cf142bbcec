//! Who did the items of a request, for its audit record: tokens of the pool, and the provider in this process.

/// A set of providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served(u64);

/// Tokens that are told apart; those behind them share the last place.
const TOKENS: usize = 63;

impl Served {
    /// The provider in this process alone.
    pub(crate) const SOFTWARE: Self = Self(1 << TOKENS);

    /// Returns the token at that place of the pool alone.
    pub(crate) fn token(at: usize) -> Self {
        Self(1 << at.min(TOKENS - 1))
    }

    /// Adds others.
    pub(crate) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Returns the bits, to be kept where several threads add to them.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// Returns the set of these bits.
    pub(crate) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Lists the names of the providers: tokens in the order of the pool, then the one in this process.
    pub(crate) fn names<'n>(
        self,
        tokens: impl IntoIterator<Item = &'n str>,
        software: &'n str,
        out: &mut Vec<&'n str>,
    ) {
        out.clear();
        if self.0 & !Self::SOFTWARE.0 != 0 {
            let is_in = |at: usize| Self::token(at).0 & self.0 != 0;
            out.extend(tokens.into_iter().enumerate().filter(|(at, _)| is_in(*at)).map(|(_, name)| name));
        }
        if self.0 & Self::SOFTWARE.0 != 0 {
            out.push(software);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_named_in_the_order_of_the_pool() {
        let names = |served: Served| {
            let mut out = vec!["left over"];
            served.names(["hsm-1", "hsm-2", "hsm-3"], "software", &mut out);
            out
        };
        let mut served = Served::default();
        assert_eq!(names(served), [""; 0]);
        served.add(Served::SOFTWARE);
        assert_eq!(names(served), ["software"]);
        served.add(Served::token(2));
        served.add(Served::token(0));
        assert_eq!(names(served), ["hsm-1", "hsm-3", "software"]);
        assert_eq!(Served::of_bits(served.bits()), served);
    }

    #[test]
    fn a_token_beyond_the_last_place_is_no_software() {
        assert_ne!(Served::token(1_000), Served::SOFTWARE);
        assert_eq!(Served::token(1_000), Served::token(62));
    }
}
