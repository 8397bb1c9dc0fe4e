//! Names and addresses of peers: two spellings of an identity, and how far an address reaches.
//!
//! Owns: `NodeId` ↔ `PeerId`, the scope of an address, and the subnet that diversity rules count.
//! Must not: dial, resolve names, or remember anything; the address book does that.

use std::net::{Ipv4Addr, Ipv6Addr};

use cocoon_protocol::identity::NodeId;
use libp2p::identity::{PublicKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::limits;

/// Protobuf frame of an Ed25519 key inside an identity multihash (libp2p peer-ids specification):
/// field 1 `Type` = 1 (Ed25519), field 2 `Data` of 32 bytes.
const ED25519_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// Multihash code of "identity": the digest is the key itself.
const IDENTITY_MULTIHASH: u64 = 0;

/// libp2p's spelling of a node's identity; `None` when the bytes are no Ed25519 public key.
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node behind a peer id; `None` for peers whose key is not Ed25519, which cannot be nodes.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let key = hash.digest().strip_prefix(&ED25519_PREFIX)?;
    Some(NodeId::from_bytes(key.try_into().ok()?))
}

/// How far an address can be reached from. Ordered from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This machine only: loopback, in-process memory.
    Machine,
    /// One site: private and link-local ranges.
    Site,
    /// The Internet.
    Internet,
}

/// The scope of `address`, or `None` when it cannot be dialled (unspecified, multicast, no host).
#[expect(clippy::wildcard_enum_match_arm, reason = "libp2p's list of address parts is open")]
pub fn scope(address: &Multiaddr) -> Option<Scope> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => ip4_scope(ip),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip4_scope(ip),
            None => ip6_scope(ip),
        },
        Protocol::Memory(_) => Some(Scope::Machine),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => {
            Some(Scope::Internet)
        }
        _ => None,
    }
}

fn ip4_scope(ip: Ipv4Addr) -> Option<Scope> {
    if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
        None
    } else if ip.is_loopback() {
        Some(Scope::Machine)
    } else if ip.is_private() || ip.is_link_local() || is_carrier_nat(ip) {
        Some(Scope::Site)
    } else {
        Some(Scope::Internet)
    }
}

/// 100.64.0.0/10 (RFC 6598): shared by a carrier's customers, never reachable from outside.
fn is_carrier_nat(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && (64..128).contains(&second)
}

fn ip6_scope(ip: Ipv6Addr) -> Option<Scope> {
    if ip.is_unspecified() || ip.is_multicast() {
        None
    } else if ip.is_loopback() {
        Some(Scope::Machine)
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Some(Scope::Site)
    } else {
        Some(Scope::Internet)
    }
}

/// A block of addresses that one party usually holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subnet {
    /// A /24 of IPv4.
    V4([u8; 3]),
    /// A /48 of IPv6.
    V6([u8; 6]),
}

/// The subnet that diversity rules count `address` under. `None` for private and local addresses
/// and names, to which no rule applies.
#[expect(clippy::wildcard_enum_match_arm, reason = "libp2p's list of address parts is open")]
pub fn subnet(address: &Multiaddr) -> Option<Subnet> {
    if scope(address) != Some(Scope::Internet) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(v4_subnet(ip)),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(v4_subnet(ip)),
            None => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Some(Subnet::V6([a, b, c, d, e, f]))
            }
        },
        _ => None,
    }
}

fn v4_subnet(ip: Ipv4Addr) -> Subnet {
    let [a, b, c, _] = ip.octets();
    Subnet::V4([a, b, c])
}

/// The addresses that a peer claims and that could be true: those at least as wide as the address
/// that we see the peer at. So a peer on the Internet cannot make us (or those we tell) dial into
/// private networks, while a network on one machine or one site still works.
pub fn believable(claimed: &[Multiaddr], seen_at: &Multiaddr) -> Vec<Multiaddr> {
    let Some(narrowest) = scope(seen_at) else {
        return Vec::new();
    };
    let mut believed: Vec<Multiaddr> = Vec::new();
    for address in claimed {
        if scope(address).is_some_and(|scope| scope >= narrowest) && !believed.contains(address) {
            believed.push(address.clone());
        }
        if believed.len() == limits::ADDRESSES_PER_PEER {
            break;
        }
    }
    believed
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::identity::NodeKey;
    use proptest::prelude::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn node_and_peer_ids_are_two_spellings_of_one_key(secret: [u8; 32]) {
            let node = NodeKey::from_secret(&secret).id();
            let libp2p = libp2p::identity::Keypair::ed25519_from_bytes(secret).unwrap();
            prop_assert_eq!(peer_id(&node), Some(libp2p.public().to_peer_id()));
            prop_assert_eq!(node_id(&libp2p.public().to_peer_id()), Some(node));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: [u8; 32]) {
            if let Some(peer) = peer_id(&NodeId::from_bytes(bytes)) {
                prop_assert_eq!(node_id(&peer), Some(NodeId::from_bytes(bytes)));
            }
        }
    }

    #[test]
    fn a_peer_with_a_hashed_key_is_no_node() {
        assert_eq!(node_id(&PeerId::random()), None);
    }

    #[test]
    fn scopes_follow_the_registered_ranges() {
        assert_eq!(scope(&address("/ip4/127.0.0.1/udp/1/quic-v1")), Some(Scope::Machine));
        assert_eq!(scope(&address("/memory/7")), Some(Scope::Machine));
        assert_eq!(scope(&address("/ip4/192.168.1.2/tcp/1")), Some(Scope::Site));
        assert_eq!(scope(&address("/ip4/100.64.0.1/tcp/1")), Some(Scope::Site));
        assert_eq!(scope(&address("/ip6/fd00::1/tcp/1")), Some(Scope::Site));
        assert_eq!(scope(&address("/ip6/::ffff:10.0.0.1/tcp/1")), Some(Scope::Site));
        assert_eq!(scope(&address("/ip4/8.8.8.8/udp/1/quic-v1")), Some(Scope::Internet));
        assert_eq!(scope(&address("/dns4/example.org/tcp/1")), Some(Scope::Internet));
        assert_eq!(scope(&address("/ip4/0.0.0.0/tcp/1")), None);
        assert_eq!(scope(&address("/ip4/224.0.0.1/udp/1")), None);
    }

    #[test]
    fn a_peer_on_the_internet_cannot_point_us_into_a_private_network() {
        let claimed = [
            address("/ip4/10.0.0.1/tcp/22"),
            address("/ip4/127.0.0.1/tcp/22"),
            address("/ip4/9.9.9.9/udp/4001/quic-v1"),
        ];
        let seen = address("/ip4/9.9.9.9/udp/4001/quic-v1");
        assert_eq!(believable(&claimed, &seen), [claimed[2].clone()]);
        assert_eq!(believable(&claimed, &address("/memory/1")).len(), 3);
    }

    #[test]
    fn claimed_addresses_are_bounded_and_distinct() {
        let mut claimed: Vec<_> =
            (1..100).map(|port| address(&format!("/ip4/9.9.9.9/tcp/{port}"))).collect();
        claimed.insert(1, claimed[0].clone());
        let believed = believable(&claimed, &claimed[0]);
        assert_eq!(believed.len(), limits::ADDRESSES_PER_PEER);
        assert_ne!(believed[0], believed[1]);
    }

    #[test]
    fn only_public_addresses_have_a_subnet() {
        assert_eq!(subnet(&address("/ip4/8.8.4.4/tcp/1")), Some(Subnet::V4([8, 8, 4])));
        assert_eq!(subnet(&address("/ip4/10.8.4.4/tcp/1")), None);
        assert_eq!(subnet(&address("/dns/example.org/tcp/1")), None);
        assert_eq!(
            subnet(&address("/ip6/2001:db8:1:2::1/tcp/1")),
            Some(Subnet::V6([0x20, 0x01, 0x0d, 0xb8, 0, 1]))
        );
    }
}
