//! The kernel's interface to its network configuration (`rtnetlink(7)`).
//!
//! Owns: three requests and their answers' form. Must not: decide addresses.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// `REQUEST | ACK`.
const ASK: u16 = 1 | 4;
/// `REPLACE | CREATE`.
const SET: u16 = 0x100 | 0x400;
const HEADER_BYTES: usize = 16;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

/// A connection to the kernel.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Switches an interface on.
    pub(crate) fn up(&mut self, interface: u32) -> Result<(), Errno> {
        let mut body = vec![0; 4];
        for number in [interface, IFF_UP, IFF_UP] {
            body.extend_from_slice(&number.to_ne_bytes());
        }
        self.request(RTM_NEWLINK, 0, &body)
    }

    /// Gives an interface an address.
    pub(crate) fn address(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), Errno> {
        let mut body = vec![AF_INET, prefix, 0, 0];
        body.extend_from_slice(&interface.to_ne_bytes());
        // IFA_ADDRESS, IFA_LOCAL.
        attribute(&mut body, 1, &address.octets());
        attribute(&mut body, 2, &address.octets());
        self.request(RTM_NEWADDR, SET, &body)
    }

    /// Sends what is for `to` out of an interface, by way of `gateway` if there is one.
    pub(crate) fn route(
        &mut self,
        interface: u32,
        (to, prefix): (Ipv4Addr, u8),
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), Errno> {
        // Main table; by DHCP; the whole world through a gateway, else this link; unicast.
        let scope = if gateway.is_some() { 0 } else { 253 };
        let mut body = vec![AF_INET, prefix, 0, 0, 254, 16, scope, 1, 0, 0, 0, 0];
        if prefix > 0 {
            attribute(&mut body, 1, &to.octets());
        }
        if let Some(gateway) = gateway {
            attribute(&mut body, 5, &gateway.octets());
        }
        attribute(&mut body, 4, &interface.to_ne_bytes());
        self.request(RTM_NEWROUTE, SET, &body)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(|_| Errno::INVAL)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(ASK | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        outcome(answer.get(..length).unwrap_or_default(), self.sequence)
    }
}

/// Appends an attribute: its length, its kind, its value, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    while !body.len().is_multiple_of(4) {
        body.push(0);
    }
}

/// What the kernel's answer says: an error with number 0 is its yes.
fn outcome(answer: &[u8], sequence: u32) -> Result<(), Errno> {
    let short = |at: usize| answer.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let long = |at: usize| answer.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    if short(4) != Some(NLMSG_ERROR) || long(8) != Some(sequence) {
        return Err(Errno::PROTO);
    }
    match long(HEADER_BYTES).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(error.wrapping_neg())),
        None => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, sequence: u32, error: i32) -> Vec<u8> {
        let mut answer = 36u32.to_ne_bytes().to_vec();
        answer.extend_from_slice(&kind.to_ne_bytes());
        answer.extend_from_slice(&[0; 2]);
        answer.extend_from_slice(&sequence.to_ne_bytes());
        answer.extend_from_slice(&[0; 4]);
        answer.extend_from_slice(&error.to_ne_bytes());
        answer
    }

    #[test]
    fn an_answer_is_a_yes_or_an_error_to_this_very_question() {
        assert_eq!(outcome(&answer(2, 7, 0), 7), Ok(()));
        assert_eq!(outcome(&answer(2, 7, -1), 7), Err(Errno::PERM));
        assert_eq!(outcome(&answer(2, 6, 0), 7), Err(Errno::PROTO));
        assert_eq!(outcome(&answer(3, 7, 0), 7), Err(Errno::PROTO));
        assert_eq!(outcome(&answer(2, 7, 0)[..19], 7), Err(Errno::PROTO));
    }

    #[test]
    fn attributes_are_padded() {
        let mut body = Vec::new();
        attribute(&mut body, 1, &[9; 3]);
        assert_eq!((body.len(), &body[4..]), (8, &[9, 9, 9, 0][..]));
    }

    #[test]
    fn the_kernel_answers() {
        // Interface 0 exists nowhere; the kernel says so, or that this user may not ask.
        let error = Netlink::open().unwrap().up(0).unwrap_err();
        assert!(
            [Errno::NODEV, Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP].contains(&error),
            "{error}"
        );
    }
}
