//! The state of one network connection during a run.

use super::frames::Frames;
use std::os::fd::OwnedFd;

/// Where a connection is in its life, which it goes through once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Its first request is not due yet.
    #[default]
    Idle,
    /// Due, but the session's previous connection has not ended.
    Waiting,
    /// Due, to be opened as soon as it is its turn.
    Ready,
    /// Has a socket (connected or connecting).
    Open,
    /// Had one; it is closed.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) phase: Phase,
    pub(super) socket: Option<OwnedFd>,
    /// Requests whose planned time has come; the first so many of the connection's `ops`.
    pub(super) due: usize,
    /// Position of the first request that is not wholly written.
    pub(super) next: usize,
    /// Bytes of that request that are written.
    pub(super) written: usize,
    /// Bytes that the kernel took on this connection, all together.
    pub(super) sent_bytes: u64,
    /// Bytes that were read from it.
    pub(super) received_bytes: u64,
    /// When it was opened, ns since t0, and from which port.
    pub(super) opened: Option<(u64, u16)>,
    /// Position of the first request that the driver has not tried to write.
    pub(super) tried: usize,
    /// Protocol duties (PUBREL, and acknowledgements of deliveries) to go out at the next packet boundary.
    pub(super) duties: Vec<u8>,
    /// Bytes of them that are written.
    pub(super) duties_written: usize,
    /// False after the kernel took less than offered, until it says that there is room.
    pub(super) writable: bool,
    /// A due request waits for a reply: for a free packet id, for the receive maximum, or to end the connection.
    pub(super) held: bool,
    /// When the last hindrance that was not the driver's own ended, ns.
    pub(super) unhindered_ns: u64,
    /// Replies that are demanded and have not come.
    pub(super) demanded: u32,
    /// Publishes at QoS 1 and 2 in flight.
    pub(super) in_flight: u32,
    /// How many may be.
    pub(super) receive_max: u16,
    /// Requests with a packet id that were sent.
    pub(super) ids_sent: usize,
    /// PINGRESPs that came.
    pub(super) pings_answered: usize,
    pub(super) frames: Frames,
    /// Deliveries that came.
    pub(super) deliveries: u64,
    /// Replies that belong to no request.
    pub(super) strays: u64,
    /// In the queue of those that have something to send.
    pub(super) queued: bool,
    /// Sending has ended on our side (FIN).
    pub(super) shut: bool,
}

impl Link {
    pub(super) fn new() -> Link {
        Link {
            phase: Phase::Idle,
            socket: None,
            due: 0,
            next: 0,
            written: 0,
            sent_bytes: 0,
            received_bytes: 0,
            opened: None,
            tried: 0,
            duties: Vec::with_capacity(64),
            duties_written: 0,
            writable: true,
            held: false,
            unhindered_ns: 0,
            demanded: 0,
            in_flight: 0,
            receive_max: u16::MAX,
            ids_sent: 0,
            pings_answered: 0,
            frames: Frames::default(),
            deliveries: 0,
            strays: 0,
            queued: false,
            shut: false,
        }
    }
}

/// Which position among the requests with a packet id (`sent` of them are out) has this id, when the first had
/// `first_packet_id` and ids wrap from 65535 to 1. The latest, where ids have wrapped.
pub(super) fn position_of_id(id: u16, first_packet_id: u16, sent: usize) -> Option<usize> {
    const IDS: usize = 65_535;
    let id = usize::from(id).checked_sub(1)?;
    let offset = (id + IDS - usize::from(first_packet_id.saturating_sub(1))) % IDS;
    let last = sent.checked_sub(1)?.checked_sub(offset)?;
    Some(offset + last / IDS * IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_without_a_table() {
        assert_eq!(position_of_id(1, 1, 0), None);
        assert_eq!(position_of_id(0, 1, 5), None);
        assert_eq!(position_of_id(1, 1, 1), Some(0));
        assert_eq!(position_of_id(6, 1, 5), None);
        // Ids 65534, 65535, 1, 2.
        assert_eq!(position_of_id(65_535, 65_534, 4), Some(1));
        assert_eq!(position_of_id(2, 65_534, 4), Some(3));
        assert_eq!(position_of_id(3, 65_534, 4), None);
        // Wrapped once: the second use of id 1 is out, the second use of id 2 is not.
        assert_eq!(position_of_id(1, 1, 65_536), Some(65_535));
        assert_eq!(position_of_id(2, 1, 65_536), Some(1));
    }
}
