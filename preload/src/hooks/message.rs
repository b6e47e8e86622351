//! Messages: sendmsg, recvmsg, sendmmsg, recvmmsg, and the descriptors that travel in them.

use core::ffi::{c_int, c_uint};

use convoy_runtime::api::{self, Handled, Reason};
use libc::{mmsghdr, msghdr, timespec};
use redhook::hook;

use super::descriptor;
use crate::{errno, pointer};

resolve! {
    sendmsg recvmsg sendmmsg __sendmmsg recvmmsg
}

/// A descriptor leaves in an SCM_RIGHTS message: who gets it may know nothing of Convoy.
fn pass(fd: c_int) {
    if api::tracked(fd) {
        api::demote(fd, Reason::Passed);
    }
}

/// A descriptor arrived in an SCM_RIGHTS message.
fn arrive(fd: c_int) {
    api::after_arrival(descriptor::made(fd));
}

/// Offers a message on a tracked descriptor. Control data on TCP (time stamps, kTLS records) is the kernel's.
///
/// # Safety
/// `message` is null or valid.
unsafe fn send_message(fd: c_int, message: *const msghdr, flags: c_int) -> Handled {
    // SAFETY: null or valid, by the caller's promise.
    let message = unsafe { pointer::message(message) }?;
    if pointer::has_control(message) {
        api::demote(fd, Reason::Call);
        return None;
    }
    // SAFETY: the message's iovecs, valid by the caller's promise.
    unsafe {
        if !pointer::plausible(message.msg_iov, message.msg_iovlen) {
            return None;
        }
        api::send(fd, message.msg_iov, message.msg_iovlen, flags)
    }
}

/// Offers a message on a tracked descriptor, and fills in what the kernel's TCP fills in. The error queue is
/// no part of the stream, so it is read from the kernel.
///
/// # Safety
/// `message` is null or valid.
unsafe fn receive_message(fd: c_int, message: *mut msghdr, flags: c_int) -> Handled {
    // SAFETY: null or valid, by the caller's promise.
    unsafe { pointer::message(message) }?;
    // SAFETY: looked at above.
    let message = unsafe { message.as_mut() }?;
    if flags & libc::MSG_ERRQUEUE != 0 || !pointer::plausible(message.msg_iov, message.msg_iovlen) {
        return None;
    }
    if pointer::has_control(message)
        // SAFETY: as above.
        && let answer @ Some(_) = unsafe { api::receive_with_control(fd, message, flags) }
    {
        return answer;
    }
    // SAFETY: as above.
    let answer = unsafe { api::receive(fd, message.msg_iov, message.msg_iovlen, flags) };
    if let Some(Ok(_)) = answer {
        if !message.msg_name.is_null() {
            message.msg_namelen = 0;
        }
        message.msg_flags = flags & (libc::MSG_CMSG_CLOEXEC | libc::MSG_OOB);
        let left = if pointer::has_control(message) { api::bytes_left(fd) } else { None };
        // SAFETY: the message's room for control data.
        unsafe {
            pointer::fill_control(message, left.map(|left| (libc::IPPROTO_TCP, libc::TCP_CM_INQ, left)))
        };
    }
    answer
}

hook! {
    unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize => on_sendmsg {
        if api::tracked(fd) {
            // SAFETY: the program's message.
            if let Some(result) = unsafe { send_message(fd, message, flags) } {
                return errno::size(result);
            }
        } else {
            // SAFETY: as above.
            unsafe { pointer::passed_descriptors(message, pass) };
        }
        original!(sendmsg(fd, message, flags))
    }
}

hook! {
    unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize => on_recvmsg {
        if api::tracked(fd)
            // SAFETY: the program's message.
            && let Some(result) = unsafe { receive_message(fd, message, flags) }
        {
            return errno::size(result);
        }
        let result = original!(recvmsg(fd, message, flags));
        if result >= 0 {
            // SAFETY: the message as the kernel has just filled it.
            unsafe { pointer::passed_descriptors(message, arrive) };
        }
        result
    }
}

/// sendmmsg on a tracked descriptor: as the kernel does it, one message after the other until one does not go
/// out whole. Like the kernel it reports an error only when no message went out.
///
/// # Safety
/// `messages` points to `count` valid messages.
unsafe fn send_many(fd: c_int, messages: *mut mmsghdr, count: usize, flags: c_int) -> c_int {
    let saved = errno::get();
    let mut sent = 0;
    while sent < count {
        // SAFETY: inside the program's array.
        let (message, result) = unsafe {
            let message = pointer::message_at(messages, sent);
            let result = on_sendmsg(fd, &message.msg_hdr, flags);
            (message, result)
        };
        if result < 0 {
            if sent == 0 {
                return -1;
            }
            break;
        }
        message.msg_len = result as c_uint;
        sent += 1;
        // SAFETY: the iovecs of a message that was just sent.
        if (result as usize) < unsafe { pointer::message_length(&message.msg_hdr) } {
            break;
        }
    }
    errno::set(saved);
    sent as c_int
}

/// recvmmsg on a tracked descriptor. As in the kernel the timeout is looked at only between messages.
///
/// # Safety
/// `messages` points to `count` valid messages, `timeout` is null or valid.
unsafe fn receive_many(
    fd: c_int,
    messages: *mut mmsghdr,
    count: usize,
    mut flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let saved = errno::get();
    // SAFETY: null or valid, by the caller's promise.
    let mut clock = unsafe { timeout.as_mut() }.map(|left| (super::select::deadline(left), left));
    let mut received = 0;
    while received < count {
        // SAFETY: inside the program's array.
        let (message, result) = unsafe {
            let message = pointer::message_at(messages, received);
            let result = on_recvmsg(fd, &mut message.msg_hdr, flags & !libc::MSG_WAITFORONE);
            (message, result)
        };
        if result < 0 {
            if received == 0 {
                return -1;
            }
            break;
        }
        message.msg_len = result as c_uint;
        received += 1;
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        if let Some((deadline, left)) = &mut clock {
            **left = super::select::time_until(deadline);
            if left.tv_sec == 0 && left.tv_nsec == 0 {
                break;
            }
        }
    }
    errno::set(saved);
    received as c_int
}

/// Visits the descriptors in the first `count` messages.
///
/// # Safety
/// `messages` is null or points to `count` valid messages.
unsafe fn visit_many(messages: *mut mmsghdr, count: usize, visit: fn(c_int)) {
    if !messages.is_null() {
        for index in 0..count.min(pointer::MOST_PARTS) {
            // SAFETY: inside the program's array.
            unsafe { pointer::passed_descriptors(&pointer::message_at(messages, index).msg_hdr, visit) };
        }
    }
}

macro_rules! sendmmsg_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int => $hook {
                if !messages.is_null() && api::tracked(fd) {
                    // SAFETY: the program's messages, no more than the kernel takes in one call.
                    return unsafe { send_many(fd, messages, (count as usize).min(pointer::MOST_PARTS), flags) };
                }
                // SAFETY: the program's messages.
                unsafe { visit_many(messages, count as usize, pass) };
                original!($name(fd, messages, count, flags))
            }
        }
    };
}
sendmmsg_hook!(sendmmsg => on_sendmmsg);
sendmmsg_hook!(__sendmmsg => on_sendmmsg_alias);

hook! {
    unsafe fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec
    ) -> c_int => on_recvmmsg {
        // SAFETY: the program's pointers, no more messages than the kernel takes in one call.
        if !messages.is_null() && api::tracked(fd) && unsafe { pointer::timespec_valid(timeout) } {
            let count = (count as usize).min(pointer::MOST_PARTS);
            // SAFETY: as above.
            return unsafe { receive_many(fd, messages, count, flags, timeout) };
        }
        let result = original!(recvmmsg(fd, messages, count, flags, timeout));
        // SAFETY: the messages that the kernel has just filled.
        unsafe { visit_many(messages, usize::try_from(result).unwrap_or(0), arrive) };
        result
    }
}
