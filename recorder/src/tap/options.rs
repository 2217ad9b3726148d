//! What a tap is told.

use regauge_traces::redact::RedactionKey;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to tap, and where to put the trace.
#[derive(Debug, Clone)]
pub struct TapOptions {
    /// Where clients connect; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The running broker, as host:port. Resolved once, when the tap is bound.
    pub upstream: String,
    /// Where the sealed trace goes. The live recording stands beside it until then; see [`TapOptions::live_path`].
    pub out: PathBuf,
    /// The key that hides names. `None` makes a fresh one that is never stored, so that names of this trace can be
    /// compared with those of no other.
    pub key: Option<RedactionKey>,
    /// How long a span may stay in memory: about what a `kill -9` can cost. Default 200 ms.
    pub flush: Duration,
    /// How long the relay looks for new bytes without sleeping after it had some, at the price of a CPU that is busy
    /// meanwhile. Default 0: worth a try only where the tap has a CPU of its own.
    pub spin: Duration,
    /// Whether a trace at `out`, or an unsealed recording beside it, may be replaced. Default: no.
    pub overwrite: bool,
}

impl TapOptions {
    /// Options with their defaults: any free loopback port, a fresh key, 200 ms, no spinning.
    pub fn new(upstream: impl Into<String>, out: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            upstream: upstream.into(),
            out: out.into(),
            key: None,
            flush: Duration::from_millis(200),
            spin: Duration::ZERO,
            overwrite: false,
        }
    }

    /// Where the recording stands until it is sealed: `out` with `.live` behind its name.
    pub fn live_path(&self) -> PathBuf {
        live_path(&self.out)
    }
}

pub(super) fn live_path(out: &Path) -> PathBuf {
    let mut name = OsString::from(out.as_os_str());
    name.push(".live");
    PathBuf::from(name)
}
