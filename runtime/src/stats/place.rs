//! Where the page is: in this process's own memory at first, in a shared file once published.
//!
//! The one place that handles the page's address and maps it. A page that has been mapped is never unmapped, so
//! every reference that was ever handed out stays valid.

use super::layout::{Header, Page};
use crate::sys;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// Where counters are until a file is mapped, and if none can be.
static OWN: Page = Page::new();
/// The mapped page; null: [`OWN`].
static MAPPED: AtomicPtr<Page> = AtomicPtr::new(null_mut());
static PATH: Path = Path { state: AtomicU8::new(Path::NONE), bytes: UnsafeCell::new([0; Path::ROOM]) };

/// The path of the published file. In memory of its own, so that it can be given up in a signal handler, and nothing is
/// left that a checker would call a leak.
struct Path {
    state: AtomicU8,
    bytes: UnsafeCell<[u8; Path::ROOM]>,
}

// SAFETY: only the thread that has moved the state to CLAIMED touches the bytes, until it moves it on.
unsafe impl Sync for Path {}

impl Path {
    const NONE: u8 = 0;
    /// A thread has the bytes.
    const CLAIMED: u8 = 1;
    const PUBLISHED: u8 = 2;
    /// A directory of CONVOY_DIR's longest, and the names below it.
    const ROOM: usize = 256;

    fn claim(&self, from: u8) -> bool {
        self.state.compare_exchange(from, Self::CLAIMED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn release(&self, to: u8) {
        self.state.store(to, Ordering::Release);
    }

    /// The caller has claimed it.
    fn keep(&self, path: &CStr) -> sys::Answer<()> {
        let path = path.to_bytes_with_nul();
        // SAFETY: claimed.
        let bytes = unsafe { &mut *self.bytes.get() };
        bytes.get_mut(..path.len()).ok_or(libc::ENAMETOOLONG)?.copy_from_slice(path);
        Ok(())
    }

    /// The caller has claimed it.
    fn unlink(&self) {
        // SAFETY: claimed.
        let bytes = unsafe { &*self.bytes.get() };
        if let Ok(path) = CStr::from_bytes_until_nul(bytes) {
            let _ = sys::unlink(path);
        }
    }
}

/// The page to count in.
#[inline]
pub(super) fn page() -> &'static Page {
    let mapped = MAPPED.load(Ordering::Acquire);
    if mapped.is_null() {
        return &OWN;
    }
    // SAFETY: MAPPED holds null or a complete page that is mapped for ever (see `map`), and all of it that changes
    // after its publication is atomic.
    unsafe { &*mapped }
}

/// Counters of the time before the page was mapped that [`move_counters`] did not see.
pub(super) fn own() -> &'static Page {
    &OWN
}

pub(super) fn publish(path: &CStr, header: Header) -> sys::Answer<()> {
    if !PATH.claim(Path::NONE) {
        return Ok(());
    }
    let mapped = PATH.keep(path).and_then(|()| map(path, header));
    PATH.release(if mapped.is_ok() { Path::PUBLISHED } else { Path::NONE });
    MAPPED.store(mapped?, Ordering::Release);
    move_counters();
    Ok(())
}

/// Removes the published file; counting goes on in the page, which nobody new can open.
pub fn withdraw() {
    if PATH.claim(Path::PUBLISHED) {
        PATH.unlink();
        PATH.release(Path::NONE);
    }
}

/// Forgets the page of the parent and starts at zero in own memory.
pub(super) fn start_again() {
    PATH.release(Path::NONE);
    MAPPED.store(null_mut(), Ordering::Release);
    for counter in OWN.process.all() {
        counter.take();
    }
    for lane in &OWN.lanes {
        for counter in lane.all() {
            counter.clear();
        }
    }
}

/// Moves what was counted in own memory to the mapped page. What another thread still counts there stays there and
/// is added by whoever sums up. Lanes have a single writer each and are moved only by that rule: not at all.
fn move_counters() {
    let from = OWN.process.all();
    for (from, to) in from.iter().zip(page().process.all()) {
        to.add(from.take());
    }
}

/// Creates the file and maps it, with its header.
fn map(path: &CStr, header: Header) -> sys::Answer<*mut Page> {
    // What is left of an earlier process with this number is of no use to anybody.
    let _ = sys::unlink(path);
    let mapped = sys::with_open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600, |fd| {
        sys::ftruncate(fd, size_of::<Page>() as u64)?;
        // Reserved now, because a file system that is full later would answer a store with SIGBUS.
        sys::fallocate(fd, 0, 0, size_of::<Page>() as u64)?;
        sys::map_shared(fd, size_of::<Page>())
    })?;
    match mapped {
        Ok(address) => {
            let page = address.cast::<Page>();
            // SAFETY: the mapping is new, page-aligned, writable, as long as a Page and known to nobody else; the
            // rest of it is zero, which is a valid Page.
            unsafe { (*page).header = header };
            Ok(page)
        }
        Err(errno) => {
            let _ = sys::unlink(path);
            Err(errno)
        }
    }
}
