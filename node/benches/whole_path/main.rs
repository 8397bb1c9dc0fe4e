//! The whole path of a paid request beside a plain reverse proxy in front of the same stream.
//!
//! Owns: the order of the measurement and the figures. Real processes on loopback; the three arms
//! take turns in one run, so that whatever else the machine does meets all of them alike.
//! Must not: judge the figures; `scripts/bench` prints them and puts them in the README.
//!
//! `whole_path FILE` writes the figures to FILE as JSON. `whole_path serve-origin` and
//! `whole_path serve-proxy ADDRESS` are the processes of the comparison.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is for a person")]

mod client;
mod http;
mod nodes;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use client::{Answer, Client};
use nodes::{Helper, Network};

/// Tokens of an answer: four payments.
const TOKENS: usize = 64;
/// Pause before each token, on the engine and on the plain server: a quick GPU's pace.
const PACE: Duration = Duration::from_millis(1);
/// Rounds with one stream at a time, and requests of each arm in a round.
const SINGLE: (usize, usize) = (40, 5);
/// Rounds with eight streams at a time, and requests of each arm in a round.
const EIGHT: (usize, usize) = (12, 24);
/// Requests of each arm that are not counted.
const WARM_UP: usize = 10;
/// Consumers that are started with nothing but coins.
const COLD_STARTS: usize = 7;

/// One way to the same stream.
struct Arm {
    name: &'static str,
    client: Client,
    /// The processes whose CPU time counts.
    processes: Vec<u32>,
    answers: Vec<Answer>,
    cpu: Duration,
}

impl Arm {
    fn new(name: &'static str, address: &str, processes: Vec<u32>) -> Self {
        let client = Client::new(address, TOKENS);
        Self { name, client, processes, answers: Vec::new(), cpu: Duration::ZERO }
    }

    async fn round(&mut self, requests: usize, parallel: usize) {
        let before = self.spent();
        self.answers.extend(self.client.ask(requests, parallel).await);
        // What is left to do after the answer, such as the receipt, counts too.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.cpu += self.spent().saturating_sub(before);
    }

    fn spent(&self) -> Duration {
        self.processes.iter().map(|process| nodes::cpu_time(*process)).sum()
    }

    fn take(&mut self) -> Value {
        let answers = std::mem::take(&mut self.answers);
        let cpu = std::mem::take(&mut self.cpu);
        let first: Vec<_> = answers.iter().map(|answer| micros(answer.first)).collect();
        let whole: Vec<_> = answers.iter().map(|answer| micros(answer.whole)).collect();
        let chunks: usize = answers.iter().map(|answer| answer.chunks).sum();
        let requests = u32::try_from(answers.len()).unwrap();
        let tokens = f64::from(requests) * f64::from(u32::try_from(TOKENS).unwrap());
        json!({
            "arm": self.name,
            "requests": requests,
            "chunks_per_request": f64::from(u32::try_from(chunks).unwrap()) / f64::from(requests),
            "first_p50_us": percentile(&first, 50),
            "first_p99_us": percentile(&first, 99),
            "whole_p50_us": percentile(&whole, 50),
            "cpu_per_token_us": micros(cpu) / tokens,
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The smallest value that is not exceeded by this share of them.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().expect("at least one value")
}

/// The arms take turns; the order changes every round, so that nobody always follows the same one.
async fn compare(arms: &mut [Arm], (rounds, requests): (usize, usize), parallel: usize) -> Value {
    let count = arms.len();
    for round in 0..rounds {
        for turn in 0..count {
            let arm = arms.get_mut((round + turn) % count).expect("within");
            arm.round(requests, parallel).await;
        }
    }
    arms.iter_mut().map(Arm::take).collect()
}

/// The time from starting a consumer that has coins and nothing else to its first token: it finds
/// the entry point and the provider, deploys its vault, allocates, attests, and asks.
async fn cold_start(network: &Network, name: &str) -> Duration {
    let mut prepared = network.consumer(name);
    network.fund(&prepared);
    prepared.stop();
    let begin = Instant::now();
    prepared.restart();
    let client = Client::new(&prepared.gateway, TOKENS);
    let answer = client.first_success(Duration::from_millis(2)).await;
    let first = answer.sent.duration_since(begin) + answer.first;
    prepared.stop();
    first
}

async fn measure(output: &Path) {
    let network = Network::start(PACE);
    let consumer = network.consumer("consumer");
    network.fund(&consumer);
    let origin = Helper::start(&["serve-origin"]);
    let proxy = Helper::start(&["serve-proxy", &origin.address]);
    let mut arms = [
        Arm::new("direct", &origin.address, vec![origin.id()]),
        Arm::new("proxy", &proxy.address, vec![origin.id(), proxy.id()]),
        Arm::new("cocoon", &consumer.gateway, vec![network.provider.id(), consumer.id()]),
    ];
    for arm in &mut arms {
        arm.client.first_success(Duration::from_millis(50)).await;
        arm.client.ask(WARM_UP, 1).await;
    }
    eprintln!("one stream at a time …");
    let single = compare(&mut arms, SINGLE, 1).await;
    eprintln!("eight streams at a time …");
    let eight = compare(&mut arms, EIGHT, 8).await;
    drop((arms, consumer, origin, proxy));
    eprintln!("cold starts …");
    let mut cold = Vec::new();
    for number in 0..COLD_STARTS {
        cold.push(micros(cold_start(&network, &format!("cold-{number}")).await));
    }
    let figures = json!({
        "tokens": TOKENS,
        "pace_us": micros(PACE),
        "single": single,
        "eight": eight,
        "cold_start_p50_us": percentile(&cold, 50),
        "cold_starts_us": cold,
    });
    let text = serde_json::to_string_pretty(&figures).unwrap();
    std::fs::write(output, &text).unwrap();
    println!("{text}");
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve-origin"] => http::serve_origin(TOKENS, PACE).await,
        ["serve-proxy", upstream] => http::serve_proxy(upstream).await,
        [output] if !output.starts_with('-') => measure(Path::new(output)).await,
        _ => eprintln!("usage: whole_path FILE; scripts/bench runs it"),
    }
}
