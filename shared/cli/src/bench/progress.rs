//! What is going on, on standard error and on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// One line that says what is measured, and how far that has come. It is gone with the value.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins a step of `steps` parts; 0 where that is not known.
    pub(super) fn begin(what: impl Into<String>, steps: u64) -> Self {
        let template = if steps == 0 { "{spinner} {msg}" } else { "{spinner} {msg} [{bar:30}] {pos}/{len}" };
        let bar = ProgressBar::new(steps);
        bar.set_style(ProgressStyle::with_template(template).expect("both templates are well-formed"));
        bar.set_message(what.into());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// One part is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_well_formed() {
        for steps in [0, 2] {
            let progress = Progress::begin("measuring", steps);
            progress.step();
        }
    }
}
