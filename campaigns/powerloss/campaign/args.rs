//! The command line: `--name value` pairs, every one with a default.

use std::path::PathBuf;

use super::disk::Order;
use super::rig::{Kind, Sizes};
use super::workload::{Mix, Values};

pub struct Args {
    pub images: usize,
    pub seed: u64,
    pub kind: Kind,
    pub order: Order,
    /// Whether the synchronous flag of a directory binds its entries.
    pub flagged_dirs: bool,
    pub mix: Mix,
    pub sizes: Sizes,
    /// Where to leave the images that failed.
    pub keep: Option<PathBuf>,
    /// Count and report, but do not fail: for stores that are known to lose data.
    pub report: bool,
    /// Set in the child process that opens an image.
    pub read_back: Option<PathBuf>,
}

impl Args {
    pub fn parse(kinds: &[Kind], default: &str) -> Result<Args, String> {
        let kind_named = |name: &str| {
            let known: Vec<_> = kinds.iter().map(|k| k.name).collect();
            let found = kinds.iter().find(|k| k.name == name).copied();
            found.ok_or_else(|| format!("no rig {name:?}; there are {}", known.join(", ")))
        };
        let mut args = Args {
            images: 100,
            seed: 1,
            kind: kind_named(default)?,
            order: Order::Journal,
            flagged_dirs: true,
            mix: Mix {
                values: Values::Small,
                longest: 0,
                key_length: 0,
                keys: 400,
                batches: true,
                threads: 2,
                ops: 400,
                flush_every: 48,
            },
            sizes: Sizes { segment: 32 << 10, cache: 1 << 20 },
            keep: None,
            report: false,
            read_back: None,
        };
        let mut long_keys = false;
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--images" => args.images = number(&value()?)? as usize,
                "--seed" => args.seed = number(&value()?)?,
                "--rig" => args.kind = kind_named(&value()?)?,
                "--order" => {
                    args.order = match value()?.as_str() {
                        "strict" => Order::Strict,
                        "journal" => Order::Journal,
                        other => return Err(format!("--order is strict or journal, not {other:?}")),
                    };
                }
                "--flagged-dirs" => args.flagged_dirs = switch(&value()?)?,
                "--values" => args.mix.values = values(&value()?)?,
                "--long-keys" => long_keys = switch(&value()?)?,
                "--keys" => args.mix.keys = number(&value()?)?,
                "--batches" => args.mix.batches = switch(&value()?)?,
                "--threads" => args.mix.threads = number(&value()?)?.clamp(1, 9),
                "--ops" => args.mix.ops = number(&value()?)?,
                "--flush-every" => args.mix.flush_every = number(&value()?)?.max(1),
                "--segment" => args.sizes.segment = number(&value()?)? as usize,
                "--keep" => args.keep = Some(value()?.into()),
                "--report" => args.report = switch(&value()?)?,
                "--read-back" => args.read_back = Some(value()?.into()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        args.mix.longest = args.kind.longest_value;
        args.mix.key_length = if long_keys { args.kind.longest_key } else { 0 };
        args.mix.batches &= args.kind.batches;
        Ok(args)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("{text:?} is not a number: {e}"))
}

fn values(text: &str) -> Result<Values, String> {
    match text {
        "small" => Ok(Values::Small),
        "blobs" => Ok(Values::Blobs),
        "mixed" => Ok(Values::Mixed),
        "limit" => Ok(Values::Limit),
        _ => Err(format!("--values is small, blobs, mixed or limit, not {text:?}")),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}
