//! Things that events refer to by number.
//!
//! Owns: their places, which are used again. Must not: order anything.

/// A list with holes that are filled first, the last one to open before the others.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

fn place(handle: u32) -> usize {
    usize::try_from(handle).unwrap_or(usize::MAX)
}

impl<T> Slab<T> {
    /// Puts a thing down.
    pub(crate) fn insert(&mut self, thing: T) -> u32 {
        if let Some(handle) = self.free.pop() {
            if let Some(place) = self.places.get_mut(place(handle)) {
                *place = Some(thing);
            }
            return handle;
        }
        self.places.push(Some(thing));
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes it up again.
    pub(crate) fn take(&mut self, handle: u32) -> Option<T> {
        let thing = self.places.get_mut(place(handle))?.take()?;
        self.free.push(handle);
        Some(thing)
    }

    pub(crate) fn get(&self, handle: u32) -> Option<&T> {
        self.places.get(place(handle))?.as_ref()
    }

    /// Asks for the memory of a thing.
    pub(crate) fn approach(&self, handle: u32) {
        if let Some(place) = self.places.get(place(handle)) {
            crate::near::ask_for(place);
        }
    }

    pub(crate) fn get_mut(&mut self, handle: u32) -> Option<&mut T> {
        self.places.get_mut(place(handle))?.as_mut()
    }

    /// Everything that lies here, by handle.
    pub(crate) fn handles(&self) -> Vec<u32> {
        let taken = self.places.iter().enumerate().filter(|(_, place)| place.is_some());
        taken.map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect()
    }
}
