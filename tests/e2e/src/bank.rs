//! A rotator without a database: in memory it knows which password of an account is valid, is told to fail, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{RotatorName, SecretName};
use keymill_core::seam::rotator::{
    FirstValue, RotationFault, RotationFaultKind, RotationSettings, RotationStrategy, Rotator, Turn,
};
use keymill_core::secret::Step;
use keymill_runtime::{EngineConfig, Rotators};

/// What a step does in the place of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Nothing, and says so.
    Fails,
    /// Its work, and says that it failed: an answer that was lost.
    IsLost,
    /// It panics.
    Panics,
}

/// The "database", shared with the rotator over it.
#[derive(Clone, Default)]
pub struct Bank(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// The one valid password of each account.
    valid: BTreeMap<String, String>,
    instead: BTreeMap<&'static str, Instead>,
    /// The step before which the next rotation waits.
    held: Option<Step>,
    is_waiting: bool,
    asked: Vec<(Step, String)>,
    admin: Option<SecretName>,
    /// The values that were handed over as the admin's.
    admins: Vec<String>,
}

fn account(value: &Sensitive) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_slice(value.expose()).ok()?;
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some((text("AccountName")?, text("AccountPassword")?))
}

fn value(account: &str, password: &str) -> Sensitive {
    let value = serde_json::json!({"AccountName": account, "AccountPassword": password});
    Sensitive::new(value.to_string().into_bytes())
}

impl Bank {
    /// Opens one in which these accounts have these passwords.
    pub fn of(accounts: &[(&str, &str)]) -> Self {
        let bank = Self::default();
        for (account, password) in accounts {
            bank.state().valid.insert((*account).to_owned(), (*password).to_owned());
        }
        bank
    }

    /// Says which secret the rotator works by.
    #[must_use]
    pub fn by(self, admin: &str) -> Self {
        self.state().admin = Some(admin.parse().expect("the test's name is valid"));
        self
    }

    /// Returns options of an engine that has it as the rotator `bank`, and tries again soon.
    pub fn config(&self) -> EngineConfig {
        let mut config = EngineConfig { rotators: self.rotators("bank"), ..EngineConfig::default() };
        let ms = std::time::Duration::from_millis;
        (config.rotation.check, config.deletion_check) = (ms(20), ms(20));
        (config.rotation.back_off.first, config.rotation.back_off.most) = (ms(20), ms(80));
        config
    }

    /// Returns it as a rotator of that name.
    pub fn rotators(&self, name: &str) -> Rotators {
        let mut rotators = Rotators::default();
        let name: RotatorName = name.parse().expect("the test's name is valid");
        let at = self.state().admin.clone();
        rotators.add(name, Arc::new(Teller { bank: self.clone(), admin: at }));
        rotators
    }

    /// Has a step do something else from now on; as it should, if `None`.
    pub fn instead(&self, step: &'static str, instead: Option<Instead>) {
        match instead {
            Some(instead) => self.state().instead.insert(step, instead),
            None => self.state().instead.remove(step),
        };
    }

    /// Has rotations wait before a step, until they are let go.
    pub fn hold(&self, step: Step) {
        self.state().held = Some(step);
    }

    /// Waits until one waits.
    pub fn await_held(&self) {
        let mut state = self.state();
        while !state.is_waiting {
            state = self.0.1.wait(state).expect("no test panics with it");
        }
    }

    /// Lets go those that wait.
    pub fn let_go(&self) {
        let mut state = self.state();
        (state.held, state.is_waiting) = (None, false);
        self.0.1.notify_all();
    }

    /// Tells whether the value of a secret logs in.
    pub fn takes(&self, secret: &str) -> bool {
        let value = Sensitive::copied(secret.as_bytes());
        account(&value).is_some_and(|(account, password)| self.state().valid.get(&account) == Some(&password))
    }

    /// Gives an account another password, behind the back of whoever rotates it.
    pub fn change(&self, account: &str, password: &str) {
        self.state().valid.insert(account.to_owned(), password.to_owned());
    }

    /// Returns the password of an account.
    pub fn password(&self, account: &str) -> String {
        self.state().valid[account].clone()
    }

    /// Returns how often a step was asked for.
    pub fn count(&self, step: Step) -> usize {
        self.state().asked.iter().filter(|(asked, _)| *asked == step).count()
    }

    /// Returns the versions that were asked for, each once.
    pub fn versions(&self) -> Vec<String> {
        let mut versions: Vec<_> = self.state().asked.iter().map(|(_, version)| version.clone()).collect();
        versions.dedup();
        versions
    }

    /// Returns the values that were handed over as the admin's.
    pub fn admins(&self) -> Vec<String> {
        self.state().admins.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn step(
        &self,
        step: Step,
        turn: &Turn<'_>,
        work: impl FnOnce(&mut State, &(String, String)) -> Result<(), RotationFault>,
    ) -> Result<(), RotationFault> {
        let mut state = self.state();
        while state.held == Some(step) {
            state.is_waiting = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).expect("no test panics with it");
        }
        state.asked.push((step, turn.version.to_string()));
        if let Some(admin) = turn.admin {
            state.admins.push(String::from_utf8_lossy(admin.expose()).into_owned());
        }
        let pending = account(turn.pending).expect("the pending value is one of ours");
        let fault = |why: &str| Err(RotationFault::new(RotationFaultKind::Unreachable, why));
        match state.instead.get(step.name()).copied() {
            None => work(&mut state, &pending),
            Some(Instead::Fails) => fault("the bank is closed"),
            Some(Instead::IsLost) => {
                work(&mut state, &pending)?;
                fault("the answer was lost")
            }
            Some(Instead::Panics) => {
                drop(state);
                panic!("as the test wants it")
            }
        }
    }
}

/// The rotator over a bank.
struct Teller {
    bank: Bank,
    admin: Option<SecretName>,
}

impl Rotator for Teller {
    fn kind(&self) -> &'static str {
        "bank"
    }

    fn admin(&self) -> Option<&SecretName> {
        self.admin.as_ref()
    }

    fn admit(&self, settings: &RotationSettings, given: &Sensitive) -> Result<FirstValue> {
        let invalid = || Error::new(ErrorKind::InvalidParameter, "SecretData holds no accounts");
        let given: serde_json::Value = serde_json::from_slice(given.expose()).map_err(|_| invalid())?;
        let of = |n: usize| {
            let text = |name: &str| given["Accounts"][n][name].as_str().map(str::to_owned);
            Some(value(&text("AccountName")?, &text("AccountPassword")?))
        };
        let previous = match settings.strategy {
            Some(RotationStrategy::AlternatingUsers) => Some(of(1).ok_or_else(invalid)?),
            _ => None,
        };
        Ok(FirstValue { current: of(0).ok_or_else(invalid)?, previous })
    }

    fn draft(
        &self,
        settings: &RotationSettings,
        current: &Sensitive,
        previous: Option<&Sensitive>,
        below: &mut dyn FnMut(u32) -> Result<u32>,
    ) -> Result<Sensitive> {
        if self.bank.state().instead.get("draft") == Some(&Instead::Fails) {
            return Err(Error::new(ErrorKind::InvalidParameter, "the bank makes no passwords today"));
        }
        let of = match settings.strategy {
            Some(RotationStrategy::AlternatingUsers) => previous,
            _ => Some(current),
        };
        let invalid = || Error::new(ErrorKind::InvalidParameter, "the value is no account");
        let (name, _) = of.and_then(account).ok_or_else(invalid)?;
        Ok(value(&name, &format!("{MARK}-{:08x}{:08x}", below(u32::MAX)?, below(u32::MAX)?)))
    }

    fn set(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        let current = account(turn.current);
        self.bank.step(Step::Set, turn, |state, (name, password)| {
            // Who holds the current credential, or the pending one, sets the password; an account that takes its turn is set by the other.
            let holds = |(name, password): &(String, String)| state.valid.get(name) == Some(password);
            let may = current.as_ref().is_some_and(holds) || holds(&(name.clone(), password.clone()));
            if !may && turn.admin.is_none() {
                return Err(RotationFault::new(RotationFaultKind::Refused, "neither credential logs in"));
            }
            state.valid.insert(name.clone(), password.clone());
            Ok(())
        })
    }

    fn test(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        self.bank.step(Step::Test, turn, |state, (name, password)| match state.valid.get(name) {
            Some(valid) if valid == password => Ok(()),
            _ => Err(RotationFault::new(RotationFaultKind::NotValid, "the new password does not log in")),
        })
    }

    fn finish(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        self.bank.step(Step::Finish, turn, |_, _| Ok(()))
    }
}

/// What every password that is drafted begins with: it is found nowhere but in values.
pub const MARK: &str = "marked-draft";
