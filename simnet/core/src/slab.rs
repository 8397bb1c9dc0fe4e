//! A table whose places are used again, but never mistaken for what stood in them before.
//!
//! Owns: places and their generations. Must not: know what it keeps.

use std::fmt;
use std::marker::PhantomData;

/// The name of an entry: a place, and how often it had been used before.
pub(crate) struct Id<T> {
    place: u32,
    generation: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && self.generation == other.generation
    }
}

impl<T> Eq for Id<T> {}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.place, self.generation)
    }
}

pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, entry: T) -> Id<T> {
        if let Some(place) = self.free.pop()
            && let Some((generation, held)) = self.places.get_mut(place as usize)
        {
            *held = Some(entry);
            return Id { place, generation: *generation, kind: PhantomData };
        }
        let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(entry)));
        Id { place, generation: 0, kind: PhantomData }
    }

    pub(crate) fn get(&self, id: Id<T>) -> Option<&T> {
        let (generation, held) = self.places.get(id.place as usize)?;
        held.as_ref().filter(|_| *generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let (generation, held) = self.places.get_mut(id.place as usize)?;
        held.as_mut().filter(|_| *generation == id.generation)
    }

    pub(crate) fn remove(&mut self, id: Id<T>) -> Option<T> {
        let (generation, held) = self.places.get_mut(id.place as usize)?;
        if *generation != id.generation {
            return None;
        }
        let entry = held.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.place);
        Some(entry)
    }

    /// Entries in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        (0_u32..).zip(&self.places).filter_map(|(place, (generation, held))| {
            let id = Id { place, generation: *generation, kind: PhantomData };
            held.as_ref().map(|entry| (id, entry))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len().saturating_sub(self.free.len())
    }
}
