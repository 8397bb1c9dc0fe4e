//! The identity of the firmware that holds a report's key, as DICE puts it into the key's certificate.
//!
//! Owns: both forms of the extension: Hopper's and Blackwell's.
//! Must not: guess; what is not in one of the two forms is refused.

use cocoon_protocol::attest::{GpuArchitecture, GpuRefusal};
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Class, Decode as _, Reader, SliceReader, Tagged as _};

/// `id-sha384` (RFC 5754).
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// What the certificate says about the firmware.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Firmware {
    /// SHA-384 of the firmware.
    pub(super) identity: [u8; 48],
    /// An operational flag that means that its protections are down.
    pub(super) mode: Option<&'static str>,
}

const REFUSAL: GpuRefusal = GpuRefusal::Certificates { part: "firmware identity" };

impl Firmware {
    /// Reads the content of the extension in a certificate of `architecture`.
    pub(super) fn parse(content: &[u8], architecture: GpuArchitecture) -> Result<Self, GpuRefusal> {
        let elements = elements(content)?;
        match architecture {
            GpuArchitecture::Hopper => composite_device_id(&elements),
            GpuArchitecture::Blackwell => tcb_info(&elements),
        }
    }
}

/// The elements of a SEQUENCE that is all of `content`.
fn elements(content: &[u8]) -> Result<Vec<AnyRef<'_>>, GpuRefusal> {
    let sequence = <&x509_cert::der::asn1::SequenceRef>::from_der(content).map_err(|_| REFUSAL)?;
    read_all(sequence.as_bytes())
}

fn read_all(content: &[u8]) -> Result<Vec<AnyRef<'_>>, GpuRefusal> {
    let mut reader = SliceReader::new(content).map_err(|_| REFUSAL)?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(AnyRef::decode(&mut reader).map_err(|_| REFUSAL)?);
    }
    Ok(elements)
}

/// `FWID ::= SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }`, of SHA-384.
fn fwid(element: &AnyRef<'_>) -> Result<[u8; 48], GpuRefusal> {
    let parts = read_all(element.value())?;
    let [algorithm, digest] = parts.as_slice() else {
        return Err(REFUSAL);
    };
    let algorithm: ObjectIdentifier = algorithm.decode_as().map_err(|_| REFUSAL)?;
    let digest: &OctetStringRef = digest.decode_as().map_err(|_| REFUSAL)?;
    if algorithm != SHA384 {
        return Err(REFUSAL);
    }
    digest.as_bytes().try_into().map_err(|_| REFUSAL)
}

/// Hopper: `CompositeDeviceID ::= SEQUENCE { version INTEGER, deviceID SubjectPublicKeyInfo,
/// fwid FWID }`.
fn composite_device_id(elements: &[AnyRef<'_>]) -> Result<Firmware, GpuRefusal> {
    let [_version, _device, identity] = elements else {
        return Err(REFUSAL);
    };
    Ok(Firmware { identity: fwid(identity)?, mode: None })
}

/// Blackwell: `DiceTcbInfo`, of which `[6] fwids` and `[7] flags` count. NVIDIA compares the first of
/// the identities.
fn tcb_info(elements: &[AnyRef<'_>]) -> Result<Firmware, GpuRefusal> {
    let find = |number| {
        let mut found = elements.iter().filter(|element| {
            let tag = element.tag();
            tag.class() == Class::ContextSpecific && tag.number().value() == number
        });
        match (found.next(), found.next()) {
            (found, None) => Ok(found),
            _ => Err(REFUSAL),
        }
    };
    let identities = read_all(find(6)?.ok_or(REFUSAL)?.value())?;
    let identity = fwid(identities.first().ok_or(REFUSAL)?)?;
    Ok(Firmware { identity, mode: find(7)?.map_or(Ok(None), |flags| operational_mode(flags))? })
}

/// `OperationalFlags ::= BIT STRING { notConfigured(0), notSecure(1), recovery(2), debug(3), … }`.
/// Genuine devices in the field set `notConfigured`; the next three take protections away.
fn operational_mode(flags: &AnyRef<'_>) -> Result<Option<&'static str>, GpuRefusal> {
    let [unused, bits @ ..] = flags.value() else {
        return Err(REFUSAL);
    };
    let flags = BitStringRef::new(*unused, bits).map_err(|_| REFUSAL)?;
    let mut bits = flags.bits();
    let mut set = || bits.next().unwrap_or(false);
    let _not_configured = set();
    Ok(match [set(), set(), set()] {
        [true, ..] => Some("non-secure"),
        [_, true, _] => Some("recovery"),
        [.., true] => Some("debug"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `DiceTcbInfo` of a GB100 in the field, out of `testdata/nvidia/blackwell_chain.pem`.
    const GENUINE: &str = concat!(
        "3081b180064e5649444941810d474231303020413031204753508202303183010184010085",
        "0100a67e303d06096086480165030402020430d090cab1b6e6ffddca83d1781e25b3f040fa",
        "1f3c7608230cb5f41b1c1b99f5f748349e59d0ef8eb830c9bc79ccf77502303d0609608648",
        "01650304020204300000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000087050080000001880100890100"
    );

    fn genuine() -> Vec<u8> {
        // The last two fields are not looked at, so their values here are the test's.
        hex::decode(GENUINE).unwrap()
    }

    fn mode(flags: u8) -> Option<&'static str> {
        let mut content = genuine();
        let at = content.len() - 10;
        assert_eq!(content[at], 0x80);
        content[at] = flags;
        Firmware::parse(&content, GpuArchitecture::Blackwell).unwrap().mode
    }

    #[test]
    fn protections_that_are_down_are_named() {
        let firmware = Firmware::parse(&genuine(), GpuArchitecture::Blackwell).unwrap();
        assert_eq!(firmware.mode, None);
        assert_eq!(hex::encode(&firmware.identity[..4]), "d090cab1");
        assert_eq!(mode(0x00), None);
        // As on the same device's boot processor, in NVIDIA's test data: not configured, and debug.
        assert_eq!(mode(0x90), Some("debug"));
        assert_eq!(mode(0xa0), Some("recovery"));
        assert_eq!(mode(0xc0), Some("non-secure"));
    }

    #[test]
    fn every_truncation_and_the_other_family_s_form_are_refused() {
        let content = genuine();
        for end in 0..content.len() {
            let cut = Firmware::parse(&content[..end], GpuArchitecture::Blackwell);
            assert_eq!(cut, Err(REFUSAL), "{end}");
        }
        assert_eq!(Firmware::parse(&content, GpuArchitecture::Hopper), Err(REFUSAL));
    }

    #[test]
    fn another_hash_algorithm_is_refused() {
        let mut content = genuine();
        let at = content.windows(9).position(|window| window == SHA384.as_bytes()).unwrap();
        content[at + 8] = 1;
        assert_eq!(Firmware::parse(&content, GpuArchitecture::Blackwell), Err(REFUSAL));
    }
}
