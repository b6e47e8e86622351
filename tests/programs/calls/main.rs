//! The data calls, one by one, each in both directions of a stream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod edges;
mod files;
mod plain;

use convoy_tests::kit::{Link, Outcome, main as run, show};
use convoy_tests::say;

fn main() {
    run(&[
        ("read_write", plain::read_write),
        ("recv_send", plain::recv_send),
        ("readv_writev", plain::readv_writev),
        ("sendto_recvfrom", plain::sendto_recvfrom),
        ("sendmsg_recvmsg", plain::sendmsg_recvmsg),
        ("sendmmsg_recvmmsg", plain::sendmmsg_recvmmsg),
        ("pwritev2_preadv2", plain::pwritev2_preadv2),
        ("positioned", files::positioned),
        ("sendfile_to_stream", files::sendfile_to_stream),
        ("splice_both_ways", files::splice_both_ways),
        ("calls_mixed", plain::calls_mixed),
        ("short_reads", edges::short_reads),
        ("gathered_reads", edges::gathered_reads),
        ("zero_lengths", edges::zero_lengths),
        ("bad_memory", edges::bad_memory),
        ("bad_descriptors", edges::bad_descriptors),
        ("wrong_kinds", edges::wrong_kinds),
        ("own_descriptors", files::own_descriptors),
        ("raw_syscalls", plain::raw_syscalls),
    ]);
}

/// Sizes around everything that a transport may treat specially.
pub(crate) const SIZES: &[usize] = &[1, 7, 8, 63, 64, 65, 100, 1000, 1448, 4095, 4096, 4097, 16384, 40_000];

/// Sends and receives each size with the given calls; the puppet verifies what we send, and we what it sends.
pub(crate) fn exchange(
    link: &mut Link,
    sizes: &[usize],
    mut put: impl FnMut(i32, &[u8]) -> Outcome,
    mut get: impl FnMut(i32, &mut [u8]) -> Outcome,
) {
    for &size in sizes {
        link.start(&format!("recv {size}"));
        let sent = link.put(size, &mut put);
        say!("send {size}: {}, arrived {}", show(sent), link.finish());
        link.ask(&format!("send {size}"));
        link.await_bytes(size);
        let received = link.get(size, &mut get);
        say!("receive {size}: {}", show(received));
    }
}

/// Cuts a buffer into uneven parts, one of them empty.
pub(crate) fn cut(buffer: &[u8]) -> Vec<&[u8]> {
    let (one, rest) = buffer.split_at(buffer.len() / 3);
    let (two, three) = rest.split_at(rest.len() / 4);
    vec![one, &[], two, three]
}

pub(crate) fn cut_mut(buffer: &mut [u8]) -> Vec<&mut [u8]> {
    let (one, rest) = buffer.split_at_mut(buffer.len() / 5);
    let (two, three) = rest.split_at_mut(rest.len() / 2);
    vec![one, two, &mut [], three]
}
