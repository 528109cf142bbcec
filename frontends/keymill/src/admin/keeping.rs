//! `keymill key`: how keys are kept. Rotation by policy, protection against deletion, tags, who may do what with them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keymill_core::id::KeyRef;
use keymill_core::key::RotationInterval;
use keymill_core::limit;
use keymill_core::operation::{
    GetKeyPolicyRequest, ListResourceTagsRequest, SetDeletionProtectionRequest, SetKeyPolicyRequest, TagPair,
    TagResourceRequest, UntagResourceRequest, UpdateRotationPolicyRequest,
};

use super::key::Named;
use super::{Api, ask};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum KeepingCommand {
    /// Have a key rotated by itself, or no longer
    SetRotation(RotationArgs),
    /// Protect a key against deletion until `key unprotect`
    Protect {
        #[command(flatten)]
        named: Named,
        /// Why, as free text
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let a key be deleted again
    Unprotect(Named),
    /// Put tags on a key; those of the same name are replaced
    Tag {
        #[command(flatten)]
        named: Named,
        /// The tags
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = parse_tag)]
        tags: Vec<TagPair>,
    },
    /// Take tags off a key
    Untag {
        #[command(flatten)]
        named: Named,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// List the tags of a key
    Tags(Named),
    /// Print the policy of a key: its own document of who may do what with it, beside what access keys are granted
    Policy(Named),
    /// Give a key another policy; it is in force with the next request
    SetPolicy {
        #[command(flatten)]
        named: Named,
        /// The document in JSON, as `key policy` prints it; - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RotationArgs {
    #[command(flatten)]
    named: Named,
    /// How often: 7d to 730d, or in h, m, s
    #[arg(long, value_name = "INTERVAL", value_parser = parse_interval, required_unless_present = "off")]
    every: Option<RotationInterval>,
    /// No longer
    #[arg(long, conflicts_with = "every")]
    off: bool,
}

pub(crate) fn parse_interval(text: &str) -> Result<RotationInterval, String> {
    RotationInterval::parse(text).map_err(|error| error.message().to_owned())
}

pub(crate) fn parse_tag(text: &str) -> Result<TagPair, String> {
    let (name, value) = text.split_once('=').ok_or("a tag is NAME=VALUE; the value may be empty")?;
    Ok(TagPair { tag_key: name.to_owned(), tag_value: value.to_owned() })
}

/// Does what the command says.
pub(crate) fn run(api: &Api, command: KeepingCommand) -> Result<()> {
    let id = |named: Named| api.key_id(named.key);
    let timeout_ms = None;
    match command {
        KeepingCommand::SetRotation(RotationArgs { named, every, off }) => {
            let id = id(named)?;
            let request = UpdateRotationPolicyRequest {
                key_id: KeyRef::Id(id),
                enable_automatic_rotation: !off,
                rotation_interval: every,
                timeout_ms,
            };
            let reply = ask!(api, UpdateRotationPolicy, request);
            let what = if off { "is no longer rotated by itself" } else { "is rotated by itself" };
            api.done(&reply, format_args!("key {id} {what}"))
        }
        KeepingCommand::Protect { named, reason } => protect(api, named, Some(reason)),
        KeepingCommand::Unprotect(named) => protect(api, named, None),
        KeepingCommand::Tag { named, tags } => {
            let id = id(named)?;
            let request = TagResourceRequest {
                key_id: Some(KeyRef::Id(id)),
                secret_name: None,
                certificate_id: None,
                tags,
                timeout_ms,
            };
            let reply = ask!(api, TagResource, request);
            api.done(&reply, format_args!("key {id} has its tags"))
        }
        KeepingCommand::Untag { named, names } => {
            let id = id(named)?;
            let request = UntagResourceRequest {
                key_id: Some(KeyRef::Id(id)),
                secret_name: None,
                certificate_id: None,
                tag_keys: names,
                timeout_ms,
            };
            let reply = ask!(api, UntagResource, request);
            api.done(&reply, format_args!("key {id} has none of these tags"))
        }
        KeepingCommand::Tags(named) => {
            let key_id = Some(KeyRef::Id(id(named)?));
            let certificate_id = None;
            let request = ListResourceTagsRequest { key_id, certificate_id, timeout_ms };
            let reply = ask!(api, ListResourceTags, request);
            if api.json {
                return output::json(&reply);
            }
            let mut rows = Rows::new(&["NAME", "VALUE"]);
            for tag in &reply.tags.tag {
                rows.add(&[&tag.tag_key, &tag.tag_value]);
            }
            rows.print("no tags; `keymill key tag` puts some on")
        }
        KeepingCommand::Policy(named) => {
            let key_id = KeyRef::Id(id(named)?);
            let reply =
                ask!(api, GetKeyPolicy, GetKeyPolicyRequest { key_id, policy_name: None, timeout_ms });
            if api.json {
                return output::json(&reply);
            }
            let document: serde_json::Value =
                serde_json::from_str(&reply.policy).map_err(Failure::because("the policy is no JSON"))?;
            let text = format!("{document:#}");
            output::line(text.lines().map(output::harmless).collect::<Vec<_>>().join("\n"))
        }
        KeepingCommand::SetPolicy { named, file } => {
            let policy = document(&file)?;
            let id = id(named)?;
            let request =
                SetKeyPolicyRequest { key_id: KeyRef::Id(id), policy_name: None, policy, timeout_ms };
            let reply = ask!(api, SetKeyPolicy, request);
            api.done(&reply, format_args!("key {id} has its new policy"))
        }
    }
}

/// Reads a document, and no more of the file than the largest one and a byte.
fn document(file: &Path) -> Result<String> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()));
    let mut from: Box<dyn std::io::Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = String::new();
    from.by_ref().take(limit::POLICY_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn protect(api: &Api, named: Named, reason: Option<String>) -> Result<()> {
    let id = api.key_id(named.key)?;
    let (is_protected, what) = match reason {
        Some(_) => (true, "is protected against deletion"),
        None => (false, "can be deleted"),
    };
    let request = SetDeletionProtectionRequest {
        protected_resource_arn: None,
        key_id: Some(KeyRef::Id(id)),
        kms_instance_id: None,
        enable_deletion_protection: is_protected,
        deletion_protection_description: reason,
        timeout_ms: None,
    };
    let reply = ask!(api, SetDeletionProtection, request);
    api.done(&reply, format_args!("key {id} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_name_and_a_value_with_the_first_equals_sign_between() {
        for (text, name, value) in [("a=b", "a", "b"), ("a=", "a", ""), ("a=b=c", "a", "b=c")] {
            let TagPair { tag_key, tag_value } = parse_tag(text).unwrap();
            assert_eq!((&*tag_key, &*tag_value), (name, value));
        }
        assert!(parse_tag("a").is_err());
        assert!(parse_interval("7d").is_ok() && parse_interval("1d").is_err());
    }
}
