//! The functions of PKCS#11 in the order of its tables, and the tables that the simulator hands out.

use cryptoki_sys::{CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_VERSION};

use super::forward::*;
use super::own::*;

macro_rules! tables {
    (both { $($both:ident),* $(,)? } since_3_0 { $($new:ident),* $(,)? }) => {
        /// A function of PKCS#11; its number is its place in the table.
        #[allow(non_camel_case_types, dead_code, clippy::enum_variant_names, reason = "names and places are PKCS#11's")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) enum Function { $($both,)* $($new,)* }

        /// The names, each at its function's number.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($both),)* $(stringify!($new),)*];

        pub(super) static FUNCTIONS_2_40: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            $($both: Some($both),)*
        };

        pub(super) static FUNCTIONS_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            $($both: Some($both),)*
            $($new: Some($new),)*
        };

        /// A table of 2.40 as one of 3.0 that lacks what is new there.
        pub(super) fn widened(old: &CK_FUNCTION_LIST) -> CK_FUNCTION_LIST_3_0 {
            CK_FUNCTION_LIST_3_0 { version: old.version, $($both: old.$both,)* $($new: None,)* }
        }
    };
}

tables! {
    both {
        C_Initialize, C_Finalize, C_GetInfo, C_GetFunctionList, C_GetSlotList, C_GetSlotInfo,
        C_GetTokenInfo, C_GetMechanismList, C_GetMechanismInfo, C_InitToken, C_InitPIN, C_SetPIN,
        C_OpenSession, C_CloseSession, C_CloseAllSessions, C_GetSessionInfo, C_GetOperationState,
        C_SetOperationState, C_Login, C_Logout, C_CreateObject, C_CopyObject, C_DestroyObject,
        C_GetObjectSize, C_GetAttributeValue, C_SetAttributeValue, C_FindObjectsInit, C_FindObjects,
        C_FindObjectsFinal, C_EncryptInit, C_Encrypt, C_EncryptUpdate, C_EncryptFinal,
        C_DecryptInit, C_Decrypt, C_DecryptUpdate, C_DecryptFinal, C_DigestInit, C_Digest,
        C_DigestUpdate, C_DigestKey, C_DigestFinal, C_SignInit, C_Sign, C_SignUpdate, C_SignFinal,
        C_SignRecoverInit, C_SignRecover, C_VerifyInit, C_Verify, C_VerifyUpdate, C_VerifyFinal,
        C_VerifyRecoverInit, C_VerifyRecover, C_DigestEncryptUpdate, C_DecryptDigestUpdate,
        C_SignEncryptUpdate, C_DecryptVerifyUpdate, C_GenerateKey, C_GenerateKeyPair, C_WrapKey,
        C_UnwrapKey, C_DeriveKey, C_SeedRandom, C_GenerateRandom, C_GetFunctionStatus,
        C_CancelFunction, C_WaitForSlotEvent,
    }
    since_3_0 {
        C_GetInterfaceList, C_GetInterface, C_LoginUser, C_SessionCancel, C_MessageEncryptInit,
        C_EncryptMessage, C_EncryptMessageBegin, C_EncryptMessageNext, C_MessageEncryptFinal,
        C_MessageDecryptInit, C_DecryptMessage, C_DecryptMessageBegin, C_DecryptMessageNext,
        C_MessageDecryptFinal, C_MessageSignInit, C_SignMessage, C_SignMessageBegin,
        C_SignMessageNext, C_MessageSignFinal, C_MessageVerifyInit, C_VerifyMessage,
        C_VerifyMessageBegin, C_VerifyMessageNext, C_MessageVerifyFinal,
    }
}

impl Function {
    /// The name as the standard writes it.
    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}
