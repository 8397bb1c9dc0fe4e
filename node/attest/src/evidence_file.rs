//! Evidence in a file: what `tee record` writes on a reference host and `tee verify` reads anywhere.
//!
//! Owns: the file's form, one JSON object that says what it is. Must not: judge what is in it.
//!
//! ```json
//! {
//!   "cocoon_evidence": 1,
//!   "kind": "tdx",
//!   "made_at": 1795305600,
//!   "evidence": "<hex: the quote or report>",
//!   "endorsements": "<hex: as they travel in a session>",
//!   "gpus": [{ "kind": "nvidia", "report": "<hex>", "chain": "<hex>" }],
//!   "record": { "nonce": "<64 hex>", "configuration": "<64 hex>" },
//!   "made_by": "cocoon-node 0.1.0"
//! }
//! ```
//!
//! `record` is what the report data was made from, `RecordBinding`; it is absent in files that hold
//! somebody else's evidence, whose report data then cannot be checked.

use bytes::Bytes;
use cocoon_protocol::attest::{
    Evidence, EvidenceKind, GpuEvidence, GpuEvidenceKind, GpuNonce, RecordBinding, ReportData,
    record_gpu_nonces,
};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use serde::{Deserialize, Serialize};

/// The form's version.
const VERSION: u32 = 1;
/// Largest file: evidence and endorsements as large as a session allows, in hexadecimal, and some.
pub const EVIDENCE_FILE_BYTES: usize = 3 * limits::ATTEST_RESPONSE_BYTES;

/// A recorded piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceFile {
    /// When it was made, by the host's clock.
    pub made_at: Timestamp,
    /// The quote or report.
    pub evidence: Evidence,
    /// What a verifier needs beside it, in the form that follows from the evidence's kind.
    pub endorsements: Bytes,
    /// The machine's GPUs, in order.
    pub gpus: Vec<GpuEvidence>,
    /// What the report data was made from, if that is known.
    pub record: Option<Recorded>,
    /// The program that wrote the file; shown, never believed.
    pub made_by: String,
}

/// What a record's report data was made from, beside the file's time and GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Drawn for this record.
    pub nonce: [u8; 32],
    /// Digest of the configuration that the recording node had.
    pub configuration: [u8; 32],
}

/// Why a file is not one of ours.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceFileError {
    /// It is larger than any evidence.
    #[error("the evidence file is larger than {EVIDENCE_FILE_BYTES} bytes")]
    TooLarge,
    /// It is not JSON of this form.
    #[error("the file is not one that `cocoon-node tee record` writes")]
    Form(#[source] serde_json::Error),
    /// Another version of the form.
    #[error("the evidence file has form {found}; this program reads form {VERSION}")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A field is not what it should be.
    #[error("`{field}` in the evidence file is not {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    cocoon_evidence: u32,
    kind: String,
    made_at: u64,
    evidence: String,
    endorsements: String,
    #[serde(default)]
    gpus: Vec<GpuForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<RecordForm>,
    #[serde(default)]
    made_by: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GpuForm {
    kind: String,
    report: String,
    chain: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordForm {
    nonce: String,
    configuration: String,
}

impl EvidenceFile {
    /// The report data that the evidence must carry; `None` when what it was made from is not in the
    /// file.
    pub fn report_data(&self) -> Option<ReportData> {
        let recorded = self.record?;
        let binding = RecordBinding {
            kind: self.evidence.kind(),
            nonce: &recorded.nonce,
            made_at: self.made_at,
            configuration: &recorded.configuration,
            gpu_digest: &GpuEvidence::digest(&self.gpus),
        };
        Some(binding.report_data())
    }

    /// What the GPUs must have been asked with; `None` when what that was made from is not in the file.
    pub fn gpu_nonces(&self) -> Option<Vec<GpuNonce>> {
        Some(record_gpu_nonces(&self.record?.nonce, self.gpus.len()))
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for evidence that was made here; the signature is JSON's.
    pub fn to_json(&self) -> Result<String, EvidenceFileError> {
        let form = Form {
            cocoon_evidence: VERSION,
            kind: self.evidence.kind().as_str().to_owned(),
            made_at: self.made_at.as_unix_secs(),
            evidence: hex::encode(self.evidence.quote()),
            endorsements: hex::encode(&self.endorsements),
            gpus: self.gpus.iter().map(GpuForm::of).collect(),
            record: self.record.map(|it| RecordForm {
                nonce: hex::encode(it.nonce),
                configuration: hex::encode(it.configuration),
            }),
            made_by: self.made_by.clone(),
        };
        let mut text = serde_json::to_string_pretty(&form).map_err(EvidenceFileError::Form)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When they are not a file of this form, or break a bound of the protocol.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EvidenceFileError> {
        if bytes.len() > EVIDENCE_FILE_BYTES {
            return Err(EvidenceFileError::TooLarge);
        }
        let form: Form = serde_json::from_slice(bytes).map_err(EvidenceFileError::Form)?;
        if form.cocoon_evidence != VERSION {
            return Err(EvidenceFileError::Version { found: form.cocoon_evidence });
        }
        let field = |field, expected| EvidenceFileError::Field { field, expected };
        let kind = EvidenceKind::from_name(&form.kind)
            .filter(|kind| *kind != EvidenceKind::None)
            .ok_or_else(|| field("kind", "a kind of evidence"))?;
        let quote = bounded("evidence", &form.evidence, limits::EVIDENCE_BYTES)?;
        let evidence =
            Evidence::new(kind, quote).ok_or_else(|| field("evidence", "a quote or report"))?;
        // A time that this program cannot hold would become another one.
        let made_at = Timestamp::from_unix_secs(form.made_at);
        if made_at.as_unix_secs() != form.made_at {
            return Err(field("made_at", "a time in seconds since 1970"));
        }
        if form.gpus.len() > limits::GPUS {
            return Err(field("gpus", "a list of at most eight"));
        }
        Ok(Self {
            made_at,
            evidence,
            endorsements: bounded(
                "endorsements",
                &form.endorsements,
                limits::ATTEST_RESPONSE_BYTES,
            )?,
            gpus: form.gpus.iter().map(GpuForm::read).collect::<Result<_, _>>()?,
            record: form.record.as_ref().map(RecordForm::read).transpose()?,
            made_by: form.made_by,
        })
    }
}

impl GpuForm {
    fn of(gpu: &GpuEvidence) -> Self {
        Self {
            kind: gpu.kind.as_str().to_owned(),
            report: hex::encode(&gpu.report),
            chain: hex::encode(&gpu.chain),
        }
    }

    fn read(&self) -> Result<GpuEvidence, EvidenceFileError> {
        let field = |expected| EvidenceFileError::Field { field: "gpus", expected };
        let kind = GpuEvidenceKind::from_name(&self.kind)
            .ok_or_else(|| field("a list of a known kind of evidence"))?;
        let report = bounded("gpus", &self.report, limits::GPU_REPORT_BYTES)?;
        let chain = bounded("gpus", &self.chain, limits::GPU_CHAIN_BYTES)?;
        Some(GpuEvidence { kind, report, chain })
            .filter(GpuEvidence::is_within_limits)
            .ok_or_else(|| field("a list of reports and chains"))
    }
}

impl RecordForm {
    fn read(&self) -> Result<Recorded, EvidenceFileError> {
        let array = |field, text: &str| {
            let mut bytes = [0; 32];
            let expected = "64 hexadecimal digits";
            hex::decode_to_slice(text, &mut bytes)
                .map(|()| bytes)
                .map_err(|_| EvidenceFileError::Field { field, expected })
        };
        Ok(Recorded {
            nonce: array("nonce", &self.nonce)?,
            configuration: array("configuration", &self.configuration)?,
        })
    }
}

fn bounded(field: &'static str, text: &str, limit: usize) -> Result<Bytes, EvidenceFileError> {
    let expected = "hexadecimal of a legal length";
    match hex::decode(text) {
        Ok(bytes) if bytes.len() <= limit => Ok(bytes.into()),
        Ok(_) | Err(_) => Err(EvidenceFileError::Field { field, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> GpuEvidence {
        let kind = GpuEvidenceKind::Nvidia;
        GpuEvidence { kind, report: vec![1; 8].into(), chain: vec![2; 9].into() }
    }

    fn file() -> EvidenceFile {
        EvidenceFile {
            made_at: Timestamp::from_unix_secs(1_795_305_600),
            evidence: Evidence::Tdx { quote: Bytes::from_static(b"quote") },
            endorsements: Bytes::from_static(b"{}"),
            gpus: vec![gpu()],
            record: Some(Recorded { nonce: [3; 32], configuration: [4; 32] }),
            made_by: "cocoon-node 0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let text = file().to_json().unwrap();
        assert_eq!(EvidenceFile::from_json(text.as_bytes()).unwrap(), file());
        let stranger = EvidenceFile { record: None, gpus: Vec::new(), ..file() };
        let text = stranger.to_json().unwrap();
        assert_eq!(EvidenceFile::from_json(text.as_bytes()).unwrap(), stranger);
        assert_eq!((stranger.report_data(), stranger.gpu_nonces()), (None, None));
        assert_eq!(file().gpu_nonces(), Some(record_gpu_nonces(&[3; 32], 1)));
    }

    #[test]
    fn report_data_follows_from_everything_in_the_file() {
        let base = file();
        let variants = [
            base.clone(),
            EvidenceFile { made_at: Timestamp::from_unix_secs(1), ..base.clone() },
            EvidenceFile { gpus: Vec::new(), ..base.clone() },
            EvidenceFile {
                evidence: Evidence::SimulatedTdx { quote: Bytes::from_static(b"quote") },
                ..base.clone()
            },
            EvidenceFile {
                record: Some(Recorded { nonce: [9; 32], configuration: [4; 32] }),
                ..base.clone()
            },
            EvidenceFile {
                record: Some(Recorded { nonce: [3; 32], configuration: [9; 32] }),
                ..base
            },
        ];
        let mut seen: Vec<_> =
            variants.iter().map(|it| *it.report_data().unwrap().as_bytes()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), variants.len());
    }

    fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json: serde_json::Value = serde_json::from_str(&file().to_json().unwrap()).unwrap();
        change(&mut json);
        let bytes = serde_json::to_vec(&json).unwrap();
        EvidenceFile::from_json(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_evidence_file_is_refused_by_name() {
        let form = "the file is not one that `cocoon-node tee record` writes";
        assert_eq!(refused(|json| json["more"] = 1.into()), form);
        assert_eq!(EvidenceFile::from_json(b"quote").unwrap_err().to_string(), form);
        assert!(refused(|json| json["cocoon_evidence"] = 2.into()).contains("form 2"));
        for (name, value) in [
            ("kind", "sgx".to_owned()),
            ("kind", "none".to_owned()),
            ("evidence", String::new()),
            ("evidence", "zz".to_owned()),
            ("evidence", "00".repeat(limits::EVIDENCE_BYTES + 1)),
            ("endorsements", "0".to_owned()),
        ] {
            let refusal = refused(|json| json[name] = serde_json::Value::String(value));
            assert!(refusal.starts_with(&format!("`{name}` in the evidence file")), "{refusal}");
        }
        assert!(refused(|json| json["record"]["nonce"] = "00".into()).contains("`nonce`"));
        let gpu = |report: &str, kind: &str| serde_json::json!({ "kind": kind, "report": report, "chain": "00" });
        let long = "00".repeat(limits::GPU_REPORT_BYTES + 1);
        for gpus in [
            vec![gpu("00", "nvidia"); 9],
            vec![gpu("00", "amd")],
            vec![gpu("", "nvidia")],
            vec![gpu(&long, "nvidia")],
        ] {
            assert!(refused(|json| json["gpus"] = gpus.into()).contains("`gpus`"));
        }
        // Whose root is to be believed has to be said.
        let unnamed = serde_json::json!({ "report": "00", "chain": "00" });
        assert_eq!(refused(|json| json["gpus"] = vec![unnamed].into()), form);
        let huge = vec![b' '; EVIDENCE_FILE_BYTES + 1];
        assert!(matches!(EvidenceFile::from_json(&huge), Err(EvidenceFileError::TooLarge)));
    }
}
