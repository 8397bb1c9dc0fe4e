//! Where a node's state lies in memory, for a caller that has a million of them.
//!
//! Owns: what of a node's state is named, and how many entries of a list at most.
//! Must not: read what it only names, or be of any meaning: who ignores it loses time and nothing else.
//!
//! A simulator that handles one node after another finds none of them in its processor's caches. It
//! knows some events ahead whose turn comes, and can ask for their memory, if it is told where that
//! is. Nothing here is unsafe: the places are only named.

/// Entries of a list that are named: of more it is not known which the next input is about.
pub(crate) const ENTRIES: usize = 4;

/// Names a thing: where it begins, and its bytes.
pub(crate) fn name<T>(thing: &T, to: &mut impl FnMut(*const u8, usize)) {
    to(std::ptr::from_ref(thing).cast(), size_of::<T>());
}

/// Names a list's entries, all of them as one piece.
pub(crate) fn name_list<T>(list: &[T], to: &mut impl FnMut(*const u8, usize)) {
    if !list.is_empty() {
        to(list.as_ptr().cast(), size_of_val(list));
    }
}
