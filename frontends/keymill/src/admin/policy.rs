//! `keymill policy`: why somebody may do something or may not, and whether a policy of a key says what is expected of it before it is in force.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use keymill_core::context::EncryptionContext;
use keymill_core::id::{AccessKeyId, CertificateId, CertificateRef, ClientKeyId, KeyRef, SecretRef};
use keymill_core::operation::{ExplainAccessReply, ExplainAccessRequest};
use serde::{Deserialize, Serialize};

use super::{Api, ClientArgs, ask, parse_key};
use crate::context::{self, parse_pair};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

/// Bytes of a file of expectations, at most.
const FILE_BYTES: u64 = 1 << 20;

/// Ask why somebody may do something, and try a policy of a key before it is in force
#[derive(Args, Clone, Debug)]
pub(crate) struct PolicyArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum PolicyCommand {
    /// Tell whether somebody may do something now, by which rule, and what would change that; exit code 1 if not
    Explain(ExplainArgs),
    /// Hold a policy of a key against a table of expectations, without setting it; exit code 1 if one is not met
    ///
    /// The file is JSON: {"Key": "alias/orders", "Policy": {…}, "Expect": [{"Operation": "Decrypt", "ClientKeyId": "KAAP.…", "Source":
    /// "10.0.0.7", "EncryptionContext": {"tenant": "a"}, "Allowed": true}, …]}. Each row names an AccessKeyId or a ClientKeyId; Source and
    /// EncryptionContext are optional. Without "Policy" the one in force is asked.
    Test {
        /// The file of expectations
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args, Clone, Debug)]
struct ExplainArgs {
    /// The operation by its name, such as Encrypt
    #[arg(value_name = "OPERATION")]
    operation: String,
    /// The key that it is about: id, ARN or alias
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<KeyRef>,
    /// The secret that it is about, by name or ARN, whether or not there is one
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    secret: Option<SecretRef>,
    /// On this certificate
    #[arg(long, value_name = "ID", value_parser = certificate, conflicts_with_all = ["key", "secret"])]
    certificate: Option<CertificateId>,
    /// The access key that would ask
    #[arg(long, value_name = "ID", required_unless_present = "client_key", conflicts_with = "client_key")]
    access_key: Option<AccessKeyId>,
    /// The client key that would ask
    #[arg(long, value_name = "ID")]
    client_key: Option<ClientKeyId>,
    /// The address that it would ask from
    #[arg(long, value_name = "ADDRESS")]
    from: Option<std::net::IpAddr>,
    /// The encryption context that it would be done under, once for each pair
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    context: Vec<(String, String)>,
}

/// What a file of expectations holds.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Expectations {
    key: KeyRef,
    #[serde(default)]
    policy: Option<serde_json::Value>,
    expect: Vec<Expectation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Expectation {
    operation: String,
    #[serde(default)]
    access_key_id: Option<AccessKeyId>,
    #[serde(default)]
    client_key_id: Option<ClientKeyId>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    encryption_context: Option<EncryptionContext>,
    allowed: bool,
}

/// What came of one expectation.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    operation: String,
    who: String,
    expected: bool,
    allowed: bool,
    rule: String,
    explanation: String,
}

/// Does what the command says.
pub(crate) fn run(args: PolicyArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    match args.command {
        PolicyCommand::Explain(args) => explain(&api, args),
        PolicyCommand::Test { file } => {
            let text = read(&file)?;
            let expectations = serde_json::from_str(&text).map_err(Failure::because(file.display()))?;
            test(&api, expectations)
        }
    }
}

fn certificate(text: &str) -> std::result::Result<CertificateId, String> {
    CertificateId::parse(text)
        .ok_or_else(|| "the id of a certificate is like 0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".to_owned())
}

fn explain(api: &Api, args: ExplainArgs) -> Result<()> {
    let operation = args.operation.clone();
    let context = context::of_pairs(&args.context)?;
    let request = ExplainAccessRequest {
        operation: args.operation,
        key_id: args.key,
        secret_name: args.secret,
        certificate_id: args.certificate.map(CertificateRef::Id),
        access_key_id: args.access_key,
        client_key_id: args.client_key,
        source: args.from.map(|address| address.to_string()),
        encryption_context: Some(context).filter(|context| !context.is_empty()),
        policy: None,
        timeout_ms: None,
    };
    let reply = ask!(api, ExplainAccess, request);
    match api.json {
        true => output::json(&reply)?,
        false => output::card(&[
            (&*operation, &verdict(reply.allowed)),
            ("rule", &reply.rule),
            ("why", &output::harmless(&reply.explanation)),
        ])?,
    }
    match reply.allowed {
        true => Ok(()),
        false => Err(Failure::new(format!("{operation} is refused"))),
    }
}

fn test(api: &Api, expectations: Expectations) -> Result<()> {
    let Expectations { key, policy, expect } = expectations;
    let policy = policy.map(|policy| policy.to_string());
    let mut outcomes = Vec::with_capacity(expect.len());
    for row in expect {
        let who = match (&row.access_key_id, &row.client_key_id) {
            (Some(id), None) => id.to_string(),
            (None, Some(id)) => id.to_string(),
            _ => return Err(Failure::new("each row names an AccessKeyId or a ClientKeyId, and not both")),
        };
        let request = ExplainAccessRequest {
            operation: row.operation.clone(),
            key_id: Some(key.clone()),
            secret_name: None,
            certificate_id: None,
            access_key_id: row.access_key_id,
            client_key_id: row.client_key_id,
            source: row.source,
            encryption_context: row.encryption_context,
            policy: policy.clone(),
            timeout_ms: None,
        };
        let ExplainAccessReply { allowed, rule, explanation, .. } = ask!(api, ExplainAccess, request);
        let (operation, expected) = (row.operation, row.allowed);
        outcomes.push(Outcome { operation, who, expected, allowed, rule, explanation });
    }
    let unmet = outcomes.iter().filter(|outcome| outcome.expected != outcome.allowed).count();
    match api.json {
        true => output::json(&outcomes)?,
        false => print(&outcomes)?,
    }
    match unmet {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{unmet} of {} expectations are not met", outcomes.len()))),
    }
}

fn print(outcomes: &[Outcome]) -> Result<()> {
    let mut rows = Rows::new(&["", "operation", "who", "expected", "is", "rule"]);
    for outcome in outcomes {
        let mark = if outcome.expected == outcome.allowed { "met" } else { "NOT MET" };
        let (expected, is) = (verdict(outcome.expected), verdict(outcome.allowed));
        rows.add(&[&mark, &outcome.operation, &outcome.who, &expected, &is, &outcome.rule]);
    }
    rows.print("nothing is expected")?;
    for outcome in outcomes.iter().filter(|outcome| outcome.expected != outcome.allowed) {
        output::line(format_args!(
            "{} by {}: {}",
            outcome.operation,
            outcome.who,
            output::harmless(&outcome.explanation)
        ))?;
    }
    Ok(())
}

fn verdict(allowed: bool) -> impl fmt::Display {
    if allowed { "allowed" } else { "refused" }
}

fn read(path: &std::path::Path) -> Result<String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Failure::because(path.display()))?;
    let mut text = String::new();
    file.take(FILE_BYTES).read_to_string(&mut text).map_err(Failure::because(path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_help_is_one() {
        let file = r#"{"Key": "alias/orders", "Policy": {"Version": "1", "Statement": []}, "Expect": [{"Operation": "Decrypt",
            "ClientKeyId": "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9", "Source": "10.0.0.7",
            "EncryptionContext": {"tenant": "a"}, "Allowed": true}]}"#;
        let read: Expectations = serde_json::from_str(file).unwrap();
        assert!(read.expect[0].allowed && read.policy.is_some());
        for wrong in [
            r#"{"Key": "alias/a"}"#,
            r#"{"Key": "alias/a", "Expect": [{"Operation": "Encrypt", "Allow": true}]}"#,
        ] {
            assert!(serde_json::from_str::<Expectations>(wrong).is_err());
        }
    }
}
