//! GPU evidence as bytes: a count, and for each GPU its kind, report and certificates.
//!
//! Owns: the encoding and its bounds. Must not: judge evidence.

use std::fmt;

use bytes::Bytes;

use crate::attest::binding::{GpuEvidenceParts, gpu_digest};
use crate::attest::bytes::{Malformed, Reader};
use crate::identity::append_length_prefixed;
use crate::limits;

/// Which kind of GPU evidence it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GpuEvidenceKind {
    /// An SPDM report of an NVIDIA GPU (Hopper, Blackwell).
    Nvidia,
    /// A report in NVIDIA's form under the public test root. Proves NOTHING about any GPU.
    SimulatedNvidia,
}

impl GpuEvidenceKind {
    /// The kind's byte on the wire.
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Nvidia => 1,
            Self::SimulatedNvidia => 0xd1,
        }
    }

    /// The kind that `byte` stands for.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Nvidia),
            0xd1 => Some(Self::SimulatedNvidia),
            _ => None,
        }
    }

    /// The kind's name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::SimulatedNvidia => "simulated-nvidia",
        }
    }

    /// The kind called `name`, as [`GpuEvidenceKind::as_str`] writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Nvidia, Self::SimulatedNvidia].into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether it proves nothing.
    pub const fn is_simulated(self) -> bool {
        matches!(self, Self::SimulatedNvidia)
    }
}

impl fmt::Display for GpuEvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Evidence of one GPU, unverified.
#[derive(Clone, PartialEq, Eq)]
pub struct GpuEvidence {
    /// Its kind.
    pub kind: GpuEvidenceKind,
    /// The SPDM request and response, as the driver returns them; at most [`limits::GPU_REPORT_BYTES`].
    pub report: Bytes,
    /// The device's certificates in DER, one behind the other, the report's signer first and the
    /// vendor's root last; at most [`limits::GPU_CHAIN_BYTES`].
    pub chain: Bytes,
}

impl fmt::Debug for GpuEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, chain) = (self.report.len(), self.chain.len());
        write!(f, "GpuEvidence({}, {report} + {chain} bytes)", self.kind)
    }
}

impl GpuEvidence {
    /// [`gpu_digest`] of `list`: what the CPU's quote says about the GPUs beside it.
    pub fn digest(list: &[Self]) -> [u8; 32] {
        let parts =
            list.iter().map(|gpu| GpuEvidenceParts { report: &gpu.report, chain: &gpu.chain });
        gpu_digest(&parts.collect::<Vec<_>>())
    }

    /// Whether a verifier would read it.
    pub fn is_within_limits(&self) -> bool {
        (1..=limits::GPU_REPORT_BYTES).contains(&self.report.len())
            && (1..=limits::GPU_CHAIN_BYTES).contains(&self.chain.len())
    }
}

/// Appends `count ‖ (kind ‖ LP(report) ‖ LP(chain))…`. More than a byte can count is written as
/// 255, which no reader accepts.
pub(in crate::attest) fn append_list(out: &mut Vec<u8>, list: &[GpuEvidence]) {
    out.push(u8::try_from(list.len()).unwrap_or(u8::MAX));
    for gpu in list {
        out.push(gpu.kind.as_byte());
        append_length_prefixed(out, &gpu.report);
        append_length_prefixed(out, &gpu.chain);
    }
}

/// Reads at most [`limits::GPUS`] pieces of evidence. An empty report or chain is no evidence.
pub(in crate::attest) fn read_list(reader: &mut Reader<'_>) -> Result<Vec<GpuEvidence>, Malformed> {
    let count = usize::from(reader.byte()?);
    if count > limits::GPUS {
        return Err(Malformed);
    }
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = GpuEvidenceKind::from_byte(reader.byte()?).ok_or(Malformed)?;
        let report = reader.length_prefixed(limits::GPU_REPORT_BYTES)?;
        let chain = reader.length_prefixed(limits::GPU_CHAIN_BYTES)?;
        if report.is_empty() || chain.is_empty() {
            return Err(Malformed);
        }
        let (report, chain) = (Bytes::copy_from_slice(report), Bytes::copy_from_slice(chain));
        list.push(GpuEvidence { kind, report, chain });
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gpu(report: usize, chain: usize) -> GpuEvidence {
        GpuEvidence {
            kind: GpuEvidenceKind::Nvidia,
            report: Bytes::from(vec![7; report]),
            chain: Bytes::from(vec![8; chain]),
        }
    }

    fn round_trip(list: &[GpuEvidence]) -> Result<Vec<GpuEvidence>, Malformed> {
        let mut bytes = Vec::new();
        append_list(&mut bytes, list);
        let mut reader = Reader::new(&bytes);
        let read = read_list(&mut reader)?;
        reader.finish()?;
        Ok(read)
    }

    #[test]
    fn golden_list_of_two() {
        let simulated = GpuEvidence { kind: GpuEvidenceKind::SimulatedNvidia, ..gpu(1, 2) };
        let mut bytes = Vec::new();
        append_list(&mut bytes, &[gpu(2, 1), simulated]);
        let first = ["01", "00000002", "0707", "00000001", "08"].concat();
        let second = ["d1", "00000001", "07", "00000002", "0808"].concat();
        assert_eq!(hex::encode(bytes), ["02", &first, &second].concat());
    }

    #[test]
    fn lists_up_to_the_limits_round_trip() {
        let largest = gpu(limits::GPU_REPORT_BYTES, limits::GPU_CHAIN_BYTES);
        assert!(largest.is_within_limits());
        for list in [vec![], vec![gpu(1, 1)], vec![largest; limits::GPUS]] {
            assert_eq!(round_trip(&list), Ok(list));
        }
    }

    #[test]
    fn what_exceeds_a_limit_is_malformed() {
        let many = vec![gpu(1, 1); limits::GPUS + 1];
        let lists = [
            many,
            vec![gpu(limits::GPU_REPORT_BYTES + 1, 1)],
            vec![gpu(1, limits::GPU_CHAIN_BYTES + 1)],
            vec![gpu(0, 1)],
            vec![gpu(1, 0)],
        ];
        for list in lists {
            assert_eq!(round_trip(&list), Err(Malformed), "{list:?}");
        }
        assert!(!gpu(limits::GPU_REPORT_BYTES + 1, 1).is_within_limits());
        assert!(!gpu(1, 0).is_within_limits());
    }

    #[test]
    fn an_unknown_kind_is_malformed() {
        let bytes = [1, 2, 0, 0, 0, 1, 7, 0, 0, 0, 1, 8];
        assert_eq!(read_list(&mut Reader::new(&bytes)), Err(Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_list(&mut Reader::new(&bytes));
        }
    }
}
