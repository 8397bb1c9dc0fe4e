//! Counting tokens against money: how far a provider may go, and when a consumer pays.
//!
//! Owns: the credit step. Must not: hold a channel or sign anything.

use crate::limits;
use crate::units::{NanoTon, Prices, Tokens};

/// The most completion tokens whose cost, with the prompt's, is covered by `paid`; `None` when not
/// even the prompt is.
pub fn covered(prices: Prices, prompt: Tokens, paid: NanoTon) -> Option<Tokens> {
    prices.affordable(prompt, paid).map(|tokens| tokens.min(limits::MAX_COMPLETION))
}

/// Completion tokens that a provider may generate in total once `paid` has come: what is covered
/// and one step on credit. `None` while the prompt is unpaid.
pub fn credit(prices: Prices, prompt: Tokens, paid: NanoTon) -> Option<Tokens> {
    covered(prices, prompt, paid).map(|tokens| tokens.saturating_add(limits::CREDIT_STEP))
}

/// What a job leaves unpaid at most when it breaks off: a step on credit, or less where the whole
/// completion is shorter.
pub fn step_cost(prices: Prices, max_completion: Tokens) -> NanoTon {
    let step = limits::CREDIT_STEP.min(max_completion);
    prices.cost(Tokens::ZERO, step).unwrap_or(NanoTon::MAX)
}

/// Whether a consumer pays now: when half a step came since it last paid.
pub fn payment_due(received: Tokens, paid: Tokens) -> bool {
    received.saturating_sub(paid) >= limits::PAY_EVERY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PricePerMillion;
    use proptest::prelude::*;

    fn prices(prompt: u64, completion: u64) -> Prices {
        Prices {
            prompt: PricePerMillion::from_nano(prompt),
            completion: PricePerMillion::from_nano(completion),
        }
    }

    #[test]
    fn nothing_is_generated_before_the_prompt_is_paid() {
        let prices = prices(1_000_000, 1_000_000);
        assert_eq!(credit(prices, Tokens::new(10), NanoTon::from_nano(9)), None);
        assert_eq!(
            credit(prices, Tokens::new(10), NanoTon::from_nano(10)),
            Some(limits::CREDIT_STEP)
        );
    }

    #[test]
    fn a_free_completion_is_not_metered() {
        let covered = covered(prices(1_000_000, 0), Tokens::new(10), NanoTon::from_nano(10));
        assert_eq!(covered, Some(limits::MAX_COMPLETION));
    }

    #[test]
    fn half_a_step_is_paid_at_a_time() {
        assert!(!payment_due(Tokens::new(15), Tokens::ZERO));
        assert!(payment_due(Tokens::new(16), Tokens::ZERO));
        assert!(!payment_due(Tokens::new(16), Tokens::new(16)));
    }

    proptest! {
        #[test]
        fn covered_is_the_exact_boundary(prompt_price in 0u64..10_000_000, price in 1u64..10_000_000, prompt in 0u32..10_000, paid in 0u64..1_000_000) {
            let prices = prices(prompt_price, price);
            let (prompt, paid) = (Tokens::new(prompt), NanoTon::from_nano(paid));
            match covered(prices, prompt, paid) {
                None => prop_assert!(prices.cost(prompt, Tokens::ZERO).unwrap() > paid),
                Some(tokens) => {
                    prop_assert!(prices.cost(prompt, tokens).unwrap() <= paid);
                    let next = tokens.saturating_add(Tokens::new(1));
                    prop_assert!(tokens == limits::MAX_COMPLETION || prices.cost(prompt, next).unwrap() > paid);
                }
            }
        }

        #[test]
        fn paying_for_what_was_received_always_buys_the_next_step(price in 0u64..10_000_000, received in 0u32..100_000) {
            let prices = prices(price, price);
            let paid = prices.cost(Tokens::new(7), Tokens::new(received)).unwrap();
            let allowed = credit(prices, Tokens::new(7), paid).unwrap();
            prop_assert!(allowed.get() >= received + limits::CREDIT_STEP.get());
        }
    }
}
