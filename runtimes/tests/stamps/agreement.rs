//! Wake → poll agrees with tokio's own schedule latency.
//!
//! tokio has it behind a feature that recompiles much else, so this runs when asked for: `just test-agreement`.
#![cfg(feature = "schedule-latency")]

use super::{TURN, polls, spin, wait, written, yield_now};
use regauge_runtimes::stamps::{self, Role, timed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Builder;

/// All waits are longer, so that every poll is kept, ns.
const LEAST_NS: u64 = 20_000;

#[test]
fn wake_to_poll_is_tokios_schedule_latency() {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        stamps::start();
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&latencies);
        let runtime = builder
            .worker_threads(2)
            .track_task_schedule_latency()
            .on_before_task_poll(move |task| {
                let latency = task.schedule_latency().map(|latency| latency.as_nanos() as u64);
                seen.lock().unwrap().extend(latency.filter(|ns| *ns >= LEAST_NS));
            })
            .build()
            .unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..48u64)
                .map(|n| {
                    tokio::spawn(timed(Role::Effect, async move {
                        for round in 0..100 {
                            // Of many lengths, so that the distribution is wide.
                            spin(Duration::from_micros(5 + (n * 7 + round * 13) % 40));
                            yield_now().await;
                        }
                    }))
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        drop(runtime);
        let (_, rows) = written();
        let mut ours: Vec<u64> = polls(&rows, "effect").into_iter().map(wait).filter(|ns| *ns >= LEAST_NS).collect();
        let mut tokios = std::mem::take(&mut *latencies.lock().unwrap());
        ours.sort_unstable();
        tokios.sort_unstable();
        assert!(
            ours.len() > 4000 && ours.len().abs_diff(tokios.len()) * 50 <= ours.len(),
            "{} and {}",
            ours.len(),
            tokios.len()
        );
        for percent in [50, 90] {
            let (own, theirs) = (ours[ours.len() * percent / 100], tokios[tokios.len() * percent / 100]);
            println!("P{percent}: {own} ns, tokio {theirs} ns");
            assert!(own.abs_diff(theirs) <= (theirs / 20).max(2_000), "P{percent}: {own} ns, tokio says {theirs} ns");
        }
    }
}
