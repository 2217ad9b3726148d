//! Several loads: how much can each arm take, and at which speeds do the studies run?
//!
//! Why: a ratio at one load says nothing about another. An idle broker hides its queues and a saturated one shows nothing
//! else, so loads are shares of what today's arm can take on this host, its *knee*. The knee is searched ([`search`]) by
//! short trials at rising replay speeds ([`judge`]), each in fresh processes, before the first block. Trials compare no
//! tails and enter no table.
//!
//! loads.json is written after every trial, so that an interrupted search goes on where it was. It also holds what the
//! search was asked for, since there is no study.json yet that could refuse another study in the same place.
//!
//! Left out: the control arm, whose knee is the base's. Knees of other arms are facts for the report; loads are shares
//! of the base's alone, so that all arms get the same requests at the same times.

mod judge;
mod search;

use super::pace::{Event, Pace, Phase, Progress, run_guess};
use super::store::{self, Store, remove_dir};
use super::tally::Budget;
use super::trial::Trial;
use super::{Context, ExperimentError, STEAL_SAMPLE, Stopped, StudyConfig, pilot, run};
use crate::doctor::{Report, examine};
use crate::gates::GateLimits;
use crate::host::cpu;
use regauge_traces::study::{Knee, KneeProbe, LayoutRecord, LoadPoint, Loads, STUDY_VERSION};
use search::{Bounds, Limit, Next};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Slowest speed that is tried, as a share of the recorded one.
const SPEED_MIN: f64 = 1.0 / 64.0;
/// A replay shorter than this says nothing about keeping up, so no speed makes the trace shorter, s.
const PLAN_MIN_S: f64 = 1.0;
/// Trials that a search takes, more or less; for the guess of what is left.
const TRIALS_GUESS: f64 = 12.0;

/// Which loads a study is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadsAsked {
    /// Shares of the base arm's knee, rising, each above 0 and up to 1.
    pub shares: Vec<f64>,
    /// The one of them that the study itself runs at.
    pub primary: f64,
    /// Length of a trial's plan, ns.
    pub trial_ns: u64,
}

impl LoadsAsked {
    /// Checked shares and the primary among them: `primary`, or the highest up to 0.75, or the lowest. Trials of 3 s.
    ///
    /// # Errors
    /// One sentence on shares that make no sense.
    pub fn new(mut shares: Vec<f64>, primary: Option<f64>) -> Result<LoadsAsked, String> {
        shares.sort_by(f64::total_cmp);
        if let Some(bad) = shares.iter().find(|share| !(**share > 0.0 && **share <= 1.0)) {
            return Err(format!("a load of {bad} is no share of the knee; give shares above 0 and up to 1"));
        }
        if shares.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err("a load is asked for twice; give each share once".to_owned());
        }
        let usual = || shares.iter().copied().rfind(|share| *share <= 0.75).or(shares.first().copied());
        match primary.or_else(usual) {
            None => Err("no load is asked for; give shares like 0.25,0.5,0.75,0.9".to_owned()),
            Some(primary) if !shares.contains(&primary) => {
                Err(format!("the primary load {primary} is none of the loads; choose one of them"))
            }
            Some(primary) => Ok(LoadsAsked { shares, primary, trial_ns: 3_000_000_000 }),
        }
    }

    /// How long the search takes, more or less, for so many arms with the control.
    pub fn guess(&self, arms: usize) -> Duration {
        run_guess(Duration::from_nanos(self.trial_ns)).mul_f64(TRIALS_GUESS * arms as f64)
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadsFound {
    /// Knees and loads.
    pub loads: Loads,
    /// The layout that they were found in; the studies must have it too.
    pub layout: LayoutRecord,
}

/// loads.json with what only the search itself needs.
#[derive(Serialize, Deserialize)]
struct File {
    #[serde(flatten)]
    loads: Loads,
    layout: LayoutRecord,
    asked: Value,
}

/// Finds the knee of every arm, or what is missing of it, and the loads that follow. `config` is the study's at the
/// trace's own rate. `None` when it was stopped; the same call goes on.
///
/// # Errors
/// As [`super::run_study`], and when the base arm keeps up at no rate.
pub fn find_loads(
    config: &StudyConfig,
    asked: &LoadsAsked,
    progress: &mut dyn Progress,
) -> Result<Option<LoadsFound>, ExperimentError> {
    config.check()?;
    let store = Store::open(&config.out)?;
    let earlier: Option<File> = store.loads()?;
    if earlier.is_none() && store.manifest()?.is_some() {
        let differs = "loads (it was begun at one load)".to_owned();
        return Err(ExperimentError::OtherStudy { path: config.out.clone(), differs });
    }
    let host = examine(&config.out, STEAL_SAMPLE);
    match find(config, asked, &store, &host, earlier, progress) {
        Ok(found) => Ok(Some(found)),
        Err(Stopped::Interrupted) => {
            store.remove_tmp()?;
            Ok(None)
        }
        Err(Stopped::Error(e)) => Err(*e),
    }
}

fn find(
    config: &StudyConfig,
    asked: &LoadsAsked,
    store: &Store,
    host: &Report,
    earlier: Option<File>,
    progress: &mut dyn Progress,
) -> Result<LoadsFound, Stopped> {
    // The trace is the study's own copy from here on, so another one must be noticed before it would be ignored.
    let workload = json!(config.workload.workload_hash);
    if earlier.as_ref().is_some_and(|file| file.asked.get("workload_hash") != Some(&workload)) {
        let (path, differs) = (config.out.clone(), "workload_hash".to_owned());
        return Err(ExperimentError::OtherStudy { path, differs }.into());
    }
    store.keep_inputs(&config.trace, config.arms.text())?;
    let mut pace = Pace::new(config, progress);
    let layout = pilot::decide(config, earlier.as_ref().map(|file| &file.layout), store, host, &mut pace)?;
    let limits = config.gates.unwrap_or_else(|| GateLimits::for_layout(&layout));
    let arms = config.arms.resolve(&cpu::allowed(), &layout.server_cpus, crate::layout::driver_own(&layout))?;
    let budget = Budget::new(config.blocks, None);
    let context = Context { config, store, arms, layout: layout.clone(), limits, budget, question: None };
    let _off_the_drivers_cpu = run::KeepOff::new(&layout);
    let request = request(&context, asked)?;
    let mut file = match earlier {
        Some(file) => {
            let differs = store::differing(&file.asked, &request);
            if !differs.is_empty() {
                let path = config.out.clone();
                return Err(ExperimentError::OtherStudy { path, differs: differs.join(", ") }.into());
            }
            file
        }
        None => {
            pilot::probe(&context, &mut pace)?;
            let loads = Loads { version: STUDY_VERSION, knees: Vec::new(), loads: Vec::new() };
            let file = File { loads, layout: layout.clone(), asked: request };
            store.write_loads(&file)?;
            file
        }
    };
    search_all(&context, asked, &mut file, progress)?;
    if file.loads.loads.is_empty() {
        file.loads.loads = points(config, asked, file.loads.knees.first())?;
        store.write_loads(&file)?;
    }
    store.remove_tmp()?;
    Ok(LoadsFound { loads: file.loads, layout })
}

/// What a later call must ask for too. A manifest is not written before the loads are known.
fn request(context: &Context<'_>, asked: &LoadsAsked) -> Result<Value, ExperimentError> {
    let config = context.config;
    let question = config.design.as_ref().map(super::design::without_budgets);
    Ok(json!({
        "regauge": format!("{}, binary {}", config.version, store::file_hash(&config.exe)?),
        "workload_hash": config.workload.workload_hash,
        "arms": context.arms,
        "base": config.arms.base(),
        "seed": config.seed,
        "stamps": config.stamps,
        "loads": asked.shares,
        "primary load": asked.primary,
        "question": question,
    }))
}

/// Searches the knees that are not found yet, the base's first: the others start where it ended.
fn search_all(
    context: &Context<'_>,
    asked: &LoadsAsked,
    file: &mut File,
    progress: &mut dyn Progress,
) -> Result<(), Stopped> {
    let config = context.config;
    let control = config.design.as_ref().and_then(|design| design.control.as_deref());
    let (base, others): (Vec<_>, Vec<_>) = context.arms.iter().partition(|arm| arm.name == config.arms.base());
    let arms: Vec<_> = base.into_iter().chain(others).filter(|arm| Some(arm.name.as_str()) != control).collect();
    let length_s = config.workload.duration_ns as f64 / 1e9;
    let mut bounds = Bounds { start: 1.0, min: SPEED_MIN, max: (length_s / PLAN_MIN_S).max(2.0 * SPEED_MIN) };
    let begun = Instant::now();
    let mut trials = 0_u32;
    for (index, arm) in arms.iter().enumerate() {
        if file.loads.knees.len() == index {
            let (arm, limited_by) = (arm.name.clone(), String::new());
            file.loads.knees.push(Knee { arm, kept_per_s: None, missed_per_s: None, limited_by, probes: Vec::new() });
        }
        let probes = |file: &File| file.loads.knees.get(index).map(|knee| knee.probes.clone()).unwrap_or_default();
        loop {
            let tried = probes(file);
            let speed = match search::next(&tried, &bounds) {
                Next::Try(speed) => speed,
                Next::Found { kept, missed, limit } => {
                    if let Some(knee) = file.loads.knees.get_mut(index) {
                        let rate = |speed: Option<f64>| {
                            let probe = tried.iter().find(|probe| Some(probe.speed) == speed)?;
                            Some(probe.offered_per_s)
                        };
                        (knee.kept_per_s, knee.missed_per_s) = (rate(kept), rate(missed));
                        knee.limited_by = limit.name().to_owned();
                    }
                    context.store.write_loads(file)?;
                    bounds.start = kept.unwrap_or(bounds.start);
                    break;
                }
            };
            if config.stop.is_stopped() {
                return Err(Stopped::Interrupted);
            }
            // At least one more, whatever was guessed.
            let here = (TRIALS_GUESS - tried.len() as f64).max(1.0);
            let left = here + TRIALS_GUESS * (arms.len() - index - 1) as f64;
            let each = match trials {
                0 => run_guess(Duration::from_nanos(asked.trial_ns)),
                n => begun.elapsed() / n,
            };
            let whole = TRIALS_GUESS * arms.len() as f64;
            let mut tell = |_: Duration| {
                progress.update(&Event {
                    block: 0,
                    blocks: config.blocks,
                    complete: 0,
                    flagged: 0,
                    load: None,
                    arm: &arm.name,
                    phase: Phase::Knee,
                    fraction: (1.0 - left / whole).clamp(0.0, 1.0),
                    eta: Some(each.mul_f64(left)),
                });
            };
            tell(Duration::ZERO);
            let dir = context.store.fresh_data_dir("knee")?;
            let trial = Trial { arm, speed, plan_ns: asked.trial_ns, dir: &dir };
            let probe = match trial.run(context, tell)? {
                Ok(driver) => judge::probe(speed, &driver, &trial.gates(context, &driver), &dir),
                Err(e) => judge::broken(speed, &e),
            };
            remove_dir(&dir)?;
            trials += 1;
            if let Some(knee) = file.loads.knees.get_mut(index) {
                knee.probes.push(probe);
            }
            context.store.write_loads(file)?;
        }
    }
    Ok(())
}

/// The loads, as speeds.
fn points(config: &StudyConfig, asked: &LoadsAsked, base: Option<&Knee>) -> Result<Vec<LoadPoint>, ExperimentError> {
    let kept = base.and_then(|knee| knee.probes.iter().filter(|p| p.kept).map(|p| p.speed).max_by(f64::total_cmp));
    let Some(kept) = kept else {
        let name = config.arms.base();
        let last: Option<&KneeProbe> = base.and_then(|knee| knee.probes.last());
        let why = last.map_or(String::new(), |p| format!("; at {:.0}/s {}", p.offered_per_s, p.why));
        return Err(ExperimentError::Config(format!("the base arm `{name}` kept up at no rate{why}")));
    };
    let rate_per_s = config.workload.requests as f64 * 1e9 / (config.workload.duration_ns.max(1)) as f64;
    let point = |share: &f64| {
        let speed = search::round(share * kept);
        let dir = if *share == asked.primary { ".".to_owned() } else { format!("load={share}") };
        LoadPoint { share: *share, speed, offered_per_s: speed * rate_per_s, dir }
    };
    Ok(asked.shares.iter().map(point).collect())
}

impl Limit {
    /// As [`Knee::limited_by`] calls it.
    fn name(self) -> &'static str {
        match self {
            Limit::Server => "server",
            Limit::Driver => "driver",
            Limit::Bounds => "limit",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_primary_load_is_the_highest_below_saturation() {
        let primary = |shares: &[f64], asked| LoadsAsked::new(shares.to_vec(), asked).map(|loads| loads.primary);
        assert_eq!(primary(&[0.9, 0.25, 0.75, 0.5], None), Ok(0.75));
        assert_eq!(primary(&[0.9, 0.8], None), Ok(0.8));
        assert_eq!(primary(&[0.25, 0.9], Some(0.9)), Ok(0.9));
        assert_eq!(LoadsAsked::new(vec![0.9, 0.25], None).unwrap().shares, [0.25, 0.9]);
        assert!(primary(&[0.5], Some(0.75)).unwrap_err().contains("none of the loads"));
        assert!(primary(&[], None).unwrap_err().contains("no load"));
        assert!(primary(&[0.5, 0.5], None).unwrap_err().contains("twice"));
        for bad in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(primary(&[0.5, bad], None).unwrap_err().contains("no share"), "{bad}");
        }
    }
}
