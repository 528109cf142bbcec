//! On which processors the calling thread may run. Threads that it starts may run there, too, and find as many cores.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::{BenchError, Result};

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The processors that a thread may use.
pub(crate) struct Affinity {
    set: CpuSet,
    processors: Vec<usize>,
}

impl Affinity {
    /// Returns what the calling thread may use.
    pub(crate) fn now() -> Result<Self> {
        let set = sched_getaffinity(SELF).map_err(BenchError::because("processors"))?;
        let processors = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
        Ok(Self { set, processors })
    }

    /// Returns how many they are.
    pub(crate) fn cores(&self) -> usize {
        self.processors.len()
    }

    /// Does `work` on the first `cores` of them alone, and gives all of them back.
    pub(crate) fn within<T>(&self, cores: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut few = CpuSet::new();
        for cpu in self.processors.iter().take(cores) {
            few.set(*cpu).map_err(BenchError::because("processors"))?;
        }
        sched_setaffinity(SELF, &few).map_err(BenchError::because("processors"))?;
        let done = work();
        sched_setaffinity(SELF, &self.set).map_err(BenchError::because("processors"))?;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cores;

    #[test]
    fn threads_started_within_find_as_many_cores_and_later_ones_all_of_them() {
        let all = Affinity::now().unwrap();
        assert_eq!(all.cores(), cores());
        let found = all.within(1, || Ok(std::thread::spawn(cores).join().unwrap())).unwrap();
        assert_eq!(found, 1);
        assert_eq!(std::thread::spawn(cores).join().unwrap(), all.cores());
    }

    #[test]
    fn what_fails_within_gives_the_processors_back() {
        let all = Affinity::now().unwrap();
        let failed: Result<()> = all.within(1, || Err(BenchError::new("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
        assert_eq!(Affinity::now().unwrap().cores(), all.cores());
    }
}
