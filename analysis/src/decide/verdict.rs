//! The verdict: from cells to MIGRATE, FIX IN PLACE, STAY or INSUFFICIENT EVIDENCE.
//!
//! A migration must beat every arm of today's runtime that promises clients the same, each by the bar: an intersection of
//! tests, so that taking the best of today's arms after the fact needs no correction. Over the arms that may win the
//! one-sided p-values are adjusted by Holm. Anything that the procedure was not shown to withstand blocks a verdict
//! instead of weakening it.

use super::Roles;
use crate::decision::{PrimaryCell, Tier};
use crate::multiplicity::holm;

/// The answers.
pub const MIGRATE: &str = "MIGRATE";
/// A cheaper arm of today's runtime suffices.
pub const FIX_IN_PLACE: &str = "FIX IN PLACE";
/// No alternative has an effect worth it.
pub const STAY: &str = "STAY";
/// The first-class answer that evidence does not suffice.
pub const INSUFFICIENT: &str = "INSUFFICIENT EVIDENCE";

/// Blocks below which the procedure was not shown to hold its error rates.
pub const BLOCKS_MIN: u64 = 10;
/// One-sided error of "beyond the bar", after Holm.
pub const P_BAR_MOST: f64 = 0.025;

/// All comparisons of the primary cell that the verdict may rest on.
pub struct Cells {
    /// Every arm but base and control, against the base.
    pub against_base: Vec<PrimaryCell>,
    /// Every alternative of another runtime against each alternative of today's, the base left out.
    pub against_today: Vec<PrimaryCell>,
}

/// What is concluded, before it is put into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// This arm, of another runtime.
    Migrate(String),
    /// This arm, of today's runtime.
    FixInPlace(String),
    /// None has an effect worth it.
    Stay,
    /// It cannot be told; the arms that stand in the way.
    Open(Vec<String>),
}

impl Cells {
    /// All cells of an arm: against the base, and against each of today's arms.
    pub fn of_arm<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a PrimaryCell> {
        self.against_base.iter().chain(&self.against_today).filter(move |cell| cell.arm == arm)
    }

    /// The cell of an arm against the base.
    pub fn against_base(&self, arm: &str) -> Option<&PrimaryCell> {
        self.against_base.iter().find(|cell| cell.arm == arm)
    }

    /// Arms of another runtime that are shown to beat this one of today's by the bar. Whether they may win themselves is
    /// another question: one that fails against a third arm still denies that this one suffices.
    pub fn beaten_by<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a str> {
        let beats = |cell: &&PrimaryCell| {
            let is_sound = cell.tier == Tier::MigrationEffect && !cell.low_confidence;
            is_sound && cell.p_bar.is_some_and(|p| p <= P_BAR_MOST)
        };
        self.against_today.iter().filter(move |cell| cell.against == arm).filter(beats).map(|cell| cell.arm.as_str())
    }

    /// Fills the p-values that are adjusted over several arms.
    pub fn adjust(&mut self, roles: &Roles) {
        let others = &roles.others_all;
        let p = holm(&others.iter().map(|arm| self.against_base(arm).and_then(|cell| cell.p)).collect::<Vec<_>>());
        let today = &roles.today_all;
        let p_today = holm(&today.iter().map(|arm| self.against_base(arm).and_then(|cell| cell.p)).collect::<Vec<_>>());
        for (arm, p) in others.iter().zip(p).chain(today.iter().zip(p_today)) {
            self.against_base.iter_mut().filter(|cell| cell.arm == *arm).for_each(|cell| cell.p_holm = p);
        }
        for group in [&roles.others, &roles.today] {
            // An arm must beat all that it is compared with: the largest of its p-values.
            let largest = |arm: &String| {
                let p: Option<Vec<f64>> = self.of_arm(arm).map(|cell| cell.p_bar).collect();
                p?.into_iter().max_by(f64::total_cmp)
            };
            let adjusted = holm(&group.iter().map(largest).collect::<Vec<_>>());
            for (arm, p) in group.iter().zip(adjusted) {
                let cells = self.against_base.iter_mut().chain(self.against_today.iter_mut());
                cells.filter(|cell| cell.arm == *arm).for_each(|cell| cell.p_bar_holm = p);
            }
        }
    }

    /// What follows when nothing blocks a verdict.
    pub fn conclude(&self, roles: &Roles) -> Conclusion {
        let best = |arms: Vec<&String>| {
            let ratio = |arm: &String| self.against_base(arm).and_then(|cell| cell.ratio).map_or(f64::MAX, |r| r.value);
            arms.into_iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b))).cloned()
        };
        let wins = |arm: &&String| {
            roles.fault(arm).is_none() && self.of_arm(arm).all(is_beyond) && self.of_arm(arm).next().is_some()
        };
        if let Some(arm) = best(roles.others.iter().filter(wins).collect()) {
            return Conclusion::Migrate(arm);
        }
        let is_beaten = |arm: &String| self.beaten_by(arm).next().is_some();
        if let Some(arm) = best(roles.today.iter().filter(wins).filter(|arm| !is_beaten(arm)).collect()) {
            return Conclusion::FixInPlace(arm);
        }
        let alternatives = || roles.others.iter().chain(&roles.today);
        let open: Vec<String> =
            alternatives().filter(|arm| !self.against_base(arm).is_some_and(excludes)).cloned().collect();
        match open.is_empty() && alternatives().next().is_some() {
            true => Conclusion::Stay,
            false => Conclusion::Open(open),
        }
    }
}

/// Shown to be beyond the bar, with the adjusted p-value and enough episodes.
fn is_beyond(cell: &PrimaryCell) -> bool {
    cell.tier == Tier::MigrationEffect && !cell.low_confidence && cell.p_bar_holm.is_some_and(|p| p <= P_BAR_MOST)
}

/// Shown to have no effect worth it.
fn excludes(cell: &PrimaryCell) -> bool {
    let is_sound = !matches!(cell.tier, Tier::Refused | Tier::RunHeterogeneous) && !cell.low_confidence;
    is_sound && cell.excludes_worth
}
