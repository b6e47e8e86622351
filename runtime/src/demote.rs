//! Back to the kernel: for calls and options the channel cannot honour.

use crate::api::Reason;
use crate::socket::{self, State};
use crate::{agent, epoll, promote, stats, sys, table};
use core::sync::atomic::Ordering;

/// Leaves the connection behind `fd` to the kernel: a candidate for good; of a promoted stream, what this side
/// sends from now on, and the peer is asked to do the same. False when unread bytes have to stay in the channel.
pub fn demote(fd: i32, reason: Reason) -> bool {
    let Some(index) = table::socket(fd) else { return true };
    let Some(socket) = socket::at(index) else { return true };
    match socket.state() {
        State::Candidate => {
            crate::close::withdraw_offer(socket);
            agent::withdraw(index, socket);
            if promote::forget_all(index, socket, fd) {
                count_bypass(reason);
            } else if socket.state() == State::Promoted {
                return demote(fd, reason);
            }
            true
        }
        State::Promoted => {
            count_demotion(reason);
            let why = words(reason);
            crate::log_debug!("{socket} goes back to the kernel: {why}");
            socket.share_modes(fd);
            let mut back = true;
            if let Some((channel, slot, generation)) = socket.stream_of(index, fd) {
                if channel.is_traced() {
                    channel.trace_demote(slot, generation, why);
                }
                channel.await_return(slot, fd);
                channel.shut_down_now(slot, fd);
                channel.send_through_kernel(slot, generation);
                back = if channel.leads_to_agent() {
                    channel.recall_far(slot, generation, fd)
                } else {
                    channel.recall(slot, generation, fd)
                };
                if !back {
                    let peer = channel.peer.pid();
                    crate::log_warn!(
                        "{socket} could not go back to the kernel ({why}): its unread bytes cannot be put there, \
                         process {peer} does not answer or its socket cannot be copied"
                    );
                }
                socket.hint.store(true, Ordering::Relaxed);
                epoll::readable(core::iter::once(index + 1));
            }
            back
        }
        State::Moving => {
            sys::sched_yield();
            demote(fd, reason)
        }
        State::Free => true,
    }
}

fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::Stdio => "fdopen, dprintf and the like",
        Reason::Passed => "passed to another process",
        Reason::Exec => "exec",
        Reason::Option => "a socket option",
        Reason::Call => "a call that only the kernel can do",
        Reason::Identity => "a change of user, root directory or namespaces, or a sandbox",
    }
}

fn count_bypass(reason: Reason) {
    let process = stats::process();
    match reason {
        Reason::Stdio => process.bypasses_stdio.add(1),
        Reason::Passed => process.bypasses_passed.add(1),
        Reason::Exec => process.bypasses_exec.add(1),
        Reason::Option => process.bypasses_option.add(1),
        Reason::Call => process.bypasses_call.add(1),
        Reason::Identity => process.bypasses_identity.add(1),
    }
}

fn count_demotion(reason: Reason) {
    let process = stats::process();
    match reason {
        Reason::Stdio => process.demotions_stdio.add(1),
        Reason::Passed => process.demotions_passed.add(1),
        Reason::Exec => process.demotions_exec.add(1),
        Reason::Option => process.demotions_option.add(1),
        Reason::Call => process.demotions_call.add(1),
        Reason::Identity => process.demotions_identity.add(1),
    }
}
