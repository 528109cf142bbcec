//! Who holds which lease, by the clock of the server: those of the nodes may differ, and the one that the server has is asked by all.

use std::time::{Duration, Instant};

use keymill_core::seam::store::{Lease, Path, StoreError};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use crate::error::{is_transient, late, store_error};
use crate::pool::Pool;
use crate::records::revision_of;
use crate::trail::{Said, Seen};
use crate::writer::{Refused, Taken, Writer, fresh_id, take};

/// Further off than this the server's clock cannot count.
const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Renews what the holder has, under the same fence. Whoever was paused until his time was over has it no longer.
const RENEW: &str = "UPDATE leases SET until = clock_timestamp() + make_interval(secs => $3)
    WHERE name = $1 AND holder = $2 AND until > clock_timestamp() RETURNING fence";
const IS_TAKEN: &str = "SELECT FROM leases WHERE name = $1 AND until > clock_timestamp()";
/// Takes what is free; the counter is ours, so that nobody else takes it meanwhile.
const TAKE: &str = "INSERT INTO leases (name, holder, fence, until)
    VALUES ($1, $2, $4, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, until = excluded.until
    WHERE leases.until <= clock_timestamp() RETURNING fence";

enum Answer {
    Granted(i64),
    Taken,
    /// Nothing was written: what was seen is not there.
    Missing(Seen, Said),
    /// Nothing is known of the attempt; another finds out.
    Again,
}

/// Takes or renews the lease `name` for `holder`; `None` while another holds it. An attempt whose answer was lost is made again: where it
/// went well the next one renews what it took.
pub(crate) fn ask(
    pool: &Pool,
    writer: &Writer,
    name: &Path,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let wish = Wish { name: name.as_str(), holder, seconds: ttl.min(MAX_TTL).as_secs_f64() };
    let until = pool.deadline();
    loop {
        let id = fresh_id()?;
        let lent = pool.lend(until)?;
        let limit = lent.limit(until);
        let answer = pool.bridge.wait_until(limit, wish.ask(lent.client(), writer, &id));
        let is_over = Instant::now() >= until;
        match answer {
            Ok(Ok(Answer::Granted(fence))) => {
                lent.keep();
                return Ok(Some(Lease { fence: revision_of(fence) }));
            }
            Ok(Ok(Answer::Taken)) => {
                lent.keep();
                return Ok(None);
            }
            Ok(Err(error)) => {
                pool.lost(lent, &error);
                if is_over || !is_transient(&error) {
                    return Err(store_error(&error));
                }
            }
            Ok(Ok(Answer::Missing(seen, said))) if !lent.was_kept() => writer.trail.judge(&seen, &said)?,
            Ok(Ok(Answer::Missing(..) | Answer::Again)) | Err(_) => {
                pool.silent(lent);
                if is_over {
                    return Err(late(pool.timeout()));
                }
            }
        }
    }
}

struct Wish<'a> {
    name: &'a str,
    holder: &'a str,
    seconds: f64,
}

impl Wish<'_> {
    async fn ask(&self, client: &Client, writer: &Writer, id: &[u8; 16]) -> Result<Answer, Error> {
        let given: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.name, Type::TEXT), (&self.holder, Type::TEXT), (&self.seconds, Type::FLOAT8)];
        let is_taken = async { client.query_typed_opt(IS_TAKEN, &[(&self.name, Type::TEXT)]).await };
        let (renewed, is_taken) = tokio::join!(biased; client.query_typed_opt(RENEW, &given), is_taken);
        if let Some(row) = renewed? {
            return Ok(Answer::Granted(row.try_get(0)?));
        }
        if is_taken?.is_some() {
            return Ok(Answer::Taken);
        }
        self.take(client, writer, id).await
    }

    async fn take(&self, client: &Client, writer: &Writer, id: &[u8; 16]) -> Result<Answer, Error> {
        let seen = writer.trail.newest();
        let Taken { revision: fence, said, .. } = take(client, &[], &seen).await?;
        if !said.holds(&seen) {
            return Ok(Answer::Missing(seen, said));
        }
        let given: [(&(dyn ToSql + Sync), Type); 4] = [
            (&self.name, Type::TEXT),
            (&self.holder, Type::TEXT),
            (&self.seconds, Type::FLOAT8),
            (&fence, Type::INT8),
        ];
        if client.query_typed_opt(TAKE, &given).await?.is_none() {
            client.batch_execute("ROLLBACK").await?;
            return Ok(Answer::Taken);
        }
        match writer.end(client, fence, id).await {
            Ok(()) => {
                writer.trail.saw(fence, id);
                Ok(Answer::Granted(fence))
            }
            Err(Refused::Write(error)) => Err(error),
            Err(Refused::Commit) => Ok(Answer::Again),
        }
    }
}
