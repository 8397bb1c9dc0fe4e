//! How each effect is carried out.
//!
//! Owns: the way from an effect to the edge or the fabric that does it.
//! Must not: wait. What cannot be handed over at once is a peer that does not read, and loses its
//! session.

use cocoon_protocol::Input;
use cocoon_protocol::output::Effect;

use super::driver::Shell;
use crate::observation::Observation;

impl Shell<'_> {
    /// Does what the protocol asks for.
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Look { model, minimum_tier } => self.look(model, minimum_tier),
            Effect::Avoid { peer } => {
                self.fabric.observe(Observation::Forgot { provider: peer });
                self.fabric.avoid(peer);
            }
            Effect::Publish(offer) => self.publish(offer),
            Effect::OpenSession { peer, minimum_tier } => self.dial(peer, minimum_tier),
            Effect::CloseSession { peer } => self.close_accepted(peer),
            Effect::Send { peer, message } => self.send(peer, message, 0),
            Effect::SendJob { peer, job, offer_sequence, max_completion } => {
                self.send_job(peer, job, offer_sequence, max_completion);
            }
            Effect::Halt { job } => self.halt(job),
            Effect::Inform { job, news } => self.inform(job, news),
            Effect::Ledger(command) => self.fabric.ledger(command),
            Effect::TrustVault { peer, key } => {
                if let Some(serving) = &mut self.process.serving {
                    serving.accepted.trust(peer, key);
                }
            }
            Effect::Engine(command) => self.engine(command),
        }
    }

    fn publish(&mut self, offer: cocoon_protocol::offer::SignedOffer) {
        if let Some(provider) = self.process.node.provider()
            && let Some(prices) = provider.prices()
        {
            let load = provider.load();
            self.fabric.observe(Observation::Offered { load, prices });
        }
        self.fabric.publish(offer);
    }

    /// The ledger answers.
    pub(super) fn ledger_answers(&mut self, answer: Input) {
        if let Input::Settled { voucher, paid } = &answer {
            let channel = voucher.voucher.channel();
            self.fabric.observe(Observation::Settled { channel, paid: *paid });
        }
        self.input(answer);
    }
}
