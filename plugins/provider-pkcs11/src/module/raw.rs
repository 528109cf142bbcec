//! The calls themselves: the one place of the workspace where `unsafe` stands. Each pointer handed out is made from a reference
//! that lives through the call, each length is its buffer's, and each length that comes back is checked against it.
//!
//! What remains is trust in the module: it runs in this process, and is as safe as whoever wrote it made it.

use std::ffi::c_void;
use std::path::Path;
use std::ptr;

use cryptoki_sys::*;

use super::template::{Attribute, Hash, Mechanism, Value};
use super::{Failure, Module, Table};

mod admin;
mod data;
mod keys;

pub use admin::{LibraryInfo, TokenInfo};
pub(super) use admin::{close_session, open_session};

/// Calls a function of a table; `None` where the table has none.
macro_rules! call {
    ($list:expr, $function:ident $arguments:tt) => {
        $list.$function.map(|function| {
            // SAFETY: the arguments are handles, lengths of buffers, and pointers to what outlives the call; PKCS#11 keeps none of
            // them beyond it. The function is the module's, of the type that the standard gives it.
            unsafe { function $arguments }
        })
    };
}
use call;

/// Loads a library for ever, and copies its tables.
pub(super) fn load(path: &Path) -> Result<Table, String> {
    // SAFETY: loading runs the library's initialisers; which library that is, the operator decides.
    let library = unsafe { Pkcs11::new(path) }.map_err(|error| error.to_string())?;
    // Never unloaded: modules leave threads and exit handlers behind.
    let library: &'static Pkcs11 = Box::leak(Box::new(library));
    let mut list = ptr::null_mut();
    let function = library.C_GetFunctionList.as_ref().map_err(|error| error.to_string())?;
    // SAFETY: the function writes one pointer.
    let rv = unsafe { function(&mut list) };
    if rv != CKR_OK {
        return Err(super::returned("C_GetFunctionList", rv).to_string());
    }
    // SAFETY: the module says that a table stands there; its own library, which stays loaded, holds it.
    let base = *unsafe { list.as_ref() }.ok_or("it has no function list")?;
    Ok(Table { base, v3: load_v3(library) })
}

/// Copies the table of PKCS#11 3.0, where there is one.
fn load_v3(library: &'static Pkcs11) -> Option<CK_FUNCTION_LIST_3_0> {
    let mut version = CK_VERSION { major: 3, minor: 0 };
    let mut interface = ptr::null_mut();
    let function = library.C_GetInterface.as_ref().ok()?;
    let mut name = *b"PKCS 11\0";
    // SAFETY: a name that ends in zero and a version to read, and a pointer to write.
    let rv = unsafe { function(name.as_mut_ptr(), &mut version, &mut interface, 0) };
    if rv != CKR_OK {
        return None;
    }
    // SAFETY: the module says that an interface of the standard's name and of version 3.0 stands there, whose table is this one.
    let list = unsafe { interface.as_ref()?.pFunctionList.cast::<CK_FUNCTION_LIST_3_0>().as_ref() }?;
    (list.version.major == 3).then_some(*list)
}

pub(super) fn initialize(table: &Table) -> Option<CK_RV> {
    let mut arguments = CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: CKF_OS_LOCKING_OK,
        pReserved: ptr::null_mut(),
    };
    call!(table.base, C_Initialize(ptr::from_mut(&mut arguments).cast()))
}

pub(super) fn finalize(table: &Table) -> Option<CK_RV> {
    call!(table.base, C_Finalize(ptr::null_mut()))
}

/// Runs `function` with a mechanism as C has it.
fn with_mechanism<T>(mechanism: Mechanism<'_>, function: impl FnOnce(*mut CK_MECHANISM) -> T) -> T {
    let plain = |kind, parameter: *mut c_void, len: usize| CK_MECHANISM {
        mechanism: kind,
        pParameter: parameter,
        ulParameterLen: len as CK_ULONG,
    };
    match mechanism {
        Mechanism::Plain(kind) => function(&mut plain(kind, ptr::null_mut(), 0)),
        Mechanism::Gcm { nonce, aad } => {
            let mut parameter = CK_GCM_PARAMS {
                pIv: nonce.as_ptr().cast_mut(),
                ulIvLen: nonce.len() as CK_ULONG,
                ulIvBits: 8 * nonce.len() as CK_ULONG,
                pAAD: input(aad),
                ulAADLen: aad.len() as CK_ULONG,
                ulTagBits: TAG_BITS,
            };
            let parameter = ptr::from_mut(&mut parameter);
            function(&mut plain(CKM_AES_GCM, parameter.cast(), size_of::<CK_GCM_PARAMS>()))
        }
        Mechanism::RsaPss => {
            let mut parameter =
                CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA256, mgf: CKG_MGF1_SHA256, sLen: PSS_SALT_BYTES };
            let parameter = ptr::from_mut(&mut parameter);
            function(&mut plain(CKM_RSA_PKCS_PSS, parameter.cast(), size_of::<CK_RSA_PKCS_PSS_PARAMS>()))
        }
        Mechanism::RsaOaep(hash) => {
            let (hash, mgf) = match hash {
                Hash::Sha1 => (CKM_SHA_1, CKG_MGF1_SHA1),
                Hash::Sha256 => (CKM_SHA256, CKG_MGF1_SHA256),
            };
            let mut parameter = CK_RSA_PKCS_OAEP_PARAMS {
                hashAlg: hash,
                mgf,
                source: CKZ_DATA_SPECIFIED,
                pSourceData: ptr::null_mut(),
                ulSourceDataLen: 0,
            };
            let parameter = ptr::from_mut(&mut parameter);
            function(&mut plain(CKM_RSA_PKCS_OAEP, parameter.cast(), size_of::<CK_RSA_PKCS_OAEP_PARAMS>()))
        }
        Mechanism::GcmMessages => {
            let (mut nonce, mut tag) = ([0; 12], [0; 16]);
            let mut parameter = data::message_parameter(&mut nonce, &mut tag);
            let parameter = ptr::from_mut(&mut parameter);
            function(&mut plain(CKM_AES_GCM, parameter.cast(), size_of::<CK_GCM_MESSAGE_PARAMS>()))
        }
    }
}

/// 128 bits, never less and never of a request: one real module takes a tag of no bits.
const TAG_BITS: CK_ULONG = 128;

/// As long as the digest, as the cloud has it.
const PSS_SALT_BYTES: CK_ULONG = 32;

static TRUE: CK_BBOOL = CK_TRUE;
static FALSE: CK_BBOOL = CK_FALSE;

/// Runs `function` with a template as C has it.
fn with_template<T>(
    attributes: &[Attribute<'_>],
    function: impl FnOnce(*mut CK_ATTRIBUTE, CK_ULONG) -> T,
) -> T {
    // The templates within: each behind its own allocation, which does not move when the vector grows.
    let mut inner: Vec<Vec<CK_ATTRIBUTE>> = Vec::new();
    let mut outer: Vec<CK_ATTRIBUTE> = attributes
        .iter()
        .map(|attribute| match attribute.value {
            Value::Template(template) => {
                inner.push(template.iter().map(flat).collect());
                let within = inner.last().expect("it was pushed just now");
                CK_ATTRIBUTE {
                    type_: attribute.kind,
                    pValue: within.as_ptr().cast_mut().cast(),
                    ulValueLen: size_of_val(within.as_slice()) as CK_ULONG,
                }
            }
            _ => flat(attribute),
        })
        .collect();
    function(outer.as_mut_ptr(), outer.len() as CK_ULONG)
}

/// One attribute as C has it; a template two levels down is none that PKCS#11 knows, and counts as empty.
fn flat(attribute: &Attribute<'_>) -> CK_ATTRIBUTE {
    let (value, len) = match &attribute.value {
        Value::Bool(value) => (ptr::from_ref(if *value { &TRUE } else { &FALSE }).cast::<c_void>(), 1),
        Value::Number(number) => (ptr::from_ref(number).cast(), size_of::<CK_ULONG>()),
        Value::Bytes(bytes) => (bytes.as_ptr().cast(), bytes.len()),
        Value::Template(_) => (ptr::null(), 0),
    };
    CK_ATTRIBUTE { type_: attribute.kind, pValue: value.cast_mut(), ulValueLen: len as CK_ULONG }
}

/// A pointer to input: PKCS#11 declares it writable and does not write. Modules tell "no data" by a null pointer, so that an empty
/// slice, whose pointer dangles, must be given as one.
fn input(bytes: &[u8]) -> *mut CK_BYTE {
    if bytes.is_empty() { ptr::null_mut() } else { bytes.as_ptr().cast_mut() }
}

/// A pointer to input that must not be null, as in `C_Encrypt` of nothing, where null asks for something else.
fn present(bytes: &[u8]) -> *mut CK_BYTE {
    static NOTHING: u8 = 0;
    if bytes.is_empty() { ptr::from_ref(&NOTHING).cast_mut() } else { bytes.as_ptr().cast_mut() }
}

/// Checks a length that came back.
fn written(call: &'static str, len: CK_ULONG, room: usize) -> Result<usize, Failure> {
    match usize::try_from(len) {
        Ok(len) if len <= room => Ok(len),
        _ => Err(Failure::Overlong { call, bytes: usize::try_from(len).unwrap_or(usize::MAX) }),
    }
}

impl Module {
    /// The generation that calls without a session are made at: whichever is now.
    fn now(&self, call: &'static str, function: impl FnOnce(&Table) -> Option<CK_RV>) -> Result<(), Failure> {
        self.enter(call, self.generation(), function)
    }

    /// The same, for a call that names a slot.
    fn now_in_slot(
        &self,
        call: &'static str,
        function: impl FnOnce(&Table) -> Option<CK_RV>,
    ) -> Result<(), Failure> {
        self.enter_slot(call, self.generation(), function)
    }
}
