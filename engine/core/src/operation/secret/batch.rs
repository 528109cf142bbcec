//! Many secrets at once: read, and read to be taken out of the server. What is wrong with one of them is told of that one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::GetSecretValueReply;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{RequestId, SecretName, SecretRef, SecretVersionId, VersionStage};
use crate::limit;

/// Reads the values of up to 20 secrets. The right to each is `GetSecretValue`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchGetSecretValueRequest {
    /// What is asked for: 1 to 20 secrets, or versions of them.
    pub secrets_list: Vec<SecretAsked>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchGetSecretValue`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchGetSecretValueReply<'a> {
    /// The values, in the order of the request.
    #[serde(borrow)]
    pub secret_values: Vec<GetSecretValueReply<'a>>,
    /// What was not read, in the order of the request.
    pub errors: Vec<SecretFault>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Reads the values of up to 20 secrets to keep them elsewhere, where no right to them is asked for any more. The rights to each are
/// `GetSecretValue` and `ExportSecrets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExportSecretsRequest {
    /// What is asked for: 1 to 20 secrets, or versions of them.
    pub secrets_list: Vec<SecretAsked>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ExportSecrets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExportSecretsReply<'a> {
    /// The values, in the order of the request.
    #[serde(borrow)]
    pub secret_values: Vec<GetSecretValueReply<'a>>,
    /// What was not read, in the order of the request.
    pub errors: Vec<SecretFault>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One secret of many, as `GetSecretValue` asks for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SecretAsked {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// The version; that of the stage if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<SecretVersionId>,
    /// The stage that points to it; `ACSCurrent` if neither is given. It points to the version, where both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_stage: Option<VersionStage>,
    /// Text, `true` or `false`, as the cloud's SDKs send it: whether the `ExtendedConfig` of a secret that is rotated is told as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_extended_config: Option<FetchExtendedConfig>,
}

/// Whether the configuration of a secret is asked for with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchExtendedConfig {
    /// It is.
    #[serde(rename = "true", alias = "True")]
    True,
    /// It is not.
    #[serde(rename = "false", alias = "False")]
    False,
}

/// A secret that was not read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretFault {
    /// The secret, as it was asked for.
    pub secret_name: SecretName,
    /// The code, as `GetSecretValue` would answer.
    pub code: Cow<'static, str>,
    /// The HTTP status of it.
    pub http_status: u16,
    /// The message.
    pub message: Cow<'static, str>,
}

impl SecretFault {
    /// Tells what is wrong with a secret: kind and message, never the source.
    pub fn new(secret_name: SecretName, kind: ErrorKind, message: Cow<'static, str>) -> Self {
        Self { secret_name, code: Cow::Borrowed(kind.code()), http_status: kind.status(), message }
    }
}

/// Checks that so many secrets may be asked for at once.
///
/// # Errors
/// `MissingParameter` for none, `InvalidParameter` for more than 20.
pub fn check_asked(list: &[SecretAsked]) -> Result<()> {
    match list.len() {
        0 => Err(Error::new(ErrorKind::MissingParameter, "SecretsList names no secret")),
        1..=limit::SECRETS_A_BATCH => Ok(()),
        more => {
            let why =
                format!("SecretsList of {more} secrets exceeds the limit of {}", limit::SECRETS_A_BATCH);
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Result<Vec<SecretAsked>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_read_as_the_sdks_write_it() {
        let json = r#"[{"SecretName":"a"},{"SecretName":"b","VersionId":"v1","VersionStage":"s","FetchExtendedConfig":"true"}]"#;
        let list = asked(json).unwrap();
        assert_eq!(list[1].fetch_extended_config, Some(FetchExtendedConfig::True));
        assert_eq!(list[0].version_id, None);
        assert_eq!(serde_json::to_string(&list).unwrap(), json);
        for (bad, told) in [
            (r#"[{}]"#, "SecretName"),
            (r#"[{"SecretName":"a","Value":"x"}]"#, "Value"),
            (r#"[{"SecretName":"../ü"}]"#, "SecretName"),
            (r#"[{"SecretName":"a","FetchExtendedConfig":"maybe"}]"#, "maybe"),
            (r#"["a"]"#, "SecretAsked"),
        ] {
            let error = asked(bad).unwrap_err();
            assert!(error.contains(told) || error.contains("name of a secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_limit_is_exact() {
        let list =
            |count: usize| asked(&format!("[{}]", vec![r#"{"SecretName":"a"}"#; count].join(","))).unwrap();
        assert!(check_asked(&list(limit::SECRETS_A_BATCH)).is_ok());
        let kind = |count| check_asked(&list(count)).unwrap_err().kind();
        assert_eq!(kind(0), ErrorKind::MissingParameter);
        assert_eq!(kind(limit::SECRETS_A_BATCH + 1), ErrorKind::InvalidParameter);
    }

    #[test]
    fn a_fault_tells_code_and_status() {
        let fault = SecretFault::new("a".parse().unwrap(), ErrorKind::ResourceNotFound, "gone".into());
        let json =
            r#"{"SecretName":"a","Code":"Forbidden.ResourceNotFound","HttpStatus":404,"Message":"gone"}"#;
        assert_eq!(serde_json::to_string(&fault).unwrap(), json);
    }
}
