//! The little DER that simulations write, among it Intel's SGX extension in a PCK certificate (Intel,
//! *PCK Certificate and CRL Specification*, 1.2.840.113741.1.13.1), and the identity of a GPU's firmware.
//!
//! Owns: what the test PKIs need. Must not: be used on anything that is read.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const EXPLICIT_0: u8 = 0xa0;

const BASE: &str = "1.2.840.113741.1.13.1";

pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    element(0x04, content)
}

/// A small non-negative integer; values from 128 on would need a leading zero.
fn small_integer(value: u8) -> Vec<u8> {
    element(INTEGER, &[value & 0x7f])
}

pub(crate) fn object_identifier(text: &str) -> Vec<u8> {
    let mut arcs = text.split('.').map(|arc| arc.parse::<u32>().unwrap_or_default());
    let (first, second) = (arcs.next().unwrap_or_default(), arcs.next().unwrap_or_default());
    let mut content = Vec::new();
    for arc in std::iter::once(first * 40 + second).chain(arcs) {
        let mut digits = vec![low_seven(arc)];
        let mut rest = arc >> 7;
        while rest > 0 {
            digits.push(low_seven(rest) | 0x80);
            rest >>= 7;
        }
        content.extend(digits.into_iter().rev());
    }
    element(0x06, &content)
}

fn low_seven(value: u32) -> u8 {
    let [_, _, _, low] = value.to_be_bytes();
    low & 0x7f
}

fn named(arc: &str, value: Vec<u8>) -> Vec<u8> {
    sequence(&[object_identifier(&format!("{BASE}.{arc}")), value])
}

/// The extension's content: PPID, the platform's TCB, PCE id, FMSPC and SGX type.
pub(super) fn sgx_extension(ppid: [u8; 16], fmspc: [u8; 6], cpu_svn: u8, pce_svn: u8) -> Vec<u8> {
    let mut tcb: Vec<Vec<u8>> =
        (1..=16).map(|index| named(&format!("2.{index}"), small_integer(cpu_svn))).collect();
    tcb.push(named("2.17", small_integer(pce_svn)));
    tcb.push(named("2.18", octets(&[cpu_svn; 16])));
    sequence(&[
        named("1", octets(&ppid)),
        named("2", sequence(&tcb)),
        named("3", octets(&[0, 0])),
        named("4", octets(&fmspc)),
        named("5", element(0x0a, &[0])),
    ])
}

/// The firmware's identity as Hopper's certificates carry it: version, the device's public key, and
/// the SHA-384 hash of the firmware.
pub(super) fn composite_device_id(public_key: &[u8], firmware: &[u8; 48]) -> Vec<u8> {
    let sha384 = object_identifier("2.16.840.1.101.3.4.2.2");
    let identity = sequence(&[sha384, octets(firmware)]);
    sequence(&[small_integer(1), public_key.to_vec(), identity])
}
