//! `keymill hsm adopt`: a key that a token holds already becomes a CMK of a running server.

use clap::Args;
use keymill_core::id::AliasName;
use keymill_core::key::{BulkMode, KeySpec};
use keymill_core::operation::AdoptKeyRequest;

use crate::admin::key::{made, parse_bulk_mode, parse_spec, see_free};
use crate::admin::{Api, ClientArgs, ask};
use crate::failure::Result;

/// Make a CMK of a key that a token of a running server holds already
///
/// Nothing is changed in the token: the key stays there, and is pinned by what it does, so that another in its place is refused. It must be
/// sensitive, not extractable, and able to do one thing alone (CKA_ENCRYPT and CKA_DECRYPT for InHsm, CKA_SIGN for HsmDerived). No other
/// token has it, so there is no fail-over. What other programs encrypt with it is not counted: give it up there.
#[derive(Args, Clone, Debug)]
pub(super) struct AdoptArgs {
    /// The token, by the name that the server's configuration gives it; not needed where there is one alone
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
    /// The label of the key (CKA_LABEL)
    #[arg(long, value_name = "TEXT", required_unless_present = "id")]
    label: Option<String>,
    /// Its id (CKA_ID), in hexadecimal
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
    /// The kind of key, as `key create` takes it [default: Aliyun_AES_256]
    #[arg(long, value_name = "SPEC", value_parser = parse_spec)]
    spec: Option<KeySpec>,
    /// Where AES-GCM runs: InHsm or HsmDerived [default: InHsm]
    #[arg(long, value_name = "MODE", value_parser = parse_bulk_mode)]
    bulk_mode: Option<BulkMode>,
    /// Names the CMK at once
    #[arg(long, value_name = "alias/NAME")]
    alias: Option<AliasName>,
    /// What it is for, as free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: AdoptArgs) -> Result<()> {
    let AdoptArgs { token, label, id, spec, bulk_mode, alias, description, client } = args;
    let api = Api::connect(&client)?;
    see_free(&api, alias.as_ref())?;
    let request = AdoptKeyRequest {
        token_name: token,
        object_label: label,
        object_id: id,
        key_spec: spec,
        key_usage: None,
        bulk_mode,
        description,
        timeout_ms: None,
    };
    let reply = ask!(api, AdoptKey, request);
    made(&api, &reply, &reply.key_metadata, alias)
}
