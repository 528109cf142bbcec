//! Faults: functions that stand in a module's table before the real ones, and answer a code where the thread that calls has planned
//! one. What is planned and counted belongs to the thread, so that tests beside each other do not meet.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use cryptoki_sys::*;
use keymill_provider_pkcs11::module::{Module, Table};

/// A code to be answered.
#[derive(Clone, Copy)]
struct Fault {
    rv: CK_RV,
    /// Calls that are let through before.
    after: usize,
    /// Calls that are answered so.
    times: usize,
}

/// Codes answered at random, the same at each run.
struct Weather {
    state: u64,
    /// One call in so many.
    one_in: u64,
    codes: &'static [CK_RV],
}

#[derive(Default)]
struct Plan {
    weather: Option<Weather>,
    faults: HashMap<&'static str, Fault>,
    calls: HashMap<&'static str, usize>,
    held: HashMap<&'static str, (Sender<()>, Receiver<()>)>,
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::default();
}

static REAL: OnceLock<Table> = OnceLock::new();

/// Answers `rv` to the next `times` calls of a function on this thread, after `after` more that pass. The real one is not called.
pub(crate) fn plan(function: &'static str, after: usize, times: usize, rv: CK_RV) {
    PLAN.with_borrow_mut(|plan| plan.faults.insert(function, Fault { rv, after, times }));
}

/// Has the next call of a function on this thread tell that it has begun, and wait until it may go on.
pub(crate) fn hold(function: &'static str, began: Sender<()>, go_on: Receiver<()>) {
    PLAN.with_borrow_mut(|plan| plan.held.insert(function, (began, go_on)));
}

/// Waits where a call is held; half a minute is longer than any test that goes well.
fn wait(function: &'static str) {
    if let Some((began, go_on)) = PLAN.with_borrow_mut(|plan| plan.held.remove(function)) {
        began.send(()).unwrap();
        go_on.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

/// Answers one of `codes` to one call in `one_in` on this thread.
pub(crate) fn weather(seed: u64, one_in: u64, codes: &'static [CK_RV]) {
    PLAN.with_borrow_mut(|plan| plan.weather = Some(Weather { state: seed | 1, one_in, codes }));
}

/// Takes every fault back.
pub(crate) fn clear() {
    PLAN.with_borrow_mut(|plan| {
        plan.faults.clear();
        plan.weather = None;
    });
}

/// Returns how often this thread has called a function.
pub(crate) fn calls(function: &'static str) -> usize {
    PLAN.with_borrow(|plan| plan.calls.get(function).copied().unwrap_or(0))
}

/// Finalises the module as another library of the process would, past whoever counts on it.
#[allow(unsafe_code)]
pub(crate) fn finalize_behind_our_back() {
    let finalize = REAL.get().and_then(|table| table.base.C_Finalize).unwrap();
    // SAFETY: no call is under way in the test that does this.
    assert_eq!(unsafe { finalize(std::ptr::null_mut()) }, CKR_OK);
}

/// Counts a call, and returns the code that is planned for it.
fn due(function: &'static str) -> Option<CK_RV> {
    PLAN.with_borrow_mut(|plan| {
        *plan.calls.entry(function).or_default() += 1;
        if let Some(Weather { state, one_in, codes }) = &mut plan.weather {
            // xorshift64 (Marsaglia).
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            let drawn = *state >> 16;
            if drawn.is_multiple_of(*one_in) {
                return Some(codes[(drawn / *one_in) as usize % codes.len()]);
            }
        }
        let fault = plan.faults.get_mut(function)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times = fault.times.checked_sub(1)?;
        Some(fault.rv)
    })
}

/// Answers as the real function, and says that one more wrong PIN locks the token.
#[allow(unsafe_code)]
pub(crate) unsafe extern "C" fn final_try(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let mut real = None;
    let _ = super::module().with_table(|table| real = table.base.C_GetTokenInfo);
    // SAFETY: what came in goes on; the caller's structure was filled by then.
    unsafe {
        let rv = real.unwrap()(slot, info);
        (*info).flags |= CKF_USER_PIN_FINAL_TRY;
        rv
    }
}

macro_rules! interposed {
    ($($Function:ident($($argument:ident: $type:ty),*);)+) => {
        $(
            #[allow(non_snake_case, unsafe_code)]
            unsafe extern "C" fn $Function($($argument: $type),*) -> CK_RV {
                wait(stringify!($Function));
                if let Some(rv) = due(stringify!($Function)) {
                    return rv;
                }
                let real = REAL.get().and_then(|table| table.base.$Function).unwrap();
                // SAFETY: what came in goes on.
                unsafe { real($($argument),*) }
            }
        )+

        /// Returns a view of a module whose calls can fail as planned.
        pub(crate) fn interpose(module: &Module) -> Module {
            module.with_table(|table| {
                REAL.get_or_init(|| *table);
                $(table.base.$Function = Some($Function);)+
            })
        }
    };
}

interposed! {
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut std::ffi::c_void, notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, len: CK_ULONG);
    C_GenerateKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, public: *mut CK_ATTRIBUTE, publics: CK_ULONG, private: *mut CK_ATTRIBUTE, privates: CK_ULONG, public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE);
    C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: *mut CK_OBJECT_HANDLE);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_SetPIN(session: CK_SESSION_HANDLE, old: *mut CK_UTF8CHAR, old_len: CK_ULONG, new: *mut CK_UTF8CHAR, new_len: CK_ULONG);
    C_WrapKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, out: *mut CK_BYTE, out_len: *mut CK_ULONG);
    C_UnwrapKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, unwrapping: CK_OBJECT_HANDLE, wrapped: *mut CK_BYTE, len: CK_ULONG, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_Encrypt(session: CK_SESSION_HANDLE, bytes: *mut CK_BYTE, len: CK_ULONG, out: *mut CK_BYTE, out_len: *mut CK_ULONG);
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_Decrypt(session: CK_SESSION_HANDLE, bytes: *mut CK_BYTE, len: CK_ULONG, out: *mut CK_BYTE, out_len: *mut CK_ULONG);
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_Sign(session: CK_SESSION_HANDLE, bytes: *mut CK_BYTE, len: CK_ULONG, out: *mut CK_BYTE, out_len: *mut CK_ULONG);
    C_VerifyInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_Verify(session: CK_SESSION_HANDLE, bytes: *mut CK_BYTE, len: CK_ULONG, signature: *mut CK_BYTE, signature_len: CK_ULONG);
    C_GenerateRandom(session: CK_SESSION_HANDLE, out: *mut CK_BYTE, len: CK_ULONG);
}
