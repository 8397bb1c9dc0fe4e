//! What providers serve with, and what they serve.
//!
//! Owns: hardware classes and models, each figure with the name of its source.
//! Must not: say what anything costs a user; `prices` does.

use std::collections::BTreeMap;

use cocoon_protocol::attest::Tier;
use serde::{Deserialize, Serialize};

use crate::quantity::{Memory, Money, Speed};

/// Where a class of hardware stands: decides its link, its NAT and its churn.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// At somebody's home.
    #[default]
    Home,
    /// In a datacentre.
    Datacentre,
}

/// One class of hardware. Speeds are those of the reference model: 8 billion parameters at four
/// bits, one job alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Prompt tokens that it reads in a second.
    pub prefill: Speed,
    /// Completion tokens that it writes in a second.
    pub decode: Speed,
    /// Jobs that it runs at a time. 1 to 256.
    pub places: u32,
    /// Jobs beyond them that wait for a place instead of being refused. Default 0, as the node's
    /// own engine; a server behind it, vLLM for one, queues. 0 to 10,000.
    #[serde(default)]
    pub queue: u32,
    /// How much each further job in the batch lengthens a step, in steps of one job alone. Default
    /// 0.02, as a graphics card, whose decoding waits for memory: about a doubling at 50 jobs. On
    /// two cores we measured 0.55. 0 to 10.
    #[serde(default = "graphics_card")]
    pub contention: f64,
    /// The tier that it can prove.
    #[serde(default = "open")]
    pub tier: Tier,
    /// Memory for weights.
    pub memory: Memory,
    /// Where it stands.
    #[serde(default)]
    pub site: Site,
    /// What an hour costs its owner: electricity and wear.
    pub cost_per_hour: Money,
    /// Weight among the classes, where the population names none.
    #[serde(default = "one")]
    pub weight: f64,
    /// Where the figures are from.
    #[serde(default)]
    pub source: String,
}

const fn graphics_card() -> f64 {
    0.02
}

const fn one() -> f64 {
    1.0
}

const fn open() -> Tier {
    Tier::Open
}

/// One model. A provider serves one; which, is drawn among those that its hardware can serve, by the
/// work that users ask for: weight times slowdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Context that one job may fill, in tokens. 128 to 2,000,000.
    pub context: u32,
    /// Weight among the models that users ask for.
    #[serde(default = "one")]
    pub weight: f64,
    /// How many times slower than the reference model it runs on the same hardware.
    #[serde(default = "one")]
    pub slowdown: f64,
    /// Memory that its weights need.
    pub memory: Memory,
    /// Classes that serve it. Empty: all that have the memory.
    #[serde(default)]
    pub classes: Vec<String>,
}

/// The classes that a scenario has when it names none.
///
/// Speeds: llama.cpp, LLaMA 3 8B at Q4_K_M, columns `pp 1024` and `tg 1024` of
/// XiongjieDai/GPU-Benchmarks-on-LLM-Inference (May 2024); the H100 from its table of LLaMA 2 7B at
/// Q4_0 (December 2023), which is all that it has of that card.
/// Costs: electricity at 0.30 USD a kWh at full power plus the card's price over three years, half
/// of the time in use, at 3 USD a TON; an assumption, not a market price.
pub(crate) fn default_hardware() -> BTreeMap<String, Hardware> {
    let source = "llama.cpp, XiongjieDai/GPU-Benchmarks-on-LLM-Inference";
    let class = |prefill, decode, places, memory, milli_per_hour, weight| Hardware {
        prefill: Speed::tokens(prefill),
        decode: Speed::tokens(decode),
        places,
        queue: 0,
        contention: graphics_card(),
        tier: Tier::Open,
        memory: Memory::gib(memory),
        site: Site::Home,
        cost_per_hour: Money::milli_ton(milli_per_hour),
        weight,
        source: source.to_owned(),
    };
    let datacentre = |tier, class: Hardware| Hardware { site: Site::Datacentre, tier, ..class };
    let mut classes = BTreeMap::new();
    classes.insert("rtx3060".to_owned(), class(1_800, 43, 4, 12, 30, 20.0));
    classes.insert("rtx3090".to_owned(), class(3_865, 112, 8, 24, 70, 30.0));
    classes.insert("rtx4090".to_owned(), class(6_899, 128, 8, 24, 95, 25.0));
    classes.insert("m2-ultra".to_owned(), class(1_024, 76, 4, 144, 60, 5.0));
    classes.insert(
        "h100".to_owned(),
        datacentre(Tier::Confidential, class(4_869, 134, 32, 80, 900, 10.0)),
    );
    classes
        .insert("epyc-tee".to_owned(), datacentre(Tier::Attested, class(160, 16, 8, 64, 80, 10.0)));
    if let Some(card) = classes.get_mut("rtx3060") {
        card.source = "scaled from the 3090 by memory bandwidth (360 of 936 GB/s) and by \
                       half-precision throughput"
            .to_owned();
    }
    if let Some(card) = classes.get_mut("epyc-tee") {
        card.contention = 0.55;
        card.source = "our measurement of llama.cpp on 2 cores, scaled from 135 million to 8 \
                       billion parameters and to 32 cores"
            .to_owned();
    }
    classes
}

/// The models that a scenario has when it names none: the reference model, and a large one whose
/// slowdown is that of LLaMA 2 70B on the H100 in the table named above (25.9 of 133.8 tokens/s).
pub(crate) fn default_models() -> BTreeMap<String, Model> {
    let model = |context, weight, slowdown, memory| Model {
        context,
        weight,
        slowdown,
        memory: Memory::gib(memory),
        classes: Vec::new(),
    };
    BTreeMap::from([
        ("chat-8b".to_owned(), model(8_192, 90.0, 1.0, 6)),
        ("chat-70b".to_owned(), model(8_192, 10.0, 5.2, 42)),
    ])
}
