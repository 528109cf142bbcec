//! The tables, their version, and how they come to be. A live record is its own latest change; only removals need a log of their own, so
//! that no value is ever kept twice. The statements name no schema: each session has it in its search path.

use keymill_core::seam::store::StoreError;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::connect::Refusal;
use crate::error::{OpenError, is_transient, store_error};
use crate::pool::Pool;

const APPLICATION: &str = "keymill";
const VERSION: i32 = 1;

/// `revision` is the commit that wrote a row, `position` its place in that commit. Paths compare as bytes, whatever the database's own
/// collation. Values are sealed: trying to compress them would be in vain.
const TABLES: &str = r#"
    CREATE TABLE records (
        path     text   COLLATE "C" PRIMARY KEY,
        value    bytea  NOT NULL,
        revision bigint NOT NULL,
        position int    NOT NULL
    );
    ALTER TABLE records ALTER COLUMN value SET STORAGE EXTERNAL;
    CREATE INDEX records_by_change ON records (revision, position);
    CREATE TABLE removals (
        revision bigint NOT NULL,
        position int    NOT NULL,
        path     text   COLLATE "C" NOT NULL,
        PRIMARY KEY (revision, position)
    );
    CREATE TABLE commits (
        revision bigint PRIMARY KEY,
        id       bytea  NOT NULL UNIQUE
    );
    CREATE TABLE leases (
        name   text COLLATE "C" PRIMARY KEY,
        holder text        NOT NULL,
        fence  bigint      NOT NULL,
        until  timestamptz NOT NULL
    );
    CREATE TABLE state (
        id          smallint PRIMARY KEY CHECK (id = 1),
        application text   NOT NULL,
        version     int    NOT NULL,
        revision    bigint NOT NULL,
        compacted   bigint NOT NULL
    );
    INSERT INTO state VALUES (1, 'keymill', 1, 0, 0);
"#;

/// What is there: the schema, how many tables are in it, and whether one is called as ours.
const FOUND: &str = "SELECT
    EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1),
    (SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = $1),
    EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'state')";
const STATE: &str = "SELECT application, version FROM state";

/// Nodes that start together make the schema together: all but one fail, and look again.
const ATTEMPTS: usize = 10;

/// Checks the schema, or makes it where it is absent.
pub(crate) fn prepare(pool: &Pool, schema: &str) -> Result<(), OpenError> {
    // The first connection says more than a store error could.
    pool.try_lend(pool.deadline())
        .map_err(|refusal| match refusal {
            Refusal::Unfit(why) => OpenError::Unfit(why),
            Refusal::Later(why) => OpenError::Database(StoreError::Unavailable(why)),
            Refusal::Final(error) => OpenError::Database(error),
        })?
        .keep();
    let mut refused = None;
    for _ in 0..ATTEMPTS {
        let found = pool.ask(async |client| look(client, schema).await).map_err(OpenError::Database)?;
        match found {
            Found::Nothing { has_schema } => match make(pool, schema, has_schema)? {
                Made::Done => return Ok(()),
                Made::Meanwhile(error) => refused = Some(error),
            },
            Found::Foreign => return Err(OpenError::Foreign { schema: schema.to_owned() }),
            Found::Version(VERSION) => return Ok(()),
            Found::Version(found) if found > VERSION => {
                return Err(OpenError::Newer { schema: schema.to_owned(), found, known: VERSION });
            }
            Found::Version(_) => return Err(OpenError::Foreign { schema: schema.to_owned() }),
        }
    }
    Err(OpenError::Database(refused.unwrap_or_else(|| StoreError::Unavailable("the schema changes".into()))))
}

enum Found {
    Nothing { has_schema: bool },
    Foreign,
    Version(i32),
}

enum Made {
    Done,
    /// Another node made it, or is about to.
    Meanwhile(StoreError),
}

async fn look(client: &Client, schema: &str) -> Result<Found, Error> {
    let row = client.query_typed_one(FOUND, &[(&schema, Type::TEXT)]).await?;
    let (has_schema, tables): (bool, i64) = (row.try_get(0)?, row.try_get(1)?);
    if !row.try_get::<_, bool>(2)? {
        return Ok(if tables == 0 { Found::Nothing { has_schema } } else { Found::Foreign });
    }
    // A table of that name with other columns, or of several rows, is none of ours.
    let rows = match client.query_typed(STATE, &[]).await {
        Ok(rows) => rows,
        Err(error) if error.code().is_some_and(|state| state.code() == "42703") => return Ok(Found::Foreign),
        Err(error) => return Err(error),
    };
    let [row] = &rows[..] else { return Ok(Found::Foreign) };
    match (row.try_get::<_, String>(0), row.try_get(1)) {
        (Ok(application), Ok(version)) if application == APPLICATION => Ok(Found::Version(version)),
        _ => Ok(Found::Foreign),
    }
}

fn make(pool: &Pool, schema: &str, has_schema: bool) -> Result<Made, OpenError> {
    // A schema that an administrator made needs no right to make one.
    let made = if has_schema { String::new() } else { format!("CREATE SCHEMA \"{schema}\";") };
    let sql = format!("BEGIN; {made} {TABLES} COMMIT");
    let lent = pool.lend(pool.deadline()).map_err(OpenError::Database)?;
    match pool.bridge.wait_until(pool.deadline(), lent.client().batch_execute(&sql)) {
        Ok(Ok(())) => {
            lent.keep();
            Ok(Made::Done)
        }
        // unique_violation of the catalogue, duplicate_schema, duplicate_table
        Ok(Err(error))
            if is_transient(&error)
                || error.code().is_some_and(|state| matches!(state.code(), "23505" | "42P06" | "42P07")) =>
        {
            Ok(Made::Meanwhile(store_error(&error)))
        }
        Ok(Err(error)) => Err(OpenError::Database(store_error(&error))),
        Err(_) => Err(OpenError::Database(crate::error::late(pool.timeout()))),
    }
}
