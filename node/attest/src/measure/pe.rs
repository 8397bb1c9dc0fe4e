//! The digest of an EFI image that firmware measures when it loads one.
//!
//! Owns: Authenticode's digest. Must not: check signatures; nobody here trusts them.

use sha2::{Digest as _, Sha384};

use super::firmware::{size, u16_at, u32_at};

/// Why an image has no such digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// No PE image at all.
    #[error("it is no PE image; use the compressed kernel (`vmlinuz`), not an ELF `vmlinux`")]
    NotPe,
    /// Something in its headers leads out of the file.
    #[error("the PE image's headers are damaged or its end is missing")]
    Broken,
}

/// The header's signature's place, in the DOS header.
const PE_OFFSET: usize = 0x3c;
/// COFF header behind the signature.
const COFF_BYTES: usize = 20;
/// `CheckSum` in the optional header, of either size.
const CHECKSUM: usize = 64;
/// `SizeOfHeaders` in the optional header.
const SIZE_OF_HEADERS: usize = 60;
/// The directory of certificates is the fifth, eight bytes each.
const CERTIFICATES: usize = 4;
const SECTION_HEADER: usize = 40;

/// SHA-384 over an EFI image as firmware measures it: everything but the checksum, the directory
/// entry of the certificates, and the certificates.
///
/// Source: Microsoft, *Windows Authenticode Portable Executable Signature Format*, "Calculating
/// the PE Image Hash", as edk2's `MeasurePeImageAndExtend` follows it.
///
/// # Errors
/// It is no PE image, or a damaged one.
pub fn authenticode_sha384(image: &[u8]) -> Result<[u8; 48], PeError> {
    let start = size(u32_at(image, PE_OFFSET).ok_or(PeError::NotPe)?);
    if image.get(..2) != Some(b"MZ")
        || image.get(start..).and_then(|it| it.get(..4)) != Some(b"PE\0\0")
    {
        return Err(PeError::NotPe);
    }
    let coff = start + 4;
    let section_count = usize::from(u16_at(image, coff + 2).ok_or(PeError::Broken)?);
    let optional_bytes = usize::from(u16_at(image, coff + 16).ok_or(PeError::Broken)?);
    let optional = coff + COFF_BYTES;
    // Before the directories, a 64 bit image's header has 16 bytes more.
    let directory_count_at = match u16_at(image, optional) {
        Some(0x20b) => optional + 108,
        Some(0x10b) => optional + 92,
        _ => return Err(PeError::Broken),
    };
    let header_bytes = size(u32_at(image, optional + SIZE_OF_HEADERS).ok_or(PeError::Broken)?);
    let directories = size(u32_at(image, directory_count_at).ok_or(PeError::Broken)?);

    let mut hasher = Sha384::new();
    let mut take = |from: usize, to: usize| -> Result<(), PeError> {
        hasher.update(image.get(from..to).ok_or(PeError::Broken)?);
        Ok(())
    };
    let checksum = optional + CHECKSUM;
    take(0, checksum)?;
    let mut certificate_bytes = 0;
    if directories > CERTIFICATES {
        let entry = directory_count_at + 4 + CERTIFICATES * 8;
        certificate_bytes = size(u32_at(image, entry + 4).ok_or(PeError::Broken)?);
        take(checksum + 4, entry)?;
        take(entry + 8, header_bytes)?;
    } else {
        take(checksum + 4, header_bytes)?;
    }

    let mut sections = Vec::with_capacity(section_count);
    for index in 0..section_count {
        let header = optional + optional_bytes + index * SECTION_HEADER;
        let length = size(u32_at(image, header + 16).ok_or(PeError::Broken)?);
        let place = size(u32_at(image, header + 20).ok_or(PeError::Broken)?);
        if length > 0 {
            sections.push((place, length));
        }
    }
    sections.sort_by_key(|(place, _)| *place);
    let mut hashed = header_bytes;
    for (place, length) in sections {
        hashed = hashed.checked_add(length).ok_or(PeError::Broken)?;
        // Sections that lie on one another are no kernel's, and could be hashed for hours.
        if hashed > image.len() {
            return Err(PeError::Broken);
        }
        take(place, place.checked_add(length).ok_or(PeError::Broken)?)?;
    }
    // What is behind the sections, but for the certificates, which are last.
    if image.len() > hashed {
        take(hashed, image.len().checked_sub(certificate_bytes).ok_or(PeError::Broken)?)?;
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHECKSUM_AT: usize = 0x40 + 4 + COFF_BYTES + CHECKSUM;
    const CERTIFICATES_AT: usize = 0x40 + 4 + COFF_BYTES + 112 + CERTIFICATES * 8;

    /// A 64 bit image with two sections, in the wrong order, bytes behind them, and certificates.
    pub(in crate::measure) fn image() -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x40;
        image[0x40..0x44].copy_from_slice(b"PE\0\0");
        image[0x44..0x48].copy_from_slice(&[0x64, 0x86, 2, 0]);
        image[0x54..0x58].copy_from_slice(&[240, 0, 0x22, 0]);
        let optional = 0x58;
        image[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        image[optional + 56..optional + 60].copy_from_slice(&0x3000u32.to_le_bytes());
        image[optional + 60..optional + 64].copy_from_slice(&0x200u32.to_le_bytes());
        image[optional + 64..optional + 68].copy_from_slice(&0xdead_beefu32.to_le_bytes());
        image[optional + 108] = 16;
        image[CERTIFICATES_AT..CERTIFICATES_AT + 4].copy_from_slice(&0x420u32.to_le_bytes());
        image[CERTIFICATES_AT + 4] = 8;
        for (index, place) in [0x300u32, 0x200].into_iter().enumerate() {
            let header = optional + 240 + index * SECTION_HEADER;
            image[header..header + 3].copy_from_slice([b".s0", b".s1"][index]);
            image[header + 8..header + 12].copy_from_slice(&0x100u32.to_le_bytes());
            image[header + 12..header + 16]
                .copy_from_slice(&[0x2000u32, 0x1000][index].to_le_bytes());
            image[header + 16..header + 20].copy_from_slice(&0x100u32.to_le_bytes());
            image[header + 20..header + 24].copy_from_slice(&place.to_le_bytes());
        }
        for (index, byte) in image[0x200..].iter_mut().enumerate() {
            *byte = u8::try_from(index % 251).unwrap();
        }
        image.extend_from_slice(&[7; 0x20]);
        image.extend_from_slice(&[9; 8]);
        image
    }

    /// Everything that counts, in the file's order, put together by hand.
    fn expected(image: &[u8]) -> [u8; 48] {
        let parts = [
            &image[..CHECKSUM_AT],
            &image[CHECKSUM_AT + 4..CERTIFICATES_AT],
            &image[CERTIFICATES_AT + 8..0x420],
        ];
        Sha384::digest(parts.concat()).into()
    }

    #[test]
    fn checksum_and_certificates_do_not_count_and_everything_else_does() {
        let good = image();
        let digest = authenticode_sha384(&good).unwrap();
        assert_eq!(digest, expected(&good));
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 1;
            let ignored = (CHECKSUM_AT..CHECKSUM_AT + 4).contains(&place)
                || (CERTIFICATES_AT..CERTIFICATES_AT + 4).contains(&place)
                || place >= 0x420;
            assert_eq!(authenticode_sha384(&changed) == Ok(digest), ignored, "byte {place:#x}");
        }
    }

    #[test]
    fn what_is_no_pe_image_is_refused() {
        for bytes in [&b""[..], b"MZ", b"\x7fELF", &[0; 4096]] {
            assert_eq!(authenticode_sha384(bytes), Err(PeError::NotPe));
        }
    }

    /// The image that fuzzing starts from.
    #[test]
    fn the_committed_image_is_this_one() {
        assert!(image() == include_bytes!("../../testdata/measure/efi_image.bin"));
    }

    #[test]
    fn sections_that_lie_on_one_another_are_refused() {
        let mut image = image();
        // The second section begins where the first does, and both are all that is not headers.
        let second = 0x58 + 240 + SECTION_HEADER;
        for header in [second - SECTION_HEADER, second] {
            image[header + 16..header + 20].copy_from_slice(&0x220u32.to_le_bytes());
            image[header + 20..header + 24].copy_from_slice(&0x200u32.to_le_bytes());
        }
        assert_eq!(authenticode_sha384(&image), Err(PeError::Broken));
        image[second + 16..second + 20].fill(0);
        assert!(authenticode_sha384(&image).is_ok());
    }

    #[test]
    fn every_truncation_is_refused_or_another_digest() {
        let good = image();
        let digest = authenticode_sha384(&good).unwrap();
        for end in 0..good.len() {
            assert_ne!(authenticode_sha384(&good[..end]), Ok(digest), "{end}");
        }
        assert_eq!(authenticode_sha384(&good[..0x3ff]), Err(PeError::Broken));
    }

    proptest! {
        #[test]
        fn no_header_panics(changes in prop::collection::vec((0usize..0x200, any::<u8>()), 1..12)) {
            let mut image = image();
            for (place, value) in changes {
                image[place] = value;
            }
            let _ = authenticode_sha384(&image);
        }
    }
}
