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

/// Protocols whose bytes are not sent message by message: their rate is the calibration's.
pub(crate) const BACKGROUND: [&str; 6] =
    ["acknowledgements", "gossip", "identify", "index", "keep-alive", "ping"];

/// Bytes sent since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    control: u64,
    session: u64,
    handshake: u64,
    acknowledgements: u64,
    /// In the order of [`BACKGROUND`], in millionths of a byte.
    background: [u128; 6],
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
    pub(crate) fn background(&mut self, rates: [u64; 6], node_millis: u64) {
        for (sum, rate) in self.background.iter_mut().zip(rates) {
            *sum += u128::from(rate) * u128::from(node_millis);
        }
    }

    /// The sums, in the order of names.
    pub(crate) fn table(&self) -> Vec<(&'static str, u64)> {
        let bytes = |sum: u128| u64::try_from(sum / 1_000_000).unwrap_or(u64::MAX);
        let background = self.background.map(bytes);
        let mut table: Vec<_> = BACKGROUND.into_iter().zip(background).collect();
        table.push(("control", self.control));
        table.push(("handshake", self.handshake));
        table.push(("session", self.session));
        for (name, sum) in &mut table {
            if *name == "acknowledgements" {
                *sum += self.acknowledgements;
            }
        }
        table.sort_unstable();
        table
    }
}
