//! A PKCS#11 module: loaded once a process and never unloaded, initialised once, its functions called through a table that is held
//! by value, so that a test can put another function in its place. Every handle knows the initialisation it belongs to.

use std::cell::Cell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{fmt, io, process};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID,
    CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

mod attachment;
mod failure;
// A module is a C library: its functions take pointers.
#[allow(unsafe_code)]
mod raw;
pub(crate) mod template;

use attachment::Attached;
pub(crate) use attachment::Attachment;
pub use failure::{Class, Failure, Rv};
pub use raw::{LibraryInfo, TokenInfo};
pub use template::{Attribute, Hash, Mechanism, Value};

/// The numbers that PKCS#11 gives to mechanisms, attributes and codes.
pub use cryptoki_sys as number;

/// Bytes that a module is given in one call, at most: one was seen to crash at 2 GiB.
pub const MAX_CALL_BYTES: usize = 1024 * 1024;

/// How long the calls under way are waited for.
const QUIESCE: Duration = Duration::from_secs(5);

/// The functions of a module.
#[derive(Clone, Copy)]
pub struct Table {
    /// Those of PKCS#11 2.40.
    pub base: CK_FUNCTION_LIST,
    /// Those of PKCS#11 3.0, where the module offers them.
    pub v3: Option<CK_FUNCTION_LIST_3_0>,
}

/// A loaded module, or a view of it with other functions.
#[derive(Clone)]
pub struct Module {
    library: Arc<Library>,
    table: Table,
    owner_pid: u32,
}

/// What the process has once of each module file.
struct Library {
    path: PathBuf,
    table: Table,
    /// Held shared by every call, and alone by what initialises and finalises: no call straddles either.
    lifecycle: RwLock<()>,
    /// Held shared by calls that name a slot, and alone by those that may change which there are: SoftHSM aborts the process
    /// where two threads list its slots at once.
    slots: RwLock<()>,
    initialized: AtomicBool,
    /// Whether it was initialised here: another library of the process may have been first, and is not finalised under.
    ours: AtomicBool,
    /// Counts initialisations: handles start at 1 again after each, so that an old one would name something new.
    generation: AtomicU64,
    attached: Mutex<Attached>,
}

/// Two of one module in a process would initialise and finalise it under each other.
static LIBRARIES: LazyLock<Mutex<HashMap<PathBuf, Arc<Library>>>> = LazyLock::new(Mutex::default);

/// A session of a module; closed when dropped.
pub struct Session {
    module: Module,
    handle: CK_SESSION_HANDLE,
    generation: u64,
    /// A session has one operation at a time: it may change threads, but not serve two.
    one_thread: PhantomData<Cell<()>>,
}

/// An object of a token or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    handle: CK_OBJECT_HANDLE,
    generation: u64,
}

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The user, who owns the keys.
    User,
    /// The security officer, who sets the user's PIN.
    SecurityOfficer,
}

impl Module {
    /// Loads a module, or finds it loaded.
    ///
    /// # Errors
    /// [`LoadError`] where the file is no PKCS#11 module.
    pub fn load(path: &Path) -> Result<Module, LoadError> {
        let failed = |why: String| LoadError { path: path.to_path_buf(), why };
        let path = path.canonicalize().map_err(|error: io::Error| failed(error.to_string()))?;
        let mut libraries = LIBRARIES.lock();
        let library = match libraries.get(&path) {
            Some(library) => Arc::clone(library),
            None => {
                let library = Arc::new(Library {
                    table: raw::load(&path).map_err(failed)?,
                    path: path.clone(),
                    lifecycle: RwLock::new(()),
                    slots: RwLock::new(()),
                    initialized: AtomicBool::new(false),
                    ours: AtomicBool::new(false),
                    generation: AtomicU64::new(0),
                    attached: Mutex::default(),
                });
                libraries.insert(path, Arc::clone(&library));
                library
            }
        };
        Ok(Module { table: library.table, library, owner_pid: process::id() })
    }

    /// Returns a view of this module with other functions: the seam for faults in tests.
    #[must_use]
    pub fn with_table(&self, edit: impl FnOnce(&mut Table)) -> Module {
        let mut module = self.clone();
        edit(&mut module.table);
        module
    }

    /// Returns a view of this module that process `pid` loaded: the seam for forks in tests.
    #[must_use]
    pub fn with_owner(&self, pid: u32) -> Module {
        Module { owner_pid: pid, ..self.clone() }
    }

    /// Returns where the module was loaded from.
    pub fn path(&self) -> &Path {
        &self.library.path
    }

    /// Returns the number of the current initialisation.
    pub fn generation(&self) -> u64 {
        self.library.generation.load(Ordering::Acquire)
    }

    /// Initialises the module unless it is.
    ///
    /// # Errors
    /// `InUse` where a call under way does not come back; else [`Failure`] of `C_Initialize`.
    pub fn initialize(&self) -> Result<(), Failure> {
        let call = "C_Initialize";
        self.refuse_after_fork(call)?;
        // Without the lock first: a call that takes long holds it, and whoever waits for it alone keeps all others out.
        if self.library.initialized.load(Ordering::Acquire) {
            return Ok(());
        }
        let _alone = self.library.lifecycle.try_write_for(QUIESCE).ok_or(Failure::InUse { call })?;
        if self.library.initialized.load(Ordering::Acquire) {
            return Ok(());
        }
        match raw::initialize(&self.table).ok_or(Failure::Missing { call })? {
            rv @ (CKR_OK | CKR_CRYPTOKI_ALREADY_INITIALIZED) => {
                self.library.ours.store(rv == CKR_OK, Ordering::Release);
                self.library.generation.fetch_add(1, Ordering::AcqRel);
                self.library.initialized.store(true, Ordering::Release);
                Ok(())
            }
            rv => Err(returned(call, rv)),
        }
    }

    /// Finalises the module: every session and object of every token of it is void then.
    ///
    /// # Errors
    /// `InUse` where a call under way does not come back, or another library of the process has initialised it; else [`Failure`] of `C_Finalize`.
    pub fn finalize(&self) -> Result<(), Failure> {
        let call = "C_Finalize";
        self.refuse_after_fork(call)?;
        let _alone = self.library.lifecycle.try_write_for(QUIESCE).ok_or(Failure::InUse { call })?;
        if !self.library.initialized.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.library.ours.load(Ordering::Acquire) {
            return Err(Failure::InUse { call });
        }
        match raw::finalize(&self.table).ok_or(Failure::Missing { call })? {
            CKR_OK | CKR_CRYPTOKI_NOT_INITIALIZED => {
                self.library.initialized.store(false, Ordering::Release);
                self.library.generation.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            rv => Err(returned(call, rv)),
        }
    }

    /// Opens a session; one that writes may make token objects.
    ///
    /// # Errors
    /// [`Failure`] of `C_OpenSession`.
    pub fn open_session(&self, slot: CK_SLOT_ID, writes: bool) -> Result<Session, Failure> {
        let generation = self.generation();
        let handle = raw::open_session(self, slot, writes, generation)?;
        Ok(Session { module: self.clone(), handle, generation, one_thread: PhantomData })
    }

    /// Calls a function of the table, if this process may, and if the module is still at `generation`.
    fn enter(
        &self,
        call: &'static str,
        generation: u64,
        function: impl FnOnce(&Table) -> Option<CK_RV>,
    ) -> Result<(), Failure> {
        self.refuse_after_fork(call)?;
        let _shared = self.library.lifecycle.read();
        if generation != self.generation() || !self.library.initialized.load(Ordering::Acquire) {
            return Err(Failure::OldHandle { call });
        }
        match function(&self.table) {
            None | Some(CKR_FUNCTION_NOT_SUPPORTED) => Err(Failure::Missing { call }),
            Some(CKR_OK) => Ok(()),
            Some(CKR_CRYPTOKI_NOT_INITIALIZED) => {
                // Another library of this process has finalised it under us: what we hold is void, and it must be
                // initialised again before anything else. One of the calls that see this counts, not each.
                let counted = self.library.generation.compare_exchange(
                    generation,
                    generation + 1,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                if counted.is_ok() {
                    self.library.initialized.store(false, Ordering::Release);
                }
                Err(returned(call, CKR_CRYPTOKI_NOT_INITIALIZED))
            }
            Some(rv) => Err(returned(call, rv)),
        }
    }

    /// Calls a function that names a slot.
    fn enter_slot(
        &self,
        call: &'static str,
        generation: u64,
        function: impl FnOnce(&Table) -> Option<CK_RV>,
    ) -> Result<(), Failure> {
        let _shared = self.library.slots.try_read_for(QUIESCE).ok_or(Failure::InUse { call })?;
        self.enter(call, generation, function)
    }

    /// Keeps every other call that names a slot waiting.
    fn alone_with_slots(&self, call: &'static str) -> Result<RwLockWriteGuard<'_, ()>, Failure> {
        self.library.slots.try_write_for(QUIESCE).ok_or(Failure::InUse { call })
    }

    fn refuse_after_fork(&self, call: &'static str) -> Result<(), Failure> {
        if process::id() == self.owner_pid { Ok(()) } else { Err(Failure::Forked { call }) }
    }
}

fn returned(call: &'static str, rv: CK_RV) -> Failure {
    Failure::Returned { call, rv: Rv(rv) }
}

/// Refuses input that no module is given.
fn capped(call: &'static str, bytes: usize) -> Result<(), Failure> {
    if bytes > MAX_CALL_BYTES { Err(Failure::TooLarge { call, bytes }) } else { Ok(()) }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({}, generation {})", self.path().display(), self.generation())
    }
}

impl Session {
    /// Returns the module that the session belongs to.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Tells whether the module is still as it was when the session was opened.
    pub fn is_current(&self) -> bool {
        self.generation == self.module.generation()
    }

    fn enter(
        &self,
        call: &'static str,
        function: impl FnOnce(&Table) -> Option<CK_RV>,
    ) -> Result<(), Failure> {
        self.module.enter(call, self.generation, function)
    }

    /// Calls a function that uses `object`, which must be of this session's initialisation.
    fn enter_with(
        &self,
        call: &'static str,
        object: Object,
        function: impl FnOnce(&Table) -> Option<CK_RV>,
    ) -> Result<(), Failure> {
        if object.generation != self.generation {
            return Err(Failure::OldHandle { call });
        }
        self.enter(call, function)
    }

    fn object(&self, handle: CK_OBJECT_HANDLE) -> Object {
        Object { handle, generation: self.generation }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A failure means that it is gone already; an old handle is never closed, for it may name a session of now.
        let _ = raw::close_session(self);
    }
}

/// A file cannot be loaded as a module.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    why: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no PKCS#11 module: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for LoadError {}
