//! What a modest MQTT fleet does: devices that come, publish and go, and back-ends that listen.
//!
//! No public trace of a real fleet was at hand, so every number here is a choice, made to exercise all of a broker
//! rather than to match one site: both protocol versions, clean and persistent sessions, wills, logins, all QoS levels,
//! retained states, commands to devices, silent devices that ping, orderly and abrupt ends, reconnects. Publishes are a
//! Poisson process in which a tenth of the devices make half of the traffic.

use rand::Rng;

use super::SynthParams;
use super::forge::{Client, Connection, Forge};
use crate::span::flags;

const MS: u64 = 1_000_000;

/// Share of devices that only listen for commands, and so must ping.
const SILENT: f64 = 0.2;
/// Share of publishing devices that make half of the traffic.
const BUSY: f64 = 0.1;
/// Share of devices with a session that outlives the connection.
const PERSISTENT: f64 = 0.35;
/// Devices lose or end their connection once per this many run lengths, on average.
const LIFETIME_RUNS: f64 = 3.0;
/// Devices come back after this, on average.
const ABSENCE_NS: f64 = 1e9;
/// A client speaks this long after its CONNECT at the earliest.
const SETTLE_NS: u64 = 20 * MS;

struct Device {
    client: Client,
    site: u32,
    name: String,
    silent: bool,
    /// Its connections: from, to (the first moment at which it may not send any more), handle.
    stays: Vec<(u64, u64, Connection)>,
}

impl Device {
    fn topic(&self, leaf: &str) -> String {
        format!("site/{}/{}/{leaf}", self.site, self.name)
    }

    fn connection_at(&self, at_ns: u64) -> Option<Connection> {
        self.stays.iter().find(|(from, to, _)| *from <= at_ns && at_ns < *to).map(|(.., connection)| *connection)
    }
}

pub(super) fn fleet(params: &SynthParams) -> Forge {
    let mut forge = Forge::new(params.seed);
    let end_ns = (params.duration_s * 1e9) as u64;
    let back_end = back_ends(&mut forge, end_ns);
    let mut devices: Vec<Device> =
        (0..params.clients).map(|number| device(&mut forge, number, params.clients)).collect();
    let ramp_ns = (end_ns / 5).min(5_000 * MS);
    for device in &mut devices {
        live(&mut forge, device, ramp_ns, end_ns);
    }
    publishes(&mut forge, params, &devices, end_ns);
    commands(&mut forge, params, &devices, back_end, end_ns);
    forge
}

/// Three that listen: an archive for everything, alarms, and one site's dashboard. The last also commands devices.
fn back_ends(forge: &mut Forge, end_ns: u64) -> Connection {
    let persistent =
        |id: &str| Client { clean: false, expiry_s: 3600, login: Some((7, 16)), ..Client::plain(id.to_owned(), 60) };
    let archive = forge.connect(0, &persistent("backend-archive"));
    forge.subscribe(10 * MS, archive, &[("site/+/+/tele", 0), ("site/+/+/state", 1)]);
    let alarms = forge.connect(2 * MS, &persistent("backend-alarms"));
    forge.subscribe(12 * MS, alarms, &[("site/+/+/alert", 2), ("site/+/+/will", 1)]);
    let dashboard = forge.connect(4 * MS, &persistent("backend-dashboard"));
    forge.subscribe(14 * MS, dashboard, &[("site/0/#", 1)]);
    for quiet in [archive, alarms] {
        pings(forge, quiet, SETTLE_NS, end_ns, 60);
    }
    dashboard
}

fn device(forge: &mut Forge, number: u32, clients: u32) -> Device {
    let random = &mut forge.random;
    let v5 = random.random_bool(0.5);
    let persistent = random.random_bool(PERSISTENT);
    let serial: u32 = random.random();
    let name = format!("d{number:05}");
    let site = random.random_range(0..clients.div_ceil(50));
    let expiry_s = match (v5, persistent) {
        (_, false) => 0,
        (true, true) => 3600,
        (false, true) => u32::MAX,
    };
    let client = Client {
        id: format!("{name}-{serial:08x}"),
        v5,
        clean: !persistent,
        keep_alive_s: [10, 30, 60].get(random.random_range(0..3usize)).copied().unwrap_or(60),
        expiry_s,
        login: random.random_bool(0.5).then_some((8, 12)),
        will: random.random_bool(0.15).then(|| (format!("site/{site}/{name}/will"), 7)),
    };
    Device { client, site, name, silent: random.random_bool(SILENT), stays: Vec::new() }
}

/// The comings and goings of one device.
fn live(forge: &mut Forge, device: &mut Device, ramp_ns: u64, end_ns: u64) {
    let mut at = 20 * MS + forge.random.random_range(0..ramp_ns.max(1));
    let mut subscribed = false;
    while at < end_ns {
        let connection = forge.connect(at, &device.client);
        // A session that was kept still has its subscription.
        if device.client.clean || !subscribed {
            forge.subscribe(at + SETTLE_NS / 2, connection, &[(&device.topic("cmd"), 1)]);
            subscribed = true;
        }
        let from = at + SETTLE_NS;
        let to = from.saturating_add(forge.exponential_ns(LIFETIME_RUNS * end_ns as f64)).min(end_ns);
        device.stays.push((from, to, connection));
        if device.silent {
            pings(forge, connection, from, to, device.client.keep_alive_s);
        }
        if to >= end_ns {
            return;
        }
        if forge.random.random_bool(0.6) {
            forge.disconnect(to, connection);
        } else {
            forge.close(to, connection);
        }
        at = to + 100 * MS + forge.exponential_ns(ABSENCE_NS);
    }
}

/// A client that has nothing to say pings at its keep-alive, as most libraries do, a little early.
fn pings(forge: &mut Forge, on: Connection, from: u64, to: u64, keep_alive_s: u16) {
    let period_ns = u64::from(keep_alive_s) * 900 * MS;
    let mut at = from.saturating_add(period_ns);
    while at < to {
        forge.ping(at, on);
        at += period_ns;
    }
}

fn publishes(forge: &mut Forge, params: &SynthParams, devices: &[Device], end_ns: u64) {
    let talkers: Vec<&Device> = devices.iter().filter(|device| !device.silent).collect();
    if talkers.is_empty() {
        return;
    }
    let busy = ((talkers.len() as f64 * BUSY).ceil() as usize).max(1);
    let mean_ns = 1e9 / params.rate();
    let mut at = 0;
    loop {
        at += forge.exponential_ns(mean_ns).max(1);
        if at >= end_ns {
            return;
        }
        let number = match forge.random.random_bool(0.5) {
            true => forge.random.random_range(0..busy),
            false => forge.random.random_range(0..talkers.len()),
        };
        // A device that is away does not publish: the rate is thinned by its absence, not moved to others.
        let Some((device, connection)) = talkers.get(number).and_then(|d| d.connection_at(at).map(|c| (d, c))) else {
            continue;
        };
        let qos = match forge.random.random_range(0..100) {
            0..80 => 1,
            80..95 => 0,
            _ => 2,
        };
        match forge.random.random_range(0..100) {
            0..85 => {
                // Telemetry: a few readings, sometimes a batch of them.
                let payload = 80 + forge.exponential_ns(120.0).min(4000) as usize;
                forge.publish(at, connection, &device.topic("tele"), qos, payload);
            }
            85..97 => {
                let payload = forge.random.random_range(20..60);
                forge.publish(at, connection, &device.topic("state"), qos, payload).flags |= flags::RETAIN;
            }
            _ => {
                forge.publish(at, connection, &device.topic("alert"), qos.max(1), 160);
            }
        }
    }
}

/// One command to some device for every hundred publishes, whether it is there or not.
fn commands(forge: &mut Forge, params: &SynthParams, devices: &[Device], from: Connection, end_ns: u64) {
    let mean_ns = 1e11 / params.rate();
    let mut at = SETTLE_NS;
    loop {
        at += forge.exponential_ns(mean_ns).max(1);
        if at >= end_ns {
            return;
        }
        let number = forge.random.random_range(0..devices.len());
        if let Some(device) = devices.get(number) {
            forge.publish(at, from, &device.topic("cmd"), 1, 64);
        }
    }
}
