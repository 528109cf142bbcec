//! Where a PIN comes from: its file, else its variable, else somebody at the terminal. Never an argument, which other users could see.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::Args;
use keymill_core::Sensitive;

use super::prompt;
use crate::failure::{Failure, Result};
use crate::{output, private};

/// The flag of the user's PIN.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct PinArgs {
    /// File with the user's PIN, mode 0600; else KEYMILL_HSM_PIN, else it is asked for at the terminal
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

/// The flag of the PIN that is to come.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct NewPinArgs {
    /// File with the new PIN, mode 0600; else KEYMILL_HSM_NEW_PIN, else it is asked for at the terminal, twice
    #[arg(long, value_name = "FILE")]
    new_pin_file: Option<PathBuf>,
}

/// The flag of the security officer's PIN.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SoPinArgs {
    /// File with the security officer's PIN, mode 0600; else KEYMILL_HSM_SO_PIN, else it is asked for at the terminal. Only
    /// where the token is yet to be made
    #[arg(long, value_name = "FILE")]
    so_pin_file: Option<PathBuf>,
}

/// Which PIN, and where it is looked for.
struct Source<'a> {
    what: Cow<'a, str>,
    flag: &'static str,
    variable: &'static str,
    file: Option<&'a Path>,
}

impl PinArgs {
    /// Reads the PIN; it is asked for twice where it is `new`.
    pub(super) fn read(&self, new: bool) -> Result<Sensitive> {
        user_pin("user PIN".into(), self.pin_file.as_deref()).read(new)
    }

    /// Says where the PIN was read from, if not from somebody at the terminal.
    pub(super) fn place(&self) -> Option<String> {
        let source = user_pin("user PIN".into(), self.pin_file.as_deref());
        let set = std::env::var_os(source.variable).is_some_and(|value| !value.is_empty());
        let file = source.file.map(|path| output::harmless(&path.display().to_string()).into_owned());
        file.or_else(|| set.then(|| source.variable.to_owned()))
    }

    /// Reads the PIN of one token of several.
    pub(super) fn read_of(&self, token: &str) -> Result<Sensitive> {
        read_of(token, self.pin_file.as_deref())
    }
}

/// Reads the PIN of one token of several.
pub(super) fn read_of(token: &str, file: Option<&Path>) -> Result<Sensitive> {
    user_pin(format!("user PIN of token {}", output::harmless(token)).into(), file).read(false)
}

fn user_pin<'a>(what: Cow<'a, str>, file: Option<&'a Path>) -> Source<'a> {
    Source { what, flag: "--pin-file", variable: "KEYMILL_HSM_PIN", file }
}

impl NewPinArgs {
    /// Reads the PIN that a token is to have from now on.
    pub(super) fn read(&self) -> Result<Sensitive> {
        let source = Source {
            what: "new user PIN".into(),
            flag: "--new-pin-file",
            variable: "KEYMILL_HSM_NEW_PIN",
            file: self.new_pin_file.as_deref(),
        };
        source.read(true)
    }
}

impl SoPinArgs {
    /// Reads the PIN of a token that is to be made.
    pub(super) fn read(&self) -> Result<Sensitive> {
        let source = Source {
            what: "security officer's PIN".into(),
            flag: "--so-pin-file",
            variable: "KEYMILL_HSM_SO_PIN",
            file: self.so_pin_file.as_deref(),
        };
        source.read(true)
    }
}

/// Reads the PIN of a token that the configuration names, from its file, else from its variable; nobody is asked.
pub(crate) fn configured(file: Option<&Path>, variable: Option<&str>) -> Result<Sensitive> {
    let source = Source {
        what: "user PIN".into(),
        flag: "pin_file",
        variable: "the variable that pin_env names",
        file,
    };
    let value = variable.and_then(std::env::var_os).map(|value| Sensitive::new(value.into_encoded_bytes()));
    source.given(value)?.ok_or_else(|| {
        Failure::new("the token's section names no PIN: neither pin_file, nor a pin_env that is set")
    })
}

impl Source<'_> {
    fn read(&self, new: bool) -> Result<Sensitive> {
        let variable =
            std::env::var_os(self.variable).map(|value| Sensitive::new(value.into_encoded_bytes()));
        if let Some(pin) = self.given(variable)? {
            return Ok(pin);
        }
        if !prompt::possible() {
            return Err(Failure::new(format!("no {}, and no terminal to ask for it", self.what))
                .next(format!("give {} FILE, or set {}", self.flag, self.variable)));
        }
        self.checked(prompt::ask(&self.what, new)?, "what was typed")
    }

    /// Takes the PIN from the file, else from the variable's value.
    fn given(&self, variable: Option<Sensitive>) -> Result<Option<Sensitive>> {
        if let Some(path) = self.file {
            let text = private::read(path)?.ok_or_else(|| {
                Failure::new(format!("{} does not exist", path.display()))
                    .next(format!("write the {} alone into it, mode 0600", self.what))
            })?;
            return self.checked(text, &path.display().to_string()).map(Some);
        }
        match variable {
            Some(value) if !value.is_empty() => self.checked(value, self.variable).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes the end of the line off, which editors add, and refuses what is no PIN.
    fn checked(&self, text: Sensitive, place: &str) -> Result<Sensitive> {
        let bytes = text.expose();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.is_empty() || bytes.iter().any(u8::is_ascii_control) {
            return Err(Failure::new(format!(
                "{place} is no {}: it is empty, or has more than one line",
                self.what
            )));
        }
        Ok(Sensitive::copied(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn given(file: Option<&Path>, variable: Option<&str>) -> Result<Option<Vec<u8>>> {
        let source =
            Source { what: "user PIN".into(), flag: "--pin-file", variable: "KEYMILL_HSM_PIN", file };
        let variable = variable.map(|value| Sensitive::copied(value.as_bytes()));
        Ok(source.given(variable)?.map(|pin| pin.expose().to_vec()))
    }

    #[test]
    fn the_file_comes_before_the_variable_and_loses_the_end_of_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pin");
        for text in ["1234", "1234\n", "1234\r\n"] {
            private::replace(&file, text.as_bytes()).unwrap();
            assert_eq!(given(Some(&file), Some("5678")).unwrap().unwrap(), b"1234");
        }
        assert_eq!(given(None, Some("5678")).unwrap().unwrap(), b"5678");
        assert_eq!(given(None, Some("")).unwrap(), None);
        assert_eq!(given(None, None).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_open_to_others_absent_or_no_pin_is_refused_without_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pin");
        let refusal = |variable| given(Some(&file), variable).unwrap_err().to_string();
        assert!(
            refusal(Some("5678")).contains("does not exist"),
            "the variable does not stand in for a lost file"
        );
        private::create(&file, b"1234\n5678\n").unwrap();
        let told = refusal(None);
        assert!(told.contains("no user PIN") && !told.contains("1234"), "{told}");
        private::replace(&file, b"\n").unwrap();
        assert!(refusal(None).contains("empty"));
        private::replace(&file, b"1234").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refusal(None).contains("open to others"));
    }
}
