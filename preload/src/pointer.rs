//! What the program's pointers point to: iovecs, messages with control data, timeouts.
//!
//! A pointer that the kernel would refuse with an error is sorted out here, as far as that can be seen
//! without touching it; a bad address that is neither null nor recognisable faults, as it would inside libc.

use core::ffi::{c_int, c_void};
use core::slice;

use convoy_runtime::api::{self, Handled};
use libc::{cmsghdr, iovec, mmsghdr, msghdr, timespec, timeval};

/// The kernel's limit on iovecs and messages of one call.
pub(crate) const MOST_PARTS: usize = 1024;

/// One buffer as an iovec, or the error the kernel has for it.
#[inline]
pub(crate) fn part(buffer: *const c_void, length: usize) -> Result<iovec, c_int> {
    if length > isize::MAX as usize {
        return Err(libc::EFAULT);
    }
    Ok(iovec { iov_base: buffer.cast_mut(), iov_len: length })
}

/// True when these iovecs can be looked at: not too many, at an address where memory can be.
#[inline]
pub(crate) fn plausible(parts: *const iovec, count: usize) -> bool {
    count == 0 || count <= MOST_PARTS && api::plausible(parts as usize, count * size_of::<iovec>())
}

/// The program's message, unless its address cannot be one: the kernel then says EFAULT.
///
/// # Safety
/// `message` is valid if memory can be there.
pub(crate) unsafe fn message<'a>(message: *const msghdr) -> Option<&'a msghdr> {
    if !api::plausible(message as usize, size_of::<msghdr>()) {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { message.as_ref() }
}

/// Bytes that the iovecs of a message hold.
///
/// # Safety
/// The message's iovecs are valid.
pub(crate) unsafe fn message_length(message: &msghdr) -> usize {
    if message.msg_iov.is_null() || message.msg_iovlen == 0 {
        return 0;
    }
    // SAFETY: valid by the caller's promise.
    let parts = unsafe { slice::from_raw_parts(message.msg_iov, message.msg_iovlen) };
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.iov_len))
}

/// True when the message has room for, or carries, control data.
#[inline]
pub(crate) fn has_control(message: &msghdr) -> bool {
    message.msg_controllen > 0 && !message.msg_control.is_null()
}

/// Makes one integer, or nothing, the message's control data: level, kind, value. What does not fit is cut off, as the
/// kernel does it.
///
/// # Safety
/// The message's room for control data is writable.
pub(crate) unsafe fn fill_control(message: &mut msghdr, data: Option<(c_int, c_int, c_int)>) {
    const HEAD: usize = size_of::<cmsghdr>();
    const WHOLE: usize = HEAD + size_of::<c_int>();
    let room = core::mem::take(&mut message.msg_controllen);
    let Some((level, kind, value)) = data else { return };
    if room < WHOLE {
        message.msg_flags |= libc::MSG_CTRUNC;
    }
    if room < HEAD {
        return;
    }
    let length = room.min(WHOLE);
    let head = cmsghdr { cmsg_len: length, cmsg_level: level, cmsg_type: kind };
    let value = value.to_ne_bytes();
    // SAFETY: inside the room, which need not be aligned.
    unsafe {
        message.msg_control.cast::<cmsghdr>().write_unaligned(head);
        let behind = message.msg_control.cast::<u8>().add(HEAD);
        core::ptr::copy_nonoverlapping(value.as_ptr(), behind, length - HEAD);
    }
    message.msg_controllen = room.min(HEAD + value.len().next_multiple_of(size_of::<usize>()));
}

/// Calls `visit` for every descriptor in the message's SCM_RIGHTS control data.
///
/// # Safety
/// `message` is null or valid with its control data.
#[inline]
pub(crate) unsafe fn passed_descriptors(message: *const msghdr, visit: fn(c_int)) {
    if !api::plausible(message as usize, size_of::<msghdr>()) {
        return;
    }
    // SAFETY: null or valid, by the caller's promise.
    if let Some(message) = unsafe { message.as_ref() }
        && has_control(message)
    {
        // SAFETY: as above.
        unsafe { visit_rights(message, visit) }
    }
}

/// # Safety
/// `message` has valid control data.
#[cold]
unsafe fn visit_rights(message: &msghdr, visit: fn(c_int)) {
    // SAFETY: the CMSG walk stays inside `msg_controllen`; a header's length is checked before its data is
    // read.
    unsafe {
        let end = message.msg_control as usize + message.msg_controllen;
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            let stop = (header as usize).saturating_add((*header).cmsg_len).min(end);
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = stop.saturating_sub(data as usize) / size_of::<c_int>();
                for index in 0..count {
                    visit(data.cast::<c_int>().add(index).read_unaligned());
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

/// The `index`th of `count` messages, as sendmmsg and recvmmsg get them.
///
/// # Safety
/// `messages` points to more than `index` messages.
pub(crate) unsafe fn message_at<'a>(messages: *mut mmsghdr, index: usize) -> &'a mut mmsghdr {
    // SAFETY: inside the array, by the caller's promise; the program gives it to this call alone.
    unsafe { &mut *messages.add(index) }
}

/// A timeout in milliseconds, as poll and epoll_wait take it; negative means none.
pub(crate) fn milliseconds(timeout: c_int) -> Option<timespec> {
    (timeout >= 0).then(|| timespec {
        tv_sec: i64::from(timeout / 1000),
        tv_nsec: i64::from(timeout % 1000) * 1_000_000,
    })
}

/// A pointer to the value, or null for none.
pub(crate) fn or_null<T>(value: Option<&T>) -> *const T {
    value.map_or(core::ptr::null(), core::ptr::from_ref)
}

/// True for a timeout that the kernel accepts (null counts).
///
/// # Safety
/// `timeout` is null or valid.
pub(crate) unsafe fn timespec_valid(timeout: *const timespec) -> bool {
    // SAFETY: null or valid, by the caller's promise.
    unsafe { timeout.as_ref() }
        .is_none_or(|time| time.tv_sec >= 0 && (0..1_000_000_000).contains(&time.tv_nsec))
}

/// select's timeout with its microseconds carried into seconds, as libc does; EINVAL for a negative one.
pub(crate) fn from_timeval(time: &timeval) -> Result<timespec, c_int> {
    if time.tv_sec < 0 || time.tv_usec < 0 {
        return Err(libc::EINVAL);
    }
    Ok(timespec {
        tv_sec: time.tv_sec.saturating_add(time.tv_usec / 1_000_000),
        tv_nsec: time.tv_usec % 1_000_000 * 1000,
    })
}

/// Writes an answer of the runtime that fits an int to where the program wants it.
///
/// # Safety
/// `into` is null or points to an int.
pub(crate) unsafe fn store_int(answer: Handled, into: *mut c_int) -> Handled {
    answer.map(|result| {
        let value = result?;
        // SAFETY: null or valid, by the caller's promise.
        let into = unsafe { into.as_mut() }.ok_or(libc::EFAULT)?;
        *into = c_int::try_from(value).unwrap_or(c_int::MAX);
        Ok(0)
    })
}
