//! mimalloc, called for what is asked and not for more.
//!
//! Owns: which of mimalloc's functions serves a block, and what becomes of freed memory.
//! Must not: keep any state of its own.
//!
//! The crate `mimalloc` asks for every block with its alignment. mimalloc has a short way for that up
//! to a kilobyte only; a larger block takes a long one: room for the alignment on top, and a page that
//! is marked so that every free in it takes the long way too. But every block of mimalloc's is aligned to 16
//! bytes anyway, which is all that nearly everything here needs.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// What every block of mimalloc's is aligned to, if it has as many bytes; `MI_MAX_ALIGN_SIZE` in its
/// `types.h`.
const ALIGNED: usize = 16;
/// The number of mimalloc's option `purge_delay`, the same in its versions 2 and 3; its crate has
/// no name for it.
const PURGE_DELAY: mi::mi_option_t = 15;

/// The allocator of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

/// Whether a block without a wish for alignment is aligned well enough.
const fn is_plain(layout: Layout, size: usize) -> bool {
    layout.align() <= ALIGNED && layout.align() <= size
}

/// Keeps memory that a run has freed for what it will want next. Handing it back after 10 ms, which
/// is mimalloc's way, means to have it cleared again by the kernel a moment later: at a million
/// nodes that is a tenth of a run.
pub(crate) fn keep_freed_memory() {
    #[expect(unsafe_code, reason = "sets a number in the allocator; there is no other way to it")]
    // SAFETY: the option exists, and any value is legal; -1 says never.
    unsafe {
        mi::mi_option_set(PURGE_DELAY, -1);
    }
}

#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
// SAFETY: mimalloc keeps the contract of an allocator. A block is aligned as asked: by its own rule
// where `is_plain` holds, otherwise because the alignment is handed on.
unsafe impl GlobalAlloc for Plain {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size may be asked for; the alignment of a layout is a power of two.
        let block = unsafe {
            if is_plain(layout, size) {
                mi::mi_malloc(size)
            } else {
                mi::mi_malloc_aligned(size, align)
            }
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        let block = unsafe {
            if is_plain(layout, size) {
                mi::mi_zalloc(size)
            } else {
                mi::mi_zalloc_aligned(size, align)
            }
        };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, start: *mut u8, _: Layout) {
        // SAFETY: the caller hands back what one of the other functions gave.
        unsafe { mi::mi_free(start.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller hands over what one of the other functions gave.
        let block = unsafe {
            if is_plain(layout, size) {
                mi::mi_realloc(start.cast(), size)
            } else {
                mi::mi_realloc_aligned(start.cast(), size, layout.align())
            }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    /// The rule that `is_plain` stands on, for every size class up to 64 KiB and after reallocation.
    #[test]
    fn every_block_is_aligned_as_asked() {
        for size in (1..256).chain((256..65_536).step_by(97)) {
            for align in [1, 2, 4, 8, 16, 32, 64, 4_096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                #[expect(unsafe_code, reason = "an allocator is called as its callers do")]
                // SAFETY: every block is used within its size, and freed once.
                unsafe {
                    let blocks = [Plain.alloc(layout), Plain.alloc_zeroed(layout)];
                    for start in blocks {
                        assert!(!start.is_null() && start.addr() % align == 0, "{size} at {align}");
                    }
                    let [plain, zeroed] = blocks;
                    assert!((0..size).all(|at| zeroed.add(at).read() == 0));
                    let moved = Plain.realloc(plain, layout, size * 3);
                    assert!(!moved.is_null() && moved.addr() % align == 0, "{size} at {align}");
                    ptr::write_bytes(moved, 7, size * 3);
                    Plain.dealloc(moved, Layout::from_size_align(size * 3, align).unwrap());
                    Plain.dealloc(zeroed, layout);
                }
            }
        }
    }
}
