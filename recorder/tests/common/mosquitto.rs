//! A real Mosquitto on a free loopback port, and its command-line clients.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A broker that ends with the test.
pub struct Mosquitto {
    pub addr: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts one. `None` where none is installed, which in CI (variable CI set) is an error instead: a suite that skips
    /// everything would prove nothing.
    pub fn start() -> Option<Self> {
        let Some(binary) =
            ["mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(installed)
        else {
            let message = "mosquitto is not installed: apt-get install mosquitto mosquitto-clients";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("skipped: {message}");
            return None;
        };
        // Another process can take the port between the search and the start: then another one is tried.
        for _ in 0..5 {
            if let Some(running) = Self::try_start(binary) {
                return Some(running);
            }
        }
        panic!("mosquitto does not start on a free port");
    }

    fn try_start(binary: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = directory.path().join("mosquitto.conf");
        let text = format!("listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n", addr.port());
        std::fs::write(&config, text).unwrap();
        let mut child =
            Command::new(binary).arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..500 {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(addr).is_ok() {
                return Some(Self { addr, child, _directory: directory });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn installed(name: &&str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).exists())
}

/// `mosquitto_pub` or `mosquitto_sub`, ready for more arguments.
pub fn client(program: &str, addr: SocketAddr, version: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-V", version]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Publishes each line over one connection.
pub fn publish_lines(mut command: Command, lines: &[&str]) {
    let mut child = command.arg("-l").stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in lines {
        writeln!(stdin, "{line}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
