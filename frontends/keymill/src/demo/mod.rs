//! `keymill demo`: the main job end to end on an instance that lives as long as the command. Every record goes over TCP to be
//! encrypted, comes back, goes again to be decrypted, and is compared with what it was, byte for byte.

mod file;
mod hsm;
mod lane;
mod records;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use keymill_client::Credentials;
use keymill_core::id::{AccessKeyId, CmkId};
use keymill_core::key::{BulkMode, ProtectionLevel};
use keymill_core::limit;
use keymill_core::operation::CreateKeyRequest;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::admin::{Api, ask};
use crate::config::Config;
use crate::credentials::Target;
use crate::failure::{Failure, Result};
use crate::instance::{Instance, Started, Taken};
use crate::log;
use crate::output::{self, Rows, grouped};
use crate::process::{self, EndSignals};

/// Encrypts and decrypts records on an ephemeral server, compares every one, and prints the rates.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Records to encrypt, decrypt and compare
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32)
        .range(1..=limit::BATCH_ITEM_BYTES as i64))]
    size: u32,
    /// Take a CSV file instead, and encrypt and decrypt columns of it
    #[arg(long, value_name = "FILE", requires = "columns", conflicts_with_all = ["records", "size"])]
    input: Option<PathBuf>,
    /// The columns, by the names of the header
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', requires = "input")]
    columns: Vec<String>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hsm: hsm::HsmArgs,
}

/// What was measured, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Records, or cells of a file, that were encrypted and decrypted.
    items: u64,
    /// Those that did not come back as they were.
    mismatches: u64,
    encrypt_items_per_s: f64,
    decrypt_items_per_s: f64,
    /// The bare loop, encrypting with the same client in the same run.
    ceiling_items_per_s: f64,
    /// The bare loop, decrypting.
    ceiling_decrypt_items_per_s: f64,
    encrypt_ratio: f64,
    decrypt_ratio: f64,
    encrypt_seconds: f64,
    decrypt_seconds: f64,
    /// Bytes of a record; absent for a file, whose cells differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    item_bytes: Option<u32>,
    connections: usize,
    key_id: CmkId,
    /// With a token: what its module does by itself.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    raw_hsm: Option<hsm::RawRates>,
    /// With a token: the same under a key of bulk mode `HsmDerived`, where this is about one of `InHsm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    hsm_derived: Option<Box<Report>>,
}

/// Items and the time that they took.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    items: u64,
    time: Duration,
}

impl Tally {
    fn add(&mut self, items: u64, time: Duration) {
        self.items += items;
        self.time += time;
    }

    fn rate(self) -> f64 {
        self.items as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// The rates of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    encrypt: Tally,
    decrypt: Tally,
}

/// The ephemeral server as a client sees it.
struct Server {
    address: String,
    id: AccessKeyId,
    secret: Zeroizing<String>,
    key_id: CmkId,
}

impl Server {
    fn credentials(&self) -> Credentials {
        Credentials::new(self.id.clone(), self.secret.to_string())
    }
}

/// Whether the user asked to stop.
#[derive(Clone, Default)]
struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Failure::new("interrupted")),
            false => Ok(()),
        }
    }
}

/// Runs the demo; its instance and files are gone afterwards.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    if args.hsm.is_wanted() && args.hsm.place().is_none() {
        return args.hsm.run_in_scratch();
    }
    process::harden()?;
    log::begin("warn")?;
    let interrupted = Interrupted::default();
    // A batch run waits for the signals itself.
    if args.input.is_none() {
        let told = interrupted.clone();
        EndSignals::block(false)?.watch(move |_| told.0.store(true, Ordering::Relaxed), || {})?;
    }
    let place = tempfile::Builder::new().prefix("keymill-demo-").tempdir();
    let place = place.map_err(Failure::because("a directory for the demo"))?;
    let mut config = Config { data_dir: Some(place.path().join("data")), ..Config::default() };
    config.msgpack.address.set_port(0);
    let token = match args.hsm.place() {
        Some(scratch) => Some(args.hsm.prepare(scratch, &mut config)?),
        None => None,
    };
    let places = config.places()?;
    let Started { mut instance, bootstrap, .. } =
        Instance::start(&config, &places, Taken::take(&config, &places)?, &mut |_| Ok(()))?;
    let outcome = (|| {
        let msgpack = keymill_msgpack::bind(config.msgpack()?).map_err(Failure::because("demo"))?;
        let address = msgpack.local_addr().map_err(Failure::because("demo"))?.to_string();
        instance.run(msgpack, drop)?;
        let bootstrap = bootstrap.ok_or_else(|| Failure::new("a new instance made no access key"))?;
        let secret = Zeroizing::new(String::from_utf8_lossy(bootstrap.secret.expose()).into_owned());
        let key_id = |mode| {
            let credentials = Credentials::new(bootstrap.id.clone(), secret.to_string());
            create_key(Target::of(&address, credentials), mode)
        };
        let mode = token.as_ref().map(|_| BulkMode::InHsm);
        let mut server = Server {
            key_id: key_id(mode)?,
            address: address.clone(),
            id: bootstrap.id.clone(),
            secret: secret.clone(),
        };
        let Some(token) = token else {
            return match &args.input {
                Some(input) => file::measure(&server, input, &args.columns, place.path(), args.json),
                None => lane::measure(&server, args.records, args.size, &interrupted, &mut || Ok(())),
            };
        };
        let mut raw = token.raw(args.size as usize)?;
        let in_hsm = lane::measure(&server, args.records, args.size, &interrupted, &mut || raw.run())?;
        server.key_id = key_id(Some(BulkMode::HsmDerived))?;
        let derived = lane::measure(&server, args.records, args.size, &interrupted, &mut || Ok(()))?;
        Ok(Report { raw_hsm: Some(raw.rates()), hsm_derived: Some(Box::new(derived)), ..in_hsm })
    })();
    instance.stop();
    place.close().map_err(Failure::because("removing the files of the demo"))?;
    let report = outcome?;
    match args.json {
        true => output::json(&report)?,
        false => report.print()?,
    }
    let derived = report.hsm_derived.as_ref().map_or(0, |derived| derived.mismatches);
    match report.mismatches + derived {
        0 => Ok(()),
        wrong => {
            Err(Failure::new(format!("{} of {} items did not come back as they were", wrong, report.items)))
        }
    }
}

fn create_key(target: Target, bulk_mode: Option<BulkMode>) -> Result<CmkId> {
    let api = Api::to(target, false)?;
    let request = CreateKeyRequest {
        protection_level: bulk_mode.map(|_| ProtectionLevel::Hsm),
        bulk_mode,
        description: Some("demo".into()),
        ..Default::default()
    };
    Ok(ask!(api, CreateKey, request).key_metadata.key_id)
}

impl Report {
    fn new(items: u64, mismatches: u64, ours: Rates, ceiling: Rates, key_id: CmkId) -> Self {
        Self {
            items,
            mismatches,
            encrypt_items_per_s: ours.encrypt.rate(),
            decrypt_items_per_s: ours.decrypt.rate(),
            ceiling_items_per_s: ceiling.encrypt.rate(),
            ceiling_decrypt_items_per_s: ceiling.decrypt.rate(),
            encrypt_ratio: ours.encrypt.rate() / ceiling.encrypt.rate(),
            decrypt_ratio: ours.decrypt.rate() / ceiling.decrypt.rate(),
            encrypt_seconds: ours.encrypt.time.as_secs_f64(),
            decrypt_seconds: ours.decrypt.time.as_secs_f64(),
            item_bytes: None,
            connections: lane::CONNECTIONS,
            key_id,
            raw_hsm: None,
            hsm_derived: None,
        }
    }

    fn print(&self) -> Result<()> {
        match (&self.raw_hsm, &self.hsm_derived) {
            (Some(raw), Some(derived)) => {
                self.print_rates("every item in the token (InHsm)")?;
                self.print_raw(*raw)?;
                output::line("")?;
                derived.print_rates("subkeys derived in the token (HsmDerived)")?;
            }
            _ => self.print_rates("")?,
        }
        output::line(format_args!(
            "\nThe ceiling is a server of a few lines, asked by the same client in the same run: it decodes the same frames, seals\n\
             with one cached key, encodes and writes. Here: {} connections, CMK {}, audit on.\n\
             Next: `keymill serve` starts a server that stays.",
            self.connections, self.key_id
        ))
    }

    /// Prints how the server does beside the module's own calls.
    fn print_raw(&self, raw: hsm::RawRates) -> Result<()> {
        let mut rows = Rows::new(&["", "items/s", "plain loop", "ratio"]).numbers(&[1, 2, 3]);
        let whole = |rate: f64| grouped(rate.round() as u64);
        for (name, rate, plain) in [
            ("encrypt", self.encrypt_items_per_s, raw.raw_hsm_ops_per_s),
            ("decrypt", self.decrypt_items_per_s, raw.raw_hsm_decrypt_ops_per_s),
        ] {
            rows.add(&[&name, &whole(rate), &whole(plain), &format!("{:.2}", rate / plain)]);
        }
        output::line("\nBeside the module driven by a plain loop, with the same sessions, in the same run:")?;
        rows.print("nothing was measured")
    }

    fn print_rates(&self, how: &str) -> Result<()> {
        let verdict = match self.mismatches {
            0 => "every one came back as it was".to_owned(),
            wrong => format!("{} did not come back as they were", grouped(wrong)),
        };
        let what = match self.item_bytes {
            Some(bytes) => format!("records of {} bytes", grouped(bytes.into())),
            None => "cells".to_owned(),
        };
        let how = if how.is_empty() { String::new() } else { format!(", {how}") };
        output::line(format_args!(
            "{} {what} encrypted, decrypted and compared over MessagePack TCP{how}: {verdict}\n",
            grouped(self.items)
        ))?;
        let mut rows = Rows::new(&["", "items/s", "ceiling", "ratio", "seconds"]).numbers(&[1, 2, 3, 4]);
        let whole = |rate: f64| grouped(rate.round() as u64);
        for (name, rate, ceiling, ratio, seconds) in [
            (
                "encrypt",
                self.encrypt_items_per_s,
                self.ceiling_items_per_s,
                self.encrypt_ratio,
                self.encrypt_seconds,
            ),
            (
                "decrypt",
                self.decrypt_items_per_s,
                self.ceiling_decrypt_items_per_s,
                self.decrypt_ratio,
                self.decrypt_seconds,
            ),
        ] {
            rows.add(&[
                &name,
                &whole(rate),
                &whole(ceiling),
                &format!("{ratio:.2}"),
                &format!("{seconds:.1}"),
            ]);
        }
        rows.print("nothing was measured")
    }
}
