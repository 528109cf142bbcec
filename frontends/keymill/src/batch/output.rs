//! The output file and its checkpoint, which only change together: the output is on disk before the checkpoint speaks of it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Direction;
use super::args::Place;
use super::checkpoint::{Checkpoint, CheckpointFile, Identity, remove, sync_folder};
use super::error::BatchError;
use super::plan::Plan;
use super::rows::Rows;

/// How often the checkpoint is brought up to date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cadence {
    pub(super) every: Duration,
    pub(super) rows: u64,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { every: Duration::from_secs(2), rows: 50_000 }
    }
}

/// Where opened or sealed rows go.
#[derive(Debug)]
pub(super) struct Output {
    sink: Sink,
    path: PathBuf,
    written: Checkpoint,
    saved: Checkpoint,
    saved_at: Instant,
}

#[derive(Debug)]
enum Sink {
    Standard,
    /// A pipe or device, which keeps nothing to go on from.
    Stream(File),
    File {
        file: File,
        checkpoint: Option<CheckpointFile>,
    },
}

impl Output {
    /// Opens the output of `plan`, and returns where in the input to begin.
    ///
    /// # Errors
    /// A refusal where the output or a checkpoint is there and neither `--resume` nor `--force` is given, or where the
    /// checkpoint is of another run.
    pub(super) fn open(plan: &Plan, input: Option<&Identity>) -> Result<(Self, Checkpoint), BatchError> {
        let fresh = Checkpoint::start(plan, input);
        let (sink, start) = match &plan.output {
            Place::Standard => (Sink::Standard, fresh),
            Place::File(path) => match open_file(plan, path, input, &fresh)? {
                Some(opened) => opened,
                None => {
                    let stream = OpenOptions::new().write(true).open(path);
                    (Sink::Stream(stream.map_err(|error| BatchError::io("open", path, error))?), fresh)
                }
            },
        };
        let output = Self {
            sink,
            path: plan.output.path().to_owned(),
            written: start.clone(),
            saved: start.clone(),
            saved_at: Instant::now(),
        };
        Ok((output, start))
    }

    /// Returns how far the rows written so far reach.
    pub(super) fn written(&self) -> &Checkpoint {
        &self.written
    }

    /// Writes the rows.
    pub(super) fn write(&mut self, rows: &Rows) -> Result<(), BatchError> {
        let written = match &mut self.sink {
            Sink::Standard => {
                let mut out = io::stdout().lock();
                out.write_all(&rows.out).and_then(|()| out.flush())
            }
            Sink::Stream(file) | Sink::File { file, .. } => file.write_all(&rows.out),
        };
        written.map_err(|error| self.unwritable(error))?;
        self.written.input_offset = rows.input_offset;
        self.written.rows += rows.count;
        self.written.items += rows.cells() as u64;
        self.written.output_bytes += rows.out.len() as u64;
        Ok(())
    }

    /// Brings the checkpoint up to date, where it is due.
    pub(super) fn keep_up(&mut self, cadence: Cadence) -> Result<(), BatchError> {
        let behind = self.written.rows - self.saved.rows;
        if self.written != self.saved && (behind >= cadence.rows || self.saved_at.elapsed() >= cadence.every)
        {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), BatchError> {
        if let Sink::File { file, checkpoint: Some(checkpoint) } = &self.sink {
            file.sync_data().map_err(|error| self.unwritable(error))?;
            checkpoint.save(&self.written)?;
        }
        self.saved = self.written.clone();
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Ends a run that came to its end: the output is durable, and the checkpoint gone.
    pub(super) fn finish(&mut self) -> Result<(), BatchError> {
        if let Sink::File { file, checkpoint } = &self.sink {
            file.sync_all().map_err(|error| self.unwritable(error))?;
            if let Some(checkpoint) = checkpoint {
                checkpoint.remove()?;
            }
        }
        Ok(())
    }

    /// Ends a run that failed, and returns how many rows are kept for another. Where there are none, no file stays.
    pub(super) fn abandon(&mut self) -> Option<u64> {
        // The checkpoint on disk holds whether or not this one can be written.
        let _ = self.save();
        let Sink::File { checkpoint: Some(checkpoint), .. } = &self.sink else { return None };
        if self.saved.rows > 0 {
            return Some(self.saved.rows);
        }
        let _ = remove(&self.path).and_then(|()| remove(checkpoint.path()));
        None
    }

    fn unwritable(&self, error: io::Error) -> BatchError {
        BatchError::io("write", &self.path, error)
    }
}

/// Opens a regular file, new or to be continued; nothing where the path is a pipe or device.
fn open_file(
    plan: &Plan,
    path: &Path,
    input: Option<&Identity>,
    fresh: &Checkpoint,
) -> Result<Option<(Sink, Checkpoint)>, BatchError> {
    let failed = |what, error| BatchError::io(what, path, error);
    let checkpoint = CheckpointFile::beside(path);
    let there = match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("open", error)),
    };
    if let Some(metadata) = &there {
        let kind = metadata.file_type();
        if kind.is_fifo() || kind.is_char_device() {
            return Ok(None);
        }
        if !kind.is_file() {
            let path = path.display();
            return Err(BatchError::files(format!("{path} is no regular file; name the file itself, or -")));
        }
        refuse_the_input(plan, path, metadata)?;
    }
    if plan.resume {
        if let Some(start) = checkpoint.load(plan, input)? {
            let file = continue_file(path, &start, &checkpoint)?;
            return Ok(Some((Sink::File { file, checkpoint: Some(checkpoint) }, start)));
        }
        if there.is_some() {
            let path = path.display();
            return Err(BatchError::files(format!(
                "cannot resume: {path} has no checkpoint beside it, so the run that wrote it is done; --force overwrites it"
            )));
        }
    } else if !plan.force && (there.is_some() || checkpoint.exists()) {
        let name = if there.is_some() { path } else { checkpoint.path() };
        let also = if checkpoint.exists() { "--resume continues it, " } else { "" };
        return Err(BatchError::files(format!(
            "{} is there already; {also}--force overwrites it",
            name.display()
        )));
    }
    if plan.force {
        if there.is_some() {
            // Not under the feet of a run that still writes it.
            lock(&File::open(path).map_err(|error| failed("open", error))?, path)?;
        }
        remove(path).map_err(|error| failed("remove", error))?;
        checkpoint.remove()?;
    }
    // A checkpoint is there before the output is, so that no crash leaves an output without one.
    let checkpoint = input.is_some().then_some(checkpoint);
    if let Some(checkpoint) = &checkpoint {
        checkpoint.save(fresh)?;
    }
    // Decrypted data is for its owner alone; sealed data is as the umask has it.
    let mode = if plan.direction == Direction::Decrypt { 0o600 } else { 0o666 };
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let file = file.map_err(|error| failed("create", error))?;
    lock(&file, path)?;
    sync_folder(path).map_err(|error| failed("create", error))?;
    Ok(Some((Sink::File { file, checkpoint }, fresh.clone())))
}

fn continue_file(path: &Path, start: &Checkpoint, checkpoint: &CheckpointFile) -> Result<File, BatchError> {
    let failed = |error| BatchError::io("open", path, error);
    let mut options = OpenOptions::new();
    // A crash right after the first checkpoint leaves no output.
    options.write(true).create(start.output_bytes == 0).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    lock(&file, path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length < start.output_bytes {
        let (path, checkpoint) = (path.display(), checkpoint.path().display());
        return Err(BatchError::files(format!(
            "cannot resume: {path} has {length} bytes where {checkpoint} says {}; --force starts from the beginning",
            start.output_bytes
        )));
    }
    file.set_len(start.output_bytes).map_err(failed)?;
    file.seek(SeekFrom::Start(start.output_bytes)).map_err(failed)?;
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result<(), BatchError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(BatchError::files(format!("another run is writing {}", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(BatchError::io("lock", path, error)),
    }
}

fn refuse_the_input(plan: &Plan, path: &Path, output: &fs::Metadata) -> Result<(), BatchError> {
    let Place::File(input) = &plan.input else { return Ok(()) };
    match fs::metadata(input) {
        Ok(input) if (input.dev(), input.ino()) == (output.dev(), output.ino()) => Err(BatchError::usage(
            format!("{} is the input itself; --out takes another file", path.display()),
        )),
        _ => Ok(()),
    }
}
