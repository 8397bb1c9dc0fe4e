//! DHCP (RFC 2131) as far as a machine with one interface needs it.
//!
//! Owns: the messages' form. Must not: open sockets.
//! What comes is the host's or a stranger's: nothing in it may do more harm than no network at all.

use std::net::Ipv4Addr;

/// Fixed part of a message, and the mark before its options.
const FIXED_BYTES: usize = 236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// Older relays drop shorter ones.
const LEAST_BYTES: usize = 300;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const REQUESTED: u8 = 50;
const LEASE_TIME: u8 = 51;
const MESSAGE_KIND: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
/// As many as `resolv.conf` uses.
const MOST_NAME_SERVERS: usize = 3;

/// A message's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Acknowledge = 5,
    Refuse = 6,
}

/// An address and what comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) router: Option<Ipv4Addr>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    pub(crate) server: Ipv4Addr,
    /// In seconds.
    pub(crate) lifetime: u32,
}

/// What is being asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question<'a> {
    /// Is there a server?
    Discover,
    /// May I have what you offered?
    Request(&'a Lease),
    /// May I keep what I have?
    Renew(&'a Lease),
}

/// Writes a question from the interface with this address.
pub(crate) fn question(question: Question<'_>, transaction: u32, hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend_from_slice(&transaction.to_be_bytes());
    // No seconds; the answer is to be broadcast, since nobody has the address yet.
    message.extend_from_slice(&[0, 0, 0x80, 0]);
    let own = match question {
        Question::Renew(lease) => lease.address,
        Question::Discover | Question::Request(_) => Ipv4Addr::UNSPECIFIED,
    };
    message.extend_from_slice(&own.octets());
    message.resize(28, 0);
    message.extend_from_slice(&hardware);
    message.resize(FIXED_BYTES, 0);
    message.extend_from_slice(&COOKIE);
    let kind = match question {
        Question::Discover => Kind::Discover,
        Question::Request(_) | Question::Renew(_) => Kind::Request,
    };
    message.extend_from_slice(&[MESSAGE_KIND, 1, kind as u8]);
    if let Question::Request(lease) = question {
        for (option, address) in [(REQUESTED, lease.address), (SERVER, lease.server)] {
            message.extend_from_slice(&[option, 4]);
            message.extend_from_slice(&address.octets());
        }
    }
    message.extend_from_slice(&[PARAMETERS, 4, SUBNET_MASK, ROUTER, NAME_SERVERS, LEASE_TIME, 255]);
    message.resize(message.len().max(LEAST_BYTES), 0);
    message
}

/// Reads an answer to this machine's question; anything else is nothing. A refusal has no lease.
pub(crate) fn answer(
    message: &[u8],
    transaction: u32,
    hardware: [u8; 6],
) -> Option<(Kind, Option<Lease>)> {
    let ours = message.starts_with(&[2, 1, 6])
        && message.get(4..8)? == transaction.to_be_bytes()
        && message.get(28..34)? == hardware
        && message.get(FIXED_BYTES..FIXED_BYTES + 4)? == COOKIE;
    if !ours {
        return None;
    }
    let options = message.get(FIXED_BYTES + 4..)?;
    let kind = match option(options, MESSAGE_KIND)? {
        [2] => Kind::Offer,
        [5] => Kind::Acknowledge,
        [6] => return Some((Kind::Refuse, None)),
        _ => return None,
    };
    let address = Ipv4Addr::from(*message.get(16..20)?.first_chunk::<4>()?);
    let unusable = address.is_unspecified()
        || address.is_broadcast()
        || address.is_loopback()
        || address.is_multicast();
    if unusable {
        return None;
    }
    let mask = u32::from(*addresses(options, SUBNET_MASK).first()?);
    let prefix = mask.leading_ones();
    // Ones, then zeros.
    if mask.checked_shl(prefix).unwrap_or(0) != 0 {
        return None;
    }
    let lifetime = option(options, LEASE_TIME).and_then(|bytes| bytes.try_into().ok());
    let lease = Lease {
        address,
        prefix: u8::try_from(prefix).ok()?,
        router: addresses(options, ROUTER).first().copied(),
        name_servers: addresses(options, NAME_SERVERS)
            .into_iter()
            .take(MOST_NAME_SERVERS)
            .collect(),
        server: *addresses(options, SERVER).first()?,
        lifetime: u32::from_be_bytes(lifetime?),
    };
    Some((kind, Some(lease)))
}

/// An option's value.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options.split_first()? {
            (0, rest) => options = rest,
            (255, _) => return None,
            (kind, rest) => {
                let (length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if *kind == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

/// An option's value as a list of addresses.
fn addresses(options: &[u8], wanted: u8) -> Vec<Ipv4Addr> {
    let value = option(options, wanted).unwrap_or_default();
    let (chunks, _) = value.as_chunks::<4>();
    chunks.iter().map(|octets| Ipv4Addr::from(*octets)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            name_servers: vec![Ipv4Addr::new(10, 0, 2, 3)],
            server: Ipv4Addr::new(10, 0, 2, 2),
            lifetime: 86_400,
        }
    }

    /// An answer as QEMU's user network gives it.
    fn reply(kind: u8) -> Vec<u8> {
        let mut message = question(Question::Discover, 7, HARDWARE);
        message[0] = 2;
        message[16..20].copy_from_slice(&[10, 0, 2, 15]);
        message.truncate(FIXED_BYTES + 4);
        message.extend_from_slice(&[53, 1, kind, 0, 54, 4, 10, 0, 2, 2, 1, 4, 255, 255, 255, 0]);
        message.extend_from_slice(&[
            3, 4, 10, 0, 2, 2, 6, 4, 10, 0, 2, 3, 51, 4, 0, 1, 0x51, 0x80, 255,
        ]);
        message
    }

    fn option_at(message: &[u8], kind: u8) -> usize {
        let start = FIXED_BYTES + 4;
        start + message[start..].windows(2).position(|pair| pair == [kind, 4]).unwrap()
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(answer(&reply(2), 7, HARDWARE), Some((Kind::Offer, Some(lease()))));
        assert_eq!(answer(&reply(5), 7, HARDWARE), Some((Kind::Acknowledge, Some(lease()))));
        assert_eq!(answer(&reply(6), 7, HARDWARE), Some((Kind::Refuse, None)));
        assert_eq!(answer(&reply(1), 7, HARDWARE), None);
    }

    #[test]
    fn answers_to_others_are_nothing() {
        assert_eq!(answer(&reply(2), 8, HARDWARE), None);
        assert_eq!(answer(&reply(2), 7, [0; 6]), None);
        let mut question = reply(2);
        question[0] = 1;
        assert_eq!(answer(&question, 7, HARDWARE), None);
    }

    #[test]
    fn addresses_that_cannot_be_used_are_nothing() {
        for address in [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]] {
            let mut reply = reply(2);
            reply[16..20].copy_from_slice(&address);
            assert_eq!(answer(&reply, 7, HARDWARE), None, "{address:?}");
        }
        let mut holes = reply(2);
        let mask = option_at(&holes, 1);
        holes[mask + 2..mask + 6].copy_from_slice(&[255, 0, 255, 0]);
        assert_eq!(answer(&holes, 7, HARDWARE), None);
    }

    #[test]
    fn every_truncation_and_every_changed_length_is_read_without_a_panic() {
        let whole = reply(2);
        for end in 0..whole.len() {
            let _ = answer(&whole[..end], 7, HARDWARE);
        }
        for place in FIXED_BYTES + 4..whole.len() {
            for value in [0, 1, 3, 200, 255] {
                let mut changed = whole.clone();
                changed[place] = value;
                let _ = answer(&changed, 7, HARDWARE);
            }
        }
    }

    #[test]
    fn questions_have_what_servers_look_for() {
        let request = question(Question::Request(&lease()), 7, HARDWARE);
        assert_eq!(request.len(), LEAST_BYTES);
        let options = &request[FIXED_BYTES + 4..];
        assert_eq!(option(options, MESSAGE_KIND), Some(&[3][..]));
        assert_eq!(addresses(options, REQUESTED), [lease().address]);
        assert_eq!(addresses(options, SERVER), [lease().server]);
        let renew = question(Question::Renew(&lease()), 7, HARDWARE);
        assert_eq!(renew[12..16], lease().address.octets());
        assert_eq!(option(&renew[FIXED_BYTES + 4..], SERVER), None);
    }
}
