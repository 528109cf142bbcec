//! The data directory: made private, refused where others could change what is in it, and locked for one process.
//! CWE-59 (links), CWE-732 (loose modes), CWE-362 (two processes on one store).

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::error::OpenError;

const LOCK: &str = "keymill.lock";

/// A data directory that this process alone has, until it is dropped.
pub(crate) struct Directory {
    /// Where it is, without links.
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory where it is absent, checks it and locks it.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        // Taken apart and joined again, since a slash at the end would follow a link.
        let named: PathBuf = path.components().collect();
        if let Err(error) = fs::symlink_metadata(&named) {
            match error.kind() {
                io::ErrorKind::NotFound => make(&named)?,
                _ => return Err(io_error(&named)(error)),
            }
        }
        check_directory(&named)?;
        let path = fs::canonicalize(&named).map_err(io_error(&named))?;
        check_ancestors(&path)?;
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Makes the file `name` with mode 0600 where it is absent, and checks it and its companions.
    pub(crate) fn private_file(&self, name: &str, companions: &[&str]) -> Result<PathBuf, OpenError> {
        let file = self.path.join(name);
        for suffix in companions {
            let companion = self.path.join(format!("{name}{suffix}"));
            if fs::symlink_metadata(&companion).is_ok() {
                check_file(&companion)?;
            }
        }
        if fs::symlink_metadata(&file).is_err() {
            open_private(&file).map_err(io_error(&file))?;
            sync(&self.path)?;
        }
        check_file(&file)?;
        Ok(file)
    }
}

fn make(directory: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error(directory))?;
    match directory.parent() {
        Some(parent) if parent != Path::new("") => sync(parent),
        _ => sync(Path::new(".")),
    }
}

/// Makes the names in a directory durable.
fn sync(directory: &Path) -> Result<(), OpenError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(io_error(directory))
}

fn check_directory(path: &Path) -> Result<(), OpenError> {
    let found = fs::symlink_metadata(path).map_err(io_error(path))?;
    if found.is_symlink() {
        return refuse(path, "is a symbolic link: name the data directory itself");
    }
    if !found.is_dir() {
        return refuse(path, "is not a directory");
    }
    check_owner(path, &found)?;
    if found.mode() & 0o022 != 0 {
        return refuse(path, "can be written by others: chmod 700 it");
    }
    Ok(())
}

/// Whoever can write a directory on the way can put another in the place of ours, unless its sticky bit is set.
fn check_ancestors(path: &Path) -> Result<(), OpenError> {
    for ancestor in path.ancestors().skip(1) {
        let found = fs::symlink_metadata(ancestor).map_err(io_error(ancestor))?;
        if found.mode() & 0o1002 == 0o002 {
            return refuse(ancestor, "holds the data directory and can be written by everyone");
        }
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<(), OpenError> {
    let found = fs::symlink_metadata(path).map_err(io_error(path))?;
    if !found.is_file() {
        return refuse(path, "is a link or not a regular file");
    }
    check_owner(path, &found)?;
    if found.mode() & 0o077 != 0 {
        return refuse(path, "is open to others: chmod 600 it");
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), OpenError> {
    if found.uid() != geteuid().as_raw() {
        return refuse(path, "belongs to another user than the one that runs keymill");
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let mut file = open_private(&path).map_err(io_error(&path))?;
    check_file(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse { directory: directory.to_owned(), pid: read_pid(&file) });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(&path)(error)),
    }
    // The id is for people; on a full disk the lock holds without it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn read_pid(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
}

fn refuse(path: &Path, why: &'static str) -> Result<(), OpenError> {
    Err(OpenError::Unsafe { path: path.to_owned(), why })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn why(result: Result<Directory, OpenError>) -> String {
        result.err().expect("the directory is refused").to_string()
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("it exists").mode() & 0o7777
    }

    #[test]
    fn an_absent_directory_is_made_private() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::take(&outer.path().join("a/data")).expect("it is made");
        let file = directory.private_file("x.db", &["-wal"]).expect("it is made");
        assert_eq!(
            (mode(&directory.path), mode(&file), mode(&directory.path.join(LOCK))),
            (0o700, 0o600, 0o600)
        );
    }

    #[test]
    fn a_second_taker_is_refused_with_the_directory_and_the_process() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let first = Directory::take(outer.path()).expect("it is free");
        let refused = why(Directory::take(outer.path()));
        assert!(refused.contains(&first.path.display().to_string()), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Directory::take(outer.path()).expect("it is free again");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        for loose in [0o770, 0o707, 0o1777] {
            fs::set_permissions(outer.path(), Permissions::from_mode(loose)).expect("it is ours");
            assert!(why(Directory::take(outer.path())).contains("written by others"), "{loose:o}");
        }
    }

    #[test]
    fn a_directory_in_one_that_everyone_can_write_is_refused() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(outer.path(), Permissions::from_mode(0o777)).expect("it is ours");
        assert!(why(Directory::take(&outer.path().join("data"))).contains("written by everyone"));
        fs::set_permissions(outer.path(), Permissions::from_mode(0o1777)).expect("it is ours");
        Directory::take(&outer.path().join("data")).expect("the sticky bit keeps others from replacing it");
    }

    #[test]
    fn links_are_not_followed() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let elsewhere = outer.path().join("elsewhere");
        fs::write(&elsewhere, b"untouched").expect("the file is made");
        let (real, link) = (outer.path().join("real"), outer.path().join("link"));
        let directory = Directory::take(&real).expect("it is made");
        symlink(&real, &link).expect("the link is made");
        assert!(why(Directory::take(&link)).contains("symbolic link"));
        assert!(why(Directory::take(&outer.path().join("link/"))).contains("symbolic link"));

        symlink(&elsewhere, real.join("x.db")).expect("the link is made");
        assert!(directory.private_file("x.db", &[]).is_err());
        symlink(&elsewhere, real.join("y.db-wal")).expect("the link is made");
        assert!(directory.private_file("y.db", &["-wal"]).is_err());
        drop(directory);
        fs::remove_file(real.join(LOCK)).expect("the lock file is there");
        symlink(&elsewhere, real.join(LOCK)).expect("the link is made");
        assert!(Directory::take(&real).is_err());
        assert_eq!(fs::read(&elsewhere).expect("it is there"), b"untouched");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::take(outer.path()).expect("it is free");
        let file = directory.private_file("x.db", &[]).expect("it is made");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("it is ours");
        let refused = directory.private_file("x.db", &[]).expect_err("it is refused").to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }
}
