//! `keymill secret export`: values taken out of the server, by a right of its own (`ExportSecrets`). What is wrong with one of them leaves nothing
//! written.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use keymill_core::id::SecretName;
use keymill_core::operation::*;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::fetch::{self, Fetched, Value};
use crate::admin::{Api, ask_all};
use crate::failure::{Failure, Result};
use crate::{output, private, process};

#[derive(Args, Clone, Debug)]
pub(super) struct ExportArgs {
    /// Those whose names begin so
    #[arg(long, value_name = "TEXT", required_unless_present = "names")]
    prefix: Option<String>,
    /// These
    #[arg(value_name = "NAME", conflicts_with = "prefix")]
    names: Vec<SecretName>,
    /// The file that is made, which only you can read; nothing is written over
    #[arg(long, value_name = "FILE", required_unless_present = "stdout")]
    out: Option<PathBuf>,
    /// To standard output in the place of a file
    #[arg(long, conflicts_with = "out")]
    stdout: bool,
}

/// Writes one JSON object: names, and values as `keymill secret import` reads them.
pub(super) fn run(api: &Api, args: ExportArgs) -> Result<()> {
    process::keep_memory_private()?;
    if let Some(out) = &args.out {
        private::check_new(out)?;
    }
    let names = match args.prefix {
        None => args.names,
        Some(prefix) => beginning_with(api, prefix)?,
    };
    if names.is_empty() {
        return Err(Failure::new("there is no such secret")
            .next("`keymill secret list` shows those that you may see"));
    }
    let fetched = fetch::exported(api, names)?;
    let missing: Vec<String> =
        fetched.values().filter_map(|one| one.as_ref().err().map(fetch::told)).collect();
    if !missing.is_empty() {
        let why = format!("nothing is exported, since not all can be:\n  {}", missing.join("\n  "));
        return Err(Failure::new(why)
            .next("the rights are GetSecretValue and ExportSecrets, which no role but Root holds: a custom role or the secret's policy gives it"));
    }
    let bytes = written(&fetched)?;
    match &args.out {
        Some(out) => {
            private::create(out, &bytes)?;
            output::line(format_args!("{} holds {} secrets in clear", out.display(), fetched.len()))
        }
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush()).map_err(Failure::of_output)
        }
    }
}

fn beginning_with(api: &Api, prefix: String) -> Result<Vec<SecretName>> {
    let filters =
        (!prefix.is_empty()).then(|| vec![KeyFilter { key: "SecretName".into(), values: vec![prefix] }]);
    let reply = ask_all!(api, ListSecrets, secret_list.secret, |page_number, page_size| ListSecretsRequest {
        filters: filters.clone(),
        fetch_tags: None,
        page_number,
        page_size,
        timeout_ms: None,
    });
    // Those that wait for their deletion have no values any more.
    let alive = reply.secret_list.secret.into_iter().filter(|row| row.planned_delete_time.is_none());
    Ok(alive.map(|row| row.secret_name).collect())
}

/// Writes the object into a buffer of its final size: one that grows would leave copies behind.
fn written(fetched: &Fetched) -> Result<Zeroizing<Vec<u8>>> {
    // Each character of a value is six in JSON at most.
    let bytes: usize = fetched.iter().map(|(name, value)| name.as_str().len() + size(value) + 64).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(bytes + 64));
    serde_json::to_writer_pretty(&mut *out, &Object(fetched)).map_err(Failure::because("JSON"))?;
    out.push(b'\n');
    Ok(out)
}

fn size<E>(value: &Result<Value, E>) -> usize {
    value.as_ref().map_or(0, |value| 6 * value.text.len())
}

struct Object<'f>(&'f Fetched);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            let Ok(value) = value else { continue };
            match value.data_type {
                SecretDataType::Text => map.serialize_entry(name.as_str(), value.text.as_str())?,
                SecretDataType::Binary => {
                    map.serialize_entry(name.as_str(), &Binary { binary: &value.text })?
                }
            }
        }
        map.end()
    }
}

/// A value that is bytes, in base64.
#[derive(Serialize)]
struct Binary<'v> {
    #[serde(rename = "Binary")]
    binary: &'v str,
}
