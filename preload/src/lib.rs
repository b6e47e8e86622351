//! `libconvoy.so`: the libc socket calls, intercepted.
//!
//! Only the C ABI lives here: pointers, errno, the list of symbols and the moment of loading. What a call
//! means for an accelerated stream is decided in `convoy_runtime::api`; a hook asks `api::tracked` first and,
//! for every descriptor that is not Convoy's concern, makes the real call and nothing else.
//!
//! Rules for every hook: it never panics, never allocates on the data path, leaves errno as the kernel would,
//! and works before this library's own constructor ran (other libraries' constructors open sockets too).
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("libconvoy.so is written for Linux on x86-64 with glibc");

#[macro_use]
#[allow(unsafe_code)]
mod calls;
#[allow(unsafe_code)]
mod errno;
#[allow(unsafe_code)]
mod hooks;
#[allow(unsafe_code)]
mod pointer;
#[allow(unsafe_code)]
mod reserve;
#[allow(unsafe_code)]
mod startup;
