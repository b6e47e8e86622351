//! The memory of a link: for either direction the immediates that have been told and how many have been heard.
//!
//! Both sides can write all of it; what the peer has written is compared with what it can be.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::channel::owned;
use crate::Error;
use crate::region::Region;

/// Immediates that can be told before they are heard. A power of two.
pub const CAPACITY: u32 = 256;

/// One direction.
#[repr(C, align(64))]
struct Direction {
    /// Entries written, ever.
    told: AtomicU32,
    /// Keeps what the two sides write apart.
    pad: [u32; 15],
    /// Entries read, ever.
    heard: AtomicU32,
    /// The listener wants to be woken.
    listener_sleeps: AtomicU32,
    /// The teller wants to be woken.
    teller_sleeps: AtomicU32,
    pad_too: [u32; 13],
    entries: [AtomicU32; CAPACITY as usize],
}

/// Bytes of a link's memory.
const BYTES: usize = 2 * size_of::<Direction>();

/// One side's view.
pub struct Ring {
    region: Region,
    /// Which direction is that of this side.
    own: usize,
    told: u32,
    heard: u32,
}

/// A memory file that cannot shrink.
pub fn sealed_file(bytes: usize) -> Result<OwnedFd, Error> {
    let failed = || Error(format!("no shared memory: {}", std::io::Error::last_os_error()));
    // SAFETY: makes a descriptor.
    let file = unsafe { libc::memfd_create(c"fabric".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    let file = owned(file).ok_or_else(failed)?;
    let length = libc::off_t::try_from(bytes).map_err(|_| failed())?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: a file of this side.
    let made = unsafe {
        libc::ftruncate(file.as_raw_fd(), length) == 0
            && libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) == 0
    };
    if made { Ok(file) } else { Err(failed()) }
}

/// Maps a peer's file, if it cannot shrink and is as long as it says.
pub fn map(file: BorrowedFd<'_>, bytes: usize) -> Option<Region> {
    // SAFETY: asks for a number.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    // SAFETY: all fields may be zero.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the status is written.
    let known = unsafe { libc::fstat(file.as_raw_fd(), &mut status) } == 0;
    let fits = known && usize::try_from(status.st_size).is_ok_and(|size| size >= bytes);
    let sealed = seals >= 0 && seals & libc::F_SEAL_SHRINK != 0;
    if sealed && fits { Region::of_file(file, bytes).ok() } else { None }
}

impl Ring {
    /// New memory, and its file for the peer.
    pub fn create() -> Result<(Ring, OwnedFd), Error> {
        use std::os::fd::AsFd;
        let file = sealed_file(BYTES)?;
        let region = Region::of_file(file.as_fd(), BYTES)?;
        Ok((Ring { region, own: 0, told: 0, heard: 0 }, file))
    }

    /// The peer's memory.
    pub fn join(file: BorrowedFd<'_>) -> Option<Ring> {
        map(file, BYTES).map(|region| Ring { region, own: 1, told: 0, heard: 0 })
    }

    fn direction(&self, index: usize) -> &Direction {
        // SAFETY: the region is page aligned and holds two directions, all of whose values are valid whatever the
        // peer writes; what it writes to is atomic.
        unsafe { &*self.region.base().cast::<Direction>().add(index & 1) }
    }

    fn out(&self) -> &Direction {
        self.direction(self.own)
    }

    fn back(&self) -> &Direction {
        self.direction(1 - self.own)
    }

    /// Tells the peer an immediate; nothing when there is no room. Else how many there have been, and whether to wake
    /// the peer.
    pub fn tell(&mut self, immediate: u32) -> Option<(u32, bool)> {
        if self.told.wrapping_sub(self.out().heard.load(Ordering::Acquire)) >= CAPACITY {
            return None;
        }
        let entry = self.out().entries.get((self.told % CAPACITY) as usize)?;
        entry.store(immediate, Ordering::Relaxed);
        self.told = self.told.wrapping_add(1);
        self.out().told.store(self.told, Ordering::Release);
        fence(Ordering::SeqCst);
        Some((self.told, self.out().listener_sleeps.load(Ordering::Relaxed) != 0))
    }

    /// How many immediates the peer has heard; nothing when it says what cannot be.
    pub fn heard_by_peer(&self) -> Option<u32> {
        let heard = self.out().heard.load(Ordering::Acquire);
        (self.told.wrapping_sub(heard) <= CAPACITY).then_some(heard)
    }

    /// Hears what the peer has told, and whether to wake it; nothing when it says what cannot be.
    pub fn hear(&mut self, mut each: impl FnMut(u32)) -> Option<bool> {
        let told = self.back().told.load(Ordering::Acquire);
        let count = told.wrapping_sub(self.heard);
        if count > CAPACITY {
            return None;
        }
        for index in 0..count {
            let entry = self.back().entries.get((self.heard.wrapping_add(index) % CAPACITY) as usize)?;
            each(entry.load(Ordering::Relaxed));
        }
        if count == 0 {
            return Some(false);
        }
        self.heard = told;
        self.back().heard.store(told, Ordering::Release);
        fence(Ordering::SeqCst);
        Some(self.back().teller_sleeps.load(Ordering::Relaxed) != 0)
    }

    /// This side is about to sleep, or does not any more; false when there is something to hear, or `waits_from`, the
    /// number of immediates that had been heard when it was last looked at, has changed.
    pub fn sleep(&self, sleeps: bool, waits_from: u32) -> bool {
        self.back().listener_sleeps.store(u32::from(sleeps), Ordering::Relaxed);
        self.out().teller_sleeps.store(u32::from(sleeps), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.back().told.load(Ordering::Acquire) == self.heard
            && self.out().heard.load(Ordering::Acquire) == waits_from
    }
}
