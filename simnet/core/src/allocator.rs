//! A global allocator that leaves untouched what a program allocates and hardly uses.
//!
//! Owns: blocks of more than one page and at most three. Must not: serve any other size; the
//! allocator below does.
//!
//! libp2p-kad 0.49 allocates room for 256 buckets of 20 entries with every behaviour, 256 blocks of
//! 6,400 bytes, and a node of a network of thousands fills a dozen of them. Ordinary allocators write
//! into such blocks (headers, lists of free blocks) or lay them across each other's pages, so nearly
//! all of it becomes resident: 1.6 MB a node. [`Sparse`] gives every block pages of its own and
//! keeps its accounts elsewhere: the system provides a page when the program first writes to it, and
//! never if it does not. It also serves the codecs' buffers of 8 KiB to read and 8,224 bytes to
//! write, two for each end of every stream: gossipsub alone holds 33 kB of them for each end of a
//! connection, of which a page or two are ever used.
//!
//! Measured figures are in the crate's documentation. It costs nothing to leave it out.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

const PAGE: usize = 4096;
/// A block's room: three pages.
const BLOCK: usize = 3 * PAGE;
/// Address space that is reserved, and blocks in it. Nothing of it is memory before it is used.
const RESERVED: usize = 96 << 30;
const BLOCKS: u32 = 1 << 23;
/// Blocks start at multiples of a cache line; alignments beyond it are the other allocator's.
const LINE: usize = 64;

const _: () = assert!(RESERVED / BLOCK == BLOCKS as usize, "as many blocks as fit");

/// Serves blocks of 4,097 to 12,288 bytes from pages of their own, and all others from `A`.
///
/// ```standalone_crate
/// use simnet_core::allocator::Sparse;
///
/// #[global_allocator]
/// static ALLOCATOR: Sparse<std::alloc::System> = Sparse::new(std::alloc::System);
/// ```
#[derive(Debug)]
pub struct Sparse<A> {
    other: A,
    is_locked: AtomicBool,
    /// Start of the reserved space: null before the first block, dangling if there is none.
    base: AtomicPtr<u8>,
    /// Blocks that were freed, as a stack of their numbers. In a space of its own.
    freed: AtomicPtr<u32>,
    freed_count: AtomicU32,
    /// Blocks that were ever used.
    used: AtomicU32,
}

/// A block, and whether it has never been used: then it is zero.
struct Block {
    start: NonNull<u8>,
    is_fresh: bool,
}

struct Unlock<'a>(&'a AtomicBool);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<A> Sparse<A> {
    /// Over another allocator.
    pub const fn new(other: A) -> Self {
        Self {
            other,
            is_locked: AtomicBool::new(false),
            base: AtomicPtr::new(ptr::null_mut()),
            freed: AtomicPtr::new(ptr::null_mut()),
            freed_count: AtomicU32::new(0),
            used: AtomicU32::new(0),
        }
    }

    /// Blocks in use.
    pub fn blocks(&self) -> u32 {
        let _unlock = self.lock();
        self.used.load(Ordering::Relaxed).saturating_sub(self.freed_count.load(Ordering::Relaxed))
    }

    const fn serves(layout: &Layout) -> bool {
        layout.size() > PAGE && layout.size() <= BLOCK && layout.align() <= LINE
    }

    /// The critical sections are a few instructions long, so waiting in circles is right.
    fn lock(&self) -> Unlock<'_> {
        while self
            .is_locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            std::hint::spin_loop();
        }
        Unlock(&self.is_locked)
    }

    /// The reserved space and the stack beside it; `None` where the system gives none.
    fn spaces(&self) -> Option<(NonNull<u8>, NonNull<u32>)> {
        let base = self.base.load(Ordering::Relaxed);
        if !base.is_null() {
            let freed = NonNull::new(self.freed.load(Ordering::Relaxed))?;
            return NonNull::new(base).map(|base| (base, freed));
        }
        let stack = (BLOCKS as usize).checked_mul(size_of::<u32>())?;
        let spaces = reserve(RESERVED).and_then(|base| Some((base, reserve(stack)?.cast::<u32>())));
        match spaces {
            Some((base, freed)) => {
                self.freed.store(freed.as_ptr(), Ordering::Relaxed);
                // Read without the lock by `owns`, which needs nothing but this.
                self.base.store(base.as_ptr(), Ordering::Release);
            }
            // Asked once is enough: no block lies at this address.
            None => self.base.store(NonNull::dangling().as_ptr(), Ordering::Release),
        }
        spaces
    }

    /// Whether `start` is in a block of ours.
    fn owns(&self, start: *const u8) -> bool {
        let base = self.base.load(Ordering::Acquire).addr();
        base > LINE && start.addr().wrapping_sub(base) < RESERVED
    }

    fn take(&self, layout: &Layout) -> Option<Block> {
        let _unlock = self.lock();
        let (base, freed) = self.spaces()?;
        let count = self.freed_count.load(Ordering::Relaxed);
        let (number, is_fresh) = match count.checked_sub(1) {
            Some(last) => {
                self.freed_count.store(last, Ordering::Relaxed);
                #[expect(unsafe_code, reason = "reads the stack of free blocks")]
                // SAFETY: the stack has room for every block, `last` is below the number of entries
                // in it, all of which `give` has written, and the lock is held.
                let number = unsafe { freed.add(last as usize).read() };
                (number, false)
            }
            None => {
                let number = self.used.load(Ordering::Relaxed);
                if number >= BLOCKS {
                    return None;
                }
                self.used.store(number.saturating_add(1), Ordering::Relaxed);
                (number, true)
            }
        };
        // Blocks of one size would otherwise all begin at the same place of a page and compete for
        // the same sets of the processor's caches. What a block does not need of its last page shifts
        // its start: so it touches no page more.
        let shifts = layout.size().next_multiple_of(PAGE).saturating_sub(layout.size()) / LINE;
        let shift = (number as usize % shifts.saturating_add(1)).saturating_mul(LINE);
        #[expect(unsafe_code, reason = "addresses within the reserved space")]
        // SAFETY: `number` is below BLOCKS, so the block lies in the reserved space, and the shift
        // plus the layout's size is at most BLOCK.
        let start = unsafe { base.add((number as usize).saturating_mul(BLOCK)).add(shift) };
        Some(Block { start, is_fresh })
    }

    fn give(&self, start: *mut u8) {
        let offset = start.addr().saturating_sub(self.base.load(Ordering::Acquire).addr());
        let number = u32::try_from(offset / BLOCK).unwrap_or(u32::MAX);
        let _unlock = self.lock();
        let count = self.freed_count.load(Ordering::Relaxed);
        let Some(freed) = NonNull::new(self.freed.load(Ordering::Relaxed)) else { return };
        #[expect(unsafe_code, reason = "writes the stack of free blocks")]
        // SAFETY: there are at most as many free blocks as blocks, for all of which the stack has
        // room, and the lock is held.
        unsafe {
            freed.add(count as usize).write(number);
        }
        self.freed_count.store(count.saturating_add(1), Ordering::Relaxed);
    }

    /// How far a block reaches from `start`.
    fn room(&self, start: *const u8) -> usize {
        let base = self.base.load(Ordering::Acquire).addr();
        BLOCK.saturating_sub(start.addr().saturating_sub(base) % BLOCK)
    }
}

/// Address space without memory behind it: the system provides zeroed pages as they are touched,
/// small ones only, because a huge page would make 256 blocks resident at once.
fn reserve(bytes: usize) -> Option<NonNull<u8>> {
    #[expect(unsafe_code, reason = "the system's interface to memory")]
    // SAFETY: an anonymous mapping at an address of the system's choice touches no other; the advice
    // names exactly this mapping and changes no content.
    unsafe {
        let start = libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            return None;
        }
        libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
        NonNull::new(start.cast())
    }
}

#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
// SAFETY: every block is given out once until it is freed, has room for the layout that it was asked
// for, and is aligned to a cache line at least; nothing here unwinds or allocates.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Sparse<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::serves(&layout)
            && let Some(block) = self.take(&layout)
        {
            return block.start.as_ptr();
        }
        // SAFETY: the caller's contract is that of the other allocator.
        unsafe { self.other.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::serves(&layout)
            && let Some(block) = self.take(&layout)
        {
            if !block.is_fresh {
                // SAFETY: the block has room for the layout.
                unsafe { block.start.write_bytes(0, layout.size()) };
            }
            return block.start.as_ptr();
        }
        // SAFETY: the caller's contract is that of the other allocator.
        unsafe { self.other.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if self.owns(start) {
            self.give(start);
        } else {
            // SAFETY: it is not ours, so the other allocator gave it, and the caller keeps the rest.
            unsafe { self.other.dealloc(start, layout) }
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_ours = self.owns(start);
        if is_ours && size > PAGE && size <= self.room(start) {
            return start;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is a valid size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !is_ours && !Self::serves(&wanted) {
            // SAFETY: the other allocator gave it, and the caller keeps the rest.
            return unsafe { self.other.realloc(start, layout, size) };
        }
        // SAFETY: as for `alloc`; the two blocks are different, and so much of each is valid.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(start, moved, layout.size().min(size));
                self.dealloc(start, layout);
            }
            moved
        }
    }
}
