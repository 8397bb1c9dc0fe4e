//! What a GGUF file says about itself: name, architecture, context, quantisation, licence, template.
//!
//! Owns: a bounded reader of the header's metadata, safe on hostile bytes.
//! Must not: read tensors, or be the gate before llama.cpp: that gate is the file's hash.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use cocoon_protocol::units::Tokens;

/// Entries of metadata: files have 20 to 60.
const ENTRIES: u64 = 4_096;
/// Length of a key; the format allows 65,535, files use less than 80.
const KEY_BYTES: u64 = 512;
/// A string that is kept. The longest chat templates known are near 20 kB.
const KEPT_STRING_BYTES: u64 = 1 << 20;
/// Bytes of header in all. Vocabularies fill it: 262,144 tokens take 6.5 MB.
const HEADER_BYTES: u64 = 256 << 20;
/// Elements of one array. The largest vocabularies have a few hundred thousand, merges twice that.
const ARRAY_ELEMENTS: u64 = 16 << 20;

/// Why a file's header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be opened or read.
    #[error("the model file cannot be read")]
    Io(#[source] io::Error),
    /// The file does not begin as a GGUF file does.
    #[error("the file is not a GGUF model")]
    NotGguf,
    /// Another version of the format, or big-endian.
    #[error("GGUF version {version} is not supported; versions 2 and 3 are")]
    Version {
        /// The version that the file states.
        version: u32,
    },
    /// The file ends within its header.
    #[error("the file ends within its header; it is incomplete")]
    Truncated,
    /// A count, a length or a type is beyond what any model has.
    #[error("the header breaks a bound: {what}")]
    Bound {
        /// Which.
        what: &'static str,
    },
}

/// What a model file says about itself. The file's author wrote it: nothing here is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `general.name`.
    pub name: Option<String>,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// `<architecture>.context_length`: the longest context that it was trained for.
    pub context: Option<Tokens>,
    /// `general.file_type`, as its usual name: `Q4_K_M`.
    pub quantisation: Option<String>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// `general.license`, an SPDX expression by convention.
    pub licence: Option<String>,
    /// Tensors that follow the header.
    pub tensors: u64,
}

impl Metadata {
    /// Reads the header of the file at `path`. Blocking; a large vocabulary takes some 50 ms.
    pub fn read_file(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path).map_err(GgufError::Io)?;
        Self::read(BufReader::with_capacity(1 << 16, file))
    }

    /// Reads a header. Never takes more than [`KEPT_STRING_BYTES`] for a string that it keeps, and
    /// no memory for one that it does not.
    pub fn read(source: impl Read) -> Result<Self, GgufError> {
        let mut reader = Reader { source: source.take(HEADER_BYTES) };
        if reader.bytes::<4>()? != *b"GGUF" {
            return Err(GgufError::NotGguf);
        }
        let version = reader.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { version });
        }
        let tensors = reader.u64()?;
        let entries = reader.u64()?;
        if entries > ENTRIES {
            return Err(GgufError::Bound { what: "number of entries" });
        }
        let mut metadata = Self { tensors, ..Self::default() };
        // The architecture names the key of the context; writers put it first, but need not.
        let mut contexts: Vec<(String, Tokens)> = Vec::new();
        for _ in 0..entries {
            let key = reader.string(KEY_BYTES)?;
            let value = reader.value(is_wanted(&key))?;
            metadata.take(key, value, &mut contexts);
        }
        let wanted = metadata.architecture.as_ref().map(|name| format!("{name}.context_length"));
        metadata.context =
            contexts.into_iter().find_map(|(key, tokens)| (Some(key) == wanted).then_some(tokens));
        Ok(metadata)
    }

    fn take(&mut self, key: String, value: Value, contexts: &mut Vec<(String, Tokens)>) {
        match (key.as_str(), value) {
            ("general.name", Value::Text(text)) => self.name = Some(text),
            ("general.architecture", Value::Text(text)) => self.architecture = Some(text),
            ("general.license", Value::Text(text)) => self.licence = Some(text),
            ("tokenizer.chat_template", Value::Text(text)) => self.chat_template = Some(text),
            ("general.file_type", Value::Number(number)) => {
                self.quantisation = Some(file_type(number));
            }
            (_, Value::Number(number)) if key.ends_with(CONTEXT_SUFFIX) => {
                contexts.push((key, Tokens::new(u32::try_from(number).unwrap_or(u32::MAX))));
            }
            _ => {}
        }
    }
}

const CONTEXT_SUFFIX: &str = ".context_length";

fn is_wanted(key: &str) -> bool {
    let fixed = [
        "general.name",
        "general.architecture",
        "general.license",
        "general.file_type",
        "tokenizer.chat_template",
    ];
    fixed.contains(&key) || key.ends_with(CONTEXT_SUFFIX)
}

/// A value, as far as this reader has a use for it.
enum Value {
    Text(String),
    Number(u64),
    Other,
}

struct Reader<R> {
    source: io::Take<R>,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                GgufError::Io(error)
            } else if self.source.limit() == 0 {
                GgufError::Bound { what: "size of the header" }
            } else {
                GgufError::Truncated
            }
        })?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), GgufError> {
        let skipped = io::copy(&mut self.source.by_ref().take(count), &mut io::sink())
            .map_err(GgufError::Io)?;
        if skipped == count { Ok(()) } else { Err(GgufError::Truncated) }
    }

    fn string(&mut self, longest: u64) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > longest {
            return Err(GgufError::Bound { what: "length of a string" });
        }
        let mut bytes = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut bytes).map_err(GgufError::Io)?;
        if u64::try_from(bytes.len()).ok() != Some(length) {
            return Err(GgufError::Truncated);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn value(&mut self, wanted: bool) -> Result<Value, GgufError> {
        let kind = self.u32()?;
        Ok(match kind {
            STRING if wanted => Value::Text(self.string(KEPT_STRING_BYTES)?),
            // Unsigned and signed 32 bits, then unsigned 64: what counts are written as.
            4 | 5 => Value::Number(u64::from(self.u32()?)),
            10 => Value::Number(self.u64()?),
            ARRAY => {
                self.skip_array()?;
                Value::Other
            }
            _ => {
                self.skip_elements(kind, 1)?;
                Value::Other
            }
        })
    }

    fn skip_array(&mut self) -> Result<(), GgufError> {
        let kind = self.u32()?;
        let count = self.u64()?;
        if count > ARRAY_ELEMENTS {
            return Err(GgufError::Bound { what: "length of an array" });
        }
        self.skip_elements(kind, count)
    }

    /// Skips `count` values of a type that is not an array: arrays of arrays are not written by
    /// anyone, and refusing them bounds the depth.
    fn skip_elements(&mut self, kind: u32, count: u64) -> Result<(), GgufError> {
        if kind == STRING {
            for _ in 0..count {
                let length = self.u64()?;
                self.skip(length)?;
            }
            return Ok(());
        }
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            ARRAY => {
                return Err(GgufError::Bound { what: "nesting of arrays" });
            }
            _ => {
                return Err(GgufError::Bound { what: "type of a value" });
            }
        };
        self.skip(count.saturating_mul(width))
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The name of a `general.file_type`, as in llama.cpp's `llama_ftype`.
fn file_type(number: u64) -> String {
    let name = match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        _ => return format!("type {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
