//! A watch: a stream of changes that is opened anew where it breaks, and the proof that it is current.
//!
//! etcd's own notices of progress are no proof: until 3.4.25 and 3.5.8 they may come before the changes that they speak of. So the key of the
//! newest revision, which every commit writes last, is in the stream too: once it was told of at the revision that a linearizable read
//! found it at, everything before was told.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flume::Sender;
use keymill_core::seam::store::{Path, StoreError};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, Followed, method};
use crate::error::Fault;
use crate::keys::Keys;
use crate::messages::{Event, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::reads::{Newest, check_known, newest};

/// How often a watch proves that it is current; the seam asks for at least once a second.
const PROOF: Duration = Duration::from_millis(400);
/// Before a stream that broke is opened anew.
const PAUSE: Duration = Duration::from_millis(50);

/// What a watch tells.
pub(crate) enum Told {
    Changes(Vec<Changed>),
    /// Everything was told that was committed before.
    Current,
    Ended(StoreError),
}

/// One change.
pub(crate) struct Changed {
    pub(crate) path: Path,
    /// `None`: the record was removed.
    pub(crate) value: Option<Bytes>,
    pub(crate) revision: i64,
}

/// Nobody listens any more.
struct Unheard;

/// How far a watch has come.
#[derive(Debug, PartialEq)]
struct Cursor {
    /// Everything up to this revision was told.
    whole: i64,
    /// Of this revision some was told, so many changes.
    part: i64,
    told: usize,
    /// Of those, so many come once more: the stream was opened anew.
    again: usize,
}

impl Cursor {
    fn behind(revision: i64) -> Self {
        Self { whole: revision, part: 0, told: 0, again: 0 }
    }

    /// Goes back to where the next stream begins.
    fn rewind(&mut self) {
        self.again = if self.part > self.whole { self.told } else { 0 };
    }

    /// Tells whether a change is new, and takes note of it; `is_last`: of its revision.
    fn is_new(&mut self, revision: i64, is_last: bool) -> bool {
        if revision <= self.whole {
            return false;
        }
        if revision == self.part && self.again > 0 {
            self.again -= 1;
            return false;
        }
        if revision != self.part {
            (self.part, self.told, self.again) = (revision, 0, 0);
        }
        self.told += 1;
        if is_last {
            self.whole = revision;
        }
        true
    }
}

/// Follows the changes of the records under `prefix` behind a revision, until nobody listens.
pub(crate) async fn follow(
    cluster: Arc<Cluster>,
    keys: Arc<Keys>,
    prefix: Path,
    from: i64,
    tell: Sender<Told>,
) {
    let mut watch =
        Watch { cluster, keys, prefix, cursor: Cursor::behind(from), proved: Instant::now(), tell };
    loop {
        let fault = match watch.run().await {
            Ok(Unheard) => return,
            Err(fault) => fault,
        };
        let is_over = watch.proved.elapsed() >= watch.cluster.timeout();
        match fault {
            Fault::NotDone(_) | Fault::Lost(_) | Fault::LoggedOut(_) if !is_over => sleep(PAUSE).await,
            fault => {
                let _nobody_listens = watch.tell.send_async(Told::Ended(fault.into_store_error())).await;
                return;
            }
        }
    }
}

struct Watch {
    cluster: Arc<Cluster>,
    keys: Arc<Keys>,
    prefix: Path,
    cursor: Cursor,
    /// When it was current last.
    proved: Instant,
    tell: Sender<Told>,
}

impl Watch {
    /// Opens a stream and tells what comes, until it breaks.
    async fn run(&mut self) -> Result<Unheard, Fault> {
        check_known(&self.cluster, &self.keys, self.cursor.whole).await?;
        self.cursor.rewind();
        let span = self.keys.watched();
        let start_revision = self.cursor.whole.saturating_add(1);
        let create =
            WatchCreateRequest { key: span.from, range_end: span.end, start_revision, fragment: true };
        let request = WatchRequest { create: Some(create) };
        let mut stream: Followed<WatchResponse> = self.cluster.follow(method::WATCH, request).await?;
        let ended = self.tell_all(&mut stream, start_revision).await;
        if ended.is_err() {
            self.cluster.leave(&stream).await;
        }
        ended
    }

    async fn tell_all(
        &mut self,
        stream: &mut Followed<WatchResponse>,
        start_revision: i64,
    ) -> Result<Unheard, Fault> {
        let mut is_first = true;
        // Not begun anew with each change: changes may come faster than it ends.
        let mut proof = pin!(self.proof(Instant::now()));
        // What a read found, and until when the stream may take to come there.
        let mut goal: Option<(Newest, Instant)> = None;
        loop {
            let late = goal.as_ref().map_or_else(Instant::now, |(_, late)| *late);
            tokio::select! {
                biased;
                answer = stream.answers.message() => {
                    let answer = answer.map_err(|status| Fault::of(&status))?;
                    let answer = answer.ok_or_else(|| Fault::Lost("the watch ended".into()))?;
                    if let Err(unheard) = self.take(answer).await? {
                        return Ok(unheard);
                    }
                    // Whoever listens may have taken its time.
                    if let Some((_, late)) = &mut goal {
                        *late = Instant::now() + self.cluster.try_time();
                    }
                }
                found = &mut proof, if goal.is_none() => {
                    goal = Some((found?, Instant::now() + self.cluster.try_time()));
                }
                () = sleep_until(late), if goal.is_some() => {
                    return Err(Fault::Lost("the watch is behind".into()));
                }
            }
            if let Some((found, _)) = goal.take_if(|(found, _)| found.commit <= self.cursor.whole) {
                // Nothing of ours was committed in between, so that a later stream need not begin before.
                self.cursor.whole = self.cursor.whole.max(found.as_of);
                if is_first {
                    // What was compacted before the stream came to it may have lacked removals: etcd keeps those of the very revision
                    // that it compacts to only in newer versions.
                    check_known(&self.cluster, &self.keys, start_revision - 1).await?;
                    is_first = false;
                }
                if self.tell.send_async(Told::Current).await.is_err() {
                    return Ok(Unheard);
                }
                self.proved = Instant::now();
                proof.set(self.proof(self.proved + PROOF));
            }
        }
    }

    /// Reads which commit is the newest, once it is due.
    fn proof(&self, due: Instant) -> impl Future<Output = Result<Newest, Fault>> + use<> {
        let (cluster, keys) = (self.cluster.clone(), self.keys.clone());
        async move {
            sleep_until(due).await;
            newest(&cluster, &keys).await
        }
    }

    /// Tells what an answer holds.
    async fn take(&mut self, answer: WatchResponse) -> Result<Result<(), Unheard>, Fault> {
        if answer.compact_revision > 0 {
            return Err(Fault::NoSuchRevision);
        }
        if answer.canceled {
            // A token that is good no longer is among the reasons; leaving the member makes a new one.
            return Err(Fault::Lost(format!("the watch was cancelled: {}", answer.cancel_reason)));
        }
        let changes: Vec<_> = answer.events.iter().filter_map(|event| self.changed(event)).collect();
        if changes.is_empty() {
            return Ok(Ok(()));
        }
        Ok(self.tell.send_async(Told::Changes(changes)).await.map_err(|_| Unheard))
    }

    fn changed(&mut self, event: &Event) -> Option<Changed> {
        let kv = event.kv.as_ref()?;
        let is_last = kv.key == self.keys.newest();
        let is_new = self.cursor.is_new(kv.mod_revision, is_last);
        let path = self.keys.path_of(&kv.key).filter(|path| path.starts_with(self.prefix.as_str()))?;
        // Where somebody else wrote it, its key may be no path.
        let path = Path::new(path).ok().filter(|_| is_new)?;
        let value = (event.kind != Event::DELETED).then(|| kv.value.clone());
        Some(Changed { path, value, revision: kv.mod_revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_of_a_revision_is_not_told_again_by_the_next_stream() {
        let mut cursor = Cursor::behind(4);
        assert!(!cursor.is_new(4, true), "it was asked for what follows");
        assert!(cursor.is_new(5, false) && cursor.is_new(5, true));
        assert_eq!(cursor.whole, 5);
        assert!(cursor.is_new(7, false) && cursor.is_new(7, false));
        cursor.rewind();
        assert!(!cursor.is_new(7, false) && !cursor.is_new(7, false));
        assert!(cursor.is_new(7, false) && cursor.is_new(7, true));
        cursor.rewind();
        assert!(cursor.is_new(8, false), "a whole revision does not come again");
    }
}
