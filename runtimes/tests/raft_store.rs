//! openraft's own suite for stores, against the log store and state machine, on every runtime and with every placement.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use regauge_runtimes::meta::Store;
use regauge_runtimes::meta::log_store::LogStore;
use regauge_runtimes::meta::native::{CompioNative, MonoioNative, Native, TokioNative};
use regauge_runtimes::meta::rocks::Rocks;
use regauge_runtimes::meta::state_machine::StateMachine;
use regauge_runtimes::meta::types::Types;
use regauge_runtimes::settings::{LastApplied, Placement, RaftSync, Settings};
use std::marker::PhantomData;
use std::sync::Arc;
use tempfile::TempDir;

struct Fresh<N>(Settings, PhantomData<N>);

impl<N: Native> StoreBuilder<Types<N>, LogStore<N>, StateMachine<N>, TempDir> for Fresh<N> {
    async fn build(&self) -> Result<(TempDir, LogStore<N>, StateMachine<N>), StorageError<Types<N>>> {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open_for(&dir.path().join("meta"), &self.0).unwrap());
        let rocks = Rocks::<N>::new(store, &self.0, || {}).unwrap();
        let log = LogStore::open(rocks.clone()).unwrap();
        let machine = StateMachine::open(rocks, self.0.durable_sessions).unwrap();
        Ok((dir, log, machine))
    }
}

fn passes<N: Native>(settings: Settings) {
    // Syncs are slow on some machines, and this suite crashes nothing.
    let settings = Settings { raft_sync: RaftSync::None, ..settings };
    let builder = Fresh::<N>(settings, PhantomData);
    N::default().block_on(Suite::test_all(builder)).unwrap();
}

fn settings(placement: Placement, last_applied: LastApplied, durable_sessions: bool) -> Settings {
    Settings { placement, last_applied, durable_sessions, ..Settings::default() }
}

#[test]
fn openrafts_suite_passes_on_tokio() {
    passes::<TokioNative>(settings(Placement::Offload, LastApplied::OwnWrite, true));
    passes::<TokioNative>(settings(Placement::OwnThread, LastApplied::Merged, false));
}

#[test]
fn openrafts_suite_passes_on_monoio() {
    passes::<MonoioNative>(settings(Placement::OwnThread, LastApplied::OwnDb, true));
    passes::<MonoioNative>(settings(Placement::Offload, LastApplied::NoWal, false));
}

#[test]
fn openrafts_suite_passes_on_compio() {
    passes::<CompioNative>(settings(Placement::Inline, LastApplied::NoWal, true));
    passes::<CompioNative>(settings(Placement::Offload, LastApplied::Merged, true));
}
