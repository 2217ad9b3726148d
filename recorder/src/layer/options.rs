//! What a layer is told.

use regauge_traces::redact::RedactionKey;
use std::path::PathBuf;
use std::time::Duration;
use tracing_core::{LevelFilter, Metadata};

use super::plan::kind_of_step;

/// Which spans are recorded besides those whose name is a step's kind (`session_process`, `meta_call`,
/// `raft_proposal`, `raft_append`, `apply`, `route`, `membership`, `set_last_applied`, `segment_append`,
/// `segment_read`, `storage`).
///
/// They become spans of the kind `step`, with their name as `target`. A name that is the kind of a packet (`connect`,
/// `publish`, …) is one of these: only a recorder that watches the wire can say what a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// None.
    None,
    /// Those with these names.
    Named(Vec<String>),
    /// All. Names of spans are then in the trace; they stand in the program's source, so they hold no data.
    All,
}

/// What to record, and where to put the trace.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// Where the recording goes, in the live form: readable while it grows and after a kill. `regauge trace seal`
    /// makes the small form of it, `regauge trace join` joins it with a tap's.
    pub out: PathBuf,
    /// The key that hides names. The tap's key, if the two recordings are to be joined. `None` makes a fresh one that
    /// is never stored.
    pub key: Option<RedactionKey>,
    /// Which spans are recorded besides the known kinds. Default: none.
    pub steps: Steps,
    /// Only spans of these targets (`tracing`'s word for the module that opens them), as a prefix each: `broker` takes
    /// `broker::session` too. Default: all.
    pub targets: Vec<String>,
    /// Only spans up to this level of detail. Default: all.
    pub max_level: LevelFilter,
    /// Closed spans that wait for the writer, per thread; when they are this many, the newest is lost and counted. One
    /// takes about 100 bytes. Default 8192: a thread may close 1.5 million spans a second.
    pub ring: usize,
    /// Recorded spans that may be open at once; beyond it a new one is lost and counted. Default 65,536. Memory (128
    /// bytes each) is taken as it is needed.
    pub open_spans: usize,
    /// How long a span may stay in memory: about what a `kill -9` can cost. Default 200 ms.
    pub flush: Duration,
    /// Whether a file at `out` may be replaced. Default: no.
    pub overwrite: bool,
}

impl LayerOptions {
    /// Options with their defaults.
    pub fn new(out: impl Into<PathBuf>) -> LayerOptions {
        LayerOptions {
            out: out.into(),
            key: None,
            steps: Steps::None,
            targets: Vec::new(),
            max_level: LevelFilter::TRACE,
            ring: 8192,
            open_spans: 1 << 16,
            flush: Duration::from_millis(200),
            overwrite: false,
        }
    }

    /// Whether spans of this callsite are recorded.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let named = match &self.steps {
            Steps::None => false,
            Steps::Named(names) => names.iter().any(|name| name == metadata.name()),
            Steps::All => true,
        };
        let inside = |prefix: &String| {
            let rest = metadata.target().strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        metadata.is_span()
            && *metadata.level() <= self.max_level
            && (named || kind_of_step(metadata.name()).is_some())
            && (self.targets.is_empty() || self.targets.iter().any(inside))
    }
}
