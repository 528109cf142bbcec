//! What is read: a record, a page of them, all of them as of one moment, and the changes that a watch is told of. Each answer is one
//! snapshot of the database. A row that was altered outside keymill never stops the rest: its seal does not open, or its path is missed.

use std::time::Instant;

use futures_util::TryStreamExt;
use keymill_core::seam::store::{Entry, Page, Path, Revision, Row as StoreRow, StoreError, Wrote};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use crate::error::{is_transient, late, store_error};
use crate::pool::{Lent, Pool};
use crate::trail::{HELD, Said, Seen, Trail};

/// Changes that are read in one go; the last commit is read to its end, however large it is.
const CHUNK_ROWS: i64 = 64;
/// Rows of a scan that are fetched in one go.
const FETCH_ROWS: usize = 256;

const GET: &str = "SELECT path, value, revision FROM records WHERE path = $1";
const LIST: &str =
    "SELECT path, value, revision FROM records WHERE path >= $1 AND path < $2 ORDER BY path LIMIT $3";

/// A cursor in a transaction of its own snapshot. Whom a scan tells may take its time between two fetches; a node that never goes on is
/// let go after ten minutes, since its snapshot keeps old rows from being vacuumed.
const SCAN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL idle_in_transaction_session_timeout = 600000; \
    SET LOCAL statement_timeout = 600000; \
    DECLARE scan NO SCROLL CURSOR FOR SELECT path, value, revision FROM records";

/// The state and the changes in one statement, which is one snapshot. `$1` says how far the watch has come, `$2` and `$3` bound the paths;
/// `upto` is the commit of the row behind `$4` others, or the newest. The upper bound keeps out rows whose revision was altered to one that is yet to come. The ids tell one history from another: the
/// one of the revision that the watch has come to, that of the newest, and that of `$5`, the newest that this process has seen. A server that takes no
/// writes may be behind another that does.
const CHANGES: &str = "
    SELECT s.revision, s.compacted, seen.id, newest.id, current_setting('transaction_read_only'),
           upto.revision, c.path, c.value, c.revision, c.is_removal, held.id, (SELECT min(revision) FROM commits)
    FROM state s
    LEFT JOIN commits seen ON seen.revision = $1
    LEFT JOIN commits newest ON newest.revision = s.revision
    LEFT JOIN commits held ON held.revision = $5
    CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT revision FROM (
                SELECT revision FROM records
                WHERE revision > $1 AND revision <= s.revision AND path >= $2 AND path < $3
                UNION ALL
                SELECT revision FROM removals
                WHERE revision > $1 AND revision <= s.revision AND path >= $2 AND path < $3
            ) every ORDER BY revision LIMIT 1 OFFSET $4
        ), s.revision) AS revision
    ) upto
    LEFT JOIN LATERAL (
        SELECT path, value, revision, position, false AS is_removal FROM records
        WHERE revision > $1 AND revision <= upto.revision AND path >= $2 AND path < $3
        UNION ALL
        SELECT path, ''::bytea, revision, position, true FROM removals
        WHERE revision > $1 AND revision <= upto.revision AND path >= $2 AND path < $3
    ) c ON true
    ORDER BY c.revision, c.position";

/// How far a watch has come: everything up to this commit was told.
pub(crate) struct Cursor {
    pub(crate) revision: Revision,
    /// The id of that commit, where it was told.
    id: Option<Vec<u8>>,
}

impl Cursor {
    /// Stands behind the commit `revision`.
    pub(crate) fn behind(revision: Revision) -> Self {
        Self { revision, id: None }
    }
}

/// The changes of some whole commits, in order.
pub(crate) struct Changes {
    pub(crate) rows: Vec<Changed>,
    /// Where to go on.
    pub(crate) cursor: Cursor,
    /// The newest commit that there was.
    pub(crate) newest: Revision,
}

/// One change.
pub(crate) struct Changed {
    pub(crate) path: Path,
    /// `None`: the record was removed.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) revision: Revision,
}

impl Changed {
    /// Shows it as a watch tells it.
    pub(crate) fn wrote(&self) -> Wrote<'_> {
        Wrote { path: &self.path, value: self.value.as_deref() }
    }
}

/// Reads one record.
pub(crate) fn get(pool: &Pool, path: &Path) -> Result<Option<Entry>, StoreError> {
    let path = path.as_str();
    let row = pool.ask(async |client| client.query_typed_opt(GET, &[(&path, Type::TEXT)]).await)?;
    Ok(row.as_ref().and_then(entry))
}

/// Reads a page of records.
pub(crate) fn list(pool: &Pool, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
    let (from, end) = (prefix.start_behind(page.after), prefix.end());
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let given: [(&(dyn ToSql + Sync), Type); 3] =
        [(&from, Type::TEXT), (&end, Type::TEXT), (&limit, Type::INT8)];
    let rows = pool.ask(async |client| client.query_typed(LIST, &given).await)?;
    Ok(rows.iter().filter_map(entry).collect())
}

/// Returns the revision of the newest commit, where the server holds all that this process has seen.
pub(crate) fn revision(pool: &Pool, trail: &Trail) -> Result<Revision, StoreError> {
    trail.check()?;
    let seen = trail.newest();
    let ask = async |client: &Client| {
        let row = client.query_typed_one(HELD, &[(&seen.revision, Type::INT8)]).await?;
        Ok((Said::read(&row)?, row.try_get(3)?))
    };
    let (said, id): (Said, Option<Vec<u8>>) = pool.ask_twice(ask, |(said, _)| !said.holds(&seen))?;
    trail.judge(&seen, &said)?;
    if let Some(id) = id {
        trail.saw(said.newest, &id);
    }
    Ok(revision_of(said.newest))
}

/// Reads all records, as one snapshot of the store. They stream: no more than what the connection buffers is in memory.
pub(crate) fn scan(pool: &Pool, each: &mut dyn FnMut(StoreRow<'_>) -> bool) -> Result<(), StoreError> {
    let lent = begin_scan(pool)?;
    let failed = |error: Error| store_error(&error);
    let slow = |_| late(pool.timeout());
    let fetch = format!("FETCH FORWARD {FETCH_ROWS} FROM scan");
    let none: [(&str, Type); 0] = [];
    let mut goes_on = true;
    while goes_on {
        let fetched =
            pool.bridge.wait_until(pool.deadline(), lent.client().query_typed_raw(&fetch, none.clone()));
        let mut rows = std::pin::pin!(fetched.map_err(slow)?.map_err(failed)?);
        let mut count = 0;
        // Each row has its time: a scan takes as long as there are rows.
        while let Some(row) =
            pool.bridge.wait_until(pool.deadline(), rows.try_next()).map_err(slow)?.map_err(failed)?
        {
            count += 1;
            let Ok(path) = row.try_get(0) else { continue };
            let (value, revision) = (bytes_of(&row, 1), revision_of(row.try_get(2).unwrap_or(0)));
            if !each(StoreRow { path, value, revision }) {
                goes_on = false;
                break;
            }
        }
        goes_on &= count == FETCH_ROWS;
    }
    // Nothing hangs on how it ends.
    if let Ok(Ok(())) = pool.bridge.wait_until(pool.deadline(), lent.client().batch_execute("ROLLBACK")) {
        lent.keep();
    }
    Ok(())
}

/// Begins a scan; until the first row nobody was told of anything, and it can begin again.
fn begin_scan(pool: &Pool) -> Result<Lent<'_>, StoreError> {
    let until = pool.deadline();
    loop {
        let lent = pool.lend(until)?;
        let begun = pool.bridge.wait_until(lent.limit(until), lent.client().batch_execute(SCAN));
        let is_over = Instant::now() >= until;
        match begun {
            Ok(Ok(())) => return Ok(lent),
            Ok(Err(error)) => {
                pool.lost(lent, &error);
                if is_over || !is_transient(&error) {
                    return Err(store_error(&error));
                }
            }
            Err(_) => {
                pool.silent(lent);
                if is_over {
                    return Err(late(pool.timeout()));
                }
            }
        }
    }
}

/// What the first row of the changes says beside them.
struct Head {
    compacted: i64,
    /// The id of the newest commit.
    id: Option<Vec<u8>>,
    takes_writes: bool,
    upto: i64,
    /// What is said of the commit that this process has seen last, and of the one that the watch has come to.
    held: Said,
    told: Said,
}

impl Head {
    fn read(row: &Row) -> Result<Self, Error> {
        let (newest, oldest) = (row.try_get(0)?, row.try_get(11)?);
        Ok(Self {
            compacted: row.try_get(1)?,
            id: row.try_get(3)?,
            takes_writes: row.try_get(4).unwrap_or("off") != "on",
            upto: row.try_get(5)?,
            held: Said { newest, oldest, id: row.try_get(10)? },
            told: Said { newest, oldest, id: row.try_get(2)? },
        })
    }
}

/// Reads the changes under `prefix` that follow `after`, where the server holds all that this process has seen.
pub(crate) fn changes(
    pool: &Pool,
    trail: &Trail,
    prefix: &Path,
    after: &Cursor,
) -> Result<Changes, StoreError> {
    trail.check()?;
    // No history of ours comes that far.
    let Ok(revision) = i64::try_from(after.revision.0) else { return Err(StoreError::Compacted) };
    let held = trail.newest();
    // Nothing, where it is not known which commit that is.
    let told = after.id.clone().map_or_else(Seen::default, |id| Seen { revision, id });
    let (prefix, end, others) = (prefix.as_str(), prefix.end(), CHUNK_ROWS - 1);
    let given: [(&(dyn ToSql + Sync), Type); 5] = [
        (&revision, Type::INT8),
        (&prefix, Type::TEXT),
        (&end, Type::TEXT),
        (&others, Type::INT8),
        (&held.revision, Type::INT8),
    ];
    let ask = async |client: &Client| {
        let rows = read_changes(client, &given).await?;
        let head = rows.first().map(Head::read).transpose()?;
        Ok((head, rows))
    };
    let is_odd = |head: &Head| !head.held.holds(&held) || !head.told.holds(&told);
    let (head, rows) = pool.ask_twice(ask, |(head, _)| head.as_ref().is_some_and(is_odd))?;
    let head = head.ok_or_else(|| StoreError::Corrupt("the table state has no row".into()))?;
    if !head.takes_writes {
        pool.forget();
        return Err(StoreError::Unavailable("the server takes no writes any more".into()));
    }
    trail.judge(&held, &head.held)?;
    trail.judge(&told, &head.told)?;
    let newest = head.held.newest;
    if let Some(id) = &head.id {
        trail.saw(newest, id);
    }
    // A revision that is yet to come was read from another history of this store; of one whose id is forgotten that is not known.
    let is_known = after.id.is_none() || head.told.id.is_some();
    if revision < head.compacted || revision > newest || !is_known {
        return Err(StoreError::Compacted);
    }
    Ok(Changes {
        rows: rows.iter().filter_map(changed).collect(),
        cursor: Cursor { revision: revision_of(head.upto), id: head.id.filter(|_| head.upto == newest) },
        newest: revision_of(newest),
    })
}

async fn read_changes(client: &Client, given: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
    client.query_typed(CHANGES, given).await
}

/// Reads a change; `None` where the row is of the state alone, or the path was altered to something that is no path.
fn changed(row: &Row) -> Option<Changed> {
    let revision = row.try_get::<_, Option<i64>>(8).ok()?.map(revision_of)?;
    let path = row.try_get(6).ok().and_then(|text: &str| Path::new(text).ok())?;
    let is_removal = row.try_get(9).unwrap_or(false);
    let value = (!is_removal).then(|| bytes_of(row, 7).to_vec());
    Some(Changed { path, value, revision })
}

/// Reads a row of path, value and revision; `None` where the path was altered to something that is no path.
fn entry(row: &Row) -> Option<Entry> {
    let path = row.try_get(0).ok().and_then(|text: &str| Path::new(text).ok())?;
    let (value, revision) = (bytes_of(row, 1).to_vec(), revision_of(row.try_get(2).unwrap_or(0)));
    Some(Entry { path, value, revision })
}

fn bytes_of(row: &Row, at: usize) -> &[u8] {
    row.try_get(at).unwrap_or_default()
}

/// The counter begins at zero and only grows.
pub(crate) fn revision_of(stored: i64) -> Revision {
    Revision(stored.cast_unsigned())
}
