//! A file that has its name once it is whole: until then it lies beside it under another, which goes where the work fails.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file on its way to its name.
#[derive(Debug)]
pub struct Output {
    file: NamedTempFile,
    path: PathBuf,
    replaces: bool,
}

impl Output {
    /// Makes the file that becomes `path`, in the same directory, as `.keymill-…`. `mode` is what the umask leaves of it: 0o600 for
    /// what others may not read. Whoever takes the place of `path` meanwhile keeps it, unless `replaces`.
    ///
    /// # Errors
    /// `AlreadyExists` where there is such a file and it is not to be replaced; `InvalidInput` where what is there is no regular file,
    /// which is never replaced; and whatever the file system says.
    pub fn create(path: impl Into<PathBuf>, mode: u32, replaces: bool) -> io::Result<Self> {
        let path = path.into();
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "there is something that is no file",
                ));
            }
            Ok(_) if !replaces => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = tempfile::Builder::new()
            .prefix(".keymill-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder(&path))?;
        Ok(Self { file, path, replaces })
    }

    /// Returns where the file lies until then.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file its name, once it is on the disk.
    ///
    /// # Errors
    /// `AlreadyExists` where another took the name meanwhile; and whatever the file system says. Unless it is the last step that fails,
    /// the file is gone.
    pub fn finish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        let persisted = match self.replaces {
            true => self.file.persist(&self.path),
            false => self.file.persist_noclobber(&self.path),
        };
        persisted.map_err(|error| error.error)?;
        File::open(folder(&self.path))?.sync_all()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file().flush()
    }
}

/// A relative path of one name has an empty parent: the working directory.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_at_the_end_and_none_if_that_does_not_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = Output::create(&path, 0o600, false).unwrap();
        output.write_all(b"half").unwrap();
        let [beside] = &names(folder.path())[..] else { panic!() };
        assert!(beside.starts_with(".keymill-"), "{beside}");
        drop(output);
        assert!(names(folder.path()).is_empty());
        let mut output = Output::create(&path, 0o600, false).unwrap();
        output.write_all(b"whole").unwrap();
        output.finish().unwrap();
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_there_stays_unless_it_is_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let early = Output::create(&path, 0o600, false).unwrap();
        fs::write(&path, "first").unwrap();
        assert_eq!(early.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Output::create(&path, 0o600, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&path).unwrap(), names(folder.path()).len()), (b"first".to_vec(), 1));
        Output::create(&path, 0o600, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn links_and_directories_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/dev/null", &link).unwrap();
        for path in [&link, folder.path()] {
            assert_eq!(Output::create(path, 0o600, true).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
