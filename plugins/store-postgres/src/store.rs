//! The store itself: the seam of the engine over the connections, and what wakes its watches.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::Once;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{
    Change, Entry, Goal, Lease, Page, Path, Revision, Row, Store, StoreError, Write,
};
use tokio_postgres::Error;

use crate::bridge::Bridge;
use crate::config::Config;
use crate::connect::{Connector, Refusal};
use crate::error::OpenError;
use crate::pool::Pool;
use crate::records::{self, Changed, Cursor};
use crate::signal::Signal;
use crate::trail::Trail;
use crate::writer::Writer;
use crate::{leases, schema};

/// How long the listener rests before it connects again.
const LISTENER_RESTS: Duration = Duration::from_secs(1);

/// A store in a schema of a PostgreSQL database, which any number of nodes share.
pub struct PostgresStore {
    pool: Pool,
    connector: Arc<Connector>,
    writer: Writer,
    trail: Arc<Trail>,
    signal: Arc<Signal>,
    channel: String,
    poll: Duration,
    listens: bool,
    listening: Once,
    shown: String,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

/// Opens the store in a schema, or makes it there.
///
/// # Errors
/// [`OpenError`] where options make no sense, no server answers in time, the server would lose what it acknowledges, or the schema is not
/// one of ours.
pub fn open(config: Config) -> Result<PostgresStore, OpenError> {
    config.check()?;
    let (schema, poll, listens) = (config.schema.clone(), config.poll, config.notify);
    let (max, timeout) = (config.max_connections, config.timeout);
    let channel = format!("keymill_{schema}");
    let shown = format!("{} of {}", config.schema, config.database);
    let trail = Arc::new(Trail::default());
    let (removals, commits) = (config.kept_removals, config.kept_commits);
    let writer = Writer::new(removals, commits, channel.clone(), listens, trail.clone());
    let signal = Arc::new(Signal::default());
    let bridge = Bridge::start().map_err(OpenError::Threads)?;
    let connector = Arc::new(Connector::prepare(config, signal.clone())?);
    let pool = Pool::new(bridge, connector.clone(), max, timeout);
    schema::prepare(&pool, &schema)?;
    let listening = Once::new();
    Ok(PostgresStore {
        pool,
        connector,
        writer,
        trail,
        signal,
        channel,
        poll,
        listens,
        listening,
        shown,
        _kept: None,
    })
}

impl PostgresStore {
    /// Keeps `guard` until the store is dropped: a lock of what this node has beside it.
    #[must_use]
    pub fn keeping(self, guard: impl Any + Send + Sync) -> Self {
        Self { _kept: Some(Box::new(guard)), ..self }
    }

    /// Ends all watches and refuses writes from now on; reads go on, and connections are closed with the drop.
    pub fn close(&self) {
        self.signal.close();
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.signal.is_closed() {
            true => Err(StoreError::Unavailable("the store is closed".into())),
            false => Ok(()),
        }
    }

    /// Listens for the commits of other nodes from the first watch on.
    fn listen(&self) {
        if !self.listens {
            return;
        }
        self.listening.call_once(|| {
            let (connector, signal) = (self.connector.clone(), self.signal.clone());
            let listening = listen(connector, signal, self.channel.clone(), self.pool.timeout());
            self.pool.bridge.handle().spawn(listening);
        });
    }
}

/// Keeps a connection that listens, until the server refuses to: then watches ask, as they do anyway. What was missed while there was none
/// is asked for too, so that a watch is woken each time that there is one again.
async fn listen(connector: Arc<Connector>, signal: Arc<Signal>, channel: String, timeout: Duration) {
    let listen = format!("LISTEN \"{channel}\"");
    loop {
        match connector.connect(tokio::time::Instant::now() + timeout).await {
            Ok(mut session) => match session.client.batch_execute(&listen).await {
                Ok(()) => {
                    signal.wake();
                    session.ended().await;
                }
                Err(error) if is_lacking(&error) => return,
                Err(_) => {}
            },
            // Whoever reads or writes tells of it.
            Err(Refusal::Later(_) | Refusal::Final(_) | Refusal::Unfit(_)) => {}
        }
        tokio::time::sleep(LISTENER_RESTS).await;
    }
}

/// Tells whether an engine has no notifications: feature_not_supported, syntax_error, undefined_function.
fn is_lacking(error: &Error) -> bool {
    error.code().is_some_and(|state| matches!(state.code(), "0A000" | "42601" | "42883"))
}

impl Store for PostgresStore {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        records::get(&self.pool, path)
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        records::list(&self.pool, prefix, page)
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        records::scan(&self.pool, each)
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        self.check_open()?;
        if writes.is_empty() {
            return self.revision();
        }
        let revision = self.writer.commit(&self.pool, writes)?;
        self.signal.wake();
        Ok(revision)
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        self.listen();
        let (mut cursor, mut goal) = (Cursor::behind(from), Goal::default());
        while !self.signal.is_closed() {
            // Counted before the server is asked: what happens meanwhile is not slept over.
            let (seen, asked) = (self.signal.count(), Instant::now());
            let changes = records::changes(&self.pool, &self.trail, prefix, &cursor)?;
            for commit in changes.rows.chunk_by(|one, next| one.revision == next.revision) {
                let writes: Vec<_> = commit.iter().map(Changed::wrote).collect();
                if !each(Change::Commit { revision: commit[0].revision, writes: &writes }) {
                    return Ok(());
                }
            }
            cursor = changes.cursor;
            if let Some(as_of) = goal.reached(asked, changes.newest, cursor.revision)
                && !each(Change::Current { as_of })
            {
                return Ok(());
            }
            if cursor.revision == changes.newest {
                self.signal.wait_beyond(seen, asked + self.poll);
            }
        }
        Ok(())
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.check_open()?;
        leases::ask(&self.pool, &self.writer, name, holder, ttl)
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        records::revision(&self.pool, &self.trail)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({})", self.shown)
    }
}
