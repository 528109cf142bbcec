//! Reads the lines of one file, whoever writes it meanwhile.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use keymill_core::seam::audit::{AuditError, AuditReader, Line};

use crate::{MAX_LINE_BYTES, failed};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// The lines of one chain's file.
pub(crate) struct FileReader {
    path: PathBuf,
    file: BufReader<File>,
    line: Vec<u8>,
    is_over: bool,
}

impl FileReader {
    pub(crate) fn new(path: PathBuf, file: File) -> Self {
        Self { path, file: BufReader::with_capacity(BUFFER_BYTES, file), line: Vec::new(), is_over: false }
    }

    /// Reads the next line with its end, if it has one.
    fn fill(&mut self) -> io::Result<()> {
        self.line.clear();
        // One byte more than a line may have, for its end.
        let mut limited = (&mut self.file).take(MAX_LINE_BYTES as u64 + 1);
        limited.read_until(b'\n', &mut self.line).map(drop)
    }
}

impl AuditReader for FileReader {
    fn next_line(&mut self) -> Result<Option<Line<'_>>, AuditError> {
        if self.is_over {
            return Ok(None);
        }
        self.fill().map_err(|error| failed(&self.path, &error))?;
        if let Some(bytes) = self.line.strip_suffix(b"\n") {
            return Ok(Some(Line { bytes, torn: false }));
        }
        self.is_over = true;
        match self.line.len() {
            0 => Ok(None),
            // Nobody here writes one so long: as far as it was read it is a line that does not verify, and what follows is no line.
            length => Ok(Some(Line { bytes: &self.line, torn: length <= MAX_LINE_BYTES })),
        }
    }
}
