//! The TLS of a listener as it runs: what it serves with is looked up by each connection, and replaced when the files have changed.
//! Connections that stand keep what they began with. Where the new files are broken, the old ones stay in force.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;

use crate::error::TlsError;
use crate::files::{Stamp, stamp};
use crate::server::{Loaded, Material, Options, build};

/// The TLS of a listener; clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<Shared>);

struct Shared {
    options: Options,
    current: ArcSwap<Loaded>,
    seen: Mutex<Seen>,
    renewed: AtomicU64,
    kept: AtomicU64,
}

/// The files as they were when they were last read.
struct Seen {
    stamps: Vec<Stamp>,
    /// What was wrong with them, so that it is told once.
    wrong: Option<TlsError>,
}

/// What a look at the files has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Unchanged,
    /// New connections are served with what the files hold now.
    Renewed,
    /// What the files hold now cannot be used, and what was before stays in force.
    Kept(TlsError),
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] with the file that is wrong.
    pub fn open(options: Options) -> Result<Self, TlsError> {
        // Looked at before they are read: a change in between is then seen the next time.
        let stamps = stamps(&options);
        let loaded = build(&Material::read(&options)?, &options)?;
        Ok(Self(Arc::new(Shared {
            options,
            current: ArcSwap::from_pointee(loaded),
            seen: Mutex::new(Seen { stamps, wrong: None }),
            renewed: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        })))
    }

    /// Returns the options.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Returns the configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.current.load().config.clone()
    }

    /// Reads the files again, where they have changed since they were read.
    pub fn look(&self) -> Outcome {
        let mut seen = self.0.seen.lock();
        let stamps = stamps(&self.0.options);
        match stamps == seen.stamps {
            true => Outcome::Unchanged,
            false => self.read(&mut seen, stamps),
        }
    }

    /// Reads the files again.
    pub fn reload(&self) -> Outcome {
        let mut seen = self.0.seen.lock();
        seen.wrong = None;
        let stamps = stamps(&self.0.options);
        self.read(&mut seen, stamps)
    }

    fn read(&self, seen: &mut Seen, stamps: Vec<Stamp>) -> Outcome {
        let options = &self.0.options;
        seen.stamps = stamps;
        let loaded = Material::read(options).and_then(|material| build(&material, options));
        match loaded.and_then(|new| self.not_worse(new, now())) {
            Ok(new) => {
                self.0.current.store(Arc::new(new));
                self.0.renewed.fetch_add(1, Ordering::Relaxed);
                seen.wrong = None;
                Outcome::Renewed
            }
            Err(error) => {
                self.0.kept.fetch_add(1, Ordering::Relaxed);
                match seen.wrong.replace(error.clone()) {
                    Some(before) if before == error => Outcome::Unchanged,
                    _ => Outcome::Kept(error),
                }
            }
        }
    }

    /// Refuses a certificate that nobody would take, where the one in force is still good.
    fn not_worse(&self, new: Loaded, now: u64) -> Result<Loaded, TlsError> {
        let is_valid = |loaded: &Loaded| (loaded.not_before..=loaded.not_after).contains(&now);
        match !is_valid(&new) && is_valid(&self.0.current.load()) {
            true => Err(TlsError::new(format!(
                "{} is expired or not valid yet",
                self.0.options.certificate.display()
            ))),
            false => Ok(new),
        }
    }

    /// Returns the days until the certificate in force expires; negative ones are past.
    pub fn days_left(&self) -> i64 {
        (self.0.current.load().not_after as i64 - now() as i64).div_euclid(86_400)
    }

    /// Returns how often the files were taken over, and how often not.
    pub fn reloads(&self) -> [u64; 2] {
        [&self.0.renewed, &self.0.kept].map(|count| count.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({})", self.0.options.certificate.display())
    }
}

fn stamps(options: &Options) -> Vec<Stamp> {
    let two = [&options.certificate, &options.key];
    two.into_iter().chain(&options.client_ca).chain(&options.crl).map(|path| stamp(path)).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::Sensitive;
    use std::fs;
    use std::path::Path;

    fn read(path: &Path) -> Result<Option<Sensitive>, String> {
        fs::read(path).map(|bytes| Some(Sensitive::new(bytes))).map_err(|error| error.to_string())
    }

    fn put(directory: &Path, not_after: i32) {
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(directory.join("s.key"), key.serialize_pem()).unwrap();
        fs::write(directory.join("s.crt"), parameters.self_signed(&key).unwrap().pem()).unwrap();
    }

    #[test]
    fn an_expired_certificate_is_served_where_there_is_no_better_one() {
        let place = tempfile::tempdir().unwrap();
        put(place.path(), 2001);
        let file = |name| place.path().join(name);
        let tls = ServerTls::open(Options::new(file("s.crt"), file("s.key"), read, b"test")).unwrap();
        assert!(tls.days_left() < -5000);
        put(place.path(), 2002);
        assert_eq!(tls.look(), Outcome::Renewed, "as bad as the one before");
        put(place.path(), 2100);
        assert_eq!(tls.look(), Outcome::Renewed);
        assert!(tls.days_left() > 5000);
        put(place.path(), 2001);
        let Outcome::Kept(error) = tls.look() else { panic!("a worse one is not taken over") };
        assert!(error.to_string().contains("s.crt is expired"), "{error}");
        assert!(matches!(tls.reload(), Outcome::Kept(_)), "who asks is told again");
        assert_eq!(tls.look(), Outcome::Unchanged);
        assert!(tls.days_left() > 5000);
        assert_eq!(tls.reloads(), [2, 2]);
        assert!(!format!("{tls:?}").contains("KEY"));
    }
}
