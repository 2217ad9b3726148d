//! Topic names for a replay: short, readable, and as structured as the redacted ones.
//!
//! A trace keeps of each topic level only a keyed hash, so that equal levels stay equal. Here each distinct level
//! becomes its ordinal by first appearance in base 36 (`0`, `1`, … `z`, `10`), while separators, empty levels, the
//! wildcards `+` and `#`, `$share` and `$SYS` stay, and so does the `$` of other levels that open with one. So every
//! subscription matches the publishes that it matched when it was recorded, under any redaction key.
//!
//! The width of a name matters where a packet consists of names: SUBSCRIBE and UNSUBSCRIBE have no payload to fill.
//! [`Names::settle`] therefore reads their recorded lengths as equations over the widths of the levels in them. An
//! equation with one unknown gives the recorded width; where several levels are known only by their sum, the sum is
//! kept and the first of them takes the spare bytes. A wider name is padded with `-`, which no ordinal contains.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// The widest that a level is made, bytes: below the longest field of MQTT, above any level of a sane topic.
const WIDTH_MAX: usize = 32_768;

/// The synthetic level names of one plan.
#[derive(Debug, Default)]
pub struct Names {
    ordinals: HashMap<String, usize>,
    /// Shortest name per ordinal.
    shortest: Vec<String>,
    /// Width per ordinal; 0 until settled.
    widths: Vec<usize>,
    equations: Vec<Equation>,
}

/// Σ times[level] · width[level] = characters.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Equation {
    times: BTreeMap<usize, usize>,
    characters: usize,
}

/// A level that has a name of its own, as opposed to one that means something to the broker.
fn is_named(level: &str) -> bool {
    !matches!(level, "" | "+" | "#" | "$share" | "$SYS")
}

/// `value` in base 36.
pub fn base36(mut value: usize) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((value % 36) as u32, 36).unwrap_or('0'));
        value /= 36;
        if value == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

impl Names {
    /// Meets a topic or filter; its new levels get the next ordinals.
    pub fn meet(&mut self, topic: &str) {
        for level in topic.split('/').filter(|level| is_named(level)) {
            if !self.ordinals.contains_key(level) {
                let ordinal = self.shortest.len();
                let mark = if level.starts_with('$') { "$" } else { "" };
                self.ordinals.insert(level.to_owned(), ordinal);
                self.shortest.push(format!("{mark}{}", base36(ordinal)));
                self.widths.push(0);
            }
        }
    }

    /// Learns that these filters have `characters` characters together. They must have been met.
    pub fn learn<'a>(&mut self, filters: impl Iterator<Item = &'a str>, characters: usize) {
        let mut times = BTreeMap::new();
        let mut known = 0;
        for filter in filters {
            known += filter.matches('/').count();
            for level in filter.split('/') {
                match self.ordinals.get(level) {
                    Some(ordinal) if is_named(level) => *times.entry(*ordinal).or_insert(0) += 1,
                    _ => known += level.len(),
                }
            }
        }
        if let Some(characters) = characters.checked_sub(known) {
            self.equations.push(Equation { times, characters });
        }
    }

    /// Decides the widths. Call once, after everything was met and learned.
    pub fn settle(&mut self) {
        let mut open = std::mem::take(&mut self.equations);
        // Thousands of sessions subscribe alike.
        open.sort_by(|a, b| a.times.len().cmp(&b.times.len()).then_with(|| a.cmp(b)));
        open.dedup();
        // First everything that follows, to the end: a decided level can leave another equation with one unknown.
        loop {
            let before = open.len();
            open.retain(|equation| !self.decide_last_unknown(equation));
            if open.len() == before {
                break;
            }
        }
        // Then the sums, once each: what an earlier one decided counts for the later ones.
        for equation in &open {
            if !self.decide_last_unknown(equation) {
                self.share_out(equation);
            }
        }
        for ordinal in 0..self.widths.len() {
            if self.widths[ordinal] == 0 {
                self.widths[ordinal] = self.shortest[ordinal].len();
            }
        }
    }

    /// Characters that the undecided levels of an equation share, and how often each of them occurs.
    fn remainder(&self, equation: &Equation) -> (Option<usize>, Vec<(usize, usize)>) {
        let mut decided = 0;
        let mut undecided = Vec::new();
        for (&ordinal, &times) in &equation.times {
            match self.widths[ordinal] {
                0 => undecided.push((ordinal, times)),
                width => decided += width * times,
            }
        }
        (equation.characters.checked_sub(decided), undecided)
    }

    /// True when nothing of the equation is left to decide (also where it contradicts others: the packet is then
    /// counted as resized when it is built).
    fn decide_last_unknown(&mut self, equation: &Equation) -> bool {
        let (characters, undecided) = self.remainder(equation);
        match (undecided.as_slice(), characters) {
            ([], _) | (_, None) => true,
            (&[(ordinal, times)], Some(characters)) => {
                let width = characters / times;
                if characters % times == 0 && (self.shortest[ordinal].len()..=WIDTH_MAX).contains(&width) {
                    self.widths[ordinal] = width;
                }
                true
            }
            _ => false,
        }
    }

    /// Keeps the sum of several unknown widths: each its shortest, the spare bytes to the first that can take them.
    fn share_out(&mut self, equation: &Equation) {
        let (Some(characters), undecided) = self.remainder(equation) else { return };
        let shortest: usize = undecided.iter().map(|&(ordinal, times)| self.shortest[ordinal].len() * times).sum();
        let Some(mut spare) = characters.checked_sub(shortest) else { return };
        for &(ordinal, times) in &undecided {
            let shortest = self.shortest[ordinal].len();
            let extra = (spare / times).min(WIDTH_MAX.saturating_sub(shortest));
            self.widths[ordinal] = shortest + extra;
            spare -= extra * times;
        }
    }

    /// The topic or filter with its synthetic names. A level that was never met stays as it is.
    pub fn rename(&self, topic: &str) -> String {
        let levels = topic.split('/').map(|level| match self.ordinals.get(level) {
            Some(&ordinal) if is_named(level) => {
                let (name, width) = (&self.shortest[ordinal], self.widths[ordinal]);
                Cow::Owned(format!("{name:-<width$}"))
            }
            _ => Cow::Borrowed(level),
        });
        levels.collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn structure_and_equality_are_kept() {
        let mut names = Names::default();
        let topics = ["aa/bb/aa", "$share/gg/aa/+", "$SYS/#", "//bb", "#", "$aa/x"];
        topics.iter().for_each(|topic| names.meet(topic));
        names.settle();
        let renamed: Vec<String> = topics.iter().map(|topic| names.rename(topic)).collect();
        assert_eq!(renamed, ["0/1/0", "$share/2/0/+", "$SYS/#", "//1", "#", "$3/4"]);
    }

    #[test]
    fn widths_follow_from_the_lengths_of_subscriptions() {
        let mut names = Names::default();
        for filter in ["a/b/c", "a/+/c", "c"] {
            names.meet(filter);
        }
        // Recorded: kitchen/oven/temperature, kitchen/+/temperature, temperature.
        names.learn(["a/b/c"].into_iter(), 24);
        names.learn(["a/+/c"].into_iter(), 21);
        names.learn(["c"].into_iter(), 11);
        names.settle();
        let lengths: Vec<usize> = ["a", "b", "c"].iter().map(|level| names.rename(level).len()).collect();
        assert_eq!(lengths, [7, 4, 11]);
    }

    #[test]
    fn a_sum_is_kept_where_single_widths_are_unknown() {
        let mut names = Names::default();
        names.meet("x/y/x");
        names.learn(["x/y/x"].into_iter(), 20);
        names.settle();
        let renamed = names.rename("x/y/x");
        assert_eq!(renamed.len(), 20);
        let levels: Vec<&str> = renamed.split('/').collect();
        assert_eq!(levels[0], levels[2]);
        assert_ne!(levels[0], levels[1]);
    }

    #[test]
    fn contradictions_end() {
        let mut names = Names::default();
        names.meet("x/y");
        names.learn(["x/y"].into_iter(), 9);
        names.learn(["x/y"].into_iter(), 12);
        names.learn(["x"].into_iter(), 0);
        names.learn(["x/x/x"].into_iter(), 7);
        names.settle();
        assert!(names.rename("x/y").len() >= 3);
    }

    #[test]
    fn base36_counts() {
        assert_eq!([0, 9, 35, 36, 36 * 36].map(base36), ["0", "9", "z", "10", "100"]);
    }
}
