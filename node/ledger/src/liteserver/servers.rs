//! Which liteservers there are: single addresses, and the file that TON publishes.
//!
//! Owns: reading both, and what is known of each network before anything is asked.
//! Must not: fetch the file; whoever serves it would choose whom to believe.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_protocol::identity::Network;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use super::api::ZeroState;

/// Servers taken from a file; published ones list about fifty.
const MAX_SERVERS: usize = 256;

/// Where a liteserver is and which key it holds: `IP:PORT:KEY`, the key in base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServerAddress {
    /// Where it listens.
    pub address: SocketAddr,
    /// The key that it must hold.
    pub key: VerifyingKey,
}

impl ServerAddress {
    /// Who runs it, as far as that can be told: two servers on one machine are one voice. On this
    /// machine itself they are told apart by their keys, for devnets and tests.
    pub(crate) fn operator(&self) -> Operator {
        let ip = self.address.ip();
        if ip.is_loopback() { Operator::Key(*self.key.as_bytes()) } else { Operator::Machine(ip) }
    }
}

/// One voice among the liteservers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operator {
    Machine(IpAddr),
    Key([u8; 32]),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, BASE64_STANDARD.encode(self.key.as_bytes()))
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerAddress({self})")
    }
}

/// Why liteservers cannot be taken from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// Not `IP:PORT:KEY`.
    #[error("a liteserver is written as IP:PORT:KEY, with its Ed25519 key in base64")]
    Address,
    /// Not the JSON that TON publishes.
    #[error("the file is not a TON global configuration (JSON with `liteservers`)")]
    NotAConfig,
    /// The file belongs to another network.
    #[error("the file belongs to another network: its zero state is not that of {}", .0.as_str())]
    OtherNetwork(Network),
    /// There is none in it.
    #[error("there is no liteserver in the file")]
    None,
}

impl FromStr for ServerAddress {
    type Err = ServersError;

    fn from_str(text: &str) -> Result<Self, ServersError> {
        let (address, key) = text.rsplit_once(':').ok_or(ServersError::Address)?;
        let address = address.parse().map_err(|_| ServersError::Address)?;
        Ok(Self { address, key: key_from(key).ok_or(ServersError::Address)? })
    }
}

fn key_from(text: &str) -> Option<VerifyingKey> {
    let bytes = BASE64_STANDARD.decode(text.trim()).ok()?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
}

/// What TON publishes at `ton.org/global-config.json` and `ton.org/testnet-global.config.json`, as
/// far as it is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalConfig {
    /// The liteservers, without those that cannot be read.
    pub servers: Vec<ServerAddress>,
    /// The network's zero state, if the file names it.
    pub zero_state: Option<ZeroState>,
}

#[derive(Deserialize)]
struct File {
    liteservers: Vec<serde_json::Value>,
    #[serde(default)]
    validator: Option<ValidatorPart>,
}

#[derive(Deserialize)]
struct ValidatorPart {
    zero_state: Option<BlockPart>,
}

#[derive(Deserialize)]
struct BlockPart {
    root_hash: String,
    file_hash: String,
}

#[derive(Deserialize)]
struct ServerPart {
    ip: i64,
    port: u16,
    id: KeyPart,
}

#[derive(Deserialize)]
struct KeyPart {
    key: String,
}

fn server(value: &serde_json::Value) -> Option<ServerAddress> {
    let part = ServerPart::deserialize(value).ok()?;
    // Published as a signed or an unsigned number.
    let ip = i32::try_from(part.ip).map(i32::cast_unsigned);
    let ip = ip.or_else(|_| u32::try_from(part.ip)).ok()?;
    let address = SocketAddr::new(Ipv4Addr::from(ip).into(), part.port);
    Some(ServerAddress { address, key: key_from(&part.id.key)? })
}

fn hash(text: &str) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

impl GlobalConfig {
    /// Reads the file's text, for use on `network`.
    ///
    /// # Errors
    ///
    /// When it is no such file, names no usable server, or belongs to another network.
    pub fn read(text: &str, network: Network) -> Result<Self, ServersError> {
        let file: File = serde_json::from_str(text).map_err(|_| ServersError::NotAConfig)?;
        let servers: Vec<_> =
            file.liteservers.iter().filter_map(server).take(MAX_SERVERS).collect();
        if servers.is_empty() {
            return Err(ServersError::None);
        }
        let zero_state = match file.validator.and_then(|part| part.zero_state) {
            None => None,
            Some(part) => {
                let root_hash = hash(&part.root_hash).ok_or(ServersError::NotAConfig)?;
                let file_hash = hash(&part.file_hash).ok_or(ServersError::NotAConfig)?;
                Some(ZeroState { root_hash, file_hash })
            }
        };
        if let (Some(known), Some(found)) = (known_zero_state(network), zero_state)
            && known != found
        {
            return Err(ServersError::OtherNetwork(network));
        }
        Ok(Self { servers, zero_state: zero_state.or_else(|| known_zero_state(network)) })
    }

    /// Writes the file for a devnet's own liteserver, so that other programs can be pointed to it.
    pub fn write(server: &ServerAddress, zero: &ZeroState) -> String {
        let ip = match server.address.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => u32::from(ip).cast_signed(),
            IpAddr::V4(_) | IpAddr::V6(_) => u32::from(Ipv4Addr::LOCALHOST).cast_signed(),
        };
        let zero_state = serde_json::json!({
            "workchain": -1,
            "shard": i64::MIN,
            "seqno": 0,
            "root_hash": BASE64_STANDARD.encode(zero.root_hash),
            "file_hash": BASE64_STANDARD.encode(zero.file_hash),
        });
        let key = BASE64_STANDARD.encode(server.key.as_bytes());
        let file = serde_json::json!({
            "@type": "config.global",
            "liteservers": [{
                "ip": ip,
                "port": server.address.port(),
                "id": { "@type": "pub.ed25519", "key": key },
            }],
            "validator": {
                "@type": "validator.config.global",
                "zero_state": zero_state,
                "init_block": zero_state,
            },
        });
        format!("{file:#}\n")
    }
}

/// The zero states of the networks that exist once; from the files that TON publishes.
pub fn known_zero_state(network: Network) -> Option<ZeroState> {
    let (root_hash, file_hash) = match network {
        Network::Devnet => return None,
        Network::Testnet => (
            "gj+B8wb/AmlPk1z1AhVI484rhrUpgSr2oSFIh56VoSg=",
            "Z+IKwYS54DmmJmesw/nAD5DzWadnOCMzee+kdgSYDOg=",
        ),
        Network::Mainnet => (
            "F6OpKZKqvqeFp6CQmFomXNMfMj2EnaUSOXN+Mh+wVWk=",
            "XplPz01CXAps5qeSWUtxcyBfdAo5zVb1N979KLSKD24=",
        ),
    };
    Some(ZeroState { root_hash: hash(root_hash)?, file_hash: hash(file_hash)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from the published file of the test network.
    const TESTNET: &str = r#"{
        "@type": "config.global",
        "dht": { "k": 6 },
        "liteservers": [
            { "ip": 822907680, "port": 27842, "provided": "Beavis",
              "id": { "@type": "pub.ed25519", "key": "sU7QavX2F964iI9oToP9gffQpCQIoOLppeqL/pdPvpM=" } },
            { "ip": -1468571697, "port": 27787, "provided": "Beavis",
              "id": { "@type": "pub.ed25519", "key": "Y/QVf6G5VDiKTZOKitbFVm067WsuocTN8Vg036A4zGk=" } },
            { "ip": "not a number", "port": 1, "id": {} }
        ],
        "validator": {
            "@type": "validator.config.global",
            "zero_state": {
                "file_hash": "Z+IKwYS54DmmJmesw/nAD5DzWadnOCMzee+kdgSYDOg=",
                "seqno": 0,
                "root_hash": "gj+B8wb/AmlPk1z1AhVI484rhrUpgSr2oSFIh56VoSg=",
                "workchain": -1,
                "shard": -9223372036854775808
            }
        }
    }"#;

    #[test]
    fn the_published_file_is_read() {
        let config = GlobalConfig::read(TESTNET, Network::Testnet).unwrap();
        let addresses: Vec<_> =
            config.servers.iter().map(|server| server.address.to_string()).collect();
        assert_eq!(addresses, ["49.12.147.32:27842", "168.119.95.207:27787"]);
        assert_eq!(config.zero_state, known_zero_state(Network::Testnet));
    }

    #[test]
    fn a_file_of_another_network_is_refused() {
        let refused = GlobalConfig::read(TESTNET, Network::Mainnet);
        assert_eq!(refused, Err(ServersError::OtherNetwork(Network::Mainnet)));
        assert_eq!(GlobalConfig::read("{}", Network::Testnet), Err(ServersError::NotAConfig));
        let none = r#"{ "liteservers": [] }"#;
        assert_eq!(GlobalConfig::read(none, Network::Testnet), Err(ServersError::None));
    }

    #[test]
    fn an_address_survives_its_text_and_a_written_file() {
        let text = "127.0.0.1:4000:sU7QavX2F964iI9oToP9gffQpCQIoOLppeqL/pdPvpM=";
        let server: ServerAddress = text.parse().unwrap();
        assert_eq!(server.to_string(), text);
        let zero = ZeroState { root_hash: [1; 32], file_hash: [2; 32] };
        let written = GlobalConfig::write(&server, &zero);
        let read = GlobalConfig::read(&written, Network::Devnet).unwrap();
        assert_eq!((read.servers, read.zero_state), (vec![server], Some(zero)));
        for bad in ["", "127.0.0.1:4000", "host:1:AAAA", "127.0.0.1:4000:AAAA"] {
            assert_eq!(bad.parse::<ServerAddress>(), Err(ServersError::Address), "{bad}");
        }
    }
}
