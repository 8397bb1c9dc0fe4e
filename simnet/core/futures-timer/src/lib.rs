//! Placeholder with the crate's interface.
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
#[derive(Debug)]
pub struct Delay;
impl Delay {
    pub fn new(_: Duration) -> Self {
        Self
    }
    pub fn reset(&mut self, _: Duration) {}
}
impl Future for Delay {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
