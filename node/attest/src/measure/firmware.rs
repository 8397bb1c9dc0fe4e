//! OVMF's table of named blocks at the end of a firmware image.
//!
//! Owns: finding a block by its GUID, and reading numbers out of the image without a panic.
//! Must not: know what a block means.

/// Why firmware cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// No table where OVMF has it.
    #[error("it has no table of OVMF at its end; use an OVMF image in one file, not its VARS part")]
    NoTable,
    /// A length in the table leads out of it.
    #[error("OVMF's table at its end is damaged")]
    BrokenTable,
    /// Two blocks by one name: readers differ in which one they take.
    #[error("OVMF's table at its end has two blocks of one name")]
    DuplicateBlock,
    /// Firmware that knows nothing of SEV.
    #[error(
        "it has no {block}; it was built without SEV-SNP: use OVMF's AmdSev build or a generic build with SEV metadata"
    )]
    NoSevMetadata {
        /// What is missing.
        block: &'static str,
    },
    /// Firmware that does not check the kernel.
    #[error(
        "it has no place for the hashes of a kernel, so the kernel would not be measured; use OVMF's AmdSev build"
    )]
    NoKernelHashes,
    /// The SEV metadata cannot be right.
    #[error("its SEV metadata is damaged: {fault}")]
    BrokenSevMetadata {
        /// What is wrong.
        fault: &'static str,
    },
    /// Firmware that knows nothing of TDX.
    #[error("it has no TDVF metadata; it was built without TDX: use OVMF's IntelTdx build")]
    NoTdvfMetadata,
    /// The TDVF metadata cannot be right.
    #[error("its TDVF metadata is damaged: {fault}")]
    BrokenTdvfMetadata {
        /// What is wrong.
        fault: &'static str,
    },
}

impl FirmwareError {
    /// What it was to be firmware for.
    pub(super) const fn wanted(&self) -> &'static str {
        match self {
            Self::NoTable | Self::BrokenTable | Self::DuplicateBlock => "a confidential guest",
            Self::NoSevMetadata { .. } | Self::NoKernelHashes | Self::BrokenSevMetadata { .. } => {
                "SEV-SNP"
            }
            Self::NoTdvfMetadata | Self::BrokenTdvfMetadata { .. } => "TDX",
        }
    }
}

/// A GUID as firmware stores it: its first three groups little-endian.
pub(super) type Guid = [u8; 16];

/// 96b582de-1fb2-45f7-baea-a366c55a082d: the table's own entry, its last
/// (edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`).
pub(super) const TABLE: Guid = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];
/// The reset vector behind the table.
pub(super) const BYTES_BEHIND: usize = 32;
/// An entry ends with its length (u16, all of it) and its GUID.
pub(super) const ENTRY_TAIL: usize = 18;

/// The blocks of an image.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    blocks: Vec<(Guid, &'a [u8])>,
}

impl<'a> Blocks<'a> {
    /// Reads the table.
    pub(super) fn read(image: &'a [u8]) -> Result<Self, FirmwareError> {
        let end = image.len().checked_sub(BYTES_BEHIND).ok_or(FirmwareError::NoTable)?;
        let above = image.get(..end).ok_or(FirmwareError::NoTable)?;
        let (above, length, guid) = split_tail(above).ok_or(FirmwareError::NoTable)?;
        if guid != TABLE {
            return Err(FirmwareError::NoTable);
        }
        let length = length.checked_sub(ENTRY_TAIL).ok_or(FirmwareError::BrokenTable)?;
        let start = above.len().checked_sub(length).ok_or(FirmwareError::BrokenTable)?;
        let mut table = above.get(start..).ok_or(FirmwareError::BrokenTable)?;
        let mut blocks: Vec<(Guid, &[u8])> = Vec::new();
        while !table.is_empty() {
            let (rest, length, guid) = split_tail(table).ok_or(FirmwareError::BrokenTable)?;
            let length = length.checked_sub(ENTRY_TAIL).ok_or(FirmwareError::BrokenTable)?;
            let start = rest.len().checked_sub(length).ok_or(FirmwareError::BrokenTable)?;
            let (rest, data) = rest.split_at_checked(start).ok_or(FirmwareError::BrokenTable)?;
            if blocks.iter().any(|(known, _)| *known == guid) {
                return Err(FirmwareError::DuplicateBlock);
            }
            blocks.push((guid, data));
            table = rest;
        }
        Ok(Self { blocks })
    }

    /// A block's content.
    pub(super) fn get(&self, guid: &Guid) -> Option<&'a [u8]> {
        self.blocks.iter().find(|(known, _)| known == guid).map(|(_, data)| *data)
    }
}

/// An entry's end: what is before, the entry's length, its GUID.
fn split_tail(bytes: &[u8]) -> Option<(&[u8], usize, Guid)> {
    let (rest, guid) = bytes.split_last_chunk::<16>()?;
    let (rest, length) = rest.split_last_chunk::<2>()?;
    Some((rest, usize::from(u16::from_le_bytes(*length)), *guid))
}

/// A little-endian u32 at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A little-endian u16 at `offset`.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A little-endian u64 at `offset`.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A u32 as a size or place in memory. This crate is for machines of 32 bits or more.
pub(super) fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An image of `length` bytes that ends with a table of these blocks.
    pub(in crate::measure) fn image(length: usize, blocks: &[(Guid, &[u8])]) -> Vec<u8> {
        let mut table = Vec::new();
        for (guid, data) in blocks {
            table.extend_from_slice(data);
            table.extend_from_slice(&u16::try_from(data.len() + ENTRY_TAIL).unwrap().to_le_bytes());
            table.extend_from_slice(guid);
        }
        table.extend_from_slice(&u16::try_from(table.len() + ENTRY_TAIL).unwrap().to_le_bytes());
        table.extend_from_slice(&TABLE);
        let mut image = vec![0; length - table.len() - BYTES_BEHIND];
        image.extend_from_slice(&table);
        image.extend_from_slice(&[0x90; BYTES_BEHIND]);
        image
    }

    #[test]
    fn blocks_are_found_by_name() {
        let image = image(4096, &[([1; 16], b"one"), ([2; 16], b""), ([3; 16], b"three")]);
        let blocks = Blocks::read(&image).unwrap();
        assert_eq!(blocks.get(&[1; 16]), Some(&b"one"[..]));
        assert_eq!(blocks.get(&[2; 16]), Some(&b""[..]));
        assert_eq!(blocks.get(&[3; 16]), Some(&b"three"[..]));
        assert_eq!(blocks.get(&[4; 16]), None);
    }

    #[test]
    fn an_image_without_a_table_is_refused() {
        for length in [0, 31, 32, 49, 50, 4096] {
            assert_eq!(Blocks::read(&vec![0; length]).unwrap_err(), FirmwareError::NoTable);
        }
    }

    #[test]
    fn two_blocks_of_one_name_are_refused() {
        let image = image(4096, &[([1; 16], b"one"), ([1; 16], b"two")]);
        assert_eq!(Blocks::read(&image).unwrap_err(), FirmwareError::DuplicateBlock);
    }

    #[test]
    fn lengths_that_lead_out_of_the_table_are_refused() {
        let good = image(256, &[([1; 16], b"one")]);
        let own = good.len() - BYTES_BEHIND - ENTRY_TAIL;
        let entry = own - ENTRY_TAIL;
        for (place, length) in [(own, 17u16), (own, 0xffff), (entry, 0), (entry, 17), (entry, 99)] {
            let mut bad = good.clone();
            bad[place..place + 2].copy_from_slice(&length.to_le_bytes());
            assert_eq!(Blocks::read(&bad).unwrap_err(), FirmwareError::BrokenTable, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_image_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), own in any::<u16>()) {
            let _ = Blocks::read(&bytes);
            if let Some(start) = bytes.len().checked_sub(BYTES_BEHIND + ENTRY_TAIL) {
                bytes[start..start + 2].copy_from_slice(&(own % 200).to_le_bytes());
                bytes[start + 2..start + ENTRY_TAIL].copy_from_slice(&TABLE);
                let _ = Blocks::read(&bytes);
            }
        }
    }
}
