//! Generates the meta-service's gRPC code from its proto file, without `protoc`: `protox` is a Rust crate.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/meta.proto"], ["proto"])?;
    // No transport: each runtime brings its own sockets under hyper's HTTP/2.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
