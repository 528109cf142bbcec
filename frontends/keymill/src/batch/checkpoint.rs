//! The checkpoint beside the output: how far a run came, and of which input by which arguments. It is replaced by a rename,
//! after the output it speaks of is on disk, so that a crash at any moment leaves one that holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::Direction;
use super::error::BatchError;
use super::plan::{Plan, hex};

/// The one version of the format.
const VERSION: u32 = 1;
/// What the checkpoint's name adds to that of the output.
const SUFFIX: &str = ".keymill-progress";
/// Bytes of the input's start that are hashed.
const HEAD_BYTES: u64 = 64 * 1024;
/// A checkpoint is far shorter; anything longer is none.
const MAX_BYTES: u64 = 64 * 1024;

/// What tells an input file from others, and from itself after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) bytes: u64,
    modified_ns: i128,
    head_sha256: String,
}

impl Identity {
    /// Looks at a file and rewinds it; a pipe or device has no identity.
    pub(super) fn of(file: &mut File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut head = Vec::new();
        Read::by_ref(file).take(HEAD_BYTES).read_to_end(&mut head)?;
        file.rewind()?;
        Ok(Some(Self {
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            head_sha256: hex(digest::digest(&digest::SHA256, &head).as_ref()),
        }))
    }
}

/// How far a run came; what it counts is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    version: u32,
    direction: String,
    input: Option<Identity>,
    arguments_sha256: String,
    /// Bytes of the input whose rows are written.
    pub(super) input_offset: u64,
    pub(super) rows: u64,
    pub(super) items: u64,
    pub(super) output_bytes: u64,
}

impl Checkpoint {
    /// Makes the checkpoint of a run that has not begun.
    pub(super) fn start(plan: &Plan, input: Option<&Identity>) -> Self {
        Self {
            version: VERSION,
            direction: match plan.direction {
                Direction::Encrypt => "encrypt".to_owned(),
                Direction::Decrypt => "decrypt".to_owned(),
                Direction::ReEncrypt => "reencrypt".to_owned(),
            },
            input: input.cloned(),
            arguments_sha256: plan.fingerprint().to_owned(),
            input_offset: 0,
            rows: 0,
            items: 0,
            output_bytes: 0,
        }
    }

    /// Checks that a run of `plan` over `input` may continue from here.
    fn check(&self, path: &Path, plan: &Plan, input: Option<&Identity>) -> Result<(), BatchError> {
        let fresh = Self::start(plan, input);
        let differs = if self.version != fresh.version {
            "is of another version of keymill"
        } else if self.direction != fresh.direction {
            "is of the other direction"
        } else if self.input.is_none() || self.input != fresh.input {
            "is of another input, or the input has changed since"
        } else if self.arguments_sha256 != fresh.arguments_sha256 {
            "is of a run with other arguments"
        } else if self.input.as_ref().is_some_and(|input| self.input_offset > input.bytes) {
            "points behind the end of the input"
        } else {
            return Ok(());
        };
        let path = path.display();
        Err(BatchError::files(format!("cannot resume: {path} {differs}; --force starts from the beginning")))
    }
}

/// The file that a run's checkpoints go to.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    path: PathBuf,
}

impl CheckpointFile {
    /// Names the checkpoint beside `output`.
    pub(super) fn beside(output: &Path) -> Self {
        let mut path = output.as_os_str().to_owned();
        path.push(SUFFIX);
        Self { path: path.into() }
    }

    /// Returns the path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether there is one.
    pub(super) fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// Reads the checkpoint, and checks that the run may continue from it; nothing where there is none.
    pub(super) fn load(
        &self,
        plan: &Plan,
        input: Option<&Identity>,
    ) -> Result<Option<Checkpoint>, BatchError> {
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BatchError::io("read", &self.path, error)),
        }
        let checkpoint: Checkpoint = serde_json::from_slice(&text).map_err(|_| {
            let path = self.path.display();
            BatchError::files(format!(
                "cannot resume: {path} is no checkpoint of this version; --force starts from the beginning"
            ))
        })?;
        checkpoint.check(&self.path, plan, input)?;
        Ok(Some(checkpoint))
    }

    /// Replaces the checkpoint; it is durable when this returns.
    pub(super) fn save(&self, checkpoint: &Checkpoint) -> Result<(), BatchError> {
        self.try_save(checkpoint).map_err(|error| BatchError::io("write", &self.path, error))
    }

    fn try_save(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let mut next = self.path.clone().into_os_string();
        next.push(".new");
        let next = PathBuf::from(next);
        // Made anew each time, so that no link that somebody put there is followed.
        remove(&next)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        let mut text = serde_json::to_vec_pretty(checkpoint).map_err(io::Error::other)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        sync_folder(&self.path)
    }

    /// Removes the checkpoint of a run that is done.
    pub(super) fn remove(&self) -> Result<(), BatchError> {
        remove(&self.path)
            .and_then(|()| sync_folder(&self.path))
            .map_err(|error| BatchError::io("remove", &self.path, error))
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes what was created, renamed or removed beside `path` durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::plan;
    use std::os::unix::fs::PermissionsExt;

    fn identity(path: &Path) -> Identity {
        Identity::of(&mut File::open(path).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn a_checkpoint_reads_back_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("a.csv"), folder.path().join("b"));
        fs::write(&input, "id\n").unwrap();
        let plan = plan(Direction::Encrypt, &input, &output, "--columns id");
        let input = identity(&input);
        let file = CheckpointFile::beside(&output);
        assert_eq!(file.load(&plan, Some(&input)).unwrap(), None);
        let mut checkpoint = Checkpoint::start(&plan, Some(&input));
        checkpoint.rows = 7;
        std::os::unix::fs::symlink("/dev/full", folder.path().join("b.keymill-progress.new")).unwrap();
        file.save(&checkpoint).unwrap();
        assert_eq!(file.load(&plan, Some(&input)).unwrap(), Some(checkpoint));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "input and checkpoint");
        file.remove().unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn another_input_direction_or_argument_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("a.csv"), folder.path().join("b"));
        fs::write(&input, "id\n").unwrap();
        let encrypt = plan(Direction::Encrypt, &input, &output, "--columns id");
        let known = identity(&input);
        let file = CheckpointFile::beside(&output);
        file.save(&Checkpoint::start(&encrypt, Some(&known))).unwrap();

        let refusal =
            |plan: &Plan, identity: &Identity| file.load(plan, Some(identity)).unwrap_err().to_string();
        fs::write(&input, "ie\n").unwrap();
        assert!(refusal(&encrypt, &identity(&input)).contains("the input has changed"));
        let decrypt = plan(Direction::Decrypt, &input, &output, "--columns id");
        assert!(refusal(&decrypt, &known).contains("other direction"));
        let other = plan(Direction::Encrypt, &input, &output, "--columns id --keep-empty");
        assert!(refusal(&other, &known).contains("other arguments"));
        fs::write(file.path(), "{}").unwrap();
        assert!(refusal(&encrypt, &known).contains("no checkpoint"));
    }
}
