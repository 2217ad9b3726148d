//! What a person sees of a running study: one bar over all that is asked for, or a line a block without a terminal.

use regauge_replayer::experiment::{Event, Phase, Progress};
use std::io::IsTerminal;

/// A progress bar with an honest guess of what is left; without a terminal, one line a block.
pub struct Watcher {
    bar: indicatif::ProgressBar,
    told: Option<String>,
}

impl Watcher {
    /// A bar at its begin.
    pub fn new() -> Watcher {
        Watcher { bar: crate::ui::progress(Some(1000), "{bar:12} {percent:>3} %  {wide_msg}"), told: None }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.finish();
    }
}

/// `block 9 (7 of 10 complete, 1 flagged)`, with the load where there are several.
fn block(event: &Event<'_>) -> String {
    let load = event.load.map_or(String::new(), |load| format!("load {load}, "));
    let flagged = if event.flagged > 0 { format!(", {} flagged", event.flagged) } else { String::new() };
    format!("{load}block {} ({} of {} complete{flagged})", event.block + 1, event.complete, event.blocks)
}

impl Progress for Watcher {
    fn update(&mut self, event: &Event<'_>) {
        self.bar.set_position((event.fraction * 1000.0) as u64);
        let what = match event.phase {
            Phase::Pilot => format!("trying the {} layout", event.arm),
            Phase::Knee => format!("looking how fast {} can go", event.arm),
            Phase::Probe => format!("probing {}", event.arm),
            _ => format!("{}  {}", block(event), event.arm),
        };
        let left = event
            .eta
            .map_or(String::new(), |eta| format!("  about {} left", crate::ui::duration(eta.as_nanos() as u64)));
        self.bar.set_message(format!("{what}{left}"));
        let line = match event.phase {
            Phase::Pilot | Phase::Probe => return,
            Phase::Knee => what,
            _ => block(event),
        };
        if self.told.as_ref() != Some(&line) && !std::io::stderr().is_terminal() {
            eprintln!("{line}{left}");
            self.told = Some(line);
        }
    }

    fn note(&mut self, sentence: &str) {
        self.bar.suspend(|| eprintln!("note: {sentence}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_counted_by_what_is_complete() {
        let event = Event {
            block: 8,
            blocks: 10,
            complete: 6,
            flagged: 2,
            load: None,
            arm: "a",
            phase: Phase::Drive,
            fraction: 0.5,
            eta: None,
        };
        assert_eq!(block(&event), "block 9 (6 of 10 complete, 2 flagged)");
        assert_eq!(block(&Event { flagged: 0, load: Some(0.25), ..event }), "load 0.25, block 9 (6 of 10 complete)");
    }
}
