//! How a pool changes while it serves: how many sessions a token is to have on the way from those that it has to those that are wanted, and which
//! keys would be left behind. Pure decisions: who carries them out looks again every few milliseconds.

/// A token on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Sessions that are wanted of it in the end.
    pub(crate) wanted: usize,
    /// Sessions that it is to have now.
    pub(crate) allowed: usize,
    /// Sessions that are open.
    pub(crate) open: usize,
}

/// Whether anything waits for sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// For those of the token alone.
    pub(crate) for_it: bool,
    /// For any.
    pub(crate) at_all: bool,
}

/// Returns how many sessions a token is to have from now on. It has as many as are wanted at once, but for one that leaves: that serves until
/// another can, so that no request is without a token in between, and until what waits for it is done: what is for it alone, and where none is to
/// remain anything.
pub(crate) fn due(own: Standing, all: &[Standing], waiting: Waiting) -> usize {
    if own.wanted > 0 || own.open == 0 {
        return own.wanted;
    }
    let mut remaining = all.iter().filter(|token| token.wanted > 0).peekable();
    let stays = match remaining.peek() {
        Some(_) => waiting.for_it || remaining.all(|token| token.open == 0),
        None => waiting.at_all,
    };
    if stays { own.allowed } else { 0 }
}

/// Tells whether a key is left behind that stays in the token of `serial`, by the serial numbers of the tokens that leave and of those that remain:
/// one that is not known, as its token was not connected since the start, may be any.
pub(crate) fn is_left_behind(serial: &str, leaving: &[Option<String>], remaining: &[Option<String>]) -> bool {
    let is_among = |serials: &[Option<String>]| serials.iter().flatten().any(|known| known == serial);
    !is_among(remaining) && (is_among(leaving) || leaving.contains(&None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Waiting = Waiting { for_it: false, at_all: false };
    const FOR_ANY: Waiting = Waiting { for_it: false, at_all: true };
    const FOR_IT: Waiting = Waiting { for_it: true, at_all: true };

    fn of(wanted: usize, allowed: usize, open: usize) -> Standing {
        Standing { wanted, allowed, open }
    }

    #[test]
    fn a_token_that_remains_has_what_is_wanted_at_once() {
        for (own, sessions) in [(of(4, 1, 1), 4), (of(1, 4, 4), 1), (of(2, 0, 0), 2)] {
            // Whether another serves is no matter.
            assert_eq!(due(own, &[own, of(1, 1, 0)], FOR_IT), sessions, "{own:?}");
        }
    }

    #[test]
    fn a_token_that_leaves_serves_until_another_does() {
        let own = of(0, 2, 2);
        let all = |coming: usize| [own, of(1, 1, 0), of(3, 3, coming)];
        assert_eq!((due(own, &all(0), NOTHING), due(own, &all(1), FOR_ANY)), (2, 0));
        assert_eq!(due(own, &all(1), FOR_IT), 2);
        // One that has nothing to serve with is not waited for.
        assert_eq!(due(of(0, 2, 0), &all(0), FOR_IT), 0);
    }

    #[test]
    fn the_last_token_leaves_when_nothing_waits() {
        let own = of(0, 2, 1);
        let all = [own, of(0, 0, 0)];
        assert_eq!((due(own, &all, FOR_ANY), due(own, &all, NOTHING)), (2, 0));
    }

    #[test]
    fn a_key_is_left_behind_that_stays_in_no_token_that_remains() {
        let some =
            |serials: &[&str]| serials.iter().map(|serial| Some((*serial).to_owned())).collect::<Vec<_>>();
        assert!(is_left_behind("a", &some(&["a"]), &some(&["b"])));
        assert!(!is_left_behind("b", &some(&["a"]), &some(&["b"])));
        assert!(!is_left_behind("c", &some(&["a"]), &some(&["b"])), "it is in neither");
        // The same token by another name.
        assert!(!is_left_behind("a", &some(&["a"]), &some(&["a"])));
        assert!(is_left_behind("c", &[None], &some(&["b"])) && !is_left_behind("b", &[None], &some(&["b"])));
    }
}
