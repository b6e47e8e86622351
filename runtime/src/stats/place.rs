//! Where the page is: in this process's own memory at first, in a shared file once published.
//!
//! The one place that handles the page's address and maps it. A page that has been mapped is never unmapped, so
//! every reference that was ever handed out stays valid.

use super::layout::{Header, Page};
use crate::sys;
use core::ffi::c_char;
use core::ptr::{null_mut, without_provenance_mut};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::ffi::{CStr, CString};

/// Where counters are until a file is mapped, and if none can be.
static OWN: Page = Page::new();
/// The mapped page; null: [`OWN`].
static MAPPED: AtomicPtr<Page> = AtomicPtr::new(null_mut());
/// Path of the published file (leaked, a few bytes); null: none. [`CLAIMED`] while a thread publishes.
static PATH: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
const CLAIMED: *mut c_char = without_provenance_mut(1);

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
    if PATH.compare_exchange(null_mut(), CLAIMED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return Ok(());
    }
    match map(path, header) {
        Ok(page) => {
            PATH.store(CString::from(path).into_raw(), Ordering::Release);
            MAPPED.store(page, Ordering::Release);
            move_counters();
            Ok(())
        }
        Err(errno) => {
            PATH.store(null_mut(), Ordering::Release);
            Err(errno)
        }
    }
}

/// Removes the published file; counting goes on in the page, which nobody new can open.
pub fn withdraw() {
    let path = PATH.swap(null_mut(), Ordering::AcqRel);
    if path.is_null() || path == CLAIMED {
        return;
    }
    // SAFETY: a non-null PATH that is not CLAIMED came from `CString::into_raw` and is never freed.
    let _ = sys::unlink(unsafe { CStr::from_ptr(path) });
}

/// Forgets the page of the parent and starts at zero in own memory.
pub(super) fn start_again() {
    PATH.store(null_mut(), Ordering::Release);
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
    let fd = sys::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
    let reserved = sys::ftruncate(fd, size_of::<Page>() as u64)
        // Reserved now, because a file system that is full later would answer a store with SIGBUS.
        .and_then(|()| sys::fallocate(fd, 0, 0, size_of::<Page>() as u64));
    let mapped = reserved.and_then(|()| sys::map_shared(fd, size_of::<Page>()));
    let _ = sys::close(fd);
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
