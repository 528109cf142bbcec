//! Objects: made, found, wrapped, unwrapped, read, destroyed.

use cryptoki_sys::*;

use super::{call, with_mechanism, with_template, written};
use crate::module::{Attribute, Failure, Mechanism, Object, Session, capped};

/// Objects that one search returns, at most.
const MAX_FOUND: usize = 64;

impl Session {
    /// Generates a secret key.
    ///
    /// # Errors
    /// [`Failure`] of `C_GenerateKey`.
    pub fn generate_key(
        &self,
        mechanism: Mechanism<'_>,
        template: &[Attribute<'_>],
    ) -> Result<Object, Failure> {
        let mut key = 0;
        with_mechanism(mechanism, |mechanism| {
            with_template(template, |template, count| {
                self.enter("C_GenerateKey", |table| {
                    call!(table.base, C_GenerateKey(self.handle, mechanism, template, count, &mut key))
                })
            })
        })?;
        Ok(self.object(key))
    }

    /// Generates a public and a private key.
    ///
    /// # Errors
    /// [`Failure`] of `C_GenerateKeyPair`.
    pub fn generate_key_pair(
        &self,
        mechanism: Mechanism<'_>,
        public: &[Attribute<'_>],
        private: &[Attribute<'_>],
    ) -> Result<(Object, Object), Failure> {
        let (mut public_key, mut private_key) = (0, 0);
        with_mechanism(mechanism, |mechanism| {
            with_template(public, |public, publics| {
                with_template(private, |private, privates| {
                    self.enter("C_GenerateKeyPair", |table| {
                        call!(
                            table.base,
                            C_GenerateKeyPair(
                                self.handle,
                                mechanism,
                                public,
                                publics,
                                private,
                                privates,
                                &mut public_key,
                                &mut private_key
                            )
                        )
                    })
                })
            })
        })?;
        Ok((self.object(public_key), self.object(private_key)))
    }

    /// Makes an object of what the template says.
    ///
    /// # Errors
    /// [`Failure`] of `C_CreateObject`.
    pub fn create_object(&self, template: &[Attribute<'_>]) -> Result<Object, Failure> {
        let mut object = 0;
        with_template(template, |template, count| {
            self.enter("C_CreateObject", |table| {
                call!(table.base, C_CreateObject(self.handle, template, count, &mut object))
            })
        })?;
        Ok(self.object(object))
    }

    /// Wraps `key` into `out`, and returns how many bytes it took.
    ///
    /// # Errors
    /// [`Failure`] of `C_WrapKey`.
    pub fn wrap_key(
        &self,
        mechanism: Mechanism<'_>,
        wrapping: Object,
        key: Object,
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let name = "C_WrapKey";
        if key.generation != self.generation {
            return Err(Failure::OldHandle { call: name });
        }
        let mut len = out.len() as CK_ULONG;
        with_mechanism(mechanism, |mechanism| {
            self.enter_with(name, wrapping, |table| {
                call!(
                    table.base,
                    C_WrapKey(
                        self.handle,
                        mechanism,
                        wrapping.handle,
                        key.handle,
                        out.as_mut_ptr(),
                        &mut len
                    )
                )
            })
        })?;
        written(name, len, out.len())
    }

    /// Unwraps a key into an object of this session.
    ///
    /// # Errors
    /// [`Failure`] of `C_UnwrapKey`.
    pub fn unwrap_key(
        &self,
        mechanism: Mechanism<'_>,
        unwrapping: Object,
        wrapped: &[u8],
        template: &[Attribute<'_>],
    ) -> Result<Object, Failure> {
        let name = "C_UnwrapKey";
        capped(name, wrapped.len())?;
        let mut key = 0;
        with_mechanism(mechanism, |mechanism| {
            with_template(template, |template, count| {
                self.enter_with(name, unwrapping, |table| {
                    call!(
                        table.base,
                        C_UnwrapKey(
                            self.handle,
                            mechanism,
                            unwrapping.handle,
                            wrapped.as_ptr().cast_mut(),
                            wrapped.len() as CK_ULONG,
                            template,
                            count,
                            &mut key
                        )
                    )
                })
            })
        })?;
        Ok(self.object(key))
    }

    /// Destroys an object.
    ///
    /// # Errors
    /// [`Failure`] of `C_DestroyObject`.
    pub fn destroy_object(&self, object: Object) -> Result<(), Failure> {
        self.enter_with("C_DestroyObject", object, |table| {
            call!(table.base, C_DestroyObject(self.handle, object.handle))
        })
    }

    /// Finds the objects that have every attribute of `template`, 64 at most.
    ///
    /// # Errors
    /// [`Failure`] of `C_FindObjectsInit`, `C_FindObjects` or `C_FindObjectsFinal`.
    pub fn find_objects(&self, template: &[Attribute<'_>]) -> Result<Vec<Object>, Failure> {
        with_template(template, |template, count| {
            self.enter("C_FindObjectsInit", |table| {
                call!(table.base, C_FindObjectsInit(self.handle, template, count))
            })
        })?;
        let name = "C_FindObjects";
        let mut handles = [0; MAX_FOUND];
        let mut count = 0;
        let found = self.enter(name, |table| {
            call!(
                table.base,
                C_FindObjects(self.handle, handles.as_mut_ptr(), handles.len() as CK_ULONG, &mut count)
            )
        });
        // Ended also after a failure, or the session could search no more.
        let ended =
            self.enter("C_FindObjectsFinal", |table| call!(table.base, C_FindObjectsFinal(self.handle)));
        found.and(ended)?;
        let count = written(name, count, handles.len())?;
        Ok(handles[..count].iter().map(|handle| self.object(*handle)).collect())
    }

    /// Reads an attribute into `out`, and returns how many bytes it has.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetAttributeValue`.
    pub fn attribute(
        &self,
        object: Object,
        kind: CK_ATTRIBUTE_TYPE,
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let name = "C_GetAttributeValue";
        let mut attribute =
            CK_ATTRIBUTE { type_: kind, pValue: out.as_mut_ptr().cast(), ulValueLen: out.len() as CK_ULONG };
        self.enter_with(name, object, |table| {
            call!(table.base, C_GetAttributeValue(self.handle, object.handle, &mut attribute, 1))
        })?;
        written(name, attribute.ulValueLen, out.len())
    }

    /// Reads an attribute that is a truth value.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetAttributeValue`.
    pub fn flag(&self, object: Object, kind: CK_ATTRIBUTE_TYPE) -> Result<bool, Failure> {
        let mut value = [CK_FALSE];
        match self.attribute(object, kind, &mut value)? {
            1 => Ok(value[0] != CK_FALSE),
            bytes => Err(Failure::Overlong { call: "C_GetAttributeValue", bytes }),
        }
    }
}
