//! A new agent takes the place of the one that runs, in mid-traffic: no byte is lost, nobody is turned away, and streams leave
//! the kernel again through the new one. Whatever goes wrong on the way, somebody goes on.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use convoy_tests::hosts::{Host, Pair, Plan, World};
use convoy_tests::kit::random::Random;

use crate::common::{TCP, accelerated_again, convoy, failed_over, load, survived};

/// Port of the agents.
const PORT: u16 = 4792;

/// Knocks at an agent's port as long as `work` lasts: how often, and how often nobody listened.
fn knocking(host: Host<'_>, work: impl FnOnce()) -> (u64, u64) {
    let (network, number, address) = (host.world().network(), host.number(), (host.address(), PORT));
    let (over, knocks, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let knock = || {
        network.inside(number, || {
            while !over.load(Ordering::Relaxed) {
                knocks.fetch_add(1, Ordering::Relaxed);
                let turned_away = |kind| kind == ErrorKind::ConnectionRefused;
                let connected = TcpStream::connect(address);
                refused.fetch_add(
                    u64::from(connected.is_err_and(|error| turned_away(error.kind()))),
                    Ordering::Relaxed,
                );
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(knock);
        work();
        over.store(true, Ordering::Relaxed);
    });
    (knocks.into_inner(), refused.into_inner())
}

/// How many streams both ends have brought out of the kernel so far.
fn far(pair: &Pair<'_>) -> [u64; 2] {
    [&pair.server, &pair.client].map(|program| program.live().get("streams_far"))
}

/// All six streams leave the kernel again, beyond those that had before.
fn leave_again(world: &World, pair: &Pair<'_>, before: [u64; 2]) {
    world.eventually("streams leave the kernel again", || {
        let now = far(pair);
        now.iter().zip(before).all(|(now, before)| *now >= before + 6)
    });
}

fn replaced_in_mid_traffic(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = load(world, 7000, "--io level");
        for host in [0, 1] {
            let (host, other, before) = (world.host(host), world.host(1 - host), far(&pair));
            let (first, marked) = (host.agent_pid(), pair.progress());
            other.agent_mark();
            let (knocks, refused) = knocking(host, || {
                host.replace_agent();
                pair.goes_on(2);
            });
            world.check(knocks > 0 && refused == 0, &format!("{refused} of {knocks} were turned away"));
            world.check(host.agent_pid() != first && pair.progress() > marked, "another agent");
            // The successor knows the other host without being asked for a connection to it.
            host.agent_says("agent found");
            leave_again(world, &pair, before);
            other.agent_lives();
        }
        survived(world, pair, 6);
        failed_over(world);
        accelerated_again(world, 7001);
    });
}

crate::over_providers!(replaced_in_mid_traffic: super::replaced_in_mid_traffic,);

/// One successor after the other, at both hosts, as fast as they come up.
#[test]
fn replaced_again_and_again_under_load() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let mut pairs = [load(world, 7000, "--io blocking"), load(world, 7200, "--io edge")];
        let (knocks, refused) = knocking(world.host(1), || {
            for round in 0..8 {
                world.host(round % 2).replace_agent();
                pairs.iter_mut().for_each(|pair| pair.goes_on(1));
            }
        });
        world.check(knocks > 0 && refused == 0, &format!("{refused} of {knocks} were turned away"));
        let before = pairs.each_ref().map(far);
        let left = |world: &World, pair: &Pair<'_>, before: [u64; 2]| {
            // Those that were on the fabric already at that moment do not leave the kernel again.
            let enough = |host: usize| world.host(host).link_counter("streams") >= 12;
            world.eventually("all streams are on the fabric", || {
                far(pair).iter().zip(before).all(|(now, before)| *now >= before) && enough(0) && enough(1)
            });
        };
        pairs.iter().zip(before).for_each(|(pair, before)| left(world, pair, before));
        pairs.into_iter().for_each(|pair| survived(world, pair, 6));
        failed_over(world);
    });
}

/// The new agent is killed at any moment of its beginning: the old one goes on, or there is none and streams are on the kernel.
#[test]
fn a_successor_that_dies() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = load(world, 7000, "--io poll");
        let (host, mut random) = (world.host(0), Random::new(11));
        let mut survived_by_old = 0;
        for _ in 0..12 {
            let handed_over = host.kill_successor(Duration::from_micros(random.below(400_000)));
            pair.goes_on(1);
            if handed_over {
                host.start_agent(&["--insecure"]);
            } else {
                survived_by_old += 1;
            }
        }
        println!("the old agent went on {survived_by_old} times of 12");
        accelerated_again(world, 7001);
        survived(world, pair, 6);
    });
}

#[test]
fn without_an_agent_there_is_nothing_to_take_over() {
    convoy(TCP, &Plan::pair(), |world| {
        let host = world.host(0);
        let mut command = host.plain(world.path("convoy"), &["agent", "--insecure", "--take-over"]);
        command.env("CONVOY_DIR", world.directory()).env("CONVOY_FABRIC", TCP);
        let ended = host.try_run(command);
        world.check(ended.status.code() == Some(1), "an agent that takes over from nobody");
        world.check(ended.stderr.contains("there is no agent to take over from"), &ended.stderr);
        world.check(ended.stderr.lines().count() == 1, &ended.stderr);
    });
}
