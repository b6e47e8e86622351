//! epoll_ctl: promoted streams are registered here, everything else with the kernel.

use super::{at, watch};
use crate::api::Handled;
use crate::socket::{self, State};
use crate::table::{self, Entry};
use crate::{promote, sys};

/// See [`crate::api::epoll_ctl`].
///
/// # Safety
/// As there.
pub unsafe fn control(epoll: i32, operation: i32, fd: i32, event: *mut libc::epoll_event) -> Handled {
    let Entry::Epoll(number) = table::get(epoll) else {
        return None;
    };
    let instance = at(number)?;
    // SAFETY: null or a valid event, by the caller's promise.
    let wanted = unsafe { event.as_ref() }.copied();
    let member = table::socket(fd).and_then(socket::at);
    if operation == libc::EPOLL_CTL_MOD && rearm(instance, member, fd, wanted) {
        return Some(Ok(0));
    }
    let mut state = instance.lock();
    while member.is_some_and(|socket| socket.state() == State::Moving) {
        drop(state);
        sys::sched_yield();
        state = instance.lock();
    }
    if state.is_promoted(fd) {
        return Some(change_promoted(&mut state, operation, fd, wanted));
    }
    if state.nested.iter().any(|nested| nested.fd == fd) {
        return Some(change_nested(&mut state, operation, fd, wanted));
    }
    if operation == libc::EPOLL_CTL_ADD
        && let Some(wanted) = wanted
        && let Some(index) = table::socket(fd)
        && let Some(socket) = socket::at(index).filter(|socket| socket.state() == State::Promoted)
        && let Some((channel, slot, _)) = socket.stream_of(index, fd)
    {
        if !exclusive_is_legal(wanted.events) {
            return Some(Err(libc::EINVAL));
        }
        let entered = state.enter(fd, index, channel, slot, &wanted);
        if entered.is_ok() {
            state.count_if_ready(fd);
            watch(socket, number, fd);
        }
        return Some(entered.map(|()| 0));
    }
    // SAFETY: the caller's promise.
    let result = unsafe { sys::epoll_ctl(epoll, operation, fd, event) };
    if result.is_ok() {
        note_kernel(&mut state, operation, fd, wanted);
    }
    Some(result.map(|()| 0))
}

fn change_promoted(
    state: &mut super::instance::State,
    operation: i32,
    fd: i32,
    wanted: Option<libc::epoll_event>,
) -> Result<usize, i32> {
    match (operation, wanted) {
        (libc::EPOLL_CTL_ADD, _) => Err(libc::EEXIST),
        (libc::EPOLL_CTL_MOD, Some(wanted)) => {
            let known = state.item(fd).map_or(0, |item| item.events);
            if (wanted.events | known) & libc::EPOLLEXCLUSIVE as u32 != 0 {
                return Err(libc::EINVAL);
            }
            state.modify(fd, &wanted);
            Ok(0)
        }
        (libc::EPOLL_CTL_DEL, _) => {
            state.park(fd);
            Ok(0)
        }
        (libc::EPOLL_CTL_MOD, None) => Err(libc::EFAULT),
        _ => Err(libc::EINVAL),
    }
}

fn change_nested(
    state: &mut super::instance::State,
    operation: i32,
    fd: i32,
    wanted: Option<libc::epoll_event>,
) -> Result<usize, i32> {
    if operation == libc::EPOLL_CTL_ADD {
        return Err(libc::EEXIST);
    }
    if !matches!(operation, libc::EPOLL_CTL_DEL | libc::EPOLL_CTL_MOD) {
        return Err(libc::EINVAL);
    }
    let known = state.nested.iter().position(|nested| nested.fd == fd);
    if let Some(position) = known {
        state.nested.remove(position);
    }
    match (operation, wanted) {
        (libc::EPOLL_CTL_MOD, Some(wanted)) => state.nest(fd, &wanted).map(|()| 0),
        (libc::EPOLL_CTL_MOD, None) => Err(libc::EFAULT),
        // SAFETY: no event is needed to delete.
        _ => unsafe { sys::epoll_ctl(state.fd, libc::EPOLL_CTL_DEL, fd, core::ptr::null_mut()) }.map(|()| 0),
    }
}

/// EPOLLEXCLUSIVE goes with few other flags (epoll_ctl(2)).
fn exclusive_is_legal(events: u32) -> bool {
    let allowed = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLWAKEUP;
    let allowed = (allowed | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32;
    events & libc::EPOLLEXCLUSIVE as u32 == 0 || events & !allowed == 0
}

/// The kernel has accepted a change. An epoll instance among the members is judged here from now on.
fn note_kernel(
    state: &mut super::instance::State,
    operation: i32,
    fd: i32,
    wanted: Option<libc::epoll_event>,
) {
    match (operation, wanted) {
        (libc::EPOLL_CTL_DEL, _) => state.remove_item(fd),
        (libc::EPOLL_CTL_ADD, Some(wanted)) if matches!(table::get(fd), Entry::Epoll(_)) => {
            let _ = state.nest(fd, &wanted);
        }
        (_, Some(wanted)) => state.remember(fd, &wanted),
        _ => {}
    }
}

/// A one-shot registration of a candidate is armed again: it has fired, so no other thread gets an event of it now,
/// and it may move. True when it did.
fn rearm(
    instance: &super::instance::Instance,
    member: Option<&socket::Socket>,
    fd: i32,
    wanted: Option<libc::epoll_event>,
) -> bool {
    let Some(wanted) = wanted.filter(|event| event.events & libc::EPOLLONESHOT as u32 != 0) else {
        return false;
    };
    let Some(socket) = member.filter(|socket| socket.state() == State::Candidate) else { return false };
    let Some(index) = table::socket(fd) else { return false };
    let mut state = instance.lock();
    if state.item(fd).is_none() || state.is_promoted(fd) {
        return false;
    }
    state.remember(fd, &wanted);
    drop(state);
    promote::rearmed(index, socket, fd);
    instance.lock().is_promoted(fd)
}
