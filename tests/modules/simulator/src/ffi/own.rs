//! The functions in which the simulator has a part: what the library exports, slots, sessions, login, and objects made.
#![allow(non_snake_case, reason = "the names are PKCS#11's")]

use std::ffi::{CStr, c_void};
use std::slice;

use cryptoki_sys::*;

use super::table::{FUNCTIONS_2_40, FUNCTIONS_3_0, Function};
use crate::device::Made;
use crate::simulator::{counted, making, on_session, on_slot, simulator};

const STANDARD: &CStr = c"PKCS 11";

/// Interfaces hold pointers, here to what never changes.
struct Interfaces([CK_INTERFACE; 2]);

// SAFETY: names and tables are static and read-only.
unsafe impl Sync for Interfaces {}

static INTERFACES: Interfaces = Interfaces([
    CK_INTERFACE {
        pInterfaceName: STANDARD.as_ptr().cast_mut().cast(),
        pFunctionList: (&raw const FUNCTIONS_3_0).cast_mut().cast(),
        flags: 0,
    },
    CK_INTERFACE {
        pInterfaceName: STANDARD.as_ptr().cast_mut().cast(),
        pFunctionList: (&raw const FUNCTIONS_2_40).cast_mut().cast(),
        flags: 0,
    },
]);

/// Returns the interfaces that the module behind has, too: the best one first.
fn interfaces() -> &'static [CK_INTERFACE] {
    let sim = simulator();
    sim.refreshed();
    let has_3_0 = sim.module().is_ok_and(super::Module::has_3_0);
    &INTERFACES.0[usize::from(!has_3_0)..]
}

/// Calls a function of the module, or answers that it has none.
macro_rules! module_call {
    ($module:expr, $name:ident($($arg:expr),*)) => {
        match $module.functions.$name {
            // SAFETY: the arguments are the application's own, or live through the call.
            Some(call) => unsafe { call($($arg),*) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

/// Hands out the functions of PKCS#11 2.40.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: not null, so the application's place for a pointer.
    unsafe { *list = (&raw const FUNCTIONS_2_40).cast_mut() };
    CKR_OK
}

/// Lists the interfaces: 2.40, and 3.0 where the module has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterfaceList(list: *mut CK_INTERFACE, count: *mut CK_ULONG) -> CK_RV {
    if count.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let offered = interfaces();
    // SAFETY: `count` is the application's, `list` null or of that many places.
    unsafe {
        let room = *count as usize;
        *count = offered.len() as CK_ULONG;
        if list.is_null() {
            return CKR_OK;
        }
        if room < offered.len() {
            return CKR_BUFFER_TOO_SMALL;
        }
        slice::from_raw_parts_mut(list, offered.len()).copy_from_slice(offered);
    }
    CKR_OK
}

/// Hands out one interface by name and version; without a version the best.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    interface: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    if interface.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: null, or a text that ends with a null.
    let standard = name.is_null() || unsafe { CStr::from_ptr(name.cast()) } == STANDARD;
    let wanted = |offered: &&CK_INTERFACE| {
        // SAFETY: each table begins with its version; the application's is null or one.
        unsafe {
            let offered = *offered.pFunctionList.cast::<CK_VERSION>();
            version.is_null() || ((*version).major, (*version).minor) == (offered.major, offered.minor)
        }
    };
    match interfaces().iter().find(wanted) {
        Some(found) if standard && flags == 0 => {
            // SAFETY: not null, so the application's place for a pointer.
            unsafe { *interface = (&raw const *found).cast_mut() };
            CKR_OK
        }
        _ => CKR_FUNCTION_FAILED,
    }
}

pub(super) unsafe extern "C" fn C_Initialize(args: *mut c_void) -> CK_RV {
    counted(Function::C_Initialize, |sim, now| {
        sim.paced(Function::C_Initialize, now, || {
            sim.initialize(now, |module| {
                // SAFETY: the application's own argument.
                unsafe { module.initialize(args, now.settings.init_reserved.as_deref()) }
            })
        })
    })
}

pub(super) unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    counted(Function::C_Finalize, |sim, now| {
        if !reserved.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        sim.paced(Function::C_Finalize, now, || sim.finalize())
    })
}

pub(super) unsafe extern "C" fn C_GetInfo(info: *mut CK_INFO) -> CK_RV {
    counted(Function::C_GetInfo, |sim, now| {
        sim.paced(Function::C_GetInfo, now, || {
            let (module, _running) = sim.running()?;
            Ok(module_call!(module, C_GetInfo(info)))
        })
    })
}

pub(super) unsafe extern "C" fn C_GetSlotList(
    with_token: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    counted(Function::C_GetSlotList, |sim, now| {
        sim.paced(Function::C_GetSlotList, now, || {
            let (module, _running) = sim.running()?;
            if count.is_null() {
                return Err(CKR_ARGUMENTS_BAD);
            }
            let (removed, shift) = {
                let device = sim.device();
                (device.removed.is_some(), device.slot_shift)
            };
            let slots = if removed { Vec::new() } else { sim.visible(now, module, with_token)? };
            let slots: Vec<_> = slots.into_iter().map(|slot| slot.wrapping_add(shift)).collect();
            // SAFETY: `count` is the application's, `list` null or of that many places.
            unsafe {
                let room = *count as usize;
                *count = slots.len() as CK_ULONG;
                if list.is_null() {
                    return Ok(CKR_OK);
                }
                if room < slots.len() {
                    return Err(CKR_BUFFER_TOO_SMALL);
                }
                slice::from_raw_parts_mut(list, slots.len()).copy_from_slice(&slots);
            }
            Ok(CKR_OK)
        })
    })
}

pub(super) unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    on_slot(Function::C_GetSlotInfo, slot, |module, slot| module_call!(module, C_GetSlotInfo(slot, info)))
}

pub(super) unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    counted(Function::C_GetTokenInfo, |sim, now| {
        sim.paced(Function::C_GetTokenInfo, now, || {
            let (module, _running) = sim.running()?;
            let code = module_call!(module, C_GetTokenInfo(sim.module_slot(slot, now, module)?, info));
            if code == CKR_OK
                // SAFETY: where the module says so, it has filled the structure.
                && let Some(info) = unsafe { info.as_mut() }
            {
                info.flags |= sim.pin_flags(now);
            }
            Ok(code)
        })
    })
}

pub(super) unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    on_slot(Function::C_GetMechanismList, slot, |module, slot| {
        module_call!(module, C_GetMechanismList(slot, list, count))
    })
}

pub(super) unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    on_slot(Function::C_GetMechanismInfo, slot, |module, slot| {
        module_call!(module, C_GetMechanismInfo(slot, mechanism, info))
    })
}

pub(super) unsafe extern "C" fn C_InitToken(
    slot: CK_SLOT_ID,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
    label: *mut CK_UTF8CHAR,
) -> CK_RV {
    on_slot(Function::C_InitToken, slot, |module, slot| {
        let code = module_call!(module, C_InitToken(slot, pin, pin_len, label));
        if code == CKR_OK {
            simulator().unlock_pin();
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_WaitForSlotEvent(
    flags: CK_FLAGS,
    slot: *mut CK_SLOT_ID,
    reserved: *mut c_void,
) -> CK_RV {
    counted(Function::C_WaitForSlotEvent, |sim, now| {
        sim.paced(Function::C_WaitForSlotEvent, now, || {
            let (module, _running) = sim.running()?;
            // One that blocks would keep C_Finalize waiting; none of the modules behind has it.
            if flags & CKF_DONT_BLOCK == 0 {
                return Err(CKR_FUNCTION_NOT_SUPPORTED);
            }
            let code = module_call!(module, C_WaitForSlotEvent(flags, slot, reserved));
            if code == CKR_OK
                // SAFETY: where the module says so, it has written the slot.
                && let Some(slot) = unsafe { slot.as_mut() }
            {
                *slot = slot.wrapping_add(sim.device().slot_shift);
            }
            Ok(code)
        })
    })
}

pub(super) unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: *mut c_void,
    _notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    counted(Function::C_OpenSession, |sim, now| {
        if session.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        sim.paced(Function::C_OpenSession, now, || {
            let opened = sim.open_session(slot, now, |module, slot| {
                let mut own = 0;
                // Without the application's callback: it would be told the module's handle.
                match module_call!(
                    module,
                    C_OpenSession(slot, flags, std::ptr::null_mut(), None, &raw mut own)
                ) {
                    CKR_OK => Ok(own),
                    code => Err(code),
                }
            })?;
            // SAFETY: not null, so the application's place for a handle.
            unsafe { *session = opened };
            Ok(CKR_OK)
        })
    })
}

pub(super) unsafe extern "C" fn C_CloseSession(handle: CK_SESSION_HANDLE) -> CK_RV {
    counted(Function::C_CloseSession, |sim, now| {
        let session = sim.session(handle)?;
        sim.paced(Function::C_CloseSession, now, || sim.close_session(handle, &session))
    })
}

pub(super) unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    counted(Function::C_CloseAllSessions, |sim, now| {
        sim.paced(Function::C_CloseAllSessions, now, || sim.close_all_sessions(slot, now))
    })
}

pub(super) unsafe extern "C" fn C_GetSessionInfo(
    session: CK_SESSION_HANDLE,
    info: *mut CK_SESSION_INFO,
) -> CK_RV {
    on_session(Function::C_GetSessionInfo, session, |module, session| {
        let code = module_call!(module, C_GetSessionInfo(session, info));
        if code == CKR_OK
            // SAFETY: where the module says so, it has filled the structure.
            && let Some(info) = unsafe { info.as_mut() }
        {
            info.slotID = info.slotID.wrapping_add(simulator().device().slot_shift);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_Login(
    handle: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    login(Function::C_Login, handle, user, |module, session| {
        module_call!(module, C_Login(session, user, pin, pin_len))
    })
}

pub(super) unsafe extern "C" fn C_LoginUser(
    handle: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
    name: *mut CK_UTF8CHAR,
    name_len: CK_ULONG,
) -> CK_RV {
    login(Function::C_LoginUser, handle, user, |module, session| {
        module_call!(module, C_LoginUser(session, user, pin, pin_len, name, name_len))
    })
}

fn login(
    function: Function,
    handle: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    call: impl FnOnce(&super::Module, CK_SESSION_HANDLE) -> CK_RV,
) -> CK_RV {
    counted(function, |sim, now| {
        let session = sim.session(handle)?;
        sim.paced(function, now, || sim.login(user, now, || sim.within(function, &session, call)))
    })
}

pub(super) unsafe extern "C" fn C_Logout(session: CK_SESSION_HANDLE) -> CK_RV {
    on_session(Function::C_Logout, session, |module, session| {
        let code = module.logout(session);
        if code == CKR_OK {
            simulator().device().logged_out();
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_InitPIN(
    session: CK_SESSION_HANDLE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    on_session(Function::C_InitPIN, session, |module, session| {
        let code = module_call!(module, C_InitPIN(session, pin, pin_len));
        if code == CKR_OK {
            simulator().unlock_pin();
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_CreateObject(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    object: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    making(Function::C_CreateObject, session, 1, |module, session| {
        let code = module_call!(module, C_CreateObject(session, template, count, object));
        // SAFETY: the arguments that the module has just taken.
        (code, [unsafe { made(code, object, template, count, true) }, None])
    })
}

pub(super) unsafe extern "C" fn C_CopyObject(
    session: CK_SESSION_HANDLE,
    from: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    object: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    making(Function::C_CopyObject, session, 1, |module, session| {
        let code = module_call!(module, C_CopyObject(session, from, template, count, object));
        // SAFETY: the arguments that the module has just taken.
        (code, [unsafe { made(code, object, template, count, true) }, None])
    })
}

pub(super) unsafe extern "C" fn C_DestroyObject(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
) -> CK_RV {
    on_session(Function::C_DestroyObject, session, |module, session| {
        let code = module_call!(module, C_DestroyObject(session, object));
        if code == CKR_OK {
            simulator().device().objects.remove(&object);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_GenerateKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    making(Function::C_GenerateKey, session, 1, |module, session| {
        let code = module_call!(module, C_GenerateKey(session, mechanism, template, count, key));
        // SAFETY: the arguments that the module has just taken.
        (code, [unsafe { made(code, key, template, count, true) }, None])
    })
}

pub(super) unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    public: *mut CK_ATTRIBUTE,
    public_count: CK_ULONG,
    private: *mut CK_ATTRIBUTE,
    private_count: CK_ULONG,
    public_key: *mut CK_OBJECT_HANDLE,
    private_key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    making(Function::C_GenerateKeyPair, session, 2, |module, session| {
        let code = module_call!(
            module,
            C_GenerateKeyPair(
                session,
                mechanism,
                public,
                public_count,
                private,
                private_count,
                public_key,
                private_key
            )
        );
        // SAFETY: the arguments that the module has just taken.
        let pair = unsafe {
            [
                made(code, public_key, public, public_count, false),
                made(code, private_key, private, private_count, true),
            ]
        };
        (code, pair)
    })
}

pub(super) unsafe extern "C" fn C_UnwrapKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    unwrapping: CK_OBJECT_HANDLE,
    wrapped: *mut CK_BYTE,
    wrapped_len: CK_ULONG,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    making(Function::C_UnwrapKey, session, 1, |module, session| {
        let code = module_call!(
            module,
            C_UnwrapKey(session, mechanism, unwrapping, wrapped, wrapped_len, template, count, key)
        );
        // SAFETY: the arguments that the module has just taken.
        (code, [unsafe { made(code, key, template, count, true) }, None])
    })
}

pub(super) unsafe extern "C" fn C_DeriveKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    base: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    making(Function::C_DeriveKey, session, 1, |module, session| {
        let code = module_call!(module, C_DeriveKey(session, mechanism, base, template, count, key));
        // SAFETY: the arguments that the module has just taken.
        (code, [unsafe { made(code, key, template, count, true) }, None])
    })
}

/// Says what a call has made: on the token, and private, as the template says, or else as is usual for its kind.
///
/// # Safety
/// After `CKR_OK`, `object` and the `count` attributes of `template` must be as a module accepts them.
unsafe fn made(
    code: CK_RV,
    object: *const CK_OBJECT_HANDLE,
    template: *const CK_ATTRIBUTE,
    count: CK_ULONG,
    usually_private: bool,
) -> Option<Made> {
    if code != CKR_OK || object.is_null() {
        return None;
    }
    let attributes: &[CK_ATTRIBUTE] = if template.is_null() {
        &[]
    } else {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(template, count as usize) }
    };
    let flag = |kind| {
        let attribute = attributes.iter().find(|attribute| attribute.type_ == kind)?;
        // SAFETY: such an attribute is one byte, or the module would have refused it.
        (!attribute.pValue.is_null()).then(|| unsafe { *attribute.pValue.cast::<CK_BBOOL>() } != CK_FALSE)
    };
    Some(Made {
        // SAFETY: the caller's promise.
        object: unsafe { *object },
        on_token: flag(CKA_TOKEN).unwrap_or(false),
        private: flag(CKA_PRIVATE).unwrap_or(usually_private),
    })
}
