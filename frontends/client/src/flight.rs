//! One fetch for all that miss the same thing at once: the first leads, the others wait for what it tells. One that goes away without
//! a word, since whoever polled it stopped, leaves them to choose another.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use flume::{Receiver, Sender};
use parking_lot::Mutex;

/// How a fetch went; what was fetched is found in the cache.
type Outcome<E> = Result<(), E>;

/// The fetches that are under way, each for its place.
pub(crate) struct Flights<P, E>(HashMap<P, Arc<Flight<E>>>);

impl<P, E> Default for Flights<P, E> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// A fetch that is under way.
pub(crate) struct Flight<E> {
    outcome: OnceLock<Outcome<E>>,
    /// Nothing is sent: it is closed when the fetch is over.
    over: Receiver<()>,
}

/// State of a cache, its fetches among it.
pub(crate) trait Tower {
    /// What fetches are told apart by.
    type Place: Clone + Eq + Hash;
    /// Why one fails.
    type Error: Clone;

    /// Lends the fetches.
    fn flights(&mut self) -> &mut Flights<Self::Place, Self::Error>;
}

/// What a caller that misses does.
pub(crate) enum Role<'s, T: Tower> {
    Leads(Lead<'s, T>),
    Follows(Arc<Flight<T::Error>>),
}

/// The duty to fetch; dropped, it is over.
pub(crate) struct Lead<'s, T: Tower> {
    place: T::Place,
    flight: Arc<Flight<T::Error>>,
    state: &'s Mutex<T>,
    // Goes after the flight is out of the table: whoever is woken by it must not find it there.
    _open: Sender<()>,
}

/// Joins the fetch for `place`, or begins one; `tower` is what `state` holds, and locked.
pub(crate) fn board<'s, T: Tower>(tower: &mut T, state: &'s Mutex<T>, place: T::Place) -> Role<'s, T> {
    let flights = tower.flights();
    if let Some(flight) = flights.0.get(&place) {
        return Role::Follows(flight.clone());
    }
    let (open, over) = flume::bounded(0);
    let flight = Arc::new(Flight { outcome: OnceLock::new(), over });
    flights.0.insert(place.clone(), flight.clone());
    Role::Leads(Lead { place, flight, state, _open: open })
}

impl<E: Clone> Flight<E> {
    /// Waits until the fetch is over, and returns how it went; `None` where nobody says.
    pub(crate) async fn landed(&self) -> Option<Outcome<E>> {
        let _closed = self.over.recv_async().await;
        self.outcome.get().cloned()
    }
}

impl<T: Tower> Lead<'_, T> {
    /// Ends the fetch. The state must not be locked.
    pub(crate) fn land(self, outcome: Outcome<T::Error>) {
        let is_first = self.flight.outcome.set(outcome).is_ok();
        assert!(is_first, "one leads, once");
    }
}

impl<T: Tower> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        self.state.lock().flights().0.remove(&self.place);
    }
}
