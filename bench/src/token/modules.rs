//! Which modules there are to measure with: those that are named, and SoftHSM where distributions put it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::scratch;

/// A module that rows are measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SoftHSM 2.
    SoftHsm,
    /// Kryoptic.
    Kryoptic,
    /// The simulator of `tests/modules`, in front of SoftHSM.
    Simulator,
}

impl Kind {
    const ALL: [Self; 3] = [Self::SoftHsm, Self::Kryoptic, Self::Simulator];

    /// Returns the name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SoftHsm => "softhsm",
            Self::Kryoptic => "kryoptic",
            Self::Simulator => "simulator",
        }
    }
}

/// Why there is no such module, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absent(pub(crate) &'static str);

impl Absent {
    fn of(kind: Kind) -> Self {
        Self(match kind {
            Kind::SoftHsm => "no SoftHSM found; install softhsm2 or --module softhsm=PATH",
            Kind::Kryoptic => "no Kryoptic named; --module kryoptic=PATH",
            Kind::Simulator => "no simulator named; --module simulator=PATH",
        })
    }
}

/// A module named on the command line: `softhsm=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    kind: Kind,
    path: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Kind::ALL.map(Kind::name).join(", ");
        let Some((name, path)) = text.split_once('=') else {
            return Err(format!("NAME=PATH is wanted, NAME one of {}", names()));
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| format!("{name:?} is none of {}", names()))?;
        match Path::new(path).is_file() {
            true => Ok(Self { kind, path: path.into() }),
            false => Err(format!("there is no file {path}")),
        }
    }
}

/// The modules that are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Modules(Vec<Named>);

impl Modules {
    /// Returns those that are named, the last of a kind before the others, and SoftHSM where it is found.
    pub(crate) fn of(named: &[Named]) -> Self {
        let mut modules: Vec<Named> = named.iter().rev().cloned().collect();
        modules.extend(scratch::softhsm().map(|path| Named { kind: Kind::SoftHsm, path }));
        Self(modules)
    }

    /// Returns the file of a module.
    ///
    /// # Errors
    /// [`Absent`] where there is none.
    pub(crate) fn path(&self, kind: Kind) -> Result<&Path, Absent> {
        let found = self.0.iter().find(|module| module.kind == kind);
        found.map(|module| &*module.path).ok_or(Absent::of(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: Kind, path: &str) -> Named {
        Named { kind, path: path.into() }
    }

    #[test]
    fn a_module_is_named_by_what_it_is_and_its_file() {
        let ourselves = std::env::current_exe().unwrap();
        let text = format!("simulator={}", ourselves.display());
        assert_eq!(text.parse(), Ok(Named { kind: Kind::Simulator, path: ourselves }));
        for (text, word) in [
            ("simulator", "NAME=PATH"),
            ("nitrokey=/x", "softhsm, kryoptic"),
            ("kryoptic=/none", "no file /none"),
        ] {
            let refused = text.parse::<Named>().unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn the_last_that_is_named_counts_and_what_is_absent_says_what_to_do() {
        let modules = Modules::of(&[named(Kind::SoftHsm, "/a"), named(Kind::SoftHsm, "/b")]);
        assert_eq!(modules.path(Kind::SoftHsm), Ok(Path::new("/b")));
        assert_eq!(modules.path(Kind::Kryoptic).unwrap_err().0, "no Kryoptic named; --module kryoptic=PATH");
        let none = Modules::default().path(Kind::SoftHsm).unwrap_err();
        assert_eq!(none.0, "no SoftHSM found; install softhsm2 or --module softhsm=PATH");
    }
}
