//! Redaction: names go, equality and matching stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use regauge_traces::redact::{METHOD, parse_filters, parse_subscriptions};
use regauge_traces::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

fn redactor() -> Redactor {
    Redactor::new(&RedactionKey::from_hex(KEY).unwrap())
}

/// Does a filter match a topic? Straight from MQTT 5, section 4.7.
fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    if topic[0].starts_with('$') && (filter[0] == "+" || filter[0] == "#") {
        return false;
    }
    for (position, level) in filter.iter().enumerate() {
        match *level {
            "#" => return true,
            "+" if position < topic.len() => {}
            level if topic.get(position) == Some(&level) => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

#[test]
fn shapes() {
    let r = redactor();
    let level = |name: &str| r.topic(name);
    assert_eq!(level("kitchen").len(), 12);
    assert!(level("kitchen").bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)));
    assert_eq!(r.topic("a/b"), format!("{}/{}", level("a"), level("b")));
    assert_eq!(r.topic("/a//"), format!("/{}//", level("a")));
    assert_eq!(r.topic(""), "");
    assert_eq!(r.topic("+/a/#"), format!("+/{}/#", level("a")));
    assert_eq!(r.topic("$SYS/a"), format!("$SYS/{}", level("a")));
    assert_eq!(r.topic("$share/g/a/+"), format!("$share/{}/{}/+", level("g"), level("a")));
    assert_eq!(r.topic("$share/g/$SYS/#"), format!("$share/{}/$SYS/#", level("g")));
    let dollar = r.topic("$aws/things");
    assert!(dollar.starts_with('$') && !dollar.contains("aws") && dollar.split('/').next().unwrap().len() == 13);
    // Only a leading $SYS means the broker's own topics.
    assert!(!r.topic("a/$SYS").contains("SYS"));
    assert_ne!(r.session(b"a") & ((1 << 60) - 1), {
        // The same bytes as a level hash to something else.
        let mut value = 0u64;
        for character in level("a").bytes() {
            let digit = if character.is_ascii_lowercase() { character - b'a' } else { character - b'2' + 26 };
            value = value << 5 | u64::from(digit);
        }
        value
    });
}

/// Fixed for all time: an old trace recorded again with its key must be comparable.
#[test]
fn hashes_are_stable() {
    let r = redactor();
    insta::assert_snapshot!(
        format!("{:016x} {} {}", r.session(b"client"), r.topic("site/7/+/temp"), r.redaction().key_id),
        @"9dab0be942a7eb65 g7ruxbqoggn5/ypcnyz5slexc/+/gxvr3p3gsalk 8f386d38"
    );
    assert_eq!(r.redaction().method, METHOD);
}

#[test]
fn lists_of_filters() {
    let r = redactor();
    let target = r.subscriptions([("a,b/+", 1), ("c@2", 0)]);
    assert_eq!(parse_subscriptions(&target), Ok(vec![(r.topic("a,b/+").as_str(), 1), (r.topic("c@2").as_str(), 0)]));
    assert_eq!(parse_filters(&r.filters(["a,b", "+"])), [r.topic("a,b").as_str(), "+"]);
    for wrong in ["", "a", "a@", "a@300", "@1", "a@1,"] {
        assert!(parse_subscriptions(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn keys() {
    let key = RedactionKey::from_hex(&format!(" {KEY}\n")).unwrap();
    assert_eq!(key, RedactionKey::from_bytes(std::array::from_fn(|i| i as u8)));
    assert!(!format!("{key:?} {:?}", Redactor::new(&key)).contains("0607"));
    assert_ne!(RedactionKey::generate().unwrap(), RedactionKey::generate().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, KEY).unwrap();
    assert_eq!(RedactionKey::from_file(&path).unwrap(), key);
    for wrong in ["", "00", &"g".repeat(32), &"ä".repeat(16)] {
        let sentence = RedactionKey::from_hex(wrong).unwrap_err().to_string();
        assert!(sentence.starts_with("a redaction key is 32 hex digits"), "{sentence}");
        assert!(wrong.len() < 3 || !sentence.contains(wrong));
    }
    let sentence = RedactionKey::from_file(directory.path().join("none")).unwrap_err().to_string();
    assert!(sentence.starts_with("cannot read the redaction key from "), "{sentence}");
}

/// Levels in characters that hashes do not use, so that any survivor is a leak.
fn secret_topic() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["[A-Z0189äß_.,@-]{3,12}", Just("+".to_owned()), Just(String::new())], 1..6)
        .prop_map(|levels| levels.join("/"))
}

fn small_topic() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab$]?|[$]SYS", 1..5).prop_map(|levels| levels.join("/"))
}

fn small_filter() -> impl Strategy<Value = String> {
    (proptest::collection::vec("[ab+$]?|[$]SYS", 1..5), any::<bool>())
        .prop_map(|(levels, all)| levels.join("/") + if all { "/#" } else { "" })
}

proptest! {
    #[test]
    fn nothing_of_a_name_survives(topic in secret_topic(), client in "[A-Z0189]{3,20}") {
        let r = redactor();
        let redacted = r.topic(&topic);
        let characters: Vec<char> = topic.chars().collect();
        for window in characters.windows(3).filter(|window| window.iter().all(|c| !"+/".contains(*c))) {
            let window: String = window.iter().collect();
            prop_assert!(!redacted.contains(&window), "{} in {}", window, redacted);
        }
        prop_assert_eq!(redacted.matches('/').count(), topic.matches('/').count());
        prop_assert_eq!(r.topic(&topic), redacted, "the same name, the same hash");
        let other = Redactor::new(&RedactionKey::from_bytes([9; 16]));
        prop_assert_ne!(r.session(client.as_bytes()), other.session(client.as_bytes()));
    }

    #[test]
    fn matching_survives(filter in small_filter(), topic in small_topic()) {
        let r = redactor();
        prop_assert_eq!(matches(&filter, &topic), matches(&r.topic(&filter), &r.topic(&topic)), "{} {}", filter, topic);
    }
}
