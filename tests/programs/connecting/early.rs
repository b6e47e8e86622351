//! Options that were set before there was a connection: on a listener, whose connections inherit them, or before `connect`.

use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::{Case, net, show, sys};
use convoy_tests::say;

use crate::{chat, pair};

/// A connection with an option of the socket level, and its two ends: the one that has the option first.
fn with_option(inherited: bool, name: i32, value: i32) -> (Stream, Stream) {
    let (listener, port) = net::listen(Family::V4);
    let client = net::socket(Family::V4, 0);
    let place = if inherited { listener } else { client };
    sys::setsockopt(place, libc::SOL_SOCKET, name, &value).unwrap();
    let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::V4, port));
    sys::close(listener).unwrap();
    chat(&mut one, &mut two, 20, 100);
    if inherited { (two, one) } else { (one, two) }
}

pub(crate) fn early_low_water_mark(_: &mut Case) {
    for inherited in [true, false] {
        let (mut one, mut two) = with_option(inherited, libc::SO_RCVLOWAT, 50);
        two.send_with(10, 0).unwrap();
        say!("too little: {}", sys::events(sys::poll_one(one.fd, libc::POLLIN, 50)));
        two.send_with(40, 0).unwrap();
        say!("enough: {}", sys::events(sys::poll_one(one.fd, libc::POLLIN, -1)));
        say!("recv: {}", show(one.recv_with(100, 0)));
    }
}

pub(crate) fn early_time_stamps(_: &mut Case) {
    for name in [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS] {
        for inherited in [true, false] {
            let (mut one, mut two) = with_option(inherited, name, 1);
            // The kernel begins to stamp a moment after somebody has asked for it.
            let stamped = (0..5000).any(|_| {
                two.send_with(10, 0).unwrap();
                let mut came = Vec::new();
                one.get(10, |fd, buffer| {
                    let (result, control) = sys::recvmsg_control(fd, buffer, libc::MSG_WAITALL, 200);
                    came = control;
                    result
                })
                .unwrap();
                came.iter().any(|item| (item.level, item.kind) == (libc::SOL_SOCKET, name))
            });
            say!("{name}, inherited {inherited}: stamped {stamped}");
        }
    }
}
