//! What the integration tests share: the command, servers of ours and Mosquitto as children on free ports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const STACKS: [&str; 4] = ["tokio-shared", "tokio-pinned", "monoio", "compio"];

/// The command under test.
pub fn regauge() -> Command {
    Command::new(env!("CARGO_BIN_EXE_regauge"))
}

/// Runs it to its end and returns what it said; fails the test when it fails.
pub fn run(args: &[&str]) -> String {
    let output = regauge().args(args).output().expect("regauge starts");
    assert!(output.status.success(), "regauge {args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs it and returns its one-sentence complaint; fails the test when it succeeds.
pub fn fail(args: &[&str]) -> String {
    let output = regauge().args(args).output().expect("regauge starts");
    assert!(!output.status.success(), "regauge {args:?} should have failed");
    complaint(&output)
}

pub fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert!(!text.contains("panicked"), "a panic: {text}");
    text
}

/// A server of ours, stopped when dropped.
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub addr: SocketAddr,
}

impl Server {
    pub fn start(stack: &str, data: &Path, settings: &str) -> Server {
        let mut child = regauge()
            .args(["serve", "--machine", "--stack", stack, "--listen", "127.0.0.1:0", "--settings", settings, "--data"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("regauge starts");
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{stack} said: {line}"));
        let addr = said["ready"]["addr"].as_str().unwrap_or_else(|| panic!("{stack} said: {line}"));
        Server { addr: addr.parse().expect("an address"), child, stdin, stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it in order and returns its record.
    pub fn stop(mut self) -> serde_json::Value {
        drop(self.stdin.take());
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        let status = self.child.wait().expect("waited");
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the server said: {line}"));
        assert!(status.success() && !said["stopped"].is_null(), "the server said: {line}");
        said["stopped"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is ended with the test.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

pub fn wait_for_port(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A private Mosquitto; `just test` installs it.
pub fn mosquitto(dir: &Path) -> (Guard, u16) {
    let port = free_port();
    let conf = dir.join("mosquitto.conf");
    std::fs::write(
        &conf,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n"),
    )
    .expect("a configuration");
    let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].into_iter().find(|p| Path::new(p).exists());
    let program =
        program.expect("mosquitto is missing: run `just test`, which installs it, or apt-get install mosquitto");
    let child = Command::new(program).arg("-c").arg(&conf).stderr(Stdio::null()).spawn().expect("mosquitto starts");
    let guard = Guard(child);
    wait_for_port(port);
    (guard, port)
}

/// `regauge record tap` in front of an upstream, until it is interrupted or killed.
pub fn tap(upstream: SocketAddr, out: &Path) -> (Guard, u16) {
    let port = free_port();
    let child = regauge()
        .args(["record", "tap", "--listen", &format!("127.0.0.1:{port}"), "--upstream", &upstream.to_string(), "--out"])
        .arg(out)
        .stdout(Stdio::null())
        .spawn()
        .expect("the tap starts");
    let guard = Guard(child);
    wait_for_port(port);
    (guard, port)
}

/// Ctrl-C, and the wait for a clean end.
pub fn interrupt(guard: &mut Guard) -> bool {
    // SAFETY: kill(2) on a child of ours that has not been waited for.
    unsafe { libc::kill(guard.0.id() as i32, libc::SIGINT) };
    guard.0.wait().expect("waited").success()
}

/// A Python with paho-mqtt in a venv that is made once per machine.
pub fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")))
        .expect("HOME is set");
    let venv = cache.join("regauge/paho-2.1.0");
    let python = venv.join("bin/python");
    if !venv.join("complete").exists() {
        let made = Command::new("python3").arg("-m").arg("venv").arg(&venv).status().expect("python3 is installed");
        assert!(made.success(), "python3 -m venv failed: apt-get install python3-venv");
        let got = Command::new(&python).args(["-m", "pip", "install", "-q", "paho-mqtt==2.1.0"]).status().expect("pip");
        assert!(got.success(), "pip install paho-mqtt failed");
        std::fs::write(venv.join("complete"), "").expect("written");
    }
    python
}
