//! Secrets, their versions and stages.

use keymill_core::id::{CmkId, SecretName};
use keymill_core::operation::*;

use crate::{Answered, Caller, Named};

/// A value as it was given out: the version, the value, and the stages that point to it.
pub type Value = (String, String, Vec<String>);

fn name(name: &str) -> SecretName {
    name.parse().expect("the test's name is valid")
}

fn texts(list: VersionStageList) -> Vec<String> {
    list.version_stage.iter().map(ToString::to_string).collect()
}

/// Asks for the making of a secret.
pub fn create_secret<'a>(secret: &str, version: &str, value: &'a str) -> CreateSecretRequest<'a> {
    CreateSecretRequest {
        secret_name: name(secret),
        version_id: version.parse().expect("the test's version is valid"),
        secret_data: SecretText::from(value),
        secret_data_type: None,
        secret_type: None,
        extended_config: None,
        enable_automatic_rotation: None,
        rotation_interval: None,
        encryption_key_id: None,
        description: None,
        tags: None,
        policy: None,
        dkms_instance_id: None,
        timeout_ms: Some(50_000),
    }
}

/// Asks for the putting of a value.
pub fn put_value<'a>(
    secret: &str,
    version: &str,
    value: &'a str,
    stages: &[&str],
) -> PutSecretValueRequest<'a> {
    let stages: Vec<_> =
        stages.iter().map(|stage| stage.parse().expect("the test's stage is valid")).collect();
    PutSecretValueRequest {
        secret_name: name(secret).into(),
        version_id: version.parse().expect("the test's version is valid"),
        secret_data: SecretText::from(value),
        secret_data_type: None,
        version_stages: (!stages.is_empty()).then_some(stages),
        timeout_ms: Some(50_000),
    }
}

impl Caller {
    /// Makes a secret under the service's own key.
    pub fn create_secret(&mut self, secret: &str, version: &str, value: &str) -> Answered<String> {
        self.create_secret_as(create_secret(secret, version, value))
    }

    /// Makes a secret under a key.
    pub fn create_secret_under(
        &mut self,
        key: impl Named,
        secret: &str,
        version: &str,
        value: &str,
    ) -> Answered<String> {
        let encryption_key_id = Some(key.key_ref());
        self.create_secret_as(CreateSecretRequest {
            encryption_key_id,
            ..create_secret(secret, version, value)
        })
    }

    /// Makes a secret as the request says; returns its ARN.
    pub fn create_secret_as(&mut self, request: CreateSecretRequest<'_>) -> Answered<String> {
        self.ask(request, take!(CreateSecret, reply => reply.arn))
    }

    /// Puts a value as a new version; returns the stages that point to it.
    pub fn put_value(
        &mut self,
        secret: &str,
        version: &str,
        value: &str,
        stages: &[&str],
    ) -> Answered<Vec<String>> {
        let request = put_value(secret, version, value, stages);
        self.ask(request, take!(PutSecretValue, reply => texts(reply.version_stages)))
    }

    /// Reads the value that is current.
    pub fn value(&mut self, secret: &str) -> Answered<Value> {
        self.value_of(secret, None, None)
    }

    /// Reads the value of a version or a stage.
    pub fn value_of(&mut self, secret: &str, version: Option<&str>, stage: Option<&str>) -> Answered<Value> {
        let request = GetSecretValueRequest {
            secret_name: name(secret).into(),
            version_id: version.map(|version| version.parse().expect("the test's version is valid")),
            version_stage: stage.map(|stage| stage.parse().expect("the test's stage is valid")),
            fetch_extended_config: None,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(GetSecretValue, reply => {
                (reply.version_id.to_string(), reply.secret_data.expose().to_owned(), texts(reply.version_stages))
            }),
        )
    }

    /// Tells what is known of a secret.
    pub fn describe_secret(&mut self, secret: &str) -> Answered<DescribeSecretReply> {
        let secret_name = name(secret).into();
        let request = DescribeSecretRequest { secret_name, fetch_tags: Some(true), timeout_ms: None };
        self.ask(request, take!(DescribeSecret, reply => reply))
    }

    /// Returns the key that a secret is sealed under.
    pub fn key_of_secret(&mut self, secret: &str) -> CmkId {
        self.describe_secret(secret).expect("the secret is there").encryption_key_id
    }

    /// Lists the names of the secrets that the caller may see.
    pub fn secrets(&mut self) -> Answered<Vec<String>> {
        self.ask(
            ListSecretsRequest { page_size: Some(100), ..Default::default() },
            take!(ListSecrets, reply => {
                reply.secret_list.secret.iter().map(|row| row.secret_name.to_string()).collect()
            }),
        )
    }

    /// Lists the versions of a secret, the newest first, and the stages that point to each.
    pub fn secret_versions(&mut self, secret: &str) -> Answered<Vec<(String, Vec<String>)>> {
        let request = ListSecretVersionIdsRequest {
            secret_name: name(secret).into(),
            include_deprecated: Some(true),
            page_number: None,
            page_size: None,
            timeout_ms: None,
        };
        self.ask(
            request,
            take!(ListSecretVersionIds, reply => {
                let rows = reply.version_ids.version_id.into_iter();
                rows.map(|row| (row.version_id.to_string(), texts(row.version_stages))).collect()
            }),
        )
    }

    /// Has a stage point to another version, or to none.
    pub fn move_stage(
        &mut self,
        secret: &str,
        stage: &str,
        to: Option<&str>,
        from: Option<&str>,
    ) -> Answered<()> {
        let version = |text: &str| text.parse().expect("the test's version is valid");
        let request = UpdateSecretVersionStageRequest {
            secret_name: name(secret).into(),
            version_stage: stage.parse().expect("the test's stage is valid"),
            move_to_version: to.map(version),
            remove_from_version: from.map(version),
            timeout_ms: None,
        };
        self.ask(request, |_| ())
    }

    /// Changes the description of a secret.
    pub fn update_secret(&mut self, secret: &str, description: &str) -> Answered<()> {
        let description = Some(description.to_owned());
        self.ask(
            UpdateSecretRequest {
                secret_name: name(secret).into(),
                description,
                extended_config: None,
                timeout_ms: None,
            },
            |_| (),
        )
    }

    /// Rotates a secret to a version.
    pub fn rotate_secret(&mut self, secret: &str, version: &str) -> Answered<()> {
        self.rotate_secret_within(secret, version, 20_000)
    }

    /// Rotates a secret to a version, and waits for so many milliseconds.
    pub fn rotate_secret_within(&mut self, secret: &str, version: &str, timeout_ms: u64) -> Answered<()> {
        let request = RotateSecretRequest {
            secret_name: name(secret).into(),
            version_id: version.parse().expect("the test's version is valid"),
            timeout_ms: Some(timeout_ms),
        };
        self.ask(request, |_| ())
    }

    /// Deletes a secret, behind a window of so many days or at once.
    pub fn delete_secret(&mut self, secret: &str, days: Option<u32>) -> Answered<()> {
        let request = DeleteSecretRequest {
            secret_name: name(secret).into(),
            recovery_window_in_days: days,
            force_delete_without_recovery: days.is_none().then_some(true),
            timeout_ms: None,
        };
        self.ask(request, |_| ())
    }

    /// Brings a secret back.
    pub fn restore_secret(&mut self, secret: &str) -> Answered<()> {
        self.ask(RestoreSecretRequest { secret_name: name(secret).into(), timeout_ms: None }, |_| ())
    }
}
