//! What maintainers withdraw: platforms, firmware and images that no policy of a subscriber accepts any more.
//!
//! Owns: the subscription in a policy, the list's content, and its effect on claims.
//! Must not: accept anything. A list is asked after the policy has accepted, and can only refuse: whatever a
//! network delivers, a policy is never loosened by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::attest::claims::Claims;
use crate::attest::measurement::Register;
use crate::attest::snp::{SnpClaims, SnpProduct, SnpTcb};
use crate::attest::tdx::{TdxClaims, TdxMeasurements};
use crate::attest::verdict::Refusal;
use crate::identity::NodeId;
use crate::units::Timestamp;

/// Entries of one kind in a list, and lists in a policy: bounds for linear searches.
const LIST_ENTRIES: usize = 4_096;
/// Longest reason, in bytes: it reaches terminals.
const REASON_BYTES: usize = 256;
/// Maintainers that one policy may follow.
pub(in crate::attest) const SUBSCRIPTIONS: usize = 16;

/// A maintainer whose list a policy's owner follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The key that signs the list.
    pub maintainer: NodeId,
    /// Where it is: a URL, or a path that is relative to the policy's folder.
    pub source: String,
    /// Without a list in force, no evidence is accepted. On unless switched off, which is weaker.
    #[serde(default = "on")]
    pub required: bool,
}

const fn on() -> bool {
    true
}

/// An image that is no longer to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawnImage {
    /// For TDX SHA-256 of the eight registers, as the registry names a set of measurements; for
    /// SEV-SNP the launch digest. In hexadecimal.
    pub measurement: String,
    /// Why, in the maintainer's words.
    pub reason: String,
}

/// What a list says about TDX.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxAdvisories {
    /// Intel's advisories that disqualify a platform.
    pub reject_advisories: Vec<String>,
    /// Collateral of an older evaluation is refused.
    pub min_tcb_eval_data_number: u32,
    /// Platforms whose keys are known to be out, by PPID in hexadecimal.
    pub reject_ppid: Vec<String>,
    /// Images.
    pub withdrawn: Vec<WithdrawnImage>,
}

/// What a list says about SEV-SNP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpAdvisories {
    /// The lowest firmware level, by family and component.
    pub min_tcb: BTreeMap<SnpProduct, SnpTcb>,
    /// Chips whose keys are known to be out, in hexadecimal; Turin's eight bytes alone.
    pub reject_chip_id: Vec<String>,
    /// Images.
    pub withdrawn: Vec<WithdrawnImage>,
}

/// A maintainer's list, its signature verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvisoryList {
    /// Whose it is.
    pub maintainer: NodeId,
    /// One more with every change: an older one is never taken for a newer one.
    pub version: u64,
    /// From when on it is not current any more. What it refuses stays refused.
    pub expires: Timestamp,
    /// What it says.
    pub tdx: TdxAdvisories,
    /// What it says.
    pub snp: SnpAdvisories,
}

impl AdvisoryList {
    /// The first field that is beyond its bound, or that could never apply to anything because it is
    /// not what it should be.
    pub fn fault(&self) -> Option<&'static str> {
        let digits = |text: &String, lengths: &[usize]| {
            lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let image = |image: &WithdrawnImage, length| {
            let shown =
                image.reason.len() <= REASON_BYTES && !image.reason.contains(char::is_control);
            shown && digits(&image.measurement, &[length])
        };
        let (tdx, snp) = (&self.tdx, &self.snp);
        let short = |length: usize| length <= LIST_ENTRIES;
        let fields = [
            ("reject_advisories", short(tdx.reject_advisories.len())),
            (
                "reject_ppid",
                short(tdx.reject_ppid.len()) && tdx.reject_ppid.iter().all(|it| digits(it, &[32])),
            ),
            (
                "reject_chip_id",
                short(snp.reject_chip_id.len())
                    && snp.reject_chip_id.iter().all(|it| digits(it, &[16, 128])),
            ),
            (
                "withdrawn",
                short(tdx.withdrawn.len())
                    && short(snp.withdrawn.len())
                    && tdx.withdrawn.iter().all(|it| image(it, 64))
                    && snp.withdrawn.iter().all(|it| image(it, 96)),
            ),
        ];
        fields.into_iter().find(|(_, fits)| !fits).map(|(field, _)| field)
    }

    /// Whether what `claims` claim is withdrawn.
    ///
    /// # Errors
    /// The first entry that applies.
    pub fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        match claims {
            Claims::Tdx(claims) => self.check_tdx(claims),
            Claims::Snp(claims) => self.check_snp(claims),
        }
    }

    fn withdrawn(&self, what: &'static str, reason: impl Into<String>) -> Refusal {
        Refusal::Withdrawn { what, reason: reason.into(), maintainer: self.maintainer }
    }

    fn check_tdx(&self, claims: &TdxClaims) -> Result<(), Refusal> {
        let list = &self.tdx;
        let named = |advisory: &&String| {
            list.reject_advisories.iter().any(|rejected| rejected.eq_ignore_ascii_case(advisory))
        };
        if let Some(advisory) = claims.advisories.iter().find(named) {
            return Err(self.withdrawn("platform's standing", advisory));
        }
        let (number, minimum) = (claims.tcb_evaluation_data_number, list.min_tcb_eval_data_number);
        if number < minimum {
            return Err(Refusal::CollateralOutdated { number, minimum });
        }
        let ppid = hex::encode(&claims.ppid);
        if list.reject_ppid.iter().any(|rejected| rejected.eq_ignore_ascii_case(&ppid)) {
            return Err(self.withdrawn("platform", "its keys are not secret any more"));
        }
        self.check_image(&list.withdrawn, &hex::encode(registry_hash(&claims.measurements)))
    }

    fn check_snp(&self, claims: &SnpClaims) -> Result<(), Refusal> {
        let list = &self.snp;
        if let Some(least) = list.min_tcb.get(&claims.product) {
            for level in [&claims.reported_tcb, &claims.launch_tcb] {
                let pairs = level.components().into_iter().zip(least.components());
                let low = |((component, found), (_, least)): ((&'static str, u8), (_, u8))| {
                    (found < least).then_some((component, found, least))
                };
                if let Some((component, found, least)) = pairs.into_iter().find_map(low) {
                    let reason = format!("{component} {found}, at least {least} is wanted");
                    return Err(self.withdrawn("platform's firmware", reason));
                }
            }
        }
        let chip = hex::encode(claims.chip_id);
        let is_chip = |rejected: &String| {
            // Turin's identities are eight bytes, which a report pads with zeros.
            let padded = format!("{rejected:0<128}");
            padded.eq_ignore_ascii_case(&chip)
        };
        if list.reject_chip_id.iter().any(is_chip) {
            return Err(self.withdrawn("platform", "its keys are not secret any more"));
        }
        self.check_image(&list.withdrawn, &claims.measurements.measurement.to_string())
    }

    fn check_image(&self, withdrawn: &[WithdrawnImage], measured: &str) -> Result<(), Refusal> {
        let found = withdrawn.iter().find(|it| it.measurement.eq_ignore_ascii_case(measured));
        found.map_or(Ok(()), |image| Err(self.withdrawn("image", &image.reason)))
    }
}

/// SHA-256 of the eight registers in the order of [`TdxMeasurements`]: how the registry names a set
/// of measurements (`contracts/README.md`).
pub fn registry_hash(measured: &TdxMeasurements) -> [u8; 32] {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &measured.rtmr;
    let registers: [&Register; 8] = [
        &measured.mrtd,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
        &measured.mr_config_id,
        &measured.mr_owner,
        &measured.mr_owner_config,
    ];
    let hash = registers.iter().fold(Sha256::new(), |hash, it| hash.chain_update(it.as_bytes()));
    hash.finalize().into()
}

/// The lists that a policy's owner follows, as they are at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advisories {
    followed: Vec<(Subscription, Option<AdvisoryList>)>,
}

impl Advisories {
    /// Nothing yet of what `subscriptions` name.
    pub fn none(subscriptions: &[Subscription]) -> Self {
        let followed = subscriptions.iter().map(|it| (it.clone(), None));
        Self { followed: followed.collect() }
    }

    /// What is followed, and the list in force.
    pub fn followed(&self) -> &[(Subscription, Option<AdvisoryList>)] {
        &self.followed
    }

    /// Puts `list` in force for every subscription to its maintainer, unless a newer one is.
    /// Whether any took it.
    pub fn update(&mut self, list: &AdvisoryList) -> bool {
        let mut taken = false;
        for (subscription, known) in &mut self.followed {
            let newer = known.as_ref().is_none_or(|known| known.version < list.version);
            if subscription.maintainer == list.maintainer && newer {
                *known = Some(list.clone());
                taken = true;
            }
        }
        taken
    }

    /// Until when no list that the policy requires ends.
    pub fn expires(&self) -> Timestamp {
        let required = self.followed.iter().filter(|(subscription, _)| subscription.required);
        let ends = required.map(|(_, list)| list.as_ref().map_or(Timestamp::MAX, |it| it.expires));
        ends.min().unwrap_or(Timestamp::MAX)
    }

    /// Refuses what a list refuses, and everything where a list is required and none is in force.
    ///
    /// # Errors
    /// The first reason.
    pub fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        for (subscription, list) in &self.followed {
            // A list that ended keeps what it refuses refused: time makes no platform safe again.
            if let Some(list) = list {
                list.check(claims)?;
            }
            let current = list.as_ref().is_some_and(|list| now < list.expires);
            if subscription.required && !current {
                return Err(Refusal::AdvisoriesMissing { maintainer: subscription.maintainer });
            }
        }
        Ok(())
    }
}
