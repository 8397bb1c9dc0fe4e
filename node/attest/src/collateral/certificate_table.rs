//! The table of certificates that a host may hand to a SEV-SNP guest.
//!
//! Owns: its bounded reading. Must not: trust it: the host wrote it.
//!
//! AMD, *SEV-ES Guest-Hypervisor Communication Block Standardization*, 56421, §4.1.8.1: entries of a
//! GUID, an offset and a length, the last one all zeros, then the certificates.

use super::pem;

/// Which certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guid {
    /// The chip's key.
    Vcek,
    /// The hypervisor's owner's key.
    Vlek,
}

impl Guid {
    /// As it stands in the table: the first three parts of a GUID are little-endian.
    const fn bytes(self) -> [u8; 16] {
        match self {
            // 63da758d-e664-4564-adc5-f4b93be8accd
            Self::Vcek => [
                0x8d, 0x75, 0xda, 0x63, 0x64, 0xe6, 0x64, 0x45, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8,
                0xac, 0xcd,
            ],
            // a8074bc2-a25a-483e-aae6-39c045a0b8a1
            Self::Vlek => [
                0xc2, 0x4b, 0x07, 0xa8, 0x5a, 0xa2, 0x3e, 0x48, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0,
                0xb8, 0xa1,
            ],
        }
    }
}

const ENTRY_BYTES: usize = 24;
/// Certificates in one table.
const ENTRIES: usize = 16;

/// The certificate under `wanted`, DER; `None` when the table is not one, has none such, or what is
/// there is no certificate.
pub(super) fn find(table: &[u8], wanted: Guid) -> Option<Vec<u8>> {
    for entry in table.chunks_exact(ENTRY_BYTES).take(ENTRIES) {
        let (guid, place) = entry.split_first_chunk::<16>()?;
        let (offset, length) = place.split_first_chunk::<4>()?;
        let length: &[u8; 4] = length.first_chunk()?;
        if *guid == [0; 16] {
            return None;
        }
        if *guid == wanted.bytes() {
            let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let certificate = table.get(offset..offset.checked_add(length)?)?;
            pem::not_after(certificate)?;
            return Some(certificate.to_vec());
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::collateral) fn table(entries: &[(Guid, &[u8])]) -> Vec<u8> {
        let mut offset = ENTRY_BYTES * (entries.len() + 1);
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        for (guid, certificate) in entries {
            head.extend(guid.bytes());
            head.extend(u32::try_from(offset).unwrap().to_le_bytes());
            head.extend(u32::try_from(certificate.len()).unwrap().to_le_bytes());
            tail.extend_from_slice(certificate);
            offset += certificate.len();
        }
        head.extend([0; ENTRY_BYTES]);
        head.extend(tail);
        head
    }

    #[test]
    fn a_certificate_is_found_by_its_guid() {
        let one = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.der().to_vec();
        let other = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.der().to_vec();
        let both = table(&[(Guid::Vcek, &one), (Guid::Vlek, &other)]);
        assert_eq!(find(&both, Guid::Vcek), Some(one.clone()));
        assert_eq!(find(&both, Guid::Vlek), Some(other));
        assert_eq!(find(&table(&[(Guid::Vcek, &one)]), Guid::Vlek), None);
    }

    #[test]
    fn whatever_a_host_writes_is_bounded() {
        let certificate = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert;
        let good = table(&[(Guid::Vcek, certificate.der())]);
        for end in 0..good.len() {
            assert_eq!(find(&good[..end], Guid::Vcek), None, "cut at {end}");
        }
        for (at, bytes) in [(16, [0xff; 4]), (20, [0xff; 4]), (20, [0; 4])] {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&bytes);
            assert_eq!(find(&bad, Guid::Vcek), None);
        }
        assert_eq!(find(&table(&[(Guid::Vcek, b"no certificate")]), Guid::Vcek), None);
        assert_eq!(find(b"", Guid::Vcek), None);
    }
}
