//! How a connection comes to be: a server that takes writes is found among those of the cluster, and each session is set up and checked,
//! so that what it acknowledges lasts and a node that is paused in a transaction does not hold the others up.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::seam::store::StoreError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, NoTls};

use crate::config::{Config, Place};
use crate::error::{OpenError, describe, is_transient, store_error};
use crate::signal::Signal;
use crate::tls::{self, Security};

/// The oldest version that is taken: older ones count a statement's time over all that come with it.
const MIN_VERSION: u32 = 130_000;
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What a session says of itself. Engines that speak the protocol may lack a setting.
const CHECK: &str = "SELECT current_setting('server_version_num', true), \
    current_setting('synchronous_commit', true), current_setting('fsync', true)";

/// Makes connections.
pub(crate) struct Connector {
    places: Vec<Place>,
    database: String,
    user: String,
    password: Option<Sensitive>,
    security: Option<Security>,
    setup: String,
    timeout: Duration,
    /// The place that was right last.
    first: AtomicUsize,
    signal: Arc<Signal>,
}

/// Why there is no connection.
pub(crate) enum Refusal {
    /// It may go well later.
    Later(String),
    /// Somebody has to do something first.
    Final(StoreError),
    /// The server is there and would not keep what it acknowledges.
    Unfit(String),
}

/// A connection that was set up. It is closed with its drop, whatever it was doing.
pub(crate) struct Session {
    /// What statements are sent by.
    pub(crate) client: Client,
    driver: JoinHandle<()>,
    /// Whether it was used before: it may be dead without our knowing.
    pub(crate) is_used: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Waits until the connection ends.
    pub(crate) async fn ended(&mut self) {
        let _ended = (&mut self.driver).await;
    }
}

impl Connector {
    /// Reads what connections need; nothing is connected yet.
    pub(crate) fn prepare(config: Config, signal: Arc<Signal>) -> Result<Self, OpenError> {
        let security = config.tls.as_ref().map(Security::prepare).transpose()?;
        for place in &config.places {
            check_place(place, security.is_some())?;
        }
        let setup = setup(&config.schema, config.timeout);
        Ok(Self {
            places: config.places,
            database: config.database,
            user: config.user,
            password: config.password,
            security,
            setup,
            timeout: config.timeout,
            first: AtomicUsize::new(0),
            signal,
        })
    }

    /// Connects to the first server that takes writes.
    pub(crate) async fn connect(&self, until: Instant) -> Result<Session, Refusal> {
        let count = self.places.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut refusal = None;
        for tried in 0..count {
            let at = (first + tried) % count;
            let share = share(until, count - tried);
            match self.connect_to(&self.places[at], share).await {
                Ok(session) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(session);
                }
                // What may go well later says more than what will not.
                Err(Refusal::Later(why)) => refusal = Some(Refusal::Later(why)),
                Err(last) => refusal = refusal.or(Some(last)),
            }
        }
        Err(refusal.unwrap_or_else(|| Refusal::Later("no server is named".into())))
    }

    async fn connect_to(&self, place: &Place, until: Instant) -> Result<Session, Refusal> {
        let named = |why: String| format!("{place}: {why}");
        let late = || Refusal::Later(named("the server does not answer in time".into()));
        let Place::Tcp { host, port } = place else {
            return timeout_at(until, self.log_in(place, None)).await.unwrap_or_else(|_| Err(late()));
        };
        let found = timeout_at(until, tokio::net::lookup_host((host.as_str(), *port))).await;
        let addresses: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(Refusal::Later(named(error.to_string()))),
            Err(_) => return Err(late()),
        };
        let mut refusal = Refusal::Later(named("the name has no address".into()));
        for (i, address) in addresses.iter().enumerate() {
            // Where a name leads is looked at each time that it is followed.
            if self.security.is_none() && !address.ip().is_loopback() {
                let why =
                    named(format!("{} is not this machine: it is reached over TLS alone", address.ip()));
                refusal = Refusal::Unfit(why);
                continue;
            }
            let share = share(until, addresses.len() - i);
            match timeout_at(share, self.log_in(place, Some(*address))).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(last)) => refusal = last,
                Err(_) => refusal = late(),
            }
        }
        Err(refusal)
    }

    async fn log_in(&self, place: &Place, address: Option<SocketAddr>) -> Result<Session, Refusal> {
        let mut options = tokio_postgres::Config::new();
        options
            .user(&self.user)
            .dbname(&self.database)
            .application_name("keymill")
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .tcp_user_timeout(self.timeout)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE / 4)
            .keepalives_retries(3);
        if let Some(password) = &self.password {
            options.password(password.expose());
        }
        match place {
            Place::Socket { directory, port } => options.host_path(directory).port(*port),
            Place::Tcp { host, port } => options.host(host).port(*port),
        };
        if let Some(address) = address {
            options.hostaddr(address.ip());
        }
        let refused = |error: Error| match is_transient(&error) {
            true => Refusal::Later(format!("{place}: {}", describe(&error))),
            false => Refusal::Final(store_error(&error)),
        };
        let (client, driver) = match &self.security {
            Some(security) => {
                options.ssl_mode(SslMode::Require);
                let (client, connection) = options.connect(security.clone()).await.map_err(refused)?;
                (client, tokio::spawn(drive(connection, self.signal.clone())))
            }
            None => {
                options.ssl_mode(SslMode::Disable);
                let (client, connection) = options.connect(NoTls).await.map_err(refused)?;
                (client, tokio::spawn(drive(connection, self.signal.clone())))
            }
        };
        let session = Session { client, driver, is_used: false };
        session.client.batch_execute(&self.setup).await.map_err(refused)?;
        let said = session.client.query_typed_one(CHECK, &[]).await.map_err(refused)?;
        let said = |i: usize| said.try_get::<_, Option<String>>(i).ok().flatten();
        fitness([said(0), said(1), said(2)]).map_err(|why| Refusal::Unfit(format!("{place}: {why}")))?;
        Ok(session)
    }
}

/// The part of the time left that one of `count` tries has: one that does not answer leaves time for the others.
fn share(until: Instant, count: usize) -> Instant {
    let now = Instant::now();
    now + until.saturating_duration_since(now) / u32::try_from(count).unwrap_or(u32::MAX)
}

async fn drive<S, T>(mut connection: Connection<S, T>, signal: Arc<Signal>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(_))) => signal.wake(),
            Some(Ok(_)) => {}
            // Whoever waits for an answer is told.
            Some(Err(_)) | None => return,
        }
    }
}

/// What each session is told. `remote_apply` waits for more than `on`, and stays. Statements are not compiled: by what a table without statistics
/// lets the server expect each look of a watch would be, which takes longer than all that it reads.
fn setup(schema: &str, timeout: Duration) -> String {
    let ms = timeout.as_millis();
    format!(
        "SET search_path = \"{schema}\", pg_temp; \
         SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
             WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false); \
         SELECT set_config('jit', 'off', false) WHERE current_setting('jit', true) IS NOT NULL; \
         SET default_transaction_isolation = 'read committed'; \
         SET statement_timeout = {ms}; \
         SET lock_timeout = {ms}; \
         SET idle_in_transaction_session_timeout = {ms}"
    )
}

/// Refuses a server that answers before what it was told is durable.
fn fitness([version, commit, fsync]: [Option<String>; 3]) -> Result<(), String> {
    let number = version.as_deref().and_then(|text| text.parse::<u32>().ok());
    if number.is_none_or(|number| number < MIN_VERSION) {
        let shown = version.as_deref().unwrap_or("unknown");
        return Err(format!("PostgreSQL 13 or later is needed, and the server is of version {shown}"));
    }
    if !matches!(commit.as_deref(), Some("on" | "remote_apply")) {
        let shown = commit.as_deref().unwrap_or("unknown");
        return Err(format!(
            "synchronous_commit is {shown} and does not change: commits would be acknowledged before they are durable"
        ));
    }
    if fsync.as_deref() == Some("off") {
        return Err("fsync is off: a crash of the machine would lose commits that were acknowledged".into());
    }
    Ok(())
}

fn check_place(place: &Place, has_tls: bool) -> Result<(), OpenError> {
    let refuse = |why: String| Err(OpenError::Options(why));
    match place {
        Place::Socket { .. } if has_tls => {
            refuse(format!("{place}: TLS is for a host, and a socket does not leave this machine"))
        }
        Place::Socket { .. } => Ok(()),
        Place::Tcp { host, .. } if has_tls => tls::name(host).map(drop),
        Place::Tcp { host, .. } => {
            let is_here =
                host.parse::<std::net::IpAddr>().map_or(host == "localhost", |address| address.is_loopback());
            match is_here {
                true => Ok(()),
                false => refuse(format!("{place} may be another machine: it is reached over TLS alone")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_takes_tls() {
        for elsewhere in ["192.0.2.1", "db.example.com", "localhost.example.com"] {
            let why = check_place(&elsewhere.parse().unwrap(), false).unwrap_err().to_string();
            assert!(why.contains("TLS"), "{why}");
            check_place(&elsewhere.parse().unwrap(), true).unwrap();
        }
        for here in ["127.0.0.1", "::1", "localhost", "/run/postgresql"] {
            check_place(&here.parse().unwrap(), false).unwrap();
        }
        assert!(check_place(&"/run/postgresql".parse().unwrap(), true).is_err());
    }

    #[test]
    fn a_server_that_would_lose_what_it_acknowledged_is_refused() {
        let said = |version: &str, commit: &str, fsync: Option<&str>| {
            fitness([Some(version.into()), Some(commit.into()), fsync.map(Into::into)])
        };
        said("150018", "on", Some("on")).unwrap();
        said("130000", "remote_apply", None).unwrap();
        for (version, commit, fsync) in [
            ("120022", "on", "on"),
            ("odd", "on", "on"),
            ("150018", "off", "on"),
            ("150018", "local", "on"),
            ("150018", "remote_write", "on"),
            ("150018", "on", "off"),
        ] {
            assert!(said(version, commit, Some(fsync)).is_err(), "{version} {commit} {fsync}");
        }
        assert!(fitness([Some("150018".into()), None, None]).is_err());
    }
}
