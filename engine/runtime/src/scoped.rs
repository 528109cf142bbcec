//! A part of a store that is a store of its own: what lies under `instance-data/<id>/` of the one beneath. Whoever has it can name nothing
//! outside of it, and its own paths read as if there was nothing else.

use std::sync::Arc;
use std::time::Duration;

use keymill_core::id::InstanceId;
use keymill_core::seam::store::{
    Change, Entry, Lease, PARTS, Page, Path, Revision, Row, Store, StoreError, Write, Wrote, check_distinct,
};

/// Records that are removed in one commit.
const REMOVED_AT_ONCE: usize = 64;
/// Times that a removal is begun anew because somebody still wrote.
const TRIES: usize = 8;

/// The records of one instance.
pub struct Scoped {
    beneath: Arc<dyn Store>,
    /// `instance-data/<id>/`.
    scope: String,
}

impl Scoped {
    /// Takes the part of a store that is the instance's.
    pub fn of(beneath: Arc<dyn Store>, instance: &InstanceId) -> Self {
        Self { beneath, scope: format!("{PARTS}{instance}/") }
    }

    /// Removes every record; nobody uses the instance any more.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read or written, and `Conflict` where somebody goes on writing.
    pub fn clear(&self) -> Result<(), StoreError> {
        let all = self.whole()?;
        let mut tries = 0;
        loop {
            let page = self.beneath.list(&all, Page { after: None, limit: REMOVED_AT_ONCE })?;
            if page.is_empty() {
                return Ok(());
            }
            let removal =
                |entry: Entry| Write { path: entry.path, expected: Some(entry.revision), value: None };
            let removals: Vec<_> = page.into_iter().map(removal).collect();
            match self.beneath.commit(&removals) {
                Err(StoreError::Conflict(_)) if tries < TRIES => tries += 1,
                committed => drop(committed?),
            }
        }
    }

    fn whole(&self) -> Result<Path, StoreError> {
        Path::new(self.scope.as_str()).map_err(|_| unfit(&self.scope))
    }

    /// Returns where a path of ours stands beneath.
    fn down(&self, path: &Path) -> Result<Path, StoreError> {
        Path::new(format!("{}{path}", self.scope)).map_err(|_| unfit(path.as_str()))
    }

    /// Returns what a path beneath is to us.
    fn up(&self, path: &Path) -> Result<Path, StoreError> {
        let ours = path.as_str().strip_prefix(&self.scope).and_then(|ours| Path::new(ours).ok());
        ours.ok_or_else(|| unfit(path.as_str()))
    }

    /// Reads an error as one of our own paths.
    fn told(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Conflict(path) => self.up(&path).map_or_else(|error| error, StoreError::Conflict),
            other => other,
        }
    }
}

/// Says that a path does not fit: those that the engine makes do.
fn unfit(path: &str) -> StoreError {
    StoreError::Corrupt(format!("the path {path} is none of an instance"))
}

impl Store for Scoped {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        let entry = self.beneath.get(&self.down(path)?)?;
        Ok(entry.map(|entry| Entry { path: path.clone(), ..entry }))
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        let after = page.after.map(|after| self.down(after)).transpose()?;
        let page = Page { after: after.as_ref(), limit: page.limit };
        let entries = self.beneath.list(&self.down(prefix)?, page)?;
        entries.into_iter().map(|entry| Ok(Entry { path: self.up(&entry.path)?, ..entry })).collect()
    }

    /// Passes over what is others'. To read all of it costs what the whole store does, as it has to be of one moment.
    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        self.beneath.scan(&mut |row| match row.path.strip_prefix(&self.scope) {
            Some(path) => each(Row { path, ..row }),
            None => true,
        })
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        check_distinct(writes)?;
        let down = |write: &Write| Ok(Write { path: self.down(&write.path)?, ..write.clone() });
        let writes: Vec<_> = writes.iter().map(down).collect::<Result<_, StoreError>>()?;
        self.beneath.commit(&writes).map_err(|error| self.told(error))
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let mut odd = None;
        let watched = self.beneath.watch(&self.down(prefix)?, from, &mut |change| match change {
            Change::Commit { revision, writes } => {
                let paths: Result<Vec<Path>, _> = writes.iter().map(|wrote| self.up(wrote.path)).collect();
                match paths {
                    Ok(paths) => {
                        let zipped = paths.iter().zip(writes.iter().map(|wrote| wrote.value));
                        let writes: Vec<_> = zipped.map(|(path, value)| Wrote { path, value }).collect();
                        each(Change::Commit { revision, writes: &writes })
                    }
                    Err(error) => {
                        odd = Some(error);
                        false
                    }
                }
            }
            Change::Current { as_of } => each(Change::Current { as_of }),
        });
        watched.and(odd.map_or(Ok(()), Err))
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.beneath.lease(&self.down(name)?, holder, ttl)
    }

    /// Returns the revision of the store beneath: revisions are compared, and never counted.
    fn revision(&self) -> Result<Revision, StoreError> {
        self.beneath.revision()
    }
}
