//! What this host can and cannot measure: one finding per fact, with what it means and what to do about it.
//!
//! Why: a study on a tmpfs, under a CPU quota or without io_uring is worthless or impossible, and it is better to know
//! before it runs. Findings are judgements on [`crate::host::Facts`], a pure function of them and of two short
//! measurements; `regauge doctor` prints them and every study keeps them.

use crate::canary::Canary;
use crate::host::cpu::CpuTimes;
use crate::host::{Facts, gather};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

mod judge;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Figures are weaker or something is missing.
    Warn,
    /// A study would be impossible or would mislead.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Short name, `snake_case`.
    pub name: String,
    /// What was found, for a person.
    pub value: String,
    /// How much it matters.
    pub level: Level,
    /// One sentence: what it means for a study.
    pub means: String,
    /// One sentence: what to do, if something can be done.
    pub advice: Option<String>,
}

/// Findings and the facts behind them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In the order in which a person should read them.
    pub findings: Vec<Finding>,
    /// The facts.
    pub facts: Facts,
    /// Share of CPU time stolen while the doctor looked, percent.
    pub steal_percent: Option<f64>,
    /// What fixed work costs here; `None` when the path cannot be written.
    pub canary: Option<Canary>,
}

impl Report {
    /// The worst level of all findings.
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok)
    }

    /// The finding of a name.
    pub fn finding(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.name == name)
    }
}

/// Looks at the host for a study that would lie at `path`; takes `sample` plus about a tenth of a second.
pub fn examine(path: &Path, sample: Duration) -> Report {
    let facts = gather(path);
    let before = CpuTimes::read();
    // Work while looking: a hypervisor steals only from those who want to run.
    let until = std::time::Instant::now() + sample;
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
    let steal = before.zip(CpuTimes::read()).and_then(|(b, a)| b.steal_percent(&a, &facts.cpu.allowed));
    // A directory of its own, so that nothing of the user's is touched.
    let scratch = facts.disk.path.join(format!(".regauge-doctor-{}", std::process::id()));
    let canary = std::fs::create_dir(&scratch).ok().and_then(|()| {
        let measured = Canary::measure(facts.cpu.allowed.first().copied(), &scratch).ok();
        std::fs::remove_dir(&scratch).ok();
        measured
    });
    Report { findings: judge::findings(&facts, steal, canary.as_ref()), facts, steal_percent: steal, canary }
}

#[cfg(test)]
mod tests;
