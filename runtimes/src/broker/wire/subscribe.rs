//! SUBSCRIBE and UNSUBSCRIBE, by `mqtt-protocol-core`.

use super::Fault;
use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};

/// A SUBSCRIBE.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker) struct Subscribe {
    pub packet_id: u16,
    /// Subscription identifier.
    pub id: Option<u32>,
    /// Filters with their options bytes.
    pub filters: Vec<(String, u8)>,
}

/// Reads a SUBSCRIBE's body.
pub(in crate::broker) fn decode(body: &[u8], v5: bool) -> Result<Subscribe, Fault> {
    let (packet_id, mut id) = (packet_id(body)?, None);
    let (entries, used) = if v5 {
        let (p, used) = v5_0::Subscribe::parse(body)?;
        for property in p.props() {
            if let Property::SubscriptionIdentifier(p) = property {
                if id.is_some() || p.val() == 0 {
                    return Err(Fault::PROTOCOL);
                }
                id = Some(p.val());
            }
        }
        (p.entries().clone(), used)
    } else {
        let (p, used) = v3_1_1::Subscribe::parse(body)?;
        (p.entries().clone(), used)
    };
    if used != body.len() {
        return Err(Fault::MALFORMED);
    }
    let mut filters = Vec::with_capacity(entries.len());
    for e in &entries {
        let options = e.sub_opts().to_buffer()[0];
        if !v5 && options > 2 {
            return Err(Fault::MALFORMED);
        }
        super::text(e.topic_filter().as_bytes())?;
        filters.push((e.topic_filter().to_owned(), options));
    }
    Ok(Subscribe { packet_id, id, filters })
}

/// Reads an UNSUBSCRIBE's body: packet id and filters.
pub(in crate::broker) fn unsubscribe(body: &[u8], v5: bool) -> Result<(u16, Vec<String>), Fault> {
    let id = packet_id(body)?;
    let (filters, used): (Vec<String>, usize) = if v5 {
        let (p, used) = v5_0::Unsubscribe::parse(body)?;
        (p.entries().iter().map(|f| f.as_str().to_owned()).collect(), used)
    } else {
        let (p, used) = v3_1_1::Unsubscribe::parse(body)?;
        (p.entries().iter().map(|f| f.as_str().to_owned()).collect(), used)
    };
    if used != body.len() { Err(Fault::MALFORMED) } else { Ok((id, filters)) }
}

fn packet_id(body: &[u8]) -> Result<u16, Fault> {
    match body.first_chunk::<2>().map(|b| u16::from_be_bytes(*b)) {
        None | Some(0) => Err(Fault::MALFORMED),
        Some(id) => Ok(id),
    }
}
