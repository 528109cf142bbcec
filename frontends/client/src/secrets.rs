//! Where the values of secrets come from: the seam between their cache and a service. A client of ours is one; a program with the engine
//! inside gives its own.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use keymill_core::id::{SecretName, SecretRef, SecretVersionId, VersionStage};
use keymill_core::operation::{GetSecretValueRequest, Reply, SecretDataType, SecretText};

use crate::client::Client;
use crate::error::{ClientError, ServerError};
use crate::keys::{apart, of_another};

/// Which value is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The secret.
    pub name: SecretName,
    /// The version; that of the stage if absent.
    pub version: Option<SecretVersionId>,
    /// The stage that points to it; `ACSCurrent` if neither is given.
    pub stage: Option<VersionStage>,
}

impl Asked {
    /// Asks for the value that is current.
    pub fn current(name: SecretName) -> Self {
        Self { name, version: None, stage: None }
    }
}

/// The value of a secret. It is wiped when it is dropped, and `Debug` does not show it.
pub struct SecretValue {
    /// The secret.
    pub name: SecretName,
    /// The version.
    pub version: SecretVersionId,
    /// The stages that pointed to it as it was read.
    pub stages: Vec<VersionStage>,
    /// What it was put as: text, or bytes in base64.
    pub data_type: SecretDataType,
    /// The value.
    pub value: SecretText<'static>,
}

impl SecretValue {
    /// Lends the value as it was put.
    pub fn expose(&self) -> &str {
        self.value.expose()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({}, version {})", self.name, self.version)
    }
}

/// Why there is no value; many that waited for one are told the same.
#[derive(Clone, Debug)]
pub enum SecretsError {
    /// The service is away, or too busy: what was read before may still be true.
    Unavailable(Arc<dyn Error + Send + Sync>),
    /// The service says no, or is not the one that was asked for: nothing that was read before may be used any more.
    Refused(Arc<dyn Error + Send + Sync>),
}

impl SecretsError {
    /// Makes the error of a service that is away.
    pub fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(error.into()))
    }

    /// Makes the error of a service that says no.
    pub fn refused(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(Arc::from(error.into()))
    }
}

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretsError::Unavailable(why) => write!(f, "the service of secrets is away: {why}"),
            SecretsError::Refused(why) => write!(f, "the secret is not given out: {why}"),
        }
    }
}

impl Error for SecretsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SecretsError::Unavailable(why) | SecretsError::Refused(why) => Some(&**why),
        }
    }
}

impl From<ClientError> for SecretsError {
    fn from(error: ClientError) -> Self {
        let is_away = match &error {
            ClientError::Io(_) | ClientError::OutcomeUnknown(_) => true,
            ClientError::Refused(refusal) => is_of_a_server_in_trouble(refusal),
            // A server that cannot show who it is, or speaks otherwise, is not the one whose word counted before.
            ClientError::Tls(_) | ClientError::Protocol(_) | ClientError::Unsendable(_) => false,
        };
        match is_away {
            true => Self::unavailable(error),
            false => Self::refused(error),
        }
    }
}

/// Tells a server that could not answer from one that did: too slow, too busy, broken, or not up.
fn is_of_a_server_in_trouble(refusal: &ServerError) -> bool {
    // A stored value that failed its check is an answer: somebody may have put it there.
    matches!(refusal.status, 408 | 429 | 500 | 503) && refusal.code != "Rejected.Quarantined"
}

/// Reads the values of secrets.
pub trait Secrets: Send + Sync {
    /// Reads a value.
    ///
    /// # Errors
    /// `Unavailable` where nobody could answer, `Refused` where the answer is no.
    fn read(&self, asked: &Asked) -> impl Future<Output = Result<SecretValue, SecretsError>> + Send;
}

impl<S: Secrets> Secrets for Arc<S> {
    fn read(&self, asked: &Asked) -> impl Future<Output = Result<SecretValue, SecretsError>> + Send {
        (**self).read(asked)
    }
}

impl Secrets for Client {
    async fn read(&self, asked: &Asked) -> Result<SecretValue, SecretsError> {
        let request = GetSecretValueRequest {
            secret_name: SecretRef::from(asked.name.clone()),
            version_id: asked.version.clone(),
            version_stage: asked.stage.clone(),
            fetch_extended_config: None,
            timeout_ms: None,
        };
        let read = apart(self.clone(), move |client| match client.call(request)?.reply()? {
            Reply::GetSecretValue(reply) => Ok(SecretValue {
                name: reply.secret_name,
                version: reply.version_id,
                stages: reply.version_stages.version_stage,
                data_type: reply.secret_data_type,
                value: SecretText::from(reply.secret_data.expose().to_owned()),
            }),
            other => Err(of_another(&other)),
        });
        Ok(read.await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_that_could_not_answer_is_away() {
        let refused = |status, code: &str| {
            let (code, message, request_id) = (code.to_owned(), String::new(), String::new());
            ClientError::Refused(ServerError {
                status,
                code,
                message,
                request_id,
                retryable: true,
                retry_after_ms: None,
                nothing_done: false,
            })
        };
        let is_away = |error: ClientError| matches!(SecretsError::from(error), SecretsError::Unavailable(_));
        assert!(is_away(ClientError::Io(std::io::ErrorKind::ConnectionRefused.into())));
        for (status, code) in
            [(429, "Rejected.Throttling"), (503, "ServiceUnavailableTemporary"), (500, "InternalFailure")]
        {
            assert!(is_away(refused(status, code)), "{code}");
        }
        for (status, code) in [
            (404, "Forbidden.ResourceNotFound"),
            (403, "Forbidden.NoPermission"),
            (409, "Rejected.Disabled"),
            (400, "SignatureDoesNotMatch"),
            (503, "Rejected.Quarantined"),
        ] {
            assert!(!is_away(refused(status, code)), "{code}");
        }
        assert!(!is_away(ClientError::Tls("another".into())));
        assert!(!is_away(ClientError::Protocol("odd".into())));
    }
}
