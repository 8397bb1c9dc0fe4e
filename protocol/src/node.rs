//! One node's whole protocol state.
//!
//! Owns: the two roles, and which of them an input is for.
//! Must not: know a clock, a socket or a file. `handle` is the only way in, [`Output`] the only way
//! out; the caller makes `persist` durable before it carries out an effect.

use crate::deadlines::earlier;
use crate::input::Input;
use crate::job::consumer::Consumer;
use crate::job::provider::Provider;
use crate::output::Output;
use crate::units::Timestamp;

/// A peer of the network: consumer, provider, both, or neither.
#[derive(Debug)]
pub struct Node {
    consumer: Option<Box<Consumer>>,
    provider: Option<Box<Provider>>,
    draining: bool,
    /// What the last output asked for: text, nine of ten inputs, moves no time-out nearer.
    wake_at: Option<Timestamp>,
}

impl Node {
    /// A node with the roles that it is given.
    pub fn new(consumer: Option<Consumer>, provider: Option<Provider>) -> Self {
        let (consumer, provider) = (consumer.map(Box::new), provider.map(Box::new));
        let mut node = Self { consumer, provider, draining: false, wake_at: None };
        node.wake_at = node.next_timeout();
        node
    }

    /// The consumer's side, for displays.
    pub fn consumer(&self) -> Option<&Consumer> {
        self.consumer.as_deref()
    }

    /// The provider's side, for displays.
    pub fn provider(&self) -> Option<&Provider> {
        self.provider.as_deref()
    }

    /// Names the memory that text of a running job reads, as places and bytes, `step` pointers
    /// away from here: of its roles what leads to their jobs, then their lists, then the jobs. Each step
    /// reads what the one before has named and no more, so that a caller with many nodes can ask
    /// for it ahead.
    pub fn places(&self, step: u8, name: &mut impl FnMut(*const u8, usize)) {
        if let Some(consumer) = self.consumer.as_deref() {
            consumer.places(step, name);
        }
        if let Some(provider) = self.provider.as_deref() {
            provider.places(step, name);
        }
    }

    /// Whether a drain is complete: no job runs and no settlement is under way.
    pub fn is_drained(&self) -> bool {
        let consumer = self.consumer.as_ref().is_none_or(|consumer| consumer.jobs() == 0);
        let provider = self.provider.as_ref();
        let provider = provider.is_none_or(|it| it.jobs() == 0 && it.settling() == 0);
        self.draining && consumer && provider
    }

    /// Something happened at `now`. Time must not run backwards between calls; if it does, time-outs
    /// are late, nothing else.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Output {
        let mut out = Output::default();
        self.handle_into(input, now, &mut out);
        out
    }

    /// The same, behind what an output holds already: of its time-outs the last counts. A caller that
    /// keeps the output and empties it allocates nothing for most inputs.
    pub fn handle_into(&mut self, input: Input, now: Timestamp, out: &mut Output) {
        let moved = match (&input, &mut self.consumer, &mut self.provider) {
            (Input::Delivered { job, completion }, Some(consumer), _) => {
                consumer.delivered(*job, *completion, now, out)
            }
            (Input::Generated { peer, job, completion }, _, Some(provider)) => {
                provider.generated(*peer, *job, *completion, now)
            }
            _ => {
                self.handle_any(input, now, out);
                true
            }
        };
        if moved {
            self.wake_at = self.next_timeout();
        }
        debug_assert_eq!(self.wake_at, self.next_timeout(), "text has moved a time-out");
        out.wake_at = self.wake_at;
    }

    fn handle_any(&mut self, input: Input, now: Timestamp, out: &mut Output) {
        if matches!(input, Input::Drain) {
            self.drain(now, out);
        } else if input.is_for_provider() {
            self.handle_as_provider(input, now, out);
        } else {
            self.handle_as_consumer(input, now, out);
        }
    }

    fn drain(&mut self, now: Timestamp, out: &mut Output) {
        self.draining = true;
        if let Some(consumer) = &mut self.consumer {
            consumer.drain();
        }
        if let Some(provider) = &mut self.provider {
            provider.drain(now, out);
        }
    }

    /// The time that the last output asked for has come.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Output {
        let mut out = Output::default();
        self.handle_timeout_into(now, &mut out);
        out
    }

    /// The same, into an output as [`Self::handle_into`] takes it.
    pub fn handle_timeout_into(&mut self, now: Timestamp, out: &mut Output) {
        if let Some(consumer) = &mut self.consumer {
            consumer.handle_timeout(now, out);
        }
        if let Some(provider) = &mut self.provider {
            provider.handle_timeout(now, out);
        }
        self.wake_at = self.next_timeout();
        out.wake_at = self.wake_at;
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        let consumer = self.consumer().and_then(Consumer::next_timeout);
        let provider = self.provider().and_then(Provider::next_timeout);
        earlier(consumer, provider)
    }

    /// Handles what concerns a consumer; anything else has no receiver here and is dropped.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the provider's match names every input")]
    fn handle_as_consumer(&mut self, input: Input, now: Timestamp, out: &mut Output) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        match input {
            Input::Offer(offer) => consumer.offer(offer, now, out),
            Input::OfferGone(provider) => consumer.offer_gone(provider),
            Input::Submit { job, demand, draw } => consumer.submit(job, demand, draw, now, out),
            Input::Cancel { job } => consumer.cancel(job, out),
            Input::SessionReady { peer, proved } => consumer.session_ready(peer, proved, now, out),
            Input::SessionFailed { peer, failure } => {
                consumer.session_failed(peer, &failure, now, out);
            }
            Input::SessionClosed { peer, accepted: false } => {
                consumer.session_closed(peer, now, out);
            }
            Input::ChannelState { peer, view } => {
                consumer.funds_mut().channel_state(peer, &view, now, out);
                consumer.advance_with(peer, now, out);
            }
            Input::JobStarted { peer, job, prompt } => {
                consumer.started(peer, job, prompt, now, out);
            }
            Input::JobRefused { peer, job, refusal } => {
                consumer.refused(peer, job, refusal, now, out);
            }
            Input::JobFinished { peer, job, receipt, salt } => {
                consumer.finished(peer, job, &receipt, salt, now, out);
            }
            Input::JobBroken { peer, job, rule } => consumer.broken(peer, job, rule, now, out),
            Input::ReaderWaits { job } => consumer.reader_waits(job),
            Input::Halted { job, completion, bytes } => {
                consumer.halted(job, completion, bytes, now, out);
            }
            Input::PaymentRefused { peer, job: Some(job) } => {
                consumer.broken(peer, job, "it refused a valid voucher", now, out);
            }
            Input::VaultReady { vault, free, allocations } => {
                consumer.funds_mut().vault_ready(vault, free, allocations, out);
                consumer.advance_all(now, out);
            }
            Input::VaultFailed { failure } => {
                consumer.funds_mut().vault_failed();
                consumer.ledger_failed(None, &failure, out);
            }
            Input::Allocated { provider, allocation, free } => {
                consumer.funds_mut().allocated(provider, &allocation, free, out);
                consumer.advance_all(now, out);
            }
            Input::Released { provider, free } => {
                consumer.funds_mut().released(provider, free, out);
            }
            Input::AllocationFailed { provider, failure } => {
                consumer.funds_mut().allocation_failed();
                consumer.ledger_failed(Some(provider), &failure, out);
                consumer.advance_all(now, out);
            }
            _ => {}
        }
    }

    /// Handles what concerns a provider; anything else has no receiver here and is dropped.
    fn handle_as_provider(&mut self, input: Input, now: Timestamp, out: &mut Output) {
        let Some(provider) = &mut self.provider else {
            return;
        };
        match input {
            Input::SessionAccepted { peer, proved } => {
                provider.session_accepted(peer, proved, out);
            }
            Input::SessionClosed { peer, accepted: true } => provider.session_closed(peer, out),
            Input::ChannelHello { peer, vault, proof } => {
                provider.channel_hello(peer, vault, proof, now, out);
            }
            Input::JobRequested { peer, request } => provider.requested(peer, request, now, out),
            Input::Paid { peer, total, voucher } => {
                provider.paid(peer, total, &voucher, now, out);
            }
            Input::CancelRequested { peer, job } => provider.cancel_requested(peer, job, out),
            Input::EngineStarted { peer, job, prompt } => {
                provider.engine_started(peer, job, prompt, now, out);
            }
            Input::EngineRefused { peer, job, refusal } => {
                provider.engine_refused(peer, job, refusal, out);
            }
            Input::EngineFinished { peer, job, reason, usage, completion_commitment } => {
                let end = (reason, usage, completion_commitment);
                provider.engine_finished(peer, job, end, now, out);
            }
            Input::VaultRead { vault, snapshot } => provider.vault_read(vault, snapshot, out),
            Input::Settled { voucher, paid } => provider.settled(&voucher, paid, out),
            Input::SettleFailed { voucher, .. } => provider.settle_failed(&voucher),
            Input::SettleNow => provider.settle_all(out),
            Input::Capacity { taken, places } => provider.capacity(taken, places, now, out),
            Input::Proves { tier } => provider.proves(tier, now, out),
            Input::Offer(_)
            | Input::OfferGone(_)
            | Input::Submit { .. }
            | Input::Cancel { .. }
            | Input::Delivered { .. }
            | Input::ReaderWaits { .. }
            | Input::Halted { .. }
            // Handled where it came in, with what it says about the time-outs.
            | Input::Generated { .. }
            | Input::SessionReady { .. }
            | Input::SessionFailed { .. }
            | Input::SessionClosed { accepted: false, .. }
            | Input::ChannelState { .. }
            | Input::JobStarted { .. }
            | Input::JobRefused { .. }
            | Input::JobFinished { .. }
            | Input::JobBroken { .. }
            | Input::PaymentRefused { .. }
            | Input::VaultReady { .. }
            | Input::VaultFailed { .. }
            | Input::Allocated { .. }
            | Input::AllocationFailed { .. }
            | Input::Released { .. }
            | Input::Drain => {}
        }
    }
}
