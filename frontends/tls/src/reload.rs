//! The TLS of a listener as it runs: what it serves with is looked up by each connection, and replaced when the files have changed.
//! Connections that stand keep what they began with. Where the new files are broken, the old ones stay in force.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use keymill_core::Sensitive;
use parking_lot::Mutex;
use rustls::ServerConfig;

use crate::error::TlsError;
use crate::files::{Stamp, stamp};
use crate::server::{Identity, Loaded, Material, Options, build};

/// The TLS of a listener; clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<Shared>);

struct Shared {
    options: Options,
    /// None before the first one is supplied.
    current: ArcSwapOption<Loaded>,
    /// What was supplied last: chain and key in PEM.
    supplied: Mutex<Option<(Vec<u8>, Sensitive)>>,
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
    /// Reads the files. Where the certificate is supplied, nobody is served before it is.
    ///
    /// # Errors
    /// [`TlsError`] with the file that is wrong.
    pub fn open(options: Options) -> Result<Self, TlsError> {
        // Looked at before they are read: a change in between is then seen the next time.
        let stamps = stamps(&options);
        let material = Material::read(&options)?;
        let loaded = match options.identity {
            Identity::Files { .. } => Some(Arc::new(build(&material, &options)?)),
            Identity::Supplied { .. } => None,
        };
        Ok(Self(Arc::new(Shared {
            options,
            current: ArcSwapOption::new(loaded),
            supplied: Mutex::new(None),
            seen: Mutex::new(Seen { stamps, wrong: None }),
            renewed: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        })))
    }

    /// Returns the options.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Returns the configuration for the next connection; `None` before a certificate that is supplied is there.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.0.current.load().as_ref().map(|loaded| loaded.config.clone())
    }

    /// Takes a certificate over, for new connections: its chain and its key, in PEM.
    ///
    /// # Errors
    /// [`TlsError`] where they cannot be used; what was before stays in force.
    pub fn supply(&self, chain: Vec<u8>, key: Sensitive) -> Result<(), TlsError> {
        let mut seen = self.0.seen.lock();
        let options = &self.0.options;
        seen.stamps = stamps(options);
        let copy = Sensitive::copied(key.expose());
        let material = Material { certificate: chain.clone(), key, ..Material::read(options)? };
        let new = build(&material, options).and_then(|new| self.not_worse(new, now()));
        match new {
            Ok(new) => {
                let was_there = self.0.current.swap(Some(Arc::new(new))).is_some();
                *self.0.supplied.lock() = Some((chain, copy));
                self.0.renewed.fetch_add(u64::from(was_there), Ordering::Relaxed);
                seen.wrong = None;
                Ok(())
            }
            Err(error) => {
                self.0.kept.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Counts a certificate that could not be had.
    pub fn not_supplied(&self) {
        self.0.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads what the files hold, with what was supplied beside.
    fn material(&self) -> Result<Material, TlsError> {
        let material = Material::read(&self.0.options)?;
        match &*self.0.supplied.lock() {
            Some((chain, key)) => {
                Ok(Material { certificate: chain.clone(), key: Sensitive::copied(key.expose()), ..material })
            }
            None => Ok(material),
        }
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
        let loaded = self.material().and_then(|material| build(&material, options));
        match loaded.and_then(|new| self.not_worse(new, now())) {
            Ok(new) => {
                self.0.current.store(Some(Arc::new(new)));
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
        let is_good = self.0.current.load().as_ref().is_some_and(|loaded| is_valid(loaded));
        match !is_valid(&new) && is_good {
            true => {
                let (name, _) = self.0.options.identity.names();
                Err(TlsError::new(format!("{name} is expired or not valid yet")))
            }
            false => Ok(new),
        }
    }

    /// Returns the days until the certificate in force expires; negative ones are past.
    pub fn days_left(&self) -> i64 {
        let not_after = self.0.current.load().as_ref().map_or(0, |loaded| loaded.not_after);
        (not_after as i64 - now() as i64).div_euclid(86_400)
    }

    /// Returns how often the files were taken over, and how often not.
    pub fn reloads(&self) -> [u64; 2] {
        [&self.0.renewed, &self.0.kept].map(|count| count.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({})", self.0.options.identity.names().0)
    }
}

fn stamps(options: &Options) -> Vec<Stamp> {
    let two: &[&PathBuf] = match &options.identity {
        Identity::Files { certificate, key, .. } => &[certificate, key],
        Identity::Supplied { .. } => &[],
    };
    two.iter().copied().chain(&options.client_ca).chain(&options.crl).map(|path| stamp(path)).collect()
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
    fn a_certificate_that_is_supplied_is_served_and_a_broken_one_leaves_it_in_force() {
        let made = |until| {
            let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let chain = parameters.self_signed(&key).unwrap().pem().into_bytes();
            (chain, Sensitive::new(key.serialize_pem().into_bytes()))
        };
        let tls = ServerTls::open(Options::supplied("authority a".into(), b"test")).unwrap();
        assert!(tls.config().is_none(), "nobody is served before");
        let (chain, key) = made(2100);
        tls.supply(chain.clone(), key).unwrap();
        assert!(tls.config().is_some() && tls.days_left() > 5000);
        let (other, _) = made(2100);
        let (_, other_key) = made(2100);
        let error = tls.supply(other, other_key).unwrap_err().to_string();
        assert!(error.contains("the certificate of authority a with its key"), "{error}");
        let (expired, its_key) = made(2001);
        assert!(tls.supply(expired, its_key).unwrap_err().to_string().contains("expired"));
        assert!(tls.days_left() > 5000);
        // SIGHUP takes nothing away.
        assert_eq!(tls.reload(), Outcome::Renewed);
        assert_eq!((tls.look(), tls.reloads()), (Outcome::Unchanged, [1, 2]));
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
