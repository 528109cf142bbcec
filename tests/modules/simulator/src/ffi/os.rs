//! What the simulator asks of the operating system beyond the standard library.

use std::cell::Cell;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::{mem, ptr};

/// Returns the file that this library was loaded from, and keeps it loaded for good: a thread of its own runs in it.
pub(crate) fn own_file() -> PathBuf {
    let mut found = mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let inside: *const libc::c_void = (own_file as fn() -> PathBuf) as *const libc::c_void;
    // SAFETY: dladdr fills the structure where it answers other than 0; zeroes are valid in it.
    let name = unsafe {
        libc::dladdr(inside, found.as_mut_ptr());
        found.assume_init().dli_fname
    };
    if name.is_null() {
        return PathBuf::from("unknown");
    }
    // SAFETY: the name of a loaded file, which the next line keeps loaded.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: loads nothing, so runs nothing: it only marks what is loaded.
    unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    OsStr::from_bytes(name.to_bytes()).into()
}

/// Sets a variable of the process, for a module that reads it when it is loaded or initialised.
pub(crate) fn set_env(name: &str, value: &str) {
    // SAFETY: by the control file's word only, before the module is loaded; who lets it do so in a process of many threads has none
    // that reads its environment around the standard library.
    unsafe { std::env::set_var(name, value) };
}

/// Lets this thread's sleeps end within a microsecond of their time, not the 50 that are usual.
pub(crate) fn sleep_precisely() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        // SAFETY: takes numbers alone and changes only how late timers of this thread may be.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000, 0, 0, 0) };
    }
}

/// Ends the process as a module that crashes does.
pub(crate) fn crash() -> ! {
    // A core of each crash would only fill the disk.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives through the call; the handler is the system's own.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, ptr::from_ref(&none));
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
    }
    std::process::abort()
}
