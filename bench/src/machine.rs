//! The machine that was measured on, as far as it tells: a ratio is comparable between machines, a rate is not.

use serde::Serialize;

/// What a reader needs to know to judge the figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Instructions that matter to AES-GCM.
    pub instructions: Vec<&'static str>,
    /// The kernel.
    pub kernel: String,
    /// The load average of the last minute, before the first row.
    pub load: f64,
    /// Whether this program was built for speed.
    pub optimised: bool,
}

const INSTRUCTIONS: [&str; 6] = ["aes", "vaes", "vpclmulqdq", "avx2", "avx512f", "sha_ni"];

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
        };
        let flags: Vec<&str> = field("flags").split(' ').collect();
        let load = read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok());
        Self {
            cpu: Some(field("model name")).filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned(),
            cores: cores(),
            instructions: INSTRUCTIONS.into_iter().filter(|name| flags.contains(name)).collect(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.unwrap_or(0.0),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// Returns what stands above a table.
    pub(crate) fn line(&self) -> String {
        let Self { cpu, cores, kernel, load, .. } = self;
        let instructions = self.instructions.join(" ");
        let mut line = format!("{cpu}, {cores} cores ({instructions}), Linux {kernel}, load {load:.2}");
        if *load > 0.5 {
            line.push_str("\nThe machine is busy with other work: expect wide spreads.");
        }
        if !self.optimised {
            line.push_str("\nThis is a debug build: its figures mean nothing.");
        }
        line
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_cores_and_a_busy_one_says_so() {
        let machine = Machine { load: 3.0, ..Machine::look() };
        assert!(machine.cores > 0);
        assert!(machine.line().contains("busy with other work"));
    }
}
