//! arms.toml: what is accepted, what it is completed to, and the sentence for each mistake.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use regauge_replayer::arms::{Arms, differences};
use regauge_runtimes::settings::{Durability, Settings, Stack};

const GOOD: &str = r#"
base = "today"
[defaults]
durability = "every=4"
blocking_threads = 16
[[arm]]
name = "today"
stack = "tokio-shared"
[[arm]]
name = "candidate"
stack = "compio"
blocking_threads = 8
"#;

fn settings(arms: &Arms, allowed: &[usize], server: &[usize]) -> Vec<Settings> {
    let records = arms.resolve(allowed, server, None).unwrap();
    records.into_iter().map(|a| serde_json::from_value(a.settings).unwrap()).collect()
}

#[test]
fn defaults_and_the_layout_complete_every_arm() {
    let arms = Arms::parse(GOOD, "arms.toml").unwrap();
    assert_eq!((arms.base(), arms.names().collect::<Vec<_>>()), ("today", vec!["today", "candidate"]));
    assert_eq!(arms.stacks(), [Stack::TokioShared, Stack::Compio]);
    let all = settings(&arms, &[0, 1, 2, 3], &[0, 1, 2]);
    assert!(all.iter().all(|s| s.durability == Durability::Every(4) && s.threads == 3 && s.cpus == [0, 1, 2]));
    assert_eq!(all.iter().map(|s| s.blocking_threads).collect::<Vec<_>>(), [16, 8]);
    let records = arms.resolve(&[0, 1], &[0], Some(1)).unwrap();
    let differ = differences(&records);
    assert_eq!(differ.len(), 1);
    assert_eq!((differ[0].setting.as_str(), differ[0].values[1].1.as_u64()), ("blocking_threads", Some(8)));
}

#[test]
fn the_built_in_arms_fit_hosts_of_every_size() {
    for name in ["default", "factorial"] {
        let arms = Arms::load(name).unwrap();
        assert_eq!(arms.stacks(), Stack::ALL);
        for cpus in 1..=8 {
            let all: Vec<usize> = (0..cpus).collect();
            assert_eq!(arms.resolve(&all, &all, None).unwrap().len(), arms.names().count());
        }
    }
    let default = Arms::load("default").unwrap().resolve(&[0, 1], &[0, 1], None).unwrap();
    let (cheap, stacks): (Vec<_>, Vec<_>) = default.into_iter().partition(|arm| arm.name == "tokio-shared-cheap");
    assert_eq!(differences(&stacks), [], "the other default arms must differ in their stack alone");
    let base_and_cheap = [stacks[0].clone(), cheap[0].clone()];
    let changed: Vec<String> = differences(&base_and_cheap).into_iter().map(|d| d.setting).collect();
    assert_eq!((stacks.len(), changed.as_slice()), (4, ["last_applied".to_owned(), "placement".to_owned()].as_slice()));
    let factorial = Arms::load("factorial").unwrap().resolve(&[0], &[0], None).unwrap();
    let differ: Vec<String> = differences(&factorial).into_iter().map(|d| d.setting).collect();
    let expected = ["durability", "eager_handoff", "files", "last_applied", "placement", "raft_sync", "roles"];
    assert_eq!(differ, expected);
}

#[test]
fn threads_and_cpus_follow_from_each_other() {
    let arms = |extra: &str| {
        let text = format!("base = \"x\"\n[[arm]]\nname = \"x\"\nstack = \"compio\"\n{extra}\n");
        Arms::parse(&text, "arms.toml").unwrap()
    };
    let one = |extra: &str| settings(&arms(extra), &[0, 1, 2, 3], &[0, 1, 2]).remove(0);
    assert_eq!((one("threads = 2").threads, one("threads = 2").cpus), (2, vec![0, 1]));
    assert_eq!((one("cpus = [2, 0]").threads, one("cpus = [2, 0]").cpus), (2, vec![2, 0]));
    let refused = |extra: &str| arms(extra).resolve(&[0, 1, 2, 3], &[0, 1, 2], Some(3)).unwrap_err().to_string();
    assert_eq!(
        refused("threads = 4"),
        "arms.toml, line 2, arm `x`: compio binds one shard to one CPU: 4 shards do not fit on 3 CPUs (0, 1, 2)"
    );
    assert!(refused("threads = 1\ncpus = [0, 1]").contains("name as many CPUs as shards"));
    assert!(refused("cpus = []").contains("do not fit on 0 CPUs"));
    assert!(refused("cpus = [9]").contains("CPU 9 is not among the CPUs that this process may use (0, 1, 2, 3)"));
    assert!(refused("cpus = [3]").contains("CPU 3 belongs to the driver"));

    // What is possible on one stack and not on the others.
    let text = "base = \"x\"\n[[arm]]\nname = \"x\"\nstack = \"tokio-shared\"\nroles = \"three\"\nrole_threads = 4\n\
                eager_handoff = true\nnodes = 3\nneighbours = 1\nsession_batch = 1\n";
    let odd = settings(&Arms::parse(text, "f").unwrap(), &[0, 1], &[0]).remove(0);
    assert_eq!((odd.role_threads, odd.eager_handoff, odd.nodes, odd.session_batch), (4, true, 3, 1));

    // Work stealing may have more workers than CPUs: some brokers are deployed so.
    let text = "base = \"x\"\n[[arm]]\nname = \"x\"\nstack = \"tokio-shared\"\nthreads = 9\n";
    assert_eq!(settings(&Arms::parse(text, "f").unwrap(), &[0, 1], &[0])[0].threads, 9);
}

#[test]
fn each_mistake_gets_one_sentence_with_its_place() {
    let arm = |rest: &str| format!("base = \"x\"\n\n[[arm]]\nname = \"x\"\n{rest}\n");
    let stack = "stack = \"compio\"\n";
    let cases = [
        (String::new(), "arms.toml: no arm stands in it"),
        ("base = 3".into(), "arms.toml, line 1: invalid type: integer `3`, expected a string"),
        ("base = \"x".into(), "arms.toml, line 1: "),
        (arm("thread = 2"), "arms.toml, line 5: unknown field `thread`, expected one of "),
        (arm("stack = \"tokio\""), "arm `x`: no stack is called `tokio`; choose one of tokio-shared"),
        (arm(""), "arms.toml, line 3, arm `x`: `stack` is missing"),
        (arm(&format!("{stack}threads = 0")), "arms.toml, line 3, arm `x`: `threads = 0` means nothing can run"),
        (arm(&format!("{stack}threads = -1")), "arms.toml, line 6: "),
        (arm(&format!("{stack}blocking_threads = 0")), "`blocking_threads = 0` means"),
        (arm(&format!("{stack}partitions = 0")), "`partitions = 0` means"),
        (arm(&format!("{stack}iowq_bounded = 0")), "`iowq_bounded = 0` would leave"),
        (arm(&format!("{stack}ring_entries = 1000")), "`ring_entries = 1000` is no power of two"),
        (arm(&format!("{stack}segment_bytes = 10")), "`segment_bytes = 10` is less than"),
        (arm(&format!("{stack}cpus = [1, 1]")), "`cpus` names CPU 1 twice"),
        (arm(&format!("{stack}durability = \"sync\"")), "arms.toml, line 6: durability `sync` is none of"),
        (
            arm(&format!("{stack}placement = \"pool\"")),
            "line 6: unknown variant `pool`, expected one of `inline`, `offload`, `own-thread`",
        ),
        (arm(&format!("{stack}role_threads = 0")), "`role_threads = 0` means"),
        (
            arm(&format!("{stack}role_threads = 2")),
            "arm `x`: `role_threads = 2`: the runtimes of compio have one thread",
        ),
        (arm("stack = \"tokio-shared\"\nrole_threads = 5000"), "`role_threads = 5000` is more than 1024"),
        (arm("stack = \"tokio-pinned\"\neager_handoff = true"), "a setting of tokio-shared alone; tokio-pinned has"),
        (arm(stack) + "[defaults]\neager_handoff = true\n", "arm `x`: `eager_handoff = true` is a setting of"),
        (arm(&format!("{stack}nodes = 2")), "`nodes = 2` is no cluster that can be run here; give 1 or 3"),
        (arm(&format!("{stack}session_batch = 0")), "`session_batch = 0` means no session can be opened"),
        (arm(&format!("{stack}session_batch = 20000")), "`session_batch = 20000` is more than the 10000"),
        (arm(&format!("{stack}neighbours = 65")), "`neighbours = 65` is more than 64 threads"),
        (arm(stack) + "[[arm]]\nname = \"x\"\nstack = \"monoio\"\n", "line 7, arm `x`: another arm has this name"),
        (arm(stack) + "[[arm]]\nstack = \"monoio\"\n", "line 7: this arm has no `name`"),
        (arm(stack) + "[[arm]]\nname = \"../up\"\nstack = \"monoio\"\n", "the name becomes a directory"),
        (arm(stack) + "[[arm]]\nname = \"-x\"\nstack = \"monoio\"\n", "the name becomes a directory"),
        (arm(stack) + "[defaults]\nname = \"y\"\n", "line 7, [defaults]: `name` belongs to one arm"),
        (arm(stack) + "[defaults]\nthreads = 0\n", "[defaults]: `threads = 0`"),
        (
            arm(stack).replace("base = \"x\"", "base = \"y\""),
            "line 1: `base` is `y`, which no arm is called; choose one of x",
        ),
        (arm(stack).replace("base = \"x\"", ""), "arms.toml: `base = \"…\"` is missing; choose one of the arms x"),
    ];
    for (text, words) in cases {
        let message = Arms::parse(&text, "arms.toml").unwrap_err().to_string();
        assert!(message.contains(words) && !message.contains('\n'), "{message}\nshould have: {words}\nfor:\n{text}");
    }
    let absent = Arms::load("/nonexistent/arms.toml").unwrap_err().to_string();
    assert!(absent.contains("cannot read it") && absent.contains("default, factorial"), "{absent}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(base|name|stack|threads|cpus|\\[\\[arm\\]\\]|\\[defaults\\]|=|\"x\"|[0-9-]|compio|\n| |é){0,40}") {
        if let Err(e) = Arms::parse(&text, "arms.toml") {
            prop_assert!(!e.to_string().contains('\n'));
        }
    }
}
