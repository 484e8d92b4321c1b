//! Interval logs of HdrHistogram (V2, compressed), as its `HistogramLogWriter` makes them and its standard tools read them.
//!
//! One histogram for each window of 100 ms: the operations that were due in it, in ns, exact to 1%. The greatest of each
//! line is in ms. Times are seconds since the beginning of the round, which is the log's base time. Every line is tagged with
//! the phase in which its window began.

use std::io::Write;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::latency::{LATENCY_NS_MAX, WINDOW};
use super::round::Round;

impl Round {
    /// Writes the time series of this round as an interval log. A round that was read from JSON has only its
    /// points, and no log.
    ///
    /// # Errors
    ///
    /// What `out` answers.
    pub fn write_hlog(&self, subject: &str, out: &mut impl Write) -> std::io::Result<()> {
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(self.began_unix_ms);
        let mut builder = IntervalLogWriterBuilder::new();
        let about = format!("{subject}, round {}, seed {}, exuvia bench", self.round, self.seed);
        builder.add_comment(&about).with_start_time(began).with_base_time(began).with_max_value_divisor(1e6);
        let mut serializer = V2DeflateSerializer::new();
        let mut log = builder.begin_log_with(out, &mut serializer)?;
        for (number, window) in &self.windows.0 {
            // The bounds are those that the window was recorded with.
            let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LATENCY_NS_MAX, 2) else { continue };
            for (ns, count) in &window.buckets {
                histogram.saturating_record_n(*ns, *count);
            }
            let at = WINDOW * u32::try_from(*number).unwrap_or(u32::MAX);
            let tag = self.phases.iter().rev().find(|phase| u128::from(phase.began_us) <= at.as_micros());
            let tag = tag.map_or("load", |phase| phase.name.as_str());
            let written = log.write_histogram(&histogram, at, WINDOW, Tag::new(tag));
            written.map_err(|e| std::io::Error::other(e.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::tests::stalled;

    #[test]
    fn the_log_is_read_by_the_library_and_has_the_stall() {
        let (round, mut text) = (stalled(), Vec::new());
        round.write_hlog("fake", &mut text).expect("written");
        let entries: Vec<_> = IntervalLogIterator::new(&text).map(|entry| entry.expect("parses")).collect();
        let lines: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(line) => Some(line),
                _ => None,
            })
            .collect();
        assert_eq!(lines.len(), round.series.len());
        let worst = lines.iter().max_by(|a, b| a.max().total_cmp(&b.max())).expect("lines");
        assert!((worst.max() / 200.0 - 1.0).abs() < 0.01, "{} ms", worst.max());
        assert_eq!(worst.tag().expect("tag").as_str(), "backfill");
        assert_eq!(worst.start_timestamp().as_millis(), 4000);
        assert!(worst.encoded_histogram().starts_with("HISTFAAAA"), "V2, compressed, in base 64");
    }
}
