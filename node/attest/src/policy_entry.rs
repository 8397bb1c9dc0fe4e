//! A policy's entries for the guest that made a piece of evidence, and for the GPUs beside it.
//!
//! Owns: the reading of measurements without verification, and their spelling in a policy.
//! Must not: be used to decide anything. The entry is a person's to check and to paste.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cocoon_protocol::attest::{
    Evidence, GpuClaims, HostData, Measured, Register, SnpMeasurements, TdxMeasurements,
};
use dcap_qvl::quote::Quote;

/// What `evidence` says was measured. Nothing is verified. `None` for what is no evidence of a TEE.
pub fn claimed_measurements(evidence: &Evidence) -> Option<Measured> {
    let register = Register::from_bytes;
    match evidence {
        Evidence::None => None,
        Evidence::Tdx { quote } | Evidence::SimulatedTdx { quote } => {
            let quote = Quote::parse(quote).ok()?;
            let report = quote.report.as_td10()?;
            let rtmr = [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3];
            Some(Measured::Tdx(TdxMeasurements {
                mrtd: register(report.mr_td),
                rtmr: rtmr.map(register),
                mr_config_id: register(report.mr_config_id),
                mr_owner: register(report.mr_owner),
                mr_owner_config: register(report.mr_owner_config),
            }))
        }
        // Offsets of ATTESTATION_REPORT (AMD 56860).
        Evidence::Snp { report } | Evidence::SimulatedSnp { report } => {
            Some(Measured::Snp(SnpMeasurements {
                guest_svn: u32::from_le_bytes(field(report, 0x04)?),
                measurement: register(field(report, 0x90)?),
                host_data: HostData::from_bytes(field(report, 0xc0)?),
                id_key_digest: register(field(report, 0xe0)?),
                author_key_digest: register(field(report, 0x110)?),
            }))
        }
    }
}

fn field<const N: usize>(report: &[u8], offset: usize) -> Option<[u8; N]> {
    report.get(offset..)?.first_chunk().copied()
}

/// The entry of a policy that accepts exactly `measured`, under a name without quotation marks.
pub fn policy_entry(name: &str, measured: &Measured) -> String {
    let name: String =
        name.chars().filter(|it| !it.is_control() && !"\"\\".contains(*it)).collect();
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    match measured {
        Measured::Tdx(it) => {
            let [rtmr0, rtmr1, rtmr2, rtmr3] = it.rtmr;
            line("name", format!("\"{name}\""));
            line("mrtd", format!("\"{}\"", it.mrtd));
            line("rtmr0", format!("[\"{rtmr0}\"]"));
            for (key, register) in [("rtmr1", rtmr1), ("rtmr2", rtmr2), ("rtmr3", rtmr3)] {
                line(key, format!("\"{register}\""));
            }
            let set_by_host = [
                ("mrconfigid", it.mr_config_id),
                ("mrowner", it.mr_owner),
                ("mrownerconfig", it.mr_owner_config),
            ];
            for (key, register) in set_by_host.into_iter().filter(|(_, it)| *it != Register::ZERO) {
                line(key, format!("\"{register}\""));
            }
            format!("[[tdx.image]]\n{text}")
        }
        Measured::Snp(it) => {
            line("name", format!("\"{name}\""));
            line("measurement", format!("\"{}\"", it.measurement));
            if it.host_data != HostData::ZERO {
                line("host_data", format!("\"{}\"", it.host_data));
            }
            let keys =
                [("id_key_digest", it.id_key_digest), ("author_key_digest", it.author_key_digest)];
            for (key, register) in keys.into_iter().filter(|(_, it)| *it != Register::ZERO) {
                line(key, format!("\"{register}\""));
            }
            if it.guest_svn > 0 {
                line("min_guest_svn", it.guest_svn.to_string());
            }
            format!("[[snp.image]]\n{text}")
        }
    }
}

/// The rules `[gpu]` of a policy that accept GPUs in exactly the states of `claims`. Every measurement
/// is pinned, zeros too: where nothing was measured on this machine, nothing may be on another. `None`
/// without GPUs.
pub fn gpu_policy_entry(claims: &[GpuClaims]) -> Option<String> {
    if claims.is_empty() {
        return None;
    }
    let families: BTreeSet<_> = claims.iter().map(|gpu| gpu.architecture).collect();
    let families: Vec<_> = families.iter().map(|family| format!("\"{family}\"")).collect();
    let mut text = format!("[gpu]\narch = [{}]\n", families.join(", "));
    if claims.iter().any(|gpu| !gpu.names_firmware) {
        text.push_str("allow_missing_fwid = true\n");
    }
    let states: BTreeSet<_> =
        claims.iter().map(|gpu| (&gpu.driver, &gpu.vbios, &gpu.measurements)).collect();
    for (driver, vbios, measurements) in states {
        // Both versions are of letters, digits and dots: the report's reader sees to it.
        let _ = writeln!(
            text,
            "\n# as recorded; `scripts/gpu-golden` makes NVIDIA's own reference values for these versions\n\
             [[gpu.golden]]\ndriver = \"{driver}\"\nvbios = \"{vbios}\"\n\n\
             [gpu.golden.measurements]"
        );
        for (index, value) in measurements {
            let _ = writeln!(text, "{index} = [\"{value}\"]");
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_policy;

    const QUOTE: &[u8] = include_bytes!("../testdata/dcap/tdx_quote");

    #[test]
    fn a_real_quotes_entry_is_one_that_a_policy_reads() {
        let evidence = Evidence::Tdx { quote: QUOTE.into() };
        let Some(Measured::Tdx(measured)) = claimed_measurements(&evidence) else { panic!() };
        let entry = policy_entry("a \"name\"\n", &Measured::Tdx(measured));
        let text = format!(
            "version = 1\ntrust = \"production\"\n[tdx]\ntcb_status = [\"UpToDate\"]\n\
             min_tcb_eval_data_number = 17\nmax_collateral_age_h = 168\nallow_smt = true\n\
             allow_dynamic_platform = true\nallow_cached_keys = true\n{entry}"
        );
        let policy = parse_policy(&text).unwrap();
        let [image] = policy.tdx().unwrap().images.as_slice() else { panic!() };
        assert_eq!(image.name, "a name");
        let listed = [image.mrtd, image.rtmr0[0], image.rtmr1, image.rtmr2, image.rtmr3];
        let [rtmr0, rtmr1, rtmr2, rtmr3] = measured.rtmr;
        assert_eq!(listed, [measured.mrtd, rtmr0, rtmr1, rtmr2, rtmr3]);
    }

    #[test]
    fn a_reports_entry_has_what_is_not_zero() {
        let mut report = vec![0; 1184];
        report[0x90..0xc0].fill(1);
        let of = |report: &[u8]| {
            let evidence = Evidence::Snp { report: bytes::Bytes::copy_from_slice(report) };
            policy_entry("n", &claimed_measurements(&evidence).unwrap())
        };
        let measurement = "01".repeat(48);
        let plain = format!("[[snp.image]]\nname = \"n\"\nmeasurement = \"{measurement}\"\n");
        assert_eq!(of(&report), plain);
        report[4] = 3;
        report[0xc0..0xe0].fill(2);
        report[0xe0..0x110].fill(4);
        let more = format!(
            "{plain}host_data = \"{}\"\nid_key_digest = \"{}\"\nmin_guest_svn = 3\n",
            "02".repeat(32),
            "04".repeat(48)
        );
        assert_eq!(of(&report), more);
        let cut = Evidence::Snp { report: report[..0x120].to_vec().into() };
        assert_eq!(claimed_measurements(&cut), None);
        assert_eq!(claimed_measurements(&Evidence::None), None);
    }
}
