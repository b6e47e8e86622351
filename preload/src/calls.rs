//! The real functions behind the hooks: how they are called, and that all are found when the library is
//! loaded.
//!
//! redhook finds a symbol at its first use. A first use in the middle of a program may be inside a signal
//! handler, a vfork child or an allocator, where `dlsym` is not safe; hence the search at load. A hook that
//! runs even earlier (another library's constructor) still finds its symbol by itself.

use core::ffi::{CStr, c_void};

use crate::hooks;

/// Makes the real call: `original!(read(fd, buffer, length))`.
macro_rules! original {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        let found = found::$name.load(core::sync::atomic::Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: the function the program called, with arguments it vouches for (passed on, or made from
            // them).
            $crate::calls::aside(move || unsafe { redhook::real!($name)($($argument),*) })
        } else {
            // SAFETY: as above; `found` holds what redhook's function returns.
            unsafe { $crate::calls::typed(found, || redhook::real!($name))($($argument),*) }
        }
    }};
}

/// Offers a call on `fd` to the runtime if `fd` is tracked, and returns its answer; else, or when it has
/// none, the real call's: `offered!(fd, offer, read(fd, buffer, length))`.
macro_rules! offered {
    ($fd:expr, $offer:expr, $name:ident ( $($argument:expr),* $(,)? )) => {{
        if convoy_runtime::api::tracked($fd) {
            // Its own function, so that the way past it needs no stack frame.
            return $crate::calls::aside(move || match $offer {
                Some(result) => $crate::errno::size(result) as _,
                None => original!($name($($argument),*)),
            });
        }
        original!($name($($argument),*))
    }};
}

/// Defines `resolve()`, which finds the listed real functions of the module's hooks, and where it keeps them.
macro_rules! resolve {
    ($($name:ident)*) => {
        /// The real functions, null before `resolve()` or where this libc has none.
        #[allow(non_upper_case_globals)]
        mod found {
            use core::{ffi::c_void, ptr, sync::atomic::AtomicPtr};

            $(pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());)*
        }

        /// Finds the real functions of this module.
        pub(crate) fn resolve() {
            // A symbol that this libc lacks must not be asked for: redhook panics.
            $(if $crate::calls::exists($crate::calls::c_name(concat!(stringify!($name), "\0"))) {
                let real = redhook::real!($name) as *mut core::ffi::c_void;
                found::$name.store(real, core::sync::atomic::Ordering::Relaxed);
            })*
        }
    };
}

/// Runs `call` out of line.
#[inline(never)]
pub(crate) fn aside<R>(call: impl FnOnce() -> R) -> R {
    call()
}

/// The address of a function as a function of the type that `_like` returns.
///
/// # Safety
/// `address` is a function of that type.
#[inline(always)]
pub(crate) unsafe fn typed<F: Copy>(address: *mut c_void, _like: impl FnOnce() -> F) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: of the same size, and a function of that type by the caller's promise.
    unsafe { core::mem::transmute_copy(&address) }
}

/// A name made by `concat!(.., "\0")` as a C string.
pub(crate) const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => c"",
    }
}

/// True when a library loaded after this one defines `name`.
pub(crate) fn exists(name: &CStr) -> bool {
    // SAFETY: a terminated name.
    !unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.is_null()
}

/// Finds every real function now.
pub(crate) fn resolve_all() {
    hooks::data::resolve();
    hooks::vector::resolve();
    hooks::message::resolve();
    hooks::descriptor::resolve();
    hooks::create::resolve();
    hooks::directory::resolve();
    hooks::connect::resolve();
    hooks::wait::resolve();
    hooks::select::resolve();
    hooks::signals::resolve();
    hooks::epoll::resolve();
    hooks::options::resolve();
    hooks::process::resolve();
    hooks::identity::resolve();
    hooks::stdio::resolve();
    hooks::uring::resolve();
    hooks::aio::resolve();
}
