//! The secrets of one request that reads many: what was asked for, and what came of each.

use keymill_core::audit::SecretTouch;
use keymill_core::id::SecretName;
use keymill_core::operation::SecretFault;

use super::{Fault, OpenedSecret};

/// The secrets that a request asked for, in its order.
#[derive(Debug, Default)]
pub struct NamedSecrets {
    pub(crate) asked: Vec<AskedSecret>,
    /// Those that the caller may read, as the audit names them.
    pub(crate) touches: Vec<SecretTouch>,
}

/// One secret that was asked for.
#[derive(Debug)]
pub(crate) struct AskedSecret {
    pub(crate) name: SecretName,
    /// What is opened, or why nothing is.
    state: Result<OpenedSecret, Fault>,
    /// Why its value did not open.
    unopened: Option<Fault>,
}

impl AskedSecret {
    pub(crate) fn new(name: SecretName, state: Result<OpenedSecret, Fault>) -> Self {
        Self { name, state, unopened: None }
    }

    /// Returns the bytes of all names that an answer tells of it.
    pub(crate) fn name_bytes(&self) -> usize {
        let of_version = |OpenedSecret { version, .. }: &OpenedSecret| {
            version.id.as_str().len()
                + version.stages.iter().map(|stage| stage.as_str().len() + 4).sum::<usize>()
        };
        self.name.as_str().len() + self.state.as_ref().map_or(0, of_version)
    }

    /// Returns the version that was opened, or what to tell in its place.
    pub(crate) fn outcome(&self) -> Result<&OpenedSecret, SecretFault> {
        let fault = match (&self.state, &self.unopened) {
            (Ok(opened), None) => return Ok(opened),
            (Ok(_), Some(fault)) | (Err(fault), _) => fault,
        };
        Err(SecretFault::new(self.name.clone(), fault.kind, fault.message.clone()))
    }
}

impl NamedSecrets {
    /// Notes that the value of secret `i` did not open; returns what is told of it: what was wrong before goes first.
    pub(crate) fn fail(&mut self, i: usize, fault: Fault) -> Fault {
        let asked = &mut self.asked[i];
        match &asked.state {
            Err(before) => before.clone(),
            Ok(_) => asked.unopened.insert(fault).clone(),
        }
    }

    /// Tells whether there is something to open of each.
    pub(crate) fn are_all_found(&self) -> bool {
        self.asked.iter().all(|asked| asked.state.is_ok())
    }

    /// Forgets what came of the opening, which is done again.
    pub(crate) fn restart(&mut self) {
        self.asked.iter_mut().for_each(|asked| asked.unopened = None);
    }
}
