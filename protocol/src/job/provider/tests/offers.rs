//! What a provider's offers state: prices that move, and the tier that is proved.
//!
//! Owns: the moments at which an offer changes. Must not: run a job.

use super::*;

#[test]
fn an_offer_states_no_tier_that_is_no_longer_proved() {
    let digest = Some([7; 32]);
    let tier = Tier::Confidential;
    let config = ProviderConfig { tier, evidence_digest: digest, ..config() };
    let mut provider = Provider::new(config, Vec::new());
    let tick = Millis::from_secs(1);
    let mut now = START;
    let mut published = |provider: &mut Provider, proves: Option<Tier>| {
        now = now.after(tick);
        let mut out = Output::default();
        match proves {
            Some(tier) => provider.proves(tier, now, &mut out),
            None => provider.handle_timeout(now, &mut out),
        }
        out.effects.iter().find_map(|effect| {
            let Effect::Publish(offer) = effect else { return None };
            let offer = offer.verify(now).unwrap();
            Some((offer.offer().tier, offer.offer().evidence_digest))
        })
    };
    assert_eq!(published(&mut provider, None), Some((Tier::Confidential, digest)));
    // Down at once, however fresh the offer is; up with the next offer; and not twice.
    let down = published(&mut provider, Some(Tier::Attested));
    assert_eq!(down, Some((Tier::Attested, digest)));
    assert_eq!(provider.tier(), Tier::Attested);
    assert_eq!(published(&mut provider, Some(Tier::Attested)), None);
    assert_eq!(published(&mut provider, Some(Tier::Confidential)), None);
    let later = provider.next_timeout().unwrap();
    let mut out = Output::default();
    provider.handle_timeout(later, &mut out);
    let newest = provider.newest_offer().unwrap();
    assert_eq!((newest.tier, newest.issued), (Tier::Confidential, later));
    assert_eq!(published(&mut provider, Some(Tier::Open)), Some((Tier::Open, None)));
}

#[test]
fn prices_follow_utilisation_and_a_job_keeps_its_offers() {
    let policy = pricing::Adaptive::default();
    let mut provider = Provider::new(config(), Vec::new()).with_pricing(Arc::new(policy));
    let mut world = World::with_channel(1_000_000);
    let published = |out: &Output, now: Timestamp| {
        out.effects.iter().rev().find_map(|effect| {
            let Effect::Publish(offer) = effect else { return None };
            Some(offer.verify(now).unwrap().offer().models[0].prices)
        })
    };
    let mut out = Output::default();
    provider.handle_timeout(world.now, &mut out);
    assert_eq!(published(&out, START), Some(config().models[0].prices));
    provider.capacity(4, 4, world.now, &mut out);
    let mut last = config().models[0].prices;
    for _ in 0..8 {
        world.now = provider.next_timeout().unwrap();
        assert!(world.now <= START.after(Millis::from_secs(20 * 60)));
        let mut out = Output::default();
        provider.handle_timeout(world.now, &mut out);
        if let Some(prices) = published(&out, world.now) {
            assert!(prices.completion >= last.completion);
            last = prices;
        }
    }
    assert!(last.completion > config().models[0].prices.completion, "{last:?}");
    let terms = provider.offers.first_key_value().unwrap().1;
    assert_eq!(terms[0].prices, config().models[0].prices, "an old offer keeps its prices");
}
