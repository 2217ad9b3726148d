//! Lanes add up whatever the stamps say, and time planted in one place shows in one lane.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use common::planted::{write_planted, write_planted_with};
use common::stamps::{META, POOL, Planted, SHARD, T0, World, blank, connects, meta};
use common::{Spec, write_study};
use proptest::prelude::*;
use regauge_analysis::Evaluation;
use regauge_analysis::explain::{explain, render};
use regauge_analysis::lanes::aggregate::{At, RunTimes, arm_lanes};
use regauge_analysis::lanes::{Connection, Lane, Lanes, Request, RunInput, RunLanes, timeline_of};
use regauge_traces::stamps::{Event, Stamp};

const MS: u64 = 1_000_000;

fn mean(world: &World, step: &str, at: At) -> Lanes {
    let run = RunLanes::of(&world.input());
    let arm = arm_lanes("x", &[RunTimes::of(0, &run)], 0);
    assert_eq!(arm.largest_gap_ns, 0);
    assert_eq!(arm.disagreeing, 0);
    arm.groups.iter().find(|group| group.step == step && group.at == at).unwrap().lanes_ns.unwrap()
}

#[test]
fn what_is_planted_grows_in_its_lane_and_in_no_other() {
    let base = mean(&connects(600, 50, Planted::default(), 1), "connect", At::Tail);
    let cases = [
        (Lane::WokenPolled, Planted { woken: 10 * MS, ..Planted::default() }),
        (Lane::Runnable, Planted { runnable: 10 * MS, ..Planted::default() }),
        (Lane::OnCpu, Planted { spin: 10 * MS, ..Planted::default() }),
        (Lane::Wal, Planted { wal: 10 * MS, ..Planted::default() }),
        (Lane::Delay, Planted { delay: 10 * MS, ..Planted::default() }),
        (Lane::ThreadWait, Planted { thread_wait: 10 * MS, ..Planted::default() }),
        (Lane::OtherStorage, Planted { sleep: 10 * MS, ..Planted::default() }),
        (Lane::Queued, Planted { queued: 10 * MS, ..Planted::default() }),
    ];
    for (planted, truth) in cases {
        let world = connects(600, 50, truth, 1);
        let lanes = mean(&world, "connect", At::Tail);
        for lane in Lane::ALL {
            let grown = lanes.get(lane).saturating_sub(base.get(lane));
            match lane == planted {
                true => assert!((9 * MS..11 * MS).contains(&grown), "{lane:?} grew by {grown} ns"),
                false => assert!(grown < MS / 20, "{planted:?} was planted, and {lane:?} grew by {grown} ns"),
            }
        }
        if planted != Lane::Queued {
            let step = mean(&world, "set_last_applied", At::Tail);
            assert_eq!(step.largest(), planted, "{step:?}");
        }
    }
}

#[test]
fn little_of_a_fully_stamped_request_stays_unattributed() {
    let lanes = mean(&connects(600, 50, Planted::default(), 1), "connect", At::Median);
    // Handlers between their stamps, and openraft's own steps: no poll was kept that would explain them.
    assert!(lanes.get(Lane::Unattributed) * 4 < lanes.total(), "{lanes:?}");
}

#[test]
fn polls_explain_what_lies_between_stamps() {
    let mut world = connects(1, 1, Planted::default(), 1);
    let before = timeline_of(&world.input(), &world.requests[0]).unwrap();
    // Between the last call and openraft's answer: a wait of 4 µs, then a poll of the raft task.
    let stage = before.stages.iter().find(|stage| stage.name == "openraft answers").unwrap();
    assert_eq!(stage.lanes.get(Lane::Unattributed), stage.to_ns - stage.from_ns);
    let mut poll = blank(Event::Poll, "raft", META);
    (poll.woken_ns, poll.started_ns) = (Some(stage.from_ns), Some(stage.from_ns + 4_000));
    (poll.finished_ns, poll.cpu_ns, poll.run_delay_ns) = (Some(stage.to_ns), None, None);
    world.stamps.push(poll);
    let after = timeline_of(&world.input(), &world.requests[0]).unwrap();
    let stage = after.stages.iter().find(|stage| stage.name == "openraft answers").unwrap();
    assert_eq!(stage.lanes.get(Lane::WokenPolled), 4_000);
    assert_eq!(stage.lanes.get(Lane::OnCpu), stage.to_ns - stage.from_ns - 4_000);
    assert_eq!(after.lanes.total(), after.latency_ns);
}

#[test]
fn a_poll_is_charged_only_beside_the_calls_made_in_it() {
    // One thread for all: an inline call of 8 ms blocks it while the packet of another request lies in the socket.
    let mut world = connects(2, 2, Planted::default(), 1);
    let sent = T0 + world.requests[1].sent_ns.unwrap();
    let delay = 9 * MS;
    for stamp in world.stamps.iter_mut().filter(|s| s.conn == Some(1) || s.proposal == Some(1) || s.first == Some(2)) {
        for time in [
            &mut stamp.woken_ns,
            &mut stamp.queued_ns,
            &mut stamp.started_ns,
            &mut stamp.finished_ns,
            &mut stamp.resumed_ns,
            &mut stamp.sent_ns,
            &mut stamp.received_ns,
            &mut stamp.proposed_ns,
            &mut stamp.committed_ns,
            &mut stamp.answered_ns,
            &mut stamp.returned_ns,
        ] {
            *time = time.map(|ns| ns + delay);
        }
    }
    *world.requests[1].latency_ns.as_mut().unwrap() += delay;
    let mut poll = blank(Event::Poll, "effect", SHARD);
    (poll.started_ns, poll.finished_ns) = (Some(sent), Some(sent + 9 * MS));
    (poll.cpu_ns, poll.run_delay_ns) = (Some(MS), Some(0));
    let mut call = blank(Event::Call, "other", SHARD);
    (call.started_ns, call.finished_ns) = (Some(sent + MS), Some(sent + 9 * MS));
    (call.cpu_ns, call.run_delay_ns, call.wal_ns) = (Some(0), Some(0), Some(8 * MS));
    world.stamps.extend([poll, call]);
    let timeline = timeline_of(&world.input(), &world.requests[1]).unwrap();
    let way = timeline.stages.iter().find(|stage| stage.name == "request on its way").unwrap();
    assert_eq!(way.lanes.get(Lane::Wal), 8 * MS, "{way:?}");
    assert_eq!(way.lanes.get(Lane::OnCpu), MS);
    // Of several workers that steal, the others' work explains nothing: the packet lay in a socket that nobody polled.
    world.meta.threads.push((SHARD + 1, "worker-1".into(), "broker".into()));
    let timeline = timeline_of(&world.on("tokio-shared"), &world.requests[1]).unwrap();
    let way = timeline.stages.iter().find(|stage| stage.name == "request on its way").unwrap();
    assert_eq!(way.lanes.get(Lane::Wal), 0);
}

#[test]
fn calls_behind_others_are_queued() {
    let world = connects(3, 3, Planted { queued: 5 * MS, ..Planted::default() }, 1);
    let timeline = timeline_of(&world.input(), &world.requests[2]).unwrap();
    let stage = timeline.stages.iter().find(|stage| stage.name == "in the batcher").unwrap();
    assert_eq!(stage.lanes.get(Lane::Queued), stage.to_ns - stage.from_ns);
    assert!(timeline.session_ns.unwrap() > 4 * MS && timeline.server_ns.unwrap() > timeline.session_ns.unwrap());
}

#[test]
fn a_port_used_again_belongs_to_its_new_connection() {
    let mut world = connects(40, 40, Planted::default(), 1);
    for stamp in &mut world.stamps {
        stamp.port = stamp.port.map(|_| 40_000);
    }
    world.connections.iter_mut().for_each(|connection| connection.port = 40_000);
    let run = RunLanes::of(&world.input());
    assert!(run.requests.iter().all(|request| request.conn == Some(request.op_id)));
}

/// Three packets of 60 bytes on one connection, each read and answered for itself.
fn three_pings() -> World {
    let mut world = connects(3, 3, Planted::default(), 1);
    world.stamps.retain(|stamp| matches!(stamp.event, Event::Read | Event::Reply));
    for stamp in &mut world.stamps {
        let bytes = u64::from(stamp.count.unwrap());
        stamp.offset = Some(bytes * (stamp.conn.unwrap() + 1));
        (stamp.conn, stamp.port, stamp.op) = (Some(0), Some(40_000), None);
    }
    for (request, nth) in world.requests.iter_mut().zip(1..) {
        (request.step, request.connection) = ("ping".into(), Some(0));
        (request.sent_offset, request.reply_offset) = (Some(60 * nth), Some(9 * nth));
    }
    world.connections.truncate(1);
    world
}

#[test]
fn a_row_that_was_left_out_is_not_replaced_by_anothers() {
    let whole = three_pings();
    for lost in [Event::Read, Event::Reply] {
        let mut world = whole.clone();
        let middle = if lost == Event::Read { 120 } else { 18 };
        world.stamps.retain(|stamp| stamp.event != lost || stamp.offset != Some(middle));
        world.meta.thinned = 1;
        let run = RunLanes::of(&world.input());
        let found: Vec<bool> = run.requests.iter().map(|request| request.lanes.is_some()).collect();
        assert_eq!(found, [true, false, true], "{lost:?}: a request without all of its rows is one without stamps");
        let (before, after) = (RunLanes::of(&whole.input()), run);
        assert_eq!((&before.requests[0], &before.requests[2]), (&after.requests[0], &after.requests[2]));
    }
}

#[test]
fn a_connect_whose_proposal_was_left_out_has_no_lanes() {
    let whole = connects(3, 3, Planted::default(), 1);
    let missing: [fn(&Stamp) -> bool; 3] = [
        |stamp| stamp.event == Event::Proposal && stamp.proposal == Some(1),
        |stamp| stamp.event == Event::Op && stamp.op == Some(1),
        |stamp| stamp.event == Event::Call && stamp.first == Some(2),
    ];
    for gone in missing {
        let mut world = whole.clone();
        world.stamps.retain(|stamp| !gone(stamp));
        let lanes = |world: &World| -> Vec<bool> {
            RunLanes::of(&world.input()).requests.iter().map(|request| request.lanes.is_some()).collect()
        };
        assert_eq!(lanes(&world), [true; 3], "nothing was left out, so it did not happen");
        world.meta.dropped = 1;
        assert_eq!(lanes(&world), [true, false, true]);
    }
    // The batcher's own two moments: without them its time would be the network's.
    for lost in [|stamp: &mut Stamp| stamp.sent_ns = None, |stamp: &mut Stamp| stamp.returned_ns = None] {
        let mut world = whole.clone();
        let proposals = world.stamps.iter_mut().filter(|stamp| stamp.event == Event::Proposal);
        proposals.filter(|stamp| stamp.proposal == Some(1)).for_each(lost);
        world.meta.thinned = 1;
        let found: Vec<bool> =
            RunLanes::of(&world.input()).requests.iter().map(|request| request.lanes.is_some()).collect();
        assert_eq!(found, [true, false, true]);
    }
}

#[test]
fn a_slow_call_that_nobody_looked_at_is_not_put_down_to_the_disk() {
    let applied = |event: Event| {
        let mut world = connects(1, 1, Planted { runnable: 10 * MS, ..Planted::default() }, 1);
        for call in world.stamps.iter_mut().filter(|stamp| stamp.event == event) {
            (call.cpu_ns, call.run_delay_ns, call.wal_ns) = (None, None, None);
            (call.memtable_ns, call.delay_ns, call.thread_wait_ns) = (None, None, None);
        }
        RunLanes::of(&world.input()).steps.pop().unwrap()
    };
    assert_eq!(applied(Event::Gap).lanes.largest(), Lane::Runnable);
    let unread = applied(Event::Call).lanes;
    assert_eq!(unread.get(Lane::OtherStorage), 0, "{unread:?}");
    assert!(unread.get(Lane::Unattributed) > 9 * MS, "{unread:?}");
}

#[test]
fn a_pool_thread_that_is_preempted_before_it_wakes_the_task_is_ready_to_run() {
    let mut world = connects(1, 1, Planted::default(), 1);
    let pool = SHARD + 7;
    let call = world.stamps.iter_mut().find(|stamp| stamp.event == Event::Call && stamp.name == "set_last_applied");
    let call = call.unwrap();
    (call.thread, call.woken_ns) = (pool, call.finished_ns.map(|ns| ns + 50_000));
    call.resumed_ns = call.woken_ns;
    let mut gap = blank(Event::Gap, "", pool);
    (gap.started_ns, gap.finished_ns, gap.run_delay_ns) = (call.finished_ns, call.woken_ns, Some(45_000));
    world.stamps.push(gap);
    let step = RunLanes::of(&world.input()).steps.pop().unwrap();
    assert_eq!((step.lanes.get(Lane::Runnable), step.lanes.get(Lane::Unattributed)), (45_000, 5_000), "{step:?}");
}

#[test]
fn a_tail_of_which_too_much_is_unseen_has_no_mean() {
    let tail_of = |lost: u64| {
        let mut world = connects(600, 100, Planted { wal: 10 * MS, ..Planted::default() }, 1);
        // The six with a planted wait are the slowest; the rows of some of them were left out.
        let is_lost = |stamp: &Stamp| stamp.conn.is_some_and(|conn| conn % 100 == 99 && conn / 100 < lost);
        world.stamps.retain(|stamp| !is_lost(stamp));
        let run = RunLanes::of(&world.input());
        let arm = arm_lanes("x", &[RunTimes::of(0, &run)], 0);
        let tail = arm.groups.iter().find(|group| group.step == "connect" && group.at == At::Tail).unwrap().clone();
        (tail, arm.lacking(None))
    };
    let (whole, nothing) = tail_of(0);
    assert!(whole.lanes_ns.is_some() && nothing.is_none(), "{whole:?}");
    let (tail, lacking) = tail_of(1);
    assert_eq!((tail.without_stamps, tail.lanes_ns, tail.latency_ns), (1, None, None));
    assert!(tail.refused.unwrap().contains("more than a tenth"));
    assert!(lacking.unwrap().contains("connect P99 and above"));
}

#[test]
fn what_is_left_of_thinned_calls_has_no_mean_and_no_attribution() {
    let planted = Planted { wal: 10 * MS, ..Planted::default() };
    let of_calls = |left_out: u64| {
        let dir = tempfile::tempdir().unwrap();
        write_planted_with(dir.path(), 2, planted, &["no-wal"], &[], |meta| {
            (meta.thinned, meta.calls_left_out) = (left_out, left_out);
        });
        let lanes = Evaluation::of(dir.path()).unwrap().analysis.lanes;
        let groups: Vec<_> = lanes.into_iter().flat_map(|arm| arm.groups).collect();
        let has_means = |step: &str| groups.iter().filter(|group| group.step == step).all(|g| g.lanes_ns.is_some());
        (has_means("connect"), has_means("set_last_applied"))
    };
    assert_eq!((of_calls(0), of_calls(3)), ((true, true), (true, false)));
}

#[test]
fn readings_after_a_call_are_nobodys_wait() {
    let mut world = connects(1, 1, Planted { woken: 3_000, ..Planted::default() }, 1);
    let applied = |world: &World| RunLanes::of(&world.input()).steps.pop().unwrap().lanes;
    let offloaded = applied(&world);
    assert!(offloaded.get(Lane::WokenPolled) > 2_000, "{offloaded:?}");
    // The same call, made by the task itself: whatever lies between its end and going on, nobody was woken.
    world.stamps.iter_mut().filter(|stamp| stamp.event == Event::Call).for_each(|call| call.woken_ns = None);
    let inline = applied(&world);
    assert_eq!(inline.get(Lane::WokenPolled), 0);
    assert_eq!(inline.total(), offloaded.total());
    assert!(inline.get(Lane::Unattributed) >= offloaded.get(Lane::WokenPolled), "{inline:?}");
    let connect = timeline_of(&world.input(), &world.requests[0]).unwrap();
    assert!(connect.stages.iter().any(|stage| stage.name == "taking the result"));
}

#[test]
fn a_pool_threads_wait_for_a_cpu_is_no_queue() {
    let mut world = connects(1, 1, Planted::default(), 1);
    let pool = SHARD + 7;
    let (index, queued) = {
        let call = |stamp: &Stamp| stamp.event == Event::Call && stamp.name == "set_last_applied";
        let index = world.stamps.iter().position(call).unwrap();
        (index, world.stamps[index].queued_ns.unwrap())
    };
    // The pool's thread was ready 3 µs after the hand-off, and got a CPU 40 µs later.
    let call = &mut world.stamps[index];
    call.thread = pool;
    for time in [&mut call.started_ns, &mut call.finished_ns, &mut call.woken_ns, &mut call.resumed_ns] {
        *time = time.map(|ns| ns + 43_000);
    }
    let mut gap = blank(Event::Gap, "", pool);
    (gap.started_ns, gap.finished_ns, gap.run_delay_ns) = (Some(queued + 3_000), call.started_ns, Some(40_000));
    world.stamps.push(gap);
    let step = RunLanes::of(&world.input()).steps.pop().unwrap();
    assert_eq!((step.lanes.get(Lane::Runnable), step.lanes.get(Lane::Queued)), (40_000, 3_000), "{step:?}");
}

#[test]
fn a_publish_waits_for_its_append_and_sync() {
    let at = |us: u64| Some(T0 + us * 1_000);
    let mut read = blank(Event::Read, "", SHARD);
    (read.conn, read.port, read.offset, read.shard) = (Some(7), Some(40_000), Some(200), Some(0));
    (read.woken_ns, read.started_ns, read.resumed_ns) = (at(50), at(60), at(65));
    let mut append = blank(Event::Op, "append", SHARD);
    (append.shard, append.op, append.conn, append.offset) = (Some(0), Some(1), Some(7), Some(200));
    (append.queued_ns, append.started_ns, append.finished_ns) = (at(70), at(90), at(120));
    (append.worker, append.cpu_ns, append.run_delay_ns) = (Some(POOL), Some(10_000), Some(5_000));
    (append.woken_ns, append.resumed_ns) = (at(125), at(130));
    // Another partition's append, to which the sync does not belong.
    let other = Stamp { op: Some(2), resumed_ns: at(500), ..append };
    let mut sync = blank(Event::Op, "sync", SHARD);
    (sync.shard, sync.op, sync.after) = (Some(0), Some(3), Some(1));
    (sync.queued_ns, sync.woken_ns, sync.resumed_ns) = (at(130), at(430), at(440));
    let mut reply = blank(Event::Reply, "", SHARD);
    (reply.conn, reply.port, reply.offset, reply.shard, reply.op) = (Some(7), Some(40_000), Some(4), Some(0), Some(3));
    (reply.queued_ns, reply.finished_ns) = (at(445), at(460));
    let world = World {
        requests: vec![Request {
            op_id: 1,
            step: "publish".into(),
            flags: 0,
            planned_ns: 0,
            sent_ns: Some(10_000),
            latency_ns: Some(500_000),
            connection: Some(0),
            sent_offset: Some(180),
            reply_offset: Some(4),
        }],
        connections: vec![Connection { connection: 0, port: 40_000, opened_ns: 0 }],
        stamps: vec![read, append, other, sync, reply],
        meta: meta(),
    };
    let timeline = timeline_of(&world.input(), &world.requests[0]).unwrap();
    let lanes = timeline.lanes;
    assert_eq!(lanes.total(), 500_000);
    assert_eq!(lanes.get(Lane::DriverLag), 10_000);
    assert_eq!(lanes.get(Lane::OtherStorage), 15_000 + 300_000, "the append, and the sync from submission to wake");
    assert_eq!(
        (lanes.get(Lane::OnCpu), lanes.get(Lane::Runnable)),
        (10_000 + 15_000, 5_000),
        "in the append, and in the polls"
    );
    assert_eq!(lanes.get(Lane::Queued), 20_000, "the append waited for a thread");
    assert_eq!(lanes.get(Lane::WokenPolled), 10_000 + 5_000 + 10_000);
    assert_eq!(timeline.disagreement_ns, 0);
}

#[test]
fn contradictions_are_counted_and_nothing_breaks() {
    let mut world = connects(10, 10, Planted::default(), 1);
    // The gRPC answer comes before the question: a clock that jumped by 3 ms.
    for stamp in world.stamps.iter_mut().filter(|stamp| stamp.proposal == Some(4) && stamp.event == Event::Proposal) {
        stamp.committed_ns = stamp.committed_ns.map(|ns| ns - 3 * MS);
    }
    let run = RunLanes::of(&world.input());
    let disagreeing: Vec<u64> =
        run.requests.iter().filter(|request| request.disagreement_ns > 0).map(|request| request.op_id).collect();
    assert_eq!(disagreeing, [4]);
    assert!((2 * MS..4 * MS).contains(&run.requests[4].disagreement_ns));
    assert!(run.requests.iter().all(|request| request.lanes.unwrap().total() == request.latency_ns));
}

#[test]
fn a_timeline_is_drawn_in_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    write_planted(dir.path(), 1, Planted { thread_wait: 10 * MS, ..Planted::default() }, &[], &[]);
    let explained = explain(dir.path(), &"slowest:own-db:connect".parse().unwrap()).unwrap();
    assert_eq!((explained.arm.as_str(), explained.op_id % 50), ("own-db", 49));
    let text = render(&explained);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let row = text.lines().find(|line| line.contains(" set_last_applied ")).unwrap();
    assert!(row.contains("meta") && row.contains("thread wait") && row.contains("██████"), "{row}");
    // The same request by its name, as JSON.
    let name = format!("0/own-db/{}", explained.op_id);
    let again = serde_json::to_value(explain(dir.path(), &name.parse().unwrap()).unwrap()).unwrap();
    assert_eq!(again["latency_ns"], explained.latency_ns);
    let lengths: u64 =
        again["stages"].as_array().unwrap().iter().map(|stage| stage["length_ns"].as_u64().unwrap()).sum();
    assert_eq!(lengths, explained.latency_ns);
    for (wrong, says) in
        [("0/nobody/1", "choose one of as-deployed"), ("7/quiet/1", "block 0"), ("0/quiet/99999", "has no request")]
    {
        let error = explain(dir.path(), &wrong.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn too_few_requests_have_no_mean() {
    let run = RunLanes::of(&connects(100, 50, Planted::default(), 1).input());
    let arm = arm_lanes("x", &[RunTimes::of(0, &run)], 1);
    let tail = arm.groups.iter().find(|group| group.step == "connect" && group.at == At::Tail).unwrap();
    assert_eq!((tail.requests, tail.lanes_ns), (2, None));
    assert_eq!((arm.runs, arm.runs_without_stamps), (1, 1));
}

#[test]
fn a_round_trip_to_the_client_is_no_cpu_time() {
    // QoS 2: between the PUBLISH and the PUBCOMP the client is asked again; no operation and no poll explains it.
    let mut world = connects(1, 1, Planted::default(), 1);
    world.stamps.retain(|stamp| matches!(stamp.event, Event::Read | Event::Reply));
    world.stamps.iter_mut().for_each(|stamp| stamp.op = None);
    world.requests[0].step = "publish".into();
    let timeline = timeline_of(&world.input(), &world.requests[0]).unwrap();
    let stage = timeline.stages.iter().find(|stage| stage.name == "making the reply").unwrap();
    assert_eq!(stage.lanes.get(Lane::Unattributed), stage.to_ns - stage.from_ns);
}

#[test]
fn studies_without_stamps_say_so_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    write_study(dir.path(), &Spec::small());
    let evaluation = Evaluation::of(dir.path()).unwrap();
    assert!(evaluation.analysis.lanes.is_empty());
    assert_eq!(evaluation.analysis.lanes_missing, ["11 runs have no lanes: run without stamps."]);
    assert!(evaluation.write_report().is_ok());
    let error = explain(dir.path(), &"slowest".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("run without stamps"), "{error}");
}

#[test]
fn a_broken_file_of_stamps_is_an_error_and_no_run_without() {
    let dir = tempfile::tempdir().unwrap();
    write_planted(dir.path(), 1, Planted::default(), &[], &[]);
    assert!(Evaluation::of(dir.path()).is_ok());
    let run = regauge_traces::study::run_dir(dir.path(), 0, "quiet");
    std::fs::write(run.join("stamps.parquet"), b"PAR1 no PAR1").unwrap();
    let error = Evaluation::of(dir.path()).unwrap_err().to_string();
    assert!(error.contains("arm=quiet/stamps.parquet does not hold stamps"), "{error}");
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    const EVENTS: [Event; 7] =
        [Event::Read, Event::Reply, Event::Op, Event::Poll, Event::Gap, Event::Call, Event::Proposal];
    const NAMES: [&str; 10] = [
        "meta",
        "append",
        "sync",
        "raft_append",
        "set_last_applied",
        "route",
        "raft",
        "write",
        "batcher",
        "rpc_server",
    ];
    let time = || prop::option::weighted(0.8, prop_oneof![9 => T0..T0 + 2_000, 1 => any::<u64>()]);
    let small = || prop::option::weighted(0.8, 0_u64..4);
    let length = || prop::option::of(prop_oneof![9 => 0_u64..2_000, 1 => any::<u64>()]);
    let what = (0..EVENTS.len(), 0..NAMES.len(), 0_u32..3);
    let ids = prop::array::uniform6(small());
    let times = prop::array::uniform11(time());
    let lengths = prop::array::uniform6(length());
    (what, ids, times, lengths).prop_map(|((event, name, thread), ids, times, lengths)| {
        let mut stamp = blank(EVENTS[event], NAMES[name], thread);
        [stamp.conn, stamp.offset, stamp.op, stamp.after, stamp.proposal, stamp.first] = ids;
        (stamp.port, stamp.shard, stamp.count) = (Some(1), Some(0), Some(2));
        [
            stamp.woken_ns,
            stamp.queued_ns,
            stamp.started_ns,
            stamp.finished_ns,
            stamp.resumed_ns,
            stamp.sent_ns,
            stamp.received_ns,
            stamp.proposed_ns,
            stamp.committed_ns,
            stamp.answered_ns,
            stamp.returned_ns,
        ] = times;
        [stamp.cpu_ns, stamp.run_delay_ns, stamp.wal_ns, stamp.memtable_ns, stamp.delay_ns, stamp.thread_wait_ns] =
            lengths;
        stamp
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn lanes_add_up_for_any_stamps(
        stamps in prop::collection::vec(any_stamp(), 0..40),
        kinds in prop::collection::vec((0_usize..3, 0_u64..1_000, prop::option::of(0_u64..3_000), 0_u64..3_000), 1..8),
        shared in any::<bool>(),
    ) {
        let requests: Vec<Request> = kinds.into_iter().zip(0..).map(|((kind, planned_ns, sent_ns, latency), op_id)| Request {
            op_id,
            step: ["connect", "publish", "raft_proposal"][kind].into(),
            flags: 0,
            planned_ns,
            sent_ns,
            latency_ns: Some(latency),
            connection: Some(0),
            sent_offset: Some(op_id % 3),
            reply_offset: Some(op_id % 3),
        }).collect();
        let connections = [Connection { connection: 0, port: 1, opened_ns: 0 }];
        let meta = meta();
        let input = RunInput {
            stack: if shared { "tokio-shared" } else { "monoio" },
            t0_ns: T0, requests: &requests, connections: &connections, stamps: &stamps, meta: &meta,
        };
        let run = RunLanes::of(&input);
        for request in &run.requests {
            if let Some(lanes) = request.lanes {
                prop_assert_eq!(lanes.total(), request.latency_ns);
            }
        }
        for step in &run.steps {
            prop_assert_eq!(step.lanes.total(), step.total_ns);
        }
        for (request, timed) in requests.iter().zip(&run.requests) {
            if let Some(timeline) = timeline_of(&input, request) {
                prop_assert_eq!(Some(timeline.lanes), timed.lanes);
                let mut at = timeline.planned_ns;
                for stage in &timeline.stages {
                    prop_assert_eq!(stage.from_ns, at);
                    at = stage.to_ns;
                    prop_assert_eq!(stage.lanes.total(), stage.to_ns - stage.from_ns);
                }
                prop_assert_eq!(at, timeline.planned_ns + timeline.latency_ns);
            }
        }
    }
}
