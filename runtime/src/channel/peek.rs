//! Looking at bytes of a stream that are on both paths, without taking them. May contain `unsafe`: the kernel
//! fills a buffer of its own.

use super::Channel;
use super::queue::Mode;
use crate::inside::Heap;
use crate::iov::{self, Cursor};
use crate::shm::party::Recovery;
use crate::{position, sys};
use convoy_aggregator::record::in_order;

impl Channel {
    /// Puts what follows the first `seen` bytes into `target`, across any switches: how many bytes.
    #[cold]
    pub fn peek_across(&self, slot: u32, fd: i32, seen: usize, target: &mut Cursor) -> usize {
        let most = seen + target.remaining();
        let bytes = self.in_order(slot, fd, most);
        let rest = bytes.get(seen..).unwrap_or_default();
        // SAFETY: the rest is readable.
        unsafe { target.put(rest.as_ptr(), rest.len()) }
    }

    fn in_order(&self, slot: u32, fd: i32, most: usize) -> Heap<Vec<u8>> {
        let _ = self.sort();
        let Ok(guard) = self.lock_receiving() else { return Heap::new(Vec::new) };
        // Both before the switches: what was sent after a switch came after its announcement.
        let kernel = peek_kernel(fd, most);
        let queued = Heap::new(|| self.copy_queue(&guard, slot, most, Mode::Peek));
        if self.recovery(slot) != Recovery::None {
            // The stream has returned: the queue first.
            return Heap::new(|| [queued.as_slice(), kernel.as_slice()].concat());
        }
        let place = self.place(slot, guard.stream(slot));
        let announced = self.switches_heard_of(slot);
        Heap::new(|| in_order(&announced, place, &queued, &kernel).0)
    }
}

fn peek_kernel(fd: i32, most: usize) -> Heap<Vec<u8>> {
    let mut bytes = Heap::new(|| vec![0u8; (position::readable(fd) as usize).min(most)]);
    if !bytes.is_empty() {
        let part = iov::single(bytes.as_mut_ptr(), bytes.len());
        // SAFETY: one writable part.
        let seen = unsafe { sys::recvmsg(fd, &part, 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
        bytes.truncate(seen.unwrap_or(0));
    }
    bytes
}
