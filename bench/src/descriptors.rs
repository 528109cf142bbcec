//! How many files, and so connections, may be open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{BenchError, Result};

/// Lets the process have as many files open as it may, and returns how many.
pub(crate) fn open_files() -> Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(BenchError::because("open files"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(BenchError::because("open files"))?;
    Ok(usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_may_be_open_can_be() {
        let most = open_files().unwrap() as u64;
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }
}
