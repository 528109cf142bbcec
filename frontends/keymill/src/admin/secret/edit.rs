//! `keymill secret edit`: a value in the caller's own editor, and back as the next version, unless somebody else was faster.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use keymill_core::id::{SecretRef, SecretVersionId, VersionStage};
use keymill_core::operation::*;
use keymill_core::{Timestamp, limit};
use zeroize::Zeroizing;

use super::child::{Relay, unblock};
use super::fetch::Value;
use super::memory::Folder;
use crate::admin::{Api, ask, of_another};
use crate::credentials::SECRET_VARIABLES;
use crate::failure::{Failure, Result};
use crate::{output, process};

#[derive(Args, Clone, Debug)]
pub(super) struct EditArgs {
    /// Its name or ARN
    #[arg(value_name = "NAME")]
    name: SecretRef,
    /// The name of the new version; one of the time if absent
    #[arg(long, value_name = "ID")]
    version: Option<SecretVersionId>,
}

/// Has a value edited, and puts what came of it.
pub(super) fn run(api: &Api, args: EditArgs) -> Result<()> {
    process::keep_memory_private()?;
    let before = read(api, &args.name)?;
    let (relay, folder) = (Relay::block()?, Folder::make()?);
    let old = before.bytes();
    let file = folder.write("value", &old)?;
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    // As git has it: an editor may be a command line of its own.
    let mut command = relay.command("sh")?;
    command.args(["-c", &format!("{editor} \"$@\""), &editor]).arg(&file);
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    let status = relay.run(&mut command)?;
    if !status.success() {
        return Err(Failure::new(format!("the editor ended with {status}: nothing is put")));
    }
    let edited = folder.read(&file, limit::SECRET_BYTES)?;
    drop(folder);
    unblock()?;
    let edited = without_added_newline(&old, edited.expose());
    if edited == &**old {
        return output::line(format_args!("secret {} is as it was: nothing is put", args.name.0));
    }
    let text = text_of(before.data_type, edited)?;
    put(api, &args, &before, &text)
}

/// Editors end a file with a newline: one that the value did not have is taken away.
fn without_added_newline<'e>(old: &[u8], edited: &'e [u8]) -> &'e [u8] {
    match edited.strip_suffix(b"\n") {
        Some(shorter) if !old.ends_with(b"\n") => shorter,
        _ => edited,
    }
}

fn text_of(data_type: SecretDataType, bytes: &[u8]) -> Result<Zeroizing<String>> {
    match data_type {
        SecretDataType::Binary => Ok(Zeroizing::new(STANDARD.encode(bytes))),
        SecretDataType::Text => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(Failure::new("what was edited is no text any more: nothing is put")),
        },
    }
}

fn read(api: &Api, name: &SecretRef) -> Result<Value> {
    let request = GetSecretValueRequest {
        secret_name: name.clone(),
        version_id: None,
        version_stage: None,
        fetch_extended_config: None,
        timeout_ms: None,
    };
    let answered = api.call(request)?;
    match answered.reply()? {
        Reply::GetSecretValue(reply) => Ok(Value::of(&reply)),
        other => Err(of_another(other.operation())),
    }
}

/// Puts the text under a stage of its own and then has `ACSCurrent` leave the version that was edited: where it is not there any more,
/// somebody was faster, and nothing of either is lost.
fn put(api: &Api, args: &EditArgs, before: &Value, text: &str) -> Result<()> {
    let version = match &args.version {
        Some(version) => version.clone(),
        None => fresh("edit")?,
    };
    let stage: VersionStage =
        version.as_str().parse().map_err(|_| Failure::new("a version and a stage are named alike"))?;
    let request = PutSecretValueRequest {
        secret_name: args.name.clone(),
        version_id: version.clone(),
        secret_data: SecretText::from(text),
        secret_data_type: Some(before.data_type),
        version_stages: Some(vec![stage.clone()]),
        timeout_ms: None,
    };
    let name = ask!(api, PutSecretValue, request).secret_name;
    let promote = UpdateSecretVersionStageRequest {
        secret_name: args.name.clone(),
        version_stage: VersionStage::current(),
        move_to_version: Some(version.clone()),
        remove_from_version: Some(before.version.clone()),
        timeout_ms: None,
    };
    if let Err(refused) = api.call(promote) {
        let kept = format!("what you wrote is kept as version {version}");
        let next =
            format!("`keymill secret stage {name} ACSCurrent --to {version}` makes it the current one");
        return match read(api, &args.name) {
            Ok(now) if now.version != before.version => Err(Failure::new(format!(
                "secret {name} was changed meanwhile: version {} is current, and {kept}",
                now.version
            ))
            .next(next)),
            _ => Err(Failure::new(format!("{refused}; {kept}")).next(next)),
        };
    }
    let tidy = UpdateSecretVersionStageRequest {
        secret_name: args.name.clone(),
        version_stage: stage,
        move_to_version: None,
        remove_from_version: Some(version.clone()),
        timeout_ms: None,
    };
    let reply = ask!(api, UpdateSecretVersionStage, tidy);
    api.done(&reply, format_args!("secret {name} has version {version}, which is current"))
}

/// Returns the name of a version of now that nobody else makes.
pub(super) fn fresh(prefix: &str) -> Result<SecretVersionId> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time: String = Timestamp::from_ms(now.as_millis() as u64).to_string();
    let time: String = time.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Failure::new("the system gives no random bytes"))?;
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}-{time}-{random}")
        .parse()
        .map_err(|_| Failure::new("a version cannot be named by the time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_that_an_editor_adds_is_none_of_the_value() {
        let kept = |old: &[u8], edited: &'static [u8]| without_added_newline(old, edited);
        assert_eq!(kept(b"a", b"a\n"), b"a");
        assert_eq!(kept(b"a", b"b\n\n"), b"b\n");
        assert_eq!(kept(b"a\n", b"a\n"), b"a\n");
        assert_eq!(kept(b"a\n", b"a"), b"a");
        assert_eq!(kept(b"", b"\n"), b"");
    }

    #[test]
    fn versions_of_one_moment_have_names_of_their_own() {
        let (a, b) = (fresh("edit").unwrap(), fresh("edit").unwrap());
        assert!(a != b && a.as_str().starts_with("edit-2"), "{a}");
    }
}
