//! Bytes on the wire, by protocol, under the names that the exact tier's tables have.
//!
//! Owns: the sums. Must not: know who sent what.

use crate::path::{ACKNOWLEDGEMENT, on_wire, packets};

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Offers and what keeps them current.
    Control,
    /// Sessions, their attestation included.
    Session,
    /// New connections.
    Handshake,
}

/// Every protocol of the tables. What the model does not send message by message is a rate of the
/// calibration.
pub(crate) const PROTOCOLS: [&str; 10] = [
    "acknowledgements",
    "control",
    "gossip",
    "handshake",
    "identify",
    "index",
    "keep-alive",
    "other",
    "ping",
    "session",
];

/// Bytes sent since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    control: u64,
    session: u64,
    handshake: u64,
    acknowledgements: u64,
    /// In the order of [`PROTOCOLS`], in millionths of a byte.
    background: [u128; 10],
}

impl Traffic {
    /// A message of so many bytes in a stream.
    pub(crate) const fn add(&mut self, protocol: Protocol, bytes: u64) {
        let wire = on_wire(bytes);
        match protocol {
            Protocol::Control => self.control += wire,
            Protocol::Session => self.session += wire,
            Protocol::Handshake => self.handshake += wire,
        }
        self.acknowledgements += packets(bytes) * ACKNOWLEDGEMENT;
    }

    /// So many messages of so many bytes each.
    pub(crate) const fn add_many(&mut self, protocol: Protocol, bytes: u64, count: u64) {
        let wire = on_wire(bytes) * count;
        match protocol {
            Protocol::Control => self.control += wire,
            Protocol::Session => self.session += wire,
            Protocol::Handshake => self.handshake += wire,
        }
        self.acknowledgements += packets(bytes) * ACKNOWLEDGEMENT * count;
    }

    /// What so many node-milliseconds send besides, at these rates in thousandths of a byte a second.
    pub(crate) fn background(&mut self, rates: [u64; 10], node_millis: u64) {
        for (sum, rate) in self.background.iter_mut().zip(rates) {
            *sum += u128::from(rate) * u128::from(node_millis);
        }
    }

    /// The sums, in the order of names.
    pub(crate) fn table(&self) -> Vec<(&'static str, u64)> {
        let modelled = |name: &str| match name {
            "acknowledgements" => self.acknowledgements,
            "control" => self.control,
            "handshake" => self.handshake,
            "session" => self.session,
            _ => 0,
        };
        let rest = |sum: u128| u64::try_from(sum / 1_000_000).unwrap_or(u64::MAX);
        let rows = PROTOCOLS.into_iter().zip(self.background);
        rows.map(|(name, sum)| (name, modelled(name) + rest(sum))).collect()
    }
}
