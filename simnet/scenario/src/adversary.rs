//! Who plays foul, how many of them, and how.
//!
//! Owns: the kinds, which parameters each has, and their defaults. Must not: act; the host does.

use cocoon_protocol::attest::Tier;
use serde::{Deserialize, Serialize};

use crate::quantity::{Portion, Share, Span, Speed};

/// What an adversary does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdversaryKind {
    /// Many identities of one owner: they offer all models cheaply and take prompts, but serve
    /// nothing. Portion of all nodes.
    Sybil,
    /// Identities placed around one consumer, so that it knows nobody else. Portion of all nodes.
    Eclipse,
    /// Serves a cheaper model than it is paid for. Portion of the providers.
    Lazy,
    /// Takes jobs and drips tokens, to hold places and users. Portion of the providers.
    SlowLoris,
    /// Takes jobs and fails them at once: a magnet where short times attract. Portion of the
    /// providers.
    FastFail,
    /// Raises its price once it is in use. Portion of the providers.
    Gouger,
    /// Raise their prices together. Portion of the providers.
    Colluders,
    /// Takes tokens and does not pay. Portion of the consumers.
    FreeRider,
    /// Holds vouchers back until the last moment. Portion of the consumers.
    VoucherWithholder,
    /// Promises one allocation twice. Portion of the consumers.
    DoubleSpender,
    /// Claims a tier with forged evidence. Portion of the providers.
    ForgedEvidence,
    /// Cuts a part of the network off from the rest. Portion of all nodes.
    Partition,
    /// Relays that drop what they carry. Portion of the nodes that only keep the index.
    RelayDropper,
}

impl AdversaryKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Sybil,
        Self::Eclipse,
        Self::Lazy,
        Self::SlowLoris,
        Self::FastFail,
        Self::Gouger,
        Self::Colluders,
        Self::FreeRider,
        Self::VoucherWithholder,
        Self::DoubleSpender,
        Self::ForgedEvidence,
        Self::Partition,
        Self::RelayDropper,
    ];

    /// Whose part its portion is taken from.
    pub const fn role(self) -> Role {
        match self {
            Self::Sybil | Self::Eclipse => Role::NewProviders,
            Self::Lazy
            | Self::SlowLoris
            | Self::FastFail
            | Self::Gouger
            | Self::Colluders
            | Self::ForgedEvidence => Role::Providers,
            Self::FreeRider | Self::VoucherWithholder | Self::DoubleSpender => Role::Consumers,
            Self::RelayDropper => Role::IndexOnly,
            Self::Partition => Role::Anybody,
        }
    }

    /// The run that it is compared with: identities that come to attack would not be there, all
    /// others would be honest.
    pub const fn control(self) -> Control {
        match self.role() {
            Role::NewProviders => Control::Absent,
            Role::Providers | Role::Consumers | Role::IndexOnly | Role::Anybody => Control::Honest,
        }
    }

    /// The name, as a scenario has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sybil => "sybil",
            Self::Eclipse => "eclipse",
            Self::Lazy => "lazy",
            Self::SlowLoris => "slow-loris",
            Self::FastFail => "fast-fail",
            Self::Gouger => "gouger",
            Self::Colluders => "colluders",
            Self::FreeRider => "free-rider",
            Self::VoucherWithholder => "voucher-withholder",
            Self::DoubleSpender => "double-spender",
            Self::ForgedEvidence => "forged-evidence",
            Self::Partition => "partition",
            Self::RelayDropper => "relay-dropper",
        }
    }

    /// The parameters that it has; any other is an error.
    pub const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Sybil => &["price_factor", "claims", "delay"],
            Self::Eclipse => &["victim", "price_factor", "claims", "delay"],
            Self::Lazy => &["speed_factor", "price_factor"],
            Self::SlowLoris => &["speed", "price_factor"],
            Self::FastFail => &["delay", "price_factor", "probability"],
            Self::Gouger | Self::Colluders => &["price_factor", "delay"],
            Self::FreeRider => &["probability", "after_tokens"],
            Self::VoucherWithholder => &["delay"],
            Self::DoubleSpender | Self::RelayDropper => &["probability"],
            Self::ForgedEvidence => &["claims", "price_factor"],
            Self::Partition => &["regions"],
        }
    }
}

/// A run without the attack, in which all other hosts are the same: what an adversary gains or does
/// is the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Its hosts do what honest hosts of their kind do. For those who are there anyway.
    Honest,
    /// Its hosts never run. For those who come to attack.
    Absent,
}

/// Whose part an adversary's portion is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of all nodes, and they become providers whatever they were.
    NewProviders,
    /// Of the providers.
    Providers,
    /// Of the consumers.
    Consumers,
    /// Of the nodes that only keep the index.
    IndexOnly,
    /// Of all nodes; they stay what they are.
    Anybody,
}

/// A group of adversaries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversary {
    /// What they do.
    pub kind: AdversaryKind,
    /// How many they are: a number, or a share of whom [`AdversaryKind::role`] says.
    pub portion: Portion,
    /// From when they play foul. Before, they behave. Default the start.
    #[serde(default)]
    pub from: Span,
    /// Until when. Absent: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
    /// Eclipse: which consumer, counted from zero. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<u32>,
    /// Sybil, eclipse, forged evidence: the tier that they claim and do not have. Default
    /// `confidential` for forged evidence; else what their hardware proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Tier>,
    /// Their price, as a multiple of an honest one. Default 0.5 to attract, 5 for those who gouge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_factor: Option<f64>,
    /// Lazy: how many times faster the cheaper model runs. Default 4: Q2 of a small model against
    /// the promised one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_factor: Option<f64>,
    /// Slow-loris: what it drips. Default 0.5 tokens/s, below the stall time-out's notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Fast-fail: time to the failure (default 20 ms). Sybil, eclipse: time until they fall silent
    /// (default 1 s). Gouger, colluders: time between raises (default 60 s). Withholder: how long a
    /// voucher is held (default 55 s, just under the provider's time-out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// How often they do it when they could. Default always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<Share>,
    /// Free-rider: it pays for so many tokens of a job and then for no more. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_tokens: Option<u32>,
    /// Partition: which regions are cut off; then `portion` is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Makes the run the control of itself: nobody attacks, everything else is the same, host by
    /// host and job by job. Default: they attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
}

impl Adversary {
    /// Whether it attacks; else the run is a control.
    pub const fn attacks(&self) -> bool {
        self.control.is_none()
    }

    /// Its price as a multiple of an honest one.
    pub fn price_factor(&self) -> f64 {
        self.price_factor.unwrap_or(match self.kind {
            AdversaryKind::Gouger | AdversaryKind::Colluders => 5.0,
            AdversaryKind::Sybil
            | AdversaryKind::Eclipse
            | AdversaryKind::FastFail
            | AdversaryKind::SlowLoris
            | AdversaryKind::ForgedEvidence => 0.5,
            AdversaryKind::Lazy
            | AdversaryKind::FreeRider
            | AdversaryKind::VoucherWithholder
            | AdversaryKind::DoubleSpender
            | AdversaryKind::Partition
            | AdversaryKind::RelayDropper => 1.0,
        })
    }

    /// Its delay, as the kind uses it.
    pub fn delay(&self) -> Span {
        self.delay.unwrap_or(match self.kind {
            AdversaryKind::FastFail => Span::millis(20),
            AdversaryKind::Gouger | AdversaryKind::Colluders => Span::seconds(60),
            AdversaryKind::VoucherWithholder => Span::seconds(55),
            AdversaryKind::Sybil
            | AdversaryKind::Eclipse
            | AdversaryKind::Lazy
            | AdversaryKind::SlowLoris
            | AdversaryKind::FreeRider
            | AdversaryKind::DoubleSpender
            | AdversaryKind::ForgedEvidence
            | AdversaryKind::Partition
            | AdversaryKind::RelayDropper => Span::seconds(1),
        })
    }

    /// The tier that it claims, if that is not what its hardware proves.
    pub fn claims(&self) -> Option<Tier> {
        let forger = self.kind == AdversaryKind::ForgedEvidence;
        self.claims.or_else(|| forger.then_some(Tier::Confidential))
    }

    /// How many times faster a lazy provider's cheaper model runs.
    pub fn speed_factor(&self) -> f64 {
        self.speed_factor.unwrap_or(4.0)
    }

    /// What a slow-loris drips.
    pub fn speed(&self) -> f64 {
        self.speed.map_or(0.5, Speed::per_second)
    }

    /// How often it does it when it could.
    pub fn probability(&self) -> Share {
        self.probability.unwrap_or(Share::ALL)
    }

    /// Names of the parameters that are set, for the check against the kind.
    pub(crate) fn set(&self) -> Vec<&'static str> {
        let set = [
            ("victim", self.victim.is_some()),
            ("claims", self.claims.is_some()),
            ("price_factor", self.price_factor.is_some()),
            ("speed_factor", self.speed_factor.is_some()),
            ("speed", self.speed.is_some()),
            ("delay", self.delay.is_some()),
            ("probability", self.probability.is_some()),
            ("after_tokens", self.after_tokens.is_some()),
            ("regions", !self.regions.is_empty()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }
}
