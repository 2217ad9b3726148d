//! What a design must be before the first run, and what may change of it afterwards.
//!
//! Question, bar, margins and control are fixed. Two budgets may grow: blocks that are run again because a gate failed,
//! since gates see no latency, and the largest size that is acceptable, since the size itself follows from the first
//! stage. Neither can turn a result around.

use crate::arms::PERCENTILES;
use regauge_traces::study::Design;
use std::collections::BTreeSet;

/// The step that stands for all requests.
pub const ALL: &str = "all";

/// Precisions that a study can be sized for, relative half-widths of the ratio.
const UNTIL: std::ops::RangeInclusive<f64> = 0.01..=1.0;

/// One sentence on what makes no sense in a design for these arms and this trace.
pub(super) fn check<'a>(
    design: &Design,
    mut arms: impl Iterator<Item = &'a str>,
    base: &str,
    steps: &BTreeSet<&'static str>,
) -> Result<(), String> {
    let (step, percentile) = (design.primary_step.as_str(), design.primary_percentile.as_str());
    if step != ALL && !steps.contains(step) {
        let known: Vec<&str> = [ALL].into_iter().chain(steps.iter().copied()).collect();
        return Err(format!("the trace has no request `{step}` with a reply; choose one of {}", known.join(", ")));
    }
    if !PERCENTILES.contains(&percentile) {
        return Err(format!("`{percentile}` is no percentile here; choose one of {}", PERCENTILES.join(", ")));
    }
    if let Some(until) = design.until.filter(|until| !UNTIL.contains(until)) {
        return Err(format!("a precision of {until} cannot be sized for; ask for 1% to 100%"));
    }
    if let Some(control) = &design.control
        && (control == base || !arms.any(|arm| arm == control))
    {
        return Err(format!("the control `{control}` is no arm beside the base"));
    }
    Ok(())
}

/// Goes on with `earlier` where `asked` differs from it in nothing but larger budgets; otherwise names what differs.
pub(super) fn goes_on(earlier: &Design, asked: &Design) -> Result<Design, Vec<String>> {
    let mut differs = Vec::new();
    for (name, before, now) in
        [("reruns_max", earlier.reruns_max, asked.reruns_max), ("blocks_max", earlier.blocks_max, asked.blocks_max)]
    {
        if now < before {
            differs.push(format!("design.{name} ({before} were allowed before, {now} now)"));
        }
    }
    let fields = |design: &Design| serde_json::to_value(without_budgets(design)).unwrap_or_default();
    let (before, now) = (fields(earlier), fields(asked));
    for (key, value) in now.as_object().into_iter().flatten() {
        if before.get(key) != Some(value) {
            let was = before.get(key).cloned().unwrap_or_default();
            differs.push(format!("design.{key} ({was} was registered, {value} is asked for now)"));
        }
    }
    if differs.is_empty() { Ok(asked.clone()) } else { Err(differs) }
}

/// What cannot change.
pub(super) fn without_budgets(design: &Design) -> Design {
    Design { reruns_max: 0, blocks_max: 0, ..design.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(change: impl Fn(&mut Design)) -> String {
        let mut design = Design::default();
        change(&mut design);
        check(&design, ["a", "b"].into_iter(), "a", &BTreeSet::from(["connect", "publish"])).unwrap_err()
    }

    #[test]
    fn a_design_must_fit_the_trace_and_the_arms() {
        let said = refused(|d| d.primary_step = "subscribe".into());
        assert_eq!(said, "the trace has no request `subscribe` with a reply; choose one of all, connect, publish");
        assert!(refused(|d| d.primary_percentile = "p95".into()).contains("p99_9"));
        assert!(refused(|d| d.until = Some(0.001)).contains("1% to 100%"));
        assert!(refused(|d| d.until = Some(f64::NAN)).contains("1% to 100%"));
        assert!(refused(|d| d.control = Some("a".into())).contains("beside the base"));
        assert!(refused(|d| d.control = Some("c".into())).contains("beside the base"));
        let good = Design { primary_step: "connect".into(), control: Some("b".into()), ..Design::default() };
        check(&good, ["a", "b"].into_iter(), "a", &BTreeSet::from(["connect"])).unwrap();
    }

    #[test]
    fn budgets_may_grow_and_nothing_else_may_change() {
        let earlier = Design { until: Some(0.2), ..Design::default() };
        let more = Design { reruns_max: 20, blocks_max: 200, ..earlier.clone() };
        assert_eq!(goes_on(&earlier, &more).unwrap(), more);
        assert_eq!(goes_on(&more, &earlier).unwrap_err().len(), 2);
        let other = Design { worth_ratio: 0.9, control: Some("b".into()), ..more };
        let differs = goes_on(&earlier, &other).unwrap_err();
        assert_eq!(
            differs,
            [
                "design.control (null was registered, \"b\" is asked for now)",
                "design.worth_ratio (0.8 was registered, 0.9 is asked for now)"
            ]
        );
    }
}
