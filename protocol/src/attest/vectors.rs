//! Golden vectors: every hash input and record of attestation, as an independent script makes them.
//!
//! Owns: holding the code against `testdata/attest/vectors.json`, whose origin is `vectors.py` beside it.
//! Must not: make a vector; what the code says is not evidence for itself.

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    AttestRequest, AttestResponse, Evidence, EvidenceKind, GpuEvidence, GpuEvidenceKind,
    GpuEvidenceParts, IdentityBinding, IdentityRecord, NetworkId, Policy, PolicyId, RecordBinding,
    SessionBinding, SessionRole, Tier, gpu_digest, gpu_nonce, record_gpu_nonces,
};
use crate::identity::NodeId;
use crate::units::Timestamp;

/// Runs `check` over all cases of `name`; it returns the bytes that the code makes.
fn each(name: &str, check: impl Fn(&Value) -> Vec<u8>) {
    let text = include_str!("../../testdata/attest/vectors.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let cases = vectors[name].as_array().unwrap();
    assert!(!cases.is_empty());
    for (number, case) in cases.iter().enumerate() {
        let made = check(case);
        let expected = &case["expected"];
        match expected.as_str() {
            Some(expected) => assert_eq!(hex::encode(&made), expected, "{name} {number}"),
            None => {
                assert_eq!(made.len(), expected["length"], "{name} {number}");
                assert_eq!(
                    hex::encode(Sha256::digest(&made)),
                    expected["sha256"],
                    "{name} {number}"
                );
            }
        }
    }
}

/// Bytes in full, or by the pattern that the script fills long ones with.
fn bytes(value: &Value) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return hex::decode(text).unwrap();
    }
    let (length, seed) = (value["length"].as_u64().unwrap(), value["seed"].as_u64().unwrap());
    let byte = |i: u64| u8::try_from((seed + 7 * i + i / 251) % 256).unwrap();
    let bytes: Vec<u8> = (0..length).map(byte).collect();
    assert_eq!(hex::encode(Sha256::digest(&bytes)), value["sha256"]);
    bytes
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn kind(case: &Value) -> EvidenceKind {
    EvidenceKind::from_byte(u8::try_from(case["kind"].as_u64().unwrap()).unwrap()).unwrap()
}

fn manifest(case: &Value) -> Option<[u8; 32]> {
    (!case["model_manifest"].is_null()).then(|| array(&case["model_manifest"]))
}

fn evidence(case: &Value) -> Evidence {
    let quote = Bytes::from(bytes(&case["quote"]));
    match kind(case) {
        EvidenceKind::None => Evidence::None,
        EvidenceKind::Tdx => Evidence::Tdx { quote },
        EvidenceKind::Snp => Evidence::Snp { report: quote },
        EvidenceKind::SimulatedTdx => Evidence::SimulatedTdx { quote },
        EvidenceKind::SimulatedSnp => Evidence::SimulatedSnp { report: quote },
    }
}

fn gpus(case: &Value) -> Vec<GpuEvidence> {
    let gpus = case["gpus"].as_array().unwrap().iter();
    let evidence = gpus.map(|gpu| GpuEvidence {
        kind: GpuEvidenceKind::from_byte(u8::try_from(gpu["kind"].as_u64().unwrap()).unwrap())
            .unwrap(),
        report: bytes(&gpu["report"]).into(),
        chain: bytes(&gpu["chain"]).into(),
    });
    evidence.collect()
}

#[test]
fn networks() {
    each("network", |case| {
        NetworkId::from_name(case["name"].as_str().unwrap()).as_bytes().to_vec()
    });
}

#[test]
fn identity_bindings() {
    each("identity", |case| {
        let at = |key: &str| Timestamp::from_unix_secs(case[key].as_u64().unwrap());
        IdentityBinding {
            network: &NetworkId::from_bytes(array(&case["network"])),
            kind: kind(case),
            peer: &NodeId::from_bytes(array(&case["peer"])),
            public_key: &bytes(&case["public_key"]),
            capabilities: &array(&case["capabilities"]),
            not_before: at("not_before"),
            not_after: at("not_after"),
            configuration: &array(&case["configuration"]),
        }
        .report_data()
        .as_bytes()
        .to_vec()
    });
}

#[test]
fn record_bindings() {
    each("record", |case| {
        RecordBinding {
            kind: kind(case),
            nonce: &array(&case["nonce"]),
            made_at: Timestamp::from_unix_secs(case["made_at"].as_u64().unwrap()),
            configuration: &array(&case["configuration"]),
            gpu_digest: &array(&case["gpu_digest"]),
        }
        .report_data()
        .as_bytes()
        .to_vec()
    });
}

#[test]
fn session_bindings_of_both_roles() {
    each("session", |case| {
        let role = match case["role"].as_u64() {
            Some(1) => SessionRole::Server,
            Some(2) => SessionRole::Client,
            other => panic!("role {other:?}"),
        };
        SessionBinding {
            network: &NetworkId::from_bytes(array(&case["network"])),
            role,
            exporter: &array(&case["exporter"]),
            nonce: &array(&case["nonce"]),
            public_key: &bytes(&case["public_key"]),
            peer: &NodeId::from_bytes(array(&case["peer"])),
            gpu_digest: &array(&case["gpu_digest"]),
            model_manifest: manifest(case).as_ref(),
        }
        .report_data()
        .as_bytes()
        .to_vec()
    });
}

#[test]
fn gpu_nonces() {
    each("gpu_nonce", |case| {
        let index = u16::try_from(case["index"].as_u64().unwrap()).unwrap();
        gpu_nonce(&array(&case["exporter"]), &array(&case["nonce"]), index).as_bytes().to_vec()
    });
}

#[test]
fn gpu_nonces_of_records() {
    each("gpu_record_nonce", |case| {
        let index = usize::try_from(case["index"].as_u64().unwrap()).unwrap();
        let nonces = record_gpu_nonces(&array(&case["nonce"]), index + 1);
        nonces[index].as_bytes().to_vec()
    });
}

#[test]
fn gpu_digests() {
    each("gpu_digest", |case| {
        let gpus: Vec<_> = case["gpus"].as_array().unwrap().iter().collect();
        let gpus: Vec<_> = gpus.iter().map(|g| (bytes(&g["report"]), bytes(&g["chain"]))).collect();
        let parts = gpus.iter().map(|(report, chain)| GpuEvidenceParts { report, chain });
        gpu_digest(&parts.collect::<Vec<_>>()).to_vec()
    });
}

#[test]
fn policies() {
    each("policy", |case| {
        let policy: Policy = serde_json::from_value(case["policy"].clone()).unwrap();
        policy.id().as_bytes().to_vec()
    });
}

#[test]
fn certificate_extensions() {
    each("extension", |case| {
        let record = IdentityRecord {
            peer: NodeId::from_bytes(array(&case["peer"])),
            capabilities: array(&case["capabilities"]),
            configuration: array(&case["configuration"]),
            evidence: evidence(case),
        };
        let bytes = record.to_extension();
        assert_eq!(IdentityRecord::from_extension(&bytes), Ok(record));
        bytes
    });
}

fn tier(case: &Value) -> Tier {
    match case["want"].as_u64() {
        Some(0) => Tier::Open,
        Some(1) => Tier::Attested,
        Some(2) => Tier::Confidential,
        other => panic!("tier {other:?}"),
    }
}

#[test]
fn requests() {
    each("request", |case| {
        let request = AttestRequest {
            nonce: array(&case["nonce"]),
            want: tier(case),
            gpu: case["gpu"] == 1,
            policy: PolicyId::from_bytes(array(&case["policy"])),
        };
        let bytes = request.to_bytes();
        assert_eq!(AttestRequest::from_bytes(&bytes), Ok(request));
        bytes
    });
}

#[test]
fn responses() {
    each("response", |case| {
        let response = AttestResponse {
            signature: array(&case["signature"]),
            model_manifest: manifest(case),
            evidence: evidence(case),
            endorsements: Bytes::from(bytes(&case["endorsements"])),
            gpus: gpus(case),
        };
        let bytes = response.to_bytes();
        assert_eq!(AttestResponse::from_bytes(&bytes), Ok(response));
        bytes
    });
}
