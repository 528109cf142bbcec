//! The reserve: blocks of the disk held by an empty-handed file, given up when the disk has filled so that what is in flight can
//! still be recorded. The lock on it makes this process the only one that writes in the directory.

use std::fs::File;
use std::io;
use std::path::Path;

use keymill_core::seam::audit::AuditError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, posix_fallocate};
use parking_lot::Mutex;

use crate::{directory, failed, is_full};

const NAME: &str = ".reserve";

/// The reserve of a directory.
pub(crate) struct Reserve {
    bytes: u64,
    held: Mutex<Held>,
}

struct Held {
    file: Flock<File>,
    stands: bool,
}

impl Reserve {
    /// Takes the lock, and the blocks if there are as many.
    pub(crate) fn take(directory: &Path, bytes: u64) -> Result<Self, AuditError> {
        let path = directory.join(NAME);
        let options = &mut directory::private();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| failed(&path, &e))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let why = format!("another process writes in {}", directory.display());
                return Err(AuditError::Taken(why));
            }
            Err((_, errno)) => return Err(failed(&path, &errno.into())),
        };
        let mut held = Held { file, stands: false };
        match held.stand(bytes) {
            Err(error) if !is_full(&error) => Err(failed(&path, &error)),
            _ => Ok(Self { bytes, held: Mutex::new(held) }),
        }
    }

    /// Gives the blocks back to the disk.
    pub(crate) fn release(&self) {
        let mut held = self.held.lock();
        // Where even this fails the blocks stay taken, and the next append says that there is no space.
        held.stands = held.file.set_len(0).is_err() && held.stands;
    }

    /// Tries to have the blocks; true where they are held.
    pub(crate) fn restore(&self) -> bool {
        let mut held = self.held.lock();
        held.stands || held.stand(self.bytes).is_ok()
    }
}

impl Held {
    fn stand(&mut self, bytes: u64) -> io::Result<()> {
        // From empty: a size left by an earlier run does not mean that its blocks are real.
        self.file.set_len(0)?;
        if bytes > 0 {
            let length = i64::try_from(bytes).map_err(|_| io::Error::from(Errno::EFBIG))?;
            if let Err(errno) = posix_fallocate(&*self.file, 0, length) {
                self.file.set_len(0)?;
                return Err(errno.into());
            }
        }
        self.stands = true;
        Ok(())
    }
}
