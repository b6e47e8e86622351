//! Networks of other shapes: three hosts, two networks between two, addresses that are translated, losses.

use convoy_tests::Mode;
use convoy_tests::arena::find;
use convoy_tests::hosts::{Pair, Plan, World, network, skip};

use crate::common::{Expect, TCP, UDP, both, both_with, check, convoy, failed_over, job, survived};

/// Three hosts on one network, each talking to both others at the same time.
fn three_hosts(provider: &str) {
    let plan = Plan { hosts: 3, networks: vec![vec![0, 1, 2]] };
    both(provider, &plan, |world| {
        let ways = [(0, 1), (1, 2), (2, 0)];
        let start = |(number, (server, client)): (usize, &(usize, usize))| {
            let job = job("echo", 3, "--bytes 800000 --io poll").port(7000 + number as u16);
            job.start(world.host(*server), world.host(*client))
        };
        let mut pairs: Vec<Pair<'_>> = ways.iter().enumerate().map(start).collect();
        pairs.iter_mut().for_each(Pair::connected);
        pairs.iter_mut().for_each(Pair::accelerated);
        pairs.iter().for_each(Pair::go);
        let said: String = pairs.into_iter().map(Pair::succeeds).collect();
        if world.accelerated() {
            world
                .check(world.links_up() == [2, 2, 2], &format!("links of each host: {:?}", world.links_up()));
        }
        said
    });
}

/// Three hosts in a triangle: each network joins two of them, so most of a host's rails lead nowhere for a given peer.
#[test]
fn three_hosts_with_a_network_for_each_two() {
    let plan = Plan { hosts: 3, networks: vec![vec![0, 1], vec![1, 2], vec![2, 0]] };
    both(TCP, &plan, |world| {
        let mut said = String::new();
        for (network, (server, client)) in [(1, 0), (2, 1), (0, 2)].into_iter().enumerate() {
            let job = job("echo", 2, "--bytes 300000").network(network).port(7000 + network as u16);
            said += &job.run(world.host(server), world.host(client));
        }
        said
    });
}

fn many_connections_share_a_link(provider: &str) {
    both(provider, &Plan::pair(), |world| {
        let said = job("pingpong", 300, "--bytes 4000").run(world.host(1), world.host(0));
        if world.accelerated() {
            world.check(world.links_up() == [1, 1], &format!("links of each host: {:?}", world.links_up()));
        }
        said
    });
}

crate::over_providers!(
    three_hosts: super::three_hosts,
    many_connections_share_a_link: super::many_connections_share_a_link,
);

/// Two networks between two hosts: a link over each, and connections over both addresses.
#[test]
fn two_rails() {
    let plan = Plan { hosts: 2, networks: vec![vec![0, 1], vec![0, 1]] };
    both(TCP, &plan, |world| {
        let start = |network: usize| {
            let job = job("echo", 4, "--bytes 500000").network(network).port(7000 + network as u16);
            job.start(world.host(1), world.host(0))
        };
        let mut pairs = [start(0), start(1)];
        pairs.iter_mut().for_each(Pair::connected);
        pairs.iter_mut().for_each(Pair::accelerated);
        pairs.iter().for_each(Pair::go);
        let said: String = pairs.into_iter().map(Pair::succeeds).collect();
        if world.accelerated() {
            world.eventually("a link over each network", || world.links_up() == [2, 2]);
        }
        said
    });
}

/// Host 1 stands between the others and changes addresses, so the ends of a connection have different ideas of it.
#[test]
fn translated_addresses() {
    if network::run("nft", "--version").is_err() {
        return skip("nft is not installed (apt-get install nftables)");
    }
    let plan = Plan { hosts: 3, networks: vec![vec![0, 1], vec![1, 2]] };
    let Some(world) = World::new(Mode::Preloaded, TCP, &plan) else { return };
    let (client, middle, server) = (world.host(0), world.host(1), world.host(2));
    let (addresses, behind) = (world.network(), world.network().address(2, 1));
    let inside = addresses.address(1, 0);
    let rules = format!(
        "table ip convoy {{
           chain before {{ type nat hook prerouting priority -100;
             ip daddr {inside} tcp dport 7001 dnat to {behind}:7001; }}
           chain after {{ type nat hook postrouting priority 100; oifname \"net1\" masquerade; }}
         }}\n"
    );
    let rules = world.file("rules.nft", rules);
    let loaded = addresses.inside(1, || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|error| error.to_string())?;
        network::run("nft", &format!("-f {}", rules.display()))
    });
    if let Err(why) = loaded {
        skip(&format!("this kernel does not translate addresses: {why}"));
        world.finish();
        return;
    }
    client.configure(&format!("route add default via {inside}")).unwrap();
    world.start_agents();
    // Only the client's address changes; then both do.
    let direct = job("echo", 3, "--bytes 300000").network(1);
    let mapped = direct.clone().port(7001);
    for (job, address) in [(direct, format!("{behind}:7000")), (mapped, format!("{inside}:7001"))] {
        let pair = job.start_at(server, client, [true, true], &address);
        pair.go();
        pair.succeeds();
    }
    check(&world, Expect::Plain);
    middle.agent_lives();
    world.finish();
}

/// A network that loses packets: TCP repairs what is its own, libfabric or the fail-over the rest.
fn losses(provider: &str) {
    both_with(provider, &Plan::pair(), Expect::Far, |world| {
        world.start_agents();
        let mut pair = job("echo", 4, "--bytes 500000").start(world.host(1), world.host(0));
        pair.connected();
        pair.accelerated();
        for host in 0..2 {
            let name = world.network().name(host);
            let lossy = format!("-n {name} qdisc add dev net0 root netem loss 1%");
            network::run("tc", &lossy).unwrap();
        }
        pair.go();
        pair.succeeds()
    });
}

#[test]
fn packet_loss() {
    let Some(world) = World::new(Mode::Native, TCP, &Plan::pair()) else { return };
    let name = world.network().name(0);
    let possible = network::run("tc", &format!("-n {name} qdisc add dev net0 root netem loss 1%"));
    world.finish();
    if let Err(why) = possible {
        return skip(&format!("this kernel cannot lose packets: {why}"));
    }
    losses(TCP);
    losses(UDP);
}

/// A slow network: what does not fit waits, and nothing else goes wrong.
#[test]
fn narrow_network() {
    convoy(TCP, &Plan::pair(), |world| {
        let narrow = |host: usize| {
            let name = world.network().name(host);
            network::run(
                "tc",
                &format!("-n {name} qdisc add dev net0 root tbf rate 40mbit burst 20kb latency 50ms"),
            )
        };
        if let Err(why) = narrow(0).and_then(|()| narrow(1)) {
            return skip(&format!("this kernel cannot slow a network down: {why}"));
        }
        world.start_agents();
        job("echo", 4, "--bytes 700000").run(world.host(1), world.host(0));
        check(world, Expect::Far);
    });
}

/// The rail that a policy wants dies under load, while the connections themselves go another way: they go on, and leave
/// the kernel again over the rail that is left.
#[test]
fn a_rail_dies() {
    let plan = Plan { hosts: 2, networks: vec![vec![0, 1], vec![0, 1]] };
    convoy(TCP, &plan, |world| {
        let policy =
            world.file("policy.toml", "[[rule]]\nallow = true\nrail = \"net1\"\n").display().to_string();
        (0..2).for_each(|host| world.host(host).start_agent(&["--insecure", "--policy", &policy]));
        let mut pair = job("echo", 6, "--bytes 0 --pace 300 --io poll").start(world.host(1), world.host(0));
        pair.connected();
        world.eventually("a link over each network", || world.links_up() == [2, 2]);
        pair.accelerated();
        pair.go();
        pair.goes_on(2);
        world.host(0).configure("link set net1 down").unwrap();
        world.host(0).agent_says("link lost");
        let streams = || pair.client.live().get("streams_far");
        let before = streams();
        world.eventually("streams leave the kernel again", || streams() > before);
        pair.goes_on(4);
        world.host(0).configure("link set net1 up").unwrap();
        world.eventually("the rail is linked again", || world.links_up() == [3, 3]);
        survived(world, pair, 6);
        failed_over(world);
    });
}

/// One link, whatever the number of sockets.
#[test]
fn five_thousand_sockets_share_a_link() {
    const SOCKETS: u64 = 5000;
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let (server, client) = (world.host(1), world.host(0));
        let (address, directory) = (server.ip(), world.path("").display().to_string());
        let mut command = server.command(
            find("redis-server", "redis-server"),
            &[
                "--port",
                "6379",
                "--bind",
                &address,
                "--save",
                "",
                "--protected-mode",
                "no",
                "--dir",
                &directory,
            ],
        );
        many_descriptors(&mut command);
        let serving = server.start("redis", command);
        world.listening(server, 6379);
        let sockets = SOCKETS.to_string();
        let arguments = ["-h", &address, "-c", &sockets, "-n", "200000", "-t", "set", "--csv"];
        let mut command = client.command(find("redis-benchmark", "redis-tools"), &arguments);
        many_descriptors(&mut command);
        let output = client.run(command);
        world.check(output.contains("\"SET\""), &output);
        serving.end(libc::SIGTERM);
        let far = world.counters().get("streams_far");
        world.check(far >= 2 * SOCKETS, &format!("{far} ends of {SOCKETS} connections left the kernel"));
        world.check(world.links_up() == [1, 1], &format!("links of each host: {:?}", world.links_up()));
    });
}

/// Redis takes 32 descriptors for itself.
fn many_descriptors(command: &mut std::process::Command) {
    let raise = || {
        let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
        // SAFETY: a live value.
        let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: one system call between fork and exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, raise) };
}
