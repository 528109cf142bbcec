//! The real module: loaded once, never unloaded, with its functions by value.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use cryptoki_sys::*;

use super::table::widened;

/// What the simulator forwards to.
#[derive(Debug)]
pub(crate) struct Module {
    pub(super) functions: CK_FUNCTION_LIST_3_0,
}

impl Module {
    /// Loads a module; `own_copy` makes one that shares nothing with other users of the same file in this process.
    ///
    /// # Errors
    /// Says which step failed.
    pub(crate) fn load(path: &Path, own_copy: bool) -> Result<Self, String> {
        let library = if own_copy {
            // The loader knows files by device and inode: a copy is another library.
            let name =
                format!("keymill-sim-{}-{:p}.so", std::process::id(), &raw const super::table::FUNCTIONS_3_0);
            let copy = std::env::temp_dir().join(name);
            std::fs::copy(path, &copy).map_err(|e| format!("copying {}: {e}", path.display()))?;
            let library = Library::open(&copy);
            // Loaded, it needs no name; and where it stays, nothing breaks.
            let _ = std::fs::remove_file(&copy);
            library?
        } else {
            Library::open(path)?
        };
        let functions = library.functions_3_0().or_else(|| library.functions_2_40());
        let functions = functions.ok_or_else(|| format!("{} is no PKCS#11 module", path.display()))?;
        Ok(Self { functions })
    }

    /// Returns whether the module has the interface of PKCS#11 3.0.
    pub(crate) fn has_3_0(&self) -> bool {
        self.functions.version.major >= 3
    }

    /// Closes one of its sessions.
    pub(crate) fn close_session(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        // SAFETY: a handle is a number; a wrong one is answered with an error.
        self.functions.C_CloseSession.map_or(CKR_OK, |call| unsafe { call(session) })
    }

    /// Logs the user out, by way of any session.
    pub(crate) fn logout(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        // SAFETY: as above.
        self.functions.C_Logout.map_or(CKR_OK, |call| unsafe { call(session) })
    }

    /// Ends the module's use.
    pub(crate) fn finalize(&self) -> CK_RV {
        // SAFETY: its only argument must be null.
        self.functions.C_Finalize.map_or(CKR_OK, |call| unsafe { call(ptr::null_mut()) })
    }

    /// Returns the label of a slot's token, and whether that is initialised.
    pub(crate) fn token(&self, slot: CK_SLOT_ID) -> Result<(String, bool), CK_RV> {
        let mut info = CK_TOKEN_INFO::default();
        let call = self.functions.C_GetTokenInfo.ok_or(CKR_FUNCTION_NOT_SUPPORTED)?;
        // SAFETY: the structure lives through the call.
        match unsafe { call(slot, &raw mut info) } {
            CKR_OK => {
                let label = String::from_utf8_lossy(&info.label).trim_end().to_owned();
                Ok((label, info.flags & CKF_TOKEN_INITIALIZED != 0))
            }
            code => Err(code),
        }
    }

    /// Returns the slots, those without a token only on request.
    pub(crate) fn slots(&self, with_token: CK_BBOOL) -> Result<Vec<CK_SLOT_ID>, CK_RV> {
        let call = self.functions.C_GetSlotList.ok_or(CKR_FUNCTION_NOT_SUPPORTED)?;
        let mut count: CK_ULONG = 0;
        // SAFETY: without a list, only the count is written.
        let code = unsafe { call(with_token, ptr::null_mut(), &raw mut count) };
        if code != CKR_OK {
            return Err(code);
        }
        let mut slots = vec![0; count as usize];
        // SAFETY: the list has room for `count` slots, and is as long as the module then says.
        match unsafe { call(with_token, slots.as_mut_ptr(), &raw mut count) } {
            CKR_OK => {
                slots.truncate(count as usize);
                Ok(slots)
            }
            code => Err(code),
        }
    }

    /// Begins the module's use; a text goes where some modules expect their configuration.
    ///
    /// # Safety
    /// `args` is null or points to `CK_C_INITIALIZE_ARGS`, as the standard asks of an application.
    pub(super) unsafe fn initialize(&self, args: *mut c_void, reserved: Option<&str>) -> CK_RV {
        let Some(call) = self.functions.C_Initialize else { return CKR_FUNCTION_NOT_SUPPORTED };
        let Some(text) = reserved.and_then(|text| CString::new(text).ok()) else {
            // SAFETY: the application's own argument.
            return unsafe { call(args) };
        };
        let mut own = if args.is_null() {
            CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..CK_C_INITIALIZE_ARGS::default() }
        } else {
            // SAFETY: not null, so it is that structure.
            unsafe { *args.cast::<CK_C_INITIALIZE_ARGS>() }
        };
        own.pReserved = text.as_ptr().cast_mut().cast();
        // SAFETY: structure and text live through the call; no module keeps them.
        unsafe { call((&raw mut own).cast()) }
    }
}

/// A library that stays loaded.
struct Library(*mut c_void);

impl Library {
    fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: the name ends with a null; the library's constructors are those of the module under test.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            // SAFETY: after a failure it is a text until the next call of this thread, or null.
            let reason = unsafe { libc::dlerror() };
            let reason = if reason.is_null() {
                "unknown error".into()
            } else {
                // SAFETY: see above.
                unsafe { CStr::from_ptr(reason) }.to_string_lossy()
            };
            return Err(format!("loading {}: {reason}", path.display()));
        }
        Ok(Self(library))
    }

    fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the library is open, the name ends with a null.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    }

    fn functions_3_0(&self) -> Option<CK_FUNCTION_LIST_3_0> {
        type GetInterface = unsafe extern "C" fn(
            *mut CK_UTF8CHAR,
            *mut CK_VERSION,
            *mut *mut CK_INTERFACE,
            CK_FLAGS,
        ) -> CK_RV;
        let symbol = self.symbol(c"C_GetInterface")?;
        // SAFETY: a module that exports this name means this function.
        let get = unsafe { std::mem::transmute::<*mut c_void, GetInterface>(symbol) };
        let mut version = CK_VERSION { major: 3, minor: 0 };
        let mut interface = ptr::null_mut();
        let name = c"PKCS 11".as_ptr().cast_mut().cast();
        // SAFETY: all arguments live through the call.
        let code = unsafe { get(name, &raw mut version, &raw mut interface, 0) };
        if code != CKR_OK || interface.is_null() {
            return None;
        }
        // SAFETY: the interface is of the version asked for; tables are static in every module.
        Some(unsafe { *(*interface).pFunctionList.cast::<CK_FUNCTION_LIST_3_0>() })
    }

    fn functions_2_40(&self) -> Option<CK_FUNCTION_LIST_3_0> {
        type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
        let symbol = self.symbol(c"C_GetFunctionList")?;
        // SAFETY: a module that exports this name means this function.
        let get = unsafe { std::mem::transmute::<*mut c_void, GetFunctionList>(symbol) };
        let mut list = ptr::null_mut();
        // SAFETY: the argument lives through the call.
        if unsafe { get(&raw mut list) } != CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: a table of 2.40, static in every module.
        Some(widened(unsafe { &*list }))
    }
}
