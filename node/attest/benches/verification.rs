//! What verification costs in CPU time, beside the libraries that verify less of the same.
//!
//! Owns: the loops and the clock of this process's own CPU time. Must not: assert a time;
//! `scripts/bench` prints what was measured.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that fails by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;

use cocoon_attest::benchmark::{
    Step, TDX_COLLATERAL, TDX_QUOTE, TDX_THEN, cached_identity, judge_snp, judge_tdx,
};
use cocoon_attest::channel::{
    AcceptOptions, ChannelIdentity, ChannelTasks, ConnectOptions, IdentityOptions, accept, connect,
};
use cocoon_attest::simulated::{
    SimulatedAttester, SimulatedGuest, SimulatedSnp, SimulatedSnpGuest, dev_policy,
};
use cocoon_attest::{Appraiser, Attester, Clock, parse_policy};
use cocoon_protocol::attest::{NetworkId, Tier};
use cocoon_protocol::identity::{NodeId, NodeKey};
use cocoon_protocol::units::Timestamp;

/// Rounds in which the measured things take turns; the median counts.
const ROUNDS: usize = 7;
/// CPU time of one thing in one round, in nanoseconds: ten thousand times the clock's step.
const ROUND_NANOS: u64 = 150_000_000;

/// CPU time of this process's living threads so far, in nanoseconds (Linux, `schedstat`).
fn cpu_nanos() -> u64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// What one call costs, in microseconds.
fn measure(step: &mut Step) -> f64 {
    let mut calls = 1_u32;
    loop {
        let begin = cpu_nanos();
        for _ in 0..calls {
            assert!(black_box(step()), "the evidence is good");
        }
        let spent = cpu_nanos().saturating_sub(begin);
        if spent >= ROUND_NANOS {
            return std::time::Duration::from_nanos(spent).as_secs_f64() * 1e6 / f64::from(calls);
        }
        calls = calls.saturating_mul(2);
    }
}

/// Intel's chain, TCB and quoting enclave by `dcap-qvl` alone: no policy, no image, no binding.
fn vendor_tdx() -> Step {
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_slice(TDX_COLLATERAL).unwrap();
    let now = TDX_THEN.as_unix_secs();
    let verifier = dcap_qvl::verify::QuoteVerifier::new_prod();
    Box::new(move || verifier.verify(TDX_QUOTE, &collateral, now).is_ok())
}

/// The real Milan report by `sev` alone: signatures of chain and report; no dates, no revocation, no
/// chip or firmware binding, no policy.
fn vendor_snp() -> Step {
    use sev::certs::snp::{Certificate, Chain, Verifiable as _, builtin, ca};
    use sev::firmware::guest::AttestationReport;
    use sev::parser::ByteParser as _;
    let report = include_bytes!("../testdata/snp/report_milan.bin");
    let report = AttestationReport::from_bytes(report).unwrap();
    let chain = Chain {
        ca: ca::Chain { ark: builtin::milan::ark().unwrap(), ask: builtin::milan::ask().unwrap() },
        vek: Certificate::from_der(include_bytes!("../testdata/snp/vcek_milan.der")).unwrap(),
    };
    Box::new(move || (&chain, &report).verify().is_ok())
}

/// Both ends of a session with a known provider: handshake, quote made, quote judged.
fn session(attester: Arc<dyn Attester>) -> Step {
    let clock = Clock::new(|| Timestamp::from_unix_secs(1_800_000_000));
    let (key, network) = (NodeKey::from_secret(&[1; 32]), NetworkId::from_name("benchmark"));
    let dialled = key.id();
    let identity = Arc::new(ChannelIdentity::new(IdentityOptions {
        key,
        attester,
        network,
        capabilities: [3; 32],
        configuration: [4; 32],
        model_manifest: Some([5; 32]),
        clock: clock.clone(),
    }));
    let appraiser = Arc::new(Appraiser::new(parse_policy(&dev_policy()).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut consumers = 0_u64;
    Box::new(move || {
        // Another consumer each time, for each may ask for so many quotes.
        consumers += 1;
        let mut peer = [0; 32];
        peer[..8].copy_from_slice(&consumers.to_be_bytes());
        let tasks = ChannelTasks::default();
        let options = ConnectOptions {
            dialled,
            network,
            appraiser: Arc::clone(&appraiser),
            minimum_tier: Tier::Attested,
            capabilities: Some([3; 32]),
            identity: None,
            clock: clock.clone(),
            tasks: tasks.clone(),
        };
        let peer = NodeId::from_bytes(peer);
        let accepting = AcceptOptions { peer, demand: None, tasks: tasks.clone() };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let opened = runtime.block_on(async {
            tokio::try_join!(connect(near, options), accept(far, Arc::clone(&identity), accepting))
                .is_ok()
        });
        tasks.cancel.cancel();
        opened
    })
}

fn main() {
    let mut steps: Vec<(&str, Step)> = vec![
        ("tdx", judge_tdx().unwrap()),
        ("tdx_vendor", vendor_tdx()),
        ("snp", judge_snp().unwrap()),
        ("snp_vendor", vendor_snp()),
        ("cached_identity", cached_identity().unwrap()),
        ("session_tdx", session(Arc::new(SimulatedAttester::new(SimulatedGuest::default())))),
        ("session_snp", session(Arc::new(SimulatedSnp::new(SimulatedSnpGuest::default())))),
    ];
    let mut micros = vec![Vec::new(); steps.len()];
    for _ in 0..ROUNDS {
        for (column, (_, step)) in micros.iter_mut().zip(&mut steps) {
            column.push(measure(step));
        }
    }
    let medians = micros.into_iter().zip(&steps).map(|(mut column, (name, _))| {
        column.sort_by(f64::total_cmp);
        ((*name).to_owned(), serde_json::Value::from(column[ROUNDS / 2]))
    });
    let result = serde_json::Value::Object(medians.collect());
    match std::env::args().nth(1).filter(|argument| !argument.starts_with('-')) {
        Some(path) => std::fs::write(path, result.to_string()).unwrap(),
        None => println!("{result:#}"),
    }
}
