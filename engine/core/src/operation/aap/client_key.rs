//! Client keys: by which an application shows which access point it is of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{ClientKeyAlgorithm, ClientKeyOrigin};
use crate::id::{AapName, ClientKeyId, RequestId};
use crate::operation::Bin;
use crate::time::Timestamp;

/// Makes a client key; its private half is told once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateClientKeyRequest {
    /// The access point that it is to be of.
    pub aap_name: AapName,
    /// What the PKCS #12 is locked with: 8 to 64 characters, of two kinds at least of digits, letters and `~!@#$%^&*?_-`.
    pub password: Password,
    /// From when on it is taken; now if absent, and then `NotAfter` is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is taken; five years later if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl fmt::Debug for CreateClientKeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateClientKeyRequest({})", self.aap_name)
    }
}

/// A password: wiped when it goes, and shown nowhere.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Takes a text for one.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a password")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// The reply of `CreateClientKey`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateClientKeyReply<'a> {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// Private key and certificate in PKCS #12 (RFC 7292), locked with the password; never told again.
    #[serde(borrow)]
    pub private_key_data: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}

impl fmt::Debug for CreateClientKeyReply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateClientKeyReply({})", self.client_key_id)
    }
}

/// Takes the public half of a key whose private half never leaves the application for a client key. Beyond the cloud's API.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RegisterClientKeyRequest {
    /// The access point that it is to be of.
    pub aap_name: AapName,
    /// SubjectPublicKeyInfo in PEM (RFC 7468 §13): RSA of 2,048, 3,072 or 4,096 bits, or EC on P-256.
    pub public_key: String,
    /// From when on it is taken; now if absent, and then `NotAfter` is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is taken; five years later if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RegisterClientKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterClientKeyReply {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Has a TLS client certificate stand for a client key: who shows it at a TLS listener that trusts its CA is of the access point. Beyond the
/// cloud's API.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RegisterClientCertificateRequest {
    /// The access point that it is to be of.
    pub aap_name: AapName,
    /// SHA-256 of the certificate in DER, in hex; that one alone. Either this or `Uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// A URI of its subject alternative name, such as a SPIFFE id: every certificate with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// From when on it is taken; now if absent, and then `NotAfter` is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is taken; five years later if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RegisterClientCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterClientCertificateReply {
    /// Its id as a client key.
    pub client_key_id: ClientKeyId,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a client key by which accounts of ACME are bound to an access point: they order certificates under its rights, while the key is taken.
/// Beyond the cloud's API.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateAcmeBindingRequest {
    /// The access point that it is to be of.
    pub aap_name: AapName,
    /// From when on it is taken; now if absent, and then `NotAfter` is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is taken; five years later if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateAcmeBinding`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateAcmeBindingReply {
    /// Its id, which clients call the key id of external account binding.
    pub client_key_id: ClientKeyId,
    /// The HMAC key of external account binding in base64url, as clients take it; never told again.
    pub hmac_key: Password,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

impl fmt::Debug for CreateAcmeBindingReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateAcmeBindingReply({})", self.client_key_id)
    }
}

/// Describes a client key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetClientKeyRequest {
    /// The client key.
    pub client_key_id: ClientKeyId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetClientKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetClientKeyReply {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// Whose it is.
    pub aap_name: AapName,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// Where it was made.
    pub key_origin: ClientKeyOrigin,
    /// A certificate in PEM; of a key that was registered the public key; of a TLS certificate what it is known by.
    pub public_key_data: String,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// When it was made.
    pub create_time: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the client keys of an access point, or of all; the oldest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListClientKeysRequest {
    /// The access point; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aap_name: Option<AapName>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListClientKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListClientKeysReply {
    /// The rows.
    pub client_keys: Vec<ClientKeyRow>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `ListClientKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientKeyRow {
    /// Its id.
    pub client_key_id: ClientKeyId,
    /// Whose it is.
    pub aap_name: AapName,
    /// What it signs with.
    pub key_algorithm: ClientKeyAlgorithm,
    /// Where it was made.
    pub key_origin: ClientKeyOrigin,
    /// A certificate in PEM; of a key that was registered the public key; of a TLS certificate what it is known by.
    pub public_key_data: String,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// When it was made.
    pub create_time: Timestamp,
}

/// Revokes a client key; in force with the next request of each of its connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteClientKeyRequest {
    /// The client key.
    pub client_key_id: ClientKeyId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteClientKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteClientKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_a_password_shows_none() {
        let json = r#"{"AapName":"app","Password":"secret-1234"}"#;
        let request: CreateClientKeyRequest = serde_json::from_str(json).unwrap();
        assert_eq!(format!("{request:?}"), "CreateClientKeyRequest(app)");
    }
}
