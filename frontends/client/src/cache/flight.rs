//! One fetch for all that miss the same thing at once: the first leads, the others wait for what it tells. One that goes away without
//! a word, since whoever polled it stopped, leaves them to choose another.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use flume::{Receiver, Sender};
use parking_lot::Mutex;

use super::{Place, State};
use crate::keys::KeysError;

/// How a fetch went; what was fetched is found in the cache.
type Outcome = Result<(), KeysError>;

/// The fetches that are under way.
#[derive(Default)]
pub(super) struct Flights(HashMap<Place, Arc<Flight>>);

/// A fetch that is under way.
pub(super) struct Flight {
    outcome: OnceLock<Outcome>,
    /// Nothing is sent: it is closed when the fetch is over.
    over: Receiver<()>,
}

/// What a caller that misses does.
pub(super) enum Role<'s> {
    Leads(Lead<'s>),
    Follows(Arc<Flight>),
}

/// The duty to fetch; dropped, it is over.
pub(super) struct Lead<'s> {
    place: Place,
    flight: Arc<Flight>,
    state: &'s Mutex<State>,
    // Goes after the flight is out of the table: whoever is woken by it must not find it there.
    _open: Sender<()>,
}

impl Flights {
    /// Joins the fetch for `place`, or begins one.
    pub(super) fn board<'s>(&mut self, place: Place, state: &'s Mutex<State>) -> Role<'s> {
        if let Some(flight) = self.0.get(&place) {
            return Role::Follows(flight.clone());
        }
        let (open, over) = flume::bounded(0);
        let flight = Arc::new(Flight { outcome: OnceLock::new(), over });
        self.0.insert(place, flight.clone());
        Role::Leads(Lead { place, flight, state, _open: open })
    }
}

impl Flight {
    /// Waits until the fetch is over, and returns how it went; `None` where nobody says.
    pub(super) async fn landed(&self) -> Option<Outcome> {
        let _closed = self.over.recv_async().await;
        self.outcome.get().cloned()
    }
}

impl Lead<'_> {
    /// Ends the fetch. The state must not be locked.
    pub(super) fn land(self, outcome: Outcome) {
        self.flight.outcome.set(outcome).expect("one leads, once");
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.state.lock().flights.0.remove(&self.place);
    }
}
