//! One chain's file, open for appending: whole lines or nothing.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keymill_core::seam::audit::{AuditError, AuditSink, AuditSync};

use crate::reserve::Reserve;
use crate::{directory, failed, is_full};

/// The one writer of a file.
pub(crate) struct FileSink<W = File> {
    path: PathBuf,
    file: W,
    /// Bytes of whole lines in the file.
    kept: u64,
    /// Whether the file may hold more than that, since it could not be cut back.
    ragged: bool,
    reserve: Arc<Reserve>,
}

/// What a sink needs of a file; a test stands in for one that fails.
pub(crate) trait Tail: Write {
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Tail for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl FileSink {
    /// Creates the file of a new chain.
    pub(crate) fn create(path: &Path, reserve: Arc<Reserve>) -> Result<Self, AuditError> {
        let file =
            directory::private().append(true).create_new(true).open(path).map_err(|error| {
                match error.kind() {
                    ErrorKind::AlreadyExists => AuditError::Taken(format!("{} exists", path.display())),
                    _ if is_full(&error) => AuditError::Full(format!("{}: {error}", path.display())),
                    _ => failed(path, &error),
                }
            })?;
        Ok(Self { path: path.to_owned(), file, kept: 0, ragged: false, reserve })
    }
}

impl<W: Tail> FileSink<W> {
    fn keep(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.ragged {
            self.file.cut(self.kept)?;
            self.ragged = false;
        }
        if let Err(error) = self.file.write_all(lines) {
            self.ragged = self.file.cut(self.kept).is_err();
            return Err(error);
        }
        self.kept += lines.len() as u64;
        Ok(())
    }

    fn append_lines(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        self.keep(lines).map_err(|error| match is_full(&error) {
            true => AuditError::Full(format!("{}: {error}", self.path.display())),
            false => failed(&self.path, &error),
        })
    }
}

impl AuditSink for FileSink {
    fn append(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        self.append_lines(lines)
    }

    fn syncer(&self) -> Result<Box<dyn AuditSync>, AuditError> {
        let file = self.file.try_clone().map_err(|e| failed(&self.path, &e))?;
        Ok(Box::new(FileSync { path: self.path.clone(), file }))
    }

    fn release_reserve(&mut self) {
        self.reserve.release();
    }

    fn restore_reserve(&mut self) -> bool {
        self.reserve.restore()
    }
}

struct FileSync {
    path: PathBuf,
    file: File,
}

impl AuditSync for FileSync {
    fn sync(&mut self) -> Result<(), AuditError> {
        self.file.sync_data().map_err(|e| failed(&self.path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that takes `space` bytes, a few at a time, and may refuse to cut.
    struct Disk {
        bytes: Vec<u8>,
        space: usize,
        cuts: bool,
    }

    impl Write for Disk {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let taken = lines.len().min(3).min(self.space - self.bytes.len());
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&lines[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Tail for Disk {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::Error::other("the disk does not cut"));
            }
            self.bytes.truncate(length as usize);
            Ok(())
        }
    }

    fn sink(directory: &tempfile::TempDir, space: usize) -> FileSink<Disk> {
        let file = Disk { bytes: Vec::new(), space, cuts: true };
        let reserve = Arc::new(Reserve::take(directory.path(), 0).unwrap());
        FileSink { path: "chain".into(), file, kept: 0, ragged: false, reserve }
    }

    #[test]
    fn a_short_write_leaves_no_half_line_wherever_the_disk_ends() {
        let directory = tempfile::tempdir().unwrap();
        for space in 6..24 {
            let mut sink = sink(&directory, space);
            sink.append_lines(b"first\n").unwrap();
            let second = sink.append_lines(b"the second line\nand third\n");
            assert!(matches!(second, Err(AuditError::Full(_))), "{second:?}");
            assert_eq!(sink.file.bytes, b"first\n");
            sink.file.space = 100;
            sink.append_lines(b"later\n").unwrap();
            assert_eq!(sink.file.bytes, b"first\nlater\n");
        }
    }

    #[test]
    fn a_tail_that_could_not_be_cut_is_cut_before_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = sink(&directory, 10);
        sink.append_lines(b"first\n").unwrap();
        sink.file.cuts = false;
        assert!(matches!(sink.append_lines(b"second\n"), Err(AuditError::Full(_))));
        sink.file.space = 100;
        assert!(
            matches!(sink.append_lines(b"third\n"), Err(AuditError::Failed(_))),
            "the tail still lies there"
        );
        sink.file.cuts = true;
        sink.append_lines(b"fourth\n").unwrap();
        assert_eq!(sink.file.bytes, b"first\nfourth\n");
    }
}
