//! `keymill key`: how keys are kept. Rotation by policy, protection against deletion, tags.

use clap::{Args, Subcommand};
use keymill_core::id::KeyRef;
use keymill_core::key::RotationInterval;
use keymill_core::operation::{
    ListResourceTagsRequest, SetDeletionProtectionRequest, TagPair, TagResourceRequest, UntagResourceRequest,
    UpdateRotationPolicyRequest,
};

use super::key::Named;
use super::{Api, ask};
use crate::failure::Result;
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
            let key_id = KeyRef::Id(id(named)?);
            let reply = ask!(api, ListResourceTags, ListResourceTagsRequest { key_id, timeout_ms });
            if api.json {
                return output::json(&reply);
            }
            let mut rows = Rows::new(&["NAME", "VALUE"]);
            for tag in &reply.tags.tag {
                rows.add(&[&tag.tag_key, &tag.tag_value]);
            }
            rows.print("no tags; `keymill key tag` puts some on")
        }
    }
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
