//! The server child: started, ready, stopped by the end of its input, its record collected.

use super::child::{Child, Ended, Spawn, shorten};
use super::{ChildError, Timeouts};
use regauge_runtimes::Stop;
use regauge_traces::study::ArmRecord;
use serde::Deserialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WHO: &str = "server";
/// How often the stop flag is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// How to start a server.
pub struct ServerCall<'a> {
    /// The regauge binary.
    pub exe: &'a Path,
    /// The arm.
    pub arm: &'a ArmRecord,
    /// An empty directory for its data.
    pub data: &'a Path,
    /// CPUs that all its threads may use, unless it binds them itself.
    pub cpus: &'a [usize],
    /// Where it writes its stamps, if it takes any.
    pub stamps: Option<&'a Path>,
    /// Where its stderr goes.
    pub log: PathBuf,
    /// Limits of patience.
    pub timeouts: Timeouts,
}

/// A server that is ready.
pub struct Server {
    child: Child,
    addr: SocketAddr,
    meta: Option<SocketAddr>,
    stop_timeout: Duration,
}

/// What a server that stopped in order left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Stopped {
    /// Its ServerRecord.
    pub record: Value,
    /// Its end, and what it used.
    pub ended: Ended,
}

/// The lines of `serve --machine`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Ready {
        addr: SocketAddr,
        /// Where its meta-service listens for gRPC.
        #[serde(default)]
        meta: Option<SocketAddr>,
    },
    Stopped(Value),
    Failed(String),
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub fn start(call: &ServerCall<'_>, stop: &Stop) -> Result<Server, ChildError> {
        let mut args: Vec<_> = ["serve", "--stack", &call.arm.stack, "--listen", "127.0.0.1:0", "--data"]
            .into_iter()
            .map(Into::into)
            .collect();
        args.push(call.data.as_os_str().to_owned());
        args.extend(["--settings".into(), call.arm.settings.to_string().into(), "--machine".into()]);
        if let Some(stamps) = call.stamps {
            args.extend(["--stamps".into(), stamps.as_os_str().to_owned()]);
        }
        let spawn = Spawn { who: WHO, exe: call.exe, args, cpus: call.cpus, log: call.log.clone() };
        let mut child = Child::spawn(spawn)?;
        let deadline = Instant::now() + call.timeouts.start;
        loop {
            if stop.is_stopped() {
                return Err(ChildError::Interrupted);
            }
            if let Some(line) = child.next_line(deadline.min(Instant::now() + LOOK)) {
                return match parse(&line)? {
                    Message::Ready { addr, meta } => Ok(Server { child, addr, meta, stop_timeout: call.timeouts.stop }),
                    Message::Failed(reason) => Err(ChildError::Failed { who: WHO, reason }),
                    Message::Stopped(_) => Err(protocol(&line)),
                };
            }
            if let Some(ended) = child.poll()? {
                // Its last line may have come between the two looks.
                return Err(early(&mut child, &ended));
            }
            if Instant::now() >= deadline {
                let seconds = call.timeouts.start.as_secs();
                return Err(ChildError::Timeout {
                    who: WHO,
                    what: "get ready",
                    seconds,
                    last_words: child.last_words(),
                });
            }
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where its meta-service listens for gRPC, if it said so.
    pub fn meta(&self) -> Option<SocketAddr> {
        self.meta
    }

    /// An error when it has ended although nobody asked it to.
    pub fn check(&mut self) -> Result<(), ChildError> {
        match self.child.poll()? {
            None => Ok(()),
            Some(ended) => Err(early(&mut self.child, &ended)),
        }
    }

    /// Ends its input, waits, and collects its record. A server that does not end in time is killed.
    pub fn stop(mut self) -> Result<Stopped, ChildError> {
        if let Some(ended) = self.child.poll()? {
            return Err(early(&mut self.child, &ended));
        }
        self.child.close_input();
        let Some(ended) = self.child.wait_until(Instant::now() + self.stop_timeout)? else {
            let last_words = self.child.last_words();
            return Err(ChildError::Timeout {
                who: WHO,
                what: "stop",
                seconds: self.stop_timeout.as_secs(),
                last_words,
            });
        };
        let Some(line) = self.child.rest().into_iter().next() else {
            return Err(self.child.ended_early(&ended));
        };
        match parse(&line)? {
            Message::Stopped(record) if ended.is_success() => Ok(Stopped { record, ended }),
            Message::Stopped(_) => Err(self.child.ended_early(&ended)),
            Message::Failed(reason) => Err(ChildError::Failed { who: WHO, reason }),
            Message::Ready { .. } => Err(protocol(&line)),
        }
    }
}

/// The best reason for an early end: its own `failed` line, else its status and last words.
fn early(child: &mut Child, ended: &Ended) -> ChildError {
    let own = child.rest().iter().find_map(|line| match parse(line) {
        Ok(Message::Failed(reason)) => Some(reason),
        _ => None,
    });
    own.map_or_else(|| child.ended_early(ended), |reason| ChildError::Failed { who: WHO, reason })
}

fn parse(line: &str) -> Result<Message, ChildError> {
    serde_json::from_str(line).map_err(|_| protocol(line))
}

fn protocol(line: &str) -> ChildError {
    ChildError::Protocol { who: WHO, line: shorten(line) }
}
