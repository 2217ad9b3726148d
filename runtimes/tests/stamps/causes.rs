//! One planted cause after the other, on every runtime with one thread: the right row grows, and only that one.

use super::{Spawner, Turn, polls, run, run_in, spin, wait, wall, yield_now};
use regauge_runtimes::settings::Stack;
use regauge_runtimes::stamps::{self, Call, Cause, Mark, Operation, Role, Step, indexed, mark, timed, usage};
use regauge_runtimes::{
    affinity,
    broker::effect::{ConnId, Input, OpId},
};
use regauge_traces::stamps::{Event, Stamp};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

const MS: u64 = 1_000_000;

#[test]
fn a_task_that_spins_makes_others_wait_for_their_poll() {
    for stack in Stack::ALL {
        let (_, rows) = run(stack, None, |spawner| async move {
            let (wake, woken) = oneshot::channel();
            spawner.spawn(Role::Effect, async move { woken.await.unwrap() });
            yield_now().await;
            let (spun, done) = oneshot::channel();
            spawner.spawn(Role::Tick, async move {
                wake.send(()).unwrap();
                spin_for_cpu_time(5 * MS);
                spun.send(()).unwrap();
            });
            done.await.unwrap();
            yield_now().await;
        });
        let (spinner, waiter) = (polls(&rows, "tick"), polls(&rows, "effect"));
        let spun = spinner.iter().max_by_key(|poll| wall(poll)).unwrap();
        let waited = waiter.iter().max_by_key(|poll| wait(poll)).unwrap();
        assert!(wall(spun) >= 5 * MS, "{stack}: {spun:?}");
        assert!(wait(waited) >= 5 * MS, "{stack}: {waited:?} beside {spun:?}");
        // Of its time up to a millisecond may be taken for that of polls just before it.
        assert!(spun.cpu_ns.unwrap() >= 4 * MS, "{stack}: {spun:?}");
        if usage::has_run_delay() {
            // Besides the spin there is only what the thread waited for a CPU, in the poll and after it.
            assert!(wait(waited) <= wall(spun) + gaps(&rows) + 5 * MS, "{stack}: {waited:?} beside {spun:?}");
        }
    }
}

#[test]
fn a_queue_of_ready_tasks_makes_the_last_one_wait_for_all() {
    const TASKS: usize = 100;
    for stack in Stack::ALL {
        let (_, rows) = run(stack, None, |spawner| async move {
            let (all, _) = tokio::sync::broadcast::channel::<()>(1);
            let (done, mut finished) = tokio::sync::mpsc::channel::<()>(1);
            for _ in 0..TASKS {
                let (mut started, done) = (all.subscribe(), done.clone());
                spawner.spawn(Role::Effect, async move {
                    started.recv().await.unwrap();
                    spin(Duration::from_micros(100));
                    drop(done);
                });
            }
            drop(done);
            yield_now().await;
            all.send(()).unwrap();
            assert!(finished.recv().await.is_none());
        });
        // The polls that spun: each task has one.
        let spun: Vec<_> = polls(&rows, "effect").into_iter().filter(|poll| wall(poll) >= 100_000).collect();
        assert!(spun.len() >= TASKS, "{stack}: {} polls", spun.len());
        let all: u64 = spun.iter().map(|poll| wall(poll)).sum();
        let last = wait(spun.last().unwrap());
        assert!(last + wall(spun.last().unwrap()) >= all * 9 / 10, "{stack}: {last} of {all}");
        // All are woken before the first is polled, so each waits for all before it. That their waits ascend does not
        // follow: who wakes them may lose the CPU between two. Before them lies what was slow before it was woken.
        let woken = &spun[spun.len() - TASKS..];
        for (k, poll) in woken.iter().enumerate() {
            let before: u64 = woken[..k].iter().map(|poll| wall(poll)).sum();
            // A rounded ns for each.
            assert!(wait(poll) + k as u64 >= before, "{stack}: {poll:?} waited for {before}");
        }
        if usage::has_run_delay() {
            // Besides the polls of others there is only what the thread waited for a CPU between them.
            assert!(last <= all + gaps(&rows) + 5 * MS, "{stack}: {last} of {all} and {}", gaps(&rows));
        }
    }
}

#[test]
fn a_sleep_in_a_blocking_call_is_in_the_call_and_not_in_the_polls() {
    for stack in Stack::ALL {
        let (_, rows) = run(stack, None, |spawner: Spawner| async move {
            let operation = {
                let _released = Cause::input(&Input::Done { op: OpId(6), result: Err(String::new()) });
                Operation::queued("sync", 3, OpId(7))
            };
            let call = Call::queued(Step::SetLastApplied, 41, 2);
            let (done, finished) = oneshot::channel();
            spawner.spawn(Role::Effect, async move {
                let sleep = || std::thread::sleep(Duration::from_millis(20));
                let work = move || operation.run(|| call.run(sleep).1);
                let (ran, operation) = spawner.blocking(work).await;
                ran.resumed();
                drop(operation.done(Err(String::new())));
                done.send(()).unwrap();
            });
            finished.await.unwrap();
        });
        let operation = rows.iter().find(|s| s.event == Event::Op).unwrap();
        assert_eq!((operation.shard, operation.op, operation.after), (Some(3), Some(7), Some(6)));
        assert!(wall(operation) >= 20 * MS, "{stack}: {operation:?}");
        let call = rows.iter().find(|s| s.event == Event::Call).unwrap();
        assert_eq!((call.name, call.first, call.count), ("set_last_applied", Some(41), Some(2)));
        assert!(wall(call) >= 20 * MS && wall(call) <= wall(operation), "{stack}: {call:?}");
        assert!(call.cpu_ns.unwrap() < wall(call) / 4 && call.voluntary.unwrap() >= 1, "{stack}: {call:?}");
        assert_eq!((call.wal_ns, call.thread_wait_ns), (Some(0), Some(0)), "{stack}: no RocksDB here");
        assert_ne!(call.thread, polls(&rows, "effect")[0].thread, "{stack}: it ran on the pool");
        assert!(operation.woken_ns.unwrap() >= operation.finished_ns.unwrap(), "{stack}: {operation:?}");
        for poll in polls(&rows, "effect") {
            assert!(wall(poll) < 20 * MS, "{stack}: {poll:?}");
        }
    }
}

#[test]
fn a_neighbour_on_the_cpu_shows_as_run_delay() {
    if !usage::has_run_delay() {
        eprintln!("this kernel has no schedstat: not tested");
        return;
    }
    let cpu = first_cpu();
    for stack in Stack::ALL {
        let turn = Turn::take();
        let measure = || {
            let (_, rows) = run_in(&turn, stack, Some(cpu), |spawner| async move {
                let (done, finished) = oneshot::channel();
                spawner.spawn(Role::Tick, async move {
                    spin_for_cpu_time(20 * MS);
                    done.send(()).unwrap();
                });
                finished.await.unwrap();
            });
            let poll = polls(&rows, "tick").into_iter().max_by_key(|poll| wall(poll)).copied().unwrap();
            (poll.cpu_ns.unwrap(), poll.run_delay_ns.unwrap(), wall(&poll))
        };
        let alone = measure();
        let beside = beside_neighbours(&turn, cpu, measure);
        // (cpu, run delay, wall)
        for (cpu, delay, wall) in [alone, beside] {
            assert!((19 * MS..=25 * MS).contains(&cpu), "{stack}: beside three neighbours {beside:?}, alone {alone:?}");
            assert!(cpu + delay + wall / 10 + 2 * MS >= wall, "{stack}: {cpu} + {delay} of {wall}");
        }
        assert!(beside.1 >= 20 * MS, "{stack}: beside three neighbours {beside:?}, alone {alone:?}");
    }
}

#[test]
fn a_task_within_a_task_leaves_one_row_and_gives_the_time_back() {
    for stack in Stack::ALL {
        let (_, rows) = run(stack, None, |spawner| async move {
            let (done, finished) = oneshot::channel();
            spawner.spawn(Role::Effect, async move {
                timed(Role::Raft, async { spin(Duration::from_millis(1)) }).await;
                spin(Duration::from_millis(1));
                done.send(()).unwrap();
            });
            finished.await.unwrap();
            // Long enough to be kept.
            spin(Duration::from_micros(200));
        });
        assert!(polls(&rows, "raft").is_empty(), "{stack}: the time would count twice");
        let effect = polls(&rows, "effect")[0];
        assert!(wall(effect) >= 2 * MS, "{stack}");
        let after = polls(&rows, "main").into_iter().any(|poll| poll.started_ns >= effect.finished_ns);
        assert!(after, "{stack}: polls are noted after it, too");
    }
}

#[test]
fn a_proposals_moments_become_one_row() {
    let (_, rows) = run(Stack::TokioPinned, None, |spawner: Spawner| async move {
        let operation = Operation::queued("meta", 0, OpId(1)).carried_by(77);
        mark(77, Mark::Sent);
        spawner.blocking(|| (mark(77, Mark::Received), indexed(77, 1234), mark(77, Mark::Proposed))).await;
        for at in [Mark::Committed, Mark::Answered, Mark::Returned] {
            mark(77, at);
        }
        drop(operation.done(Err(String::new())));
        mark(78, Mark::Sent);
    });
    let proposals: Vec<_> = rows.iter().filter(|s| s.event == Event::Proposal).collect();
    assert_eq!(proposals.iter().map(|s| s.proposal.unwrap()).collect::<Vec<_>>(), [77, 78]);
    let (whole, begun) = (proposals[0], proposals[1]);
    let operation = rows.iter().find(|s| s.event == Event::Op).unwrap();
    assert_eq!((whole.first, whole.queued_ns, operation.proposal), (Some(1234), operation.queued_ns, Some(77)));
    let moments = [
        whole.queued_ns,
        whole.sent_ns,
        whole.received_ns,
        whole.proposed_ns,
        whole.committed_ns,
        whole.answered_ns,
        whole.returned_ns,
    ];
    assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{whole:?}");
    assert!(begun.sent_ns.is_some() && begun.returned_ns.is_none() && begun.queued_ns.is_none());
}

#[test]
fn of_a_proposal_that_was_sent_twice_the_last_attempt_counts() {
    let (_, rows) = run(Stack::TokioPinned, None, |_: Spawner| async move {
        mark(5, Mark::Sent);
        for attempt in [10, 20] {
            mark(5, Mark::Received);
            mark(5, Mark::Proposed);
            indexed(5, attempt);
            mark(5, Mark::Committed);
            mark(5, Mark::Answered);
        }
        mark(5, Mark::Returned);
        // And one whose second attempt was not answered.
        for at in [Mark::Sent, Mark::Received, Mark::Proposed, Mark::Committed, Mark::Answered, Mark::Received] {
            mark(6, at);
        }
    });
    let of = |id| rows.iter().find(|row| row.event == Event::Proposal && row.proposal == Some(id)).unwrap();
    let twice = of(5);
    assert_eq!(twice.first, Some(20));
    let moments = [twice.sent_ns, twice.received_ns, twice.proposed_ns, twice.committed_ns, twice.answered_ns];
    assert!(moments.iter().all(Option::is_some) && moments.is_sorted() && twice.answered_ns <= twice.returned_ns);
    assert_eq!((of(6).proposed_ns, of(6).committed_ns, of(6).answered_ns), (None, None, None), "{:?}", of(6));
}

#[test]
fn who_makes_a_call_itself_is_not_woken_for_it() {
    for stack in Stack::ALL {
        let (_, rows) = run(stack, None, |spawner: Spawner| async move {
            yield_now().await;
            let (_, ran) = Call::queued(Step::Route, 1, 1).run(|| ());
            ran.resumed();
            let call = Call::queued(Step::SetLastApplied, 1, 1);
            let ran = spawner.blocking(move || call.run(|| std::thread::sleep(Duration::from_millis(5))).1).await;
            ran.resumed();
        });
        let call = |name: &str| rows.iter().find(|row| row.event == Event::Call && row.name == name).unwrap();
        assert_eq!(call("route").woken_ns, None, "{stack}");
        let offloaded = call("set_last_applied");
        assert!(offloaded.finished_ns < offloaded.woken_ns && offloaded.woken_ns <= offloaded.resumed_ns, "{stack}");
    }
}

#[test]
fn a_pool_threads_wait_for_a_cpu_is_a_gap_before_its_call() {
    if !usage::has_run_delay() {
        eprintln!("this kernel has no schedstat: not tested");
        return;
    }
    let cpu = first_cpu();
    for stack in Stack::ALL {
        let turn = Turn::take();
        let (_, rows) = beside_neighbours(&turn, cpu, || {
            run_in(&turn, stack, Some(cpu), |spawner: Spawner| async move {
                for n in 0..40 {
                    let operation = Operation::queued("append", 0, OpId(n));
                    let work = move || {
                        affinity::bind_thread(&[cpu]).unwrap();
                        // Who has used its share of the CPU waits for the next.
                        operation.run(|| spin_for_cpu_time(4 * MS)).1
                    };
                    drop(spawner.blocking(work).await.done(Err(String::new())));
                }
            })
        });
        let operations: Vec<_> = rows.iter().filter(|row| row.event == Event::Op).collect();
        let workers: Vec<u32> = operations.iter().map(|row| row.worker.unwrap()).collect();
        assert!(operations.iter().all(|row| row.cpu_ns.is_some() && Some(row.thread) != row.worker), "{stack}");
        let gaps: Vec<_> = rows.iter().filter(|row| row.event == Event::Gap && workers.contains(&row.thread)).collect();
        assert!(!gaps.is_empty(), "{stack}: of 40 wakes beside three neighbours none waited");
        for gap in gaps {
            // It lies between two calls of its thread: what was waited within a call is the call's.
            let own = || operations.iter().filter(|row| row.worker == Some(gap.thread));
            let overlaps = |row: &&&Stamp| row.started_ns < gap.finished_ns && gap.started_ns < row.finished_ns;
            assert_eq!(own().find(overlaps), None, "{stack}: {gap:?}");
            assert!(own().any(|row| row.started_ns >= gap.finished_ns), "{stack}: no call after {gap:?}");
        }
    }
}

/// More reads than a thread keeps whole, the one in question shortly before an operation that is slow: neither it nor the
/// reply is slow itself.
#[test]
fn what_happens_beside_something_slow_survives_the_thinning() {
    // On a loaded machine everything may be slow, or what belongs together far apart.
    let seen: Vec<String> = (0..5).map_while(|_| survives_the_thinning().err()).collect();
    assert!(seen.len() < 5, "{seen:#?}");
}

fn survives_the_thinning() -> Result<(), String> {
    // Fewer than are kept at all, so that none is dropped.
    const READS: u64 = 380_000;
    const SLOW: u64 = 300_000;
    let (meta, rows) = run(Stack::TokioPinned, None, |_: Spawner| async move {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reads, mut replies) = stamps::wire(3, ConnId(9), &stream, 0);
        for nth in 1..=READS {
            let cause = reads.got(1);
            if nth == SLOW {
                let operation = Operation::queued("append", 3, OpId(1));
                let (_, operation) = operation.run(|| std::thread::sleep(Duration::from_millis(5)));
                drop(operation.done(Err(String::new())));
                replies.pushed(1);
                replies.wrote(1);
            }
            drop(cause);
            spin(Duration::from_nanos(100));
            // In many short polls: what is read late in a long one was slow itself.
            if nth % 100 == 0 {
                yield_now().await;
            }
        }
    });
    let of = |event| rows.iter().filter(move |row| row.event == event);
    let kept = of(Event::Read).count() as u64;
    let said = format!("{kept} of {READS}, {} thinned, {} replies", meta.thinned, of(Event::Reply).count());
    assert!(kept + meta.thinned >= READS, "{said}");
    let operation = of(Event::Op).next().unwrap();
    let read = of(Event::Read).find(|row| row.offset == Some(SLOW));
    let Some(read) = read.filter(|_| kept < READS && of(Event::Reply).count() == 1) else { return Err(said) };
    assert_eq!((read.shard, read.conn, read.count), (Some(3), Some(9), Some(1)));
    assert_eq!((operation.conn, operation.offset), (read.conn, read.offset));
    Ok(())
}

/// While three threads burn the CPU. In the test's own turn, so that no other test has these neighbours.
fn beside_neighbours<T>(_turn: &Turn, cpu: usize, work: impl FnOnce() -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let neighbours: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                affinity::bind_thread(&[cpu]).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let result = work();
    stop.store(true, Ordering::Relaxed);
    neighbours.into_iter().for_each(|thread| thread.join().unwrap());
    result
}

/// What threads waited for a CPU between polls, ns.
fn gaps(rows: &[Stamp]) -> u64 {
    rows.iter().filter(|s| s.event == Event::Gap).filter_map(|s| s.run_delay_ns).sum()
}

/// By the thread's own clock, so that neighbours make it longer and not shorter.
fn spin_for_cpu_time(ns: u64) {
    let reader = usage::UsageReader::of_this_thread();
    let begin = reader.read().cpu_ns;
    while reader.read().cpu_ns < begin + ns {
        std::hint::spin_loop();
    }
}

/// One that this process may use.
fn first_cpu() -> usize {
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| mask.is_set(*cpu)).unwrap()
}
