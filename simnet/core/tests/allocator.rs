//! The sparse allocator as the allocator of a whole program.

use std::alloc::System;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

use simnet_core::allocator::Sparse;
use simnet_core::clock::resident;

#[global_allocator]
static ALLOCATOR: Sparse<System> = Sparse::new(System);

/// One at a time: they count what the whole process has.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn what_is_not_touched_is_not_resident() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    const BLOCKS: usize = 20_000;
    let before = resident();
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(BLOCKS);
    for _ in 0..BLOCKS {
        let mut block = Vec::with_capacity(6400);
        block.extend_from_slice(&[1; 320]); // an entry of twenty
        blocks.push(black_box(block));
    }
    let grown = resident().saturating_sub(before);
    assert!(ALLOCATOR.blocks() >= 20_000);
    let each = grown / 20_000;
    assert!(each < 4096 + 600, "{each} B of 6,400 resident, one page is enough");
    drop(blocks);
    assert!(ALLOCATOR.blocks() < 1000, "all came back");
}

#[test]
fn blocks_never_overlap_and_keep_their_content() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let workers: Vec<_> = (0..4_u8)
        .map(|worker| {
            std::thread::spawn(move || {
                let mut held: Vec<Vec<u8>> = Vec::new();
                for round in 0..20_000_usize {
                    let size = [100, 4096, 4097, 6400, 8192, 8193, 20_000][round % 7];
                    held.push(vec![worker; size]);
                    if round % 3 == 0 {
                        let index = (round * 31) % held.len();
                        let mut block = held.swap_remove(index);
                        block.resize(block.len() + (round * 17) % 5000, worker); // grows in place or moves
                        block.truncate(5000);
                        block.shrink_to_fit();
                        assert!(block.iter().all(|byte| *byte == worker));
                    }
                    if held.len() > 200 {
                        held.drain(..100);
                    }
                }
                assert!(held.iter().flatten().all(|byte| *byte == worker));
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn zeroed_blocks_are_zero_when_used_again() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..100 {
        let mut block = vec![0_u8; 7000];
        assert!(block.iter().all(|byte| *byte == 0));
        block.fill(0xff);
        black_box(block);
    }
}
