//! Managed data keys, and the cloud's advanced forms.

use keymill_core::id::DataKeyVersionId;
use keymill_core::operation::*;

use crate::{Answered, Caller, Named};

/// A version of a managed data key as it was given out: the version, and the data key in clear.
pub type Given = (DataKeyVersionId, Vec<u8>);

impl Caller {
    /// Makes a managed data key.
    pub fn create_data_key(&mut self, name: &str, key: impl Named) -> Answered<DataKeyVersionId> {
        let request = CreateManagedDataKeyRequest {
            data_key_name: name.parse().expect("the test's name is valid"),
            key_id: key.key_ref(),
            key_spec: None,
            number_of_bytes: None,
            timeout_ms: Some(50_000),
        };
        self.ask(request, take!(CreateManagedDataKey, reply => reply.data_key_version_id))
    }

    /// Makes another version of one.
    pub fn renew_data_key(&mut self, name: &str) -> Answered<DataKeyVersionId> {
        let data_key_name = name.parse().expect("the test's name is valid");
        let request = CreateManagedDataKeyVersionRequest { data_key_name, timeout_ms: Some(50_000) };
        self.ask(request, take!(CreateManagedDataKeyVersion, reply => reply.data_key_version_id))
    }

    /// Fetches one in clear.
    pub fn managed_data_key(
        &mut self,
        name: &str,
        data_key_version_id: Option<DataKeyVersionId>,
        latest: bool,
    ) -> Answered<Given> {
        let request = GetManagedDataKeyRequest {
            data_key_name: name.parse().expect("the test's name is valid"),
            data_key_version_id,
            use_latest: Some(latest),
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(GetManagedDataKey, reply => (reply.data_key_version_id, reply.plaintext.into_vec())),
        )
    }

    /// Lists the names of those that the caller may see, and how many versions each has.
    pub fn managed_data_keys(&mut self) -> Answered<Vec<(String, u64)>> {
        self.ask(
            ListManagedDataKeysRequest { page_size: Some(100), ..Default::default() },
            take!(ListManagedDataKeys, reply => {
                let rows = reply.managed_data_keys.managed_data_key.iter();
                rows.map(|row| (row.data_key_name.to_string(), row.versions)).collect()
            }),
        )
    }

    /// Lists the versions of one.
    pub fn data_key_versions(&mut self, name: &str) -> Answered<Vec<DataKeyVersionId>> {
        let request = ListManagedDataKeyVersionsRequest {
            data_key_name: name.parse().expect("the test's name is valid"),
            page_number: None,
            page_size: Some(100),
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(ListManagedDataKeyVersions, reply => {
                let rows = reply.managed_data_key_versions.managed_data_key_version.iter();
                rows.map(|row| row.data_key_version_id).collect()
            }),
        )
    }

    /// Deletes one.
    pub fn delete_data_key(&mut self, name: &str) -> Answered<()> {
        let data_key_name = name.parse().expect("the test's name is valid");
        self.ask(DeleteManagedDataKeyRequest { data_key_name, timeout_ms: None }, |_| ())
    }

    /// Encrypts with associated data; returns the ciphertext and its nonce.
    pub fn advance_encrypt(
        &mut self,
        key: impl Named,
        plaintext: &[u8],
        aad: Option<&[u8]>,
    ) -> Answered<(Vec<u8>, Vec<u8>)> {
        let request = AdvanceEncryptRequest {
            key_id: key.key_ref(),
            plaintext: Bin::from(plaintext),
            algorithm: None,
            aad: aad.map(Bin::from),
            iv: None,
            padding_mode: None,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(AdvanceEncrypt, reply => (reply.ciphertext_blob.into_vec(), reply.iv.into_vec())),
        )
    }

    /// Decrypts with associated data.
    pub fn advance_decrypt(
        &mut self,
        blob: &[u8],
        aad: Option<&[u8]>,
        iv: Option<&[u8]>,
    ) -> Answered<Vec<u8>> {
        let request = AdvanceDecryptRequest {
            ciphertext_blob: Bin::from(blob),
            key_id: None,
            algorithm: None,
            aad: aad.map(Bin::from),
            iv: iv.map(Bin::from),
            padding_mode: None,
            timeout_ms: None,
        };
        self.ask(request, take!(AdvanceDecrypt, reply => reply.plaintext.into_vec()))
    }
}
