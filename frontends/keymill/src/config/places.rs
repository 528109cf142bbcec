//! Where everything lies, once the defaults are filled in.

use std::path::{Path, PathBuf};

use super::Config;
use crate::credentials::base_directory;
use crate::failure::{Failure, Result};
use crate::private;

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The root file.
    pub(crate) root: PathBuf,
    /// The directory of the audit.
    pub(crate) audit: PathBuf,
    /// The file that tells where the server listens.
    pub(crate) addresses: PathBuf,
    /// The file of the bootstrap access key, where it is not printed.
    pub(crate) bootstrap: PathBuf,
}

impl Config {
    /// Returns where everything lies, with the defaults filled in.
    pub(crate) fn places(&self) -> Result<Places> {
        let data = match &self.data_dir {
            Some(named) => private::absolute(named)?,
            None => base_directory("XDG_DATA_HOME", ".local/share")
                .ok_or_else(|| {
                    Failure::wrong_use("neither XDG_DATA_HOME nor HOME is set")
                        .next("name a place with --data-dir DIR")
                })?
                .join("keymill"),
        };
        let root = match &self.root.file.path {
            Some(named) => private::absolute(named)?,
            None => beside(&data)?,
        };
        let audit = match &self.audit.file.directory {
            Some(named) => private::absolute(named)?,
            None => data.join("audit"),
        };
        let addresses = data.join("addresses.json");
        let bootstrap = self.credentials.clone().unwrap_or_else(|| data.join("bootstrap-access-key.json"));
        Ok(Places { data, root, audit, addresses, bootstrap })
    }
}

/// Returns `<data>.root`.
fn beside(data: &Path) -> Result<PathBuf> {
    let name = data.file_name().ok_or_else(|| {
        Failure::wrong_use(format!("{} has no name of its own", data.display()))
            .next("name the root file with --root-file FILE")
    })?;
    let mut name = name.to_owned();
    name.push(".root");
    Ok(data.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_stands_beside_the_data_and_the_audit_within() {
        let config = Config { data_dir: Some("/var/lib/keymill/".into()), ..Config::default() };
        let places = config.places().unwrap();
        assert_eq!(places.root, Path::new("/var/lib/keymill.root"));
        assert_eq!(places.audit, Path::new("/var/lib/keymill/audit"));
        let nameless = Config { data_dir: Some("/".into()), ..Config::default() };
        assert!(nameless.places().is_err());
    }
}
