//! What is going on, on standard error: a bar on a terminal, plain lines elsewhere. Standard output is for results.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::{duration, grouped};

/// Least time between two lines of one task where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Width of the column of a note's name, and of its text, so that a line fits a terminal of 80 columns.
const NAME_WIDTH: usize = 10;
const TEXT_WIDTH: usize = 58;

/// Shows one task after the other, and notes what was done.
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

    /// Says something in a line of its own.
    pub(crate) fn say(&self, text: &str) {
        #[cfg(test)]
        if self.style == Style::Hidden {
            return;
        }
        match &self.task {
            Some(Task { bar: Some(bar), .. }) => bar.println(text),
            // Nothing can be done about a standard error that is gone, and the work does not depend on it.
            _ => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    /// Notes what was done and how long it took.
    pub(crate) fn note(&self, name: &str, text: &str, took: Duration) {
        let took = duration(took.as_secs_f64() * 1e6);
        self.say(&format!("{name:<NAME_WIDTH$} {text:<TEXT_WIDTH$} {took:>9}"));
    }

    /// Starts a task of `total` records (0: it cannot be counted), and ends the one before it.
    pub(crate) fn start(&mut self, name: &str, total: u64) {
        self.end();
        self.task = Some(Task {
            name: name.to_owned(),
            shown: Instant::now(),
            bar: (self.style == Style::Bar).then(|| bar(name, total)),
        });
    }

    /// So many records of the task are done; the total may have changed.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        let Some(task) = &mut self.task else { return };
        if let Some(bar) = &task.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if task.shown.elapsed() >= LINE_EVERY {
            task.shown = Instant::now();
            let share = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(0);
            let (done, total) = (grouped(done), grouped(total));
            let line = format!("{:<NAME_WIDTH$} {share:>3} %, {done} of {total}", task.name);
            self.say(&line);
        }
    }

    /// Ends the task; its bar is gone.
    pub(crate) fn end(&mut self) {
        if let Some(Task { bar: Some(bar), .. }) = self.task.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = if total == 0 {
        "{msg:<10} {spinner} {elapsed}"
    } else {
        "{msg:<10} {bar:30} {human_pos} of {human_len}, {per_sec}, {eta} left"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
