//! The allocator of this library: the program's, and behind it a small reserve of its own, so that a program that has run out of memory
//! is not ended by an allocation that it has not asked for. While the reserve is in use nothing new leaves the kernel. What may need
//! much asks whether it can have it, instead.
//! May contain `unsafe`: it is an allocator.

use convoy_runtime::api;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, Ordering};
use std::alloc::System;

/// Bytes of the reserve, which take no memory before they are used, and the largest piece that comes from it.
const BYTES: usize = 1 << 20;
const LARGEST: usize = 16 << 10;
const ALIGN: usize = 64;

#[repr(C, align(64))]
struct Room(UnsafeCell<[u8; BYTES]>);

// SAFETY: each part of it is given to one owner at a time, by `STATE`.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; BYTES]));
/// Pieces in use in the upper half, bytes given away in the lower: they are free again when no piece is in use. One word, changed by
/// compare-and-swap: Acquire when a piece is taken pairs with Release when one is given back.
static STATE: AtomicU64 = AtomicU64::new(0);
const ONE: u64 = 1 << 32;

/// The allocator.
pub(crate) struct Reserve;

#[global_allocator]
static ALLOCATOR: Reserve = Reserve;

// SAFETY: memory is the system's, or a piece of the room that nobody else has, aligned and of the size asked for.
unsafe impl GlobalAlloc for Reserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { take(layout) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            return memory;
        }
        let memory = take(layout);
        if !memory.is_null() {
            // SAFETY: a piece of at least that size, which may have been used before.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_reserved(memory) {
            give_back();
        } else {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if !is_reserved(memory) {
            // SAFETY: the caller's promise.
            let grown = unsafe { System.realloc(memory, layout, bytes) };
            if !grown.is_null() {
                return grown;
            }
        }
        // SAFETY: the caller has checked that size.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(bytes, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both have at least so many bytes, and the new one is nobody else's; the old one is the caller's.
            unsafe {
                core::ptr::copy_nonoverlapping(memory, moved, layout.size().min(bytes));
                self.dealloc(memory, layout);
            }
        }
        moved
    }
}

#[cold]
fn take(layout: Layout) -> *mut u8 {
    let bytes = layout.size().next_multiple_of(ALIGN) as u64;
    api::note_exhausted();
    if layout.size() > LARGEST || layout.align() > ALIGN {
        return null_mut();
    }
    let taken = |state: u64| {
        let used = state % ONE;
        (used + bytes <= BYTES as u64).then_some(state + ONE + bytes)
    };
    match STATE.fetch_update(Ordering::Acquire, Ordering::Relaxed, taken) {
        Ok(before) => ROOM.0.get().cast::<u8>().wrapping_add((before % ONE) as usize),
        Err(_) => null_mut(),
    }
}

#[cold]
fn give_back() {
    let given = |state: u64| Some(if state / ONE <= 1 { 0 } else { state - ONE });
    let _ = STATE.fetch_update(Ordering::Release, Ordering::Relaxed, given);
}

fn is_reserved(memory: *mut u8) -> bool {
    let start = ROOM.0.get() as usize;
    (start..start + BYTES).contains(&(memory as usize))
}
