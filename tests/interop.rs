//! Real clients against every stack, directly and through the tap; and Mosquitto behind the tap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Server, free_port, interrupt, mosquitto, run, tap, wait_for_port};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const NO_SYNC: &str = r#"{"durability":"none"}"#;

/// The paho round trip, for both protocol versions.
fn paho(port: u16, what: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/paho/roundtrip.py");
    for version in ["4", "5"] {
        let output = Command::new(common::python())
            .arg(&script)
            .args(["127.0.0.1", &port.to_string(), version])
            .output()
            .expect("python starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim() == "ok", "{what}, version {version}: {said}{complained}");
    }
}

/// mosquitto_sub waits for five messages that mosquitto_pub sends, at each QoS and version.
fn mosquitto_clients(port: u16, what: &str) {
    let port = port.to_string();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("t/{version}/{qos}");
            // Line by line, although it writes into a pipe.
            let mut sub = Command::new("stdbuf")
                .args(["-oL", "mosquitto_sub"])
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-V",
                    version,
                    "-q",
                    qos,
                    "-t",
                    "t/#",
                    "-C",
                    "5",
                    "-W",
                    "10",
                    "-d",
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto_sub is installed");
            // -d prints "Subscribed" once the SUBACK has come: only then may the publisher start.
            let mut stdout = sub.stdout.take().unwrap();
            let mut said = Vec::new();
            let mut byte = [0; 1];
            while !String::from_utf8_lossy(&said).contains("Subscribed") {
                assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{what}: mosquitto_sub ended early");
                said.push(byte[0]);
            }
            for i in 0..5 {
                let sent = Command::new("mosquitto_pub")
                    .args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", qos, "-t", &topic, "-m"])
                    .arg(format!("message {i}"))
                    .status()
                    .expect("mosquitto_pub is installed");
                assert!(sent.success(), "{what}: mosquitto_pub at QoS {qos} failed");
            }
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).unwrap();
            assert!(sub.wait().unwrap().success(), "{what}: mosquitto_sub at QoS {qos} missed messages: {rest}");
            for i in 0..5 {
                assert!(rest.contains(&format!("message {i}")), "{what}: QoS {qos} lost message {i}: {rest}");
            }
        }
    }
}

/// rumqttc publishes and receives its own messages at each QoS.
fn rumqttc_client(addr: SocketAddr, what: &str) {
    use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
    let mut options = MqttOptions::new("rumqttc", addr.ip().to_string(), addr.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 100);
    client.subscribe("r/+", QoS::ExactlyOnce).unwrap();
    let (mut got, mut published) = (Vec::new(), false);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    for event in connection.iter() {
        assert!(std::time::Instant::now() < deadline, "{what}: rumqttc got only {got:?}");
        match event.unwrap_or_else(|e| panic!("{what}: rumqttc: {e}")) {
            Event::Incoming(Packet::SubAck(_)) if !published => {
                published = true;
                for (i, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
                    client.publish(format!("r/{i}"), qos, false, vec![b'0' + i as u8; 1000]).unwrap();
                }
            }
            Event::Incoming(Packet::Publish(p)) => got.push((p.topic, p.payload.len())),
            _ => {}
        }
        if got.len() == 3 {
            break;
        }
    }
    got.sort();
    assert_eq!(got, [("r/0".to_string(), 1000), ("r/1".to_string(), 1000), ("r/2".to_string(), 1000)], "{what}");
}

fn against(stack: &str) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(stack, &dir.path().join("data"), NO_SYNC);
    let port = server.addr.port();
    paho(port, stack);
    mosquitto_clients(port, stack);
    rumqttc_client(server.addr, stack);

    let trace = dir.path().join("tapped.parquet");
    let (mut guard, tapped) = tap(server.addr, &trace);
    let what = format!("{stack} through the tap");
    paho(tapped, &what);
    mosquitto_clients(tapped, &what);
    rumqttc_client(SocketAddr::from(([127, 0, 0, 1], tapped)), &what);
    assert!(interrupt(&mut guard), "the tap did not end cleanly");
    recorded_well(&trace);
    server.stop();
}

fn recorded_well(trace: &Path) {
    let info: serde_json::Value =
        serde_json::from_str(&run(&["trace", "info", "--json", trace.to_str().unwrap()])).unwrap();
    assert!(info["kinds"]["connect"].as_u64().unwrap() >= 20, "{info}");
    assert!(info["kinds"]["publish"].as_u64().unwrap() >= 600, "{info}");
    assert_eq!(info["dropped"], 0, "{info}");
    assert_eq!(info["sealed"], true, "{info}");
    run(&["trace", "check", trace.to_str().unwrap()]);
}

#[test]
fn clients_agree_with_tokio_shared() {
    against("tokio-shared");
}

#[test]
fn clients_agree_with_tokio_pinned() {
    against("tokio-pinned");
}

#[test]
fn clients_agree_with_monoio() {
    against("monoio");
}

#[test]
fn clients_agree_with_compio() {
    against("compio");
}

/// Two shards: sessions and partitions on different threads, sockets that move.
#[test]
fn clients_agree_with_two_shards_on_every_stack() {
    for stack in common::STACKS {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(stack, &dir.path().join("data"), r#"{"durability":"none","threads":2}"#);
        paho(server.addr.port(), &format!("{stack} with two shards"));
        mosquitto_clients(server.addr.port(), &format!("{stack} with two shards"));
        server.stop();
    }
}

#[test]
fn clients_agree_with_mosquitto_through_the_tap() {
    let dir = tempfile::tempdir().unwrap();
    let (_mosquitto, port) = mosquitto(dir.path());
    let trace = dir.path().join("tapped.parquet");
    let (mut guard, tapped) = tap(SocketAddr::from(([127, 0, 0, 1], port)), &trace);
    paho(tapped, "mosquitto through the tap");
    mosquitto_clients(tapped, "mosquitto through the tap");
    rumqttc_client(SocketAddr::from(([127, 0, 0, 1], tapped)), "mosquitto through the tap");
    assert!(interrupt(&mut guard), "the tap did not end cleanly");
    recorded_well(&trace);
}

/// kill -9 of a recording leaves a trace that can be read, checked and sealed.
#[test]
fn a_killed_recording_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (_mosquitto, port) = mosquitto(dir.path());
    let trace = dir.path().join("killed.parquet");
    let (mut guard, tapped) = tap(SocketAddr::from(([127, 0, 0, 1], port)), &trace);
    mosquitto_clients(tapped, "mosquitto through the tap");
    // The last batch is flushed within 200 ms; what is asserted is that earlier ones survive.
    std::thread::sleep(Duration::from_millis(1000));
    guard.0.kill().unwrap();
    guard.0.wait().unwrap();
    let live: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("killed"))
        .collect();
    let live = live.iter().find(|p| !p.to_string_lossy().ends_with(".json")).expect("the live trace is there");
    let info: serde_json::Value =
        serde_json::from_str(&run(&["trace", "info", "--json", live.to_str().unwrap()])).unwrap();
    assert_eq!(info["sealed"], false, "{info}");
    assert_eq!(info["kinds"]["connect"], 36, "{info}");
    assert_eq!(info["kinds"]["publish"], 30, "{info}");
    run(&["trace", "seal", live.to_str().unwrap(), "--out", trace.to_str().unwrap()]);
    let info: serde_json::Value =
        serde_json::from_str(&run(&["trace", "info", "--json", trace.to_str().unwrap()])).unwrap();
    assert_eq!(info["sealed"], true, "{info}");
}

#[test]
fn a_busy_port_is_said_in_one_sentence() {
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    wait_for_port(port);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let address = format!("127.0.0.1:{port}");
    for stack in common::STACKS {
        let said = common::fail(&["serve", "--stack", stack, "--listen", &address, "--data", data.to_str().unwrap()]);
        assert!(said.contains(&address) && said.lines().count() == 1, "{stack}: {said}");
    }
    let out = dir.path().join("t.parquet");
    let said =
        common::fail(&["record", "tap", "--listen", &address, "--upstream", &address, "--out", out.to_str().unwrap()]);
    assert!(said.contains(&address) && said.lines().count() == 1, "{said}");
}
