//! Whether runs reproduce: the same seed gives the same bytes, also under load; another gives others.
//!
//! Owns: which runs are made, and what of them must be equal. Must not: make a run; its caller does,
//! in a process of its own or in whatever stands for one. `simnet check` is this, and so is the test
//! that plants an order which the machine decides.

/// What two runs of one seed must have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// Over every event, in order.
    pub trace: String,
    /// Over everything that the run came to.
    pub result: String,
}

/// One of the runs that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// What the others are compared with.
    First,
    /// The same again.
    Again,
    /// The same while every core of the machine is busy.
    Loaded,
    /// With another seed.
    Other,
}

impl Attempt {
    /// All, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::First, Self::Again, Self::Loaded, Self::Other];

    /// Its name in what is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Again => "again",
            Self::Loaded => "loaded",
            Self::Other => "other",
        }
    }

    /// Its seed, where the first run has `seed`.
    pub const fn seed(self, seed: u64) -> u64 {
        match self {
            Self::First | Self::Again | Self::Loaded => seed,
            Self::Other => seed.wrapping_add(1),
        }
    }
}

/// What the runs came to, in the order of [`Attempt::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reproduction {
    first: Hashes,
    again: Hashes,
    loaded: Hashes,
    other: Hashes,
}

impl Reproduction {
    /// Makes every run, one after the other.
    ///
    /// # Errors
    /// The first that a run ends with.
    pub fn attempt<E>(mut run: impl FnMut(Attempt) -> Result<Hashes, E>) -> Result<Self, E> {
        let first = run(Attempt::First)?;
        let again = run(Attempt::Again)?;
        let loaded = run(Attempt::Loaded)?;
        let other = run(Attempt::Other)?;
        Ok(Self { first, again, loaded, other })
    }

    /// What a run came to.
    pub const fn of(&self, attempt: Attempt) -> &Hashes {
        match attempt {
            Attempt::First => &self.first,
            Attempt::Again => &self.again,
            Attempt::Loaded => &self.loaded,
            Attempt::Other => &self.other,
        }
    }

    /// What is wrong, in words; empty where everything reproduces.
    pub fn faults(&self) -> Vec<&'static str> {
        let Self { first, again, loaded, other } = self;
        let mut faults = Vec::new();
        if again != first {
            faults.push("a second run of the same seed differs");
        }
        if loaded != first {
            faults.push("a run of the same seed under load differs");
        }
        if other.trace == first.trace || other.result == first.result {
            faults.push("another seed gives the same");
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(hashes: [(&str, &str); 4]) -> Vec<&'static str> {
        let mut hashes = hashes.into_iter();
        let made = Reproduction::attempt(|_| {
            let (trace, result) = hashes.next().ok_or(())?;
            Ok::<_, ()>(Hashes { trace: trace.to_owned(), result: result.to_owned() })
        });
        made.unwrap().faults()
    }

    #[test]
    fn each_difference_that_must_not_be_is_named() {
        assert!(faults([("a", "x"), ("a", "x"), ("a", "x"), ("b", "y")]).is_empty());
        let again = faults([("a", "x"), ("a", "z"), ("a", "x"), ("b", "y")]);
        assert_eq!(again, ["a second run of the same seed differs"]);
        let loaded = faults([("a", "x"), ("a", "x"), ("c", "x"), ("b", "y")]);
        assert_eq!(loaded, ["a run of the same seed under load differs"]);
        let other = faults([("a", "x"), ("a", "x"), ("a", "x"), ("b", "x")]);
        assert_eq!(other, ["another seed gives the same"]);
    }
}
