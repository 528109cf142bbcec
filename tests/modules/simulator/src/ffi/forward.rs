//! The functions on a session that need nothing but another session handle on their way to the module, by their arguments.
#![allow(non_snake_case, reason = "the names are PKCS#11's")]

use std::ffi::c_void;

use cryptoki_sys::*;

use super::table::Function;
use crate::simulator::on_session;

macro_rules! forward {
    ($args:tt: $($name:ident)*) => {
        $(forward_one!($name $args);)*
    };
}

macro_rules! forward_one {
    ($name:ident ($($arg:ident: $type:ty),*)) => {
        pub(super) unsafe extern "C" fn $name(session: CK_SESSION_HANDLE, $($arg: $type),*) -> CK_RV {
            on_session(Function::$name, session, |module, session| match module.functions.$name {
                // SAFETY: the arguments are the caller's own, and the session is one that the module opened.
                Some(call) => unsafe { call(session, $($arg),*) },
                None => CKR_FUNCTION_NOT_SUPPORTED,
            })
        }
    };
}

forward! { ():
    C_FindObjectsFinal C_GetFunctionStatus C_CancelFunction
    C_MessageEncryptFinal C_MessageDecryptFinal C_MessageSignFinal C_MessageVerifyFinal
}
forward! { (flags: CK_FLAGS): C_SessionCancel }
forward! { (object: CK_OBJECT_HANDLE): C_DigestKey }
forward! { (object: CK_OBJECT_HANDLE, size: *mut CK_ULONG): C_GetObjectSize }
forward! { (object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG):
    C_GetAttributeValue C_SetAttributeValue
}
forward! { (template: *mut CK_ATTRIBUTE, count: CK_ULONG): C_FindObjectsInit }
forward! { (objects: *mut CK_OBJECT_HANDLE, room: CK_ULONG, count: *mut CK_ULONG): C_FindObjects }

// Begin an operation.
forward! { (mechanism: *mut CK_MECHANISM): C_DigestInit }
forward! { (mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE):
    C_EncryptInit C_DecryptInit C_SignInit C_VerifyInit C_SignRecoverInit C_VerifyRecoverInit
    C_MessageEncryptInit C_MessageDecryptInit C_MessageSignInit C_MessageVerifyInit
}

// Go on with it: bytes in and bytes out; bytes in; bytes out.
forward! { (data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE, out_len: *mut CK_ULONG):
    C_Encrypt C_EncryptUpdate C_Decrypt C_DecryptUpdate C_Digest C_Sign C_SignRecover C_VerifyRecover
    C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
}
forward! { (data: *mut CK_BYTE, data_len: CK_ULONG):
    C_DigestUpdate C_SignUpdate C_VerifyUpdate C_VerifyFinal C_SeedRandom C_GenerateRandom
}
forward! { (out: *mut CK_BYTE, out_len: *mut CK_ULONG):
    C_EncryptFinal C_DecryptFinal C_DigestFinal C_SignFinal C_GetOperationState
}
forward! { (data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE, signature_len: CK_ULONG): C_Verify }
forward! { (state: *mut CK_BYTE, state_len: CK_ULONG, encryption: CK_OBJECT_HANDLE, signing: CK_OBJECT_HANDLE):
    C_SetOperationState
}
forward! { (mechanism: *mut CK_MECHANISM, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, out: *mut CK_BYTE,
    out_len: *mut CK_ULONG): C_WrapKey
}
forward! { (old: *mut CK_UTF8CHAR, old_len: CK_ULONG, new: *mut CK_UTF8CHAR, new_len: CK_ULONG): C_SetPIN }

// Messages under one key, each with its own parameter.
forward! { (parameter: *mut c_void, parameter_len: CK_ULONG): C_SignMessageBegin C_VerifyMessageBegin }
forward! { (parameter: *mut c_void, parameter_len: CK_ULONG, aad: *mut CK_BYTE, aad_len: CK_ULONG):
    C_EncryptMessageBegin C_DecryptMessageBegin
}
forward! { (parameter: *mut c_void, parameter_len: CK_ULONG, aad: *mut CK_BYTE, aad_len: CK_ULONG, data: *mut CK_BYTE,
    data_len: CK_ULONG, out: *mut CK_BYTE, out_len: *mut CK_ULONG): C_EncryptMessage C_DecryptMessage
}
forward! { (parameter: *mut c_void, parameter_len: CK_ULONG, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE,
    out_len: *mut CK_ULONG, flags: CK_FLAGS): C_EncryptMessageNext C_DecryptMessageNext
}
forward! { (parameter: *mut c_void, parameter_len: CK_ULONG, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE,
    out_len: *mut CK_ULONG): C_SignMessage C_SignMessageNext
}
forward! { (parameter: *mut c_void, parameter_len: CK_ULONG, data: *mut CK_BYTE, data_len: CK_ULONG,
    signature: *mut CK_BYTE, signature_len: CK_ULONG): C_VerifyMessage C_VerifyMessageNext
}
