//! `keymill secret run`: a program that gets secrets in its environment, or as files in memory that are gone when it ends. Never in its arguments,
//! which everybody on the machine can read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::str::FromStr;

use clap::Args;
use keymill_core::operation::SecretDataType;
use zeroize::Zeroizing;

use super::child::{Relay, exit_code};
use super::fetch::{self, Fetched};
use super::memory::Folder;
use super::place::{Place, pick};
use crate::admin::Api;
use crate::credentials::SECRET_VARIABLES;
use crate::failure::{Failure, Result};
use crate::process;

#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
    /// Have the variable NAME hold a secret, or a field of one whose value is JSON; may be given several times
    #[arg(long = "env", value_name = "NAME=SECRET[#FIELD]")]
    variables: Vec<Binding>,
    /// Have the variable NAME hold the path of a file, which holds a secret or a field of one; may be given several times
    #[arg(long = "file", value_name = "NAME=SECRET[#FIELD]")]
    files: Vec<Binding>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A variable, and what is to be in it or in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    variable: String,
    place: Place,
}

impl FromStr for Binding {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (variable, place) = text.split_once('=').ok_or("NAME=SECRET or NAME=SECRET#FIELD")?;
        let is_name = !variable.starts_with(|c: char| c.is_ascii_digit())
            && !variable.is_empty()
            && variable.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        match is_name {
            true => Ok(Self { variable: variable.to_owned(), place: place.parse()? }),
            false => Err("a variable has a name of letters, digits and _".to_owned()),
        }
    }
}

/// Runs the program; comes back only where it cannot be started.
pub(super) fn run(api: &Api, args: RunArgs) -> Result<()> {
    process::keep_memory_private()?;
    let mut seen = BTreeMap::new();
    for binding in args.variables.iter().chain(&args.files) {
        if seen.insert(&binding.variable, ()).is_some() {
            return Err(Failure::wrong_use(format!("the variable {} is given twice", binding.variable)));
        }
    }
    let names = args.variables.iter().chain(&args.files).map(|binding| binding.place.name.clone());
    let fetched = fetch::current(api, names)?;
    let (program, arguments) = args.command.split_first().ok_or_else(|| Failure::wrong_use("no command"))?;
    if args.files.is_empty() {
        let mut command = Command::new(program);
        command.args(arguments);
        set_variables(&mut command, &args.variables, &fetched)?;
        drop(fetched);
        let error = command.exec();
        return Err(Failure::because(program.to_string_lossy())(error));
    }
    let (relay, folder) = (Relay::block()?, Folder::make()?);
    let mut command = relay.command(program)?;
    command.args(arguments);
    set_variables(&mut command, &args.variables, &fetched)?;
    for Binding { variable, place } in &args.files {
        command.env(variable, folder.write(variable, &value_at(&fetched, place)?)?);
    }
    drop(fetched);
    let status = relay.run(&mut command)?;
    drop(folder);
    std::process::exit(exit_code(status))
}

fn set_variables(command: &mut Command, variables: &[Binding], fetched: &Fetched) -> Result<()> {
    // What let us in is nobody else's.
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    for Binding { variable, place } in variables {
        let value = value_at(fetched, place)?;
        if value.contains(&0) {
            let why = format!("secret {place} holds a zero byte, which no variable can: --file takes it");
            return Err(Failure::new(why));
        }
        command.env(variable, OsStr::from_bytes(&value));
    }
    Ok(())
}

/// Returns what a place names.
pub(super) fn value_at(fetched: &Fetched, place: &Place) -> Result<Zeroizing<Vec<u8>>> {
    let value = match fetched.get(&place.name) {
        Some(Ok(value)) => value,
        Some(Err(fault)) => return Err(Failure::new(fetch::told(fault))),
        None => return Err(Failure::new(format!("secret {} was not read", place.name))),
    };
    match &place.path {
        None => Ok(value.bytes()),
        Some(_) if value.data_type == SecretDataType::Binary => {
            Err(Failure::new(format!("secret {place}: its value is bytes and no JSON")))
        }
        Some(path) => match pick(&value.text, path) {
            Ok(text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Err(why) => Err(Failure::new(format!("secret {place}: {why}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_names_a_variable_and_a_place() {
        let binding: Binding = "DB_PASSWORD=shop/db=1#password".parse().unwrap();
        assert_eq!(
            (&*binding.variable, binding.place.to_string()),
            ("DB_PASSWORD", "shop/db=1#password".into())
        );
        for bad in ["", "A", "=db", "1A=db", "A-B=db", "A=", "A=no name", "ä=db"] {
            assert!(bad.parse::<Binding>().is_err(), "{bad}");
        }
    }
}
