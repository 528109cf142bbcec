//! Tokens of modules in software, in a directory that goes with them. Such a module reads from its environment where its tokens are, and
//! the environment of a process is set by whoever starts it: so what needs a token starts this program again, with that set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use keymill_core::Sensitive;
use keymill_provider_pkcs11::{Initialize, initialize};

use crate::error::{BenchError, Result};

/// Where SoftHSM is, in the distributions that have it.
const SOFTHSM: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Bytes of randomness in a PIN, which is twice as many hexadecimal digits.
const PIN_BYTES: usize = 8;

/// Returns the SoftHSM that this machine's distribution installed, if any.
pub fn softhsm() -> Option<PathBuf> {
    SOFTHSM.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Returns what each module in software is told of a directory for tokens: the variable that names the file, the file's name, its text.
fn configurations(tokens: &Path) -> [(&'static str, &'static str, String); 2] {
    let softhsm = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    let kryoptic = format!(
        "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
        tokens.join("token.sql").display()
    );
    [("SOFTHSM2_CONF", "softhsm2.conf", softhsm), ("KRYOPTIC_CONF", "kryoptic.conf", kryoptic)]
}

/// Runs this program once more, with the same arguments and `flag` with a scratch directory, in an environment where modules in software
/// keep their tokens there; returns how it ended. The directory is gone then.
///
/// # Errors
/// [`BenchError`] where the directory cannot be made or removed, or the program not started.
pub fn run_again(prefix: &str, flag: &str) -> Result<ExitStatus> {
    let place = tempfile::Builder::new().prefix(prefix).tempdir();
    let place = place.map_err(BenchError::because("a directory for tokens"))?;
    let ourselves = std::env::current_exe().map_err(BenchError::because("the program's own path"))?;
    let mut again = Command::new(ourselves);
    again.args(std::env::args_os().skip(1)).arg(flag).arg(place.path()).envs(prepare(place.path())?);
    let status = again.status().map_err(BenchError::because("starting the program again"))?;
    place.close().map_err(BenchError::because("removing the tokens"))?;
    Ok(status)
}

/// Makes the configurations in a scratch directory, and returns the variables that name them.
fn prepare(place: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let tokens = place.join("tokens");
    fs::create_dir(&tokens).map_err(BenchError::because("a directory for tokens"))?;
    let configured = |(variable, name, text): (&'static str, &str, String)| {
        let file = place.join(name);
        fs::write(&file, text).map_err(BenchError::because("a module's configuration"))?;
        Ok((variable, file))
    };
    configurations(&tokens).into_iter().map(configured).collect()
}

/// The PINs of a token, drawn for it.
pub struct Pins {
    /// The security officer's.
    pub so: Sensitive,
    /// The user's.
    pub user: Sensitive,
}

impl Pins {
    /// Draws them.
    ///
    /// # Errors
    /// [`BenchError`] where there is no randomness.
    pub fn draw() -> Result<Self> {
        let pin = || -> Result<Sensitive> {
            let mut random = [0; PIN_BYTES];
            keymill_crypto::random::draw(&mut random).map_err(BenchError::because("a PIN"))?;
            Ok(Sensitive::new(keymill_crypto::digest::hex(&random).into_bytes()))
        };
        Ok(Self { so: pin()?, user: pin()? })
    }

    /// Makes the token of this label, and the keys of a domain of its own where `keys` says so.
    ///
    /// # Errors
    /// [`BenchError`] where the module does not.
    pub fn make_token(&self, module: &Path, label: &str, keys: bool) -> Result<()> {
        initialize(Initialize {
            module: module.to_owned(),
            token_label: label.to_owned(),
            token_serial: None,
            domain: None,
            so_pin: Some(Sensitive::copied(self.so.expose())),
            pin: Sensitive::copied(self.user.expose()),
            keys,
        })
        .map(drop)
        .map_err(BenchError::because("making a token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_told_of_a_directory_that_is_there() {
        let place = tempfile::tempdir().unwrap();
        let variables = prepare(place.path()).unwrap();
        assert_eq!(
            variables.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["SOFTHSM2_CONF", "KRYOPTIC_CONF"]
        );
        let text = fs::read_to_string(&variables[0].1).unwrap();
        let tokens = text.lines().find_map(|line| line.strip_prefix("directories.tokendir = ")).unwrap();
        assert!(Path::new(tokens).is_dir() && tokens.starts_with(place.path().to_str().unwrap()));
        assert!(fs::read_to_string(&variables[1].1).unwrap().contains(tokens));
    }

    #[test]
    fn pins_are_drawn_each_for_itself() {
        let pins = Pins::draw().unwrap();
        assert_eq!(pins.so.expose().len(), 2 * PIN_BYTES);
        assert_ne!(pins.so.expose(), pins.user.expose());
    }
}
