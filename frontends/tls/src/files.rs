//! The files of certificates: read whole and bounded, and known again by what the file system says of them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::TlsError;

/// Bytes of a file of certificates or revocations, at most.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file that is no secret. Links are followed: tools that renew certificates move them.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = || TlsError::because(path.display());
    let file = File::open(path).map_err(failed())?;
    if !file.metadata().map_err(failed())?.is_file() {
        return Err(TlsError::new(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(TlsError::new(format!("{} is longer than {MAX_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

/// What tells one state of a file from another; `None` where it cannot be seen.
pub(crate) type Stamp = Option<(u64, u64, u64, [i64; 4])>;

/// Looks at a file without reading it.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Some((found.dev(), found.ino(), found.size(), times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain.pem");
        assert!(read(&path).unwrap_err().to_string().contains("chain.pem"));
        fs::write(&path, b"one").unwrap();
        assert_eq!(read(&path).unwrap(), b"one");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("longer than"));
        assert!(read(directory.path()).unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_file_that_was_replaced_by_one_of_the_same_length_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain.pem");
        assert_eq!(stamp(&path), None);
        fs::write(&path, b"one").unwrap();
        let before = stamp(&path);
        assert_eq!(stamp(&path), before);
        fs::write(directory.path().join("new"), b"two").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_ne!(stamp(&path), before);
    }
}
