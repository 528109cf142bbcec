//! The ways in that one arbiter of a frontend has: into the installation, and into the instances that its requests reached so far. Each has a
//! software actor of its own there, so that one's work is no other's.

use std::cell::RefCell;

use keymill_core::error::Result;
use keymill_core::instance::Arrival;

use crate::actor::ArbiterHandle;
use crate::gate::Gate;

/// The doors of one arbiter. It stays on it.
pub struct Doors {
    installation: Door,
    instances: RefCell<Vec<Door>>,
}

/// A way in, and who does the work of this arbiter behind it.
#[derive(Clone)]
pub struct Door {
    /// The way in.
    pub gate: Gate,
    /// Who does the work.
    pub arbiter: ArbiterHandle,
}

impl Door {
    fn open(gate: Gate) -> Result<Self> {
        Ok(Self { arbiter: gate.arbiter()?, gate })
    }
}

impl Doors {
    /// Opens the door of an installation on this arbiter.
    ///
    /// # Errors
    /// As of [`Gate::arbiter`].
    pub fn open(gate: Gate) -> Result<Self> {
        Ok(Self { installation: Door::open(gate)?, instances: RefCell::default() })
    }

    /// Returns the door of the installation.
    pub fn installation(&self) -> &Door {
        &self.installation
    }

    /// Returns the door of the instance that a request reaches; `None` for one that reaches the installation.
    ///
    /// # Errors
    /// As of [`Gate::reached`], and of [`Gate::arbiter`] where it is the first on this arbiter to reach an instance.
    pub fn instance(&self, arrival: &Arrival<'_>) -> Result<Option<Door>> {
        let Some(gate) = self.installation.gate.reached(arrival)? else { return Ok(None) };
        let mut doors = self.instances.borrow_mut();
        if let Some(door) = doors.iter().find(|door| door.gate.is(&gate)) {
            return Ok(Some(door.clone()));
        }
        // Those that were released are gone for good.
        doors.retain(|door| !door.gate.is_closed());
        let door = Door::open(gate)?;
        doors.push(door.clone());
        Ok(Some(door))
    }

    /// Finishes what waits behind each door, and closes the desks.
    pub async fn stop(&self) {
        let doors = self.instances.take();
        for door in &doors {
            door.arbiter.stop().await;
        }
        self.installation.arbiter.stop().await;
    }
}
