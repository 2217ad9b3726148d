//! One child process: its CPUs, its output line by line, its end and what it used.

use super::ChildError;
use regauge_runtimes::affinity::bind_thread;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Longest line that is read whole; the rest of a longer one is dropped, which then fails to parse.
const LINE_MAX: u64 = 4 << 20;
/// How often an end is looked for.
const POLL: Duration = Duration::from_millis(10);
/// So much of stderr's end is searched for its last line, bytes.
const LAST_WORDS_MAX: u64 = 4096;

/// How a child ended and what it used, as wait4(2) tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// What it used.
    pub usage: Usage,
}

/// Resources of one process over its life, its threads included. Without the largest resident set: the kernel hands it
/// on through fork and exec, so it may be the parent's. The server's own record has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, ns.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, ns.
    pub cpu_system_ns: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// Switches because it waited.
    pub voluntary_switches: u64,
    /// Switches because another was preferred.
    pub involuntary_switches: u64,
    /// 512-byte blocks read from a device.
    pub blocks_in: u64,
    /// 512-byte blocks written for a device.
    pub blocks_out: u64,
}

impl Ended {
    /// Exit code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// `exit code 1`, `signal 9`.
    pub fn how(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        }
    }
}

/// What to start.
pub(super) struct Spawn<'a> {
    pub who: &'static str,
    pub exe: &'a Path,
    pub args: Vec<OsString>,
    /// CPUs of all its threads, unless it binds them itself.
    pub cpus: &'a [usize],
    /// Where stderr goes.
    pub log: PathBuf,
}

/// A running child. Dropping it ends it.
pub(super) struct Child {
    who: &'static str,
    child: std::process::Child,
    lines: Receiver<String>,
    ended: Option<Ended>,
    log: PathBuf,
}

impl Child {
    pub fn spawn(spawn: Spawn<'_>) -> Result<Child, ChildError> {
        let Spawn { who, exe, args, cpus, log } = spawn;
        let failed = |source| ChildError::Spawn { who, exe: exe.to_owned(), source };
        let stderr = File::create(&log).map_err(failed)?;
        let mut command = Command::new(exe);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        // A process group of its own: Ctrl-C reaches the study alone, which then ends its children in order.
        command.process_group(0);
        // A child inherits the CPUs of the thread that starts it, so a short-lived thread takes them on.
        let started = std::thread::scope(|scope| {
            let start = || {
                bind_thread(cpus).map_err(std::io::Error::other)?;
                command.spawn()
            };
            scope.spawn(start).join()
        });
        let mut child = started
            .map_err(|_| failed(std::io::Error::other("the thread that starts it ended early")))?
            .map_err(failed)?;
        let (sender, lines) = sync_channel(64);
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stdout);
                loop {
                    let mut line = String::new();
                    let read = reader.by_ref().take(LINE_MAX).read_line(&mut line);
                    if !matches!(read, Ok(n) if n > 0) || sender.send(line.trim().to_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Child { who, child, lines, ended: None, log })
    }

    /// The next line of its output; `None` when `deadline` passed or nothing more will come.
    pub fn next_line(&mut self, deadline: Instant) -> Option<String> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Lines that wait to be read, without waiting for more; call it after the end to get all that were written.
    pub fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        // The reader stops at the end of the pipe; a grandchild that holds it open must not hold up the study.
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return rest,
            }
        }
    }

    /// Tells it that no more input comes.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// How it ended, if it has.
    pub fn poll(&mut self) -> Result<Option<Ended>, ChildError> {
        if self.ended.is_none() {
            self.ended = self.wait4(libc::WNOHANG).map_err(|source| ChildError::Wait { who: self.who, source })?;
        }
        Ok(self.ended.clone())
    }

    /// Waits for its end until `deadline`; `None` when it still runs then.
    pub fn wait_until(&mut self, deadline: Instant) -> Result<Option<Ended>, ChildError> {
        loop {
            let ended = self.poll()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Last line of its stderr, with `: ` before it, or nothing.
    pub fn last_words(&self) -> String {
        last_line(&self.log).map(|line| format!(": {line}")).unwrap_or_default()
    }

    /// The error for an end that came too early.
    pub fn ended_early(&self, ended: &Ended) -> ChildError {
        ChildError::Ended { who: self.who, how: ended.how(), last_words: self.last_words() }
    }

    /// wait4(2), which alone tells what one child used. Nothing else here reaps it, so the pid stays its own until then.
    fn wait4(&self, options: i32) -> std::io::Result<Option<Ended>> {
        let pid = libc::pid_t::try_from(self.child.id()).map_err(std::io::Error::other)?;
        let mut status = 0;
        // SAFETY: rusage is plain numbers, for which all zero bytes are a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live locals of the right types.
        let reaped = unsafe { libc::wait4(pid, &mut status, options, &mut usage) };
        match reaped {
            0 => Ok(None),
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(Some(Ended {
                code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
                signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
                usage: Usage::from(&usage),
            })),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Not yet reaped, so the pid cannot be another process's.
        if self.ended.is_none() {
            self.child.kill().ok();
            self.ended = self.wait4(0).ok().flatten();
        }
    }
}

impl From<&libc::rusage> for Usage {
    fn from(usage: &libc::rusage) -> Usage {
        let number = |n: libc::c_long| u64::try_from(n).unwrap_or(0);
        let ns = |t: libc::timeval| number(t.tv_sec) * 1_000_000_000 + u64::try_from(t.tv_usec).unwrap_or(0) * 1000;
        Usage {
            cpu_user_ns: ns(usage.ru_utime),
            cpu_system_ns: ns(usage.ru_stime),
            minor_faults: number(usage.ru_minflt),
            major_faults: number(usage.ru_majflt),
            voluntary_switches: number(usage.ru_nvcsw),
            involuntary_switches: number(usage.ru_nivcsw),
            blocks_in: number(usage.ru_inblock),
            blocks_out: number(usage.ru_oublock),
        }
    }
}

/// A line as it may be cited in a sentence.
pub(super) fn shorten(line: &str) -> String {
    const MAX: usize = 200;
    let mut short: String = line.chars().take(MAX).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_MAX))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).map(shorten)
}
