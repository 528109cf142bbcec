//! `keymill envelope reencrypt`: envelopes that are under an old version of a key, or another key, are sealed anew in their place. The key and
//! context of an envelope are bound to its stream, so that no header is exchanged: the payload goes through this process, and never to a
//! disk.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use keymill_client::envelope::{Header, Output, Totals};
use keymill_client::{Client, Envelope, EnvelopeError, wait};
use keymill_core::blob::Blob;
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{DescribeKeyRequest, DescribeKeyVersionRequest, Reply};

use super::{Manner, Summary, failed, finish, read_from, watched};
use crate::admin::parse_key;
use crate::batch::{Interrupt, Place};
use crate::failure::{Failure, Result};
use crate::output;

/// Seal envelopes anew, in their place, under the newest version of a key
///
/// An envelope that is under that version already is left as it is, so that the same command goes on where it was interrupted. Each file
/// is replaced once its successor is whole and on the disk; the payload passes through the memory of this command.
#[derive(Args, Clone, Debug)]
pub(super) struct ReencryptArgs {
    /// The envelopes
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Key to have data keys made under: id, ARN or alias [default: the key that each envelope is under]
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<KeyRef>,
    /// Print a summary of each file as one JSON object a line
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// Does the files, one after the other; the first that fails ends it, and names itself.
pub(super) fn run(args: &ReencryptArgs, client: &Client, interrupt: &Interrupt) -> Result<()> {
    let key = args.key.clone().map(|key| client.key_id(key)).transpose()?;
    let manner = Manner { force: true, json: args.json, quiet: args.quiet };
    for path in &args.files {
        let outcome = reencrypt(path, key, client, &manner, interrupt);
        let done = outcome.map_err(|failure| Failure::new(format!("{}: {failure}", path.display())))?;
        match (done, args.json) {
            (Some(summary), true) => output::json(&summary)?,
            (Some(summary), false) => output::line(format_args!("{}: {summary}", path.display()))?,
            (None, true) => {}
            (None, false) => output::line(format_args!("{}: up to date", path.display()))?,
        }
    }
    Ok(())
}

/// Seals one file anew; `None` where it needs that not.
fn reencrypt(
    path: &Path,
    key: Option<CmkId>,
    client: &Client,
    manner: &Manner,
    interrupt: &Interrupt,
) -> Result<Option<Summary>> {
    let (mut input, length) = read_from(&Place::File(path.into()))?;
    let mode = File::open(path).and_then(|file| file.metadata()).map_err(Failure::because(path.display()))?;
    let header = Header::read(&mut input).map_err(failed)?;
    let key = key.unwrap_or(header.key_id());
    if is_newest(client, key, &header)? {
        return Ok(None);
    }
    // As the old one was, whatever the umask says.
    let permissions = fs::Permissions::from_mode(mode.permissions().mode() & 0o777);
    let mut output = Output::create(path, 0o600, true).map_err(Failure::because(path.display()))?;
    interrupt.removes(output.path());
    let context = header.context().clone();
    let old = wait(Envelope::decrypt(client, header)).map_err(failed)?;
    let new = wait(Envelope::generate(client, key, &context)).map_err(failed)?;
    let began = Instant::now();
    let totals = watched(manner, length, interrupt, |progress| {
        let (clear, to_be_sealed) = io::pipe().map_err(EnvelopeError::Read)?;
        std::thread::scope(|scope| {
            let output = &mut output;
            let sealing =
                scope.spawn(move || new.seal_stream(clear, output, |_| std::ops::ControlFlow::Continue(())));
            // Its end of the pipe closes with it, whole or not: the sealing then ends, and what it wrote is thrown away unless both are well.
            let opened = old.open_stream(input, to_be_sealed, progress);
            let sealed = sealing.join().expect("sealing does not panic");
            first_cause(opened, sealed)
        })
    })?;
    fs::set_permissions(output.path(), permissions).map_err(Failure::because(path.display()))?;
    finish(output, path)?;
    Ok(Some(Summary::new(totals.read, totals.written, began)))
}

/// Returns what was sealed, where both ends are well; a side that failed since the other went away is not the cause.
fn first_cause(
    opened: Result<Totals, EnvelopeError>,
    sealed: Result<Totals, EnvelopeError>,
) -> Result<Totals, EnvelopeError> {
    match (opened, sealed) {
        (Ok(_), sealed) => sealed,
        (Err(EnvelopeError::Write(_)), Err(cause)) => Err(cause),
        (Err(cause), _) => Err(cause),
    }
}

/// Tells whether an envelope is under the newest version of `key`.
fn is_newest(client: &Client, key: CmkId, header: &Header) -> Result<bool> {
    let Some(edk) = Blob::parse(header.edk()) else { return Ok(false) };
    if edk.header.cmk != key {
        return Ok(false);
    }
    let other = |reply: &Reply<'_>| Failure::new(format!("answered as {:?}", reply.operation()));
    let (key_id, timeout_ms) = (KeyRef::Id(key), None);
    let described = client.call(DescribeKeyRequest { key_id: key_id.clone(), timeout_ms })?;
    let key_version_id = match described.reply()? {
        Reply::DescribeKey(reply) => reply.key_metadata.primary_key_version,
        reply => return Err(other(&reply)),
    };
    let described = client.call(DescribeKeyVersionRequest { key_id, key_version_id, timeout_ms })?;
    match described.reply()? {
        Reply::DescribeKeyVersion(reply) => Ok(reply.key_version.version_number == edk.header.version),
        reply => Err(other(&reply)),
    }
}
