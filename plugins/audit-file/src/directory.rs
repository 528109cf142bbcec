//! The directory of the chains: made for us alone, and refused where someone else could put files into our way (CWE-59, CWE-732).

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;

const OTHERS_WRITE: u32 = 0o022;
const WORLD_WRITES: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why the directory cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// It is absent and cannot be made, or cannot be looked at.
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else stands in its place.
    NotADirectory(PathBuf),
    /// Another user owns it, or may write to it or above it.
    Loose(PathBuf),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { path, source } => write!(f, "audit directory {}: {source}", path.display()),
            OpenError::NotADirectory(path) => {
                write!(f, "audit directory {} is a link or a file, not a directory", path.display())
            }
            OpenError::Loose(path) => {
                write!(
                    f,
                    "audit directory: other users can change {}; make it ours alone (chmod 700)",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::NotADirectory(_) | OpenError::Loose(_) => None,
        }
    }
}

/// Makes the directory where it is absent, and refuses one that is not ours.
pub(crate) fn prepare(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let absent: Vec<&Path> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            OpenError::NotADirectory(path.to_owned())
        }
        _ => io(source),
    })?;
    for made in absent {
        sync(parent(made)).map_err(io)?;
    }
    let found = path.symlink_metadata().map_err(io)?;
    if !found.is_dir() {
        return Err(OpenError::NotADirectory(path.to_owned()));
    }
    if found.uid() != geteuid().as_raw() || found.mode() & OTHERS_WRITE != 0 {
        return Err(OpenError::Loose(path.to_owned()));
    }
    for above in path.canonicalize().map_err(io)?.ancestors().skip(1) {
        let mode = above.metadata().map_err(io)?.mode();
        if mode & WORLD_WRITES != 0 && mode & STICKY == 0 {
            return Err(OpenError::Loose(above.to_owned()));
        }
    }
    Ok(())
}

// A relative path of one name has an empty parent: the working directory.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in the directory durable.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes all that was written to the file system of the directory durable.
pub(crate) fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(File::open(path)?)?)
}

/// Returns options for a file of ours: 0600, and never through a link.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// Opens a file of the directory for reading; a link is refused.
pub(crate) fn open_for_reading(path: &Path) -> io::Result<File> {
    private().read(true).open(path)
}
