//! The question that a study answers, as it is asked for: by flags, or by the table `[design]` of arms.toml.
//!
//! Why it stands with the arms: which arms are compared, by which percentile and against which bar is one decision, and
//! it is taken before the first run ([`Design`]). What is left open takes the defaults of [`Design`]; flags win over
//! the table. Figures are checked for sense here; whether the step exists in the trace is checked by the experiment.
//!
//! ```toml
//! [design]
//! primary = "connect:p99_9"     # step and percentile
//! worth = 0.80                  # a migration is worth its cost below this ratio
//! equivalence = "0.91..1.10"    # no difference that matters
//! floor = "0.5ms"               # a smaller gain is none
//! slo = "10ms"                  # the service level objective
//! ```

use regauge_traces::study::Design;
use serde::Deserialize;
use std::str::FromStr;

/// Percentiles that a study can be about, lowest first, as the analysis calls them.
pub const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99_9", "p99_99"];

/// What was asked for; the open parts are `None`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The primary cell.
    pub primary: Option<Primary>,
    /// The bar, a ratio to the base.
    pub worth: Option<f64>,
    /// Region of equivalence, ratios to the base.
    pub equivalence: Option<Region>,
    /// Smallest gain that counts.
    pub floor: Option<Millis>,
    /// The service level objective.
    pub slo: Option<Millis>,
}

/// A step and its percentile: `all:p99_9`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Primary {
    /// `all` or the name of a root kind.
    pub step: String,
    /// One of [`PERCENTILES`].
    pub percentile: String,
}

/// A region of ratios: `0.91..1.10`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Region {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A length of time in ms: `0.5ms`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Millis(pub f64);

impl Question {
    /// This question, with what it leaves open taken from `other`.
    pub fn over(self, other: &Question) -> Question {
        let other = other.clone();
        Question {
            primary: self.primary.or(other.primary),
            worth: self.worth.or(other.worth),
            equivalence: self.equivalence.or(other.equivalence),
            floor: self.floor.or(other.floor),
            slo: self.slo.or(other.slo),
        }
    }

    /// The pre-registered part of a study with this question; sizes and control are those of the default.
    ///
    /// # Errors
    /// One sentence on figures that make no sense, alone or together.
    pub fn design(self) -> Result<Design, String> {
        let defaults = Design::default();
        let (step, percentile) = match self.primary {
            Some(primary) => (primary.step, primary.percentile),
            None => (defaults.primary_step, defaults.primary_percentile),
        };
        let region =
            self.equivalence.unwrap_or(Region { low: defaults.equivalent_low, high: defaults.equivalent_high });
        let worth = self.worth.unwrap_or(defaults.worth_ratio);
        if !(worth.is_finite() && 0.0 < worth && worth < 1.0) {
            return Err(format!("a bar of {worth} is none: what is worth it lies between 0 and 1 times the base"));
        }
        if worth > region.low {
            return Err(format!(
                "the bar {worth} lies within the region of equivalence ({}..{}): a gain cannot be worth it and be no \
                 difference",
                region.low, region.high
            ));
        }
        if self.slo.is_some_and(|slo| slo.0 <= 0.0) {
            return Err("an objective of 0 ms is exceeded by every request; name a longer one".to_owned());
        }
        Ok(Design {
            primary_step: step,
            primary_percentile: percentile,
            worth_ratio: worth,
            equivalent_low: region.low,
            equivalent_high: region.high,
            floor_ms: self.floor.map_or(defaults.floor_ms, |floor| floor.0),
            slo_ms: self.slo.map_or(defaults.slo_ms, |slo| slo.0),
            ..Design::default()
        })
    }
}

impl FromStr for Primary {
    type Err = String;

    fn from_str(text: &str) -> Result<Primary, String> {
        let Some((step, percentile)) = text.split_once(':').filter(|(step, _)| !step.is_empty()) else {
            return Err(format!("`{text}` is no step and percentile; write them like all:p99_9 or connect:p99"));
        };
        let percentile = percentile.replace('.', "_");
        if !PERCENTILES.contains(&percentile.as_str()) {
            return Err(format!("`{percentile}` is no percentile here; choose one of {}", PERCENTILES.join(", ")));
        }
        Ok(Primary { step: step.to_owned(), percentile })
    }
}

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Region, String> {
        let number = |part: &str| part.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        let ends = text.split_once("..").and_then(|(low, high)| Some((number(low)?, number(high)?)));
        let Some((low, high)) = ends else {
            return Err(format!("`{text}` is no region of ratios; write it like 0.91..1.10"));
        };
        if !(0.0 < low && low <= 1.0 && 1.0 <= high && low < high) {
            return Err(format!("a region of equivalence lies around 1, and {low}..{high} does not"));
        }
        Ok(Region { low, high })
    }
}

impl FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Millis, String> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (value, unit) = text.split_at(split);
        let per_unit = match unit.trim() {
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            _ => return Err(format!("`{text}` is no length of time; write it like 0.5ms, 500us or 1s")),
        };
        match value.parse::<f64>() {
            // An hour: no latency that is worth a study is longer, and histograms end there.
            Ok(value) if (0.0..=3.6e6).contains(&(value * per_unit)) => Ok(Millis(value * per_unit)),
            _ => Err(format!("`{text}` is no length of time up to an hour; write it like 0.5ms, 500us or 1s")),
        }
    }
}

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}
from_text!(Primary, Region, Millis);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_open_takes_the_defaults_and_flags_win_over_the_table() {
        assert_eq!(Question::default().design().unwrap(), Design::default());
        let table: Question = toml::from_str("primary = \"connect:p99.9\"\nworth = 0.7\nslo = \"1s\"").unwrap();
        let flags = Question { worth: Some(0.5), floor: Some(Millis(2.0)), ..Question::default() };
        let design = flags.over(&table).design().unwrap();
        assert_eq!((design.primary_step.as_str(), design.primary_percentile.as_str()), ("connect", "p99_9"));
        assert_eq!((design.worth_ratio, design.floor_ms, design.slo_ms), (0.5, 2.0, 1000.0));
        assert_eq!((design.equivalent_low, design.equivalent_high), (0.91, 1.10));
    }

    #[test]
    fn figures_are_read_with_their_units() {
        assert_eq!("0.5ms".parse(), Ok(Millis(0.5)));
        assert_eq!("250us".parse(), Ok(Millis(0.25)));
        assert_eq!("2 s".parse(), Ok(Millis(2000.0)));
        assert_eq!("0.9..1.2".parse(), Ok(Region { low: 0.9, high: 1.2 }));
    }

    #[test]
    fn nonsense_is_refused_by_what_is_wrong_with_it() {
        let primary = |text: &str| text.parse::<Primary>().unwrap_err();
        assert!(primary("p99").contains("all:p99_9"));
        assert!(primary(":p99").contains("no step"));
        assert!(primary("all:p95").contains("choose one of p50, p90, p99, p99_9, p99_99"));
        let region = |text: &str| text.parse::<Region>().unwrap_err();
        assert!(region("0.9").contains("0.91..1.10"));
        assert!(region("0.9..NaN").contains("0.91..1.10"));
        for around in ["1.1..1.2", "0.5..0.9", "1..1", "-1..2", "1.1..0.9"] {
            assert!(region(around).contains("around 1"), "{around}");
        }
        for text in ["10", "ms", "1h", "1e9s", "-1ms", "3601s"] {
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
        let worth = |worth| Question { worth: Some(worth), ..Question::default() }.design().unwrap_err();
        for none in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
            assert!(worth(none).contains("is none"), "{none}");
        }
        assert!(worth(0.95).contains("region of equivalence"));
    }
}
