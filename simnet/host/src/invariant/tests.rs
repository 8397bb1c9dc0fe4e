//! Each invariant by hand-made facts: one run in which it holds, one in which it does not.
