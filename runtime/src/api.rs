//! What the preload library may ask of the runtime: one function per intercepted call that matters.
//!
//! Contract. `Handled` is `None` when the descriptor (or none of the descriptors) is Convoy's concern:
//! the hook then makes the real call. `Some(Ok(n))` is the value to return with errno untouched,
//! `Some(Err(e))` is -1 with errno `e`. For a *tracked* descriptor (a TCP socket that is connected or
//! connecting, or an epoll instance) the runtime makes every kernel call itself, by raw system call.
//! No function here touches errno, panics, or (on the data path) allocates.

use crate::config::{self, settings};
use crate::position::Opener;
use crate::table::{self, Entry};
use crate::{
    close, confine, demote, epoll, iov, listing, memory, options, socket, stats, stream, transfer, wait,
};
use core::ffi::{CStr, c_int, c_void};

mod processes;

pub use crate::inside::Heap;
pub use processes::{
    after_failed_chroot, after_failed_exec, after_fork_in_child, after_fork_in_parent, before_chroot,
    before_confinement, before_exec, before_exit, before_fork, before_identity_change, fork_failed,
    in_vfork_child, io_uring_allowed, passive, signal, start,
};

/// Outcome of a call offered to the runtime; `None` means "make the real call".
pub type Handled = Option<Result<usize, c_int>>;

/// The program's allocator has no more memory: for a while nothing new leaves the kernel.
pub fn note_exhausted() {
    memory::note_exhausted();
}

// ---- life of a descriptor -------------------------------------------------------------------------

/// True when calls on `fd` must be offered to the runtime: one load and one branch. Any value is allowed.
#[inline(always)]
pub fn tracked(fd: c_int) -> bool {
    table::tracked(fd)
}

/// True for a descriptor that belongs to Convoy itself (bells, segments). The program must not end it:
/// close gives EBADF, close_range and closefrom go around it, dup2/dup3 onto it first calls [`vacate`].
#[inline(always)]
pub fn private(fd: c_int) -> bool {
    table::tracked(fd) && table::get(fd) == Entry::Private
}

/// A program wants the number of a private descriptor (dup2/dup3 onto it): Convoy moves its own elsewhere.
pub fn vacate(fd: c_int) {
    close::vacate(fd);
}

/// Call BEFORE the real close of `fd` (close, dup2/dup3 target, fclose, freopen...). Ends the stream if this
/// was the last descriptor of it in the process. Does not close the descriptor itself.
pub fn before_close(fd: c_int) {
    close::before_close(fd);
}

/// The numbers in `first..=last` that are private, in ascending order, so that close_range can go around.
/// Fills `into` and returns how many there are (at most `into.len()`).
pub fn private_in_range(first: u32, last: u32, into: &mut [c_int]) -> usize {
    let found = table::tracked_in(first, last).filter(|(_, entry)| *entry == Entry::Private);
    let mut count = 0;
    for ((fd, _), place) in found.zip(into.iter_mut()) {
        *place = fd;
        count += 1;
    }
    count
}

/// Whether a listing of the open directory `directory` has to leave `name` out: it is a descriptor of Convoy's own, in
/// this process's list of descriptors.
pub fn hides(directory: c_int, name: &CStr) -> bool {
    listing::hides(directory, name)
}

/// [`hides`] for a directory that is known by its path.
pub fn hides_at(path: &CStr, name: &CStr) -> bool {
    listing::hides_at(path, name)
}

/// [`before_close`] for every tracked descriptor in `first..=last`.
pub fn before_close_range(first: u32, last: u32) {
    close::before_close_range(first, last);
}

/// The kernel has just handed out `fd` for something that is not a TCP connection: clear a stale slot.
#[inline(always)]
pub fn forget(fd: c_int) {
    if table::tracked(fd) {
        close::before_close(fd);
    }
}

/// `new` now refers to what `old` refers to (dup, dup2, dup3, F_DUPFD). The slot of `new` was cleared before.
pub fn after_dup(old: c_int, new: c_int) {
    close::after_dup(old, new);
}

/// `connect(fd)` returned `result` (0, or a negated errno such as -EINPROGRESS).
/// `address` is the destination as the program gave it.
///
/// # Safety
/// `address` points to `length` readable bytes or is null.
pub unsafe fn after_connect(fd: c_int, result: c_int, address: *const libc::sockaddr, length: u32) {
    // SAFETY: the caller's promise.
    if result == 0 && unsafe { dissolves(address, length) } {
        close::before_close(fd);
        return;
    }
    if !matches!(result, 0 | EINPROGRESS) {
        return;
    }
    if let Some(socket) = table::socket(fd).and_then(socket::at) {
        socket.set_opener(Opener::This);
        return;
    }
    if enabled()
        // SAFETY: the caller's promise.
        && unsafe { is_inet(address, length) }
        && socket::is_tcp(fd)
    {
        socket::follow(fd, Opener::This);
    }
}

/// `accept`/`accept4` on `listener` returned `fd`. `address` is the peer address the kernel gave.
/// A hook that got a null address from the program passes null here.
///
/// # Safety
/// `address` points to `length` readable bytes or is null.
pub unsafe fn after_accept(listener: c_int, fd: c_int, address: *const libc::sockaddr, length: u32) {
    let _ = listener;
    forget(fd);
    // SAFETY: the caller's promise.
    if enabled() && (address.is_null() || unsafe { is_inet(address, length) }) && socket::is_tcp(fd) {
        socket::follow(fd, Opener::Peer);
    }
}

/// `fd` came in an SCM_RIGHTS message: a connection of another process stays with the kernel.
pub fn after_arrival(fd: c_int) {
    if enabled() && socket::is_tcp(fd) {
        stats::process().bypasses_received.add(1);
    }
}

/// `shutdown(fd, how)`; the runtime makes the kernel call for a tracked descriptor.
pub fn shutdown(fd: c_int, how: c_int) -> Handled {
    close::shutdown(fd, how)
}

/// The program does something with `fd` that cannot be followed (fdopen, dprintf, passing it with SCM_RIGHTS,
/// an unusual option): its stream goes back to the kernel, or never leaves it. `reason` is counted.
pub fn demote(fd: c_int, reason: Reason) {
    demote::demote(fd, reason);
}

/// Why a stream was left to the kernel or went back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `fdopen`, `freopen`, `dprintf`: libc's inner calls cannot be intercepted.
    Stdio,
    /// The descriptor travels to another process in an SCM_RIGHTS message.
    Passed,
    /// exec or posix_spawn into another program image.
    Exec,
    /// A socket option or ioctl that needs the kernel's data path (kTLS, SO_ZEROCOPY, SO_TIMESTAMP, ...).
    Option,
    /// A call with no user-space equivalent (MSG_OOB, io_uring, ...).
    Call,
    /// The process changes its user, its root directory or its namespaces, or confines itself.
    Identity,
}

/// Whether program memory can lie at an address at all; a cheap check before a pointer is followed, so that a bad
/// one gets the kernel's EFAULT.
#[inline(always)]
pub fn plausible(address: usize, bytes: usize) -> bool {
    iov::plausible(address, bytes)
}

/// Whether buffers have no room at all.
///
/// # Safety
/// `parts` points to `count` iovecs, if memory can be there.
pub unsafe fn is_empty(parts: *const libc::iovec, count: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { iov::is_empty(parts, count) }
}

// ---- data -----------------------------------------------------------------------------------------

/// write, writev, send, sendto, sendmsg (without control data) on a tracked descriptor.
///
/// # Safety
/// `parts` points to `count` valid iovecs whose memory is readable.
pub unsafe fn send(fd: c_int, parts: *const libc::iovec, count: usize, flags: c_int) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { stream::send(fd, parts, count, flags) }
}

/// read, readv, recv, recvfrom, recvmsg on a tracked descriptor. The hook fills name, control and msg_flags
/// as TCP does (name length 0; no control data but that of [`bytes_left`]).
///
/// # Safety
/// `parts` points to `count` valid iovecs whose memory is writable.
pub unsafe fn receive(fd: c_int, parts: *const libc::iovec, count: usize, flags: c_int) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { stream::receive(fd, parts, count, flags) }
}

/// recvmsg with room for control data on a tracked descriptor: the whole call, where the kernel has some to give because
/// of an option that has led the stream back to it.
///
/// # Safety
/// `message` is valid.
pub unsafe fn receive_with_control(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { stream::receive_with_control(fd, message, flags) }
}

/// sendfile(out, in, offset, count); either side may be tracked.
///
/// # Safety
/// `offset` is null or points to a valid off_t.
pub unsafe fn sendfile(out: c_int, input: c_int, offset: *mut libc::off_t, count: usize) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { transfer::sendfile(out, input, offset, count) }
}

/// splice(...); either side may be tracked.
///
/// # Safety
/// The offsets are null or point to valid values.
pub unsafe fn splice(
    input: c_int,
    input_offset: *mut i64,
    output: c_int,
    output_offset: *mut i64,
    length: usize,
    flags: u32,
) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { transfer::splice(input, input_offset, output, output_offset, length, flags) }
}

// ---- waiting --------------------------------------------------------------------------------------

/// poll and ppoll. `timeout` is null for "for ever"; `mask` is null or a signal mask to install while asleep.
///
/// # Safety
/// `set` points to `count` pollfd, `timeout` and `mask` are null or valid.
pub unsafe fn poll(
    set: *mut libc::pollfd,
    count: usize,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { wait::poll::poll(set, count, timeout, mask) }
}

/// `epoll_create`/`epoll_create1` returned `fd`.
pub fn after_epoll_create(fd: c_int) {
    forget(fd);
    if enabled() {
        epoll::follow(fd);
    }
}

/// epoll_ctl on a tracked epoll descriptor.
///
/// # Safety
/// `event` is null or points to a valid event.
pub unsafe fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut libc::epoll_event) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { epoll::control(epoll, operation, fd, event) }
}

/// epoll_wait, epoll_pwait and epoll_pwait2 on a tracked epoll descriptor (`timeout` as for [`poll`]).
///
/// # Safety
/// `events` has room for `count` events, `timeout` and `mask` are null or valid.
pub unsafe fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { epoll::wait(epoll, events, count, timeout, mask) }
}

// ---- options --------------------------------------------------------------------------------------

/// Before the real setsockopt on a tracked descriptor: an option that the channel cannot honour demotes. The hook makes the real
/// call unless there is a result.
///
/// # Safety
/// `value` is null or points to `length` readable bytes.
pub unsafe fn before_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: u32,
) -> Handled {
    // SAFETY: the caller's promise.
    let number = (length >= 4 && !value.is_null()).then(|| unsafe { value.cast::<c_int>().read_unaligned() });
    options::before_set(fd, level, name, number)
}

/// Before the real getsockopt on a tracked descriptor: one option reads the stream.
pub fn before_getsockopt(fd: c_int, level: c_int, name: c_int) {
    options::before_get(fd, level, name);
}

/// Before fcntl(F_SETFL) with O_ASYNC, or ioctl FIOASYNC, on a tracked descriptor.
pub fn before_signals(fd: c_int) {
    options::before_signals(fd);
}

/// After fcntl(F_SETFL), ioctl FIONBIO or a socket option on a tracked descriptor: whether and how long its calls block may
/// have changed.
pub fn after_mode_change(fd: c_int) {
    options::after_mode_change(fd);
}

/// ioctl SIOCATMARK on a tracked descriptor, where the kernel's answer would be wrong.
pub fn at_mark(fd: c_int) -> Handled {
    options::at_mark(fd)
}

/// After a successful real getsockopt on a tracked descriptor: adds what went through the channel (TCP_INFO).
///
/// # Safety
/// `value` points to `length` writable bytes, as the kernel filled them.
pub unsafe fn after_getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: u32) {
    // SAFETY: the caller's promise.
    unsafe { options::after_get(fd, level, name, value, length) };
}

/// ioctl FIONREAD/SIOCINQ on a tracked descriptor: bytes readable without blocking (kernel and channel).
pub fn readable_bytes(fd: c_int) -> Handled {
    options::readable_bytes(fd)
}

/// What a message that was received with TCP_INQ on reports as control data of that kind; nothing without the option.
pub fn bytes_left(fd: c_int) -> Option<c_int> {
    options::bytes_left(fd)
}

const EINPROGRESS: c_int = -libc::EINPROGRESS;

/// Whether new connections are followed.
pub(crate) fn enabled() -> bool {
    !confine::confined() && settings().enabled && settings().fabric != config::Fabric::Off
}

/// connect(2) with AF_UNSPEC ends a connection.
///
/// # Safety
/// `address` is null or points to `length` readable bytes.
unsafe fn dissolves(address: *const libc::sockaddr, length: u32) -> bool {
    // SAFETY: at least the family can be read.
    !address.is_null()
        && length as usize >= size_of::<libc::sa_family_t>()
        && i32::from(unsafe { (*address).sa_family }) == libc::AF_UNSPEC
}

/// # Safety
/// `address` is null or points to `length` readable bytes.
unsafe fn is_inet(address: *const libc::sockaddr, length: u32) -> bool {
    if address.is_null() || (length as usize) < size_of::<libc::sa_family_t>() {
        return false;
    }
    // SAFETY: at least the family can be read.
    let family = unsafe { (*address).sa_family };
    matches!(i32::from(family), libc::AF_INET | libc::AF_INET6)
}
