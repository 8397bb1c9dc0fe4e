//! One interface, configured by DHCP.
//!
//! Owns: the address, its routes, the name servers, and keeping the lease.
//! Must not: be believed: whoever answers is the host or its network, and sees ciphertext only.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::dhcp::{self, Kind, Lease, Question};
use super::netlink::Netlink;
use super::{pause, say};

const INTERFACES: &str = "/sys/class/net";
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// How long one question waits for its answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 15;
/// How often an interface is looked for, ten times a second.
const LOOKS: u32 = 100;
/// Nobody is asked more often than this.
const LEAST_PAUSE: Duration = Duration::from_secs(60);

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("the host gives no network interface")]
    NoInterface,
    #[error("the interface `{name}` has no readable address or number")]
    Unreadable { name: String },
    #[error("the kernel refused to {what}")]
    Refused {
        what: &'static str,
        #[source]
        source: Errno,
    },
    #[error("no socket for DHCP")]
    Socket(#[source] std::io::Error),
    #[error("no DHCP server answered in {} seconds", ATTEMPTS * 2)]
    NoAnswer,
    #[error("cannot write /run/resolv.conf")]
    NameServers(#[source] std::io::Error),
}

/// An interface as the kernel numbers it.
#[derive(Clone, Copy, Debug)]
struct Interface {
    number: u32,
    hardware: [u8; 6],
}

/// Brings the network up, and keeps its lease from then on.
pub(crate) fn start() -> Result<(), NetworkError> {
    let refused = |what| move |source| NetworkError::Refused { what, source };
    let mut kernel = Netlink::open().map_err(refused("be asked"))?;
    if let Ok(loopback) = read_number("lo") {
        kernel.up(loopback).map_err(refused("switch the loopback on"))?;
    }
    let interface = find_interface()?;
    kernel.up(interface.number).map_err(refused("switch the interface on"))?;
    // Without an address only a route says where a broadcast goes.
    let everybody = (Ipv4Addr::BROADCAST, 32);
    kernel.route(interface.number, everybody, None).map_err(refused("route broadcasts"))?;
    let lease = ask(interface, None)?;
    apply(&mut kernel, interface, &lease)?;
    std::thread::spawn(move || keep(kernel, interface, lease));
    Ok(())
}

fn find_interface() -> Result<Interface, NetworkError> {
    for _ in 0..LOOKS {
        let entries = std::fs::read_dir(INTERFACES).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if let Some(name) = names.filter(|name| name != "lo").min() {
            let number = read_number(&name)?;
            let text = std::fs::read_to_string(Path::new(INTERFACES).join(&name).join("address"));
            let hardware = text.ok().and_then(|text| hardware(&text));
            return match hardware {
                Some(hardware) => Ok(Interface { number, hardware }),
                None => Err(NetworkError::Unreadable { name }),
            };
        }
        pause();
    }
    Err(NetworkError::NoInterface)
}

fn read_number(name: &str) -> Result<u32, NetworkError> {
    let text = std::fs::read_to_string(Path::new(INTERFACES).join(name).join("ifindex"));
    let number = text.ok().and_then(|text| text.trim_end().parse().ok());
    number.ok_or_else(|| NetworkError::Unreadable { name: name.to_owned() })
}

/// `52:54:00:12:34:56`.
fn hardware(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.trim_end().split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Asks for a lease, or to keep one.
fn ask(interface: Interface, kept: Option<&Lease>) -> Result<Lease, NetworkError> {
    let socket =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).map_err(NetworkError::Socket)?;
    socket.set_broadcast(true).map_err(NetworkError::Socket)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(NetworkError::Socket)?;
    let mut offered: Option<Lease> = None;
    for _ in 0..ATTEMPTS {
        let transaction = random();
        let question = match (&offered, kept) {
            (Some(offer), _) => Question::Request(offer),
            (None, Some(lease)) => Question::Renew(lease),
            (None, None) => Question::Discover,
        };
        let message = dhcp::question(question, transaction, interface.hardware);
        socket
            .send_to(&message, (Ipv4Addr::BROADCAST, SERVER_PORT))
            .map_err(NetworkError::Socket)?;
        let mut buffer = [0; 1500];
        // A stranger's datagram costs this attempt, no more.
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default();
        match dhcp::answer(message, transaction, interface.hardware) {
            Some((Kind::Acknowledge, Some(lease))) => return Ok(lease),
            Some((Kind::Offer, Some(offer))) => offered = Some(offer),
            Some((Kind::Refuse, _)) if kept.is_some() => return Err(NetworkError::NoAnswer),
            Some((Kind::Refuse, _)) => offered = None,
            Some(_) | None => {}
        }
    }
    Err(NetworkError::NoAnswer)
}

/// Tells transactions apart; nothing depends on nobody guessing it.
fn random() -> u32 {
    let mut bytes = [0; 4];
    if let Ok(mut source) = File::open("/dev/urandom") {
        let _ = source.read_exact(&mut bytes);
    }
    u32::from_ne_bytes(bytes)
}

fn apply(kernel: &mut Netlink, interface: Interface, lease: &Lease) -> Result<(), NetworkError> {
    let refused = |what| move |source| NetworkError::Refused { what, source };
    kernel
        .address(interface.number, lease.address, lease.prefix)
        .map_err(refused("take the address"))?;
    if let Some(router) = lease.router {
        kernel
            .route(interface.number, (Ipv4Addr::UNSPECIFIED, 0), Some(router))
            .map_err(refused("route through the gateway"))?;
    }
    let names = lease.name_servers.iter().map(|server| format!("nameserver {server}\n"));
    std::fs::write("/run/resolv.conf", names.collect::<String>())
        .map_err(NetworkError::NameServers)?;
    say(format_args!("address {}/{} for {} s", lease.address, lease.prefix, lease.lifetime));
    Ok(())
}

/// Asks again at half of a lease's time, as RFC 2131 §4.4.5 has it, and says when that fails.
fn keep(mut kernel: Netlink, interface: Interface, mut lease: Lease) {
    let mut pause = half(&lease);
    loop {
        std::thread::sleep(pause);
        match ask(interface, Some(&lease)) {
            Ok(renewed) => {
                if renewed != lease
                    && let Err(error) = apply(&mut kernel, interface, &renewed)
                {
                    say(error);
                }
                lease = renewed;
                pause = half(&lease);
            }
            Err(error) => {
                say(format_args!("the network's lease is not renewed: {error}"));
                pause = LEAST_PAUSE;
            }
        }
    }
}

fn half(lease: &Lease) -> Duration {
    Duration::from_secs(u64::from(lease.lifetime / 2)).max(LEAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read() {
        assert_eq!(hardware("52:54:00:12:34:56\n"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        for bad in ["", "52:54", "52:54:00:12:34:56:78", "52:54:00:12:34:xx"] {
            assert_eq!(hardware(bad), None, "{bad}");
        }
    }
}
