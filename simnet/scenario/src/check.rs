//! Ranges, and what must fit together.
//!
//! Owns: every bound on a value of a scenario. Must not: know where it was written.

use std::collections::BTreeMap;

use crate::adversary::{Adversary, AdversaryKind};
use crate::demand::{Lengths, Pattern};
use crate::error::{Fault, nearest};
use crate::money::Window;
use crate::population::{Population, Sessions};
use crate::quantity::{Portion, Span};
use crate::scenario::Scenario;
use crate::topology::{Access, Regions};

/// The largest population: twice what the abstract tier was built for.
const NODES: u32 = 2_000_000;
/// Groups of adversaries, bursts, outages and partitions: far above any experiment.
const LIST: usize = 1_000;

pub(crate) fn check(scenario: &Scenario) -> Result<(), Fault> {
    head(scenario)?;
    population(&scenario.population, scenario)?;
    sessions("churn.hobby", &scenario.churn.hobby)?;
    sessions("churn.datacentre", &scenario.churn.datacentre)?;
    access("network.home", &scenario.network.home)?;
    access("network.datacentre", &scenario.network.datacentre)?;
    catalogue(scenario)?;
    demand(scenario)?;
    money(scenario)?;
    faults(scenario)?;
    list("adversaries", scenario.adversaries.len())?;
    for (index, group) in scenario.adversaries.iter().enumerate() {
        adversary(&format!("adversaries.{index}"), group, scenario)?;
    }
    Ok(())
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Fault> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(Fault::text(key, format!("{value} is out of range: {least} to {most} is allowed")))
}

fn list(key: &str, length: usize) -> Result<(), Fault> {
    if length <= LIST {
        return Ok(());
    }
    Err(Fault::text(key, format!("{length} entries; at most {LIST} are allowed")))
}

fn known<'a>(key: &str, name: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Fault> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let near = nearest(name, &names).map_or(String::new(), |it| format!("; did you mean `{it}`?"));
    Err(Fault::text(key, format!("there is no `{name}`{near} Known: {}", names.join(", "))))
}

fn weights<'a>(key: &str, weights: impl Iterator<Item = &'a f64>) -> Result<(), Fault> {
    let mut sum = 0.0;
    for weight in weights {
        within(key, *weight, 0.0, 1e9)?;
        sum += weight;
    }
    if sum > 0.0 {
        return Ok(());
    }
    Err(Fault::text(key, "the weights are all zero; one at least must be above"))
}

fn head(scenario: &Scenario) -> Result<(), Fault> {
    let name = &scenario.name;
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let message = "a name has 1 to 64 of the characters a-z, 0-9 and -";
        return Err(Fault::text("name", message));
    }
    let day = Span::seconds(86_400 * 400);
    within("duration", scenario.duration, Span::millis(1), day)?;
    within("sample_every", scenario.sample_every, Span::millis(10), day)?;
    within("start_over", scenario.start_over, Span::ZERO, scenario.duration)
}

fn population(it: &Population, scenario: &Scenario) -> Result<(), Fault> {
    within("population.nodes", it.nodes, 2, NODES)?;
    let providers = it.providers.of(it.nodes);
    within("population.providers", count(it.providers, it.nodes), 0, it.nodes)?;
    let rest = it.nodes - providers;
    within("population.index_only", count(it.index_only, it.nodes), 0, rest)?;
    if providers + it.index_only.of(it.nodes) >= it.nodes {
        let message = "no node is left to be a consumer: providers and index_only are everybody";
        return Err(Fault::text("population.providers", message));
    }
    for (name, weight) in &it.hardware {
        let key = format!("population.hardware.{name}");
        known(&key, name, scenario.hardware.keys())?;
        within(&key, *weight, 0.0, 1e9)?;
    }
    if !it.hardware.is_empty() {
        weights("population.hardware", it.hardware.values())?;
    }
    let regions = Regions::of(scenario.network.topology);
    for name in it.regions.keys() {
        known(&format!("population.regions.{name}"), name, regions.names().iter())?;
    }
    if !it.regions.is_empty() {
        weights("population.regions", it.regions.values())?;
    }
    weights("population.nat", [&it.nat.public, &it.nat.cone, &it.nat.symmetric].into_iter())
}

/// What was written, before it is cut to the whole.
fn count(portion: Portion, whole: u32) -> u32 {
    match portion {
        Portion::Count(count) => count,
        Portion::Share(share) => share.of(whole),
    }
}

fn sessions(key: &str, it: &Sessions) -> Result<(), Fault> {
    let long = Span::seconds(86_400 * 10_000);
    within(&format!("{key}.session_median"), it.session_median, Span::millis(100), long)?;
    within(&format!("{key}.session_shape"), it.session_shape, 0.2, 5.0)?;
    within(&format!("{key}.absence_median"), it.absence_median, Span::millis(1), long)
}

fn access(key: &str, it: &Access) -> Result<(), Fault> {
    let most = Span::seconds(10);
    within(&format!("{key}.last_mile_median"), it.last_mile_median, Span::ZERO, most)?;
    within(&format!("{key}.last_mile_sigma"), it.last_mile_sigma, 0.0, 2.0)?;
    list(&format!("{key}.plans"), it.plans.len())?;
    weights(&format!("{key}.plans"), it.plans.iter().map(|plan| &plan.weight))
}

fn catalogue(scenario: &Scenario) -> Result<(), Fault> {
    if scenario.hardware.is_empty() {
        return Err(Fault::text("hardware", "one class of hardware at least is needed"));
    }
    for (name, class) in &scenario.hardware {
        let key = |part: &str| format!("hardware.{name}.{part}");
        within(&key("places"), class.places, 1, 256)?;
        within(&key("queue"), class.queue, 0, 10_000)?;
        within(&key("contention"), class.contention, 0.0, 10.0)?;
        within(&key("weight"), class.weight, 0.0, 1e9)?;
    }
    weights("hardware", scenario.hardware.values().map(|class| &class.weight))?;
    if scenario.models.is_empty() {
        return Err(Fault::text("models", "one model at least is needed"));
    }
    within("models", scenario.models.len(), 1, 64)?;
    for (name, model) in &scenario.models {
        let key = |part: &str| format!("models.{name}.{part}");
        within(&key("context"), model.context, 128, 2_000_000)?;
        within(&key("weight"), model.weight, 0.0, 1e9)?;
        within(&key("slowdown"), model.slowdown, 0.001, 1_000.0)?;
        within("models", name.len(), 1, 64)?;
        for class in &model.classes {
            known(&key("classes"), class, scenario.hardware.keys())?;
        }
        let fits =
            |class: &str| scenario.hardware.get(class).is_some_and(|it| it.memory >= model.memory);
        let fits_one = if model.classes.is_empty() {
            scenario.hardware.keys().any(|class| fits(class))
        } else {
            model.classes.iter().any(|class| fits(class))
        };
        if !fits_one {
            let message = format!("no class of hardware that may serve it has {}", model.memory);
            return Err(Fault::text(key("memory"), message));
        }
    }
    weights("models", scenario.models.values().map(|model| &model.weight))
}

fn lengths(key: &str, it: &Lengths) -> Result<(), Fault> {
    within(&format!("{key}.sigma"), it.sigma, 0.0, 4.0)?;
    within(&format!("{key}.min_tokens"), it.min_tokens, 1, 1_000_000)?;
    within(&format!("{key}.max_tokens"), it.max_tokens, it.min_tokens, 1_000_000)?;
    within(&format!("{key}.median_tokens"), it.median_tokens, 1, 1_000_000)?;
    within(&format!("{key}.empirical_tokens"), it.empirical_tokens.len(), 0, 100_000)?;
    for length in &it.empirical_tokens {
        within(&format!("{key}.empirical_tokens"), *length, 1, 1_000_000)?;
    }
    Ok(())
}

fn demand(scenario: &Scenario) -> Result<(), Fault> {
    let it = &scenario.demand;
    within("demand.rate", it.rate.each_second(), 0.0, 1e7)?;
    list("demand.bursts", it.bursts.len())?;
    for (index, burst) in it.bursts.iter().enumerate() {
        let key = format!("demand.bursts.{index}");
        within(&format!("{key}.times"), burst.times, 0.0, 1_000.0)?;
        window(&key, Window { from: burst.from, until: burst.until })?;
    }
    within("demand.bursts", it.peak_intensity(), 0.0, 10_000.0)?;
    within("demand.diurnal.day", it.diurnal.day, Span::seconds(1), Span::seconds(86_400 * 366))?;
    lengths("demand.prompt", &it.prompt)?;
    lengths("demand.completion", &it.completion)?;
    let longest = it.prompt.max_tokens.saturating_add(it.completion.max_tokens);
    let context = scenario.models.values().map(|model| model.context).max().unwrap_or(0);
    if longest > context {
        let message = format!(
            "{} tokens with the longest completion of {} fit no model's context of {context}",
            it.prompt.max_tokens, it.completion.max_tokens
        );
        return Err(Fault::text("demand.prompt.max_tokens", message));
    }
    let mix = &it.minimum_tier;
    weights("demand.minimum_tier", [&mix.open, &mix.attested, &mix.confidential].into_iter())?;
    if it.pattern == Pattern::Recorded && it.trace.is_empty() {
        return Err(Fault::text("demand.trace", "the pattern `recorded` needs the name of a file"));
    }
    if it.pattern != Pattern::Recorded && !it.trace.is_empty() {
        return Err(Fault::text("demand.trace", "only the pattern `recorded` reads a file"));
    }
    Ok(())
}

fn window(key: &str, it: Window) -> Result<(), Fault> {
    if it.from < it.until {
        return Ok(());
    }
    let message = format!("it ends at {} and begins at {}", it.until, it.from);
    Err(Fault::text(format!("{key}.until"), message))
}

fn parameters(key: &str, it: &BTreeMap<String, f64>) -> Result<(), Fault> {
    list(key, it.len())?;
    for (name, value) in it {
        within(&format!("{key}.{name}"), *value, -1e18, 1e18)?;
    }
    Ok(())
}

fn money(scenario: &Scenario) -> Result<(), Fault> {
    let prices = &scenario.prices;
    within("prices.margin", prices.margin, 0.0, 1_000.0)?;
    within("prices.utilisation", prices.utilisation.fraction(), 0.001, 1.0)?;
    parameters("prices.parameters", &prices.parameters)?;
    parameters("policy.parameters", &scenario.policy.parameters)?;
    let payments = &scenario.payments;
    if payments.allocation > payments.deposit {
        let message = format!("an allocation of {} is more than the deposit", payments.allocation);
        return Err(Fault::text("payments.allocation", message));
    }
    let ledger = &scenario.ledger;
    let hour = Span::seconds(3_600);
    within("ledger.block_time", ledger.block_time, Span::millis(10), hour)?;
    within("ledger.confirmations", ledger.confirmations, 1, 1_000)?;
    within("ledger.release_delay", ledger.release_delay, Span::ZERO, Span::seconds(86_400 * 400))?;
    within("ledger.reorg_depth", ledger.reorg_depth, 1, 64)?;
    list("ledger.outages", ledger.outages.len())?;
    for (index, outage) in ledger.outages.iter().enumerate() {
        window(
            &format!("ledger.outages.{index}"),
            Window { from: outage.from, until: outage.until },
        )?;
    }
    Ok(())
}

fn faults(scenario: &Scenario) -> Result<(), Fault> {
    let it = &scenario.faults;
    let hour = Span::seconds(3_600);
    within("faults.delay", it.delay, Span::ZERO, hour)?;
    within("faults.restart_after", it.restart_after.0, Span::ZERO, Span::seconds(86_400))?;
    within("faults.slow_disk.commit", it.slow_disk.commit, Span::ZERO, hour)?;
    within("faults.slow_disk.usual", it.slow_disk.usual, Span::ZERO, hour)?;
    within("faults.clock.skew", it.clock.skew, Span::ZERO, hour)?;
    within("faults.clock.wrong_by", it.clock.wrong_by, Span::ZERO, Span::seconds(86_400 * 400))?;
    list("faults.partitions", it.partitions.len())?;
    let regions = Regions::of(scenario.network.topology);
    for (index, part) in it.partitions.iter().enumerate() {
        let key = format!("faults.partitions.{index}");
        window(&key, Window { from: part.from, until: part.until })?;
        for name in &part.regions {
            known(&format!("{key}.regions"), name, regions.names().iter())?;
        }
    }
    Ok(())
}

fn adversary(key: &str, it: &Adversary, scenario: &Scenario) -> Result<(), Fault> {
    let known_parameters = it.kind.parameters();
    if let Some(wrong) = it.set().into_iter().find(|name| !known_parameters.contains(name)) {
        let kind = it.kind.as_str();
        let message =
            format!("`{kind}` has no such parameter. It has: {}", known_parameters.join(", "));
        return Err(Fault::text(format!("{key}.{wrong}"), message));
    }
    if let Some(until) = it.until {
        window(key, Window { from: it.from, until })?;
    }
    if let Some(factor) = it.price_factor {
        within(&format!("{key}.price_factor"), factor, 0.0, 1_000.0)?;
    }
    if let Some(factor) = it.speed_factor {
        within(&format!("{key}.speed_factor"), factor, 0.001, 1_000.0)?;
    }
    within(
        &format!("{key}.portion"),
        count(it.portion, scenario.population.nodes),
        0,
        scenario.population.nodes,
    )?;
    let regions = Regions::of(scenario.network.topology);
    for name in &it.regions {
        known(&format!("{key}.regions"), name, regions.names().iter())?;
    }
    if it.kind == AdversaryKind::Eclipse {
        within(&format!("{key}.victim"), it.victim.unwrap_or(0), 0, scenario.population.nodes - 1)?;
    }
    Ok(())
}
