//! Rows that need a token. Which there are, and what each needs, is a table: so a row that cannot be measured here is told of, and a run
//! knows beforehand whether it needs a place for tokens.

mod derived;
mod epochs;
mod farm;
mod module;
mod single;

use std::path::PathBuf;
use std::sync::Arc;

use crate::args::BenchArgs;
use crate::error::{BenchError, Result};
use crate::plan::Plan;
use crate::report::NotMeasured;
use crate::token::scratch::Pins;
use crate::token::{Farm, Kind, Modules, SoftToken};

/// The label of the token that a module makes for a run.
const LABEL: &str = "keymill-bench";

/// Measures a row of that name.
type Measure = Box<dyn Fn(&mut Plan<'_>, &mut Tokens, String) -> Result<()>>;

/// A row before it is known whether it can be measured.
struct TokenRow {
    name: String,
    /// The modules without which it cannot.
    needs: &'static [Kind],
    /// Simulated HSMs that it takes.
    hsms: usize,
    measure: Measure,
}

impl TokenRow {
    /// Tells why it cannot be measured with these modules.
    fn lacks(&self, modules: &Modules) -> Option<&'static str> {
        self.needs.iter().find_map(|kind| modules.path(*kind).err()).map(|absent| absent.0)
    }
}

fn rows(quick: bool) -> Vec<TokenRow> {
    let mut rows = module::rows();
    rows.extend(derived::rows());
    rows.extend(epochs::rows(quick));
    rows.extend(farm::rows());
    rows.extend(single::rows());
    rows
}

fn wanted(args: &BenchArgs) -> Vec<TokenRow> {
    let mut rows = rows(args.quick);
    rows.retain(|row| args.wants(&row.name));
    rows
}

/// Tells whether a row is wanted whose modules are there, so that tokens are to be made.
pub(crate) fn need_a_place(args: &BenchArgs) -> bool {
    let modules = Modules::of(&args.modules);
    wanted(args).iter().any(|row| row.lacks(&modules).is_none())
}

/// Measures those that are wanted, and notes those that cannot be measured here.
pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let modules = Modules::of(&plan.args.modules);
    let (rows, lacking): (Vec<_>, Vec<_>) = wanted(&plan.args)
        .into_iter()
        .partition(|row| plan.args.place.is_some() && row.lacks(&modules).is_none());
    plan.not_measured.extend(lacking.into_iter().map(|row| {
        let why = row
            .lacks(&modules)
            .unwrap_or("its token needs a directory of its own, which `keymill bench` makes");
        NotMeasured { name: row.name, why }
    }));
    let Some(place) = plan.args.place.clone() else { return Ok(()) };
    let hsms = rows.iter().map(|row| row.hsms).max().unwrap_or(0);
    let mut tokens = Tokens::new(place, modules, hsms);
    for row in rows {
        if plan.args.wants(&row.name) {
            (row.measure)(plan, &mut tokens, row.name)?;
        }
    }
    Ok(())
}

/// The tokens that rows share, each made by the first that asks.
struct Tokens {
    place: PathBuf,
    modules: Modules,
    /// Simulated HSMs, where there are any.
    hsms: usize,
    opened: Vec<(Kind, Arc<SoftToken>)>,
    farm: Option<Arc<Farm>>,
}

impl Tokens {
    fn new(place: PathBuf, modules: Modules, hsms: usize) -> Self {
        Self { place, modules, hsms, opened: Vec::new(), farm: None }
    }

    /// Returns the token of a module.
    fn of(&mut self, kind: Kind) -> Result<Arc<SoftToken>> {
        if let Some((_, token)) = self.opened.iter().find(|(opened, _)| *opened == kind) {
            return Ok(Arc::clone(token));
        }
        let module = self.modules.path(kind).map_err(|absent| BenchError::new(absent.0))?;
        let pins = Pins::draw()?;
        pins.make_token(module, LABEL, true)?;
        let token = Arc::new(SoftToken::open(module, LABEL, kind.name(), &pins)?);
        self.opened.push((kind, Arc::clone(&token)));
        Ok(token)
    }

    /// Returns the simulated HSMs, as many as the row of this run that takes most.
    fn farm(&mut self) -> Result<Arc<Farm>> {
        if self.farm.is_none() {
            let path = |kind| self.modules.path(kind).map_err(|absent| BenchError::new(absent.0));
            let (simulator, softhsm) = (path(Kind::Simulator)?, path(Kind::SoftHsm)?);
            self.farm = Some(Arc::new(Farm::make(&self.place, simulator, softhsm, self.hsms)?));
        }
        Ok(Arc::clone(self.farm.as_ref().expect("it was just made")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_issue_is_there_once() {
        let names: Vec<String> = wanted(&BenchArgs::default()).into_iter().map(|row| row.name).collect();
        for name in [
            "hsm softhsm BatchEncrypt 256 x 1 KiB",
            "hsm kryoptic BatchSign ECDSA_SHA_256 256",
            "hsm derived tcp BatchDecrypt 256 x 1 KiB, 4 in flight, 2 connections",
            "hsm derived open 100000 records of 10000 epochs at random",
            "hsm farm of 32 x 1000/s, BatchEncrypt 256 x 1 KiB",
            "hsm single Encrypt 1 KiB under bulk 64 x 1 KiB, p99",
        ] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}: {names:#?}");
        }
        assert_eq!(names.len(), 8 + 2 + 1 + 4 + 1);
    }

    #[test]
    fn a_row_lacks_the_first_module_that_is_not_there() {
        let kryoptic = BenchArgs { only: Some("kryoptic BatchE".into()), ..BenchArgs::default() };
        let [row] = &wanted(&kryoptic)[..] else { panic!() };
        assert_eq!(row.lacks(&Modules::default()), Some("no Kryoptic named; --module kryoptic=PATH"));
        assert!(!need_a_place(&kryoptic));
    }
}
