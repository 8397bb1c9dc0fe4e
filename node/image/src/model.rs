//! The model: copied from the host's disk into the guest's own memory, and hashed on the way.
//!
//! Owns: what the command line pins of it. Must not: read the disk twice, or mount it: the host can
//! change a disk's content at any time, and a file system on it would be parsed before it is known.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::mount::{MountFlags, mount, mount_remount};

use super::{disk, say};

/// On the kernel's command line: which model the disk must hold.
pub(crate) const MODEL_OPTION: &str = "cocoon.model=";
/// How the host marks the disk (`-device virtio-blk-pci,serial=…`).
const SERIAL: &str = "cocoon-model";
/// How often the disk is looked for, ten times a second.
const LOOKS: u32 = 100;
/// Read at once.
const BLOCK: usize = 1 << 20;

/// What the kernel's command line says of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPin {
    name: String,
    bytes: u64,
    hash: blake3::Hash,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelError {
    /// The option is not as it should be.
    #[error("cocoon.model is not NAME,BYTES,BLAKE3 with 64 small hexadecimal digits")]
    Pin,
    /// No disk of that name.
    #[error("the host gives no disk with the serial number `{SERIAL}`")]
    NoDisk,
    /// No memory for it.
    #[error("no memory can be set aside for the model")]
    Memory(#[source] rustix::io::Errno),
    /// The disk ends early or cannot be read.
    #[error("the model cannot be copied from its disk")]
    Copy(#[source] std::io::Error),
    /// Something else is on the disk.
    #[error("the disk holds another model: its hash is {found}")]
    Other {
        /// What it holds.
        found: blake3::Hash,
    },
}

impl ModelPin {
    /// What the node calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for ModelPin {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let mut fields = text.split(',');
        let (Some(name), Some(bytes), Some(hash), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(ModelError::Pin);
        };
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let plain =
            name.bytes().all(fits) && name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !plain || name.len() > 64 || hash.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ModelError::Pin);
        }
        // One spelling for each length: neither `+1` nor `01`.
        let length = bytes.parse::<u64>().ok().filter(|length| length.to_string() == bytes);
        Ok(Self {
            name: name.to_owned(),
            bytes: length.ok_or(ModelError::Pin)?,
            hash: blake3::Hash::from_hex(hash).map_err(|_| ModelError::Pin)?,
        })
    }
}

/// The model's option: before the `--`, since what is behind belongs to the node.
pub(crate) fn model_option(line: &str) -> Option<&str> {
    let words = line.split_ascii_whitespace().take_while(|word| *word != "--");
    let mut options = words.filter_map(|word| word.strip_prefix(MODEL_OPTION));
    let first = options.next()?;
    // Two of them would be a riddle.
    options.next().is_none().then_some(first)
}

/// Copies the model into memory below `folder`, and says where it lies.
pub(crate) fn fetch(pin: &ModelPin, folder: &Path) -> Result<PathBuf, ModelError> {
    let disk = disk::find(Path::new(disk::DISKS), SERIAL, LOOKS).ok_or(ModelError::NoDisk)?;
    say(format_args!(
        "copying the model `{}`, {} bytes, from {}",
        pin.name,
        pin.bytes,
        disk.display()
    ));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Room for the file system's own pages.
    let size = format!("mode=0755,size={}", pin.bytes.saturating_add(1 << 20));
    let options = std::ffi::CString::new(size).map_err(|_| ModelError::Pin)?;
    mount("tmpfs", folder, "tmpfs", flags, options.as_c_str()).map_err(ModelError::Memory)?;
    let target = folder.join(format!("{}.gguf", pin.name));
    let source = File::open(disk).map_err(ModelError::Copy)?;
    copy(pin, source, File::create_new(&target).map_err(ModelError::Copy)?)?;
    mount_remount(folder, flags | MountFlags::RDONLY, c"").map_err(ModelError::Memory)?;
    Ok(target)
}

/// Copies as many bytes as the model has, and compares their hash.
fn copy(pin: &ModelPin, mut source: impl Read, mut target: impl Write) -> Result<(), ModelError> {
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut left = pin.bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        let part = block.get_mut(..length).unwrap_or_default();
        source.read_exact(part).map_err(ModelError::Copy)?;
        hasher.update(part);
        target.write_all(part).map_err(ModelError::Copy)?;
        left = left.saturating_sub(u64::try_from(length).unwrap_or(left));
    }
    let found = hasher.finalize();
    if found == pin.hash { Ok(()) } else { Err(ModelError::Other { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(content: &[u8]) -> ModelPin {
        format!("m,{},{}", content.len(), blake3::hash(content)).parse().unwrap()
    }

    #[test]
    fn the_model_is_read_from_before_the_dashes_and_must_be_one() {
        assert_eq!(
            model_option("initrd=initrd quiet cocoon.model=a,1,b -- --provide"),
            Some("a,1,b")
        );
        assert_eq!(model_option("quiet -- cocoon.model=a,1,b"), None);
        assert_eq!(model_option("cocoon.model=a,1,b cocoon.model=c,1,d"), None);
        assert_eq!(model_option(""), None);
        // The kernel splits at a vertical tab too; what it leaves here is no pin.
        let option = model_option("cocoon.model=a\u{b},1,b").unwrap();
        assert!(option.parse::<ModelPin>().is_err());
    }

    #[test]
    fn a_pin_is_a_name_a_length_and_a_hash() {
        let hash = blake3::hash(b"x").to_string();
        let good: ModelPin = format!("smollm2-135m,93,{hash}").parse().unwrap();
        assert_eq!((good.name(), good.bytes), ("smollm2-135m", 93));
        let long = "x".repeat(65);
        for bad in [
            "", "m", "m,1", "m,1,00", "m,x,H", "m,1,H,", "m,+1,H", "m,01,H", "../m,1,H", ".m,1,H",
            "M,1,H", ",1,H", "-m,1,H", "LONG,1,H",
        ] {
            let text = bad.replace('H', &hash).replace("LONG", &long);
            assert!(matches!(text.parse::<ModelPin>(), Err(ModelError::Pin)), "{bad}");
        }
        assert!(format!("m,1,{}", hash.to_uppercase()).parse::<ModelPin>().is_err());
    }

    #[test]
    fn the_model_alone_is_copied_from_a_longer_disk() {
        let content: Vec<u8> =
            (0..BLOCK + 77).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let disk = [&content[..], &[0; 435]].concat();
        let mut copied = Vec::new();
        copy(&pin(&content), &disk[..], &mut copied).unwrap();
        assert_eq!(copied, content);
    }

    #[test]
    fn a_disk_with_another_model_is_refused() {
        let error = copy(&pin(b"model"), &b"MODEL"[..], std::io::sink()).unwrap_err();
        assert!(matches!(error, ModelError::Other { .. }), "{error}");
    }

    #[test]
    fn a_disk_that_ends_early_is_refused() {
        let error = copy(&pin(b"model"), &b"mode"[..], std::io::sink()).unwrap_err();
        assert!(matches!(error, ModelError::Copy(_)), "{error}");
    }
}
