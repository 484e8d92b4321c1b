//! What a process takes, as the system counts it, and latencies since the last look.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The kinds of foreground calls.
pub const CALLS: [&str; 6] = ["get", "put", "remove", "update", "scan", "several"];

/// Latencies of one thread, by kind, in nanoseconds.
pub struct Latencies(Vec<Histogram<u64>>);

impl Latencies {
    pub fn new() -> Self {
        let one = || Histogram::new_with_bounds(1, 3_600_000_000_000, 2).expect("bounds that are valid");
        Latencies(CALLS.iter().map(|_| one()).collect())
    }

    pub fn record(&mut self, call: usize, took: Duration) {
        self.0[call].saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes over what another has recorded, and empties it.
    pub fn drain(&mut self, other: &mut Latencies) {
        for (own, other) in self.0.iter_mut().zip(&mut other.0) {
            own.add(&*other).expect("the same bounds");
            other.reset();
        }
    }

    pub fn json(&self) -> Value {
        let of = |h: &Histogram<u64>| {
            let us = |q: f64| h.value_at_quantile(q) as f64 / 1000.0;
            json!({"count": h.len(), "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0)})
        };
        Value::Object(CALLS.iter().zip(&self.0).map(|(name, h)| ((*name).to_owned(), of(h))).collect())
    }
}

/// Of this process. Zero where the system does not say.
#[derive(Default)]
pub struct Taken {
    pub rss_kib: u64,
    pub anonymous_kib: u64,
    pub threads: u64,
    pub open_files: u64,
}

impl Taken {
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Taken {
            rss_kib: field("VmRSS"),
            anonymous_kib: field("RssAnon"),
            threads: field("Threads"),
            // The listing itself is one.
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64 - 1),
        }
    }
}

/// Files below a directory, and the bytes that they take on the disk.
pub fn files(directory: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut number, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let (more, more_bytes) = files(&entry.path());
                (number, bytes) = (number + more, bytes + more_bytes);
            }
            Ok(metadata) => (number, bytes) = (number + 1, bytes + metadata.blocks() * 512),
            // It went meanwhile.
            Err(_) => {}
        }
    }
    (number, bytes)
}

/// The figures that the verdict compares, each with the growth that it may show: as a share, and in its own unit.
pub const FIGURES: [(&str, f64, f64); 5] = [
    ("rss_kib", 0.10, 8192.0),
    ("anonymous_kib", 0.10, 8192.0),
    ("file_bytes", 0.15, 16e6),
    ("open_files", 0.10, 4.0),
    ("threads", 0.10, 1.0),
];
/// Reported and not judged: they are the machine's as much as the store's.
pub const LATENCIES: [(&str, &str); 4] =
    [("get", "p50_us"), ("get", "p99_us"), ("put", "p50_us"), ("put", "p99_us")];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The medians of the second and of the last quarter of the samples.
fn quarters(samples: &[Value], figure: impl Fn(&Value) -> f64) -> (f64, f64) {
    let quarter = samples.len() / 4;
    let of = |part: &[Value]| median(part.iter().map(&figure).collect());
    (of(&samples[quarter..2 * quarter]), of(&samples[samples.len() - quarter..]))
}

/// Compares the last quarter with the second; says what grew.
pub fn verdict(samples: &[Value]) -> Vec<String> {
    let mut grown = Vec::new();
    println!("{:<16} {:>14} {:>14}", "median of", "2nd quarter", "last quarter");
    for (name, share, absolute) in FIGURES {
        let (second, last) = quarters(samples, |sample| sample[name].as_f64().unwrap_or(0.0));
        let flat = last <= second * (1.0 + share) || last <= second + absolute;
        println!("{name:<16} {second:>14.0} {last:>14.0}  {}", if flat { "flat" } else { "GROWS" });
        if !flat {
            grown.push(format!("{name} grew from {second:.0} to {last:.0}"));
        }
    }
    for (call, quantile) in LATENCIES {
        let (second, last) =
            quarters(samples, |sample| sample["latency"][call][quantile].as_f64().unwrap_or(0.0));
        println!("{:<16} {second:>14.1} {last:>14.1}", format!("{call} {quantile}"));
    }
    grown
}
