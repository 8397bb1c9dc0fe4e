//! Where an invariant keeps what it knows of a host or a channel.
//!
//! Owns: two tables whose every look-up is a few nanoseconds, also with a million hosts.
//! Must not: be iterated: neither has an order that means anything.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use cocoon_protocol::channel::ChannelId;

use crate::fabric::HostId;

/// Something for each host, by its number.
#[derive(Debug)]
pub(super) struct ByHost<T>(Vec<T>);

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> ByHost<T> {
    pub(super) fn get(&self, host: HostId) -> Option<&T> {
        self.0.get(usize::try_from(host.0).ok()?)
    }

    pub(super) fn entry(&mut self, host: HostId) -> Option<&mut T> {
        let place = usize::try_from(host.0).ok()?;
        if place >= self.0.len() {
            self.0.resize_with(place.checked_add(1)?, T::default);
        }
        self.0.get_mut(place)
    }
}

/// Something for each channel.
pub(super) type ByChannel<T> = HashMap<u64, T, BuildHasherDefault<AsIs>>;

/// Keys that are random already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A channel in eight bytes: two of a run's are the same with a probability of one in ten million
/// when there are two million of them.
pub fn short(channel: &ChannelId) -> u64 {
    let vault = head(&channel.vault.hash);
    let provider = head(channel.provider.as_bytes());
    vault ^ provider.rotate_left(29) ^ u64::from(channel.epoch).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(super) fn head(bytes: &[u8; 32]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
}
