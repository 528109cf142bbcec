//! The values of many secrets, a request for twenty of them.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::id::{SecretName, SecretRef, SecretVersionId};
use keymill_core::limit;
use keymill_core::operation::*;
use zeroize::Zeroizing;

use crate::admin::{Api, of_another};
use crate::failure::{Failure, Result};

/// A value as it was read; wiped when it is dropped.
pub(super) struct Value {
    /// The version.
    pub(super) version: SecretVersionId,
    /// What it was put as.
    pub(super) data_type: SecretDataType,
    /// The value: text, or bytes in base64.
    pub(super) text: Zeroizing<String>,
}

/// What came of each secret that was asked for.
pub(super) type Fetched = BTreeMap<SecretName, Result<Value, SecretFault>>;

impl Value {
    /// Takes a value out of a reply.
    pub(super) fn of(reply: &GetSecretValueReply<'_>) -> Self {
        Self {
            version: reply.version_id.clone(),
            data_type: reply.secret_data_type,
            text: Zeroizing::new(reply.secret_data.expose().to_owned()),
        }
    }

    /// Returns the bytes that it stands for: those of the text, or those whose base64 it is.
    pub(super) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let decoded = match self.data_type {
            SecretDataType::Text => None,
            // Whoever put it may have put something else than base64, which is kept as it came.
            SecretDataType::Binary => STANDARD.decode(&*self.text).ok(),
        };
        Zeroizing::new(decoded.unwrap_or_else(|| self.text.as_bytes().to_vec()))
    }
}

/// Reads the current values of secrets.
pub(super) fn current(api: &Api, names: impl IntoIterator<Item = SecretName>) -> Result<Fetched> {
    in_chunks(names, |secrets_list, fetched| {
        let answered = api.call(BatchGetSecretValueRequest { secrets_list, timeout_ms: None })?;
        match answered.reply()? {
            Reply::BatchGetSecretValue(reply) => take(fetched, &reply.secret_values, reply.errors),
            other => return Err(of_another(other.operation())),
        }
        Ok(())
    })
}

/// Reads them to keep them elsewhere.
pub(super) fn exported(api: &Api, names: impl IntoIterator<Item = SecretName>) -> Result<Fetched> {
    in_chunks(names, |secrets_list, fetched| {
        let answered = api.call(ExportSecretsRequest { secrets_list, timeout_ms: None })?;
        match answered.reply()? {
            Reply::ExportSecrets(reply) => take(fetched, &reply.secret_values, reply.errors),
            other => return Err(of_another(other.operation())),
        }
        Ok(())
    })
}

fn in_chunks(
    names: impl IntoIterator<Item = SecretName>,
    ask: impl Fn(Vec<SecretAsked>, &mut Fetched) -> Result<()>,
) -> Result<Fetched> {
    let names: Vec<SecretName> = names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut fetched = Fetched::new();
    for chunk in names.chunks(limit::SECRETS_A_BATCH) {
        let asked = |name: &SecretName| SecretAsked {
            secret_name: SecretRef::from(name.clone()),
            version_id: None,
            version_stage: None,
            fetch_extended_config: None,
        };
        ask(chunk.iter().map(asked).collect(), &mut fetched)?;
    }
    match names.iter().find(|name| !fetched.contains_key(*name)) {
        None => Ok(fetched),
        Some(name) => Err(Failure::new(format!("the server said nothing of secret {name}"))),
    }
}

fn take(fetched: &mut Fetched, values: &[GetSecretValueReply<'_>], errors: Vec<SecretFault>) {
    fetched.extend(values.iter().map(|reply| (reply.secret_name.clone(), Ok(Value::of(reply)))));
    fetched.extend(errors.into_iter().map(|fault| (fault.secret_name.clone(), Err(fault))));
}

/// Tells why a secret was not read.
pub(super) fn told(fault: &SecretFault) -> String {
    format!("secret {}: {}: {}", fault.secret_name, fault.code, fault.message)
}
