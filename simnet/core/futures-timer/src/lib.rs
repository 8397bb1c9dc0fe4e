//! A stand-in for futures-timer 3 whose timers run in virtual time on a simulation thread.
//!
//! Owns: [`Delay`], with the interface of the crate that it replaces, and the two kinds of time
//! behind it. Must not: decide when virtual time passes; the simulation does, through [`sim`].
//!
//! A workspace takes it with `[patch.crates-io] futures-timer = { path = … }`. On every thread that
//! did not call [`sim::enter`], a [`Delay`] waits for real time, as the original does, so a program
//! that links this crate behaves as it would without.
//!
//! ```
//! use futures_timer::{Delay, sim};
//! use std::{future::Future as _, pin::pin, task, time::Duration};
//!
//! sim::enter().unwrap();
//! let mut delay = pin!(Delay::new(Duration::from_secs(3600)));
//! let mut context = task::Context::from_waker(task::Waker::noop());
//! assert!(delay.as_mut().poll(&mut context).is_pending());
//!
//! sim::advance_to(sim::next_deadline().unwrap());
//! assert!(sim::fire_next().is_some());
//! assert!(delay.as_mut().poll(&mut context).is_ready()); // an hour later, at once
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod real;
pub mod sim;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A future that resolves once a duration has passed since it was made or last reset.
pub struct Delay {
    timer: Timer,
}

/// Which time it waits for is settled where the delay is made.
enum Timer {
    Virtual(sim::Timer),
    Real(real::Timer),
}

impl Delay {
    /// A delay of `duration` from now.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let timer = match sim::Timer::new(duration) {
            Some(timer) => Timer::Virtual(timer),
            None => Timer::Real(real::Timer::new(duration)),
        };
        Self { timer }
    }

    /// Lets it resolve `duration` from now instead, also if it has resolved before. The task that
    /// waits for it is not woken by this.
    pub fn reset(&mut self, duration: Duration) {
        match &mut self.timer {
            Timer::Virtual(timer) => timer.reset(duration),
            Timer::Real(timer) => timer.reset(duration),
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Timer::Virtual(timer) => timer.poll(context),
            Timer::Real(timer) => timer.poll(context),
        }
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_as_mobile_as_the_original() {
        const fn assert<T: Send + Sync + Unpin + fmt::Debug>() {}
        assert::<Delay>();
    }
}
