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
use keymill_core::seam::store::{Path, StoreError, Wrote};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, Followed, method};
use crate::error::Fault;
use crate::keys::Keys;
use crate::messages::{Event, KeyValue, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::reads::{Newest, check_known};
use crate::trail::Trail;

/// How often a watch proves that it is current; the seam asks for at least once a second.
const PROOF: Duration = Duration::from_millis(400);
/// Before a stream that broke is opened anew.
const PAUSE: Duration = Duration::from_millis(50);

/// What a watch tells.
pub(crate) enum Told {
    Commit(Commit),
    /// Everything was told that was committed before this moment.
    Current(std::time::Instant),
    Ended(StoreError),
}

/// A commit, whole.
#[derive(Debug, PartialEq)]
pub(crate) struct Commit {
    pub(crate) revision: i64,
    pub(crate) writes: Vec<Changed>,
}

/// One change.
#[derive(Debug, PartialEq)]
pub(crate) struct Changed {
    pub(crate) path: Path,
    /// `None`: the record was removed.
    pub(crate) value: Option<Bytes>,
}

impl Changed {
    /// Shows it as a watch tells it.
    pub(crate) fn wrote(&self) -> Wrote<'_> {
        Wrote { path: &self.path, value: self.value.as_deref() }
    }
}

/// Nobody listens any more.
struct Unheard;

/// Puts commits together from the events of a stream, which has them in order, but may split one over several answers.
#[derive(Debug)]
struct Assembly {
    /// Everything up to this revision was given out.
    whole: i64,
    /// The revision of which the rest is still to come.
    part: i64,
    writes: Vec<Changed>,
}

impl Assembly {
    fn behind(revision: i64) -> Self {
        Self { whole: revision, part: 0, writes: Vec::new() }
    }

    /// Goes back to where the next stream begins: it has the rest of a commit with all that came of it.
    fn rewind(&mut self) {
        self.part = 0;
        self.writes.clear();
    }

    /// Takes an event, and gives out what is whole by it. `is_mark`: it is of the key that every commit writes last. What somebody else
    /// wrote in our place has no mark, and is whole once something later comes.
    fn take(&mut self, revision: i64, change: Option<Changed>, is_mark: bool, out: &mut Vec<Commit>) {
        if revision <= self.whole {
            return;
        }
        if revision != self.part {
            self.end(out);
            self.part = revision;
        }
        self.writes.extend(change);
        if is_mark {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Vec<Commit>) {
        if self.part <= self.whole {
            return;
        }
        self.whole = self.part;
        let writes = std::mem::take(&mut self.writes);
        if !writes.is_empty() {
            out.push(Commit { revision: self.whole, writes });
        }
    }

    /// Takes note that none of our commits is up to `revision` but those that were given out, so that a later stream need not begin before.
    fn skip_to(&mut self, revision: i64) {
        let known = if self.part > self.whole { revision.min(self.part - 1) } else { revision };
        self.whole = self.whole.max(known);
    }
}

/// Follows the changes of the records under `prefix` behind a revision, until nobody listens.
pub(crate) async fn follow(
    cluster: Arc<Cluster>,
    keys: Arc<Keys>,
    trail: Arc<Trail>,
    prefix: Path,
    from: i64,
    tell: Sender<Told>,
) {
    let (commits, proved) = (Assembly::behind(from), Instant::now());
    let mut watch = Watch { cluster, keys, trail, prefix, commits, proved, tell };
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

/// What a linearizable read found.
struct Proof {
    /// A moment before it was asked.
    asked: Instant,
    newest: Newest,
}

struct Watch {
    cluster: Arc<Cluster>,
    keys: Arc<Keys>,
    trail: Arc<Trail>,
    prefix: Path,
    commits: Assembly,
    /// When it was current last.
    proved: Instant,
    tell: Sender<Told>,
}

impl Watch {
    /// Opens a stream and tells what comes, until it breaks.
    async fn run(&mut self) -> Result<Unheard, Fault> {
        // Before it is asked what is known: of another history everything may be.
        self.trail.newest(&self.cluster, &self.keys).await?;
        check_known(&self.cluster, &self.keys, self.commits.whole).await?;
        self.commits.rewind();
        let span = self.keys.watched();
        let start_revision = self.commits.whole.saturating_add(1);
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
        // Where something was told there is a newest one.
        let mut newest_seen = i64::from(start_revision > 1);
        // Not begun anew with each change: changes may come faster than it ends.
        let mut proof = pin!(self.proof(Instant::now()));
        // What a read found, and until when the stream may take to come there.
        let mut goal: Option<(Proof, Instant)> = None;
        loop {
            let late = goal.as_ref().map_or_else(Instant::now, |(_, late)| *late);
            tokio::select! {
                biased;
                // Before the stream, which may always have something to tell.
                found = &mut proof, if goal.is_none() => {
                    let found = found?;
                    // Whoever took it away would have commits passed over.
                    if found.newest.commit < newest_seen {
                        return Err(Fault::Lost("the key of the newest revision went back".into()));
                    }
                    newest_seen = found.newest.commit;
                    goal = Some((found, Instant::now() + self.cluster.try_time()));
                }
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
                () = sleep_until(late), if goal.is_some() => {
                    return Err(Fault::Lost("the watch is behind".into()));
                }
            }
            if let Some((found, _)) = goal.take_if(|(found, _)| found.newest.commit <= self.commits.whole) {
                self.commits.skip_to(found.newest.as_of);
                if is_first {
                    // What was compacted before the stream came to it may have lacked removals: etcd keeps those of the very revision
                    // that it compacts to only in newer versions.
                    check_known(&self.cluster, &self.keys, start_revision - 1).await?;
                    is_first = false;
                }
                if self.tell.send_async(Told::Current(found.asked.into_std())).await.is_err() {
                    return Ok(Unheard);
                }
                self.proved = Instant::now();
                proof.set(self.proof(found.asked + PROOF));
            }
        }
    }

    /// Reads which commit is the newest, once it is due.
    fn proof(&self, due: Instant) -> impl Future<Output = Result<Proof, Fault>> + use<> {
        let (cluster, keys, trail) = (self.cluster.clone(), self.keys.clone(), self.trail.clone());
        async move {
            sleep_until(due).await;
            // Before any member is asked, however often: an answer that comes late is as old as the question.
            let asked = Instant::now();
            Ok(Proof { asked, newest: trail.newest(&cluster, &keys).await? })
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
        let mut commits = Vec::new();
        for event in &answer.events {
            let Some(kv) = &event.kv else { continue };
            let is_mark = kv.key == self.keys.newest();
            if is_mark && event.kind != Event::DELETED {
                // Of a commit that is told: what is told is not to be missed later.
                self.trail.saw(kv.mod_revision, &kv.value);
            }
            self.commits.take(kv.mod_revision, self.changed(event, kv), is_mark, &mut commits);
        }
        for commit in commits {
            if self.tell.send_async(Told::Commit(commit)).await.is_err() {
                return Ok(Err(Unheard));
            }
        }
        Ok(Ok(()))
    }

    /// Returns the change of a record under the prefix; where somebody else wrote it, its key may be no path.
    fn changed(&self, event: &Event, kv: &KeyValue) -> Option<Changed> {
        let path = self.keys.path_of(&kv.key).filter(|path| path.starts_with(self.prefix.as_str()))?;
        let value = (event.kind != Event::DELETED).then(|| kv.value.clone());
        Some(Changed { path: Path::new(path).ok()?, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(at: &str) -> Option<Changed> {
        Some(Changed { path: Path::new(at).expect("a path"), value: None })
    }

    /// Takes events (revision, path, or none for the mark), and returns what was given out: revisions and paths.
    fn taken(assembly: &mut Assembly, events: &[(i64, Option<&str>)]) -> Vec<(i64, Vec<String>)> {
        let mut out = Vec::new();
        for (revision, at) in events {
            assembly.take(*revision, at.and_then(changed), at.is_none(), &mut out);
        }
        let paths = |commit: Commit| commit.writes.iter().map(|write| write.path.to_string()).collect();
        out.into_iter().map(|commit| (commit.revision, paths(commit))).collect()
    }

    #[test]
    fn a_commit_is_given_out_whole_however_it_is_split() {
        let events = [
            (5, Some("a")),
            (5, Some("b")),
            (5, None),
            (7, Some("a")),
            (7, Some("c")),
            (7, Some("d")),
            (7, None),
        ];
        let all = [(5, vec!["a".into(), "b".into()]), (7, vec!["a".into(), "c".into(), "d".into()])];
        for first in 0..=events.len() {
            for second in first..=events.len() {
                let mut assembly = Assembly::behind(4);
                let mut told = Vec::new();
                for answer in [&events[..first], &events[first..second], &events[second..]] {
                    told.extend(taken(&mut assembly, answer));
                }
                assert_eq!(told, all, "split at {first} and {second}");
                assert_eq!(assembly.whole, 7);
            }
        }
    }

    #[test]
    fn the_next_stream_tells_the_rest_and_nothing_twice() {
        let mut assembly = Assembly::behind(4);
        assert!(
            taken(&mut assembly, &[(4, Some("x")), (4, None)]).is_empty(),
            "it was asked for what follows"
        );
        assert_eq!(taken(&mut assembly, &[(5, Some("a")), (5, None), (7, Some("b"))]).len(), 1);
        assembly.rewind();
        assert_eq!(assembly.whole, 5);
        let told = taken(&mut assembly, &[(7, Some("b")), (7, Some("c")), (7, None)]);
        assert_eq!(told, [(7, vec!["b".into(), "c".into()])]);
    }

    #[test]
    fn what_has_no_mark_is_whole_once_something_later_comes() {
        let mut assembly = Assembly::behind(4);
        assert!(taken(&mut assembly, &[(5, Some("a"))]).is_empty());
        // A proof as of later does not pass over it.
        assembly.skip_to(9);
        assert_eq!(assembly.whole, 4);
        let told = taken(&mut assembly, &[(8, Some("b")), (8, None)]);
        assert_eq!(told, [(5, vec!["a".into()]), (8, vec!["b".into()])]);
        assembly.skip_to(20);
        assert_eq!(assembly.whole, 20);
    }

    #[test]
    fn a_commit_of_other_prefixes_is_passed_over_and_nothing_is_given_out() {
        let mut assembly = Assembly::behind(4);
        let mut out = Vec::new();
        assembly.take(5, None, false, &mut out);
        assembly.take(5, None, true, &mut out);
        assert!(out.is_empty());
        assert_eq!(assembly.whole, 5);
    }
}
