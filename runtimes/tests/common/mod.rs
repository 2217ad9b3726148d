//! A server in a thread and a client that keeps what it received: for tests of any stack.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use regauge_runtimes::settings::{Durability, Settings, Stack};
use regauge_runtimes::{ServeConfig, ServeError, ServerRecord, Stop, serve};
use rumqttc::{AsyncClient, ConnAck, Event, Incoming, MqttOptions, QoS};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// After this a test has failed; no figure is measured.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Two shards, few threads: small, and peers are exercised.
pub fn settings() -> Settings {
    Settings { threads: 2, blocking_threads: 4, iowq_bounded: 4, durability: Durability::None, ..Settings::default() }
}

/// An attestation lists the threads and rings of the whole process, so the servers of one test must not stand beside
/// those of another (runners that give each test a process of its own never wait here).
static ONE_TEST: Mutex<()> = Mutex::new(());

thread_local! {
    /// A test may have several servers.
    static MINE: Cell<usize> = const { Cell::new(0) };
}

/// The turn of a test; held by its servers.
struct Turn(Option<MutexGuard<'static, ()>>);

impl Turn {
    fn take() -> Turn {
        let first = MINE.replace(MINE.get() + 1) == 0;
        Turn(first.then(|| ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        MINE.set(MINE.get() - 1);
    }
}

pub struct Server {
    pub addr: SocketAddr,
    stop: Stop,
    thread: JoinHandle<Result<ServerRecord, ServeError>>,
    _turn: Turn,
}

impl Server {
    pub fn start(stack: Stack, settings: Settings, data: &Path) -> Server {
        let turn = Turn::take();
        let (stop, (ready, addr)) = (Stop::new(), mpsc::channel());
        let config = ServeConfig::local(stack, settings, data.to_owned());
        let own_stop = stop.clone();
        let thread = std::thread::spawn(move || serve(config, own_stop, |at| ready.send(at.mqtt).unwrap()));
        match addr.recv_timeout(LIMIT) {
            Ok(addr) => Server { addr, stop, thread, _turn: turn },
            Err(_) => panic!("{stack} did not become ready: {:?}", thread.join().unwrap()),
        }
    }

    /// Waits until the server ends by itself, which it must not do in order.
    pub fn fail(self) -> ServeError {
        self.thread.join().unwrap().expect_err("the server ended in order")
    }

    pub fn stop(self) -> ServerRecord {
        self.stop.stop();
        self.thread.join().unwrap().expect("the server ended in order")
    }
}

pub struct Client {
    pub mqtt: AsyncClient,
    events: tokio::sync::mpsc::UnboundedReceiver<Incoming>,
    passed: VecDeque<Incoming>,
    poller: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Connects by MQTT 3.1.1; the CONNACK comes along.
    pub async fn connect(addr: SocketAddr, id: &str, clean: bool) -> (Client, ConnAck) {
        let mut options = MqttOptions::new(id, addr.ip().to_string(), addr.port());
        options.set_clean_session(clean).set_keep_alive(Duration::from_secs(5)).set_max_packet_size(1 << 20, 1 << 20);
        let (mqtt, mut event_loop) = AsyncClient::new(options, 1000);
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let poller = tokio::spawn(async move {
            while let Ok(event) = event_loop.poll().await {
                if let Event::Incoming(packet) = event
                    && sender.send(packet).is_err()
                {
                    return;
                }
            }
        });
        let mut client = Client { mqtt, events, passed: VecDeque::new(), poller };
        let Incoming::ConnAck(ack) = client.wait("CONNACK", |p| matches!(p, Incoming::ConnAck(_))).await else {
            unreachable!()
        };
        (client, ack)
    }

    /// The next packet that `fits`; others stay for later calls.
    pub async fn wait(&mut self, what: &str, fits: impl Fn(&Incoming) -> bool) -> Incoming {
        if let Some(at) = self.passed.iter().position(&fits) {
            return self.passed.remove(at).unwrap();
        }
        loop {
            match tokio::time::timeout(LIMIT, self.events.recv()).await {
                Ok(Some(packet)) if fits(&packet) => return packet,
                Ok(Some(packet)) => self.passed.push_back(packet),
                Ok(None) => panic!("the connection ended before {what} came; there were {:?}", self.passed),
                Err(_) => panic!("{what} did not come; there were {:?}", self.passed),
            }
        }
    }

    /// Publishes and waits for the acknowledgement that the QoS asks for.
    pub async fn publish(&mut self, topic: &str, qos: QoS, payload: impl Into<Vec<u8>>) {
        self.mqtt.publish(topic, qos, false, payload).await.unwrap();
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => drop(self.wait("PUBACK", |p| matches!(p, Incoming::PubAck(_))).await),
            QoS::ExactlyOnce => drop(self.wait("PUBCOMP", |p| matches!(p, Incoming::PubComp(_))).await),
        }
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.mqtt.subscribe(filter, qos).await.unwrap();
        self.wait("SUBACK", |p| matches!(p, Incoming::SubAck(_))).await;
    }

    /// The next message: topic and payload.
    pub async fn message(&mut self) -> (String, Vec<u8>) {
        match self.wait("a message", |p| matches!(p, Incoming::Publish(_))).await {
            Incoming::Publish(publish) => (publish.topic, publish.payload.to_vec()),
            _ => unreachable!(),
        }
    }

    pub async fn disconnect(self) {
        self.mqtt.disconnect().await.unwrap();
        tokio::time::timeout(LIMIT, self.poller).await.expect("the connection ends").unwrap();
    }
}

pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}
