//! What is going on, on standard error: a bar on a terminal, plain lines elsewhere. Standard output is for results.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Least time between two lines of one task where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Shows one task after the other.
pub(crate) struct Progress {
    style: Style,
    task: Option<Task>,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Bar,
    Lines,
    #[cfg(test)]
    Hidden,
}

struct Task {
    name: String,
    total: u64,
    done: u64,
    begun: Instant,
    shown: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar if standard error is a terminal, else lines.
    pub(crate) fn new() -> Self {
        let style = if std::io::stderr().is_terminal() { Style::Bar } else { Style::Lines };
        Self { style, task: None }
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self { style: Style::Hidden, task: None }
    }

    /// Says something that is not part of a task's count.
    pub(crate) fn say(&self, text: &str) {
        match &self.task {
            Some(Task { bar: Some(bar), .. }) => bar.println(text),
            _ => self.line(text),
        }
    }

    /// Starts a task of `total` records, and ends the one before it.
    pub(crate) fn start(&mut self, name: &str, total: u64) {
        self.end();
        let now = Instant::now();
        let bar = (self.style == Style::Bar).then(|| bar(name, total));
        if bar.is_none() {
            self.line(&format!("{name} ..."));
        }
        self.task = Some(Task { name: name.to_owned(), total, done: 0, begun: now, shown: now, bar });
    }

    /// So many records of the task are done; the total may have changed.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        let Some(task) = &mut self.task else { return };
        (task.done, task.total) = (done, total);
        if let Some(bar) = &task.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if task.shown.elapsed() >= LINE_EVERY {
            task.shown = Instant::now();
            let line = format!("{}: {done} of {total} ({} %)", task.name, done * 100 / total.max(1));
            self.line(&line);
        }
    }

    /// Ends the task.
    pub(crate) fn end(&mut self) {
        let Some(task) = self.task.take() else { return };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        let seconds = task.begun.elapsed().as_secs_f64();
        let line = if task.total == 0 {
            format!("{}: {seconds:.1} s", task.name)
        } else {
            let rate = task.done as f64 / seconds.max(1e-9);
            format!("{}: {} records in {seconds:.1} s, {rate:.0} records/s", task.name, task.done)
        };
        self.line(&line);
    }

    fn line(&self, text: &str) {
        #[cfg(test)]
        if self.style == Style::Hidden {
            return;
        }
        // Nothing can be done about a standard error that is gone, and the work does not depend on it.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn bar(name: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = if total == 0 {
        "{msg:<28} {spinner} {elapsed}"
    } else {
        "{msg:<28} {bar:30} {human_pos} of {human_len} ({per_sec}, {eta} left)"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
