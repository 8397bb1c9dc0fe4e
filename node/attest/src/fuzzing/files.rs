//! Firmware and kernels, as `tee measure` reads them.
//!
//! Owns: what must hold for any image, and small images that are understood.
//! Must not: hold a measurement against a value; the tests of `measure` do.

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use cocoon_protocol::attest::Register;

use crate::measure::{
    BootFiles, PageOrder, SnpLaunch, VcpuType, authenticode_sha384, mrtd, snp_launch_digest,
};

/// The end of OVMF's build for SEV with a kernel's hashes, and of its generic build.
const OVMF: [&[u8]; 2] = [
    include_bytes!("../../testdata/measure/ovmf_AmdSev_suffix.bin"),
    include_bytes!("../../testdata/measure/ovmf_OvmfX64_suffix.bin"),
];
/// A kernel with an EFI stub has nothing that this lacks: headers, two sections in the wrong order,
/// bytes behind them, certificates.
const KERNEL: &[u8] = include_bytes!("../../testdata/measure/efi_image.bin");
/// e47a6535-984a-4798-865e-4685a7bf8ec2 and 96b582de-1fb2-45f7-baea-a366c55a082d, as firmware stores
/// them: where TDVF's metadata is, and OVMF's table of such blocks.
const TDVF_BLOCK: [u8; 16] = [
    0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
];
const TABLE_BLOCK: [u8; 16] = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];

/// A file that a guest boots from, read as firmware and as a kernel.
///
/// Firmware of TDX is measured in either order of pages or in none, and no byte of SEV-SNP's is without
/// effect. What stands in front of a kernel's checksum counts, whatever its sections are.
pub fn boot_files(data: &[u8]) {
    let [page, section] = [PageOrder::Page, PageOrder::Section].map(|order| mrtd(data, order));
    assert_eq!(page.err(), section.err(), "whether firmware is good depends on the order of pages");

    let with_altered = |place: usize| {
        let mut altered = data.to_vec();
        if let Some(byte) = altered.get_mut(place) {
            *byte ^= 1;
        }
        altered
    };
    let digests = launch_digests(data);
    if digests.iter().any(Option::is_some) {
        for (digest, other) in digests.iter().zip(launch_digests(&with_altered(0))) {
            assert!(digest.is_none() || *digest != other, "firmware's first byte is ignored");
        }
    }
    if let Ok(digest) = authenticode_sha384(data) {
        let other = authenticode_sha384(&with_altered(2));
        assert_ne!(other, Ok(digest), "a byte of the kernel's header is ignored");
    }
}

/// The launch digests of one processor, without a kernel and with one, where the firmware has them.
/// Through files, as there is no other way to them.
fn launch_digests(firmware: &[u8]) -> [Option<Register>; 2] {
    static FOLDER: LazyLock<Mutex<PathBuf>> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("cocoon-fuzz-{}", std::process::id()));
        let _ = std::fs::create_dir(&folder);
        let _ = std::fs::write(folder.join("empty"), []);
        Mutex::new(folder)
    });
    let folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, empty) = (folder.join("firmware"), folder.join("empty"));
    let written = std::fs::write(&path, firmware);
    [false, true].map(|with_kernel| {
        written.as_ref().ok()?;
        let boot = with_kernel.then(|| BootFiles {
            kernel: empty.clone(),
            initrd: empty.clone(),
            command_line: "quiet".to_owned(),
        });
        let (firmware, vcpu_type) = (path.clone(), "EPYC-v4".parse::<VcpuType>().ok()?);
        let launch = SnpLaunch { firmware, boot, vcpus: 1, vcpu_type, guest_features: 1 };
        snp_launch_digest(&launch).ok()
    })
}

/// As small as TDVF can be: one page, measured, that holds its own metadata, which lists a stack and
/// memory that is accepted later too.
fn tdvf() -> Vec<u8> {
    let sections: [(u32, u64, u64, u32, u32); 3] =
        [(4096, 0xffff_f000, 4096, 0, 1), (0, 0x81_0000, 8192, 3, 0), (0, 0x82_0000, 4096, 4, 2)];
    let mut metadata = b"TDVF".to_vec();
    [16 + 3 * 32u32, 1, 3].iter().for_each(|word| metadata.extend(word.to_le_bytes()));
    for (length, address, memory, kind, attributes) in sections {
        [0, length].iter().for_each(|word| metadata.extend(word.to_le_bytes()));
        [address, memory].iter().for_each(|long| metadata.extend(long.to_le_bytes()));
        [kind, attributes].iter().for_each(|word| metadata.extend(word.to_le_bytes()));
    }
    // The metadata's place, from the image's end, and the two blocks of the table.
    let mut end = (112 + 72u32).to_le_bytes().to_vec();
    end.extend([22, 0]);
    end.extend(TDVF_BLOCK);
    end.extend([40, 0]);
    end.extend(TABLE_BLOCK);
    end.extend([0x90; 32]);
    let mut image = vec![0x5a; 4096_usize.saturating_sub(metadata.len() + end.len())];
    image.extend(metadata);
    image.extend(end);
    image
}

pub(super) fn boot_file_seeds() -> Vec<Vec<u8>> {
    OVMF.into_iter().chain([KERNEL]).map(<[u8]>::to_vec).chain([tdvf()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_understood() {
        assert!(mrtd(&tdvf(), PageOrder::Page).is_ok());
        let [amdsev, generic] = OVMF;
        assert!(launch_digests(amdsev).iter().all(Option::is_some));
        assert!(launch_digests(generic)[0].is_some());
        assert!(authenticode_sha384(KERNEL).is_ok());
    }
}
