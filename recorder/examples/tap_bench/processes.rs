//! The two processes that are measured: a private Mosquitto, and this program again as the tap.

use regauge_recorder::tap::{Tap, TapOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A Mosquitto on a free loopback port, which ends with this value.
pub struct Broker {
    pub addr: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Broker {
    pub fn start() -> Self {
        for _ in 0..5 {
            if let Some(broker) = Self::try_start() {
                return broker;
            }
        }
        panic!("mosquitto does not start: is it installed (apt-get install mosquitto)?");
    }

    fn try_start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let config = directory.path().join("mosquitto.conf");
        // Nagle's algorithm off, as it is in the tap: otherwise the tap would be measured by what it switches off.
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n",
            addr.port()
        );
        std::fs::write(&config, text).expect("a configuration file");
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("mosquitto must be installed: apt-get install mosquitto");
        for _ in 0..500 {
            if TcpStream::connect(addr).is_ok() {
                return Some(Self { addr, child, _directory: directory });
            }
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        end(&mut child);
        None
    }

    pub fn cpu_ns(&self) -> u64 {
        cpu_ns(self.child.id())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// This program as a tap in a process of its own.
pub struct TapProcess {
    pub addr: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl TapProcess {
    pub fn start(upstream: SocketAddr, spin_us: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let out = directory.path().join("bench.parquet");
        let program = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new(program)
            .args(["as-tap", &upstream.to_string(), &spin_us.to_string()])
            .arg(&out)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        // Unbuffered beyond this line: the tap says nothing more before its end.
        BufReader::new(stdout).read_line(&mut line).expect("the tap's address");
        let addr = line.trim().parse().expect("the tap's address");
        Self { addr, child, _directory: directory }
    }

    pub fn cpu_ns(&self) -> u64 {
        cpu_ns(self.child.id())
    }

    /// Stops it; gives back what it says of its recording.
    pub fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut said).expect("the tap's summary");
        }
        let status = self.child.wait().expect("the tap ends");
        assert!(status.success(), "the tap failed: {said}");
        said.trim().to_owned()
    }
}

impl Drop for TapProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The child's part: a tap until its standard input ends.
pub fn serve_as_tap(arguments: &[String]) {
    let [upstream, spin_us, out] = arguments else { panic!("as-tap UPSTREAM SPIN_US OUT") };
    let mut options = TapOptions::new(upstream, out);
    options.spin = Duration::from_micros(spin_us.parse().expect("a number of microseconds"));
    let tap = Tap::bind(options).expect("the tap starts");
    println!("{}", tap.local_addr());
    std::io::stdout().flush().expect("a pipe");
    let stop = Arc::new(AtomicBool::new(false));
    let at_end = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        at_end.store(true, Ordering::Relaxed);
    });
    let summary = tap.run(&stop, None, |_| {}).expect("the tap ends well");
    let (stats, bytes) = (&summary.stats, std::fs::metadata(&summary.out).expect("the trace").len());
    println!(
        "recorded: {} spans, {} lost, {} connections not understood; {:.2} bytes a span sealed",
        stats.spans_written,
        stats.queue_full + stats.not_recorded,
        stats.undecodable,
        bytes as f64 / stats.spans_written.max(1) as f64
    );
}

/// CPU time of all threads of a process, ns: the first number of each thread's schedstat.
fn cpu_ns(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    threads
        .flatten()
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}
