//! Who else lives on a module: finalising it drops every token that it has, so it is done only where none of them serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Library, Module};

/// How long after one restart the next may be: the device that is gone may be gone for hours.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(1);

/// The tokens of a library.
#[derive(Default)]
pub(super) struct Attached {
    open: usize,
    out: usize,
    restarted: Option<Instant>,
}

/// A token's place on its module.
pub(crate) struct Attachment {
    library: Arc<Library>,
    out: bool,
}

impl Module {
    /// Counts a token that serves.
    pub(crate) fn attach(&self) -> Attachment {
        self.library.attached.lock().open += 1;
        Attachment { library: Arc::clone(&self.library), out: false }
    }

    /// Finalises the module and initialises it again, if none of its tokens serves and the last time was a while ago; tells whether
    /// it did.
    ///
    /// # Errors
    /// [`Failure`] of either.
    pub(crate) fn restart_if_idle(&self) -> Result<bool, Failure> {
        // Held throughout, so that no token comes back meanwhile.
        let mut attached = self.library.attached.lock();
        let recent = attached.restarted.is_some_and(|at| at.elapsed() < BETWEEN_RESTARTS);
        if attached.out < attached.open || recent {
            return Ok(false);
        }
        attached.restarted = Some(Instant::now());
        self.finalize()?;
        self.initialize()?;
        Ok(true)
    }
}

impl Attachment {
    /// Says whether the token serves.
    pub(crate) fn set_out(&mut self, out: bool) {
        if self.out != out {
            self.out = out;
            let mut attached = self.library.attached.lock();
            if out { attached.out += 1 } else { attached.out -= 1 }
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.set_out(false);
        self.library.attached.lock().open -= 1;
    }
}
