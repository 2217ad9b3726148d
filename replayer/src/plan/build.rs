//! How a plan is built: order the roots, group them into connections, deal out packet ids, build the packets.

use super::names::{Names, base36};
use super::proposal;
use super::{Connection, Op, PROPOSAL_CHANNELS, Plan, PlanError, PlanOptions, Reply};
use crate::packet::{self, PACKET_BYTES_MAX, Packet};
use bytes::BytesMut;
use regauge_traces::{Kind, Span, flags};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Stands for a topic or filter that the trace does not tell (an alias whose topic was not seen).
const UNTOLD: &str = "untold";

/// What makes roots belong to one network connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key<'a> {
    /// Seen on the wire.
    Wire(u32),
    /// Recorded inside the broker, where only the session is known.
    Session(Option<u64>),
    /// Appends without a session: one connection per partition.
    Partition(&'a str),
}

/// A root and the place that it got.
struct Placed<'a> {
    span: &'a Span,
    planned_ns: u64,
    connection: u32,
    /// Ordinal.
    session: u32,
    /// Not in the trace: a CONNECT made for this span's connection.
    setup: bool,
    packet_id: u16,
}

/// A connection while it is being gathered.
struct Gathering {
    plan: Connection,
    start_ns: u64,
    end_ns: Option<u64>,
}

pub(super) fn build(spans: &[Span], options: &PlanOptions) -> Result<Plan, PlanError> {
    if !(options.speed.is_finite() && options.speed > 0.0) {
        return Err(PlanError::Speed(options.speed));
    }
    let roots = roots(spans)?;
    let (mut placed, mut connections, sessions, skipped) = place(&roots, options.speed);
    if placed.len() > 1 << 31 {
        return Err(PlanError::TooMany(placed.len()));
    }
    deal_packet_ids(&mut placed, &mut connections, sessions);
    chain_sessions(&mut connections);
    let connections: Vec<Connection> = connections.into_iter().map(|gathering| gathering.plan).collect();
    let mut proposed = 0;
    for placed in placed.iter_mut().filter(|placed| placed.is_proposal()) {
        placed.connection = connections.len() as u32 + proposed % PROPOSAL_CHANNELS;
        proposed += 1;
    }

    let names = names(&roots);
    let mut heads = Vec::new();
    let mut proposals = BytesMut::new();
    let mut requests = 0;
    let mut ops = Vec::with_capacity(placed.len());
    let mut resized = 0;
    let mut digest = Sha256::new();
    digest.update(b"regauge plan 1");
    for placed in &placed {
        let kind = if placed.setup { Kind::Connect } else { placed.span.kind };
        digest.update(placed.planned_ns.to_le_bytes());
        if placed.is_proposal() {
            let op = propose(placed, requests, &mut proposals, &mut resized, &mut digest);
            ops.push(op);
            requests += 1;
            continue;
        }
        let connection = &connections[placed.connection as usize];
        // Not the span's id: the same workload has the same bytes whoever numbered its spans.
        let packet = packet_of(placed, connection, &names, requests);
        requests += u64::from(!placed.setup);
        resized += u64::from(packet.resized && !placed.setup);
        digest.update(placed.connection.to_le_bytes());
        digest.update(kind.name());
        digest.update((packet.head.len() as u64).to_le_bytes());
        digest.update(&packet.head);
        digest.update(packet.fill_bytes.to_le_bytes());
        ops.push(Op {
            id: if placed.setup { 0 } else { placed.span.id },
            planned_ns: placed.planned_ns,
            connection: placed.connection,
            session: placed.session,
            kind,
            reply: reply_of(kind, placed.span.qos),
            packet_id: placed.packet_id,
            refused: !placed.setup && is_refusal(kind, placed.span.has(flags::V5), placed.span.status),
            optional: !placed.setup && placed.span.has(flags::UNFINISHED),
            setup: placed.setup,
            head_at: heads.len(),
            head_bytes: packet.head.len() as u32,
            fill_bytes: packet.fill_bytes,
            calls: 0,
        });
        heads.extend_from_slice(&packet.head);
    }
    let setup = ops.iter().filter(|op| op.setup).count() as u64;
    Ok(Plan {
        ops,
        connections,
        sessions,
        resized,
        setup,
        channels: if proposed > 0 { PROPOSAL_CHANNELS } else { 0 },
        skipped,
        heads,
        proposals: proposals.freeze(),
        hash: digest.finalize().into(),
    })
}

impl Placed<'_> {
    fn is_proposal(&self) -> bool {
        self.span.kind == Kind::RaftProposal
    }
}

/// Makes a proposal's request, which is number `ordinal` of the workload, and appends its message.
fn propose(placed: &Placed<'_>, ordinal: u64, messages: &mut BytesMut, resized: &mut u64, digest: &mut Sha256) -> Op {
    // One session's proposals open the same sessions again; without one, all are new.
    let name = match placed.span.session {
        Some(_) => base36(placed.session as usize),
        None => format!("-{}", base36(ordinal as usize)),
    };
    let made = proposal::proposal(placed.span, &name);
    *resized += u64::from(made.resized);
    digest.update(placed.connection.to_le_bytes());
    digest.update(placed.span.kind.name());
    digest.update((made.calls.len() as u64).to_le_bytes());
    digest.update(&made.calls);
    let head_at = messages.len();
    messages.extend_from_slice(&made.message);
    Op {
        id: placed.span.id,
        planned_ns: placed.planned_ns,
        connection: placed.connection,
        session: placed.session,
        kind: placed.span.kind,
        reply: Reply::Status,
        packet_id: 0,
        refused: false,
        optional: placed.span.has(flags::UNFINISHED),
        setup: false,
        head_at,
        head_bytes: made.message.len() as u32,
        fill_bytes: 0,
        calls: placed.span.count,
    }
}

/// Whether a status refuses what was asked. MQTT 3.1.1 refuses a CONNECT with 1 to 5 and a filter with 0x80.
pub(crate) fn is_refusal(kind: Kind, v5: bool, status: u8) -> bool {
    if kind == Kind::Connect && !v5 { status != 0 } else { status >= 0x80 }
}

fn reply_of(kind: Kind, qos: u8) -> Reply {
    match (kind, qos) {
        (Kind::Connect, _) => Reply::Connack,
        (Kind::Publish, 1) | (Kind::SegmentAppend, _) => Reply::Puback,
        (Kind::Publish, 2..) => Reply::Pubcomp,
        (Kind::Subscribe, _) => Reply::Suback,
        (Kind::Unsubscribe, _) => Reply::Unsuback,
        (Kind::Ping, _) => Reply::Pingresp,
        _ => Reply::None,
    }
}

/// The roots in the order of arrival. Packets that arrived in one read share their time: CONNECT is then the first and
/// the end of the connection the last of them.
fn roots(spans: &[Span]) -> Result<Vec<&Span>, PlanError> {
    let mut roots: Vec<&Span> = spans.iter().filter(|span| span.is_root()).collect();
    let mut not_yet = BTreeMap::new();
    for span in &roots {
        if span.kind == Kind::SegmentRead {
            *not_yet.entry(span.kind.name()).or_insert(0_u64) += 1;
        }
        if span.kind == Kind::RaftProposal {
            proposal::check(span)?;
        } else if span.bytes > PACKET_BYTES_MAX {
            return Err(PlanError::TooLong { id: span.id, bytes: span.bytes });
        }
        if span.kind == Kind::Subscribe
            && let Some(options) = filters(span).iter().find_map(|(_, options)| options.err())
        {
            return Err(PlanError::Options { id: span.id, options: options.to_owned() });
        }
    }
    if !not_yet.is_empty() {
        let kinds: Vec<String> = not_yet.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        return Err(PlanError::NotYet(kinds.join(", ")));
    }
    if roots.is_empty() {
        return Err(PlanError::Empty);
    }
    let rank = |kind| match kind {
        Kind::Connect => 0,
        Kind::Disconnect => 2,
        Kind::Close => 3,
        _ => 1,
    };
    roots.sort_by_key(|span| (span.start_ns, rank(span.kind), span.id));
    Ok(roots)
}

fn key(span: &Span) -> Key<'_> {
    match (span.connection, span.kind, span.session, &span.target) {
        (Some(connection), ..) => Key::Wire(connection),
        (None, Kind::SegmentAppend, None, Some(partition)) => Key::Partition(partition),
        (None, _, session, _) => Key::Session(session),
    }
}

/// Gives every root its connection and its planned time.
fn place<'a>(roots: &[&'a Span], speed: f64) -> (Vec<Placed<'a>>, Vec<Gathering>, u32, u64) {
    let origin_ns = roots.first().map_or(0, |span| span.start_ns);
    let mut current: HashMap<Key<'_>, u32> = HashMap::new();
    let mut sessions: HashMap<u64, u32> = HashMap::new();
    let mut session_count = 0;
    let mut connections: Vec<Gathering> = Vec::new();
    let mut placed = Vec::with_capacity(roots.len());
    let mut skipped = 0;
    let mut nobody = None;
    for &span in roots {
        let elapsed_ns = span.start_ns - origin_ns;
        // Exact at the recorded speed; else rounded to the nearest ns, which keeps the order.
        let planned_ns = if speed == 1.0 { elapsed_ns } else { (elapsed_ns as f64 / speed).round() as u64 };
        if span.kind == Kind::RaftProposal {
            let session = match span.session {
                // Those of no session are asked by one, so that their replies have one order.
                None => *nobody.get_or_insert_with(|| take(&mut session_count)),
                Some(hash) => *sessions.entry(hash).or_insert_with(|| take(&mut session_count)),
            };
            placed.push(Placed { span, planned_ns, connection: 0, session, setup: false, packet_id: 0 });
            continue;
        }
        let key = key(span);
        let known = current.get(&key).copied();
        let ended = known.is_some_and(|index| connections[index as usize].end_ns.is_some());
        // A second CONNECT opens another connection, unless the wire says that it is the same one.
        let reconnects = span.kind == Kind::Connect && !matches!(key, Key::Wire(_));
        let index = match known {
            Some(index) if !reconnects => {
                if ended || span.kind == Kind::Connect {
                    // A close after a DISCONNECT says nothing new; anything else was sent to no one.
                    skipped += u64::from(span.kind != Kind::Close);
                    continue;
                }
                index
            }
            _ => {
                let session = span.session.and_then(|session| sessions.get(&session).copied());
                let session = session.unwrap_or_else(|| take(&mut session_count));
                if let Some(hash) = span.session {
                    sessions.insert(hash, session);
                }
                let index = connections.len() as u32;
                let plan = Connection { session, v5: span.has(flags::V5), ..Connection::default() };
                connections.push(Gathering { plan, start_ns: planned_ns, end_ns: None });
                current.insert(key, index);
                if span.kind != Kind::Connect {
                    connections[index as usize].plan.ops.push(placed.len() as u32);
                    placed.push(Placed { span, planned_ns, connection: index, session, setup: true, packet_id: 0 });
                }
                index
            }
        };
        let connection = &mut connections[index as usize];
        let op = placed.len() as u32;
        connection.plan.ops.push(op);
        match reply_of(span.kind, span.qos) {
            Reply::Puback | Reply::Pubcomp | Reply::Suback | Reply::Unsuback => connection.plan.id_ops.push(op),
            Reply::Pingresp => connection.plan.pings.push(op),
            Reply::Connack | Reply::Status | Reply::None => {}
        }
        if matches!(span.kind, Kind::Disconnect | Kind::Close) {
            connection.end_ns = Some(planned_ns);
        }
        let session = connection.plan.session;
        placed.push(Placed { span, planned_ns, connection: index, session, setup: false, packet_id: 0 });
    }
    (placed, connections, session_count, skipped)
}

/// The next ordinal.
fn take(count: &mut u32) -> u32 {
    *count += 1;
    *count - 1
}

/// Packet ids run on through all connections of a session: a QoS 2 handshake that an earlier connection left open keeps
/// its id taken.
fn deal_packet_ids(placed: &mut [Placed<'_>], connections: &mut [Gathering], sessions: u32) {
    let mut next = vec![1_u16; sessions as usize];
    for Gathering { plan, .. } in connections {
        let next = &mut next[plan.session as usize];
        plan.first_packet_id = *next;
        for &op in &plan.id_ops {
            placed[op as usize].packet_id = *next;
            *next = next.checked_add(1).unwrap_or(1);
        }
    }
}

/// Ties each connection to the one before it in its session, if that one had ended by then.
fn chain_sessions(connections: &mut [Gathering]) {
    let mut latest: HashMap<u32, usize> = HashMap::new();
    for index in 0..connections.len() {
        let (session, start_ns) = (connections[index].plan.session, connections[index].start_ns);
        if let Some(previous) = latest.insert(session, index)
            && connections[previous].end_ns.is_some_and(|end_ns| end_ns <= start_ns)
        {
            connections[index].plan.after = Some(previous as u32);
        }
    }
}

/// The filters of a SUBSCRIBE or UNSUBSCRIBE with their option bytes: `filter@options` or `filter`, joined by commas.
/// Without options the span's QoS is asked for; options that are no number stand as they are.
fn filters(span: &Span) -> Vec<(&str, Result<u8, &str>)> {
    let list = span.target.as_deref().unwrap_or(UNTOLD);
    list.split(',')
        .map(|item| match item.rsplit_once('@') {
            Some((filter, options)) => (filter, options.parse().map_err(|_| options)),
            None => (item, Ok(span.qos)),
        })
        .collect()
}

/// The names of all topics and filters, with the widths that the lengths of subscriptions ask for.
fn names(roots: &[&Span]) -> Names {
    let mut names = Names::default();
    for span in roots {
        match span.kind {
            Kind::Subscribe | Kind::Unsubscribe => filters(span).iter().for_each(|(filter, _)| names.meet(filter)),
            Kind::Publish | Kind::SegmentAppend => names.meet(span.target.as_deref().unwrap_or(UNTOLD)),
            Kind::Connect if span.has(flags::WILL) => names.meet(span.target.as_deref().unwrap_or(UNTOLD)),
            _ => {}
        }
    }
    for span in roots {
        let option_bytes = match span.kind {
            Kind::Subscribe => 1,
            Kind::Unsubscribe => 0,
            _ => continue,
        };
        let filters = filters(span);
        let v5 = span.has(flags::V5);
        if let Some(characters) = packet::filter_characters(filters.len(), option_bytes, v5, span.bytes) {
            names.learn(filters.iter().map(|(filter, _)| *filter), characters);
        }
    }
    names.settle();
    names
}

fn packet_of(placed: &Placed<'_>, connection: &Connection, names: &Names, tag: u64) -> Packet {
    let Placed { span, packet_id, .. } = *placed;
    let client_id = base36(connection.session as usize);
    if placed.setup {
        // As short as it gets, and clean: what the session held before is not in the trace.
        let connect =
            packet::Connect { v5: connection.v5, clean_start: true, client_id: &client_id, ..Default::default() };
        return packet::connect(&connect, 0);
    }
    let topic = || names.rename(span.target.as_deref().unwrap_or(UNTOLD));
    match span.kind {
        Kind::Connect => connect_packet(span, &client_id, span.has(flags::WILL).then(topic).as_deref()),
        Kind::Publish | Kind::SegmentAppend => {
            let publish = packet::Publish {
                v5: connection.v5,
                topic: &topic(),
                qos: if span.kind == Kind::SegmentAppend { 1 } else { span.qos },
                retain: span.has(flags::RETAIN),
                dup: span.has(flags::DUP),
                packet_id,
                tag,
            };
            packet::publish(&publish, span.bytes)
        }
        Kind::Subscribe => {
            // Options that are no number were refused before.
            let filters: Vec<(String, u8)> = filters(span)
                .into_iter()
                .map(|(filter, options)| (names.rename(filter), options.unwrap_or(span.qos)))
                .collect();
            packet::subscribe(&filters, packet_id, connection.v5, span.bytes)
        }
        Kind::Unsubscribe => {
            let filters: Vec<String> = filters(span).iter().map(|(filter, _)| names.rename(filter)).collect();
            packet::unsubscribe(&filters, packet_id, connection.v5, span.bytes)
        }
        Kind::Ping => packet::pingreq(span.bytes),
        Kind::Disconnect => packet::disconnect(connection.v5, span.bytes),
        // A close has no bytes, and nothing else is a root.
        _ => Packet { head: Vec::new(), fill_bytes: 0, resized: false },
    }
}

fn connect_packet(span: &Span, client_id: &str, will_topic: Option<&str>) -> Packet {
    let connect = packet::Connect {
        v5: span.has(flags::V5),
        clean_start: span.has(flags::CLEAN_START),
        keep_alive_s: span.keep_alive_s,
        expiry_s: span.expiry_s,
        client_id,
        user_name: span.has(flags::USERNAME),
        password: span.has(flags::PASSWORD),
        will_topic,
        will_qos: span.qos,
        will_retain: span.has(flags::RETAIN),
    };
    let built = packet::connect(&connect, span.bytes);
    if built.resized && connect.clean_start {
        // Too short for any client id: the recorded client left it to the broker to choose one.
        let anonymous = packet::connect(&packet::Connect { client_id: "", ..connect }, span.bytes);
        if !anonymous.resized {
            return anonymous;
        }
    }
    built
}
