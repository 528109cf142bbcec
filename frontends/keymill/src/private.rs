//! Files that are ours alone: the root, access keys, addresses. Written whole or not at all, never through a link, and refused
//! where others could read or replace them (CWE-59, CWE-732).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use keymill_core::Sensitive;
use keymill_core::operation::Password;
use nix::libc;
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

use crate::failure::{Failure, Result};

/// Bytes of a private file, at most: all of ours are a few lines.
const MAX_BYTES: usize = 16 * 1024;

/// Reads a private file; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Sensitive>> {
    // Not blocking, in case a pipe stands there.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(
                Failure::new(format!("{} is a symbolic link", path.display())).next("name the file itself")
            );
        }
        Err(error) => return Err(Failure::because(path.display())(error)),
    };
    check_file(path, &file)?;
    check_parents(path)?;
    // Reserved at once: a growing buffer would leave copies of secrets behind.
    let mut bytes = Sensitive::zeroed(MAX_BYTES + 1);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes.expose_mut()[length..]).map_err(Failure::because(path.display()))? {
            0 => return Ok(Some(Sensitive::copied(&bytes.expose()[..length]))),
            read => length += read,
        }
    }
    Err(Failure::new(format!("{} is longer than {MAX_BYTES} bytes", path.display())))
}

/// Reads a password from a private file, or from an environment variable where no file is named: never from the command line, where other
/// users could see it. `lacking` says what there is no password for.
pub(crate) fn password(file: Option<&Path>, variable: &str, lacking: &str) -> Result<Password> {
    let text = match file {
        Some(path) => password_in(path)?,
        None => std::env::var(variable).map_err(|_| {
            Failure::new(lacking).next(format!("give --password-file FILE, or set {variable}"))
        })?,
    };
    Ok(Password::new(text))
}

/// Reads the password of a section of the configuration, from the private file or the environment variable that it names; `None` where it names
/// neither.
pub(crate) fn password_of(
    section: &str,
    file: Option<&Path>,
    variable: Option<&str>,
) -> Result<Option<Sensitive>> {
    let text = match (file, variable) {
        (None, None) => return Ok(None),
        (Some(file), None) => password_in(file)?,
        (None, Some(variable)) => std::env::var(variable)
            .map_err(|_| Failure::new(format!("{section}.password_env: {variable} is not set")))?,
        (Some(_), Some(_)) => {
            return Err(Failure::new(format!(
                "{section}.password_file and password_env: one of them is meant"
            )));
        }
    };
    Ok(Some(Sensitive::new(text.into_bytes())))
}

/// Reads a password, without the end of its line.
fn password_in(path: &Path) -> Result<String> {
    let held = read(path)?.ok_or_else(|| Failure::new(format!("{} does not exist", path.display())))?;
    let text = std::str::from_utf8(held.expose())
        .map_err(|_| Failure::new(format!("{} does not hold a password: it is no text", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Writes a private file that must not exist yet, durably.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = written(path, bytes)?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!("{} exists already", path.display()))
            .next("move it away, or name another file"),
        _ => Failure::because(path.display())(error.error),
    })?;
    sync_parent(path)
}

/// Writes a private file in the place of what was there, durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = written(path, bytes)?;
    file.persist(path).map_err(|error| Failure::because(path.display())(error.error))?;
    sync_parent(path)
}

/// Makes a directory with mode 0700 where there is none, and takes it for this process as long as the file is open. A store that is
/// elsewhere keeps no second process from it.
pub(crate) fn take_directory(path: &Path) -> Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Failure::because(path.display()))?;
    let file = path.join("node.lock");
    check_parents(&file)?;
    let failed = Failure::because(file.display());
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let lock = options.open(&file).map_err(failed)?;
    check_file(&file, &lock)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            Failure::new(format!("the data directory {} is in use by another process", path.display()))
                .next("stop it, or choose another directory: each node has its own")
        }
        TryLockError::Error(error) => Failure::because(file.display())(error),
    })?;
    Ok(lock)
}

/// Checks that a private file can be created there.
pub(crate) fn check_new(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::new(format!("{} exists already", path.display()))
            .next("move it away, or name another file"));
    }
    // Making one shows what looking cannot: a full disk, a file system that is read-only.
    written(path, b"").map(drop)
}

fn written(path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    check_parents(path)?;
    let parent = parent(path);
    let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    // Mode 0600 and O_EXCL are the crate's own way.
    let mut file = tempfile::Builder::new().prefix(".keymill-").tempfile_in(parent).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    Ok(file)
}

fn check_file(path: &Path, file: &File) -> Result<()> {
    let shown = path.display();
    let found = file.metadata().map_err(Failure::because(path.display()))?;
    if !found.is_file() {
        return Err(Failure::new(format!("{shown} is not a regular file")));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(Failure::new(format!("{shown} belongs to another user than the one that runs keymill")));
    }
    if found.mode() & 0o077 != 0 {
        return Err(Failure::new(format!("{shown} is open to others"))
            .next(format!("chmod 600 {shown}, and replace what is in it if others may have read it")));
    }
    Ok(())
}

/// Whoever can write a directory on the way can put another file in the place of ours, unless its sticky bit is set.
fn check_parents(path: &Path) -> Result<()> {
    let parent = parent(path);
    let real =
        fs::canonicalize(parent).map_err(Failure::because(format_args!("directory {}", parent.display())))?;
    for above in real.ancestors() {
        let mode = fs::symlink_metadata(above).map_err(Failure::because(above.display()))?.mode();
        if mode & 0o1002 == 0o002 {
            return Err(Failure::new(format!(
                "{} holds {} and can be written by everyone",
                above.display(),
                path.display()
            ))
            .next("choose another directory, or take away the right of others to write there"));
        }
    }
    Ok(())
}

/// A relative path of one name has an empty parent: the working directory.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = parent(path);
    File::open(parent).and_then(|opened| opened.sync_all()).map_err(Failure::because(parent.display()))
}

/// Returns the path from the root of the file system, without a slash at its end and without `.`.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(Failure::because(path.display()))?;
    Ok(path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        (directory, file)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_created_file_is_ours_alone_and_never_written_over() {
        let (directory, file) = place();
        check_new(&file).unwrap();
        create(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(check_new(&file).is_err());
        assert!(create(&file, b"two").unwrap_err().to_string().contains("exists already"));
        assert_eq!(read(&file).unwrap().unwrap().expose(), b"one");
        replace(&file, b"three").unwrap();
        assert_eq!(read(&file).unwrap().unwrap().expose(), b"three");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn absent_is_none_and_what_others_can_read_is_refused() {
        let (_directory, file) = place();
        assert!(read(&file).unwrap().is_none());
        create(&file, b"one").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610] {
            chmod(&file, mode);
            assert!(read(&file).err().unwrap().to_string().contains("open to others"), "{mode:o}");
        }
    }

    #[test]
    fn links_directories_and_loose_parents_are_refused() {
        let (directory, file) = place();
        let target = directory.path().join("target");
        create(&target, b"one").unwrap();
        symlink(&target, &file).unwrap();
        assert!(read(&file).err().unwrap().to_string().contains("symbolic link"));
        assert!(create(&file, b"two").is_err(), "a link is not written through");
        assert!(read(directory.path()).err().unwrap().to_string().contains("not a regular file"));
        chmod(directory.path(), 0o777);
        assert!(read(&target).err().unwrap().to_string().contains("by everyone"));
        assert!(create(&directory.path().join("new"), b"x").is_err());
        chmod(directory.path(), 0o1777);
        assert!(read(&target).unwrap().is_some(), "a sticky directory lets others add and not replace");
    }

    #[test]
    fn a_directory_is_one_process_s_at_a_time() {
        let (directory, _file) = place();
        let data = directory.path().join("a/data");
        let taken = take_directory(&data).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
        assert!(take_directory(&data).unwrap_err().to_string().contains("in use"));
        drop(taken);
        take_directory(&data).unwrap();
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let (_directory, file) = place();
        create(&file, &vec![b'x'; MAX_BYTES]).unwrap();
        assert_eq!(read(&file).unwrap().unwrap().len(), MAX_BYTES);
        replace(&file, &vec![b'x'; MAX_BYTES + 1]).unwrap();
        assert!(read(&file).err().unwrap().to_string().contains("longer than"));
    }

    #[test]
    fn a_slash_at_the_end_and_dots_do_not_matter() {
        assert_eq!(absolute(Path::new("/var/./keymill/")).unwrap(), Path::new("/var/keymill"));
    }
}
