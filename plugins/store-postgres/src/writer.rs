//! How a commit is made, and how it is found out whether one was whose answer was lost.
//!
//! Commits follow each other: each first takes the row of the counter, which the server keeps for it until it ends. So a revision is given
//! when all before it are done and seen by everybody, and whoever has seen revision n is never told of a change up to n later. A sequence
//! would be faster and would give n + 1 to one that is done before n.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use keymill_core::seam::store::{Path, Revision, StoreError, Write, check_distinct, is_alarm};
use tokio::time::timeout_at;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use crate::error::{is_transient, late, store_error};
use crate::pool::{Lent, Pool};
use crate::records::revision_of;
use crate::trail::{HELD, Said, Seen, Trail};

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// Takes the counter until the transaction ends.
const ADVANCE: &str = "UPDATE state SET revision = revision + 1 RETURNING revision";
/// A statement of its own: it sees all that was done before the counter was ours.
const PRESENT: &str = "SELECT path, revision FROM records WHERE path = ANY($1)";
const PUT: &str = "INSERT INTO records (path, value, revision, position)
    SELECT w.path, w.value, $3, w.position FROM unnest($1::text[], $2::bytea[], $4::int[]) AS w (path, value, position)
    ON CONFLICT (path) DO UPDATE
    SET value = excluded.value, revision = excluded.revision, position = excluded.position";
const REMOVE: &str = "DELETE FROM records WHERE path = ANY($1)";
const REMOVED: &str = "INSERT INTO removals (revision, position, path)
    SELECT $1, w.position, w.path FROM unnest($2::text[], $3::int[]) AS w (path, position)";
/// Keeps the newest removals, and notes up to where they are no longer known.
const FORGET: &str = "WITH beyond AS (
        SELECT revision FROM removals ORDER BY revision DESC, position DESC LIMIT 1 OFFSET $1
    ), gone AS (
        DELETE FROM removals WHERE revision <= (SELECT revision FROM beyond)
    )
    UPDATE state SET compacted = (SELECT revision FROM beyond) WHERE EXISTS (SELECT FROM beyond)";
pub(crate) const NOTE: &str = "INSERT INTO commits (revision, id) VALUES ($1, $2)";
const FORGET_COMMITS: &str = "DELETE FROM commits WHERE revision <= $1";
/// A time-out that strikes while a commit waits for its standby has the server acknowledge what no standby has: whoever waits for the answer
/// has a time-out of his own, which tells the server nothing.
pub(crate) const UNHURRIED: &str = "SET LOCAL statement_timeout = 0";
pub(crate) const COMMIT: &str = "COMMIT";
const NOTIFY: &str = "SELECT pg_notify($1, '')";
/// Waits for whoever has the counter: a commit whose answer was lost may still be under way.
const WAIT: &str = "SELECT FROM state FOR UPDATE";
const LOOK_UP: &str = "SELECT revision FROM commits WHERE id = $1";

/// Commits after which old ids are forgotten.
const FORGET_EVERY: i64 = 64;

/// Makes commits.
pub(crate) struct Writer {
    kept_removals: i64,
    kept_commits: i64,
    channel: String,
    notifies: AtomicBool,
    pub(crate) trail: Arc<Trail>,
}

/// What becomes of an attempt.
enum Outcome {
    Done(Revision),
    /// Nothing was written.
    Conflict(Path),
    /// Nothing was written.
    Failed(Error),
    /// Nothing was written: what was seen is not there.
    Missing(Seen, Said),
    /// Nothing was written, and the server did not answer.
    Late,
    /// The answer was lost.
    Unknown,
}

/// What is written, as the statements take it.
struct Batch<'a> {
    writes: &'a [Write],
    paths: Vec<&'a str>,
    put: (Vec<&'a str>, Vec<&'a [u8]>, Vec<i32>),
    id: [u8; 16],
}

impl Writer {
    /// Makes one.
    pub(crate) fn new(
        kept_removals: u32,
        kept_commits: u32,
        channel: String,
        notifies: bool,
        trail: Arc<Trail>,
    ) -> Self {
        Self {
            kept_removals: kept_removals.into(),
            kept_commits: kept_commits.into(),
            channel,
            notifies: notifies.into(),
            trail,
        }
    }

    /// Writes all or none; the commit is durable when this returns.
    pub(crate) fn commit(&self, pool: &Pool, writes: &[Write]) -> Result<Revision, StoreError> {
        let batch = Batch::of(writes)?;
        let until = pool.deadline();
        loop {
            if !is_alarm(writes) {
                self.trail.check()?;
            }
            let lent = pool.lend(until)?;
            let limit = lent.limit(until);
            let outcome = pool.bridge.wait(self.attempt(lent.client(), &batch, limit));
            let is_over = Instant::now() >= until;
            match outcome {
                Outcome::Done(revision) => {
                    lent.keep();
                    return Ok(self.made(revision, &batch.id));
                }
                Outcome::Conflict(path) => {
                    roll_back(pool, lent);
                    return Err(StoreError::Conflict(path));
                }
                Outcome::Missing(seen, said) if !lent.was_kept() => self.trail.judge(&seen, &said)?,
                Outcome::Failed(error) => {
                    pool.lost(lent, &error);
                    if is_over || !is_transient(&error) {
                        return Err(store_error(&error));
                    }
                }
                Outcome::Missing(..) | Outcome::Late => {
                    pool.silent(lent);
                    if is_over {
                        return Err(late(pool.timeout()));
                    }
                }
                Outcome::Unknown => {
                    pool.silent(lent);
                    if let Some(revision) = resolve(pool, &batch.id)? {
                        return Ok(self.made(revision, &batch.id));
                    }
                    if is_over {
                        return Err(late(pool.timeout()));
                    }
                }
            }
        }
    }

    /// Takes two round trips: the statements of each are sent in one go, and none but the last of them commits.
    async fn attempt(&self, client: &Client, batch: &Batch<'_>, limit: Instant) -> Outcome {
        let seen = self.trail.newest();
        let Taken { revision, present, said } =
            match timeout_at(limit.into(), take(client, &batch.paths, &seen)).await {
                Ok(Ok(taken)) => taken,
                Ok(Err(error)) => return Outcome::Failed(error),
                Err(_) => return Outcome::Late,
            };
        // The alarm is for those who find a store like that.
        if !said.holds(&seen) && !is_alarm(batch.writes) {
            return Outcome::Missing(seen, said);
        }
        if let Some(path) = batch.conflict(&present) {
            return Outcome::Conflict(path);
        }
        match timeout_at(limit.into(), self.write(client, batch, revision)).await {
            Ok(Ok(())) => Outcome::Done(revision_of(revision)),
            // The server itself refused a statement before the last: with that the transaction was over.
            Ok(Err(Refused::Write(error))) if error.as_db_error().is_some() => Outcome::Failed(error),
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }
    }

    /// Takes note of a commit that was made.
    fn made(&self, revision: Revision, id: &[u8; 16]) -> Revision {
        self.trail.saw(revision.0.cast_signed(), id);
        revision
    }

    async fn write(&self, client: &Client, batch: &Batch<'_>, revision: i64) -> Result<(), Refused> {
        let (paths, values, positions) = &batch.put;
        let put = async {
            let given: [(&(dyn ToSql + Sync), Type); 4] = [
                (paths, Type::TEXT_ARRAY),
                (values, Type::BYTEA_ARRAY),
                (&revision, Type::INT8),
                (positions, Type::INT4_ARRAY),
            ];
            if paths.is_empty() { Ok(0) } else { client.execute_typed(PUT, &given).await }
        };
        let (gone, places) = batch.removals();
        let is_removal = !gone.is_empty();
        let remove = async {
            if !is_removal {
                return Ok(0);
            }
            client.execute_typed(REMOVE, &[(&gone, Type::TEXT_ARRAY)]).await
        };
        let removed = async {
            let given: [(&(dyn ToSql + Sync), Type); 3] =
                [(&revision, Type::INT8), (&gone, Type::TEXT_ARRAY), (&places, Type::INT4_ARRAY)];
            if is_removal { client.execute_typed(REMOVED, &given).await } else { Ok(0) }
        };
        let forget = async {
            let kept = self.kept_removals;
            if is_removal { client.execute_typed(FORGET, &[(&kept, Type::INT8)]).await } else { Ok(0) }
        };
        let (put, remove, removed, forget, end) =
            tokio::join!(biased; put, remove, removed, forget, self.end(client, revision, &batch.id));
        for written in [put, remove, removed, forget] {
            written.map_err(Refused::Write)?;
        }
        end
    }

    /// Notes the commit and makes it; watches elsewhere are told behind it, in a transaction of its own: one that notifies holds a lock of
    /// the whole database while it becomes durable, and what an engine lacks must not undo what was written.
    pub(crate) async fn end(&self, client: &Client, revision: i64, id: &[u8; 16]) -> Result<(), Refused> {
        let id = &id[..];
        let note = async {
            let given: [(&(dyn ToSql + Sync), Type); 2] = [(&revision, Type::INT8), (&id, Type::BYTEA)];
            client.execute_typed(NOTE, &given).await
        };
        let forget = async {
            let old = revision - self.kept_commits;
            let is_due = revision % FORGET_EVERY == 0 && old > 0;
            if is_due { client.execute_typed(FORGET_COMMITS, &[(&old, Type::INT8)]).await } else { Ok(0) }
        };
        let notify = async {
            if !self.notifies.load(Ordering::Relaxed) {
                return;
            }
            let told = client.query_typed(NOTIFY, &[(&self.channel, Type::TEXT)]).await;
            if told.is_err_and(|error| error.as_db_error().is_some()) {
                // Watches ask anyway.
                self.notifies.store(false, Ordering::Relaxed);
            }
        };
        let (note, forget, unhurried, commit, ()) = tokio::join!(
            biased;
            note,
            forget,
            client.batch_execute(UNHURRIED),
            client.batch_execute(COMMIT),
            notify,
        );
        note.and(forget).map_err(Refused::Write)?;
        unhurried.map_err(Refused::Write)?;
        commit.map_err(|_| Refused::Commit)
    }
}

/// Which statement did not go well.
pub(crate) enum Refused {
    /// One before the last: nothing is written, where the server itself says so.
    Write(Error),
    /// The last.
    Commit,
}

/// What a commit finds once the counter is its own.
pub(crate) struct Taken {
    pub(crate) revision: i64,
    present: Vec<Row>,
    pub(crate) said: Said,
}

/// Takes the counter, and reads what is there.
pub(crate) async fn take(client: &Client, paths: &[&str], seen: &Seen) -> Result<Taken, Error> {
    let present = async { client.query_typed(PRESENT, &[(&paths, Type::TEXT_ARRAY)]).await };
    let held = async { client.query_typed_one(HELD, &[(&seen.revision, Type::INT8)]).await };
    let (begun, advanced, present, held) = tokio::join!(biased; client.batch_execute(BEGIN), client.query_typed_one(ADVANCE, &[]), present, held);
    begun?;
    let (revision, held) = (advanced?.try_get(0)?, Said::read(&held?)?);
    // This one's own is the newest by now.
    let said = Said { newest: revision - 1, ..held };
    Ok(Taken { revision, present: present?, said })
}

/// Gives the lock up now, or with the connection.
fn roll_back(pool: &Pool, lent: Lent<'_>) {
    let rolled = lent.client().batch_execute("ROLLBACK");
    if let Ok(Ok(())) = pool.bridge.wait_until(pool.deadline(), rolled) {
        lent.keep();
    }
}

/// Finds out whether a commit was made: first whoever may still be making it is waited for, then its id is looked up. The wait is a write,
/// so that its own end also says that the commit is as durable as any.
fn resolve(pool: &Pool, id: &[u8; 16]) -> Result<Option<Revision>, StoreError> {
    let id = &id[..];
    let found = pool.ask(async |client| {
        let look_up = async { client.query_typed_opt(LOOK_UP, &[(&id, Type::BYTEA)]).await };
        let (begun, waited, found, unhurried, ended) = tokio::join!(
            biased;
            client.batch_execute(BEGIN),
            client.query_typed(WAIT, &[]),
            look_up,
            client.batch_execute(UNHURRIED),
            client.batch_execute(COMMIT),
        );
        begun?;
        waited?;
        let found = found?;
        unhurried?;
        ended?;
        found.map(|row| row.try_get(0)).transpose()
    });
    match found {
        Ok(revision) => Ok(revision.map(revision_of)),
        Err(error) => Err(StoreError::Unavailable(format!(
            "the answer to a commit was lost, and whether it was made is not known: {error}"
        ))),
    }
}

impl<'a> Batch<'a> {
    fn of(writes: &'a [Write]) -> Result<Self, StoreError> {
        check_distinct(writes)?;
        let paths = writes.iter().map(|write| write.path.as_str()).collect();
        let mut put = (Vec::new(), Vec::new(), Vec::new());
        for (write, position) in writes.iter().zip(0..) {
            if let Some(value) = &write.value {
                put.0.push(write.path.as_str());
                put.1.push(&value[..]);
                put.2.push(position);
            }
        }
        Ok(Self { writes, paths, put, id: fresh_id()? })
    }

    /// Returns the first path that is at another revision than named.
    fn conflict(&self, present: &[Row]) -> Option<Path> {
        let present: BTreeMap<&str, Revision> = present
            .iter()
            .filter_map(|row| Some((row.try_get(0).ok()?, revision_of(row.try_get(1).ok()?))))
            .collect();
        let differs = |write: &&Write| present.get(write.path.as_str()).copied() != write.expected;
        self.writes.iter().find(differs).map(|write| write.path.clone())
    }

    /// Returns the paths of records that go, and their places; those of which none was there have nothing to go.
    fn removals(&self) -> (Vec<&'a str>, Vec<i32>) {
        let writes = self.writes.iter().zip(0..);
        let gone = writes.filter(|(write, _)| write.value.is_none() && write.expected.is_some());
        gone.map(|(write, position)| (write.path.as_str(), position)).unzip()
    }
}

/// Draws the id of a commit.
pub(crate) fn fresh_id() -> Result<[u8; 16], StoreError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| StoreError::Unavailable(format!("the system has no randomness for us: {error}")))?;
    Ok(id)
}
