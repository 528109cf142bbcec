//! The store itself: the seam of the engine, over the cluster.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use flume::RecvTimeoutError;
use keymill_core::seam::store::{
    Change, Entry, Lease, Page, Path, Revision, Row, Store, StoreError, Write, is_alarm,
};

use crate::cluster::{Cluster, method};
use crate::commits::{Committer, plan};
use crate::config::Config;
use crate::error::{Fault, OpenError};
use crate::keys::{FORMAT, Keys};
use crate::leases;
use crate::messages::{Compare, Empty, Op, PutRequest, StatusResponse, TxnRequest, TxnResponse};
use crate::reads::{self, Pages, revision};
use crate::slots::Slots;
use crate::threads::Threads;
use crate::trail::Trail;
use crate::watches::{self, Changed, Told};

/// Commits of a stream that wait for whoever watches.
const TOLD: usize = 64;
/// How soon a watch sees that the store is closed.
const LOOK: Duration = Duration::from_millis(100);
/// How long the drop of a store waits for etcd.
const FAREWELL: Duration = Duration::from_millis(500);

/// A store under a prefix of an etcd.
pub struct EtcdStore {
    threads: Threads,
    cluster: Arc<Cluster>,
    keys: Arc<Keys>,
    committer: Arc<Committer>,
    trail: Arc<Trail>,
    is_closed: AtomicBool,
    name: String,
    /// What is kept as long as the store.
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

/// Opens the store under a prefix, or makes it there.
///
/// # Errors
/// [`OpenError`] where an option cannot be meant, no member answers in time, etcd is too old, or what is under the prefix is not ours.
pub fn open(config: Config) -> Result<EtcdStore, OpenError> {
    let (prefix, name) = (config.prefix.clone(), format!("{:?} under {}", config.endpoints, config.prefix));
    let cluster = Arc::new(Cluster::new(config)?);
    let threads = Threads::start().map_err(OpenError::Threads)?;
    let keys = Arc::new(Keys::under(&prefix));
    let slots = Slots::new().map_err(|error| OpenError::Threads(io::Error::other(error.to_string())))?;
    let trail = Arc::new(Trail::default());
    let committer = Committer {
        cluster: cluster.clone(),
        keys: keys.clone(),
        slots: Arc::new(slots),
        trail: trail.clone(),
    };
    let (of, at) = (cluster.clone(), keys.clone());
    let found = threads.begin(async move { examine(&of, &at).await }).wait();
    let (version, format) =
        found.map_err(OpenError::Cluster)?.map_err(|fault| OpenError::Cluster(fault.into_store_error()))?;
    if is_too_old(&version) {
        return Err(OpenError::TooOld { version });
    }
    if format != FORMAT.as_bytes() {
        let found = String::from_utf8_lossy(&format).chars().take(32).collect();
        return Err(OpenError::Foreign { prefix, found });
    }
    Ok(EtcdStore {
        threads,
        cluster,
        keys,
        committer: Arc::new(committer),
        trail,
        is_closed: AtomicBool::new(false),
        name,
        _kept: None,
    })
}

/// Asks for the version of etcd and the format of what is under the prefix, which is put there where there is none.
async fn examine(cluster: &Cluster, keys: &Keys) -> Result<(String, Vec<u8>), Fault> {
    let status: StatusResponse = cluster.read(method::STATUS, Empty {}).await?;
    if is_too_old(&status.version) {
        return Ok((status.version, Vec::new()));
    }
    let mut patience = cluster.patience();
    loop {
        if let Some(found) = reads::key(cluster, keys.format()).await? {
            return Ok((status.version, found.value.to_vec()));
        }
        let put = PutRequest { key: keys.format(), value: FORMAT.into(), lease: 0 };
        let request = TxnRequest {
            compare: vec![Compare::is_at(keys.format(), 0)],
            success: vec![Op::Put(put).into()],
            failure: Vec::new(),
        };
        match cluster.ask::<_, TxnResponse>(method::TXN, request, patience.until).await {
            Ok(_) => {}
            Err(fault @ (Fault::NotDone(_) | Fault::Lost(_) | Fault::LoggedOut(_))) => {
                patience.pause(cluster.members(), fault).await.map_err(Fault::Refused)?;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// Tells whether a version, as `3.4.23`, is of before 3.4; one that cannot be read is not.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u64>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < (3, 4))
}

impl EtcdStore {
    /// Keeps `guard` until the store is dropped: a lock of what this node has beside it.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self._kept = Some(Box::new(guard));
        self
    }

    /// Ends all watches and refuses writes from now on; reads go on.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        Ok(())
    }
}

impl Store for EtcdStore {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        let (cluster, key, path) = (self.cluster.clone(), self.keys.record(path), path.clone());
        self.threads.wait(async move {
            let found = reads::key(&cluster, key).await.map_err(Fault::into_store_error)?;
            let entry = |kv: crate::messages::KeyValue| Entry {
                path,
                value: kv.value.to_vec(),
                revision: revision(kv.mod_revision),
            };
            Ok(found.map(entry))
        })
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        let (cluster, keys) = (self.cluster.clone(), self.keys.clone());
        let span = keys.records(prefix.as_str(), page.after.map(Path::as_str));
        let wanted = page.limit;
        self.threads.wait(async move { reads::list(&cluster, &keys, span, wanted).await })
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        let next = |mut pages: Pages| {
            let cluster = self.cluster.clone();
            self.threads.begin(async move {
                let page = pages.next(&cluster).await;
                (pages, page)
            })
        };
        let mut coming = Some(next(Pages::of(self.keys.records("", None), usize::MAX)));
        while let Some(page) = coming.take() {
            let (pages, page) = page.wait()?;
            let page = page.map_err(Fault::into_store_error)?;
            // The next one is read while this one is told.
            coming = (!pages.is_done).then(|| next(pages));
            for kv in &page {
                let Some(path) = self.keys.path_of(&kv.key) else { continue };
                if !each(Row { path, value: &kv.value, revision: revision(kv.mod_revision) }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        self.check_open()?;
        if writes.is_empty() {
            return self.revision();
        }
        let planned = plan(&self.keys, writes)?;
        let (committer, is_alarm) = (self.committer.clone(), is_alarm(writes));
        self.threads.wait(async move { committer.commit(planned, is_alarm).await })
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let from = i64::try_from(from.0).map_err(|_| StoreError::Compacted)?;
        let (tell, told) = flume::bounded(TOLD);
        let (cluster, keys, trail) = (self.cluster.clone(), self.keys.clone(), self.trail.clone());
        let following = watches::follow(cluster, keys, trail, prefix.clone(), from, tell);
        // It ends when nobody listens any more.
        let _until_then = self.threads.begin(following);
        while !self.is_closed.load(Ordering::Relaxed) {
            match told.recv_timeout(LOOK) {
                Ok(Told::Commit(commit)) => {
                    let writes: Vec<_> = commit.writes.iter().map(Changed::wrote).collect();
                    if !each(Change::Commit { revision: revision(commit.revision), writes: &writes }) {
                        return Ok(());
                    }
                }
                Ok(Told::Current(as_of)) if each(Change::Current { as_of }) => {}
                Ok(Told::Current(_)) => return Ok(()),
                Ok(Told::Ended(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(StoreError::Unavailable("a thread that talks to etcd has panicked".into()));
                }
            }
        }
        Ok(())
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.check_open()?;
        let (cluster, name, holder) = (self.cluster.clone(), self.keys.lease(name), holder.to_owned());
        self.threads.wait(async move { leases::ask(&cluster, &name, &holder, ttl).await })
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        let (cluster, keys, trail) = (self.cluster.clone(), self.keys.clone(), self.trail.clone());
        self.threads.wait(async move {
            let newest = trail.newest(&cluster, &keys).await.map_err(Fault::into_store_error)?;
            Ok(revision(newest.commit))
        })
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        let committer = self.committer.clone();
        let ended = self.threads.begin(async move { committer.slots.end(&committer.cluster).await });
        let _otherwise_they_go_with_their_time = ended.wait_for(FAREWELL);
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdStore({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_before_3_4_are_too_old() {
        for old in ["3.3.25", "2.3.8", "3.0.0"] {
            assert!(is_too_old(old), "{old}");
        }
        for fine in ["3.4.0", "3.4.23", "3.10.1", "4.0.0", "3.6.0-rc.1", "unknown"] {
            assert!(!is_too_old(fine), "{fine}");
        }
    }
}
