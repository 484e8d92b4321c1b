//! The machine: what it is, and who else uses it.

use serde::{Deserialize, Serialize};

/// What a measurement was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and kernel.
    pub system: String,
    /// The processor's name, if the system tells.
    pub processor: String,
    /// Processors that the program may use.
    pub processors: u64,
    /// Memory in bytes, if the system tells.
    pub memory_bytes: Option<u64>,
    /// Architecture.
    pub architecture: String,
    /// Version of the harness.
    pub harness: String,
    /// Whether it was built with optimization.
    pub optimized: bool,
}

impl Machine {
    /// This machine.
    pub fn describe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: memory.map(|kib| kib << 10),
            architecture: std::env::consts::ARCH.to_owned(),
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            optimized: !cfg!(debug_assertions),
        }
    }
}

/// Processor time so far, in the system's ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTimes {
    /// Of all processors.
    total: u64,
    /// Of which nobody used this much.
    idle: u64,
    /// And this process this much.
    own: u64,
}

impl CpuTimes {
    /// The times now; `None` where the system does not tell (other than Linux).
    pub(crate) fn now() -> Option<Self> {
        Self::parse(
            &std::fs::read_to_string("/proc/stat").ok()?,
            &std::fs::read_to_string("/proc/self/stat").ok()?,
        )
    }

    /// From the texts of `/proc/stat` and `/proc/self/stat` (proc(5)).
    fn parse(all: &str, own: &str) -> Option<Self> {
        let fields = all.lines().find(|line| line.starts_with("cpu "))?.split_ascii_whitespace().skip(1);
        // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
        let times: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let idle = times.get(3)? + times.get(4)?;
        // The program's name, in brackets, may hold anything.
        let own: Vec<&str> = own.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let own = own.get(11)?.parse::<u64>().ok()? + own.get(12)?.parse::<u64>().ok()?;
        Some(Self { total: times.iter().sum(), idle, own })
    }

    /// The share of all processor time since then that others took, the host of a virtual machine included (steal).
    pub(crate) fn others_since(&self, then: &Self) -> Option<f64> {
        let total = self.total.checked_sub(then.total).filter(|total| *total > 0)?;
        let busy = total.saturating_sub(self.idle.saturating_sub(then.idle));
        Some(busy.saturating_sub(self.own.saturating_sub(then.own)) as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_others_is_what_is_neither_idle_nor_ours() {
        let all = "cpu  100 0 100 700 50 0 0 50 7 0\ncpu0 1 2 3\n";
        let own = "42 (a (strange) name) S 1 1 1 0 -1 0 0 0 0 0 60 40 0 0 20 0 9 0 100";
        let then = CpuTimes::parse(all, own).expect("parses");
        let all = "cpu  200 0 200 1300 150 0 0 150 7 0\n";
        let own = "42 (a (strange) name) S 1 1 1 0 -1 0 0 0 0 0 160 90 0 0 20 0 9 0 100";
        let now = CpuTimes::parse(all, own).expect("parses");
        // 1000 ticks went by, 700 of them idle, 150 ours.
        assert_eq!(now.others_since(&then), Some(0.15));
        assert_eq!(then.others_since(&then), None);
        assert!(CpuTimes::parse("", own).is_none() && CpuTimes::parse(all, "7 x").is_none());
    }
}
