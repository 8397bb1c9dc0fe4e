//! The hosts of a run, drawn from its scenario and its seed.
//!
//! Owns: who is what, stands where, has which key and price. Must not: start anybody.
//!
//! Mixes are met as closely as whole numbers allow, not on average: a small population with 10 % of
//! a class has it. Every host draws from its own streams, so that one host more moves no other's
//! key, link or price.

use std::sync::Arc;

use cocoon_protocol::identity::{ModelHash, NodeKey, TonAddress};
use cocoon_protocol::offer::ModelOffer;
use cocoon_protocol::units::{PricePerMillion, Prices, Tokens};
use cocoon_protocol::{pricing, selection};
use simnet_scenario::adversary::Role;
use simnet_scenario::draw::{below, fraction, log_normal, quota, shuffle, weighted};
use simnet_scenario::hardware::{Hardware, Model, Site};
use simnet_scenario::population::{ChurnClass, Nat};
use simnet_scenario::quantity::Share;
use simnet_scenario::topology::Access;
use simnet_scenario::{Adversary, AdversaryKind, Link, Regions, Scenario, Seed};

use crate::behaviour::Plan;
use crate::fabric::HostId;
use crate::host::{ConsumerSpec, HostSpec, HotKey, ProviderSpec};
use crate::policy::{self, PolicyError};
use crate::store::StoreSpec;

/// A model of the scenario as users ask for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its weights.
    pub hash: ModelHash,
    /// How many users ask for it, relative to the others.
    pub weight: f64,
    /// Context that one job may fill.
    pub context: u32,
}

/// The models of a scenario, in the order of their names.
pub fn models(scenario: &Scenario) -> Vec<Wanted> {
    let wanted = |(name, model): (&String, &Model)| Wanted {
        name: name.clone(),
        hash: model_hash(name),
        weight: model.weight,
        context: model.context,
    };
    scenario.models.iter().map(wanted).collect()
}

/// The kinds of hosts: the classes of hardware in the order of their names, then consumers, then
/// nodes that only keep the index.
pub fn classes(scenario: &Scenario) -> Vec<String> {
    let others = ["consumer".to_owned(), "index".to_owned()];
    scenario.hardware.keys().cloned().chain(others).collect()
}

/// The weights that a model's name stands for in every run.
pub fn model_hash(name: &str) -> ModelHash {
    let digest = blake3::derive_key("cocoon simnet model v1", name.as_bytes());
    ModelHash::from_bytes(digest)
}

/// All hosts of a run, in the order of their numbers. Keys are made with the signatures that the
/// thread has chosen (see `cocoon_protocol::signature`), so choose those first.
///
/// # Errors
/// When a policy that the scenario names cannot be had.
pub fn draw(scenario: &Scenario, seed: Seed) -> Result<Vec<Arc<HostSpec>>, PolicyError> {
    let cast = Cast::draw(scenario, seed);
    let table = Regions::of(scenario.network.topology);
    let weights = table.weights(scenario.network.topology, &scenario.population.regions);
    let regions = dealt(seed, "regions", &weights, cast.places.len());
    let hosts = cast.places.iter().zip(regions).enumerate();
    let stock = Stock::of(scenario)?;
    hosts
        .map(|(index, (place, region))| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let region = u16::try_from(region).unwrap_or(0);
            host(scenario, seed, index, place, region, &stock).map(Arc::new)
        })
        .collect()
}

/// What a host is for, before it has a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    provides: bool,
    index_only: bool,
    /// Which class of hardware, in the order of names.
    class: usize,
    /// Which model, in the order of names.
    model: usize,
    /// Which group of adversaries.
    group: Option<usize>,
    /// Which group is after it.
    victim_of: Option<usize>,
}

/// Who is what.
#[derive(Debug)]
struct Cast {
    places: Vec<Place>,
}

impl Cast {
    fn draw(scenario: &Scenario, seed: Seed) -> Self {
        let population = &scenario.population;
        let nodes = usize::try_from(population.nodes).unwrap_or(0);
        let mut order: Vec<usize> = (0..nodes).collect();
        shuffle(&mut seed.stream("roles", 0), &mut order);
        let providers = usize::try_from(population.providers.of(population.nodes)).unwrap_or(0);
        let index_only = usize::try_from(population.index_only.of(population.nodes)).unwrap_or(0);
        let mut cast = Self { places: vec![Place::default(); nodes] };
        for (rank, index) in order.into_iter().enumerate() {
            let place = &mut cast.places[index];
            place.provides = rank < providers;
            place.index_only = !place.provides && rank < providers + index_only;
        }
        for (group, adversary) in scenario.adversaries.iter().enumerate() {
            cast.turn(group, adversary, seed);
        }
        cast.equip(scenario, seed);
        cast
    }

    /// Makes a part of the hosts adversaries of this group.
    fn turn(&mut self, group: usize, adversary: &Adversary, seed: Seed) {
        let role = adversary.kind.role();
        let fits = |place: &Place| match role {
            Role::NewProviders => true,
            Role::Providers => place.provides,
            Role::Consumers => !place.provides && !place.index_only,
            Role::IndexOnly => place.index_only,
            Role::Anybody => false,
        };
        let whole = self.places.iter().filter(|place| fits(place)).count();
        if let Some(victim) = self.victim(adversary).and_then(|it| self.places.get_mut(it)) {
            victim.victim_of = Some(group);
        }
        let free = |it: &Place| fits(it) && it.group.is_none() && it.victim_of.is_none();
        let mut candidates: Vec<usize> =
            (0..self.places.len()).filter(|it| self.places.get(*it).is_some_and(free)).collect();
        let stream = u64::try_from(group).unwrap_or(u64::MAX);
        shuffle(&mut seed.stream("adversaries", stream), &mut candidates);
        let count = adversary.portion.of(u32::try_from(whole).unwrap_or(u32::MAX));
        for index in candidates.into_iter().take(usize::try_from(count).unwrap_or(0)) {
            let place = &mut self.places[index];
            place.group = Some(group);
            if role == Role::NewProviders {
                place.provides = true;
                place.index_only = false;
            }
        }
    }

    /// The consumer that an eclipse is about: it stays honest.
    fn victim(&self, adversary: &Adversary) -> Option<usize> {
        if adversary.kind != AdversaryKind::Eclipse {
            return None;
        }
        let number = usize::try_from(adversary.victim.unwrap_or(0)).unwrap_or(0);
        let consumes =
            |place: &Place| !place.provides && !place.index_only && place.group.is_none();
        let consumers = self.places.iter().enumerate().filter(|(_, place)| consumes(place));
        consumers.map(|(index, _)| index).cycle().nth(number)
    }

    /// Gives every provider its hardware and its model.
    fn equip(&mut self, scenario: &Scenario, seed: Seed) {
        let named = &scenario.population.hardware;
        let weights: Vec<f64> = if named.is_empty() {
            scenario.hardware.values().map(|class| class.weight).collect()
        } else {
            let weight = |name| named.get(name).copied().unwrap_or(0.0);
            scenario.hardware.keys().map(weight).collect()
        };
        // Honest and dishonest providers each have the mix: a group is no stronger by chance.
        let groups = 0..=scenario.adversaries.len();
        for group in groups {
            let group = group.checked_sub(1);
            let members: Vec<usize> = (0..self.places.len())
                .filter(|it| {
                    self.places.get(*it).is_some_and(|it| it.provides && it.group == group)
                })
                .collect();
            let label = format!("hardware {group:?}");
            let classes = dealt(seed, &label, &weights, members.len());
            for (index, class) in members.iter().zip(classes) {
                let mut rng = seed.stream("model", u64::try_from(*index).unwrap_or(u64::MAX));
                let place = &mut self.places[*index];
                place.class = class;
                place.model = weighted(&mut rng, &work(scenario, class)).unwrap_or(0);
            }
        }
        self.serve_every_model(scenario);
    }

    /// Sees to it that a model that somebody could serve is served: the first honest provider
    /// whose own model has another server takes it.
    fn serve_every_model(&mut self, scenario: &Scenario) {
        let mut served = vec![0u32; scenario.models.len()];
        for place in self.places.iter().filter(|place| place.provides && place.group.is_none()) {
            served[place.model] += 1;
        }
        for model in 0..served.len() {
            if served[model] > 0
                || scenario.models.values().nth(model).is_none_or(|it| it.weight <= 0.0)
            {
                continue;
            }
            let can = |place: &&mut Place| {
                place.provides
                    && place.group.is_none()
                    && served[place.model] > 1
                    && work(scenario, place.class).get(model).is_some_and(|it| *it > 0.0)
            };
            if let Some(place) = self.places.iter_mut().find(can) {
                served[place.model] -= 1;
                served[model] += 1;
                place.model = model;
            }
        }
    }
}

/// How much work users ask of each model, as far as a class of hardware can serve it.
fn work(scenario: &Scenario, class: usize) -> Vec<f64> {
    let Some((name, hardware)) = scenario.hardware.iter().nth(class) else { return Vec::new() };
    let serves = |model: &Model| {
        model.memory <= hardware.memory
            && (model.classes.is_empty() || model.classes.contains(name))
    };
    let work = |model: &Model| if serves(model) { model.weight * model.slowdown } else { 0.0 };
    scenario.models.values().map(work).collect()
}

/// A list of `length` places of `weights`, each as often as its weight, in random order.
fn dealt(seed: Seed, label: &str, weights: &[f64], length: usize) -> Vec<usize> {
    let counts = quota(weights, u32::try_from(length).unwrap_or(u32::MAX));
    let places = counts.iter().enumerate();
    let mut list: Vec<usize> =
        places.flat_map(|(place, count)| (0..*count).map(move |_| place)).collect();
    list.resize(length, 0);
    shuffle(&mut seed.stream(label, 0), &mut list);
    list
}

fn host(
    scenario: &Scenario,
    seed: Seed,
    index: u32,
    place: &Place,
    region: u16,
    stock: &Stock,
) -> Result<HostSpec, PolicyError> {
    let id = u64::from(index);
    let adversary = place.group.and_then(|group| scenario.adversaries.get(group)).cloned();
    let provides = place.provides.then(|| scenario.hardware.values().nth(place.class)).flatten();
    let site = match provides {
        Some(class) => class.site,
        // Nodes without a role run on rented servers: the index needs those who stay.
        None if place.index_only => Site::Datacentre,
        None => Site::Home,
    };
    let churn = match (place.provides, place.index_only, site) {
        (true, _, Site::Home) => scenario.churn.home_providers,
        (true, _, Site::Datacentre) => scenario.churn.datacentre_providers,
        (false, true, _) => scenario.churn.index_only,
        (false, false, _) => scenario.churn.consumers,
    };
    let class = match (place.provides, place.index_only) {
        (true, _) => place.class,
        (false, false) => scenario.hardware.len(),
        (false, true) => scenario.hardware.len() + 1,
    };
    let consumes = !place.provides && !place.index_only;
    let consumer = if consumes { Some(consumer(scenario, stock, id)?) } else { None };
    let provider =
        provides.map(|class| Box::new(provider(scenario, seed, id, place, class, stock)));
    let mut host = HostSpec {
        id: HostId(index),
        key: NodeKey::from_secret(&seed.bytes("node key", id)),
        seed,
        region,
        class: u16::try_from(class).unwrap_or(u16::MAX),
        link: link(scenario, seed, id, site),
        churn: if adversary.is_some() { ChurnClass::None } else { churn },
        skew_ms: skew(scenario, seed, id),
        store: stock.store(scenario, seed, id),
        hostile: false,
        behaviour: None,
        adversary: None,
        victim_of: place.victim_of.and_then(|group| u16::try_from(group).ok()),
        consumer,
        provider,
    };
    if let Some(adversary) = adversary {
        if adversary.attacks() {
            Plan::dress(&mut host, &adversary);
        }
        host.adversary = Some(Arc::new(adversary));
    }
    Ok(host)
}

fn link(scenario: &Scenario, seed: Seed, id: u64, site: Site) -> Link {
    let mut rng = seed.stream("link", id);
    let access: &Access = match site {
        Site::Home => &scenario.network.home,
        Site::Datacentre => &scenario.network.datacentre,
    };
    let weights: Vec<f64> = access.plans.iter().map(|plan| plan.weight).collect();
    let plan = weighted(&mut rng, &weights).and_then(|it| access.plans.get(it));
    let mile = log_normal(&mut rng, access.last_mile_median.duration(), access.last_mile_sigma);
    let mix = &scenario.population.nat;
    let nat = match (site, weighted(&mut rng, &[mix.public, mix.cone, mix.symmetric])) {
        (Site::Home, Some(1)) => Nat::Cone,
        (Site::Home, Some(2)) => Nat::Symmetric,
        _ => Nat::Public,
    };
    let usual = Link::default();
    Link {
        last_mile: mile / 2,
        up: plan.map_or(usual.up, |plan| plan.up),
        down: plan.map_or(usual.down, |plan| plan.down),
        nat,
    }
}

/// Triangular around zero: the difference of two even draws.
fn skew(scenario: &Scenario, seed: Seed, id: u64) -> i64 {
    let clock = &scenario.faults.clock;
    let mut rng = seed.stream("clock", id);
    let wrong = clock.wrong.takes(rand_core::Rng::next_u64(&mut rng));
    let most = if wrong { clock.wrong_by } else { clock.skew };
    let most = most.as_micros() / 1_000;
    let one = |it| i64::try_from(it).unwrap_or(0);
    one(below(&mut rng, most + 1)) - one(below(&mut rng, most + 1))
}

/// What hosts have in common: one of it is in memory, and they share it.
#[derive(Debug)]
struct Stock {
    usual_disk: Arc<StoreSpec>,
    slow_disk: Arc<StoreSpec>,
    /// `None` where each host has one of its own.
    selection: Option<Arc<dyn selection::Policy>>,
    pricing: Arc<dyn pricing::Policy>,
}

impl Stock {
    fn of(scenario: &Scenario) -> Result<Self, PolicyError> {
        let (name, parameters) = (&scenario.policy.name, &scenario.policy.parameters);
        let selection = policy::selection(name, parameters, 0)?;
        let disk = &scenario.faults.slow_disk;
        Ok(Self {
            usual_disk: Arc::new(store(scenario, disk.usual.duration())),
            slow_disk: Arc::new(store(scenario, disk.commit.duration())),
            selection: policy::is_shared(name).then_some(selection),
            pricing: policy::pricing(&scenario.prices.policy, &scenario.prices.parameters)?,
        })
    }

    fn store(&self, scenario: &Scenario, seed: Seed, id: u64) -> Arc<StoreSpec> {
        let share = scenario.faults.slow_disk.share;
        let is_slow = share > Share::NONE
            && share.takes(rand_core::Rng::next_u64(&mut seed.stream("disk", id)));
        Arc::clone(if is_slow { &self.slow_disk } else { &self.usual_disk })
    }
}

fn store(scenario: &Scenario, commit: std::time::Duration) -> StoreSpec {
    let faults = &scenario.faults;
    StoreSpec {
        commit,
        spread: commit / 2,
        slow: 0,
        slow_commit: std::time::Duration::ZERO,
        crash: faults.crash_at_persist.as_billionths() / 1_000,
        restart_after: faults.restart_after.0.duration(),
        keep_receipts: false,
        check: false,
    }
}

fn consumer(scenario: &Scenario, stock: &Stock, id: u64) -> Result<ConsumerSpec, PolicyError> {
    let policy = match &stock.selection {
        Some(shared) => Arc::clone(shared),
        None => policy::selection(&scenario.policy.name, &scenario.policy.parameters, id)?,
    };
    let patience = scenario.demand.patience.duration();
    Ok(ConsumerSpec {
        vault_key: HotKey::Drawn,
        deposit: scenario.payments.deposit.0,
        allocation: scenario.payments.allocation.0,
        patience: (!patience.is_zero()).then_some(patience),
        policy,
    })
}

fn provider(
    scenario: &Scenario,
    seed: Seed,
    id: u64,
    place: &Place,
    class: &Hardware,
    stock: &Stock,
) -> ProviderSpec {
    let model = scenario.models.iter().nth(place.model);
    let slowdown = model.map_or(1.0, |(_, model)| model.slowdown);
    let offers = model.map(|(name, model)| ModelOffer {
        model: model_hash(name),
        name: name.clone(),
        quantisation: "Q4_K_M".to_owned(),
        context: Tokens::new(model.context),
        prices: prices(scenario, seed, id, class, slowdown),
    });
    ProviderSpec {
        models: offers.into_iter().collect(),
        tier: class.tier,
        genuine: class.tier,
        payout: TonAddress { workchain: 0, hash: seed.bytes("payout", id) },
        places: class.places,
        queue: class.queue,
        prefill_per_second: class.prefill.per_second() / slowdown,
        decode_per_second: class.decode.per_second() / slowdown,
        contention: class.contention,
        flush: scenario.flush.duration(),
        settle_threshold: scenario.payments.settle_threshold.0,
        pricing: Arc::clone(&stock.pricing),
    }
}

/// What an hour of the hardware costs, over the tokens that it reads or writes in one, with the
/// scenario's margin, use and spread. Rounded to 1,000 nanoTON a million tokens.
fn prices(scenario: &Scenario, seed: Seed, id: u64, class: &Hardware, slowdown: f64) -> Prices {
    let it = &scenario.prices;
    let spread = it.spread.fraction();
    let own = 1.0 + spread * (2.0 * fraction(&mut seed.stream("price", id)) - 1.0);
    #[expect(clippy::cast_precision_loss, reason = "costs of an hour are far below 2^53 nanoTON")]
    let hour = class.cost_per_hour.0.as_nano() as f64;
    let batch = f64::from(class.places);
    let together = batch / (1.0 + class.contention * (batch - 1.0));
    let price = |per_second: f64| {
        let tokens = per_second / slowdown * 3_600.0 * it.utilisation.fraction();
        whole(hour / tokens * 1e6 * it.margin * own / 1_000.0).saturating_mul(1_000)
    };
    Prices {
        prompt: PricePerMillion::from_nano(price(class.prefill.per_second())),
        completion: PricePerMillion::from_nano(price(class.decode.per_second() * together)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; a price that is no number is zero"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
