//! A candidate is promoted: its registration, which the kernel has had, is this process's from then on.

use super::{EDGE, KERNEL, ONESHOT, State};
use crate::channel::Channel;
use crate::wait::kernel_state;
use crate::{position, sys};

impl State {
    /// Takes a candidate's registration over from the kernel; true when there was one.
    pub fn adopt(&mut self, fd: i32, socket: u32, channel: &Channel, slot: u32) -> bool {
        let Some(item) = self.item(fd).copied().filter(|item| item.socket == KERNEL) else {
            return false;
        };
        // One that fires once is set again at this moment, and what it is ready for is to be reported.
        let edges = item.events & (EDGE | ONESHOT) == EDGE;
        let told = edges.then(|| self.told_by_kernel(fd)).flatten();
        // SAFETY: no event is needed to delete.
        if unsafe { sys::epoll_ctl(self.fd, libc::EPOLL_CTL_DEL, fd, core::ptr::null_mut()) }.is_err() {
            // A registration of an earlier owner of the number, which the kernel has dropped.
            self.remove_item(fd);
            return false;
        }
        let event = libc::epoll_event { events: item.events, u64: item.data };
        let entered = self.enter(fd, socket, channel, slot, &event).is_ok();
        if let Some(told) = told
            && told == KernelSide::of(fd)
            && let Some(item) = self.items.get_mut(fd as u32 as usize)
        {
            (item.in_edge, item.out_edge) = (false, told.state & libc::POLLOUT == 0);
        }
        entered
    }

    /// The kernel side of a connection, if the kernel has reported all that has become of it here.
    fn told_by_kernel(&self, fd: i32) -> Option<KernelSide> {
        let before = KernelSide::of(fd);
        (kernel_state(self.fd, libc::POLLIN) & libc::POLLIN == 0).then_some(before)
    }

    /// A one-shot registration with the kernel: it may have fired.
    pub fn unsure(&self, fd: i32) -> bool {
        self.item(fd).is_some_and(|item| item.socket == KERNEL && item.events & ONESHOT != 0)
    }
}

/// What the kernel says of a connection at a moment: what it is ready for, and how many bytes can be read.
#[derive(PartialEq, Eq)]
struct KernelSide {
    state: i16,
    readable: u64,
}

impl KernelSide {
    fn of(fd: i32) -> Self {
        let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
        Self { state: kernel_state(fd, all), readable: position::readable(fd) }
    }
}
