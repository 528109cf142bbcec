//! `keymill secret reseal`: the values of secrets sealed under another key, or the newest version of their own, each secret as a whole. What is
//! sealed so already is left, so that the same command goes on where one before was cut off.

use clap::Args;
use keymill_core::id::{CmkId, KeyRef, SecretName};
use keymill_core::operation::{
    DescribeSecretRequest, ListSecretsRequest, ResealSecretReply, ResealSecretRequest,
};
use serde::Serialize;

use super::super::{Api, ask, ask_all, parse_key};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

#[derive(Args, Clone, Debug)]
pub(super) struct ResealArgs {
    /// The secrets
    #[arg(value_name = "NAME", required_unless_present = "all_under")]
    names: Vec<SecretName>,
    /// Every secret that this access key may see and whose values are sealed under this key: id, ARN or alias
    #[arg(long, value_name = "KEY", value_parser = parse_key, conflicts_with = "names")]
    all_under: Option<KeyRef>,
    /// The key that the values are sealed under from then on; the newest version of their own if absent
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    under: Option<KeyRef>,
    /// Milliseconds that each may take
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct Line {
    name: SecretName,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Seals them one after the other; one that fails stops no other.
pub(super) fn run(api: &Api, args: ResealArgs) -> Result<()> {
    let ResealArgs { names, all_under, under, timeout_ms } = args;
    let names = match all_under {
        Some(key) => sealed_under(api, api.key_id(key)?)?,
        None => names,
    };
    let mut lines = Vec::with_capacity(names.len());
    for name in names {
        let (outcome, why) = match reseal(api, &name, under.as_ref(), timeout_ms) {
            Ok(ResealSecretReply { is_changed: true, .. }) => ("sealed anew", None),
            Ok(_) => ("same", None),
            Err(error) => ("failed", Some(error.to_string())),
        };
        lines.push(Line { name, outcome, why });
    }
    report(api, &lines)
}

fn reseal(
    api: &Api,
    name: &SecretName,
    under: Option<&KeyRef>,
    timeout_ms: Option<u64>,
) -> Result<ResealSecretReply> {
    let encryption_key_id = under.cloned();
    let request = ResealSecretRequest { secret_name: name.clone().into(), encryption_key_id, timeout_ms };
    Ok(ask!(api, ResealSecret, request))
}

/// Lists the secrets whose values are sealed under a key.
fn sealed_under(api: &Api, cmk: CmkId) -> Result<Vec<SecretName>> {
    let timeout_ms = None;
    let all = ask_all!(api, ListSecrets, secret_list.secret, |page_number, page_size| {
        ListSecretsRequest { filters: None, fetch_tags: None, page_number, page_size, timeout_ms }
    });
    let mut names = Vec::new();
    for row in all.secret_list.secret.into_iter().filter(|row| row.planned_delete_time.is_none()) {
        let secret_name = row.secret_name.clone().into();
        let request = DescribeSecretRequest { secret_name, fetch_tags: None, timeout_ms };
        if ask!(api, DescribeSecret, request).encryption_key_id == cmk {
            names.push(row.secret_name);
        }
    }
    Ok(names)
}

fn report(api: &Api, lines: &[Line]) -> Result<()> {
    match api.json {
        true => output::json(&lines)?,
        false => {
            let mut rows = Rows::new(&["name", "outcome", "why"]);
            for Line { name, outcome, why } in lines {
                let why = why.as_deref().map_or("-".into(), output::harmless);
                rows.add(&[name, outcome, &why]);
            }
            rows.print("no secret is sealed under this key")?;
        }
    }
    match lines.iter().filter(|line| line.outcome == "failed").count() {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{failed} of {} secrets are sealed as before", lines.len()))
            .next("run it again: what is done is left as it is")),
    }
}
