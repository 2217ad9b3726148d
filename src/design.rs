//! What a study is about and how large it may become: flags, the table `[design]` of the arms, and what an earlier call
//! registered. The checked result is written down before the first run; see [`regauge_traces::study::Design`].

use anyhow::{Result, anyhow, bail};
use regauge_replayer::arms::{Arms, Millis, Primary, Question, Region};
use regauge_replayer::experiment::LoadsAsked;
use regauge_traces::study::{Design, Manifest};
use std::path::Path;

/// Fewest blocks of a first stage: the intervals of the whole study keep its spread, and of fewer blocks it is too rough.
const FIRST_STAGE_MIN: u32 = 10;

/// What is fixed before the first run. Another value with the same --out is refused.
#[derive(clap::Args)]
#[command(next_help_heading = "Fixed before the first run")]
pub struct Planned {
    /// What the verdict rests on: step and percentile, such as connect:p99 (default all:p99_9)
    #[arg(long, value_name = "STEP:PERCENTILE")]
    primary: Option<Primary>,
    /// The bar: a migration is worth its cost below this ratio to the base (default 0.80)
    #[arg(long, value_name = "RATIO")]
    worth: Option<f64>,
    /// Ratios that make no difference (default 0.91..1.10)
    #[arg(long, value_name = "LOW..HIGH")]
    equivalence: Option<Region>,
    /// A smaller gain is none, whatever the ratio (default 0.5ms)
    #[arg(long, value_name = "TIME")]
    floor: Option<Millis>,
    /// Service level objective: the share of requests above it is compared too (default 10ms)
    #[arg(long, value_name = "TIME")]
    slo: Option<Millis>,
    /// Whether the base runs a second time in every block, as a control: true (the default) or false. Without it there
    /// is no verdict
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    control: bool,
    /// Blocks that may be run again because a run failed a gate (default: as many as --blocks; may be raised later)
    #[arg(long, value_name = "N")]
    reruns: Option<u32>,
    /// Precision to size the study for: after --blocks blocks (10) it says how many it takes for a ratio ± this, and
    /// runs them
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    until: Option<f64>,
    /// Blocks that --until may come to (default 100; may be raised later)
    #[arg(long, value_name = "N", requires = "until")]
    max_blocks: Option<u32>,
    /// Loads, as shares of the highest rate at which the base arm keeps up, such as 0.25,0.5,0.75,0.9: one study each
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = parse_percent, conflicts_with = "speed")]
    load: Vec<f64>,
    /// The load that the verdict is about (default: the highest up to 0.75)
    #[arg(long, value_name = "SHARE", requires = "load")]
    primary_load: Option<f64>,
}

impl Planned {
    /// The loads, when several were asked for.
    pub fn loads(&self) -> Result<Option<LoadsAsked>> {
        if self.load.is_empty() {
            return Ok(None);
        }
        LoadsAsked::new(self.load.clone(), self.primary_load).map(Some).map_err(|why| anyhow!(why))
    }

    /// The design of a study of `blocks` complete blocks in `out`, whose arms get their control here. A `quick` study
    /// runs no block again.
    pub fn design(&self, arms: &mut Arms, blocks: u32, out: &Path, quick: bool) -> Result<Design> {
        let asked = Question {
            primary: self.primary.clone(),
            worth: self.worth,
            equivalence: self.equivalence,
            floor: self.floor,
            slo: self.slo,
        };
        let question = asked.over(arms.question()).design().map_err(|why| anyhow!(why))?;
        if quick && (self.until.is_some() || !self.load.is_empty()) {
            bail!("--quick ends within three minutes, which neither --until nor --load can; leave one of them out");
        }
        if self.until.is_some() && blocks < FIRST_STAGE_MIN {
            bail!(
                "--until sizes a study by how much the blocks of its first stage differ, which takes {FIRST_STAGE_MIN} or \
                 more of them; --blocks {blocks} is too few"
            );
        }
        if let Some(max) = self.max_blocks.filter(|max| *max < blocks) {
            bail!("--max-blocks {max} is less than the {blocks} blocks of the first stage");
        }
        let earlier = registered(out);
        let before = |budget: fn(&Design) -> u32| earlier.as_ref().map_or(0, budget);
        Ok(Design {
            control: if self.control { arms.add_control() } else { None },
            until: self.until,
            blocks_max: self.max_blocks.unwrap_or_else(|| match before(|design| design.blocks_max) {
                0 => question.blocks_max,
                max => max,
            }),
            reruns_max: self
                .reruns
                .unwrap_or_else(|| before(|design| design.reruns_max).max(if quick { 0 } else { blocks })),
            load: self.loads()?.map(|loads| loads.primary),
            ..question
        })
    }
}

/// The design of the study that stands in a directory. What cannot be read is the experiment's to complain about.
fn registered(out: &Path) -> Option<Design> {
    let text = std::fs::read(out.join("study.json")).ok()?;
    serde_json::from_slice::<Manifest>(&text).ok()?.design
}

/// `20%` or `0.2`.
fn parse_percent(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value / unit),
        _ => Err(format!("`{text}` is no share; write it like 20% or 0.2")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        experiment: crate::replay::Experiment,
        #[command(flatten)]
        planned: Planned,
    }

    fn design(args: &[&str], quick: bool) -> Result<Design> {
        let line = Line::try_parse_from([&["x"], args].concat())?;
        let text = "base = \"a\"\n[design]\nworth = 0.7\nslo = \"5ms\"\n[[arm]]\nname = \"a\"\nstack = \"compio\"\n";
        let mut arms = Arms::parse(text, "arms.toml")?;
        let blocks = line.experiment.blocks.unwrap_or(10);
        line.planned.design(&mut arms, blocks, Path::new("/nonexistent"), quick)
    }

    #[test]
    fn flags_win_over_the_arms_file_and_sizes_follow_from_blocks() {
        let plain = design(&[], false).unwrap();
        assert_eq!((plain.worth_ratio, plain.slo_ms, plain.floor_ms), (0.7, 5.0, 0.5));
        assert_eq!((plain.reruns_max, plain.blocks_max, plain.until, plain.load), (10, 100, None, None));
        assert_eq!(plain.control.as_deref(), Some("a-again"));
        let flags = ["--worth", "0.5", "--blocks", "12", "--until", "25%", "--control", "false", "--load", "0.5,0.9"];
        let asked = design(&flags, false).unwrap();
        assert_eq!((asked.worth_ratio, asked.reruns_max, asked.until, asked.load), (0.5, 12, Some(0.25), Some(0.5)));
        assert_eq!(asked.control, None);
        assert_eq!(design(&["--blocks", "3"], true).unwrap().reruns_max, 0);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let said = |args: &[&str], quick| design(args, quick).unwrap_err().to_string();
        assert!(said(&["--until", "20%"], true).contains("three minutes"));
        assert!(said(&["--until", "20%", "--blocks", "9"], false).contains("takes 10 or more of them"));
        assert!(design(&["--until", "20%", "--blocks", "10"], false).is_ok());
        assert!(said(&["--worth", "1.2"], false).contains("a bar of 1.2"));
        assert!(said(&["--load", "0.5,2"], false).contains("no share of the knee"));
        assert!(said(&["--until", "20%", "--max-blocks", "9"], false).contains("first stage"));
        assert!(said(&["--max-blocks", "50"], false).contains("--until"));
        assert!(said(&["--slo", "0ms"], false).contains("objective of 0 ms"));
        assert_eq!(design(&["--load", "25%,0.5"], false).unwrap().load, Some(0.5));
        for args in [&["--until", "often"][..], &["--primary", "p99"], &["--floor", "5"], &["--primary-load", "0.5"]] {
            assert!(said(args, false).contains("error:"), "{args:?}");
        }
        assert!(said(&["--load", "0.5", "--speed", "2"], false).contains("cannot be used with"));
    }

    #[test]
    fn the_replayer_knows_the_percentiles_of_the_analysis() {
        let analysis: Vec<&str> = regauge_analysis::counts::PERCENTILES.iter().map(|p| p.key).collect();
        assert_eq!(analysis, regauge_replayer::arms::PERCENTILES);
    }
}
