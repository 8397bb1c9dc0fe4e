//! MRTD: what the TDX module measures while a guest's first memory is built.
//!
//! Owns: TDVF's metadata, and the order of the module's calls.
//! Must not: measure what the guest does later; that is in the RTMRs.

use cocoon_protocol::attest::Register;
use sha2::{Digest as _, Sha384};

use super::firmware::{Blocks, FirmwareError, Guid, size, u32_at, u64_at};

/// e47a6535-984a-4798-865e-4685a7bf8ec2: where the metadata is, counted from the image's end
/// (Intel, *TDX Virtual Firmware Design Guide*, §11; edk2, `OvmfPkg/ResetVector`).
const METADATA_OFFSET: Guid = [
    0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
];
const DESCRIPTOR_BYTES: usize = 16;
const SECTION_BYTES: usize = 32;
/// The module hashes the section's content.
const EXTEND: u32 = 1;
/// The guest accepts the memory later; nothing is added at build time.
const AUGMENT: u32 = 2;
/// Memory is added by such pages.
const PAGE: u64 = 4096;
/// And hashed by such chunks.
const CHUNK: u64 = 256;
/// More memory than any firmware is given at its start: a bound for the time that this takes.
const MOST_PAGES: u64 = 1 << 18;
/// OVMF has six sections.
const MOST_SECTIONS: u32 = 64;

/// In which order the host adds and measures a section's pages. The guest's owner does not choose
/// it, the host's kernel and QEMU do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is added, then measured, before the next: Linux's KVM since TDX is in it (6.16).
    #[default]
    Page,
    /// All pages of a section are added, then all measured: Intel's and vendors' kernels before.
    Section,
}

/// A section of memory that the host builds.
#[derive(Debug)]
struct Section<'a> {
    /// Its address in the guest.
    address: u64,
    pages: u64,
    /// Memory is added for it.
    adds: bool,
    /// Its content, if that is measured.
    measured: Option<&'a [u8]>,
}

/// The MRTD of a guest that is launched with this firmware.
///
/// For each page `TDH.MEM.PAGE.ADD` extends the digest by 128 bytes with its name and the page's
/// address, and for each measured chunk of 256 bytes `TDH.MR.EXTEND` by 128 bytes with its name
/// and the chunk's address, and the chunk (Intel, *TDX Module Base Architecture Specification*,
/// "TD Measurement: MRTD"; *ABI Reference*, both calls).
///
/// # Errors
/// Firmware without TDVF's metadata, or with metadata that cannot be right.
pub fn mrtd(firmware: &[u8], order: PageOrder) -> Result<Register, FirmwareError> {
    let mut build = Build(Sha384::new());
    for section in sections(firmware)? {
        match order {
            PageOrder::Page => {
                for page in 0..section.pages {
                    build.add(&section, page);
                    build.measure(&section, page);
                }
            }
            PageOrder::Section => {
                (0..section.pages).for_each(|page| build.add(&section, page));
                (0..section.pages).for_each(|page| build.measure(&section, page));
            }
        }
    }
    Ok(Register::from_bytes(build.0.finalize().into()))
}

/// The module's running digest while a guest is built.
struct Build(Sha384);

impl Build {
    fn call(&mut self, name: &[u8], address: u64) {
        let mut block = [0; 128];
        block.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        block.iter_mut().skip(16).zip(address.to_le_bytes()).for_each(|(to, from)| *to = from);
        self.0.update(block);
    }

    /// `TDH.MEM.PAGE.ADD`.
    fn add(&mut self, section: &Section<'_>, page: u64) {
        if section.adds {
            self.call(b"MEM.PAGE.ADD", section.address + page * PAGE);
        }
    }

    /// `TDH.MR.EXTEND`, for each chunk of the page.
    fn measure(&mut self, section: &Section<'_>, page: u64) {
        let Some(content) = section.measured else {
            return;
        };
        let (chunk, start) = (place(CHUNK), place(page * PAGE));
        let page_content = content.get(start..).unwrap_or_default().chunks_exact(chunk);
        for (index, bytes) in (0..PAGE / CHUNK).zip(page_content) {
            self.call(b"MR.EXTEND", section.address + page * PAGE + index * CHUNK);
            self.0.update(bytes);
        }
    }
}

/// A place in an image that was read into memory.
fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The sections that TDVF's metadata lists, in its order.
fn sections(firmware: &[u8]) -> Result<Vec<Section<'_>>, FirmwareError> {
    let broken = |fault| FirmwareError::BrokenTdvfMetadata { fault };
    let block = Blocks::read(firmware)?.get(&METADATA_OFFSET);
    let block = block.ok_or(FirmwareError::NoTdvfMetadata)?;
    let from_end = match <[u8; 4]>::try_from(block) {
        Ok(bytes) => size(u32::from_le_bytes(bytes)),
        Err(_) => return Err(broken("its place is not a number of 32 bits")),
    };
    let start = firmware.len().checked_sub(from_end);
    let metadata = start.and_then(|start| firmware.get(start..));
    let metadata = metadata.ok_or_else(|| broken("its place is outside the image"))?;
    if metadata.get(..4) != Some(b"TDVF") {
        return Err(broken("it does not begin with `TDVF`"));
    }
    let cut = || broken("its end is missing");
    if u32_at(metadata, 8).ok_or_else(cut)? != 1 {
        return Err(broken("its version is not 1, the only one that is known"));
    }
    let count = u32_at(metadata, 12).ok_or_else(cut)?;
    if count > MOST_SECTIONS {
        return Err(broken("it lists more sections than any firmware has"));
    }
    let length = size(count) * SECTION_BYTES + DESCRIPTOR_BYTES;
    if u32_at(metadata, 4).map(size) != Some(length) {
        return Err(broken("its length does not fit its number of sections"));
    }
    let table = metadata.get(DESCRIPTOR_BYTES..length).ok_or_else(cut)?;
    let sections: Vec<_> = table
        .chunks_exact(SECTION_BYTES)
        .map(|entry| section(firmware, entry))
        .collect::<Result<_, _>>()?;
    if sections.iter().map(|section| section.pages).sum::<u64>() > MOST_PAGES {
        return Err(broken("its sections are larger than a guest's first memory can be"));
    }
    if !sections.iter().any(|section| section.adds && section.measured.is_some()) {
        return Err(broken("none of its sections is measured"));
    }
    Ok(sections)
}

fn section<'a>(firmware: &'a [u8], entry: &[u8]) -> Result<Section<'a>, FirmwareError> {
    let broken = |fault| FirmwareError::BrokenTdvfMetadata { fault };
    let word = |offset| u32_at(entry, offset).ok_or_else(|| broken("its end is missing"));
    let long = |offset| u64_at(entry, offset).ok_or_else(|| broken("its end is missing"));
    let (data_offset, data_length) = (size(word(0)?), u64::from(word(4)?));
    let (address, length, attributes) = (long(8)?, long(16)?, word(28)?);
    if address % PAGE != 0 || length % PAGE != 0 || address.checked_add(length).is_none() {
        return Err(broken("a section is not made of whole pages"));
    }
    if attributes & !(EXTEND | AUGMENT) != 0 {
        return Err(broken("a section has an attribute that is not known"));
    }
    let pages = length / PAGE;
    if pages > MOST_PAGES {
        return Err(broken("a section is larger than a guest's first memory can be"));
    }
    let end = data_offset.checked_add(place(data_length));
    let content = end.and_then(|end| firmware.get(data_offset..end));
    let content = content.ok_or_else(|| broken("a section's content is outside the image"))?;
    if data_length > length {
        return Err(broken("a section's content is larger than its memory"));
    }
    let extends = attributes & EXTEND != 0;
    // What the host pads with would be measured too; no firmware leaves that to it.
    if extends && data_length != length {
        return Err(broken("a measured section's content is smaller than its memory"));
    }
    if extends && attributes & AUGMENT != 0 {
        return Err(broken("a section is measured that is not there at the beginning"));
    }
    Ok(Section {
        address,
        pages,
        adds: attributes & AUGMENT == 0,
        measured: extends.then_some(content),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::firmware::tests::image as firmware_image;
    use super::*;
    use proptest::prelude::*;

    const IMAGE_BYTES: usize = 0x5000;
    const METADATA_AT: usize = 0x4000;
    /// Content at 0x1000, measured; variables at 0, not measured; a stack without content; memory
    /// that the guest accepts later.
    const SECTIONS: [(u32, u32, u64, u64, u32, u32); 4] = [
        (0x1000, 0x2000, 0xffff_c000, 0x2000, 0, EXTEND),
        (0, 0x1000, 0xffff_b000, 0x1000, 1, 0),
        (0, 0, 0x81_0000, 0x3000, 3, 0),
        (0, 0, 0x82_0000, 0x1000, 4, AUGMENT),
    ];

    /// A small TDVF image, laid out as OVMF's are.
    pub(in crate::measure) fn image() -> Vec<u8> {
        let from_end = u32::try_from(IMAGE_BYTES - METADATA_AT).unwrap().to_le_bytes();
        let mut image =
            firmware_image(IMAGE_BYTES, &[([1; 16], b"else"), (METADATA_OFFSET, &from_end)]);
        for (index, byte) in image[..0x3000].iter_mut().enumerate() {
            *byte = u8::try_from(index % 253).unwrap();
        }
        let mut metadata = b"TDVF".to_vec();
        for number in [16 + 32 * u32::try_from(SECTIONS.len()).unwrap(), 1, 4] {
            metadata.extend_from_slice(&number.to_le_bytes());
        }
        for (offset, length, address, memory, kind, attributes) in SECTIONS {
            metadata.extend_from_slice(&offset.to_le_bytes());
            metadata.extend_from_slice(&length.to_le_bytes());
            metadata.extend_from_slice(&address.to_le_bytes());
            metadata.extend_from_slice(&memory.to_le_bytes());
            metadata.extend_from_slice(&kind.to_le_bytes());
            metadata.extend_from_slice(&attributes.to_le_bytes());
        }
        image[METADATA_AT..METADATA_AT + metadata.len()].copy_from_slice(&metadata);
        image
    }

    /// The image with the u32 at `offset` of the metadata replaced.
    fn with(offset: usize, value: u32) -> Vec<u8> {
        let mut image = image();
        let at = METADATA_AT + offset;
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        image
    }

    #[track_caller]
    fn fault(image: &[u8]) -> &'static str {
        let error = mrtd(image, PageOrder::Page).unwrap_err();
        let FirmwareError::BrokenTdvfMetadata { fault } = error else { panic!("{error}") };
        fault
    }

    /// By `mrtd(tdvf())` of `node/tests/measurement_tools/check.py`, a second implementation, which
    /// gives the values that live guests report for published firmware.
    #[test]
    fn golden_mrtd_in_both_orders() {
        assert_eq!(
            mrtd(&image(), PageOrder::Page).unwrap().to_string(),
            "897b5038815476203cc2684caff1dcef826943c2e384c061194a2ac46558626c0355ca2b428fc227b430e726ba313f4b"
        );
        assert_eq!(
            mrtd(&image(), PageOrder::Section).unwrap().to_string(),
            "da55a49af45779822246622849a597a34b3300ca6d1066c055acce2514ffb502f18788f0cc5d3b9a23b87f766bb6876e"
        );
    }

    #[test]
    fn what_is_measured_counts_and_what_is_not_does_not() {
        let good = mrtd(&image(), PageOrder::Page).unwrap();
        for (place, counts) in [(0x1000, true), (0x2fff, true), (0xfff, false), (0x3000, false)] {
            let mut image = image();
            image[place] ^= 1;
            assert_eq!(mrtd(&image, PageOrder::Page).unwrap() != good, counts, "{place:#x}");
        }
    }

    #[test]
    fn firmware_without_tdvf_metadata_is_refused() {
        let image = firmware_image(4096, &[([1; 16], b"else")]);
        assert_eq!(mrtd(&image, PageOrder::Page), Err(FirmwareError::NoTdvfMetadata));
        assert_eq!(mrtd(&[0; 4096], PageOrder::Page), Err(FirmwareError::NoTable));
    }

    #[test]
    fn damaged_metadata_is_refused_with_what_is_wrong() {
        assert!(fault(&with(0, 0)).contains("begin with"));
        assert!(fault(&with(4, 0)).contains("does not fit"));
        assert!(fault(&with(8, 2)).contains("version"));
        assert!(fault(&with(12, 65)).contains("more sections"));
        assert!(fault(&with(16 + 8, 0xffff_c001)).contains("whole pages"));
        assert!(fault(&with(16 + 20, 1)).contains("first memory"));
        assert!(fault(&with(16, 0x4000)).contains("outside the image"));
        assert!(fault(&with(16 + 16, 0x1000)).contains("larger than its memory"));
        assert!(fault(&with(16 + 16, 0x3000)).contains("smaller than its memory"));
        assert!(fault(&with(16 + 28, 4)).contains("attribute"));
        assert!(fault(&with(16 + 28, 3)).contains("not there at the beginning"));
        assert!(fault(&with(16 + 28, 0)).contains("none of its sections is measured"));
        let block = firmware_image(4096, &[(METADATA_OFFSET, &[0xff; 4])]);
        assert!(fault(&block).contains("its place is outside"));
        let block = firmware_image(4096, &[(METADATA_OFFSET, &[1; 5])]);
        assert!(fault(&block).contains("32 bits"));
    }

    proptest! {
        #[test]
        fn no_metadata_panics(changes in prop::collection::vec((0usize..160, any::<u8>()), 1..6)) {
            let mut image = image();
            for (place, value) in changes {
                image[METADATA_AT + place] = value;
            }
            let _ = mrtd(&image, PageOrder::Page);
        }
    }
}
