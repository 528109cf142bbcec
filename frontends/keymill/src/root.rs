//! The root file: made once, when there is nothing yet that another root could have sealed, and read at each start. What stands in
//! it is `keymill_crypto::root`'s matter.

use std::path::Path;

use keymill_crypto::root::RootKeys;

use crate::failure::{Failure, Result};
use crate::private;

/// What is there already, and would be lost under a new root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing: the first start.
    Nothing,
    /// Records or audit chains.
    Data,
}

/// The root keys, and whether they were made just now.
pub(crate) struct Root {
    /// The keys.
    pub(crate) keys: RootKeys,
    /// Whether the file is new.
    pub(crate) is_new: bool,
}

/// Reads the root file, or makes it where nothing exists yet.
pub(crate) fn open_or_make(path: &Path, existing: Existing) -> Result<Root> {
    if let Some(keys) = read(path)? {
        return Ok(Root { keys, is_new: false });
    }
    if existing == Existing::Data {
        return Err(absent(path));
    }
    let keys = RootKeys::generate().map_err(Failure::because("a new root"))?;
    private::create(path, keys.encode().expose())?;
    Ok(Root { keys, is_new: true })
}

/// Reads the root file of data that exists.
pub(crate) fn open(path: &Path) -> Result<RootKeys> {
    read(path)?.ok_or_else(|| absent(path))
}

fn read(path: &Path) -> Result<Option<RootKeys>> {
    let Some(text) = private::read(path)? else { return Ok(None) };
    RootKeys::decode(text.expose()).map(Some).map_err(|error| {
        Failure::new(format!("{}: {error}", path.display())).next("restore the root file from its backup")
    })
}

fn absent(path: &Path) -> Failure {
    Failure::new(format!(
        "the root file {} is missing, and the data is sealed under it: no other root opens it",
        path.display()
    ))
    .next("restore the root file from its backup, or name where it is with --root-file FILE")
}

/// Refuses a root file inside the data directory: whoever copies the one would have both.
pub(crate) fn check_apart(root: &Path, data: &Path) -> Result<()> {
    if root.starts_with(data) {
        return Err(Failure::wrong_use(format!(
            "the root file {} lies in the data directory, so that each copy of the data holds its key",
            root.display()
        ))
        .next("name another place with --root-file FILE"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_made_once_and_read_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.root");
        let made = open_or_make(&path, Existing::Nothing).unwrap();
        assert!(made.is_new);
        for existing in [Existing::Nothing, Existing::Data] {
            let again = open_or_make(&path, existing).unwrap();
            assert!(!again.is_new);
            assert_eq!(again.keys.domain.expose(), made.keys.domain.expose());
        }
    }

    #[test]
    fn no_new_root_is_made_over_data() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.root");
        let refused = open_or_make(&path, Existing::Data).err().unwrap().to_string();
        assert!(refused.contains("is missing") && refused.contains("backup"), "{refused}");
        assert!(!path.exists());
        assert!(open(&path).is_err());
    }

    #[test]
    fn a_damaged_root_is_told_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.root");
        private::create(&path, b"keymill-root-1\ndomain 00\n").unwrap();
        let refused = open_or_make(&path, Existing::Nothing).err().unwrap().to_string();
        assert!(refused.contains("line 2"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"keymill-root-1\ndomain 00\n");
    }

    #[test]
    fn a_root_inside_the_data_directory_is_refused() {
        let check = |root: &str| check_apart(Path::new(root), Path::new("/var/keymill"));
        assert!(check("/var/keymill/root").is_err());
        assert!(check("/var/keymill.root").is_ok());
    }
}
