//! The data path: encrypt, decrypt, sign, verify, each with the caller's buffers and without asking for a length first.

use std::ptr;

use cryptoki_sys::*;

use super::{TAG_BITS, call, input, present, with_mechanism, written};
use crate::module::{Failure, Mechanism, Object, Session, capped};

pub(super) fn message_parameter(nonce: &mut [u8; 12], tag: &mut [u8; 16]) -> CK_GCM_MESSAGE_PARAMS {
    CK_GCM_MESSAGE_PARAMS {
        pIv: nonce.as_mut_ptr(),
        ulIvLen: nonce.len() as CK_ULONG,
        ulIvFixedBits: 0,
        ivGenerator: CKG_NO_GENERATE,
        pTag: tag.as_mut_ptr(),
        ulTagBits: TAG_BITS,
    }
}

/// The two calls of an operation on one buffer differ in their functions alone.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident, $Init:ident) => {
        $(#[$doc])*
        pub fn $name(&self, mechanism: Mechanism<'_>, key: Object) -> Result<(), Failure> {
            if let Mechanism::Gcm { aad, .. } = mechanism {
                capped(stringify!($Init), aad.len())?;
            }
            with_mechanism(mechanism, |mechanism| {
                self.enter_with(stringify!($Init), key, |table| {
                    call!(table.base, $Init(self.handle, mechanism, key.handle))
                })
            })
        }
    };
    ($(#[$doc:meta])* $name:ident, $Init:ident, $call:ident, $Call:ident) => {
        operation!(
            /// Begins the operation.
            ///
            /// # Errors
            /// [`Failure`] of the function.
            $name,
            $Init
        );

        $(#[$doc])*
        pub fn $call(&self, bytes: &[u8], out: &mut [u8]) -> Result<usize, Failure> {
            let name = stringify!($Call);
            capped(name, bytes.len())?;
            let mut len = out.len() as CK_ULONG;
            self.enter(name, |table| {
                call!(
                    table.base,
                    $Call(
                        self.handle,
                        present(bytes),
                        bytes.len() as CK_ULONG,
                        out.as_mut_ptr(),
                        &mut len
                    )
                )
            })?;
            written(name, len, out.len())
        }
    };
}

impl Session {
    operation!(
        /// Encrypts `bytes` into `out`, tag included, and returns how many bytes that are.
        ///
        /// # Errors
        /// [`Failure`] of `C_Encrypt`.
        encrypt_init, C_EncryptInit, encrypt, C_Encrypt
    );

    operation!(
        /// Decrypts `bytes`, tag included, into `out`, and returns how many bytes that are. `out` must hold as many as go in:
        /// one module asks for that, although fewer come out.
        ///
        /// # Errors
        /// [`Failure`] of `C_Decrypt`.
        decrypt_init, C_DecryptInit, decrypt, C_Decrypt
    );

    operation!(
        /// Signs `bytes` or computes their MAC into `out`, and returns how many bytes that are.
        ///
        /// # Errors
        /// [`Failure`] of `C_Sign`.
        sign_init, C_SignInit, sign, C_Sign
    );

    operation!(
        /// Begins to verify.
        ///
        /// # Errors
        /// [`Failure`] of `C_VerifyInit`.
        verify_init, C_VerifyInit
    );

    /// Verifies a signature or MAC.
    ///
    /// # Errors
    /// [`Failure`] of `C_Verify`; a false signature is one.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let name = "C_Verify";
        capped(name, bytes.len().max(signature.len()))?;
        self.enter(name, |table| {
            call!(
                table.base,
                C_Verify(
                    self.handle,
                    present(bytes),
                    bytes.len() as CK_ULONG,
                    present(signature),
                    signature.len() as CK_ULONG
                )
            )
        })
    }

    /// Begins to encrypt messages with AES-GCM under `key`, by the message interface of PKCS#11 3.0.
    ///
    /// # Errors
    /// `Missing` where the module is older.
    pub fn message_encrypt_init(&self, key: Object) -> Result<(), Failure> {
        with_mechanism(Mechanism::GcmMessages, |mechanism| {
            self.enter_with("C_MessageEncryptInit", key, |table| {
                call!(table.v3.as_ref()?, C_MessageEncryptInit(self.handle, mechanism, key.handle))
            })
        })
    }

    /// Encrypts one message with the caller's nonce into `out` and its tag into `tag`, and returns how many bytes it has.
    ///
    /// # Errors
    /// [`Failure`] of `C_EncryptMessage`; `Overlong` where the module has drawn a nonce of its own.
    pub fn encrypt_message(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        bytes: &[u8],
        out: &mut [u8],
        tag: &mut [u8; 16],
    ) -> Result<usize, Failure> {
        let name = "C_EncryptMessage";
        capped(name, bytes.len().max(aad.len()))?;
        let mut used = *nonce;
        let mut parameter = message_parameter(&mut used, tag);
        let mut len = out.len() as CK_ULONG;
        self.enter(name, |table| {
            call!(
                table.v3.as_ref()?,
                C_EncryptMessage(
                    self.handle,
                    ptr::from_mut(&mut parameter).cast(),
                    size_of::<CK_GCM_MESSAGE_PARAMS>() as CK_ULONG,
                    input(aad),
                    aad.len() as CK_ULONG,
                    present(bytes),
                    bytes.len() as CK_ULONG,
                    out.as_mut_ptr(),
                    &mut len
                )
            )
        })?;
        if used != *nonce {
            return Err(Failure::Overlong { call: name, bytes: used.len() });
        }
        written(name, len, out.len())
    }

    /// Ends the encryption of messages.
    ///
    /// # Errors
    /// [`Failure`] of `C_MessageEncryptFinal`.
    pub fn message_encrypt_final(&self) -> Result<(), Failure> {
        self.enter("C_MessageEncryptFinal", |table| {
            call!(table.v3.as_ref()?, C_MessageEncryptFinal(self.handle))
        })
    }
}
