//! Simulated HSMs: copies of the simulator in front of SoftHSM, each a module of its own. All show one token, as the members of a cluster of
//! HSMs do that hold the same keys: a ceremony for tokens of their own takes a minute for 32, and changes nothing that is measured. What a call takes, and how many begin in a
//! second, is set by a control file (`tests/modules/simulator/README.md`); what was called is read from its statistics.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::scratch::Pins;
use super::soft::SoftToken;
use crate::error::{BenchError, Result};

/// How long statistics may be on their way: they are written every 20 ms.
const PATIENCE: Duration = Duration::from_secs(10);

/// The label of the token that all show.
const LABEL: &str = "keymill-bench-farm";

/// HSMs that hold the same keys.
pub(crate) struct Farm {
    /// The HSMs.
    pub(crate) hsms: Vec<Simulated>,
}

/// One HSM.
pub(crate) struct Simulated {
    /// Its token.
    pub(crate) token: SoftToken,
    device: Device,
}

/// A copy of the simulator and its control file.
struct Device {
    name: String,
    library: PathBuf,
    /// The module behind it.
    behind: PathBuf,
}

impl Farm {
    /// Makes so many in a scratch directory. Until [`pace`](Self::pace) says otherwise a call takes what SoftHSM takes.
    pub(crate) fn make(place: &Path, simulator: &Path, softhsm: &Path, count: usize) -> Result<Self> {
        let pins = Pins::draw()?;
        let device = |number: usize| -> Result<Device> {
            let name = format!("simulated-{number}");
            let library = place.join(format!("{name}.so"));
            fs::copy(simulator, &library).map_err(BenchError::because("a copy of the simulator"))?;
            let device = Device { name, library, behind: softhsm.to_owned() };
            device.control(0, "lazy_control = true")?;
            Ok(device)
        };
        let devices = (0..count).map(device).collect::<Result<Vec<_>>>()?;
        if let Some(first) = devices.first() {
            pins.make_token(&first.library, LABEL, true)?;
        }
        let open = |device: Device| -> Result<Simulated> {
            let token = SoftToken::open(&device.library, LABEL, &device.name, &pins)?;
            Ok(Simulated { token, device })
        };
        Ok(Self { hsms: devices.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Has each call of each HSM take so long, and so many begin in a second; returns once that is in force.
    pub(crate) fn pace(&self, latency: Duration, per_second: u64) -> Result<()> {
        self.set(&paced(latency, per_second))
    }

    /// Has calls take what SoftHSM takes again.
    pub(crate) fn unpaced(&self) -> Result<()> {
        self.set("lazy_control = true")
    }

    fn set(&self, options: &str) -> Result<()> {
        self.hsms.iter().try_for_each(|hsm| hsm.device.applied(options).map(drop))
    }
}

/// Returns the options of an HSM where one operation is one call, whatever PKCS#11 makes of it.
fn paced(latency: Duration, per_second: u64) -> String {
    format!(
        "latency_us = {}\ncalls_per_s = {per_second}\nfree = [\"C_*Init\"]\nlazy_control = true",
        latency.as_micros()
    )
}

impl Simulated {
    /// Returns how often a function was called so far, whatever it answered. The HSM is not paced from then on.
    pub(crate) fn calls(&self, function: &str) -> Result<u64> {
        Ok(count(&self.device.applied("lazy_control = true")?, function))
    }
}

fn count(statistics: &serde_json::Value, function: &str) -> u64 {
    let codes = statistics["calls"][function].as_object();
    codes.into_iter().flat_map(|codes| codes.values()).filter_map(serde_json::Value::as_u64).sum()
}

impl Device {
    /// Writes the control file anew.
    fn control(&self, revision: u64, options: &str) -> Result<()> {
        let Self { name, library, behind } = self;
        let text = format!(
            "[{name}]\nmodule = \"{}\"\nonly_token = \"{LABEL}\"\nseed_by_process = true\nrevision = {revision}\n{options}\n",
            behind.display()
        );
        let fresh = library.with_extension("fresh");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(fresh, library.with_extension("toml")))
            .map_err(BenchError::because("the simulator's control file"))
    }

    /// Writes it, waits until it holds, and returns the statistics as of then.
    fn applied(&self, options: &str) -> Result<serde_json::Value> {
        let before = self.statistics().and_then(|read| read["revision"].as_u64()).unwrap_or(0);
        let revision = before + 1;
        self.control(revision, options)?;
        let begun = Instant::now();
        loop {
            match self.statistics() {
                Some(read) if read["revision"] == revision => return Ok(read),
                _ if begun.elapsed() > PATIENCE => {
                    let why = format!("{} has no statistics: is it the simulator?", self.name);
                    return Err(BenchError::new(why));
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn statistics(&self) -> Option<serde_json::Value> {
        let file = format!("{0}.toml.{0}.{1}.stats", self.name, std::process::id());
        let text = fs::read_to_string(self.library.with_file_name(file)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_whatever_they_were_answered() {
        let read = serde_json::json!({ "calls": { "C_Sign": { "CKR_OK": 7, "CKR_DEVICE_ERROR": 2 } } });
        assert_eq!((count(&read, "C_Sign"), count(&read, "C_Encrypt")), (9, 0));
    }

    #[test]
    fn an_operation_is_one_call_of_its_latency() {
        let options = paced(Duration::from_millis(1), 5_000);
        assert!(options.contains("latency_us = 1000\ncalls_per_s = 5000\nfree = [\"C_*Init\"]"), "{options}");
    }
}
