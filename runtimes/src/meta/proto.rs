//! The meta-service's messages, generated from `proto/meta.proto`.
#![allow(missing_docs, clippy::all, reason = "generated code")]

tonic::include_proto!("regauge.meta.v1");
