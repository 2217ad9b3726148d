//! The driver child: one plan, once, against one server.

use super::ChildError;
use super::child::{Child, Ended, Spawn, shorten};
use super::server::Server;
use crate::drive::DriveOptions;
use regauge_runtimes::Stop;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WHO: &str = "driver";
/// How often progress is told and the stop flag looked at. Rarely: a wake-up may cost the server's CPU some µs.
const LOOK: Duration = Duration::from_millis(100);

/// How to start a driver.
pub struct DriverCall<'a> {
    /// The regauge binary.
    pub exe: &'a Path,
    /// The sealed trace.
    pub trace: &'a Path,
    /// The server.
    pub target: SocketAddr,
    /// The server's meta-service, for proposals.
    pub meta: Option<SocketAddr>,
    /// Where its Parquet files go.
    pub out: &'a Path,
    /// How it runs.
    pub options: &'a DriveOptions,
    /// CPUs of the process.
    pub cpus: &'a [usize],
    /// Where its stderr goes.
    pub log: PathBuf,
    /// Longest time that it may take.
    pub timeout: Duration,
}

/// Runs a driver to its end and returns its DriverRecord. It is ended when `stop` is set or the server dies;
/// `elapsed` is told how long it has run.
pub fn drive(
    call: &DriverCall<'_>,
    server: &mut Server,
    stop: &Stop,
    mut elapsed: impl FnMut(Duration),
) -> Result<(Value, Ended), ChildError> {
    let mut args = vec!["drive".into(), call.trace.as_os_str().to_owned(), "--target".into()];
    args.extend([call.target.to_string().into(), "--out".into(), call.out.as_os_str().to_owned()]);
    if let Some(meta) = call.meta {
        args.extend(["--meta".into(), meta.to_string().into()]);
    }
    let options = serde_json::to_string(call.options).map_err(|e| ChildError::Spawn {
        who: WHO,
        exe: call.exe.to_owned(),
        source: e.into(),
    })?;
    args.extend(["--options".into(), options.into()]);
    let mut child = Child::spawn(Spawn { who: WHO, exe: call.exe, args, cpus: call.cpus, log: call.log.clone() })?;
    let start = Instant::now();
    let ended = loop {
        if let Some(ended) = child.wait_until(Instant::now() + LOOK)? {
            break ended;
        }
        if stop.is_stopped() {
            return Err(ChildError::Interrupted);
        }
        server.check()?;
        if start.elapsed() >= call.timeout {
            let seconds = call.timeout.as_secs();
            return Err(ChildError::Timeout { who: WHO, what: "end", seconds, last_words: child.last_words() });
        }
        elapsed(start.elapsed());
    };
    if !ended.is_success() {
        // A dead server is the cause, not the driver's complaint about it.
        server.check()?;
        return Err(child.ended_early(&ended));
    }
    let lines = child.rest();
    let Some(line) = lines.iter().rfind(|l| !l.is_empty()) else {
        return Err(ChildError::Protocol { who: WHO, line: String::new() });
    };
    match serde_json::from_str::<Value>(line) {
        Ok(record) if record.is_object() => Ok((record, ended)),
        _ => Err(ChildError::Protocol { who: WHO, line: shorten(line) }),
    }
}
