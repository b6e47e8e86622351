//! Reading of directories: a listing of the process's descriptors shows the program's own only.

use core::ffi::{CStr, c_char, c_int};
use core::slice;

use convoy_runtime::api;
use libc::{DIR, dirent};
use redhook::hook;

use crate::errno;

resolve! {
    readdir readdir64 scandir scandir64
}

type Filter = Option<unsafe extern "C" fn(*const dirent) -> c_int>;
type Order = Option<unsafe extern "C" fn(*mut *const dirent, *mut *const dirent) -> c_int>;

/// The number in the name of an entry that may stand for a descriptor: a link, as those are in /proc.
///
/// # Safety
/// An entry that readdir or scandir gave, and that lives as long as the answer is used.
unsafe fn descriptor<'a>(entry: *const dirent) -> Option<&'a CStr> {
    // SAFETY: the caller's promise.
    let kind = unsafe { (*entry).d_type };
    // SAFETY: the name is terminated.
    let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
    (matches!(kind, libc::DT_LNK | libc::DT_UNKNOWN) && name.to_bytes()[0].is_ascii_digit()).then_some(name)
}

/// Whether the program must not find `entry` in `directory`.
///
/// # Safety
/// `entry` is what readdir gave for `directory`.
unsafe fn hidden(directory: *mut DIR, entry: *const dirent) -> bool {
    // SAFETY: the caller's promise.
    let name = unsafe { descriptor(entry) };
    // SAFETY: a directory that the program reads.
    name.is_some_and(|name| api::hides(unsafe { libc::dirfd(directory) }, name))
}

// On x86-64 both names stand for the same structures.

macro_rules! readdir_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(directory: *mut DIR) -> *mut dirent => $hook {
                loop {
                    let entry = original!($name(directory));
                    // SAFETY: an entry of this directory.
                    if entry.is_null() || !unsafe { hidden(directory, entry) } {
                        return entry;
                    }
                }
            }
        }
    };
}
readdir_hook!(readdir => on_readdir);
readdir_hook!(readdir64 => on_readdir64);

/// Takes hidden entries out of what scandir gave; gives the new count.
///
/// # Safety
/// `list` has `count` entries from malloc.
unsafe fn sift(path: *const c_char, list: *mut *mut dirent, count: c_int) -> c_int {
    // SAFETY: scandir has opened the path.
    let path = unsafe { CStr::from_ptr(path) };
    // SAFETY: the caller's promise.
    let entries = unsafe { slice::from_raw_parts_mut(list, count as usize) };
    let mut kept = 0;
    for index in 0..entries.len() {
        let entry = entries[index];
        // SAFETY: an entry of the list.
        if unsafe { descriptor(entry) }.is_some_and(|name| api::hides_at(path, name)) {
            // SAFETY: from malloc, and no longer in the list.
            unsafe { libc::free(entry.cast()) };
        } else {
            entries[kept] = entry;
            kept += 1;
        }
    }
    kept as c_int
}

macro_rules! scandir_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(
                path: *const c_char, list: *mut *mut *mut dirent, filter: Filter, order: Order
            ) -> c_int => $hook {
                let count = original!($name(path, list, filter, order));
                if count <= 0 {
                    return count;
                }
                // SAFETY: scandir has filled the list.
                errno::preserved(|| unsafe { sift(path, *list, count) })
            }
        }
    };
}
scandir_hook!(scandir => on_scandir);
scandir_hook!(scandir64 => on_scandir64);
