//! Synthetic workloads: the ones that published comparisons used, and one that looks like production.
//!
//! A profile is a seeded function: the same parameters give the same trace, byte for byte, on every machine. Nobody ran
//! these requests, so spans have no durations; names are redacted exactly as a recording would (under a key made from
//! the seed), sizes are those of real packets. What it leaves out: payload contents, which replay makes up anyway.

mod bench;
mod forge;
mod production;
mod raft;
mod wire;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::TraceError;
use crate::meta::{Clocks, Drops, Host, Meta, SynthRecord};
use crate::reader::Trace;
use crate::schema::SCHEMA_VERSION;

/// Most sessions of a proposal: a replay's meta-service takes no more.
const BATCH_MAX: u32 = 10_000;

/// A session without a name and content of its own would be shorter, bytes.
const SESSION_BYTES_MIN: u32 = 40;

/// With the largest batch of these a proposal is still no longer than gRPC's usual limit, bytes.
const SESSION_BYTES_MAX: u32 = 400;

/// A workload that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// `mqttx bench conn` at its defaults: MQTT 5 connects, 10 ms apart, clean start, keep-alive 30 s.
    MqttxConn,
    /// The same connects, all at once.
    ConnectBurst,
    /// QoS 1 publishes of 256 B, Poisson arrivals.
    PublishQos1,
    /// 8 producers on 8 streams, batches of 250 × 1000 B, 1000 MB/s together.
    #[serde(rename = "iggy-8x8")]
    Iggy8x8,
    /// 16 producers on 16 streams, otherwise the same.
    #[serde(rename = "iggy-16x16")]
    Iggy16x16,
    /// 32 producers on 32 streams, otherwise the same.
    #[serde(rename = "iggy-32x32")]
    Iggy32x32,
    /// A modest fleet of devices with their back-ends.
    Production,
    /// Proposals to the raft meta-service, as RobustMQ's session batcher makes them.
    RaftApply,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Profile; 8] = [
        Profile::MqttxConn,
        Profile::ConnectBurst,
        Profile::PublishQos1,
        Profile::Iggy8x8,
        Profile::Iggy16x16,
        Profile::Iggy32x32,
        Profile::Production,
        Profile::RaftApply,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Profile::MqttxConn => "mqttx-conn",
            Profile::ConnectBurst => "connect-burst",
            Profile::PublishQos1 => "publish-qos1",
            Profile::Iggy8x8 => "iggy-8x8",
            Profile::Iggy16x16 => "iggy-16x16",
            Profile::Iggy32x32 => "iggy-32x32",
            Profile::Production => "production",
            Profile::RaftApply => "raft-apply",
        }
    }

    /// One line for a list of profiles.
    pub fn about(self) -> &'static str {
        match self {
            Profile::MqttxConn => "1000 MQTT 5 connects, 10 ms apart, as `mqttx bench conn` makes them",
            Profile::ConnectBurst => "1000 MQTT 5 connects at once",
            Profile::PublishQos1 => "QoS 1 publishes of 256 B with Poisson arrivals",
            Profile::Iggy8x8 => "8 producers, 8 streams, batches of 250 × 1000 B, 1000 MB/s together",
            Profile::Iggy16x16 => "16 producers, 16 streams, batches of 250 × 1000 B, 1000 MB/s together",
            Profile::Iggy32x32 => "32 producers, 32 streams, batches of 250 × 1000 B, 1000 MB/s together",
            Profile::Production => "devices that come, publish and go, with a few back-ends that listen",
            Profile::RaftApply => "raft proposals of 1 to 100 sessions with Poisson arrivals",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Profile::ALL.into_iter().find(|p| p.name() == s).ok_or_else(|| {
            format!("no profile is called `{s}`; choose one of {}", Profile::ALL.map(Profile::name).join(", "))
        })
    }
}

/// Parameters of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SynthParams {
    /// Which workload.
    pub profile: Profile,
    /// Length of the trace, s. The connect profiles end when all clients are connected, and do not use it.
    pub duration_s: f64,
    /// Publishes (connects, proposals) per second, all clients together, at scale 1. `connect-burst` does not use it.
    pub rate_per_s: f64,
    /// Clients: devices, producers, connecting clients. `raft-apply` has none.
    pub clients: u32,
    /// `raft-apply`: sessions that a proposal opens, at least and at most.
    pub batch: (u32, u32),
    /// `raft-apply`: bytes of the longest session as the proposal holds it.
    pub session_bytes: u32,
    /// Divides the rate, for machines smaller than the published ones.
    pub scale: f64,
    /// Seed of every random choice.
    pub seed: u64,
}

impl SynthParams {
    /// The defaults of a profile, at scale 1.
    pub fn new(profile: Profile) -> SynthParams {
        // The published batches: 250 messages of 1000 B, 10,000 requests per producer, 1000 MB/s together.
        let iggy = |clients: u32| (10_000.0 * f64::from(clients) / 4000.0, 4000.0, clients);
        let (duration_s, rate_per_s, clients) = match profile {
            Profile::MqttxConn => (10.0, 100.0, 1000),
            Profile::ConnectBurst => (0.0, 0.0, 1000),
            Profile::PublishQos1 => (30.0, 1000.0, 100),
            Profile::Iggy8x8 => iggy(8),
            Profile::Iggy16x16 => iggy(16),
            Profile::Iggy32x32 => iggy(32),
            Profile::Production => (30.0, 2000.0, 500),
            Profile::RaftApply => (30.0, 200.0, 1),
        };
        SynthParams {
            profile,
            duration_s,
            rate_per_s,
            clients,
            batch: (1, 100),
            session_bytes: 130,
            scale: 1.0,
            seed: 1,
        }
    }

    /// The rate after scaling, per second.
    fn rate(&self) -> f64 {
        self.rate_per_s / self.scale
    }

    fn validate(&self) -> Result<(), TraceError> {
        let refuse = |what: String| Err(TraceError::Parameter(what));
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.clients == 0 || self.clients > 1_000_000 {
            return refuse(format!("{} clients are outside of 1 to 1,000,000", self.clients));
        }
        if !positive(self.scale) {
            return refuse(format!("a scale of {} is not a positive number", self.scale));
        }
        let (min, max) = self.batch;
        if min == 0 || min > max || max > BATCH_MAX {
            return refuse(format!("{min} to {max} sessions per proposal are no range within 1 to {BATCH_MAX}"));
        }
        if !(SESSION_BYTES_MIN..=SESSION_BYTES_MAX).contains(&self.session_bytes) {
            return refuse(format!(
                "sessions of {} bytes are outside of {SESSION_BYTES_MIN} to {SESSION_BYTES_MAX}",
                self.session_bytes
            ));
        }
        if self.profile == Profile::ConnectBurst {
            return if self.scale == 1.0 {
                Ok(())
            } else {
                refuse("connect-burst has no rate that a scale could divide: lower --clients instead".to_owned())
            };
        }
        if !positive(self.rate_per_s) {
            return refuse(format!("a rate of {} per second is not a positive number", self.rate_per_s));
        }
        if self.profile != Profile::MqttxConn {
            if !positive(self.duration_s) {
                return refuse(format!("a duration of {} s is not a positive number", self.duration_s));
            }
            let rows = self.rate() * self.duration_s;
            if rows > 2e8 {
                return refuse(format!("{rows:.0} requests are more than 200 million: lower the rate or duration"));
            }
        }
        Ok(())
    }
}

/// Makes the trace of a profile, in memory; [`crate::write_sealed`] puts it into a file.
///
/// # Errors
/// [`TraceError::Parameter`] for a parameter out of range.
pub fn synth(params: &SynthParams) -> Result<Trace, TraceError> {
    params.validate()?;
    let forge = match params.profile {
        Profile::MqttxConn | Profile::ConnectBurst => bench::connects(params),
        Profile::PublishQos1 => bench::publishes(params),
        Profile::Iggy8x8 | Profile::Iggy16x16 | Profile::Iggy32x32 => bench::batches(params),
        Profile::Production => production::fleet(params),
        Profile::RaftApply => raft::proposals(params),
    };
    let (spans, redaction) = forge.finish();
    let last_ns = spans.iter().map(|s| s.start_ns).max().unwrap_or(0);
    let end_ns =
        last_ns.max(if params.profile == Profile::ConnectBurst { 0 } else { (params.duration_s * 1e9) as u64 });
    let mut parameters = BTreeMap::from([
        ("duration_s".to_owned(), params.duration_s.into()),
        ("rate_per_s".to_owned(), params.rate_per_s.into()),
        ("clients".to_owned(), params.clients.into()),
        ("scale".to_owned(), params.scale.into()),
    ]);
    if params.profile == Profile::RaftApply {
        parameters.insert("batch".to_owned(), vec![params.batch.0, params.batch.1].into());
        parameters.insert("session_bytes".to_owned(), params.session_bytes.into());
    }
    let meta = Meta {
        schema_version: SCHEMA_VERSION,
        regauge: env!("CARGO_PKG_VERSION").to_owned(),
        source: format!("synth {}", params.profile),
        // No clock was read, no host took part: these say so by being zero and empty.
        origin: Clocks::default(),
        end: Some(Clocks { monotonic_ns: end_ns, realtime_ns: end_ns }),
        host: Host::default(),
        drops: Some(Drops::default()),
        redaction,
        sealed: false,
        finished: true,
        synth: Some(SynthRecord { profile: params.profile.name().to_owned(), seed: params.seed, parameters }),
        derived: Vec::new(),
    };
    Ok(Trace { meta, spans, form: None, file_bytes: 0, torn_bytes: 0 })
}
