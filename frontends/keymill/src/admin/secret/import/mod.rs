//! `keymill secret import`: entries of dotenv, JSON or Kubernetes Secret files as secrets. What is there with the same value stays as it is, so
//! that the same import once more changes nothing.

mod dotenv;
mod json;
mod manifest;
mod source;
mod yaml;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keymill_core::id::{KeyRef, SecretName, SecretRef, SecretVersionId};
use keymill_core::operation::*;
use keymill_core::{Sensitive, limit};
use serde::Serialize;

use super::edit::fresh;
use super::fetch::{self, Fetched};
use crate::admin::{Api, ask, parse_key};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};
use crate::process;
use source::{Entry, Unreadable, clipped};

/// Bytes of a file, at most.
const MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Args, Clone, Debug)]
pub(super) struct ImportArgs {
    /// The file; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is; by its name if absent
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// What stands before each name
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Do it; without this, what would be done is shown, and nothing is changed
    #[arg(long)]
    apply: bool,
    /// The name of the versions that are put; one of the time if absent. Who may put values and not read them names one, so that the same import
    /// once more changes nothing
    #[arg(long, value_name = "ID")]
    version: Option<SecretVersionId>,
    /// The key that the values of new secrets are encrypted under: id, ARN or alias; a key that is kept for this if absent
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<KeyRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// NAME=VALUE lines
    Dotenv,
    /// One object of names and values
    Json,
    /// Manifests of Secrets, in YAML or JSON; each key is a secret NAME/KEY
    Kubernetes,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// There is no such secret: it is made.
    Created,
    /// There is one of another value: this is put as its current one.
    Put,
    /// It is there with this value.
    Same,
    /// It is refused.
    Failed(String),
}

#[derive(Serialize)]
struct Line {
    name: SecretName,
    #[serde(flatten)]
    outcome: Told,
}

#[derive(Serialize)]
struct Told {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Imports the file.
pub(super) fn run(api: &Api, args: &ImportArgs) -> Result<()> {
    process::keep_memory_private()?;
    let entries = named(read(args)?, &args.prefix)?;
    let version = match &args.version {
        Some(version) => version.clone(),
        None => fresh("import")?,
    };
    let fetched = fetch::current(api, entries.iter().map(|(name, _)| name.clone()))?;
    let mut lines = Vec::with_capacity(entries.len());
    for (name, entry) in &entries {
        let outcome = match planned(api, &fetched, name, entry) {
            Ok(outcome) if args.apply => applied(api, args, &version, name, entry, outcome),
            Ok(outcome) => outcome,
            Err(why) => Outcome::Failed(why.to_string()),
        };
        lines.push((name.clone(), outcome));
    }
    report(api, args, lines)
}

fn read(args: &ImportArgs) -> Result<Vec<Entry>> {
    let shown = args.file.display();
    let format = args.format.or_else(|| by_name(&args.file)).ok_or_else(|| {
        Failure::wrong_use(format!("what {shown} is, its name does not tell"))
            .next("name it: --format dotenv, json or kubernetes")
    })?;
    let mut from: Box<dyn Read> = match args.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&args.file).map_err(Failure::because(&shown))?),
    };
    // Reserved at once: a growing buffer would leave copies behind.
    let mut bytes = Sensitive::zeroed(MAX_BYTES + 1);
    let mut length = 0;
    while length < bytes.len() {
        match from.read(&mut bytes.expose_mut()[length..]).map_err(Failure::because(&shown))? {
            0 => break,
            read => length += read,
        }
    }
    if length > MAX_BYTES {
        return Err(Failure::new(format!("{shown} is longer than {MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes.expose()[..length]);
    let text = text.map_err(|_| Failure::new(format!("{shown} is no text in UTF-8")))?;
    let entries = match format {
        Format::Dotenv => dotenv::read(text),
        Format::Json => json::read(text),
        Format::Kubernetes => manifest::read(text),
    };
    entries.map_err(|Unreadable { line, why }| match line {
        0 => Failure::new(format!("{shown}: {why}")),
        line => Failure::new(format!("{shown}:{line}: {why}")),
    })
}

fn by_name(file: &Path) -> Option<Format> {
    let name = file.file_name()?.to_str()?;
    match name.rsplit('.').next()? {
        "env" => Some(Format::Dotenv),
        "json" => Some(Format::Json),
        "yaml" | "yml" => Some(Format::Kubernetes),
        _ if name.starts_with(".env") => Some(Format::Dotenv),
        _ => None,
    }
}

/// Gives each entry the name of its secret, before anything is done with any of them.
fn named(entries: Vec<Entry>, prefix: &str) -> Result<Vec<(SecretName, Entry)>> {
    let name = |entry: Entry| {
        let name = format!("{prefix}{}", entry.key);
        match name.parse() {
            Ok(name) => Ok((name, entry)),
            Err(error) => {
                let error: keymill_core::Error = error;
                Err(Failure::new(format!("{}: {}", clipped(&name), error.message())))
            }
        }
    };
    entries.into_iter().map(name).collect()
}

/// Tells what is to become of an entry.
fn planned(api: &Api, fetched: &Fetched, name: &SecretName, entry: &Entry) -> Result<Outcome> {
    if entry.value.is_empty() || entry.value.len() > limit::SECRET_BYTES {
        let why = format!("a value has 1 to {} bytes", limit::SECRET_BYTES);
        return Ok(Outcome::Failed(why));
    }
    match fetched.get(name) {
        Some(Ok(value)) => {
            let is_same = value.text == entry.value && value.data_type == data_type(entry);
            Ok(if is_same { Outcome::Same } else { Outcome::Put })
        }
        Some(Err(fault)) if fault.http_status != 404 => {
            Ok(Outcome::Failed(format!("{}: {}", fault.code, fault.message)))
        }
        // One that may not be read looks like one that is not there.
        _ => {
            let request = DescribeSecretRequest {
                secret_name: name.clone().into(),
                fetch_tags: None,
                timeout_ms: None,
            };
            Ok(match api.call(request) {
                Ok(_) => Outcome::Put,
                Err(_) => Outcome::Created,
            })
        }
    }
}

fn data_type(entry: &Entry) -> SecretDataType {
    if entry.is_binary { SecretDataType::Binary } else { SecretDataType::Text }
}

/// Does what was planned.
fn applied(
    api: &Api,
    args: &ImportArgs,
    version: &SecretVersionId,
    name: &SecretName,
    entry: &Entry,
    planned: Outcome,
) -> Outcome {
    let done = match planned {
        Outcome::Same | Outcome::Failed(_) => return planned,
        Outcome::Created => create(api, args, version, name, entry).map(|()| Outcome::Created),
        Outcome::Put => put(api, version, name, entry),
    };
    done.unwrap_or_else(|why| Outcome::Failed(why.to_string().lines().next().unwrap_or_default().to_owned()))
}

fn create(
    api: &Api,
    args: &ImportArgs,
    version: &SecretVersionId,
    name: &SecretName,
    entry: &Entry,
) -> Result<()> {
    let request = CreateSecretRequest {
        secret_name: name.clone(),
        version_id: version.clone(),
        secret_data: SecretText::from(entry.value.as_str()),
        secret_data_type: Some(data_type(entry)),
        secret_type: None,
        encryption_key_id: args.key.clone(),
        description: None,
        tags: None,
        policy: None,
        extended_config: None,
        enable_automatic_rotation: None,
        rotation_interval: None,
        dkms_instance_id: None,
        timeout_ms: None,
    };
    api.call(request).map(drop)
}

/// Puts a value; where the version was there before, the server took it for the same.
fn put(api: &Api, version: &SecretVersionId, name: &SecretName, entry: &Entry) -> Result<Outcome> {
    let was_there = has_version(api, version, name);
    let request = PutSecretValueRequest {
        secret_name: SecretRef::from(name.clone()),
        version_id: version.clone(),
        secret_data: SecretText::from(entry.value.as_str()),
        secret_data_type: Some(data_type(entry)),
        version_stages: None,
        timeout_ms: None,
    };
    ask!(api, PutSecretValue, request);
    Ok(if was_there { Outcome::Same } else { Outcome::Put })
}

fn has_version(api: &Api, version: &SecretVersionId, name: &SecretName) -> bool {
    let list = || -> Result<bool> {
        let request = ListSecretVersionIdsRequest {
            secret_name: name.clone().into(),
            include_deprecated: Some(true),
            page_number: None,
            page_size: Some(limit::PAGE_SIZE),
            timeout_ms: None,
        };
        let reply = ask!(api, ListSecretVersionIds, request);
        Ok(reply.version_ids.version_id.iter().any(|row| row.version_id == *version))
    };
    // Who may not list them is told of a put.
    list().unwrap_or(false)
}

fn report(api: &Api, args: &ImportArgs, lines: Vec<(SecretName, Outcome)>) -> Result<()> {
    let count = |wanted: fn(&Outcome) -> bool| lines.iter().filter(|(_, outcome)| wanted(outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let changes = count(|outcome| matches!(outcome, Outcome::Created | Outcome::Put));
    let told = |outcome: Outcome| match outcome {
        Outcome::Created => Told { outcome: "created", why: None },
        Outcome::Put => Told { outcome: "put", why: None },
        Outcome::Same => Told { outcome: "same", why: None },
        Outcome::Failed(why) => Told { outcome: "failed", why: Some(why) },
    };
    let total = lines.len();
    let lines: Vec<Line> =
        lines.into_iter().map(|(name, outcome)| Line { name, outcome: told(outcome) }).collect();
    match api.json {
        true => output::json(&lines)?,
        false => {
            let mut rows = Rows::new(&["name", if args.apply { "outcome" } else { "would be" }, "why"]);
            for Line { name, outcome: Told { outcome, why } } in &lines {
                rows.add(&[name, outcome, &output::or_dash(why.as_ref())]);
            }
            rows.print("the file has no entries")?;
            if !args.apply && changes > 0 {
                output::note("nothing is changed yet: --apply does it")?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{failed} of {total} entries failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name() {
        for (name, format) in [
            (".env", Some(Format::Dotenv)),
            ("a/.env.local", Some(Format::Dotenv)),
            ("prod.env", Some(Format::Dotenv)),
            ("a.json", Some(Format::Json)),
            ("a.yml", Some(Format::Kubernetes)),
            ("secrets", None),
            ("-", None),
        ] {
            assert_eq!(by_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_told_before_anything_is_done() {
        let entry = |key: &str| Entry::text(key, zeroize::Zeroizing::new("MARKED".to_owned()));
        assert_eq!(named(vec![entry("DB")], "shop/").unwrap()[0].0.as_str(), "shop/DB");
        let error = named(vec![entry("DB"), entry("a b")], "shop/").map(drop).unwrap_err().to_string();
        assert!(error.contains("shop/a b") && !error.contains("MARKED"), "{error}");
    }
}
