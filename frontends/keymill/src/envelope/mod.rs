//! `keymill envelope seal|open|reencrypt`: files of any size, sealed on this machine under a data key of the service. The work is the
//! client's; here are the command line, what a person sees of it, and what stops it.

mod reencrypt;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keymill_client::envelope::{Header, Output, Totals};
use keymill_client::{Client, ClientError, Envelope, EnvelopeError, wait};
use keymill_core::id::KeyRef;
use serde::Serialize;

use crate::admin::parse_key;
use crate::batch::{Interrupt, Place};
use crate::context::{self, parse_pair};
use crate::credentials::{ServerArgs, Target};
use crate::failure::{Failure, Result};
use crate::output;

/// Drawings of the bar a second.
const DRAW_HZ: u8 = 5;

/// Seal and open files of any size with a data key of the service
///
/// The service makes and decrypts the data key; the file itself stays on this machine. The format is Tink's AES256-GCM-HKDF
/// streaming AEAD with segments of 1 MiB, behind a header that names key, context and encrypted data key.
#[derive(Args, Clone, Debug)]
pub(crate) struct EnvelopeArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: EnvelopeCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum EnvelopeCommand {
    Seal(SealArgs),
    Open(OpenArgs),
    Reencrypt(reencrypt::ReencryptArgs),
}

/// Seal a file
///
/// The output has its name once it is whole and on the disk; until then it lies beside it as .keymill-*.
#[derive(Args, Clone, Debug)]
struct SealArgs {
    /// File to read; - is standard input
    #[arg(long = "in", value_name = "FILE")]
    input: Place,
    /// File to write
    #[arg(long = "out", value_name = "FILE")]
    output: PathBuf,
    /// Key to have the data key made under: id, ARN or alias
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: KeyRef,
    /// Encryption context, once for each pair; it is kept in the envelope, readable to everyone, and checked when it is opened
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    context: Vec<(String, String)>,
    #[command(flatten)]
    manner: Manner,
}

/// Open a file that was sealed
///
/// The output, for its owner alone (0600), has its name once all of the envelope is opened and on the disk. With --stdout it is
/// passed on as it is opened: what comes is what was sealed, but whether something is missing at its end is known at the end alone. A
/// reader must throw away what it got where this command fails.
#[derive(Args, Clone, Debug)]
struct OpenArgs {
    /// File to read; - is standard input
    #[arg(long = "in", value_name = "FILE")]
    input: Place,
    /// File to write
    #[arg(long = "out", value_name = "FILE", required_unless_present = "stdout", conflicts_with = "stdout")]
    output: Option<PathBuf>,
    /// Write to standard output as it is opened, before it is known whether all of it is there
    #[arg(long)]
    stdout: bool,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Args, Clone, Debug)]
struct Manner {
    /// Replace the output where it exists
    #[arg(long)]
    force: bool,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    /// Bytes of the payload.
    bytes: u64,
    /// Bytes of the envelope.
    envelope_bytes: u64,
    /// How long it took, with the disk.
    seconds: f64,
    /// MiB of payload a second.
    mib_per_s: f64,
}

impl Summary {
    fn new(bytes: u64, envelope_bytes: u64, began: Instant) -> Self {
        let seconds = began.elapsed().as_secs_f64();
        Self {
            bytes,
            envelope_bytes,
            seconds,
            mib_per_s: bytes as f64 / f64::from(1 << 20) / seconds.max(1e-9),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, seconds, mib_per_s, .. } = self;
        write!(f, "{} bytes in {seconds:.2} s ({mib_per_s:.0} MiB/s)", output::grouped(*bytes))
    }
}

/// Seals or opens.
pub(crate) fn run(args: &EnvelopeArgs) -> Result<()> {
    let target = Target::find(&args.server)?;
    let config = target.tcp_only()?.clone().config(target.credentials, 1);
    let connect = || Ok(Client::connect(config)?);
    // Before there is a file beside the output, which a signal must not leave behind.
    let interrupt = Interrupt::watch().map_err(Failure::of_batch)?;
    match &args.command {
        EnvelopeCommand::Seal(args) => seal(args, connect, &interrupt),
        EnvelopeCommand::Open(args) => open(args, connect, &interrupt),
        EnvelopeCommand::Reencrypt(args) => reencrypt::run(args, &connect()?, &interrupt),
    }
}

fn seal(args: &SealArgs, connect: impl FnOnce() -> Result<Client>, interrupt: &Interrupt) -> Result<()> {
    let context = context::of_pairs(&args.context)?;
    let (input, length) = read_from(&args.input)?;
    // Sealed data is for whom the umask lets read it.
    let mut output = create(&args.output, &args.input, 0o666, args.manner.force)?;
    interrupt.removes(output.path());
    let client = connect()?;
    let key_id = client.key_id(args.key.clone())?;
    let envelope = wait(Envelope::generate(&client, key_id, &context)).map_err(failed)?;
    drop(client);
    let began = Instant::now();
    let totals = watched(&args.manner, length, interrupt, |progress| {
        envelope.seal_stream(input, &mut output, progress)
    })?;
    finish(output, &args.output)?;
    told(&args.manner, &Summary::new(totals.read, totals.written, began))
}

fn open(args: &OpenArgs, connect: impl FnOnce() -> Result<Client>, interrupt: &Interrupt) -> Result<()> {
    let (mut input, length) = read_from(&args.input)?;
    // Opened data is for its owner alone.
    let mut output = match &args.output {
        Some(path) => Some((create(path, &args.input, 0o600, args.manner.force)?, path)),
        None => None,
    };
    if let Some((output, _)) = &output {
        interrupt.removes(output.path());
    }
    let header = Header::read(&mut input).map_err(failed)?;
    let client = connect()?;
    let envelope = wait(Envelope::decrypt(&client, header)).map_err(failed)?;
    drop(client);
    let began = Instant::now();
    let totals = watched(&args.manner, length, interrupt, |progress| match &mut output {
        Some((output, _)) => envelope.open_stream(input, output, progress),
        None => envelope.open_stream(input, io::stdout(), progress),
    })?;
    let is_stdout = output.is_none();
    if let Some((output, path)) = output {
        finish(output, path)?;
    }
    let summary = Summary::new(totals.written, totals.read, began);
    match is_stdout {
        // Standard output has the payload.
        true => output::note(summary),
        false => told(&args.manner, &summary),
    }
}

fn told(manner: &Manner, summary: &Summary) -> Result<()> {
    match manner.json {
        true => output::json(summary),
        false => output::line(summary),
    }
}

/// Opens the input, and returns its length where it has one.
fn read_from(place: &Place) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    let Place::File(path) = place else { return Ok((Box::new(io::stdin()), None)) };
    let file = File::open(path).map_err(Failure::because(path.display()))?;
    let found = file.metadata().map_err(Failure::because(path.display()))?;
    if found.is_dir() {
        return Err(Failure::new(format!("{} is a directory", path.display())));
    }
    let length = found.is_file().then_some(found.len());
    Ok((Box::new(file), length))
}

fn create(path: &Path, input: &Place, mode: u32, force: bool) -> Result<Output> {
    let shown = path.display();
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    if let Place::File(input) = input
        && identity(input).is_some_and(|input| identity(path) == Some(input))
    {
        return Err(Failure::wrong_use(format!("{shown} is the input itself; --out takes another file")));
    }
    Output::create(path, mode, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(format!("cannot write {shown}: {error}")),
    })
}

fn finish(output: Output, path: &Path) -> Result<()> {
    output.finish().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(format!("cannot write {}: {error}", path.display())),
    })
}

fn exists(path: &Path) -> Failure {
    Failure::new(format!("{} exists already", path.display())).next("name another file; --force replaces it")
}

/// Does the work under a bar, where somebody looks at one, and stops it where a signal asks for that.
fn watched(
    manner: &Manner,
    length: Option<u64>,
    interrupt: &Interrupt,
    work: impl FnOnce(&mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<Totals, EnvelopeError>,
) -> Result<Totals> {
    let bar = (!manner.quiet && io::stderr().is_terminal()).then(|| bar(length));
    let mut progress = |at| {
        if let Some(bar) = &bar {
            bar.set_position(at);
        }
        if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let worked = work(&mut progress);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    worked.map_err(failed)
}

fn bar(length: Option<u64>) -> ProgressBar {
    let (template, bar) = match length {
        Some(length) => (
            "{bar:30} {percent}%  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left",
            ProgressBar::new(length),
        ),
        None => ("{spinner} {binary_bytes}  {binary_bytes_per_sec}", ProgressBar::new_spinner()),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAW_HZ));
    bar.set_style(ProgressStyle::with_template(template).expect("the templates are ours"));
    bar
}

fn failed(error: EnvelopeError) -> Failure {
    match error {
        EnvelopeError::Keys(why) => match why.downcast_ref::<ClientError>() {
            Some(why) => Failure::of_client(why),
            None => Failure::new(why.to_string()),
        },
        // A reader of ours that went away is told nothing.
        EnvelopeError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => Failure::of_output(error),
        EnvelopeError::NotAnEnvelope => Failure::new(error.to_string()).next(
            "name a file that `keymill envelope seal` made; cells of `keymill batch` are opened by that",
        ),
        error => Failure::new(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_bytes_seconds_and_rate() {
        let summary = Summary { bytes: 4 << 20, envelope_bytes: 5 << 20, seconds: 2.0, mib_per_s: 2.0 };
        assert_eq!(summary.to_string(), "4,194,304 bytes in 2.00 s (2 MiB/s)");
    }
}
