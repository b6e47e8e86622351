//! The bells of a process as its agent sees them: the same two words per bell as in the registry, in memory that the
//! agent can map without trusting anybody's registry (a sealed memfd: no access can fault).

use super::bell_word::BellWord;
use crate::registry::BELLS;
use crate::sys::{self, Answer};
use core::sync::atomic::AtomicU32;

/// The mapped page. Copies refer to the same mapping, which the process that made it keeps for its life.
#[derive(Clone, Copy)]
pub struct BellPage {
    base: *const Words,
}

/// See [`BellWord`].
#[repr(C)]
struct Words {
    sleepers: AtomicU32,
    rung: AtomicU32,
}

const BYTES: usize = BELLS * size_of::<Words>();

// SAFETY: shared memory, accessed through atomics only.
unsafe impl Send for BellPage {}
// SAFETY: as above.
unsafe impl Sync for BellPage {}

impl BellPage {
    /// A new page, with the descriptor through which the agent maps it.
    pub fn create() -> Answer<(Self, i32)> {
        let fd = sys::memfd_create(c"convoy-bells", libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
        let page = sys::ftruncate(fd, BYTES as u64)
            .and_then(|()| sys::fcntl(fd, libc::F_ADD_SEALS, SEALS as usize))
            .and_then(|_| sys::map_guarded(fd, BYTES));
        match page {
            Ok(base) => Ok((Self { base: base.cast() }, fd)),
            Err(errno) => {
                let _ = sys::close(fd);
                Err(errno)
            }
        }
    }

    /// Maps the page of another process.
    pub fn attach(fd: i32) -> Answer<Self> {
        let seals = sys::fcntl(fd, libc::F_GET_SEALS, 0)?;
        let whole = sys::fstat(fd)?.st_size as usize == BYTES;
        if seals & libc::F_SEAL_SHRINK == 0 || !whole || !sys::is_tmpfs(fd) {
            return Err(libc::EPROTO);
        }
        Ok(Self { base: sys::map_guarded(fd, BYTES)?.cast() })
    }

    #[inline]
    pub fn word(&self, bell: u16) -> BellWord<'static> {
        // SAFETY: inside the mapping; whoever unmaps it has given up all uses.
        let words = unsafe { &*self.base.add(bell as usize % BELLS) };
        BellWord { sleepers: &words.sleepers, rung: &words.rung }
    }

    /// # Safety
    /// Nobody may use the page any more.
    pub unsafe fn unmap(self) {
        // SAFETY: the caller's promise.
        unsafe { sys::unmap_guarded(self.base.cast_mut().cast(), BYTES) };
    }
}

const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
