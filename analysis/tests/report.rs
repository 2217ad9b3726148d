//! The report and the terminal's words: what they say of each verdict, and that the page is whole in a browser without a
//! network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/decisions.rs"]
mod decisions;

use common::{ArmSpec, Spec, write_study};
use decisions::{VERDICTS, decision};
use regauge_analysis::{Evaluation, report, terminal};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn study(spec: &Spec) -> (tempfile::TempDir, Evaluation) {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), spec);
    let evaluation = Evaluation::of(dir.path()).unwrap();
    (dir, evaluation)
}

/// A small study whose decision is replaced by a made-up one.
fn decided(verdict: &'static str) -> (tempfile::TempDir, Evaluation) {
    let (dir, mut evaluation) = study(&Spec::small());
    evaluation.analysis.decision = decision(&evaluation.analysis, verdict);
    evaluation.analysis.verdict = verdict;
    (dir, evaluation)
}

/// The page without its embedded JSON, its text as a reader sees it.
fn page(html: &str) -> String {
    let page = &html[..html.find(r#"id="analysis""#).unwrap()];
    page.replace("&#x2f;", "/").replace("&#x27;", "'")
}

/// No element of a page may ask for anything from anywhere.
fn assert_offline(html: &str) {
    for forbidden in ["http:", "https:", "src=", "href=", "url(", "@import", "<link", "<iframe", "fetch("] {
        assert!(!html.contains(forbidden), "the report contains `{forbidden}`");
    }
}

#[test]
fn the_report_is_one_offline_file_with_the_decision_first() {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &Spec::small());
    let path = report(dir.path()).unwrap();
    assert_eq!(path, dir.path().join("report.html"));
    let html = fs::read_to_string(path).unwrap();
    assert_offline(&html);
    let order = [
        r#"<p class="verdict insufficient">"#,
        ">Why<",
        ">What would change it<",
        ">Question and bar<",
        ">Effect<",
        ">Load<",
        ">Where the gap lies<",
        ">Cheaper arms<",
        ">Consequences<",
        ">Threats to validity<",
        ">Reproduce<",
        ">Evidence<",
        ">Percentiles<",
        ">Ratio to the base<",
        ">The tail<",
        ">Over time<",
        "settings</h2>",
        ">Validity<",
        ">The host,",
    ];
    let places: Vec<usize> = order.iter().map(|text| html.find(text).unwrap_or_else(|| panic!("no {text}"))).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(!page(&html).contains("NaN") && !page(&html).contains("inf "));
    // Two runs of the same analysis give the same file.
    assert_eq!(html, fs::read_to_string(report(dir.path()).unwrap()).unwrap());
}

#[test]
fn every_verdict_brings_its_own_words() {
    for verdict in VERDICTS {
        let (_dir, evaluation) = decided(verdict);
        let html = fs::read_to_string(evaluation.write_report().unwrap()).unwrap();
        let (page, decision) = (page(&html), &evaluation.analysis.decision);
        assert_offline(&html);
        assert!(page.contains(&format!("Verdict: </span>{verdict}</p>")), "{verdict}");
        for sentence in [&decision.headline].into_iter().chain(&decision.why).chain(&decision.would_change) {
            assert!(page.contains(sentence.as_str()), "{verdict}: no `{sentence}`");
        }
        assert!(page.contains("9f3c01d24be7"), "the hash of the question is quoted");
        assert_eq!(page.contains("Not fixed before the first run"), verdict == "INSUFFICIENT EVIDENCE");
        assert_eq!(page.contains("The instrument is not trusted"), verdict == "INSUFFICIENT EVIDENCE");
        assert_eq!(page.contains("Its cost, which no study measures"), verdict == "MIGRATE");
        let confirm =
            ["Run monoio beside", "Run tokio-pinned beside", "should stay where they are", "nothing to confirm"];
        let said: Vec<bool> = confirm.iter().map(|text| page.contains(text)).collect();
        assert_eq!(said, VERDICTS.map(|other| other == verdict), "{verdict}");
    }
}

#[test]
fn the_page_recommends_the_arm_of_the_verdict() {
    // Another arm beyond the bar may have the lower ratio: one that a rival beats, or that may not win.
    let (_dir, mut evaluation) = decided("MIGRATE");
    let decision = &mut evaluation.analysis.decision;
    let lowest = decision.primary.iter().min_by(|a, b| a.ratio.unwrap().value.total_cmp(&b.ratio.unwrap().value));
    assert_eq!(lowest.unwrap().arm, "monoio");
    decision.chosen = Some("compio".into());
    let html = fs::read_to_string(evaluation.write_report().unwrap()).unwrap();
    let page = page(&html);
    assert!(page.contains("the runtime of compio") && page.contains("Run compio beside"), "{}", page.len());
    assert!(!page.contains("Run monoio beside"));
}

#[test]
fn the_command_replays_the_same_load() {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &Spec::decided(Spec::small().arms));
    let path = dir.path().join("study.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (manifest["speed"], manifest["design"]["until"]) = (2.5.into(), 0.1.into());
    manifest["blocks"] = 23.into();
    manifest["stages"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({"created": "2026-11-23T13:00:00Z", "blocks": 23, "sized": true}));
    fs::write(&path, manifest.to_string()).unwrap();
    let mut evaluation = Evaluation::of(dir.path()).unwrap();
    let html = fs::read_to_string(evaluation.write_report().unwrap()).unwrap();
    let replay = "regauge replay trace.parquet --arms arms.toml --speed 2.5 --blocks 10 --seed 7 --layout shared \
                  --stamps false --warmup 2000000us --primary all:p99 --worth 0.8 --equivalence 0.91..1.1 \
                  --floor 0.05ms --slo 10ms --control true --reruns 10 --max-blocks 100 --until 0.1 --out another-study";
    assert!(page(&html).contains(replay), "no `{replay}`");
    // Of several loads, the command that finds the knee again.
    evaluation.analysis.decision.loads = decision(&evaluation.analysis, "STAY").loads;
    let html = fs::read_to_string(evaluation.write_report().unwrap()).unwrap();
    let study = "regauge study --trace trace.parquet --arms arms.toml --load 0.25,0.5,0.75,0.9 --primary-load 0.75 \
                 --blocks 10 --seed 7";
    assert!(page(&html).contains(study) && !page(&html).contains("--speed"), "no `{study}`");
}

#[test]
fn hostile_names_are_escaped() {
    let mut spec = Spec::small();
    spec.arms[1] = spec.arms[1].clone().set("note", Value::from("</script><script>alert(1)</script>"));
    let (_dir, mut evaluation) = study(&spec);
    evaluation.analysis.decision.headline = "<img src=x onerror=alert(1)>".into();
    let html = fs::read_to_string(evaluation.write_report().unwrap()).unwrap();
    assert!(!html.contains("<script>alert") && !page(&html).contains("<img"));
}

#[test]
fn six_arms_and_ten_blocks_stay_small() {
    let arm = |name, stack| ArmSpec::new(name, stack, 170e3).stalls(2e-3, 5e6);
    let mut spec = Spec { blocks: 10, ..Spec::small() };
    spec.arms.extend([arm("tokio-shared-again", "tokio-shared"), arm("tokio-own-thread", "tokio-shared")]);
    let (_dir, evaluation) = study(&spec);
    let length = fs::metadata(evaluation.write_report().unwrap()).unwrap().len();
    assert!(length < 5_000_000, "{length} bytes");
}

#[test]
fn the_terminal_ends_with_the_decision() {
    for verdict in VERDICTS {
        let (_dir, evaluation) = decided(verdict);
        let text = terminal::render(&evaluation.analysis);
        for line in text.lines() {
            assert!(line.chars().count() <= terminal::WIDTH, "{} columns: {line}", line.chars().count());
        }
        assert!(text.lines().count() <= 60, "{} lines are a wall:\n{text}", text.lines().count());
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in\n{text}"));
        assert!(at("Latency from the planned time") < at(&format!("Verdict: {verdict}")));
        assert!(at(&format!("Verdict: {verdict}")) < at("What would change it:"));
    }
    let (_dir, evaluation) = decided("FIX IN PLACE");
    insta::assert_snapshot!(terminal::render(&evaluation.analysis));
}

/// What a browser made of a page.
struct Seen {
    dom: String,
    /// What pages and engine wrote to the console.
    console: Vec<String>,
    /// Addresses that were asked for over any network, whether or not anything answered.
    requests: Vec<String>,
}

/// Chromium, as Debian or others call it.
fn chromium() -> &'static str {
    let is_there = |name: &&&str| {
        let tried = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .iter()
        .find(is_there)
        .expect("no Chromium to look at the report with: `just test` installs it, or install the package chromium")
}

/// Opens a file headless with the network off: every name is unknown, and what needs none goes to a closed port.
fn browse(file: &Path, width: u32) -> Seen {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("net.json");
    let output = Command::new(chromium())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-default-apps", "--hide-scrollbars"])
        .args(["--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"])
        .args(["--v=0", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let console = said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    let log = fs::read_to_string(&log).unwrap();
    Seen { dom: String::from_utf8_lossy(&output.stdout).into_owned(), console, requests: requests(&log) }
}

/// Addresses with a scheme that needs a network, in a net log. The browser's own services (clock, updates) are Google's.
fn requests(log: &str) -> Vec<String> {
    let urls = log.split(r#""url":""#).skip(1).filter_map(|rest| rest.split('"').next());
    let is_page = |url: &&str| {
        let is_net = ["http:", "https:", "ws:", "wss:", "ftp:"].iter().any(|scheme| url.starts_with(scheme));
        let host = url.split('/').nth(2).unwrap_or_default();
        is_net && ![".google.com", ".googleapis.com", ".gvt1.com"].iter().any(|own| host.ends_with(own))
    };
    urls.filter(is_page).map(str::to_owned).collect()
}

fn written(dir: &Path, name: &str, html: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, html).unwrap();
    path
}

#[test]
fn a_browser_shows_the_report_without_a_network() {
    let (dir, evaluation) = decided("MIGRATE");
    let path = evaluation.write_report().unwrap();
    let seen = browse(&path, 1280);
    assert!(seen.console.is_empty(), "{:?}", seen.console);
    assert!(seen.requests.is_empty(), "{:?}", seen.requests);
    let headline = &evaluation.analysis.decision.headline;
    assert!(seen.dom.contains("Verdict: </span>MIGRATE</p>") && seen.dom.contains(headline.as_str()));
    // The script ran: it has shown the button and named it.
    let button = &seen.dom[seen.dom.find(r#"id="theme""#).unwrap()..][..60];
    assert!(button.contains(">Light<") || button.contains(">Dark<"), "{button}");
    assert!(!button.contains("hidden"), "{button}");

    // A page that does what the report must not: this test would see it.
    let bad = r#"<!doctype html><img src="http://192.0.2.1/x.png"><script>undefinedFunction()</script>"#;
    let seen = browse(&written(dir.path(), "bad.html", bad), 1280);
    assert!(seen.console.iter().any(|line| line.contains("undefinedFunction")), "{:?}", seen.console);
    assert!(seen.requests.iter().any(|url| url.contains("192.0.2.1")), "{:?}", seen.requests);
}

#[test]
fn a_phone_never_scrolls_sideways() {
    let (dir, evaluation) = decided("FIX IN PLACE");
    let html = fs::read_to_string(evaluation.write_report().unwrap()).unwrap();
    // The frame makes the phone: a window of a headless browser has a least width of its own.
    let measure = "<script>addEventListener('load', () => { document.title = 'width ' + document.documentElement.scrollWidth \
                   + ' of ' + innerWidth; parent.postMessage(document.title, '*'); })</script>";
    written(dir.path(), "measured.html", &html.replace("</body>", &format!("{measure}</body>")));
    let frame = r#"<!doctype html><body style="margin:0"><p id="said"></p>
        <script>addEventListener("message", e => { document.getElementById("said").textContent = e.data; })</script>
        <iframe src="measured.html" style="width:360px;height:800px;border:0"></iframe>"#;
    let seen = browse(&written(dir.path(), "frame.html", frame), 800);
    assert!(seen.dom.contains(">width 360 of 360<"), "{}", &seen.dom[..seen.dom.len().min(600)]);
}
