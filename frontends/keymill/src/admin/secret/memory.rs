//! A folder of our own in memory, for values that a program has to have in a file: nobody else may look into it, no disk sees it where the
//! system has such a place, and what is in it is wiped when it goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keymill_core::Sensitive;
use nix::libc;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

use crate::failure::{Failure, Result};
use crate::output;

/// A folder that is wiped and removed when it is dropped.
pub(super) struct Folder(TempDir);

impl Folder {
    /// Makes one; where the system keeps no folder in memory, one on disk, which is told.
    pub(super) fn make() -> Result<Self> {
        let runtime =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let places = [Some(PathBuf::from("/dev/shm")), runtime];
        for place in places.into_iter().flatten().filter(|place| is_in_memory(place)) {
            if let Ok(made) = new_in(&place) {
                return Ok(Self(made));
            }
        }
        let place = std::env::temp_dir();
        output::note(format_args!(
            "there is no folder in memory: values lie in {} until the command ends, and a disk may keep them",
            place.display()
        ))?;
        Ok(Self(new_in(&place).map_err(Failure::because(place.display()))?))
    }

    /// Writes a file that only we can read.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        let failed = Failure::because::<io::Error>(path.display());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(failed)?;
        Ok(path)
    }

    /// Reads a file, of `most` bytes at most.
    pub(super) fn read(&self, path: &Path, most: usize) -> Result<Sensitive> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let mut file = opened.map_err(Failure::because(path.display()))?;
        // Reserved at once: a growing buffer would leave copies behind.
        let mut bytes = Sensitive::zeroed(most + 1);
        let mut length = 0;
        while length < bytes.len() {
            match file.read(&mut bytes.expose_mut()[length..]).map_err(Failure::because(path.display()))? {
                0 => return Ok(Sensitive::copied(&bytes.expose()[..length])),
                read => length += read,
            }
        }
        Err(Failure::new(format!("the value is longer than {most} bytes")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The files of whoever worked in it, too: backups and swap files of an editor.
        wipe(self.0.path());
    }
}

fn new_in(place: &Path) -> io::Result<TempDir> {
    let mode = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("keymill-").permissions(mode).tempdir_in(place)
}

fn is_in_memory(place: &Path) -> bool {
    statfs(place).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Overwrites all files below a folder, as well as that can be done: what cannot be overwritten is removed all the same.
fn wipe(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => wipe(&entry.path()),
            Ok(kind) if kind.is_file() => drop(overwrite(&entry.path())),
            _ => {}
        }
    }
}

fn overwrite(path: &Path) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file: File = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let mut left = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    let zeros = [0; 4096];
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        file.write_all(&zeros[..now as usize])?;
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_folder_is_ours_alone_and_everything_in_it_is_wiped_with_it() {
        let folder = Folder::make().unwrap();
        let file = folder.write("value", b"secret").unwrap();
        assert_eq!(fs::metadata(folder.0.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(folder.write("value", b"other").is_err(), "nothing is written over");
        assert_eq!(folder.read(&file, 6).unwrap().expose(), b"secret");
        assert!(folder.read(&file, 5).is_err());
        // A second name of the same file shows what is left of it.
        let beside = tempfile::tempdir_in(folder.0.path().parent().unwrap()).unwrap();
        let other = beside.path().join("linked");
        fs::hard_link(&file, &other).unwrap();
        let path = folder.0.path().to_owned();
        drop(folder);
        assert!(!path.exists());
        assert_eq!(fs::read(&other).unwrap(), [0; 6]);
    }
}
