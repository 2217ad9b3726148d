//! The arms of a study: what arms.toml says, checked, and made complete for one CPU layout.
//!
//! Why: a comparison means something only when every setting but the one in question is equal, and when every setting
//! is known. So an arm leaves this module with nothing implicit, and [`differences`] names what is not equal.
//! Every mistake in the file gets one sentence with its place. It does not know how an arm is run.
//!
//! ```toml
//! base = "today"            # the arm that the others are compared with
//!
//! [defaults]                # any setting
//! durability = "fdatasync"
//!
//! [[arm]]
//! name = "today"
//! stack = "tokio-shared"
//!
//! [[arm]]
//! name = "candidate"
//! stack = "compio"
//! blocking_threads = 16     # any setting, over the defaults
//! ```
//! The table `[design]` is explained at [`Question`].

mod control;
mod question;
mod row;

pub use question::{Millis, PERCENTILES, Primary, Question, Region};

use regauge_runtimes::settings::{Durability, RaftSync, Settings, Stack};
use regauge_traces::study::ArmRecord;
use row::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::Spanned;

/// Arms that are built in: name, text.
const BUILT_IN: [(&str, &str); 3] = [
    ("default", include_str!("../arms/default.toml")),
    ("factorial", include_str!("../arms/factorial.toml")),
    ("diagnose", include_str!("../arms/diagnose.toml")),
];

/// Longest name of an arm; it becomes a directory name and a column heading.
const NAME_MAX: usize = 64;

/// A mistake in an arms file: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ArmsError {
    /// File, line and arm.
    pub place: String,
    /// One clause that says what is wrong.
    pub message: String,
}

/// An arms file that passed every check that needs no host.
#[derive(Debug, Clone, PartialEq)]
pub struct Arms {
    base: String,
    arms: Vec<Arm>,
    question: Question,
    text: String,
}

/// One arm as asked for: settings that it leaves open follow from the CPU layout.
#[derive(Debug, Clone, PartialEq)]
struct Arm {
    name: String,
    stack: Stack,
    row: Row,
    place: String,
}

/// A setting in which arms differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The setting's name.
    pub setting: String,
    /// Its value in each arm, in the order of the arms.
    pub values: Vec<(String, Value)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    base: Option<Spanned<String>>,
    defaults: Option<Spanned<Row>>,
    #[serde(default)]
    design: Question,
    #[serde(default)]
    arm: Vec<Spanned<Row>>,
}

impl Arms {
    /// The arms of a name that is built in (`default`, `factorial`, `diagnose`) or of a file.
    pub fn load(name_or_path: &str) -> Result<Arms, ArmsError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Arms::parse(text, &format!("built-in arms `{name}`"));
        }
        let error = |message: String| ArmsError { place: name_or_path.to_owned(), message };
        let text = std::fs::read_to_string(Path::new(name_or_path)).map_err(|e| {
            error(format!(
                "cannot read it ({e}); give a file of arms or one of the built-in names {}",
                BUILT_IN.map(|(name, _)| name).join(", ")
            ))
        })?;
        Arms::parse(&text, name_or_path)
    }

    /// Reads arms.toml's text; `origin` is how messages call it.
    pub fn parse(text: &str, origin: &str) -> Result<Arms, ArmsError> {
        let line = |at: usize| text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
        let whole = |message: String| ArmsError { place: origin.to_owned(), message };
        let file: File = toml::from_str(text).map_err(|e| ArmsError {
            place: e.span().map_or(origin.to_owned(), |s| format!("{origin}, line {}", line(s.start))),
            message: e.message().replace('\n', ", "),
        })?;

        let mut defaults = Row::default();
        if let Some(spanned) = file.defaults {
            let place = format!("{origin}, line {}, [defaults]", line(spanned.span().start));
            defaults = spanned.into_inner();
            if defaults.name.is_some() {
                return Err(ArmsError { place, message: "`name` belongs to one arm, not to the defaults".into() });
            }
            defaults.check().map_err(|message| ArmsError { place, message })?;
        }
        if file.arm.is_empty() {
            return Err(whole("no arm stands in it; give at least one `[[arm]]` with `name` and `stack`".into()));
        }
        let mut arms: Vec<Arm> = Vec::new();
        for spanned in file.arm {
            let mut place = format!("{origin}, line {}", line(spanned.span().start));
            let row = spanned.into_inner().over(&defaults);
            let Some(name) = row.name.clone() else {
                return Err(ArmsError { place, message: "this arm has no `name`".into() });
            };
            place.push_str(&format!(", arm `{name}`"));
            let arm = Arm::new(name, row, &place).map_err(|message| ArmsError { place: place.clone(), message })?;
            if arms.iter().any(|other| other.name == arm.name) {
                return Err(ArmsError { place, message: "another arm has this name already".into() });
            }
            arms.push(arm);
        }

        let names = || arms.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(base) = file.base else {
            return Err(whole(format!("`base = \"…\"` is missing; choose one of the arms {}", names())));
        };
        if !arms.iter().any(|a| a.name == *base.get_ref()) {
            return Err(ArmsError {
                place: format!("{origin}, line {}", line(base.span().start)),
                message: format!("`base` is `{}`, which no arm is called; choose one of {}", base.get_ref(), names()),
            });
        }
        Ok(Arms { base: base.into_inner(), arms, question: file.design, text: text.to_owned() })
    }

    /// Name of the base arm.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What the file asks about these arms.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Names in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arms.iter().map(|a| a.name.as_str())
    }

    /// Stacks that any arm uses.
    pub fn stacks(&self) -> Vec<Stack> {
        Stack::ALL.into_iter().filter(|s| self.arms.iter().any(|a| a.stack == *s)).collect()
    }

    /// The file's text, to be kept beside the results.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Completes every arm for a host: `allowed` are the CPUs that this process may use, `server` those that the layout
    /// gives to the server, `driver_own` the one that belongs to the driver alone, if any.
    pub fn resolve(
        &self,
        allowed: &[usize],
        server: &[usize],
        driver_own: Option<usize>,
    ) -> Result<Vec<ArmRecord>, ArmsError> {
        let resolve = |arm: &Arm| {
            let settings = arm.resolve(allowed, server, driver_own)?;
            let settings = serde_json::to_value(settings).map_err(|e| e.to_string())?;
            Ok(ArmRecord { name: arm.name.clone(), stack: arm.stack.name().to_owned(), settings })
        };
        let place = |arm: &Arm| arm.place.clone();
        self.arms.iter().map(|a| resolve(a).map_err(|message| ArmsError { place: place(a), message })).collect()
    }
}

impl Arm {
    fn new(name: String, row: Row, place: &str) -> Result<Arm, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) || name.starts_with(['.', '-']) {
            return Err(format!(
                "the name becomes a directory: 1 to {NAME_MAX} of a-z, 0-9, `.`, `_`, `-`, not starting with `.` or `-`"
            ));
        }
        let stack: Stack = match &row.stack {
            Some(stack) => stack.parse()?,
            None => {
                return Err(format!("`stack` is missing; choose one of {}", Stack::ALL.map(Stack::name).join(", ")));
            }
        };
        row.check()?;
        row.check_stack(stack)?;
        Ok(Arm { name, stack, row, place: place.to_owned() })
    }

    fn resolve(&self, allowed: &[usize], server: &[usize], driver_own: Option<usize>) -> Result<Settings, String> {
        let row = self.row.clone();
        let base = Settings::default();
        let cpus_given = row.cpus.is_some();
        let mut cpus = row.cpus.unwrap_or_else(|| server.to_vec());
        if let Some(outside) = cpus.iter().find(|c| !allowed.contains(c)) {
            return Err(format!("CPU {outside} is not among the CPUs that this process may use ({})", list(allowed)));
        }
        if let Some(own) = driver_own.filter(|own| cpus.contains(own)) {
            return Err(format!("CPU {own} belongs to the driver in this layout; the server may use {}", list(server)));
        }
        let threads = row.threads.unwrap_or(cpus.len().max(1));
        if self.stack.is_pinned() {
            if threads > cpus.len() {
                return Err(format!(
                    "{} binds one shard to one CPU: {threads} shards do not fit on {} ({})",
                    self.stack,
                    plural(cpus.len(), "CPU"),
                    list(&cpus)
                ));
            }
            if cpus_given && threads < cpus.len() {
                return Err(format!(
                    "{} binds one shard to one CPU: {} for {threads} shards; name as many CPUs as shards",
                    self.stack,
                    plural(cpus.len(), "CPU")
                ));
            }
            cpus.truncate(threads);
        }
        let durability = row.durability.unwrap_or(base.durability);
        // An arm that does not sync what it acknowledges does not sync the raft log either, unless it says so.
        let raft_sync = if durability == Durability::None { RaftSync::None } else { base.raft_sync };
        Ok(Settings {
            threads,
            cpus,
            durability,
            placement: row.placement.unwrap_or(base.placement),
            files: row.files.unwrap_or(base.files),
            blocking_threads: row.blocking_threads.unwrap_or(base.blocking_threads),
            iowq_bounded: row.iowq_bounded.unwrap_or(base.iowq_bounded),
            ring_entries: row.ring_entries.unwrap_or(base.ring_entries),
            partitions: row.partitions.unwrap_or(base.partitions),
            segment_bytes: row.segment_bytes.unwrap_or(base.segment_bytes),
            roles: row.roles.unwrap_or(base.roles),
            role_threads: row.role_threads.unwrap_or(base.role_threads),
            eager_handoff: row.eager_handoff.unwrap_or(base.eager_handoff),
            neighbours: row.neighbours.unwrap_or(base.neighbours),
            raft_sync: row.raft_sync.unwrap_or(raft_sync),
            last_applied: row.last_applied.unwrap_or(base.last_applied),
            durable_sessions: row.durable_sessions.unwrap_or(base.durable_sessions),
            meta_store: row.meta_store.unwrap_or(base.meta_store),
            session_batch: row.session_batch.unwrap_or(base.session_batch),
            nodes: row.nodes.unwrap_or(base.nodes),
        })
    }
}

/// The settings in which arms differ besides their stack, so that a report can say what else changed.
pub fn differences(arms: &[ArmRecord]) -> Vec<Difference> {
    let settings: BTreeSet<&String> =
        arms.iter().filter_map(|a| a.settings.as_object()).flat_map(|o| o.keys()).collect();
    let value = |arm: &ArmRecord, key: &str| arm.settings.get(key).cloned().unwrap_or(Value::Null);
    let mut found = BTreeMap::new();
    for key in settings {
        let values: Vec<(String, Value)> = arms.iter().map(|a| (a.name.clone(), value(a, key))).collect();
        if values.windows(2).any(|pair| matches!(pair, [(_, a), (_, b)] if a != b)) {
            found.insert(key.clone(), values);
        }
    }
    found.into_iter().map(|(setting, values)| Difference { setting, values }).collect()
}

/// `0, 1, 5`
pub(crate) fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// `1 CPU`, `2 CPUs`
pub(crate) fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}
