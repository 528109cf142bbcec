//! One program for all fuzz targets: `KEYMILL_FUZZ_TARGET` names the one that libFuzzer drives, `KEYMILL_FUZZ_SEEDS` has every
//! target write its seeds into a folder instead. One program, since linking one each takes longer than the smoke test runs.

#![no_main]

mod access;
mod acme;
mod audit;
mod authorization;
mod batch;
mod blob;
mod certificate;
mod client_key_file;
mod consumer;
mod context;
mod dns;
mod envelope;
mod extended;
mod gateway;
mod http;
mod keys;
mod memory;
mod names;
mod parameters;
mod policy;
mod record;
mod root;
mod rotate;
mod stream;
mod target;
mod wire;
mod worker;
mod x509;

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

use target::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: start(),
    |bytes: &[u8]| (TARGET.get().expect("the start chose one").check)(bytes)
);

/// Chooses the target, or writes the seeds and ends.
fn start() {
    if let Some(folder) = std::env::var_os("KEYMILL_FUZZ_SEEDS") {
        write_seeds(Path::new(&folder));
        std::process::exit(0);
    }
    let name = std::env::var("KEYMILL_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = target::ALL.iter().find(|target| target.name == name) else {
        let names: Vec<_> = target::ALL.iter().map(|target| target.name).collect();
        eprintln!("KEYMILL_FUZZ_TARGET is one of {}", names.join(", "));
        std::process::exit(2);
    };
    TARGET.set(target).ok().expect("there is one start");
}

/// Writes `<target>/<seed>` for every seed and checks it: where that fails, the newest file is the one.
fn write_seeds(folder: &Path) {
    for target in target::ALL {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder).expect("the folder for seeds can be made");
        for (name, bytes) in (target.seeds)() {
            std::fs::write(folder.join(name), &bytes).expect("a seed can be written");
            (target.check)(&bytes);
        }
    }
}
