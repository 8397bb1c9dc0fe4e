//! Memory that will be needed soon, asked for without waiting.
//!
//! Owns: the processor's instruction for that, and nothing else: the crate's only unsafe code.
//! Must not: read or change anything. It is a hint; without it a run is slower and the same.

/// Bytes that memory comes in.
const LINE: usize = 64;
/// Bytes of one thing that are asked for at most.
const MOST: usize = 512;

/// Asks for what lies at a place: so many bytes of it, but at most half a kilobyte. The place need
/// not be valid: the processor takes no notice of one that is not. Of a length that the compiler knows
/// nothing is left but the instructions themselves.
#[inline(always)]
pub(crate) fn ask(place: *const u8, bytes: usize) {
    let bytes = bytes.min(MOST);
    let mut at = 0;
    while at < bytes {
        hint(place.wrapping_add(at));
        at += LINE;
    }
    if !bytes.is_multiple_of(LINE) || !place.addr().is_multiple_of(LINE) {
        hint(place.wrapping_add(bytes.saturating_sub(1)));
    }
}

/// Asks for the line that a place lies in.
#[inline(always)]
pub(crate) fn touch(place: *const u8) {
    hint(place);
}

/// Asks for a thing.
#[inline(always)]
pub(crate) fn ask_for<T>(thing: &T) {
    ask(std::ptr::from_ref(thing).cast(), size_of::<T>());
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the processor's instruction is a function on pointers")]
fn hint(place: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch loads nothing that the program can see and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
}

/// Other processors have one too, but the standard library has no stable name for it.
#[cfg(not(target_arch = "x86_64"))]
const fn hint(_place: *const u8) {}
