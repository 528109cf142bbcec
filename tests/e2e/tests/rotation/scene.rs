//! What the tests share: secrets, their accounts, and a bank that they open.

use keymill_client::{Credentials, ServerError};
use keymill_core::operation::*;
use keymill_e2e::{Bank, Caller, create_secret};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::Value;

pub(crate) const DAY_MS: i64 = 86_400_000;
pub(crate) const SINGLE: &str = r#"{"SecretSubType":"SingleUser","DBInstanceId":"bank"}"#;
pub(crate) const DOUBLE: &str = r#"{"SecretSubType":"DoubleUsers","DBInstanceId":"bank"}"#;
pub(crate) const ONE: &str = r#"{"Accounts":[{"AccountName":"app","AccountPassword":"marked-first"}]}"#;
pub(crate) const TWO: &str = r#"{"Accounts":[{"AccountName":"app","AccountPassword":"marked-first"},{"AccountName":"app2","AccountPassword":"marked-other"}]}"#;

pub(crate) fn account(value: &str, name: &str) -> bool {
    serde_json::from_str::<Value>(value).unwrap()["AccountName"] == name
}

pub(crate) fn code<T>(answered: Result<T, ServerError>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

pub(crate) fn rds<'a>(secret: &str, extended: &str, value: &'a str) -> CreateSecretRequest<'a> {
    CreateSecretRequest {
        secret_type: Some(SecretType::Rds),
        extended_config: Some(extended.to_owned()),
        ..create_secret(secret, "v1", value)
    }
}

/// An engine with a bank whose account `app` the secret `db` holds.
pub(crate) fn begin(config: EngineConfig) -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(config);
    let mut caller = Caller::new(&live, &credentials);
    caller.create_secret_as(rds("db", SINGLE, ONE)).unwrap();
    (live, caller, credentials)
}

pub(crate) fn one() -> Bank {
    Bank::of(&[("app", "marked-first")])
}
