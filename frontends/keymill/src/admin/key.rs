//! `keymill key`: the life of keys.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use keymill_core::id::{AliasName, CmkId, KeyRef, KeyVersionId};
use keymill_core::key::{
    AutomaticRotation, BulkMode, Fallback, KeySpec, KeyStorageMechanism, KeyUsage, Origin, ProtectionLevel,
    RotationInterval,
};
use keymill_core::limit;
use keymill_core::operation::{
    CancelKeyDeletionRequest, CreateAliasRequest, CreateKeyRequest, CreateKeyVersionRequest,
    DescribeKeyRequest, DisableKeyRequest, EnableKeyRequest, GetPublicKeyRequest, KeyMetadata,
    ListAliasesByKeyIdRequest, ListAliasesRequest, ListKeyVersionsRequest, ListKeysRequest, RotateKeyRequest,
    ScheduleKeyDeletionRequest, TagPair, UpdateKeyDescriptionRequest,
};

use serde::Serialize;

use super::import::{self, ImportCommand};
use super::keeping::{self, KeepingCommand, parse_interval, parse_tag};
use super::{Api, ClientArgs, ask, ask_all, parse_key};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows, grouped, or_dash};

/// Create, list and change customer master keys
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum KeyCommand {
    /// Create a key: for encryption and decryption unless --spec says another kind
    Create(CreateArgs),
    /// List the keys that this access key may see
    List,
    /// Show all that is known of a key
    Describe(Named),
    /// Enable a disabled key
    Enable(Named),
    /// Disable a key: from the answer on, nobody can encrypt or decrypt with it
    Disable(Named),
    /// Schedule the deletion of a key, after which nothing that it encrypted can ever be decrypted
    ScheduleDeletion {
        #[command(flatten)]
        named: Named,
        /// Days until then, in which the deletion can be cancelled
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32)
            .range(*limit::DELETION_WINDOW_DAYS.start() as i64..=*limit::DELETION_WINDOW_DAYS.end() as i64))]
        days: u32,
    },
    /// Cancel a scheduled deletion; the key is enabled again
    CancelDeletion(Named),
    /// Make a new version that encrypts from now on; older ones still decrypt what they encrypted
    Rotate(Named),
    /// Make a new version of a key pair, a week after the last one at the earliest; who signs names the version
    NewVersion(Named),
    /// Print the public half of a key pair in PEM: of its newest version, or of the one that is named
    PublicKey {
        #[command(flatten)]
        named: Named,
        /// The version id, as `key versions` lists it
        #[arg(long, value_name = "ID", value_parser = parse_version)]
        version: Option<KeyVersionId>,
    },
    /// List the versions of a key with their use
    Versions(Named),
    #[command(flatten)]
    Keeping(KeepingCommand),
    #[command(flatten)]
    Import(ImportCommand),
    /// Change the description of a key
    SetDescription {
        #[command(flatten)]
        named: Named,
        /// What it is for, as free text
        #[arg(value_name = "TEXT")]
        description: String,
    },
}

#[derive(Args, Clone, Debug)]
struct CreateArgs {
    /// Names the key at once
    #[arg(long, value_name = "alias/NAME")]
    alias: Option<AliasName>,
    /// What it is for, as free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where its material lives: software or hsm [default: as the server's configuration says]
    #[arg(long, value_name = "LEVEL", value_parser = parse_protection)]
    protection: Option<ProtectionLevel>,
    /// Where AES-GCM of an HSM key runs: InHsm, every item in the HSM; HsmDerived, on the server's CPU under subkeys that the HSM derives
    #[arg(long, value_name = "MODE", value_parser = parse_bulk_mode)]
    bulk_mode: Option<BulkMode>,
    /// When a software copy of an HSM key may stand in for the HSM: never, unavailable, saturated (also while its queue is full); the
    /// server's pool must allow it [default: never]
    #[arg(long, value_name = "WHEN", value_parser = parse_fallback)]
    fallback: Option<Fallback>,
    /// Where the material of an HSM key is kept: HsmEncryptedDatabase, in the store, wrapped by the domain key, so that any token of the
    /// domain serves it; HsmInternal, in the one token that makes it, with no fail-over [default: HsmEncryptedDatabase]
    #[arg(long, value_name = "MECHANISM", value_parser = parse_storage)]
    storage: Option<KeyStorageMechanism>,
    /// The kind of key: Aliyun_AES_256, Aliyun_AES_192, Aliyun_AES_128, Aliyun_SM4, RSA_2048, RSA_3072, RSA_4096, EC_P256, EC_P384,
    /// EC_P256K, EC_SM2, Ed25519, ML_DSA_65, HMAC_SHA_256, HMAC_SHA_384, HMAC_SHA_512; HSMs make some of them [default: Aliyun_AES_256]
    #[arg(long, value_name = "SPEC", value_parser = parse_spec)]
    spec: Option<KeySpec>,
    /// What it is for, where its kind leaves a choice (RSA, SM2): sign or encrypt [default: sign]
    #[arg(long = "use", value_name = "USE", value_parser = parse_usage)]
    usage: Option<KeyUsage>,
    /// Has it rotated by itself so often: 7d to 730d, or in h, m, s
    #[arg(long, value_name = "INTERVAL", value_parser = parse_interval)]
    rotate_every: Option<RotationInterval>,
    /// Its material is not made here: `key import` brings it
    #[arg(long, conflicts_with = "rotate_every")]
    external: bool,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<TagPair>,
}

pub(super) fn parse_protection(text: &str) -> Result<ProtectionLevel, String> {
    match text.to_ascii_lowercase().as_str() {
        "software" => Ok(ProtectionLevel::Software),
        "hsm" => Ok(ProtectionLevel::Hsm),
        _ => Err("it is software or hsm".to_owned()),
    }
}

fn parse_storage(text: &str) -> Result<KeyStorageMechanism, String> {
    match text.to_ascii_lowercase().as_str() {
        "hsmencrypteddatabase" => Ok(KeyStorageMechanism::HsmEncryptedDatabase),
        "hsminternal" => Ok(KeyStorageMechanism::HsmInternal),
        _ => Err("it is HsmEncryptedDatabase or HsmInternal".to_owned()),
    }
}

pub(crate) fn parse_bulk_mode(text: &str) -> Result<BulkMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "inhsm" | "in-hsm" => Ok(BulkMode::InHsm),
        "hsmderived" | "hsm-derived" => Ok(BulkMode::HsmDerived),
        _ => Err("it is InHsm or HsmDerived".to_owned()),
    }
}

pub(super) fn parse_fallback(text: &str) -> Result<Fallback, String> {
    let all = [Fallback::Never, Fallback::Unavailable, Fallback::Saturated];
    all.into_iter()
        .find(|fallback| fallback.name() == text.to_ascii_lowercase())
        .ok_or_else(|| "it is never, unavailable or saturated".to_owned())
}

pub(crate) fn parse_spec(text: &str) -> Result<KeySpec, String> {
    let found = KeySpec::ALL.into_iter().find(|spec| spec.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("it is one of {}", KeySpec::ALL.map(KeySpec::name).join(", ")))
}

fn parse_usage(text: &str) -> Result<KeyUsage, String> {
    match text.to_ascii_lowercase().as_str() {
        "encrypt" => Ok(KeyUsage::EncryptDecrypt),
        "sign" => Ok(KeyUsage::SignVerify),
        "mac" => Ok(KeyUsage::GenerateVerifyMac),
        _ => Err("it is sign, encrypt or mac".to_owned()),
    }
}

fn parse_version(text: &str) -> Result<KeyVersionId, String> {
    let parsed = KeyVersionId::parse(text);
    parsed.ok_or_else(|| "it is the id of a version, as `keymill key versions` lists it".to_owned())
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Named {
    /// Key id, ARN or alias
    #[arg(value_name = "KEY", value_parser = parse_key)]
    pub(crate) key: KeyRef,
}

/// Does what the command says.
pub(crate) fn run(args: KeyArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let id = |named: Named| api.key_id(named.key);
    let timeout_ms = None;
    match args.command {
        KeyCommand::Create(args) => create(&api, args),
        KeyCommand::List => list(&api),
        KeyCommand::Describe(named) => describe(&api, named.key),
        KeyCommand::Enable(named) => {
            let id = id(named)?;
            let reply = ask!(api, EnableKey, EnableKeyRequest { key_id: KeyRef::Id(id), timeout_ms });
            api.done(&reply, format_args!("key {id} is enabled"))
        }
        KeyCommand::Disable(named) => {
            let id = id(named)?;
            let reply = ask!(api, DisableKey, DisableKeyRequest { key_id: KeyRef::Id(id), timeout_ms });
            api.done(&reply, format_args!("key {id} is disabled"))
        }
        KeyCommand::ScheduleDeletion { named, days } => {
            let key_id = KeyRef::Id(id(named)?);
            schedule_deletion(&api, key_id, days)
        }
        KeyCommand::CancelDeletion(named) => {
            let id = id(named)?;
            let request = CancelKeyDeletionRequest { key_id: KeyRef::Id(id), timeout_ms };
            let reply = ask!(api, CancelKeyDeletion, request);
            api.done(&reply, format_args!("key {id} is kept, and enabled"))
        }
        KeyCommand::Rotate(named) => {
            let id = id(named)?;
            let reply = ask!(api, RotateKey, RotateKeyRequest { key_id: KeyRef::Id(id), timeout_ms });
            api.done(&reply, format_args!("key {id} encrypts with version {} now", reply.key_version_id))
        }
        KeyCommand::NewVersion(named) => {
            let id = id(named)?;
            let request = CreateKeyVersionRequest { key_id: KeyRef::Id(id), timeout_ms };
            let reply = ask!(api, CreateKeyVersion, request);
            let version = reply.key_version.key_version_id;
            api.done(&reply, format_args!("key {id} has the new version {version}"))
        }
        KeyCommand::PublicKey { named, version } => public_key(&api, named.key, version),
        KeyCommand::Versions(named) => versions(&api, id(named)?),
        KeyCommand::Keeping(command) => keeping::run(&api, command),
        KeyCommand::Import(command) => import::run(&api, command),
        KeyCommand::SetDescription { named, description } => {
            let id = id(named)?;
            let request = UpdateKeyDescriptionRequest { key_id: KeyRef::Id(id), description, timeout_ms };
            let reply = ask!(api, UpdateKeyDescription, request);
            api.done(&reply, format_args!("key {id} has its new description"))
        }
    }
}

fn create(api: &Api, args: CreateArgs) -> Result<()> {
    let CreateArgs {
        alias,
        description,
        protection,
        bulk_mode,
        fallback,
        storage,
        spec,
        usage,
        rotate_every,
        external,
        tags,
    } = args;
    see_free(api, alias.as_ref())?;
    // Who says where AES-GCM runs, what stands in for the HSM, or where it is kept there, means a key in one.
    let is_of_hsm = bulk_mode.is_some() || fallback.is_some() || storage.is_some();
    let protection_level = protection.or(is_of_hsm.then_some(ProtectionLevel::Hsm));
    let request = CreateKeyRequest {
        key_spec: spec,
        key_usage: usage,
        origin: external.then_some(Origin::External),
        protection_level,
        bulk_mode,
        fallback,
        key_storage_mechanism: storage,
        description,
        enable_automatic_rotation: rotate_every.map(|_| true),
        rotation_interval: rotate_every,
        tags: (!tags.is_empty()).then_some(tags),
        ..Default::default()
    };
    let reply = ask!(api, CreateKey, request);
    made(api, &reply, &reply.key_metadata, alias)
}

/// Sees that an alias is free before a key is made for it, so that a taken name leaves no nameless key behind.
pub(crate) fn see_free(api: &Api, alias: Option<&AliasName>) -> Result<()> {
    let Some(alias) = alias else { return Ok(()) };
    let request = DescribeKeyRequest { key_id: KeyRef::Alias(alias.clone()), timeout_ms: None };
    if let Ok(answered) = api.call(request) {
        answered.reply()?;
        return Err(Failure::new(format!("{alias} names a key already"))
            .next("choose another name, or have it name a new key by `keymill alias update`"));
    }
    Ok(())
}

/// Gives a key that was made its alias, and shows it.
pub(crate) fn made(
    api: &Api,
    reply: &impl Serialize,
    key: &KeyMetadata,
    alias: Option<AliasName>,
) -> Result<()> {
    let id = key.key_id;
    if let Some(alias_name) = alias.clone() {
        let request = CreateAliasRequest { alias_name, key_id: KeyRef::Id(id), timeout_ms: None };
        api.call(request)
            .map_err(|failure| Failure::new(format!("key {id} was created, and has no alias: {failure}")))?;
    }
    if api.json {
        return output::json(reply);
    }
    card(key, &alias.into_iter().collect::<Vec<_>>())
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let keys = ask_all!(api, ListKeys, keys.key, |page_number, page_size| ListKeysRequest {
        page_number,
        page_size,
        timeout_ms,
        ..Default::default()
    });
    if api.json {
        return output::json(&keys);
    }
    let mut aliases: BTreeMap<CmkId, Vec<String>> = BTreeMap::new();
    for row in all_aliases(api)? {
        aliases.entry(row.key_id).or_default().push(row.alias_name.to_string());
    }
    let mut rows = Rows::new(&["key id", "aliases", "state", "created", "last used", "uses", "description"])
        .numbers(&[5]);
    for row in keys.keys.key {
        // The list names keys and no more; a key may be gone since.
        let request = DescribeKeyRequest { key_id: KeyRef::Id(row.key_id), timeout_ms };
        let Ok(answered) = api.call(request) else { continue };
        let keymill_core::operation::Reply::DescribeKey(reply) = answered.reply()? else { continue };
        let key = reply.key_metadata;
        let names = aliases.remove(&key.key_id).unwrap_or_default().join(", ");
        let names = if names.is_empty() { "-".to_owned() } else { names };
        let state = format!("{:?}", key.key_state);
        let used = or_dash(key.last_used_date);
        rows.add(&[
            &key.key_id,
            &names,
            &state,
            &key.creation_date,
            &used,
            &grouped(key.use_count),
            &key.description,
        ]);
    }
    rows.print("no keys that this access key may see; `keymill key create` makes one")
}

fn describe(api: &Api, key: KeyRef) -> Result<()> {
    let reply = ask!(api, DescribeKey, DescribeKeyRequest { key_id: key, timeout_ms: None });
    if api.json {
        return output::json(&reply);
    }
    let key_id = || KeyRef::Id(reply.key_metadata.key_id);
    let timeout_ms = None;
    let aliases = ask_all!(api, ListAliasesByKeyId, aliases.alias, |page_number, page_size| {
        ListAliasesByKeyIdRequest { key_id: key_id(), page_number, page_size, timeout_ms }
    });
    let names: Vec<_> = aliases.aliases.alias.into_iter().map(|row| row.alias_name).collect();
    card(&reply.key_metadata, &names)
}

fn card(key: &KeyMetadata, aliases: &[AliasName]) -> Result<()> {
    let aliases = aliases.iter().map(AliasName::as_str).collect::<Vec<_>>().join(", ");
    let (state, protection) = (format!("{:?}", key.key_state), format!("{:?}", key.protection_level));
    let (spec, used, uses) = (key.key_spec.name(), or_dash(key.last_used_date), grouped(key.use_count));
    let mode = key.bulk_mode.map(|mode| format!("{mode:?}")).unwrap_or_default();
    let fallback = key.fallback.map(Fallback::name).unwrap_or_default();
    let storage = key.key_storage_mechanism.map(|storage| format!("{storage:?}")).unwrap_or_default();
    let token = key.token_serial_number.as_deref().map(|serial| format!("serial number {serial}"));
    let (token, origin) = (token.unwrap_or_default(), key.origin.name());
    let rotation = match (key.automatic_rotation, key.next_rotation_date) {
        (AutomaticRotation::Invalid, _) => "by nobody any more".to_owned(),
        (AutomaticRotation::Suspended, _) => "suspended while the key cannot be used".to_owned(),
        (_, next) => next.map(|at| at.to_string()).unwrap_or_default(),
    };
    let protected = key.deletion_protection_description.as_ref().map(|reason| match reason.is_empty() {
        true => "yes".to_owned(),
        false => format!("yes: {reason}"),
    });
    let protected = protected.unwrap_or_default();
    let all: [(&str, &dyn std::fmt::Display); 22] = [
        ("key id", &key.key_id),
        ("aliases", &aliases),
        ("state", &state),
        ("description", &key.description),
        ("spec", &spec),
        ("use", &key.key_usage.name()),
        ("protection", &protection),
        ("bulk mode", &mode),
        ("fallback", &fallback),
        ("storage", &storage),
        ("token", &token),
        ("origin", &origin),
        ("expires", &key.material_expire_time),
        ("created", &key.creation_date),
        ("creator", &key.creator),
        ("version", &key.primary_key_version),
        ("rotated", &key.last_rotation_date),
        ("rotated next", &rotation),
        ("protected", &protected),
        ("last used", &used),
        ("uses", &uses),
        ("deletion", &key.delete_date),
    ];
    let told = all.into_iter().filter(|(_, value)| !value.to_string().is_empty());
    output::card(&told.collect::<Vec<_>>())
}

fn schedule_deletion(api: &Api, key_id: KeyRef, days: u32) -> Result<()> {
    let request = ScheduleKeyDeletionRequest { key_id, pending_window_in_days: days, timeout_ms: None };
    let reply = ask!(api, ScheduleKeyDeletion, request);
    let used = match reply.last_used_date {
        Some(at) => format!("it was last used on {at}, {} times in all", grouped(reply.use_count)),
        None => "it was never used".to_owned(),
    };
    api.done(
        &reply,
        format_args!(
            "the key will be deleted on {}; {used}\nuntil then `keymill key cancel-deletion` keeps it",
            reply.delete_date
        ),
    )
}

fn public_key(api: &Api, key: KeyRef, version: Option<KeyVersionId>) -> Result<()> {
    let described = ask!(api, DescribeKey, DescribeKeyRequest { key_id: key, timeout_ms: None });
    let key_id = KeyRef::Id(described.key_metadata.key_id);
    let key_version_id = version.unwrap_or(described.key_metadata.primary_key_version);
    let reply = ask!(api, GetPublicKey, GetPublicKeyRequest { key_id, key_version_id, timeout_ms: None });
    if api.json {
        return output::json(&reply);
    }
    output::line(reply.public_key.trim_end())
}

fn versions(api: &Api, id: CmkId) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListKeyVersions, key_versions.key_version, |page_number, page_size| {
        ListKeyVersionsRequest { key_id: KeyRef::Id(id), page_number, page_size, timeout_ms }
    });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["number", "version id", "created", "last used", "encrypted", "decrypted"])
        .numbers(&[0, 4, 5]);
    for row in reply.key_versions.key_version {
        let (number, used) = (row.version_number, or_dash(row.last_used_date));
        let (encrypted, decrypted) = (grouped(row.encrypt_count), grouped(row.decrypt_count));
        rows.add(&[&number, &row.key_version_id, &row.creation_date, &used, &encrypted, &decrypted]);
    }
    rows.print("no versions")
}

/// Returns every alias that the access key may see.
fn all_aliases(api: &Api) -> Result<Vec<keymill_core::operation::AliasRow>> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListAliases, aliases.alias, |page_number, page_size| ListAliasesRequest {
        page_number,
        page_size,
        timeout_ms
    });
    Ok(reply.aliases.alias)
}
