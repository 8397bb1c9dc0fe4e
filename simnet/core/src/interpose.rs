//! The system's clocks and randomness, replaced on simulation threads.
//!
//! Owns: the symbols `clock_gettime`, `getrandom`, `getentropy` and `syscall` of the program, and the
//! seeded stream behind the random ones. Must not: change anything for other threads, which get the
//! C library's own functions.
//!
//! The linker prefers a symbol that the program defines over the C library's, also for what is
//! looked up at run time (`dlsym`), so `std`, `getrandom` 0.2 to 0.4 and C code are captured alike,
//! without linker flags. [`check`] proves it at the start of every run. What is not captured: code
//! that executes the `syscall` or `rdrand` instruction itself, and files such as `/dev/urandom`.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::mem;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_timer::sim;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::clock::MONOTONIC_START;

thread_local! {
    /// Present exactly on a thread whose randomness is seeded.
    static RANDOM: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
    /// Draws so far, for [`check`] and for statistics.
    static DRAWS: Cell<u64> = const { Cell::new(0) };
    /// What the calendar showed at the start of the run, in seconds since 1970.
    static CALENDAR_START: Cell<u64> = const { Cell::new(0) };
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Why the system is not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The linker took the C library's clock.
    #[error(
        "the clock of this program is not captured: link simnet-core into the executable itself"
    )]
    Clock,
    /// The linker took the C library's randomness.
    #[error(
        "the randomness of this program is not captured: link simnet-core into the executable itself"
    )]
    Randomness,
    /// Something on this thread has drawn the keys of its hash maps before.
    #[error(
        "this thread has used a hash map before, whose keys the system drew: simulate on a fresh \
         thread, as `simnet_core::on_fresh_thread` makes one"
    )]
    ThreadNotFresh,
}

/// From now on this thread sees virtual time and seeded randomness.
pub(crate) fn capture(seed: [u8; 32], calendar_start: Duration) {
    RANDOM.with(|random| random.replace(Some(ChaCha8Rng::from_seed(seed))));
    CALENDAR_START.set(calendar_start.as_secs());
    DRAWS.set(0);
}

/// From now on it sees the system again.
pub(crate) fn release() {
    RANDOM.with(|random| random.replace(None));
}

/// Draws of the simulated program from the system's randomness so far.
pub(crate) fn draws() -> u64 {
    DRAWS.get()
}

/// Asks for the time and for a hash map's keys as any program would, and sees who answers. To be
/// called at moment zero.
pub(crate) fn check(calendar_start: Duration) -> Result<(), CaptureError> {
    let first = Instant::now();
    let calendar = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // To the nanosecond: no clock of the machine stands still or strikes the hour just now.
    if calendar != calendar_start || first.elapsed() != Duration::ZERO {
        return Err(CaptureError::Clock);
    }
    let drawn = draws();
    let _keys = RandomState::new();
    if draws() == drawn {
        // Either nobody asked us, or nobody had to ask any more. A direct question tells which.
        let mut byte = 0_u8;
        #[expect(unsafe_code, reason = "a plain call of the C library")]
        // SAFETY: the pointer is to one writable byte.
        let answered = unsafe { libc::getrandom((&raw mut byte).cast(), 1, 0) };
        let captured = answered == 1 && draws() != drawn;
        return Err(match captured {
            true => CaptureError::ThreadNotFresh,
            false => CaptureError::Randomness,
        });
    }
    Ok(())
}

/// Fills `bytes` from the seeded stream; false where there is none.
fn fill(bytes: &mut [u8]) -> bool {
    let filled = RANDOM.try_with(|random| {
        let mut random = random.try_borrow_mut().ok()?;
        random.as_mut()?.fill_bytes(bytes);
        DRAWS.set(DRAWS.get().wrapping_add(1));
        Some(())
    });
    matches!(filled, Ok(Some(())))
}

/// What a virtual clock shows; `None` for clocks that stay real: those of the processor's time.
fn virtual_clock(clock: libc::clockid_t) -> Option<libc::timespec> {
    if !sim::is_active() {
        return None;
    }
    let start = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => {
            CALENDAR_START.try_with(Cell::get).ok()?
        }
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => MONOTONIC_START.as_secs(),
        _ => return None,
    };
    let now = sim::now();
    let seconds = start.saturating_add(now / NANOS_PER_SECOND);
    Some(libc::timespec {
        tv_sec: libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX),
        tv_nsec: c_long::try_from(now % NANOS_PER_SECOND).unwrap_or(0),
    })
}

/// A clock of the machine, on any thread; zero if there is no such clock.
pub(crate) fn real_clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "the C library's own function behind ours")]
    // SAFETY: `time` is a valid, writable timespec.
    let status = unsafe { system_clock(clock, &raw mut time) };
    if status != 0 {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The C library's function that ours hides, looked up once.
struct Hidden {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Hidden {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        #[expect(unsafe_code, reason = "the dynamic linker's interface")]
        // SAFETY: the name is a C string. RTLD_NEXT starts after the object that asks, which is the
        // executable, so the answer is the C library's symbol and never ours.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr().cast::<c_char>()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;
type Getrandom = unsafe extern "C" fn(*mut c_void, libc::size_t, c_uint) -> libc::ssize_t;
type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

static CLOCK_GETTIME: Hidden = Hidden::new(c"clock_gettime");
static GETRANDOM: Hidden = Hidden::new(c"getrandom");
static SYSCALL: Hidden = Hidden::new(c"syscall");

/// # Safety
/// As for clock_gettime(2): `time` is valid for writes.
#[expect(unsafe_code, reason = "calls through a pointer that the dynamic linker gave")]
unsafe fn system_clock(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let address = CLOCK_GETTIME.address();
    if address.is_null() {
        return -1;
    }
    // SAFETY: the address is that of the C library's clock_gettime, whose type this is, and the
    // caller keeps its contract.
    unsafe { mem::transmute::<*mut c_void, ClockGettime>(address)(clock, time) }
}

/// Stands in for clock_gettime(2).
///
/// # Safety
/// As for clock_gettime(2): `time` is valid for writes.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "defines a symbol of the C library; the signature is POSIX's")]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    match virtual_clock(clock) {
        Some(now) => {
            // SAFETY: the caller passes a pointer that is valid for writes.
            unsafe { time.write(now) };
            0
        }
        // SAFETY: the caller's contract is the C library's.
        None => unsafe { system_clock(clock, time) },
    }
}

/// Stands in for getrandom(2).
///
/// # Safety
/// As for getrandom(2): `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "defines a symbol of the C library; the signature is Linux's")]
unsafe extern "C" fn getrandom(
    buffer: *mut c_void,
    length: libc::size_t,
    flags: c_uint,
) -> libc::ssize_t {
    // SAFETY: the caller's contract is ours.
    if let Some(filled) = unsafe { fill_raw(buffer, length) } {
        return filled;
    }
    let address = GETRANDOM.address();
    if address.is_null() {
        return -1;
    }
    // SAFETY: the address is that of the C library's getrandom, whose type this is, and the caller
    // keeps its contract.
    unsafe { mem::transmute::<*mut c_void, Getrandom>(address)(buffer, length, flags) }
}

/// Seeded bytes for a caller in C; `None` where the randomness is the system's.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes, or `length` is zero.
#[expect(unsafe_code, reason = "writes where a C caller says")]
unsafe fn fill_raw(buffer: *mut c_void, length: usize) -> Option<libc::ssize_t> {
    if length == 0 || buffer.is_null() {
        // A question whether the call exists (getrandom 0.2 and 0.3 ask so). It does.
        let seeded = RANDOM.try_with(|random| random.try_borrow().is_ok_and(|it| it.is_some()));
        return seeded.unwrap_or(false).then_some(0);
    }
    // The bytes are zeroed first, because they may be uninitialised and a slice may not.
    // SAFETY: the caller promises that so many bytes may be written.
    let bytes = unsafe {
        buffer.cast::<u8>().write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
    };
    fill(bytes).then(|| libc::ssize_t::try_from(length).unwrap_or(libc::ssize_t::MAX))
}

/// Stands in for getentropy(3).
///
/// # Safety
/// As for getentropy(3): `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "defines a symbol of the C library; the signature is POSIX's")]
unsafe extern "C" fn getentropy(buffer: *mut c_void, length: libc::size_t) -> c_int {
    // SAFETY: the caller's contract is that of getrandom.
    let filled = unsafe { getrandom(buffer, length, 0) };
    if usize::try_from(filled) == Ok(length) { 0 } else { -1 }
}

/// Stands in for syscall(2), which getrandom 0.2 (below ring) uses for its one call.
///
/// The C function is variadic. On x86-64 and AArch64 Linux its arguments are passed as those of a
/// function that takes seven integers, which is how the C library itself reads them.
///
/// # Safety
/// As for the system call that `number` names.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "defines a symbol of the C library")]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == libc::SYS_getrandom {
        // SAFETY: the first two arguments of getrandom are a buffer and its length, and the caller
        // keeps the contract of the call it names.
        let filled = unsafe { fill_raw(std::ptr::with_exposed_provenance_mut(a), b) };
        if let Some(filled) = filled {
            return c_long::try_from(filled).unwrap_or(c_long::MAX);
        }
    }
    let address = SYSCALL.address();
    if address.is_null() {
        return -1;
    }
    // SAFETY: the address is that of the C library's syscall, which reads six arguments at most,
    // and the caller keeps the contract of the call it names.
    unsafe { mem::transmute::<*mut c_void, Syscall>(address)(number, a, b, c, d, e, f) }
}
