//! What became of the images: counts, and the first few failures of each kind in words.

use std::collections::BTreeMap;

use super::image::Refusal;
use super::oracle::Verdict;

/// The moment at which a crash was taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Moment {
    Creating,
    Recovering,
    Working,
}

#[derive(Default)]
pub struct Tally {
    pub images: BTreeMap<Moment, usize>,
    pub clean: usize,
    pub lost: usize,
    pub lost_keys: usize,
    pub invented: usize,
    pub torn: usize,
    pub errors: usize,
    pub panics: usize,
    pub hangs: usize,
    pub broken_runs: usize,
    /// The most that one file had waiting for a sync while a workload ran, in bytes.
    pub most_waiting: usize,
    /// The most values that sled kept outside its log at one time. The engine's limits are to keep this at nought.
    pub most_blobs: usize,
    kinds: BTreeMap<String, usize>,
}

impl Tally {
    pub fn total(&self) -> usize {
        self.images.values().sum()
    }

    pub fn failed(&self) -> usize {
        self.total() - self.clean + self.broken_runs
    }

    /// Enters one image; says whether it is clean.
    pub fn enter(&mut self, moment: Moment, outcome: &Result<Verdict, Refusal>, which: &str) -> bool {
        *self.images.entry(moment).or_default() += 1;
        let story = match outcome {
            Ok(verdict) if verdict.is_clean() => {
                self.clean += 1;
                return true;
            }
            Ok(verdict) => {
                self.lost += usize::from(verdict.lost > 0);
                self.lost_keys += verdict.lost;
                self.invented += usize::from(verdict.invented > 0);
                self.torn += usize::from(verdict.torn_batches > 0);
                let Verdict { lost, invented, torn_batches, example } = verdict;
                format!("{lost} lost, {invented} invented, {torn_batches} torn batches: {example}")
            }
            Err(Refusal::Error(text)) => {
                self.errors += 1;
                format!("error: {text}")
            }
            Err(Refusal::Panic(text)) => {
                self.panics += 1;
                format!("panic: {text}")
            }
            Err(Refusal::Hang) => {
                self.hangs += 1;
                "hang".to_owned()
            }
        };
        self.tell(moment, which, &story);
        false
    }

    pub fn broken_run(&mut self, which: &str, story: &str) {
        self.broken_runs += 1;
        self.tell(Moment::Working, which, &format!("run: {story}"));
    }

    fn tell(&mut self, moment: Moment, which: &str, story: &str) {
        // Failures of one kind differ in their numbers only; three of each are enough to read.
        let kind: String = story.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        let count = self.kinds.entry(kind).or_default();
        *count += 1;
        if *count <= 3 {
            println!("  {which} ({moment:?}): {story}");
        }
    }

    pub fn print(&self) {
        for (moment, count) in &self.images {
            print!("{count} {moment:?} · ");
        }
        println!(
            "{} images: {} clean, {} lost acknowledged writes ({} keys), {} showed what was never written, \
             {} tore a batch; open: {} errors, {} panics, {} hangs; {} runs broke; \
             at most {} bytes of a file waited for a sync, and {} blobs were there",
            self.total(),
            self.clean,
            self.lost,
            self.lost_keys,
            self.invented,
            self.torn,
            self.errors,
            self.panics,
            self.hangs,
            self.broken_runs,
            self.most_waiting,
            self.most_blobs
        );
    }
}
