//! How much of the prompts one step reads, so that no step takes long on this machine.
//!
//! Owns: the measure of the machine, in tokens a step.
//! Must not: read a clock (it is told how long a step took), or touch the tokens that jobs decode.
//!
//! While a step is computed the worker is deaf: the jobs that decode beside a prompt stand still, a
//! cancelled job keeps its place, and a ping waits. On an emulated processor a prompt of some thirty
//! tokens was two minutes of that, and a node that did its work was killed as a hung one.

use std::time::Duration;

use super::batcher::STEP_TOKENS;

/// What a step may take before the next one reads less.
const STEP_TIME: Duration = Duration::from_secs(1);
/// A step reads so much however long it takes: the weights have to be read through once for any
/// number of tokens.
const LEAST: usize = 8;

/// Tokens of prompts in the next step: a power of two from [`LEAST`] to [`STEP_TOKENS`], so that
/// llama.cpp sees few shapes. Begins at the least, because nothing is known of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl Pace {
    /// How many tokens of prompts the next step may read.
    pub(super) const fn tokens(self) -> usize {
        self.0
    }

    /// A step that read `prompt` tokens of prompts took `time`.
    pub(super) fn took(&mut self, prompt: usize, time: Duration) {
        // Without a prompt it says nothing of prompts.
        if prompt == 0 {
            return;
        }
        if time > STEP_TIME {
            // As many halvings as it takes: a machine may have got much slower meanwhile.
            let (mut tokens, mut time) = (prompt, time);
            while time > STEP_TIME && tokens > LEAST {
                (tokens, time) = (tokens / 2, time / 2);
            }
            self.0 = self.0.min(power_of_two_in(tokens));
        } else if prompt >= self.0 && time <= STEP_TIME / 2 {
            self.0 = self.0.saturating_mul(2).min(STEP_TOKENS);
        }
    }
}

/// The largest power of two up to `tokens`, but not below [`LEAST`].
fn power_of_two_in(tokens: usize) -> usize {
    let logarithm = tokens.max(LEAST).ilog2();
    1_usize.checked_shl(logarithm).unwrap_or(STEP_TOKENS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Steps with as much of a prompt as may be, on a machine that takes `each` for a token.
    fn after(steps: usize, each: Duration, pace: &mut Pace) -> usize {
        for _ in 0..steps {
            let tokens = pace.tokens();
            pace.took(tokens, each * u32::try_from(tokens).unwrap());
        }
        pace.tokens()
    }

    #[test]
    fn a_fast_machine_comes_to_whole_steps_and_a_slow_one_to_short_ones() {
        assert_eq!(after(6, Duration::from_micros(40), &mut Pace::default()), STEP_TOKENS);
        assert_eq!(after(20, Duration::from_millis(5), &mut Pace::default()), 128);
        assert_eq!(after(20, Duration::from_secs(4), &mut Pace::default()), LEAST);
    }

    #[test]
    fn a_machine_that_gets_slow_is_known_after_one_step_and_one_that_gets_fast_again_soon() {
        let mut pace = Pace::default();
        after(6, Duration::from_micros(40), &mut pace);
        assert_eq!(after(1, Duration::from_millis(100), &mut pace), LEAST);
        assert_eq!(after(6, Duration::from_micros(40), &mut pace), STEP_TOKENS);
    }

    #[test]
    fn short_prompts_and_none_do_not_say_that_more_can_be_read() {
        let mut pace = Pace::default();
        for _ in 0..9 {
            pace.took(LEAST - 1, Duration::from_micros(1));
            pace.took(0, Duration::from_micros(1));
        }
        assert_eq!(pace.tokens(), LEAST);
        after(6, Duration::from_micros(40), &mut pace);
        // Many jobs that decode, and nothing of a prompt.
        pace.took(0, Duration::from_secs(9));
        assert_eq!(pace.tokens(), STEP_TOKENS);
    }

    proptest! {
        /// On any machine that stays as it is, steps come to take at most [`STEP_TIME`], and to
        /// read within a factor of four of what that leaves room for.
        #[test]
        fn a_steady_machine_is_used_for_what_it_can(each in 1_u64..200_000) {
            let each = Duration::from_micros(each);
            let mut pace = Pace::default();
            let tokens = after(30, each, &mut pace);
            let fits = usize::try_from(STEP_TIME.as_micros() / each.as_micros()).unwrap();
            prop_assert!(tokens.is_power_of_two());
            prop_assert!(tokens <= fits.clamp(LEAST, STEP_TOKENS));
            prop_assert!(tokens.saturating_mul(4) > fits.clamp(LEAST, STEP_TOKENS));
        }
    }
}
