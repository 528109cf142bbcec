//! Keeps the certificates of the listeners fresh: a thread looks at their files, and on SIGHUP reads them whatever they look like. What
//! cannot be used is told once, and what was before stays in force.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use keymill_runtime::Gate;
use keymill_tls::{Outcome, ServerTls};

use crate::failure::{Failure, Result};
use crate::own_certificate::OwnCertificate;

/// Days before the end of a certificate from which on each start and each reload says so.
const SOON_DAYS: i64 = 14;

/// The TLS of each listener that has it, by the listener's name.
pub(crate) type Watched = Vec<(&'static str, ServerTls)>;

/// Asks for the files to be read now.
#[derive(Clone)]
pub(crate) struct Now(mpsc::Sender<()>);

impl Now {
    /// Makes one, and what hears it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<()>) {
        let (sender, asked) = mpsc::channel();
        (Self(sender), asked)
    }

    /// Asks.
    pub(crate) fn ask(&self) {
        let _nobody_has_tls = self.0.send(());
    }
}

/// Watches the files of all listeners until the process ends, and has certificates signed that authorities here sign; the first of each before it
/// returns.
pub(crate) fn watch(
    watched: Watched,
    mut own: Vec<OwnCertificate>,
    gate: Gate,
    asked: mpsc::Receiver<()>,
) -> Result<()> {
    let Some(interval) = watched.iter().map(|(_, tls)| tls.options().reload_interval).min() else {
        return Ok(());
    };
    for one in &mut own {
        one.first(&gate)?;
    }
    for (name, tls) in &watched {
        tell_of_expiry(name, tls);
        show(name, tls, &gate);
    }
    let looking = move || {
        while let Some(is_asked) = wait(&asked, interval) {
            own.iter_mut().for_each(|one| one.look(&gate));
            for (name, tls) in &watched {
                let outcome = if is_asked { tls.reload() } else { tls.look() };
                tell(name, tls, outcome);
                show(name, tls, &gate);
            }
        }
    };
    let spawned = std::thread::Builder::new().name("km-tls".into()).spawn(looking);
    spawned.map(drop).map_err(Failure::because("thread of certificates"))
}

/// Waits for the next look, and returns whether somebody asked for it; `None` where nobody is left to.
fn wait(asked: &mpsc::Receiver<()>, interval: Duration) -> Option<bool> {
    match asked.recv_timeout(interval) {
        Ok(()) => {
            // Several at once are one.
            while asked.try_recv().is_ok() {}
            Some(true)
        }
        Err(RecvTimeoutError::Timeout) => Some(false),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

fn tell(listener: &str, tls: &ServerTls, outcome: Outcome) {
    match outcome {
        Outcome::Unchanged => {}
        Outcome::Renewed => {
            tracing::info!(
                listener,
                days_left = tls.days_left(),
                "new connections are served with new certificates"
            );
            tell_of_expiry(listener, tls);
        }
        Outcome::Kept(error) => {
            tracing::error!(listener, %error, "new certificates cannot be used: those before stay in force");
        }
    }
}

fn tell_of_expiry(listener: &str, tls: &ServerTls) {
    let days_left = tls.days_left();
    if days_left < 0 {
        tracing::error!(listener, days_left, "the certificate has expired: clients refuse it");
    } else if days_left < SOON_DAYS {
        tracing::warn!(listener, days_left, "the certificate expires soon");
    }
}

fn show(listener: &str, tls: &ServerTls, gate: &Gate) {
    gate.metrics().tls.certificate(listener, tls.days_left(), tls.reloads());
}
