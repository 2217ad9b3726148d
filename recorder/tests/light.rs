//! The layer is light enough for someone else's broker: it brings no runtime, no event loop and no polars.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn the_layer_brings_no_runtime_and_no_polars() {
    let tree = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let layer = ["--package", "regauge-recorder", "--no-default-features", "--features", "layer"];
    let output =
        Command::new(env!("CARGO")).args(tree).args(layer).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = names.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"tracing-core") && names.contains(&"rtrb"), "{names:?}");
    let heavy = ["tokio", "mio", "compio", "monoio", "async-std", "smol", "glommio", "polars", "openraft", "rocksdb"];
    let brought: Vec<&&str> = names.iter().filter(|name| heavy.contains(name)).collect();
    assert!(brought.is_empty(), "{brought:?}");
}
