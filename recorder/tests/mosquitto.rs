//! Real clients, through the tap, against a real Mosquitto.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::mosquitto::{Mosquitto, client, publish_lines};
use common::{Finished, RunningTap, of_kind, wait_for_spans};
use regauge_traces::{Kind, Redactor, Span, flags, redact::RedactionKey};
use std::collections::BTreeSet;
use std::time::Duration;

const TOPIC: &str = "plant/line-4/meter";
const LINES: [&str; 3] = ["first message", "second message", "third message"];

#[test]
fn messages_of_every_qos_and_version_cross_the_tap_and_are_recorded() {
    let Some(broker) = Mosquitto::start() else { return };
    let key = RedactionKey::from_bytes([9; 16]);
    let redactor = Redactor::new(&key);
    for version in ["mqttv311", "mqttv5"] {
        for qos in 0..=2u8 {
            let tap = RunningTap::start_with(broker.addr, |mut options| {
                options.key = Some(key.clone());
                options
            });
            let level = qos.to_string();
            let subscriber = client("mosquitto_sub", tap.addr, version)
                .args(["-i", "listener", "-t", TOPIC, "-q", &level, "-C", "3"])
                .spawn()
                .unwrap();
            wait_for_spans(&tap.live(), |spans| !of_kind(spans, Kind::Subscribe).is_empty());
            let mut publisher = client("mosquitto_pub", tap.addr, version);
            publisher.args(["-i", "meter", "-t", TOPIC, "-q", &level]);
            publish_lines(publisher, &LINES);
            let heard = subscriber.wait_with_output().unwrap();
            assert!(heard.status.success(), "{}", String::from_utf8_lossy(&heard.stderr));
            assert_eq!(String::from_utf8_lossy(&heard.stdout).lines().collect::<Vec<_>>(), LINES);

            wait_for_spans(&tap.live(), |spans| of_kind(spans, Kind::Disconnect).len() == 2);
            let Finished { summary, trace, .. } = tap.finish();
            check(&trace.spans, qos, version == "mqttv5", &redactor);
            assert_eq!((summary.stats.connections, summary.stats.undecodable, summary.stats.queue_full), (2, 0, 0));
            assert_eq!(trace.meta.drops.unwrap().total(), 0);
        }
    }
}

fn check(spans: &[Span], qos: u8, v5: bool, redactor: &Redactor) {
    let sessions: BTreeSet<u64> = of_kind(spans, Kind::Connect).iter().filter_map(|span| span.session).collect();
    assert_eq!(sessions, [redactor.session(b"listener"), redactor.session(b"meter")].into());
    for (kind, n) in [(Kind::Connect, 2), (Kind::Subscribe, 1), (Kind::Publish, 3), (Kind::Deliver, 3)] {
        let found = of_kind(spans, kind);
        assert_eq!(found.len(), n, "{kind} at QoS {qos}: {spans:#?}");
        for span in found {
            let has_end = span.qos > 0 || !matches!(kind, Kind::Publish | Kind::Deliver);
            assert_eq!(span.duration_ns.is_some(), has_end, "{span:?}");
            assert_eq!((span.status, span.flags & flags::UNFINISHED), (0, 0), "{span:?}");
            assert_eq!(span.flags & flags::V5 != 0, v5);
        }
    }
    for span in of_kind(spans, Kind::Publish).into_iter().chain(of_kind(spans, Kind::Deliver)) {
        assert_eq!((span.qos, span.target.clone()), (qos, Some(redactor.topic(TOPIC))));
    }
    assert_eq!(of_kind(spans, Kind::Subscribe)[0].target, Some(redactor.subscriptions([(TOPIC, qos)])));
    assert_eq!(of_kind(spans, Kind::Close), [] as [&Span; 0], "both clients say goodbye");
}

#[test]
fn no_secret_reaches_the_live_or_the_sealed_trace() {
    let Some(broker) = Mosquitto::start() else { return };
    const SECRETS: [&str; 7] =
        ["PlantedId", "PlantedUser", "PlantedPassword", "PlantedWill", "PlantedTopic", "PlantedPayload", "PlantedWord"];
    for version in ["mqttv311", "mqttv5"] {
        let tap = RunningTap::start(broker.addr);
        let mut publisher = client("mosquitto_pub", tap.addr, version);
        publisher.args(["-i", "PlantedId", "-u", "PlantedUser", "-P", "PlantedPassword", "-q", "1"]);
        publisher.args(["--will-topic", "PlantedTopic/will", "--will-payload", "PlantedWill", "-t", "PlantedTopic/x"]);
        // One payload that fits a read, and one that is spread over several.
        let large = "PlantedPayload ".repeat(20_000);
        publish_lines(publisher, &["PlantedWord", &large]);
        let enough = |spans: &[Span]| !of_kind(spans, Kind::Disconnect).is_empty();
        let spans = wait_for_spans(&tap.live(), enough);
        assert!(spans.iter().any(|span| span.kind == Kind::Publish && span.bytes > 300_000));
        let live = std::fs::read(tap.live()).unwrap();
        let Finished { trace, sealed, .. } = tap.finish();
        let shown = format!("{:?} {:?}", trace.meta, trace.spans);
        for secret in SECRETS {
            assert!(!contains(&live, secret), "{secret} is in the live file");
            assert!(!contains(&sealed, secret), "{secret} is in the sealed file");
            assert!(!shown.contains(secret), "{secret} is in a row or in the metadata");
        }
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn a_tap_ends_by_itself_after_the_given_time() {
    let Some(broker) = Mosquitto::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("trace.parquet");
    let tap = regauge_recorder::tap::Tap::bind(regauge_recorder::tap::TapOptions::new(broker.addr.to_string(), &out))
        .unwrap();
    let never = std::sync::atomic::AtomicBool::new(false);
    let mut told = 0;
    let summary = tap.run(&never, Some(Duration::from_millis(300)), |_| told += 1).unwrap();
    assert_eq!((summary.stats.spans_seen, summary.out.as_path()), (0, out.as_path()));
    assert!(told >= 1);
    assert_eq!(regauge_traces::open(&out).unwrap().spans, []);
}
